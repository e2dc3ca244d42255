//! BSON, read and written as bytes ([bsonspec.org](https://bsonspec.org/spec.html)): what comes from the server becomes
//! wire JSON without a tree in between, what goes to it is written straight from a [`Document`](crate::document::Document).

// By its path, since the fuzz targets have this file by its own.
#[path = "bson/keys.rs"]
mod keys;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, RawDocumentBuf};

use crate::document::{Fields, Value};
use crate::record::Key;
use crate::wire;
use keys::key;

/// Nesting deeper than this is refused: MongoDB stores no such document, and each level takes stack.
const MAX_DEPTH: usize = 250;

/// The bytes are not BSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed BSON: {0}")]
pub struct Malformed(&'static str);

type Result<T> = std::result::Result<T, Malformed>;

const DOUBLE: u8 = 0x01;
const STRING: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const BINARY: u8 = 0x05;
const UNDEFINED: u8 = 0x06;
const OBJECT_ID: u8 = 0x07;
const BOOL: u8 = 0x08;
const DATE: u8 = 0x09;
const NULL: u8 = 0x0a;
const REGEX: u8 = 0x0b;
const DB_POINTER: u8 = 0x0c;
const CODE: u8 = 0x0d;
const SYMBOL: u8 = 0x0e;
const CODE_WITH_SCOPE: u8 = 0x0f;
const INT32: u8 = 0x10;
const TIMESTAMP: u8 = 0x11;
const INT64: u8 = 0x12;
const DECIMAL128: u8 = 0x13;
const MAX_KEY: u8 = 0x7f;
const MIN_KEY: u8 = 0xff;

/// The old subtype of generic binary data, which carries its length a second time.
const BINARY_OLD: u8 = 2;

/// Appends the wire JSON of `document` to `out`, and returns the key of its `_id`.
///
/// Strings that are not UTF-8 (some clients write such) are shown with U+FFFD where they are not: one bad string must not
/// take the record away, let alone the list.
///
/// # Errors
///
/// When the bytes are not a BSON document with an `_id`; `out` then ends in half a record.
pub fn to_json(out: &mut Vec<u8>, document: &[u8]) -> Result<Key> {
    let mut id = None;
    write_document(out, document, 0, |kind, value| id = Some(key(kind, value)))?;
    id.ok_or(Malformed("a document has no _id"))?
}

/// The key of `document`'s `_id`.
///
/// # Errors
///
/// When the bytes are not a BSON document with an `_id`.
pub fn key_of(document: &[u8]) -> Result<Key> {
    let mut elements = Elements::of(document)?;
    while let Some((kind, name, value)) = elements.next()? {
        if name == b"_id" {
            return key(kind, value);
        }
    }
    Err(Malformed("a document has no _id"))
}

/// `id` is called with the type and the bytes of a field `_id`.
fn write_document(out: &mut Vec<u8>, document: &[u8], depth: usize, mut id: impl FnMut(u8, &[u8])) -> Result<()> {
    let mut elements = Elements::of(document)?;
    out.push(b'{');
    let mut first = true;
    while let Some((kind, name, value)) = elements.next()? {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        if name == b"_id" {
            id(kind, value);
        }
        wire::lossy_string(out, name);
        out.push(b':');
        write_value(out, kind, value, depth)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_value(out: &mut Vec<u8>, kind: u8, value: &[u8], depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Malformed("it nests too deep"));
    }
    match kind {
        DOUBLE => wire::double(out, f64::from_le_bytes(fixed(value)?)),
        STRING | CODE | SYMBOL => wire::lossy_string(out, text(value)?),
        DOCUMENT => write_document(out, value, depth + 1, |_, _| {})?,
        ARRAY => {
            let mut elements = Elements::of(value)?;
            out.push(b'[');
            let mut first = true;
            // The names of an array's elements are its indexes; the order of the bytes is what counts.
            while let Some((kind, _, value)) = elements.next()? {
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                write_value(out, kind, value, depth + 1)?;
            }
            out.push(b']');
        }
        BINARY => {
            let (subtype, bytes) = binary(value)?;
            wire::binary(out, subtype, bytes);
        }
        OBJECT_ID => wire::object_id(out, &fixed(value)?),
        BOOL => wire::boolean(out, value != [0]),
        DATE => wire::date(out, i64::from_le_bytes(fixed(value)?)),
        NULL | UNDEFINED => wire::null(out),
        REGEX => {
            let (pattern, rest) = cstring(value)?;
            let (options, _) = cstring(rest)?;
            wire::regex(out, &String::from_utf8_lossy(pattern), &String::from_utf8_lossy(options));
        }
        DB_POINTER => {
            let (namespace, id) = value.split_last_chunk::<12>().ok_or(Malformed("a DBPointer is cut"))?;
            wire::db_pointer(out, &String::from_utf8_lossy(text(namespace)?), id);
        }
        CODE_WITH_SCOPE => {
            let inner = value.get(4..).ok_or(Malformed("code with scope is cut"))?;
            let (code, scope) =
                inner.split_at_checked(string_len(inner)?).ok_or(Malformed("code with scope is cut"))?;
            wire::code_with_scope(out, &String::from_utf8_lossy(text(code)?), |out| {
                write_document(out, scope, depth + 1, |_, _| {})
            })?;
        }
        INT32 => wire::integer(out, i32::from_le_bytes(fixed(value)?).into()),
        TIMESTAMP => {
            let both = u64::from_le_bytes(fixed(value)?);
            wire::timestamp(out, (both >> 32) as u32, both as u32);
        }
        INT64 => wire::integer(out, i64::from_le_bytes(fixed(value)?)),
        DECIMAL128 => wire::string(out, &Decimal128::from_bytes(fixed(value)?).to_string()),
        MAX_KEY => wire::max_key(out),
        MIN_KEY => wire::min_key(out),
        _ => return Err(Malformed("a type is unknown")),
    }
    Ok(())
}

/// Type, name, bytes of the value.
type Element<'a> = (u8, &'a [u8], &'a [u8]);

/// Walks the elements of a document or an array.
struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    fn of(document: &'a [u8]) -> Result<Self> {
        let length = document.first_chunk::<4>().map(|bytes| i32::from_le_bytes(*bytes));
        match document {
            [_, _, _, _, rest @ .., 0]
                if length.and_then(|length| usize::try_from(length).ok()) == Some(document.len()) =>
            {
                Ok(Self { rest })
            }
            _ => Err(Malformed("a document is not as long as it says")),
        }
    }

    fn next(&mut self) -> Result<Option<Element<'a>>> {
        let Some((&kind, rest)) = self.rest.split_first() else { return Ok(None) };
        let (name, rest) = cstring(rest)?;
        let (value, rest) = rest.split_at_checked(value_len(kind, rest)?).ok_or(Malformed("a value is cut"))?;
        self.rest = rest;
        Ok(Some((kind, name, value)))
    }
}

/// How many of `rest`'s bytes belong to a value of this type. May be more than there are.
fn value_len(kind: u8, rest: &[u8]) -> Result<usize> {
    Ok(match kind {
        UNDEFINED | NULL | MIN_KEY | MAX_KEY => 0,
        BOOL => 1,
        INT32 => 4,
        DOUBLE | DATE | TIMESTAMP | INT64 => 8,
        OBJECT_ID => 12,
        DECIMAL128 => 16,
        STRING | CODE | SYMBOL => string_len(rest)?,
        DB_POINTER => string_len(rest)? + 12,
        DOCUMENT | ARRAY | CODE_WITH_SCOPE => length(rest)?,
        BINARY => 5 + length(rest)?,
        REGEX => {
            let (_, options) = cstring(rest)?;
            let (_, after) = cstring(options)?;
            rest.len() - after.len()
        }
        _ => return Err(Malformed("a type is unknown")),
    })
}

fn length(bytes: &[u8]) -> Result<usize> {
    let bytes = bytes.first_chunk().ok_or(Malformed("a length is cut"))?;
    usize::try_from(i32::from_le_bytes(*bytes)).map_err(|_| Malformed("a length is negative"))
}

fn string_len(bytes: &[u8]) -> Result<usize> {
    Ok(4 + length(bytes)?)
}

/// The text of a string: a length, that many bytes, the last of them NUL.
fn text(value: &[u8]) -> Result<&[u8]> {
    match value {
        [_, _, _, _, text @ .., 0] if string_len(value)? == value.len() => Ok(text),
        _ => Err(Malformed("a string is not as long as it says")),
    }
}

fn cstring(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    // Names are short: by the time a search has made itself ready to take many bytes at a step, it would have ended.
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(Malformed("a name does not end"))?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

fn binary(value: &[u8]) -> Result<(u8, &[u8])> {
    match value {
        [_, _, _, _, BINARY_OLD, _, _, _, _, bytes @ ..] => Ok((BINARY_OLD, bytes)),
        [_, _, _, _, subtype, bytes @ ..] => Ok((*subtype, bytes)),
        _ => Err(Malformed("binary data is cut")),
    }
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N]> {
    value.try_into().map_err(|_| Malformed("a value is cut"))
}

/// Appends the elements of a document. What [`crate::document::Document`] has checked fits.
pub fn append_fields(out: &mut Vec<u8>, fields: &Fields) {
    for (name, value) in fields {
        append_element(out, name, value);
    }
}

/// A document or an array around what `write` appends.
pub fn with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    out.push(0);
    patch_length(out, start);
}

fn patch_length(out: &mut [u8], start: usize) {
    // At most 16 MiB of document, and a few commands around it.
    let length = (out.len() - start) as i32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// The type and the name of an element, whose value the caller appends. `name` has no NUL.
pub fn append_name(out: &mut Vec<u8>, kind: u8, name: &str) {
    out.push(kind);
    out.extend_from_slice(name.as_bytes());
    out.push(0);
}

/// An element that is a document (or, by `array`, an array) of what `write` appends.
pub fn append_nested(out: &mut Vec<u8>, name: &str, array: bool, write: impl FnOnce(&mut Vec<u8>)) {
    append_name(out, if array { ARRAY } else { DOCUMENT }, name);
    with_length(out, write);
}

pub fn append_bool(out: &mut Vec<u8>, name: &str, value: bool) {
    append_element(out, name, &Value::Bool(value));
}

pub fn append_string(out: &mut Vec<u8>, name: &str, value: &str) {
    append_name(out, STRING, name);
    append_text(out, value);
}

/// The key as the driver wants it in a filter. Numbers compare by value, so the widest integer finds them all.
pub fn from_key(key: &Key) -> Bson {
    match key {
        Key::Integer(value) => Bson::Int64(*value),
        Key::Double(value) => Bson::Double(*value),
        Key::String(text) => Bson::String(text.to_string()),
        Key::Uuid(bytes) => Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: bytes.to_vec() }),
        Key::ObjectId(id) => Bson::ObjectId(ObjectId::from_bytes(*id)),
        Key::Bool(value) => Bson::Boolean(*value),
        Key::Date(millis) => Bson::DateTime(DateTime::from_millis(*millis)),
        Key::Opaque { bytes, .. } => from_opaque(bytes).unwrap_or(Bson::Null),
    }
}

/// Whether [`from_key`] can say which key that is.
pub fn is_from_key(key: &Key) -> bool {
    !matches!(key, Key::Opaque { .. }) || from_key(key) != Bson::Null
}

/// What [`keys::opaque`] took apart. It was read from BSON, so it is BSON again; unless a client forged the cursor that it came in.
fn from_opaque(bytes: &[u8]) -> Option<Bson> {
    let (kind, value) = bytes.split_first()?;
    // The driver's tree follows any nesting until the stack ends.
    write_value(&mut Vec::new(), *kind, value, 0).ok()?;
    let mut document = Vec::with_capacity(value.len() + 16);
    with_length(&mut document, |out| {
        append_name(out, *kind, "_id");
        out.extend_from_slice(value);
    });
    let document = RawDocumentBuf::from_bytes(document).ok()?;
    Bson::try_from(document.get("_id").ok()??).ok()
}

fn append_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as i32 + 1).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

pub fn append_element(out: &mut Vec<u8>, name: &str, value: &Value) {
    append_name(out, kind_of(value), name);
    match value {
        Value::Double(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::String(text) | Value::Code(text) | Value::Symbol(text) => append_text(out, text),
        Value::Document(fields) => with_length(out, |out| append_fields(out, fields)),
        Value::Array(values) => with_length(out, |out| {
            let mut index = itoa::Buffer::new();
            for (at, value) in values.iter().enumerate() {
                append_element(out, index.format(at), value);
            }
        }),
        Value::Binary { subtype, bytes } => {
            let old = *subtype == BINARY_OLD;
            let length = bytes.len() as i32;
            out.extend_from_slice(&(if old { length + 4 } else { length }).to_le_bytes());
            out.push(*subtype);
            if old {
                out.extend_from_slice(&length.to_le_bytes());
            }
            out.extend_from_slice(bytes);
        }
        Value::ObjectId(id) => out.extend_from_slice(id),
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::Date(value) | Value::Int64(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::Regex { pattern, options } => {
            for part in [pattern, options] {
                out.extend_from_slice(part.as_bytes());
                out.push(0);
            }
        }
        Value::DbPointer { namespace, id } => {
            append_text(out, namespace);
            out.extend_from_slice(id);
        }
        Value::CodeWithScope { code, scope } => {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            append_text(out, code);
            with_length(out, |out| append_fields(out, scope));
            patch_length(out, start);
        }
        Value::Int32(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::Timestamp { time, increment } => {
            out.extend_from_slice(&increment.to_le_bytes());
            out.extend_from_slice(&time.to_le_bytes());
        }
        // The domain keeps to the same 34 digits and exponents, so its text always parses; a property test says so too.
        Value::Decimal128(value) => {
            let packed: Option<Decimal128> = value.to_string().parse().ok();
            out.extend_from_slice(&packed.map_or([0; 16], |packed| packed.bytes()));
        }
        Value::Null | Value::Undefined | Value::MinKey | Value::MaxKey => {}
    }
}

fn kind_of(value: &Value) -> u8 {
    match value {
        Value::Double(_) => DOUBLE,
        Value::String(_) => STRING,
        Value::Document(_) => DOCUMENT,
        Value::Array(_) => ARRAY,
        Value::Binary { .. } => BINARY,
        Value::Undefined => UNDEFINED,
        Value::ObjectId(_) => OBJECT_ID,
        Value::Bool(_) => BOOL,
        Value::Date(_) => DATE,
        Value::Null => NULL,
        Value::Regex { .. } => REGEX,
        Value::DbPointer { .. } => DB_POINTER,
        Value::Code(_) => CODE,
        Value::Symbol(_) => SYMBOL,
        Value::CodeWithScope { .. } => CODE_WITH_SCOPE,
        Value::Int32(_) => INT32,
        Value::Timestamp { .. } => TIMESTAMP,
        Value::Int64(_) => INT64,
        Value::Decimal128(_) => DECIMAL128,
        Value::MaxKey => MAX_KEY,
        Value::MinKey => MIN_KEY,
    }
}
