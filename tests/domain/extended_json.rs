//! Properties of Extended JSON on its way in, and of the record on its way out.

use proptest::prelude::*;
use records::document::{Document, extended_json};

use crate::documents::{canonical, fields, narrowed, relaxed};
use crate::slow;

/// Tells apart what `==` does not (`0.0` and `-0.0`), and finds equal what `==` does not (NaN and NaN).
fn exactly(document: &Document) -> String {
    format!("{document:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn canonical_text_reads_back_as_the_same_document(fields in fields()) {
        let document = Document::new(fields.clone()).unwrap();
        let read = extended_json::parse(canonical(&fields).as_bytes()).unwrap();
        prop_assert_eq!(exactly(&read), exactly(&document));
    }

    #[test]
    fn relaxed_text_reads_back_as_the_same_document_but_for_the_width_of_integers(fields in fields()) {
        let document = Document::new(narrowed(&fields)).unwrap();
        let read = extended_json::parse(relaxed(&fields).as_bytes()).unwrap();
        prop_assert_eq!(exactly(&read), exactly(&document));
    }

    #[test]
    fn a_record_has_the_bytes_of_the_slow_mapping_whichever_form_it_came_in(fields in fields()) {
        let document = Document::new(fields.clone()).unwrap();
        let record = document.to_record();
        let json = std::str::from_utf8(record.json()).unwrap();
        prop_assert_eq!(json, slow::object(document.fields()));
        prop_assert_eq!(record.key(), document.key());
        for text in [canonical(&fields), relaxed(&fields)] {
            prop_assert_eq!(extended_json::parse(text.as_bytes()).unwrap().to_record(), record.clone());
        }
    }

    #[test]
    fn a_record_is_one_line_of_valid_json(fields in fields()) {
        let record = Document::new(fields).unwrap().to_record();
        prop_assert!(!record.json().contains(&b'\n'));
        prop_assert!(serde_json::from_slice::<serde_json::Value>(record.json()).is_ok_and(|json| json.is_object()));
    }

    #[test]
    fn the_id_comes_first_and_the_other_fields_keep_their_order(fields in fields()) {
        let document = Document::new(fields.clone()).unwrap();
        let names = |fields: &[(Box<str>, _)]| fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let others: Vec<_> = names(&fields).into_iter().filter(|name| &**name != "_id").collect();
        prop_assert_eq!(&*document.fields()[0].0, "_id");
        prop_assert_eq!(names(&document.fields()[1..]), others);
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
