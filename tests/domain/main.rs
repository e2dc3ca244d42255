//! The domain's rules: what text is a document, what record it becomes, which id finds it.

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
