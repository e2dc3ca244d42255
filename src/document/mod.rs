//! What enters a store from a file: documents in MongoDB Extended JSON.
//!
//! - [`extended_json`] turns one JSON text into a document; `wrapper` knows the type wrappers in it.
//! - [`reader`] takes a file apart into such texts, and names the line of an invalid one.
//! - [`validate`] checks what every store must agree on.

pub mod extended_json;
pub mod reader;
mod wrapper;

use bson::Bson;

use crate::record::Document;

/// The largest document that MongoDB stores, in bytes of BSON
/// ([limits](https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-BSON-Document-Size)).
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The bytes by which a command may exceed a document: it holds the `_id` a second time.
pub const MAX_COMMAND_EXTRA_BYTES: usize = 16 * 1024;

/// How deep MongoDB lets documents and arrays nest, the document itself counted; code with scope counts as two levels
/// ([limits](https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-Nested-Depth-for-BSON-Documents)).
pub const MAX_DEPTH: usize = 100;

/// Why a document cannot be stored. The text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidationError {
    #[error("it has no `_id`")]
    NoId,
    #[error("its `_id` is {0}, which MongoDB does not take")]
    IdType(&'static str),
    #[error("the field name `{0}` starts with `$`, which MongoDB keeps for operators")]
    OperatorName(String),
    #[error("the field `{0}` is the empty timestamp, which MongoDB would replace by its own clock")]
    EmptyTimestamp(String),
    #[error("it nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("it takes {0} bytes as BSON: at most {MAX_BYTES} can be stored")]
    TooLarge(usize),
    #[error(
        "it takes {0} bytes with its `_id` twice, as a command holds it: at most {MAX_BYTES} + {MAX_COMMAND_EXTRA_BYTES}"
    )]
    IdTooLarge(usize),
    #[error("it cannot be written as BSON: {0}")]
    NotBson(String),
}

/// Checks what all stores must agree on, so that each of them takes what one takes. The `_id` comes first, where MongoDB would
/// move it.
///
/// # Errors
///
/// When MongoDB would not store the document, or would change it.
pub fn validate(mut document: bson::Document) -> Result<Document, ValidationError> {
    let id = document.remove("_id").ok_or(ValidationError::NoId)?;
    validate_id(&id)?;
    for (name, value) in &document {
        if name.starts_with('$') {
            return Err(ValidationError::OperatorName(name.clone()));
        }
        if matches!(value, Bson::Timestamp(timestamp) if timestamp.time == 0 && timestamp.increment == 0) {
            return Err(ValidationError::EmptyTimestamp(name.clone()));
        }
    }
    let id_depth = value_depth(&id);
    if 1 + id_depth.max(depth(&document) - 1) > MAX_DEPTH {
        return Err(ValidationError::TooDeep);
    }
    let mut whole = bson::Document::new();
    whole.insert("_id", id);
    whole.extend(document);
    let not_bson = |error: &dyn std::fmt::Display| ValidationError::NotBson(error.to_string());
    let bytes = whole.to_vec().map_err(|error| not_bson(&error))?;
    if bytes.len() > MAX_BYTES {
        return Err(ValidationError::TooLarge(bytes.len()));
    }
    let document = Document::new(bytes).map_err(|error| not_bson(&error))?;
    // The key is about as long as the `_id`.
    let twice = document.bson().len() + document.key().as_bytes().len();
    if twice > MAX_BYTES + MAX_COMMAND_EXTRA_BYTES / 2 {
        return Err(ValidationError::IdTooLarge(twice));
    }
    Ok(document)
}

fn validate_id(id: &Bson) -> Result<(), ValidationError> {
    match id {
        Bson::Array(_) => Err(ValidationError::IdType("an array")),
        Bson::RegularExpression(_) => Err(ValidationError::IdType("a regular expression")),
        Bson::Undefined => Err(ValidationError::IdType("undefined")),
        Bson::Timestamp(timestamp) if timestamp.time == 0 && timestamp.increment == 0 => {
            Err(ValidationError::EmptyTimestamp("_id".to_owned()))
        }
        Bson::Document(fields) => match fields.keys().find(|name| name.starts_with('$')) {
            Some(name) => Err(ValidationError::OperatorName(name.clone())),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn depth(document: &bson::Document) -> usize {
    1 + document.iter().map(|(_, value)| value_depth(value)).max().unwrap_or(0)
}

fn value_depth(value: &Bson) -> usize {
    match value {
        Bson::Document(document) => depth(document),
        Bson::Array(values) => 1 + values.iter().map(value_depth).max().unwrap_or(0),
        Bson::JavaScriptCodeWithScope(code) => 1 + depth(&code.scope),
        _ => 0,
    }
}
