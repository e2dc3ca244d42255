//! Documents from files, in MongoDB Extended JSON.
//!
//! - [`extended_json`] parses one JSON text into a document; `wrapper` knows the type wrappers in it.
//! - [`reader`] splits a file into such texts, and names the line of an invalid one.
//! - [`validate`] accepts a document that every store can hold.

pub mod extended_json;
pub mod reader;
mod wrapper;

use bson::Bson;

use crate::record::{Document, raw};

/// The largest document that MongoDB stores, in bytes of BSON
/// ([limits](https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-BSON-Document-Size)).
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The limit for a document and its `_id` once more, in bytes of BSON: an `update` command holds both, and may be 16 KiB larger
/// than a document. Everything else in the command (names, session, cluster time) takes less than 1 KiB.
pub const MAX_BYTES_WITH_ID: usize = MAX_BYTES + 15 * 1024;

/// The depth to which MongoDB documents may nest, the document itself included; code with scope counts as two levels
/// ([limits](https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-Nested-Depth-for-BSON-Documents)).
pub const MAX_DEPTH: usize = 100;

/// The reason why a document cannot be stored.
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
        "it takes {0} bytes with its `_id` twice, as a command holds it: at most {MAX_BYTES_WITH_ID} can be stored"
    )]
    IdTooLarge(usize),
    #[error("it cannot be written as BSON: {0}")]
    NotBson(String),
}

/// Accepts a document that every store can hold. The `_id` moves to the front, where MongoDB would move it.
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
    let mut whole = bson::Document::new();
    whole.insert("_id", id);
    whole.extend(document);
    if depth(&whole) > MAX_DEPTH {
        return Err(ValidationError::TooDeep);
    }
    let not_bson = |error: &dyn std::fmt::Display| ValidationError::NotBson(error.to_string());
    let bytes = whole.to_vec().map_err(|error| not_bson(&error))?;
    if bytes.len() > MAX_BYTES {
        return Err(ValidationError::TooLarge(bytes.len()));
    }
    let id_bytes = raw::find(&bytes, b"_id").map_err(|error| not_bson(&error))?.map_or(0, |id| id.bytes.len());
    if bytes.len() + id_bytes > MAX_BYTES_WITH_ID {
        return Err(ValidationError::IdTooLarge(bytes.len() + id_bytes));
    }
    Document::new(bytes).map_err(|error| not_bson(&error))
}

fn validate_id(id: &Bson) -> Result<(), ValidationError> {
    match id {
        Bson::Array(_) => Err(ValidationError::IdType("an array")),
        Bson::RegularExpression(_) => Err(ValidationError::IdType("a regular expression")),
        Bson::Undefined => Err(ValidationError::IdType("undefined")),
        Bson::Document(fields) => match operator_name(fields) {
            Some(name) => Err(ValidationError::OperatorName(name.to_owned())),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Finds a name that starts with `$`, at any depth. MongoDB takes none in an `_id`, except for those of a DBRef.
fn operator_name(fields: &bson::Document) -> Option<&str> {
    let first: Vec<_> = fields.iter().take(3).map(|(name, value)| (name.as_str(), value)).collect();
    let db_ref = match first.as_slice() {
        [("$ref", Bson::String(_)), ("$id", _), ("$db", Bson::String(_))] => 3,
        [("$ref", Bson::String(_)), ("$id", _), ..] => 2,
        _ => 0,
    };
    let mut others = fields.iter().skip(db_ref);
    others.find_map(|(name, value)| if name.starts_with('$') { Some(name.as_str()) } else { operator_name_in(value) })
}

fn operator_name_in(value: &Bson) -> Option<&str> {
    match value {
        Bson::Document(fields) => operator_name(fields),
        Bson::Array(values) => values.iter().find_map(operator_name_in),
        Bson::JavaScriptCodeWithScope(code) => operator_name(&code.scope),
        _ => None,
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
