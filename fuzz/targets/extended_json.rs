//! Whatever a file holds, it is read to its end: documents, or what is wrong with them. A document that is taken is valid
//! JSON on the wire, and the same record by way of BSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use records::document::{Document, extended_json, reader::Documents};
use records_fuzz::bson;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(document) = extended_json::parse(bytes) {
        check(&document);
    }
    // At most one document or error for each byte, or the reader does not come to an end.
    let mut items = 0;
    for item in Documents::new(bytes) {
        items += 1;
        assert!(items <= bytes.len() + 1, "the reader goes on for ever");
        if let Ok(document) = item.expect("memory can be read") {
            check(&document);
        }
    }
});

fn check(document: &Document) {
    let record = document.to_record();
    serde_json::from_slice::<&serde_json::value::RawValue>(record.json()).expect("a record is JSON");
    let mut encoded = Vec::new();
    bson::with_length(&mut encoded, |out| bson::append_fields(out, document.fields()));
    assert_eq!(encoded.len(), document.encoded_len());
    let mut json = Vec::new();
    let key = bson::to_json(&mut json, &encoded).expect("what is stored can be read");
    assert_eq!(&key, record.key());
    assert_eq!(String::from_utf8_lossy(&json), String::from_utf8_lossy(record.json()));
}
