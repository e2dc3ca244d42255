//! Parses one JSON text into one [`Document`]: MongoDB Extended JSON v2, canonical and relaxed, as
//! [its specification](https://github.com/mongodb/specifications/blob/master/source/extended-json/extended-json.md) has
//! it, and the v1 forms that older `mongoexport`s wrote (`$date` as a number, `$binary` next to `$type`, `$regex` next
//! to `$options`).
//!
//! Stricter than the specification in three points, because a parser that is lenient loses data in silence: a name that
//! occurs twice in one object is an error, so is a malformed wrapper, and so is anything that MongoDB would not store.
//!
//! Bare numbers: digits alone are an Int32 or, where it is too small, an Int64; beyond that a double, as the
//! specification has it. A number with a fraction or an exponent is a double, and so is `-0`. A number that no double can
//! hold, such as `1e400`, is an error rather than infinity.

use std::fmt;

use bson::Bson;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{MAX_DEPTH, ValidationError, validate, wrapper};
use crate::record::Document;

/// The text nests deeper than the document does: a wrapper at the deepest level adds up to three levels of its own
/// (`{"$dbPointer":{"$id":{"$oid":…}}}`). [`validate`] counts those of the document.
const MAX_TEXT_DEPTH: usize = MAX_DEPTH + 3;

/// The reason why a text is not a document.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no JSON, or no Extended JSON. `column` counts bytes from 1, `line` counts within the text.
    #[error("{reason}")]
    Syntax { reason: String, line: usize, column: usize },
    #[error("it is not a JSON object")]
    NotAnObject,
    #[error(transparent)]
    Invalid(#[from] ValidationError),
}

/// Reads one whole document.
///
/// # Errors
///
/// When some store could not hold the document as it is: see [`Error`].
pub fn parse(text: &[u8]) -> Result<Document, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Seed { depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(Error::syntax)?;
    match value {
        Bson::Document(document) => Ok(validate(document)?),
        _ => Err(Error::NotAnObject),
    }
}

impl Error {
    fn syntax(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        // The caller states the position: the reader knows the line of the file.
        let reason = error.to_string();
        let reason = reason.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&reason).to_owned();
        Self::Syntax { reason, line, column }
    }
}

/// Counts the depth, so that this module's limit and message apply long before the stack ends.
struct Seed {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Bson;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bson, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth == MAX_TEXT_DEPTH {
            return Err(E::custom(ValidationError::TooDeep));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Bson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Bson, E> {
        Ok(Bson::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Bson, E> {
        Ok(Bson::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Bson, E> {
        Ok(i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32))
    }

    /// A whole number beyond an `i64` is a double, as the specification has it.
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Bson, E> {
        i64::try_from(value).map_or(Ok(Bson::Double(value as f64)), |value| self.visit_i64(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Bson, E> {
        Ok(Bson::Double(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Bson, E> {
        Ok(Bson::String(text.into()))
    }

    fn visit_string<E>(self, text: String) -> Result<Bson, E> {
        Ok(Bson::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bson, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self.deeper()?)? {
            values.push(value);
        }
        Ok(Bson::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bson, A::Error> {
        let inner = self.deeper()?;
        let mut fields = bson::Document::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.contains('\0') {
                return Err(A::Error::custom(format_args!("the field name {name:?} has a NUL in it")));
            }
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("the field name `{name}` stands twice in one object")));
            }
            fields.insert(name, map.next_value_seed(Self { ..inner })?);
        }
        wrapper::unwrap(fields).map_err(A::Error::custom)
    }
}
