//! The id in a URL, and the keys that it may stand for.

use std::fmt;

use bson::Bson;
use compact_str::CompactString;
use smallvec::{SmallVec, smallvec};

use super::{Key, text};

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

    /// The keys that this text may stand for, in the order in which they are to be tried: what the text denotes (an ObjectId, a
    /// number, a date, a UUID, a boolean), then the string itself. Where a collection holds both, the typed `_id` answers and
    /// shadows the string. `null` is the string.
    pub fn keys(&self) -> SmallVec<[Key; 2]> {
        if let Some(integer) = integer(&self.0) {
            return smallvec![Key::int64(integer), Key::string(&self.0)];
        }
        let mut keys: SmallVec<[Key; 2]> = object_id(&self.0).into_iter().collect();
        if may_denote_more(&self.0, !keys.is_empty()) {
            let others = text::typed(&self.0).into_iter();
            keys.extend(
                others.filter(|value| !matches!(value, Bson::ObjectId(_) | Bson::Null)).map(|value| text::key(&value)),
            );
        }
        keys.push(Key::string(&self.0));
        keys
    }
}

/// The integer that the text is in JSON's grammar. It is nothing else then, besides a string: an ObjectId has more digits.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_json = digits == "0" || digits.starts_with(|first| matches!(first, '1'..='9'));
    is_json.then(|| text.parse().ok())?
}

/// Returns false if the text can only denote an ObjectId or a string. Most ids do, and skip the parsers.
fn may_denote_more(text: &str, is_object_id: bool) -> bool {
    match text.as_bytes() {
        // Only these hex digits can occur in a number.
        digits if is_object_id => digits.iter().all(|digit| digit.is_ascii_digit() || matches!(digit, b'e' | b'E')),
        [b'0'..=b'9' | b'-' | b'+', ..] | b"true" | b"false" => true,
        bytes => bytes.len() == 36 || text::is_beyond_json(text),
    }
}

fn object_id(text: &str) -> Option<Key> {
    let mut id = [0; 12];
    unhex(text.as_bytes(), &mut id).then(|| Key::object_id(id))
}

/// Reads hex digits of either case.
fn unhex(text: &[u8], out: &mut [u8]) -> bool {
    let digit = |byte: u8| (byte as char).to_digit(16);
    text.len() == out.len() * 2
        && text.chunks_exact(2).zip(out).all(|(pair, byte)| match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => {
                *byte = (high << 4 | low) as u8;
                true
            }
            _ => false,
        })
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
