//! Properties of Extended JSON as it is parsed, and of the JSON of what was parsed.

use proptest::prelude::*;
use records::document::{extended_json, validate};

use crate::documents::{canonical, fields, narrowed, relaxed, stored};
use crate::{json, slow, tree};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_document_that_mongodb_stores_is_taken_with_its_id_first(fields in fields()) {
        prop_assert_eq!(validate(fields.clone()).unwrap(), stored(&fields));
    }

    #[test]
    fn canonical_text_reads_back_as_the_same_document(fields in fields()) {
        let read = extended_json::parse(canonical(&fields).as_bytes()).unwrap();
        prop_assert_eq!(read, stored(&fields));
    }

    #[test]
    fn relaxed_text_reads_back_as_the_same_document_but_for_the_width_of_integers(fields in fields()) {
        let read = extended_json::parse(relaxed(&fields).as_bytes()).unwrap();
        prop_assert_eq!(read, stored(&narrowed(&fields)));
    }

    #[test]
    fn a_record_has_the_bytes_of_the_slow_mapping_from_either_form(fields in fields()) {
        let document = stored(&fields);
        let expected = slow::object(&tree(&document));
        for text in [canonical(&fields), relaxed(&fields)] {
            let read = extended_json::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(&json(&read), &expected);
            prop_assert_eq!(read.key(), document.key());
        }
    }

    #[test]
    fn a_record_is_one_line_of_valid_json(fields in fields()) {
        let json = json(&validate(fields).unwrap());
        prop_assert!(!json.contains('\n'));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok_and(|json| json.is_object()));
    }

    #[test]
    fn the_id_comes_first_and_the_other_fields_keep_their_order(fields in fields()) {
        let document = tree(&validate(fields.clone()).unwrap());
        let others: Vec<_> = fields.keys().filter(|name| *name != "_id").collect();
        let mut names = document.keys();
        prop_assert_eq!(names.next().map(String::as_str), Some("_id"));
        prop_assert_eq!(names.collect::<Vec<_>>(), others);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,80}") {
        let _ = extended_json::parse(text.as_bytes());
    }

    #[test]
    fn no_damage_to_a_text_makes_the_parser_panic(
        fields in fields(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
    ) {
        let mut text = canonical(&fields).into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        let _ = extended_json::parse(if cut { &text[..at] } else { &text });
    }
}
