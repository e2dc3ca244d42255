//! Documents from files, in MongoDB Extended JSON or BSON.
//!
//! - [`extended_json`] parses one JSON text into a document; `wrapper` knows the type wrappers in it, and `notation` explains
//!   texts that are not JSON.
//! - [`reader`] splits a file into such texts, and names the place of an invalid one; `format` recognises the kind of the file,
//!   `decompress` unpacks it, and [`replica_file`] verifies a saved replica.
//! - [`validate`] accepts a document that every store can hold.

mod decompress;
pub mod extended_json;
mod format;
mod notation;
pub mod reader;
pub mod replica_file;
mod wrapper;

use bson::oid::ObjectId;
use bson::spec::ElementType;

use crate::record::raw::{self, Elements, Malformed};
use crate::record::{Document, Key, ValueRef};

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
    #[error("the field name `_id` stands twice in one object")]
    TwoIds,
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
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// The treatment of documents without an `_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingId {
    /// They are invalid.
    Refuse,
    /// They get a new ObjectId, as from any client of MongoDB; `count` is the number of those that did.
    Generate { count: u64 },
    /// They get an ObjectId derived from this number and from the count of those before: the same ones each time that the same
    /// file is read.
    Derive { file: u32, count: u64 },
}

impl MissingId {
    fn object_id(&mut self) -> Result<ObjectId, ValidationError> {
        match self {
            Self::Refuse => Err(ValidationError::NoId),
            Self::Generate { count } => {
                *count += 1;
                Ok(ObjectId::new())
            }
            Self::Derive { file, count } => {
                let mut bytes = [0; 12];
                bytes[..4].copy_from_slice(&file.to_be_bytes());
                bytes[4..].copy_from_slice(&count.to_be_bytes());
                *count += 1;
                Ok(ObjectId::from_bytes(bytes))
            }
        }
    }
}

/// Accepts a document that every store can hold. The `_id` moves to the front, where MongoDB would move it.
///
/// # Errors
///
/// When MongoDB would not store the document, or would change it.
pub fn validate(document: bson::Document) -> Result<Document, ValidationError> {
    let bytes = document.to_vec().map_err(|error| ValidationError::NotBson(error.to_string()))?;
    validate_bson(bytes, &mut MissingId::Refuse)
}

/// Validates BSON bytes like [`validate`], and checks their lengths. Adds an `_id` to a document without one, as `missing_id`
/// says.
///
/// # Errors
///
/// Those of [`validate`].
pub fn validate_bson(mut bytes: Vec<u8>, missing_id: &mut MissingId) -> Result<Document, ValidationError> {
    let too_deep = Malformed("it nests too deep");
    raw::validate(&bytes).map_err(|error| if error == too_deep { ValidationError::TooDeep } else { error.into() })?;
    bytes = match raw::find(&bytes, b"_id")? {
        None => {
            let id = missing_id.object_id()?.bytes();
            with_id_first(&bytes, ValueRef { kind: ElementType::ObjectId, bytes: &id })?
        }
        Some(id) => {
            validate_id(id)?;
            if bytes[5..].starts_with(b"_id\0") { bytes } else { with_id_first(&bytes, id)? }
        }
    };
    let mut has_id = false;
    for element in Elements::new(&bytes)? {
        let (name, value) = element?;
        if name == b"_id" && std::mem::replace(&mut has_id, true) {
            return Err(ValidationError::TwoIds);
        }
        if name.starts_with(b"$") {
            return Err(ValidationError::OperatorName(lossy(name)));
        }
        // MongoDB keeps an empty timestamp in an `_id`.
        if value.kind == ElementType::Timestamp && value.bytes == [0; 8] && name != b"_id" {
            return Err(ValidationError::EmptyTimestamp(lossy(name)));
        }
    }
    if depth(&bytes)? > MAX_DEPTH {
        return Err(ValidationError::TooDeep);
    }
    if bytes.len() > MAX_BYTES {
        return Err(ValidationError::TooLarge(bytes.len()));
    }
    let id = raw::find(&bytes, b"_id")?.ok_or(ValidationError::NoId)?;
    if bytes.len() + id.bytes.len() > MAX_BYTES_WITH_ID {
        return Err(ValidationError::IdTooLarge(bytes.len() + id.bytes.len()));
    }
    let key = Key::new(id)?;
    Ok(Document::with_key(key, bytes))
}

fn with_id_first(bytes: &[u8], id: ValueRef<'_>) -> Result<Vec<u8>, ValidationError> {
    let mut others = Elements::new(bytes)?.collect::<raw::Result<Vec<_>>>()?;
    if let Some(at) = others.iter().position(|(name, _)| *name == b"_id") {
        others.remove(at);
    }
    let mut out = Vec::with_capacity(bytes.len() + 17);
    raw::append_document(&mut out, |out| {
        raw::append_element(out, b"_id", id);
        for (name, value) in others {
            raw::append_element(out, name, value);
        }
    });
    Ok(out)
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn validate_id(id: ValueRef<'_>) -> Result<(), ValidationError> {
    match id.kind {
        ElementType::Array => Err(ValidationError::IdType("an array")),
        ElementType::RegularExpression => Err(ValidationError::IdType("a regular expression")),
        ElementType::Undefined => Err(ValidationError::IdType("undefined")),
        ElementType::EmbeddedDocument => match operator_name(id.bytes, true)? {
            Some(name) => Err(ValidationError::OperatorName(lossy(name))),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Finds a name that starts with `$`, at any depth. In an `_id`, MongoDB accepts only those of a DBRef, which must be a
/// document and not an array.
fn operator_name(document: &[u8], is_document: bool) -> raw::Result<Option<&[u8]>> {
    use ElementType::String;
    let elements = Elements::new(document)?.collect::<raw::Result<Vec<_>>>()?;
    let first: Vec<_> = elements.iter().take(3).map(|(name, value)| (*name, value.kind)).collect();
    let db_ref = match first.as_slice() {
        [(b"$ref", String), (b"$id", _), (b"$db", String)] if is_document => 3,
        [(b"$ref", String), (b"$id", _), ..] if is_document => 2,
        _ => 0,
    };
    for (name, value) in elements.into_iter().skip(db_ref) {
        if name.starts_with(b"$") {
            return Ok(Some(name));
        }
        let found = match value.kind {
            ElementType::EmbeddedDocument => operator_name(value.bytes, true)?,
            ElementType::Array => operator_name(value.bytes, false)?,
            ElementType::JavaScriptCodeWithScope => operator_name(value.code_with_scope()?.1, true)?,
            _ => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Returns false for binary data of the old subtype whose second length is wrong.
fn has_old_length(value: ValueRef<'_>) -> bool {
    match value.bytes {
        [_, _, _, _, 2, a, b, c, d, payload @ ..] => {
            usize::try_from(i32::from_le_bytes([*a, *b, *c, *d])) == Ok(payload.len())
        }
        [_, _, _, _, 2, ..] => false,
        _ => true,
    }
}

/// Returns the number of nested levels.
///
/// # Errors
///
/// At a value that is readable, but that MongoDB refuses from clients.
fn depth(document: &[u8]) -> raw::Result<usize> {
    let mut deepest = 0;
    for element in Elements::new(document)? {
        let (_, value) = element?;
        deepest = deepest.max(match value.kind {
            ElementType::EmbeddedDocument | ElementType::Array => depth(value.bytes)?,
            ElementType::JavaScriptCodeWithScope => 1 + depth(value.code_with_scope()?.1)?,
            ElementType::Boolean if !matches!(value.bytes, [0 | 1]) => {
                return Err(Malformed("a boolean is neither true nor false"));
            }
            ElementType::Binary if !has_old_length(value) => {
                return Err(Malformed("binary data is not as long as it says"));
            }
            _ => 0,
        });
    }
    Ok(deepest + 1)
}
