//! What enters a store: typed documents, read from MongoDB Extended JSON.
//!
//! - [`Value`] is a value in its BSON type, without BSON being compiled in; [`Document`] is a whole one with its `_id`.
//! - [`extended_json`] turns one JSON text into a document; `wrapper` knows the type wrappers in it.
//! - [`reader`] takes a file apart into such texts, and names the line of a bad one.
//! - [`decimal`] is the one type that needs arithmetic of its own.
//!
//! [`Document::to_record`] leads out of here, by the mapping of [`crate::wire`].

pub mod decimal;
pub mod extended_json;
pub mod reader;
mod wrapper;

use bytes::Bytes;

use crate::record::{Key, Record};
use crate::wire;
use decimal::Decimal128;

/// The largest document that MongoDB stores, in bytes of BSON
/// ([limits](https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-BSON-Document-Size)).
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// How deep MongoDB lets documents and arrays nest, the document itself counted; code with scope counts as two levels
/// ([limits](https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-Nested-Depth-for-BSON-Documents)).
pub const MAX_DEPTH: usize = 100;

/// The longest string that may be an `_id`, in bytes. MongoDB has no such limit, but takes a document's id in a command a
/// second time, where it leaves 16 KiB beside the largest document; and a longer URL is nobody's address.
pub const MAX_ID_BYTES: usize = 4 * 1024;

/// The fields of a document, in their order.
pub type Fields = Vec<(Box<str>, Value)>;

/// A value in its BSON type ([bsonspec.org](https://bsonspec.org/spec.html)).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Double(f64),
    String(Box<str>),
    Document(Fields),
    Array(Vec<Value>),
    Binary {
        subtype: u8,
        bytes: Vec<u8>,
    },
    Undefined,
    ObjectId([u8; 12]),
    Bool(bool),
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Date(i64),
    Null,
    Regex {
        pattern: Box<str>,
        options: Box<str>,
    },
    DbPointer {
        namespace: Box<str>,
        id: [u8; 12],
    },
    Code(Box<str>),
    CodeWithScope {
        code: Box<str>,
        scope: Fields,
    },
    Symbol(Box<str>),
    Int32(i32),
    /// `time` in seconds since 1970, `increment` an ordinal within it: MongoDB's internal type, not a date.
    Timestamp {
        time: u32,
        increment: u32,
    },
    Int64(i64),
    Decimal128(Decimal128),
    MinKey,
    MaxKey,
}

/// A document that every store takes: it has an `_id` that can be asked for, and keeps to MongoDB's limits.
///
/// The `_id` stands first, where MongoDB would move it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    key: Key,
    fields: Fields,
    encoded_len: usize,
}

/// Why a document cannot be stored. The text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it has no `_id`")]
    NoId,
    #[error("its `_id` is {0}: it must be an ObjectId, a string, a number, a UUID, a boolean or a date")]
    IdType(&'static str),
    #[error("its `_id` is the empty string, which no URL can ask for")]
    EmptyId,
    #[error("its `_id` takes {0} bytes: at most {MAX_ID_BYTES} can be asked for")]
    IdTooLong(usize),
    #[error("the field name `{0}` starts with `$`, which MongoDB keeps for operators")]
    OperatorName(Box<str>),
    #[error("the field `{0}` is the empty timestamp, which MongoDB would replace by its own clock")]
    EmptyTimestamp(Box<str>),
    #[error("it nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("it takes {0} bytes as BSON: at most {MAX_BYTES} can be stored")]
    TooLarge(usize),
}

impl Document {
    /// Checks what all stores must agree on, so that what one takes, every one takes.
    pub fn new(mut fields: Fields) -> Result<Self, Refusal> {
        let at = fields.iter().position(|(name, _)| &**name == "_id").ok_or(Refusal::NoId)?;
        // Rotating keeps the order of the others.
        fields[..=at].rotate_right(1);
        let key = key_of(&fields[0].1)?;
        for (name, value) in &fields {
            if name.starts_with('$') {
                return Err(Refusal::OperatorName(name.clone()));
            }
            if matches!(value, Value::Timestamp { time: 0, increment: 0 }) {
                return Err(Refusal::EmptyTimestamp(name.clone()));
            }
        }
        if depth(&fields) > MAX_DEPTH {
            return Err(Refusal::TooDeep);
        }
        match encoded_len(&fields) {
            encoded_len @ 0..=MAX_BYTES => Ok(Self { key, fields, encoded_len }),
            length => Err(Refusal::TooLarge(length)),
        }
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    /// All fields, the `_id` first.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The document's size as BSON, in bytes: what it takes in a command, and what memory it takes by order of magnitude.
    pub fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    /// The form in which the document leaves any store.
    pub fn to_record(&self) -> Record {
        Record::new(self.key.clone(), self.to_json())
    }

    /// The record's JSON alone, for a store that keeps many and wants to say where.
    pub fn to_json(&self) -> Bytes {
        let mut json = Vec::with_capacity(self.encoded_len * 2);
        write_fields(&mut json, &self.fields);
        // A record may stay for long, and there may be millions: in as many bytes as it has, and not one more.
        Bytes::copy_from_slice(&json)
    }
}

fn key_of(id: &Value) -> Result<Key, Refusal> {
    Ok(match id {
        Value::String(text) if text.is_empty() => return Err(Refusal::EmptyId),
        Value::String(text) if text.len() > MAX_ID_BYTES => return Err(Refusal::IdTooLong(text.len())),
        Value::String(text) => Key::String((&**text).into()),
        Value::ObjectId(id) => Key::ObjectId(*id),
        Value::Int32(value) => Key::Integer((*value).into()),
        Value::Int64(value) => Key::Integer(*value),
        Value::Double(value) if value.is_finite() => Key::double(*value),
        Value::Double(_) => return Err(Refusal::IdType("not a finite number")),
        Value::Bool(value) => Key::Bool(*value),
        Value::Date(millis) => Key::Date(*millis),
        Value::Binary { subtype, bytes } => match bytes.as_slice().try_into() {
            Ok(uuid) if *subtype == 4 => Key::Uuid(uuid),
            _ => return Err(Refusal::IdType("binary data other than a UUID")),
        },
        Value::Document(_) => return Err(Refusal::IdType("an embedded document")),
        Value::Array(_) => return Err(Refusal::IdType("an array")),
        Value::Null => return Err(Refusal::IdType("null")),
        Value::Undefined => return Err(Refusal::IdType("undefined")),
        Value::Regex { .. } => return Err(Refusal::IdType("a regular expression")),
        Value::DbPointer { .. } => return Err(Refusal::IdType("a DBPointer")),
        Value::Code(_) | Value::CodeWithScope { .. } => return Err(Refusal::IdType("JavaScript code")),
        Value::Symbol(_) => return Err(Refusal::IdType("a symbol")),
        Value::Timestamp { .. } => return Err(Refusal::IdType("a timestamp")),
        Value::Decimal128(_) => return Err(Refusal::IdType("a Decimal128")),
        Value::MinKey | Value::MaxKey => return Err(Refusal::IdType("a MinKey or MaxKey")),
    })
}

fn depth(fields: &Fields) -> usize {
    1 + fields.iter().map(|(_, value)| value_depth(value)).max().unwrap_or(0)
}

fn value_depth(value: &Value) -> usize {
    match value {
        Value::Document(fields) => depth(fields),
        Value::Array(values) => 1 + values.iter().map(value_depth).max().unwrap_or(0),
        Value::CodeWithScope { scope, .. } => 1 + depth(scope),
        _ => 0,
    }
}

fn write_fields(out: &mut Vec<u8>, fields: &Fields) {
    out.push(b'{');
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        wire::string(out, name);
        out.push(b':');
        write_value(out, value);
    }
    out.push(b'}');
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Double(value) => wire::double(out, *value),
        Value::String(text) | Value::Code(text) | Value::Symbol(text) => wire::string(out, text),
        Value::Document(fields) => write_fields(out, fields),
        Value::Array(values) => {
            out.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(out, value);
            }
            out.push(b']');
        }
        Value::Binary { subtype, bytes } => wire::binary(out, *subtype, bytes),
        Value::ObjectId(id) => wire::object_id(out, id),
        Value::Bool(value) => wire::boolean(out, *value),
        Value::Date(millis) => wire::date(out, *millis),
        Value::Null | Value::Undefined => wire::null(out),
        Value::Regex { pattern, options } => wire::regex(out, pattern, options),
        Value::DbPointer { namespace, id } => wire::db_pointer(out, namespace, id),
        Value::CodeWithScope { code, scope } => {
            let written: Result<(), std::convert::Infallible> = wire::code_with_scope(out, code, |out| {
                write_fields(out, scope);
                Ok(())
            });
            match written {
                Ok(()) => {}
            }
        }
        Value::Int32(value) => wire::integer(out, (*value).into()),
        Value::Timestamp { time, increment } => wire::timestamp(out, *time, *increment),
        Value::Int64(value) => wire::integer(out, *value),
        Value::Decimal128(value) => wire::string(out, &value.to_string()),
        Value::MinKey => wire::min_key(out),
        Value::MaxKey => wire::max_key(out),
    }
}

/// The size as BSON, in bytes, computed without encoding it ([bsonspec.org](https://bsonspec.org/spec.html)).
fn encoded_len(fields: &Fields) -> usize {
    // A length, the elements (type, name, NUL, value), a NUL.
    4 + fields.iter().map(|(name, value)| 2 + name.len() + value_len(value)).sum::<usize>() + 1
}

fn value_len(value: &Value) -> usize {
    let string = |text: &str| 4 + text.len() + 1;
    match value {
        Value::Undefined | Value::Null | Value::MinKey | Value::MaxKey => 0,
        Value::Bool(_) => 1,
        Value::Int32(_) => 4,
        Value::Double(_) | Value::Date(_) | Value::Int64(_) | Value::Timestamp { .. } => 8,
        Value::ObjectId(_) => 12,
        Value::Decimal128(_) => 16,
        Value::String(text) | Value::Code(text) | Value::Symbol(text) => string(text),
        Value::Document(fields) => encoded_len(fields),
        Value::Array(values) => {
            let name = |index: usize| index.checked_ilog10().map_or(1, |log| log as usize + 1);
            5 + values.iter().enumerate().map(|(index, value)| 2 + name(index) + value_len(value)).sum::<usize>()
        }
        // Subtype 2 carries its length twice.
        Value::Binary { subtype, bytes } => 5 + bytes.len() + if *subtype == 2 { 4 } else { 0 },
        Value::Regex { pattern, options } => pattern.len() + options.len() + 2,
        Value::DbPointer { namespace, .. } => string(namespace) + 12,
        Value::CodeWithScope { code, scope } => 4 + string(code) + encoded_len(scope),
    }
}
