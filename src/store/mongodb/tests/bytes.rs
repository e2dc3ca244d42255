//! BSON as this crate writes and reads it, against the driver's crate, and against bytes that are no BSON.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Bson, Document as Tree, RawDocument};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::bson::{append_fields, from_key, to_json, with_length};
use super::documents;
use crate::document::Document;

fn encoded(document: &Document) -> Vec<u8> {
    let mut bytes = Vec::new();
    with_length(&mut bytes, |out| append_fields(out, document.fields()));
    bytes
}

/// The mapping of [`crate::wire`] once more, the obvious and slow way. `None` where the driver's crate keeps the value to
/// itself.
fn slow(value: &Bson) -> Option<String> {
    let text = |text: &str| serde_json::to_string(text).ok();
    match value {
        Bson::Double(value) => serde_json::to_string(value).ok(),
        Bson::String(value) | Bson::Symbol(value) | Bson::JavaScriptCode(value) => text(value),
        Bson::Document(fields) => slow_document(fields),
        Bson::Array(values) => Some(format!("[{}]", values.iter().map(slow).collect::<Option<Vec<_>>>()?.join(","))),
        Bson::Binary(binary) => match binary.to_uuid() {
            Ok(uuid) if binary.subtype == BinarySubtype::Uuid => text(&uuid.to_string()),
            _ => text(&BASE64_STANDARD.encode(&binary.bytes)),
        },
        Bson::ObjectId(id) => text(&id.to_hex()),
        Bson::Boolean(value) => Some(value.to_string()),
        Bson::DateTime(date) => {
            // Years of four digits; the others have tests of their own.
            let year = -62_167_219_200_000..253_402_300_800_000_i64;
            let millis = Some(date.timestamp_millis()).filter(|millis| year.contains(millis))?;
            let time = jiff::Timestamp::from_millisecond(millis).ok()?;
            text(&time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
        }
        Bson::Null | Bson::Undefined => Some("null".into()),
        Bson::RegularExpression(regex) => text(&format!("/{}/{}", regex.pattern.as_str(), regex.options.as_str())),
        Bson::JavaScriptCodeWithScope(code) => {
            Some(format!(r#"{{"code":{},"scope":{}}}"#, text(&code.code)?, slow_document(&code.scope)?))
        }
        Bson::Int32(value) => Some(value.to_string()),
        Bson::Int64(value) => Some(value.to_string()),
        Bson::Timestamp(time) => Some(format!(r#"{{"t":{},"i":{}}}"#, time.time, time.increment)),
        Bson::Decimal128(value) => text(&value.to_string()),
        Bson::MinKey => text("MinKey"),
        Bson::MaxKey => text("MaxKey"),
        Bson::DbPointer(_) => None,
    }
}

fn slow_document(fields: &Tree) -> Option<String> {
    let field =
        |(name, value): (&String, &Bson)| Some(format!("{}:{}", serde_json::to_string(name).ok()?, slow(value)?));
    Some(format!("{{{}}}", fields.iter().map(field).collect::<Option<Vec<_>>>()?.join(",")))
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
            // Numbers go as one of the same value.
            (Bson::Int32(value), sent) => prop_assert_eq!(sent, &Bson::Int64((*value).into())),
            (Bson::Double(value), Bson::Int64(sent)) => prop_assert_eq!(*value, *sent as f64),
            (Bson::Double(value), Bson::Double(sent)) => prop_assert_eq!(value.to_bits(), sent.to_bits()),
            // A NaN deeper in is not equal to itself, so compare what is written.
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
