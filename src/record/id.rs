//! The id in a URL, and the keys that it may stand for.

use std::fmt;

use bson::Bson;
use compact_str::CompactString;
use smallvec::SmallVec;

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
        let mut keys: SmallVec<[Key; 2]> = object_id(&self.0).into_iter().collect();
        // Most ids are an ObjectId or a plain string, and need no closer look.
        if self.0.starts_with(|first: char| first.is_ascii_hexdigit() || matches!(first, '-' | '+' | 't')) {
            let others = text::typed(&self.0).into_iter();
            keys.extend(
                others.filter(|value| !matches!(value, Bson::ObjectId(_) | Bson::Null)).map(|value| text::key(&value)),
            );
        }
        keys.push(Key::string(&self.0));
        keys
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
