//! What leaves a store: a [`Record`] is its [`Key`] and its wire JSON.
//!
//! Two names for one thing, and why: clients ask by [`RecordId`], the text that stands in the URL, which does not
//! say its type (`5` may be a number or a string). Stores order and find by [`Key`], the typed `_id`.
//! [`RecordId::keys`] is the one place that leads from the first to the second.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;

use crate::wire;

/// The id a client asks by: a record's `_id` as it appears in the record's JSON, without the quotes of a string.
///
/// Any text is an id; one that no `_id` can look like simply finds nothing.
// Compact: the 24 digits of an ObjectId fit into the value itself, so that the usual id takes no allocation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordId(CompactString);

impl RecordId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The keys that this text may stand for, in the order in which they are to be tried.
    ///
    /// At most two: what the text looks like (an ObjectId, a UUID, a number, a boolean, a date), then the string
    /// itself. Where a collection holds both, the typed `_id` answers and the string one is shadowed.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        typed_key(&self.0).into_iter().chain(std::iter::once_with(|| Key::String(self.0.clone())))
    }
}

impl From<&str> for RecordId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for RecordId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What `text` looks like, other than a string. Only the form that the wire uses counts: `05`, `5e0` or an ObjectId in
/// capitals are strings, so that one record has one address.
fn typed_key(text: &str) -> Option<Key> {
    let first = *text.as_bytes().first()?;
    let id = match text.len() {
        24 => wire::parse_object_id(text).map(Key::ObjectId),
        36 => wire::parse_uuid(text).map(Key::Uuid),
        _ => None,
    };
    if id.is_some() {
        return id;
    }
    match first {
        b't' if text == "true" => Some(Key::Bool(true)),
        b'f' if text == "false" => Some(Key::Bool(false)),
        b'-' | b'+' | b'0'..=b'9' => number_key(text).or_else(|| wire::parse_date(text).map(Key::Date)),
        _ => None,
    }
}

fn number_key(text: &str) -> Option<Key> {
    if let Ok(integer) = text.parse::<i64>() {
        let mut buffer = itoa::Buffer::new();
        return (buffer.format(integer) == text).then_some(Key::Integer(integer));
    }
    let double = text.parse::<f64>().ok().filter(|double| double.is_finite())?;
    let mut form = Vec::with_capacity(24);
    wire::double(&mut form, double);
    (form == text.as_bytes()).then(|| Key::double(double))
}

/// A record's `_id` in its type: what stores find and order by.
///
/// Keys compare as MongoDB compares `_id`s: numbers, strings, embedded documents, binary data, ObjectIds, booleans,
/// dates, and numbers by value whatever their type, so that `5` and `5.0` are one key.
/// ([Comparison and sort order](https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/).)
#[derive(Clone, Debug)]
pub enum Key {
    /// Any whole number in the range of an `i64`; [`Key::double`] brings whole doubles here.
    Integer(i64),
    /// Any other double. Build it with [`Key::double`].
    Double(f64),
    String(CompactString),
    Uuid([u8; 16]),
    ObjectId([u8; 12]),
    Bool(bool),
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Date(i64),
    /// An `_id` of a type that has no address (an embedded document, say): listed, never found by id.
    ///
    /// `rank` places its type among the others (MongoDB's order); inside one rank the bytes decide, which is stable
    /// but not MongoDB's order. Only the store that made the bytes can read them.
    Opaque {
        rank: u8,
        bytes: Arc<[u8]>,
    },
}

impl Key {
    /// The key of a double, equal to that of the integer with the same value.
    pub fn double(value: f64) -> Self {
        // 2^63 as a double is exact; i64::MAX is not, hence the strict upper bound.
        let limit = 9_223_372_036_854_775_808.0;
        if value.fract() == 0.0 && value >= -limit && value < limit {
            Self::Integer(value as i64)
        } else {
            Self::Double(value)
        }
    }

    /// The place of the key's type in MongoDB's order.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Integer(_) | Self::Double(_) => rank::NUMBER,
            Self::String(_) => rank::STRING,
            Self::Uuid(_) => rank::BINARY,
            Self::ObjectId(_) => rank::OBJECT_ID,
            Self::Bool(_) => rank::BOOL,
            Self::Date(_) => rank::DATE,
            Self::Opaque { rank, .. } => *rank,
        }
    }
}

/// MongoDB's order of types, as far as an `_id` can have them. Gaps are for nothing but readability.
pub mod rank {
    pub const MIN_KEY: u8 = 0;
    pub const NULL: u8 = 10;
    pub const NUMBER: u8 = 20;
    pub const STRING: u8 = 30;
    pub const DOCUMENT: u8 = 40;
    pub const BINARY: u8 = 60;
    pub const OBJECT_ID: u8 = 70;
    pub const BOOL: u8 = 80;
    pub const DATE: u8 = 90;
    pub const TIMESTAMP: u8 = 100;
    pub const OTHER: u8 = 120;
    pub const MAX_KEY: u8 = 255;
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        use Key::{Bool, Date, Double, Integer, ObjectId, Opaque, String, Uuid};
        match (self, other) {
            (Integer(a), Integer(b)) | (Date(a), Date(b)) => a.cmp(b),
            (Double(a), Double(b)) => compare_doubles(*a, *b),
            (Integer(a), Double(b)) => compare_integer_with_double(*a, *b),
            (Double(a), Integer(b)) => compare_integer_with_double(*b, *a).reverse(),
            (String(a), String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Uuid(a), Uuid(b)) => a.cmp(b),
            (ObjectId(a), ObjectId(b)) => a.cmp(b),
            (Bool(a), Bool(b)) => a.cmp(b),
            (Opaque { rank: a, bytes: x }, Opaque { rank: b, bytes: y }) => a.cmp(b).then_with(|| x.cmp(y)),
            // One rank, two kinds: an opaque key shares the rank of a known type (binary data beside a UUID).
            _ => self.rank().cmp(&other.rank()).then_with(|| self.is_opaque().cmp(&other.is_opaque())),
        }
    }
}

impl Key {
    fn is_opaque(&self) -> bool {
        matches!(self, Self::Opaque { .. })
    }
}

/// NaN before every number and equal to itself, as MongoDB has it.
fn compare_doubles(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// `b` is never a whole number in the range of an `i64` (see [`Key::double`]), so the two are never equal, and the
/// whole part of `b` decides exactly where `a as f64` would round.
fn compare_integer_with_double(a: i64, b: f64) -> Ordering {
    if b.is_nan() || b < i64::MIN as f64 {
        Ordering::Greater
    } else if b >= 9_223_372_036_854_775_808.0 {
        Ordering::Less
    } else {
        match a.cmp(&(b.floor() as i64)) {
            Ordering::Equal => Ordering::Less,
            other => other,
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            // What every lookup compares, which need not know the order.
            (Self::ObjectId(a), Self::ObjectId(b)) => a == b,
            (Self::String(a), Self::String(b)) => a == b,
            _ => self.cmp(other) == Ordering::Equal,
        }
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Integer(value) => value.hash(state),
            // Every NaN is one key, so every NaN has one hash.
            Self::Double(value) if value.is_nan() => f64::NAN.to_bits().hash(state),
            Self::Double(value) => value.to_bits().hash(state),
            Self::String(text) => text.hash(state),
            Self::Uuid(bytes) => bytes.hash(state),
            Self::ObjectId(bytes) => bytes.hash(state),
            Self::Bool(value) => value.hash(state),
            Self::Date(millis) => millis.hash(state),
            Self::Opaque { rank, bytes } => (rank, bytes).hash(state),
        }
    }
}

/// One JSON object with an `_id`, ready to send. Cloning shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
// One pointer to all of it: a store that holds millions reaches a record, compares its key and counts one reader more in
// a single line of memory.
pub struct Record(Arc<Content>);

#[derive(Debug, PartialEq, Eq)]
struct Content {
    key: Key,
    json: Bytes,
}

impl Record {
    /// `json` must be one JSON object in the wire form of [`crate::wire`], with nothing around it; stores and
    /// [`crate::document`] are the only makers of records.
    pub fn new(key: Key, json: impl Into<Bytes>) -> Self {
        Self(Arc::new(Content { key, json: json.into() }))
    }

    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// The record's wire JSON: UTF-8, one line.
    pub fn json(&self) -> &Bytes {
        &self.0.json
    }
}
