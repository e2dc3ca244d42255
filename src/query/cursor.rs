//! Where a page ended, as a text that clients pass back and do not read.
//!
//! Base64 for URLs of: the version, a check sum of four bytes, the place in the order of `sort` if there is one, the typed
//! key. The check sum also covers the order, so that a cursor is refused where it would mean something else. It is there
//! against mistakes, not against forgers, who could ask for the same records in other ways.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use compact_str::CompactString;

use super::Sort;
use super::sort::Value;
use crate::record::Key;

const VERSION: u8 = 1;

/// The last record of a page: its key, and what put it there if the list is sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub key: Key,
    pub value: Option<Value>,
}

impl Cursor {
    /// The text for a list in the order of `sort`.
    pub fn encode(&self, sort: Option<&Sort>) -> String {
        let mut body = Vec::with_capacity(32);
        if let Some(value) = &self.value {
            write_value(&mut body, value);
        }
        write_key(&mut body, &self.key);
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&check(&body, sort));
        bytes.extend_from_slice(&body);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None` when the text is not what [`Cursor::encode`] made for a list in this order.
    pub fn decode(text: &str, sort: Option<&Sort>) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (&version, rest) = bytes.split_first()?;
        let (sum, body) = rest.split_first_chunk::<4>()?;
        if version != VERSION || *sum != check(body, sort) {
            return None;
        }
        let mut rest = body;
        let value = match sort {
            Some(_) => Some(read_value(&mut rest)?),
            None => None,
        };
        Some(Self { value, key: read_key(rest)? })
    }
}

fn check(body: &[u8], sort: Option<&Sort>) -> [u8; 4] {
    let order = sort.map(ToString::to_string).unwrap_or_default();
    let sums = [rapidhash::v3::rapidhash_v3(body), rapidhash::v3::rapidhash_v3(order.as_bytes())];
    ((sums[0] ^ sums[1].rotate_left(32)) as u32).to_le_bytes()
}

/// What stands before a value or a key, and says its type.
mod tag {
    pub const NULL: u8 = 0;
    pub const INTEGER: u8 = 1;
    pub const DOUBLE: u8 = 2;
    pub const STRING: u8 = 3;
    pub const OBJECT: u8 = 4;
    pub const ARRAY: u8 = 5;
    pub const FALSE: u8 = 6;
    pub const TRUE: u8 = 7;
    pub const UUID: u8 = 8;
    pub const OBJECT_ID: u8 = 9;
    pub const DATE: u8 = 10;
    pub const OPAQUE: u8 = 11;
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(tag::NULL),
        Value::Number(number) => write_key(out, number),
        Value::String(text) => {
            out.push(tag::STRING);
            // Hardly longer than `sort::PREFIX`.
            out.extend_from_slice(&(text.len() as u16).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        Value::Object => out.push(tag::OBJECT),
        Value::Array => out.push(tag::ARRAY),
        Value::Bool(value) => out.push(if *value { tag::TRUE } else { tag::FALSE }),
    }
}

fn read_value(bytes: &mut &[u8]) -> Option<Value> {
    let (&kind, rest) = bytes.split_first()?;
    let length = match kind {
        tag::INTEGER | tag::DOUBLE => 8,
        tag::STRING => 2 + usize::from(u16::from_le_bytes(*rest.first_chunk()?)),
        _ => 0,
    };
    let (value, after) = rest.split_at_checked(length)?;
    *bytes = after;
    Some(match kind {
        tag::NULL => Value::Null,
        tag::INTEGER => Value::Number(Key::Integer(i64::from_le_bytes(value.try_into().ok()?))),
        tag::DOUBLE => Value::Number(Key::double(f64::from_le_bytes(value.try_into().ok()?))),
        tag::STRING => Value::String(CompactString::from_utf8(&value[2..]).ok()?),
        tag::OBJECT => Value::Object,
        tag::ARRAY => Value::Array,
        tag::FALSE => Value::Bool(false),
        tag::TRUE => Value::Bool(true),
        _ => return None,
    })
}

fn write_key(out: &mut Vec<u8>, key: &Key) {
    let (kind, rank, bytes): (u8, &[u8], &[u8]) = match key {
        Key::Integer(value) => (tag::INTEGER, &[], &value.to_le_bytes()),
        Key::Double(value) => (tag::DOUBLE, &[], &value.to_le_bytes()),
        Key::String(text) => (tag::STRING, &[], text.as_bytes()),
        Key::Uuid(bytes) => (tag::UUID, &[], bytes),
        Key::ObjectId(bytes) => (tag::OBJECT_ID, &[], bytes),
        Key::Bool(value) => (if *value { tag::TRUE } else { tag::FALSE }, &[], &[]),
        Key::Date(millis) => (tag::DATE, &[], &millis.to_le_bytes()),
        Key::Opaque { rank, bytes } => (tag::OPAQUE, std::slice::from_ref(rank), bytes),
    };
    out.push(kind);
    out.extend_from_slice(rank);
    out.extend_from_slice(bytes);
}

fn read_key(bytes: &[u8]) -> Option<Key> {
    let (&kind, value) = bytes.split_first()?;
    Some(match kind {
        tag::INTEGER => Key::Integer(i64::from_le_bytes(value.try_into().ok()?)),
        tag::DOUBLE => Key::double(f64::from_le_bytes(value.try_into().ok()?)),
        tag::STRING => Key::String(CompactString::from_utf8(value).ok()?),
        tag::UUID => Key::Uuid(value.try_into().ok()?),
        tag::OBJECT_ID => Key::ObjectId(value.try_into().ok()?),
        tag::FALSE if value.is_empty() => Key::Bool(false),
        tag::TRUE if value.is_empty() => Key::Bool(true),
        tag::DATE => Key::Date(i64::from_le_bytes(value.try_into().ok()?)),
        tag::OPAQUE => {
            let (&rank, bytes) = value.split_first()?;
            Key::Opaque { rank, bytes: bytes.into() }
        }
        _ => return None,
    })
}
