//! The sample data.

use std::collections::HashSet;

use records::document::reader::Documents;

use crate::json;

const SEED: &[u8] = include_bytes!("../../seed/elements.jsonl");

#[test]
fn every_line_of_the_seed_is_a_document_with_a_key_of_its_own() {
    let documents: Vec<_> = Documents::new(SEED).map(|read| read.unwrap().unwrap()).collect();
    let keys: HashSet<_> = documents.iter().map(|document| document.key().clone()).collect();
    assert_eq!((documents.len(), keys.len()), (118, 118));
}

#[test]
fn the_seed_uses_the_range_of_the_format() {
    let records: Vec<_> = Documents::new(SEED).map(|read| json(&read.unwrap().unwrap())).collect();
    let all = records.join("\n");
    for part in ["\"atomic number\":1,", "\"水素\"", ":null", ":1.008,", "\"shells\":[1]", ".000Z\"", ":false"] {
        assert!(all.contains(part), "{part} is nowhere in the seed");
    }
}
