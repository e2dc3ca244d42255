//! Any text is an id. The last of its keys is the text itself, and every key has an address: its JSON, as an id, finds it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use records::query::{Cursor, Position, Sort};
use records::record::{Document, Key, RecordId, ValueRef, raw};
use records::wire;

fuzz_target!(|text: &str| {
    let keys = RecordId::from(text).keys();
    // At most an ObjectId, two numbers (where the text has no exact double) and the string.
    assert!(keys.last() == Some(&Key::string(text)) && keys.len() <= 4, "{keys:?}");
    for key in &keys {
        assert_eq!(Key::from_bytes(key.as_bytes()).as_ref(), Ok(key));
        let address = address(key);
        // JSON has no NaN and no infinity; only the text of a Decimal128 denotes them.
        if address == "null" && *key != Key::string("null") {
            assert!(matches!(text, "NaN" | "Infinity" | "-Infinity"), "{text:?} denotes {key:?}");
            continue;
        }
        let found = RecordId::from(address.as_str()).keys();
        assert!(found.contains(key), "{key:?} is not among the keys of {address:?}: {found:?}");
        let cursor = Cursor { position: Position::of_key(key), no_arrays: false };
        assert_eq!(Cursor::decode(&cursor.encode(&Sort::default()), &Sort::default()), Some(cursor));
    }
});

/// Returns the `_id` in the record's JSON, without the quotes of a string.
fn address(key: &Key) -> String {
    let (kind, bytes) = key.to_value().expect("a key of a text has a value");
    let mut bson = Vec::new();
    raw::append_document(&mut bson, |out| raw::append_element(out, b"_id", ValueRef { kind, bytes: &bytes }));
    let document = Document::new(bson).expect("a key gives BSON");
    assert_eq!(document.key(), key);
    let mut json = Vec::new();
    wire::document(&mut json, document.bson()).expect("a valid document has JSON");
    let json = std::str::from_utf8(&json).expect("JSON is UTF-8");
    let id = json.strip_prefix(r#"{"_id":"#).and_then(|json| json.strip_suffix('}')).expect("an object of one field");
    if id.starts_with('"') { serde_json::from_str(id).expect("a JSON string") } else { id.to_owned() }
}
