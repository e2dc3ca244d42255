//! Commands that are written as bytes, compared with the `bson` crate; and bytes that are not BSON.

use mongodb::bson::{Document as Tree, RawDocument};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::*;
use super::documents;
use super::obvious::slow_document;
use crate::record::rank;
use crate::wire;

/// Checks that `bytes` are refused, or can be compared and encoded.
fn assert_read_or_refused(bytes: &[u8]) {
    let Ok(document) = Document::new(bytes.to_vec()) else { return };
    let mut json = Vec::new();
    wire::document(&mut json, document.bson()).expect("it is valid");
    let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(&json);
    assert!(parsed.is_ok(), "{parsed:?} in {}", String::from_utf8_lossy(&json));
}

/// Corrects the outermost length and the final NUL, so that the error is deeper.
fn framed(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = bytes.len().max(5);
    bytes.resize(length, 0);
    bytes[..4].copy_from_slice(&(length as i32).to_le_bytes());
    bytes[length - 1] = 0;
    bytes
}

proptest! {
    #[test]
    fn an_update_command_is_what_the_crate_would_write(documents in vec(documents::document(), 1..4)) {
        let command = update_command("records", &documents).expect("a command");
        let tree = |document: &Document| Tree::try_from(RawDocument::from_bytes(document.bson()).expect("BSON"));
        let updates: Vec<_> = documents.iter().map(|document| {
            let document = tree(document).expect("a tree");
            let id = document.get("_id").expect("an _id").clone();
            doc! { "q": { "_id": { "$eq": id } }, "u": document, "upsert": true }
        }).collect();
        let expected = doc! { "update": "records", "updates": updates, "ordered": false };
        prop_assert_eq!(command.as_bytes(), expected.to_vec().expect("bytes"));
    }

    #[test]
    fn the_keys_of_an_id_can_stand_in_a_filter(text in documents::text()) {
        let numbers_strings_binary_object_ids_booleans_dates = [20, 30, 60, 70, 80, 90];
        let keys = RecordId::from(text).keys();
        for key in &keys {
            prop_assert!(numbers_strings_binary_object_ids_booleans_dates.contains(&key.rank()), "{:?}", key);
        }
        let filter = filter_by_keys(&keys);
        let ids = match filter.get_document("_id") {
            Ok(operators) => operators.get_array("$in").expect("keys").len(),
            Err(_) => 1,
        };
        prop_assert_eq!(ids, keys.len());
    }

    #[test]
    fn json_is_what_the_obvious_way_gives(document in documents::document()) {
        let tree = Tree::try_from(RawDocument::from_bytes(document.bson()).expect("BSON")).expect("a tree");
        if let Some(slow) = slow_document(&tree) {
            let mut json = Vec::new();
            wire::document(&mut json, document.bson()).expect("a document");
            prop_assert_eq!(String::from_utf8_lossy(&json), slow);
        }
    }

    #[test]
    fn a_truncated_document_is_refused(document in documents::document()) {
        let bytes = document.bson();
        for length in 0..bytes.len() {
            prop_assert!(Document::new(bytes.slice(..length)).is_err(), "cut to {} bytes", length);
            assert_read_or_refused(&framed(bytes[..length].to_vec()));
        }
    }

    #[test]
    fn changed_bytes_are_read_or_refused(
        document in documents::document(),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = document.bson().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            assert_read_or_refused(&bytes);
        }
        assert_read_or_refused(&framed(bytes));
    }

    #[test]
    fn random_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        assert_read_or_refused(&bytes);
        assert_read_or_refused(&framed(bytes.clone()));
        // The same as a field of each type.
        for kind in (0..=0x13).chain([0x7f, 0xff]) {
            let field = [&[0; 4], &[kind][..], b"_id\0", &bytes, &[0]].concat();
            assert_read_or_refused(&framed(field));
        }
    }
}

#[test]
fn endless_nesting_is_refused() {
    for (kind, name) in [(3_u8, "a"), (4, "0"), (15, "a")] {
        let mut bytes = framed(vec![0; 5]);
        for _ in 0..5_000 {
            // The document so far becomes the only field of a new one.
            let value = match kind {
                15 => {
                    let length = bytes.len() as i32 + 9;
                    [&length.to_le_bytes()[..], &[1, 0, 0, 0, 0], &bytes].concat()
                }
                _ => bytes,
            };
            bytes = framed([&[0; 4], &[kind][..], name.as_bytes(), &[0], &value, &[0]].concat());
        }
        assert!(Document::new(bytes).is_err());
    }
}

#[test]
fn a_document_without_an_id_is_not_written() {
    let document = Document::new(framed(vec![0; 5])).expect("an empty document");
    assert!(update_command("records", &[document]).is_err());
}

/// The tree types of the `bson` crate cannot hold a text that is not UTF-8.
#[test]
fn an_id_that_is_not_utf_8_is_written_as_it_is() {
    let bytes = framed(b"\0\0\0\0\x02_id\0\x03\0\0\0\xff\xfe\0\0".to_vec());
    let document = Document::new(bytes.clone()).expect("BSON");
    assert_eq!(document.key().rank(), rank(ElementType::String));
    let command = update_command("records", &[document]).expect("a command");
    assert!(command.as_bytes().windows(bytes.len()).any(|window| window == bytes));
}
