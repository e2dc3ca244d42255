//! Any text is an id, and stands for at most two keys, of which the last is the text itself. One record has one address:
//! a typed key shows as the text that it came from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use records::query::Cursor;
use records::record::{Key, RecordId};
use records::wire;
use records_fuzz::bson;

fuzz_target!(|text: &str| {
    let keys: Vec<Key> = RecordId::from(text).keys().collect();
    assert!(matches!(keys.as_slice(), [.., Key::String(last)] if last == text) && keys.len() <= 2, "{keys:?}");
    for key in &keys {
        let mut shown = Vec::new();
        match key {
            Key::Integer(value) => wire::integer(&mut shown, *value),
            Key::Double(value) => wire::double(&mut shown, *value),
            Key::Bool(value) => wire::boolean(&mut shown, *value),
            Key::Date(value) => wire::date(&mut shown, *value),
            Key::ObjectId(id) => wire::object_id(&mut shown, id),
            Key::Uuid(uuid) => wire::binary(&mut shown, 4, uuid),
            Key::String(text) => wire::string(&mut shown, text),
            Key::Opaque { .. } => panic!("no text stands for an opaque key"),
        }
        let shown: serde_json::Value = serde_json::from_slice(&shown).expect("wire JSON");
        match (&shown, key) {
            (serde_json::Value::String(shown), _) => assert_eq!(shown, text),
            // A whole double is the key of an integer, and shows with its `.0` all the same.
            (_, Key::Integer(value)) if text.ends_with('0') => {
                assert_eq!(text.parse::<f64>().ok(), Some(*value as f64))
            }
            (serde_json::Value::Bool(shown), _) => assert_eq!(*shown, text == "true"),
            _ => assert_eq!(shown.as_f64(), text.parse().ok()),
        }
        bson::from_key(key);
        let cursor = Cursor { key: key.clone(), value: None };
        assert_eq!(Cursor::decode(&cursor.encode(None), None), Some(cursor));
    }
});
