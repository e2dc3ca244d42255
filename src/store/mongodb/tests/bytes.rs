//! BSON as this crate writes and reads it, against the driver's crate, and against bytes that are no BSON.

use mongodb::bson::{Bson, Document as Tree, RawDocument};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::bson::{append_fields, from_key, to_json, with_length};
use super::documents;
use super::obvious::slow_document;
use crate::document::Document;
use crate::record::{Key, rank};

fn encoded(document: &Document) -> Vec<u8> {
    let mut bytes = Vec::new();
    with_length(&mut bytes, |out| append_fields(out, document.fields()));
    bytes
}

/// Whatever the bytes are, they are an error or JSON, and never a panic.
fn reads_or_refuses(bytes: &[u8]) {
    let mut json = Vec::new();
    if to_json(&mut json, bytes).is_ok() {
        let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(&json);
        assert!(parsed.is_ok(), "{parsed:?} in {}", String::from_utf8_lossy(&json));
    }
}

/// Makes the outermost length and the final NUL right, so that what is wrong is found deeper in.
fn framed(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = bytes.len().max(5);
    bytes.resize(length, 0);
    bytes[..4].copy_from_slice(&(length as i32).to_le_bytes());
    bytes[length - 1] = 0;
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_what_the_driver_reads_and_writes(document in documents::document()) {
        let bytes = encoded(&document);
        prop_assert_eq!(bytes.len(), document.encoded_len());
        prop_assert!(RawDocument::from_bytes(&bytes).is_ok());
        let tree = Tree::from_reader(bytes.as_slice()).expect("a document");
        prop_assert_eq!(tree.to_vec().expect("bytes"), bytes);
    }

    #[test]
    fn what_is_read_is_the_record_of_the_document(document in documents::document()) {
        let mut json = Vec::new();
        let key = to_json(&mut json, &encoded(&document)).expect("a record");
        let record = document.to_record();
        prop_assert_eq!(String::from_utf8_lossy(&json), String::from_utf8_lossy(record.json()));
        prop_assert_eq!(&key, record.key());
    }

    #[test]
    fn what_is_read_is_what_the_obvious_way_gives(document in documents::document()) {
        let bytes = encoded(&document);
        let tree = Tree::from_reader(bytes.as_slice()).expect("a document");
        if let Some(slow) = slow_document(&tree) {
            let mut json = Vec::new();
            to_json(&mut json, &bytes).expect("a record");
            prop_assert_eq!(String::from_utf8_lossy(&json), slow);
        }
    }

    /// Keys go to the server to be looked up, and as the bound that a list begins at.
    #[test]
    fn a_key_goes_to_the_server_as_the_id_it_came_from(value in documents::value()) {
        let mut bytes = Vec::new();
        with_length(&mut bytes, |out| super::super::bson::append_element(out, "_id", &value));
        let key = to_json(&mut Vec::new(), &bytes).expect("any type may be an _id here");
        let id = Tree::from_reader(bytes.as_slice()).expect("a document").remove("_id").expect("an _id");
        let sent = from_key(&key);
        match (&id, &sent) {
            // Numbers, also those in a document, go as one of the same value.
            (Bson::Int32(_) | Bson::Double(_) | Bson::Decimal128(_) | Bson::Document(_) | Bson::Array(_), sent) => {
                let again = mongodb::bson::doc! { "_id": sent.clone() }.to_vec().expect("bytes");
                prop_assert_eq!(to_json(&mut Vec::new(), &again).expect("an _id"), key);
            }
            _ => prop_assert_eq!(format!("{sent:?}"), format!("{id:?}")),
        }
    }

    #[test]
    fn a_document_that_is_cut_is_refused(document in documents::document()) {
        let bytes = encoded(&document);
        for length in 0..bytes.len() {
            prop_assert!(to_json(&mut Vec::new(), &bytes[..length]).is_err(), "cut to {} bytes", length);
            reads_or_refuses(&framed(bytes[..length].to_vec()));
        }
    }

    #[test]
    fn changed_bytes_are_read_or_refused(
        document in documents::document(),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encoded(&document);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            reads_or_refuses(&bytes);
        }
        reads_or_refuses(&framed(bytes));
    }

    #[test]
    fn random_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        reads_or_refuses(&bytes);
        reads_or_refuses(&framed(bytes.clone()));
        // As the value of a field of each type.
        for kind in (0..=0x13).chain([0x7f, 0xff]) {
            let field = [&[0; 4], &[kind][..], b"_id\0", &bytes, &[0]].concat();
            reads_or_refuses(&framed(field));
        }
    }
}

#[test]
fn endless_nesting_is_refused() {
    for (open, name) in [(3_u8, "a"), (4, "0"), (15, "a")] {
        let mut bytes = framed(vec![0; 5]);
        for _ in 0..5_000 {
            // The one before, as the only field of a new one.
            let value = match open {
                15 => {
                    let length = bytes.len() as i32 + 9;
                    [&length.to_le_bytes()[..], &[1, 0, 0, 0, 0], &bytes].concat()
                }
                _ => bytes,
            };
            bytes = framed([&[0; 4], &[open][..], name.as_bytes(), &[0], &value, &[0]].concat());
        }
        assert!(to_json(&mut Vec::new(), &bytes).is_err());
    }
}

#[test]
fn a_document_without_an_id_is_refused() {
    assert!(to_json(&mut Vec::new(), &framed(vec![0; 5])).is_err());
}

/// A client can forge a cursor with any bytes in it, as many as a request's head has room for.
#[test]
fn a_forged_key_that_nests_endlessly_is_no_value() {
    let mut document = framed(vec![0; 5]);
    for _ in 0..1_700 {
        document = framed([&[0; 4], &[3, 0][..], &document, &[0]].concat());
    }
    let bytes = std::iter::once(3).chain(document).collect();
    assert_eq!(from_key(&Key::Opaque { rank: rank::DOCUMENT, bytes }), Bson::Null);
}
