//! The order by one field.

use std::cmp::Ordering;
use std::fmt;

use compact_str::CompactString;

use super::Path;
use super::walk::{Leaf, reached_whole};
use crate::record::Key;

/// How many bytes of a string decide its place, to the end of a character: a cursor carries them.
pub const PREFIX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    pub path: Path,
    pub descending: bool,
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.descending { "-" } else { "" }, self.path)
    }
}

/// What decides a record's place: the order of the variants, then the value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Also where the field is missing.
    Null,
    /// An integer or a double.
    Number(Key),
    String(CompactString),
    Object,
    Array,
    Bool(bool),
}

impl Value {
    /// No more of a string than decides its place.
    #[must_use]
    pub fn cut(&self) -> Self {
        match self {
            Self::String(text) => Self::String(prefix(text).into()),
            other => other.clone(),
        }
    }
}

impl Sort {
    pub fn value(&self, json: &[u8]) -> Value {
        self.found(json, prefix)
    }

    /// As [`value`](Self::value), with all of a string.
    pub fn whole(&self, json: &[u8]) -> Value {
        self.found(json, |text| text)
    }

    fn found(&self, json: &[u8], part: fn(&str) -> &str) -> Value {
        let mut found = Value::Null;
        reached_whole(json, self.path.names(), &mut |leaf| {
            found = match leaf {
                Leaf::Null => Value::Null,
                Leaf::Bool(value) => Value::Bool(value),
                Leaf::Number(value) => Value::Number(value),
                Leaf::String(value) => Value::String(part(value).into()),
                Leaf::Object => Value::Object,
                Leaf::Array => Value::Array,
            }
        });
        found
    }

    /// The order of two records. Those that are alike come in the order of their keys, whatever the direction.
    pub fn compare(&self, a: (&Value, &Key), b: (&Value, &Key)) -> Ordering {
        let values = a.0.cmp(b.0);
        if self.descending { values.reverse() } else { values }.then_with(|| a.1.cmp(b.1))
    }
}

/// The first [`PREFIX`] bytes, and what is left of the last one's character: so two texts are never in the other order than
/// these are.
fn prefix(text: &str) -> &str {
    (PREFIX..text.len()).find_map(|end| text.get(..end)).unwrap_or(text)
}
