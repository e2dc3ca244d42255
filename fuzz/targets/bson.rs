//! Arbitrary bytes are refused, or are a document that can be compared and encoded as valid JSON. If the `bson` crate can read
//! them too, the JSON is the same as by a simple implementation.
#![no_main]

use bson::Document as Tree;
use libfuzzer_sys::fuzz_target;
use records::record::{Document, Key};
use records::wire;
use records_fuzz::obvious;

fuzz_target!(|bytes: &[u8]| {
    compare(bytes);
    // The same bytes with a correct length and end, so that the fuzzer need not find those.
    let mut framed = [&[0; 4], bytes, &[0]].concat();
    let length = framed.len() as i32;
    framed[..4].copy_from_slice(&length.to_le_bytes());
    compare(&framed);
});

fn compare(bytes: &[u8]) {
    let document = Document::new(bytes.to_vec());
    let mut json = Vec::new();
    if let Ok(document) = &document {
        wire::document(&mut json, document.bson()).expect("a valid document has JSON");
        let parsed = serde_json::from_slice::<&serde_json::value::RawValue>(&json);
        assert!(parsed.is_ok(), "{parsed:?} in {}", String::from_utf8_lossy(&json));
        let key = document.key();
        assert_eq!(Key::from_bytes(key.as_bytes()).as_ref(), Ok(key));
    }
    let Ok(tree) = Tree::from_reader(bytes) else { return };
    // A document that the tree writes differently has content that the tree cannot hold, such as a repeated name.
    if !tree.to_vec().is_ok_and(|written| written == bytes) {
        return;
    }
    assert!(document.is_ok(), "{document:?}, although it can be read: {tree:?}");
    if let Some(slow) = obvious::slow_document(&tree) {
        assert_eq!(String::from_utf8_lossy(&json), slow);
    }
}
