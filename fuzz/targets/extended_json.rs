//! Any file is read to its end, as documents and errors. Every store can hold an accepted document, and its JSON is the same as
//! by a simple implementation.
#![no_main]

use std::io::ErrorKind;

use bson::Document as Tree;
use libfuzzer_sys::fuzz_target;
use records::document::{extended_json, reader::Documents, validate};
use records::record::Document;
use records::wire;
use records_fuzz::obvious;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(document) = extended_json::parse(bytes) {
        check(&document);
    }
    // There is at most one document or error for each byte, unless the reader never ends. This build decompresses nothing.
    let mut items = 0;
    for item in Documents::new(bytes) {
        items += 1;
        assert!(items <= bytes.len() + 1, "the reader goes on for ever");
        match item {
            Ok(Ok(document)) => check(&document),
            Ok(Err(_)) => {}
            // The file ends within a character, or within a compressed block.
            Err(error) => assert!(matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof), "{error}"),
        }
    }
});

fn check(document: &Document) {
    assert_eq!(Document::new(document.bson().clone()).as_ref(), Ok(document));
    let tree = Tree::from_reader(&**document.bson()).expect("the bson crate reads what it has written");
    assert_eq!(tree.keys().next().map(String::as_str), Some("_id"));
    // The document is valid, with its `_id` at the front.
    assert_eq!(validate(tree.clone()).as_ref(), Ok(document));
    let mut json = Vec::new();
    wire::document(&mut json, document.bson()).expect("a valid document has JSON");
    serde_json::from_slice::<&serde_json::value::RawValue>(&json).expect("the JSON is valid");
    if let Some(slow) = obvious::slow_document(&tree) {
        assert_eq!(String::from_utf8_lossy(&json), slow);
    }
}
