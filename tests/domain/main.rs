//! The rules of the domain: parsing documents, their JSON, the order of their keys, and the ids in URLs.

#[path = "../support/documents.rs"]
mod documents;

mod decimal;
mod extended_json;
mod ids;
mod keys;
mod reader;
mod refusals;
mod seed;
mod slow;
mod types;
mod wire;

use records::record::Document;

/// Returns the wire JSON of a document.
fn json(document: &Document) -> String {
    let mut out = Vec::new();
    records::wire::document(&mut out, document.bson()).expect("a document is BSON");
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// Converts the document to a tree of the `bson` crate.
fn tree(document: &Document) -> bson::Document {
    bson::Document::from_reader(&**document.bson()).expect("a document is BSON")
}
