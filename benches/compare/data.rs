//! The records that every contestant serves.

use records::document::extended_json;
use records::record::Document;

pub const FEW: u32 = 2_500;

/// Returns documents of about 250 bytes of JSON, with ObjectIds.
pub fn documents(count: u32) -> impl Iterator<Item = (String, Document)> {
    (0..count).map(|n| {
        let id = format!("5f0000009a3c77e1{n:08x}");
        let line = format!(
            r#"{{"_id":{{"$oid":"{id}"}},"name":"Notebook, ruled, 96 sheets","number":{n},"price":{}.25,"size":{{"width":21.0,"height":29.7}},"tags":["paper","school","office"],"made":{{"$date":"2015-09-10T08:55:47Z"}},"note":"Élégant, and long enough to be a sentence."}}"#,
            n % 1_000
        );
        (id, extended_json::parse(line.as_bytes()).expect("a document"))
    })
}

/// Returns the paths of `few` out of `count` records, in another order than that of the ids.
pub fn paths(count: u32, few: u32) -> Vec<String> {
    // The step shares no factor with either count, so every path comes once before one comes twice.
    (0..few)
        .map(|n| (u64::from(n) * 7_368_787 % u64::from(count)) as u32)
        .map(|n| format!("/api/v1/records/5f0000009a3c77e1{n:08x}"))
        .collect()
}

/// Returns the wire JSON of the document.
pub fn json(document: &Document) -> Vec<u8> {
    let mut json = Vec::new();
    records::wire::document(&mut json, document.bson()).expect("BSON");
    json
}
