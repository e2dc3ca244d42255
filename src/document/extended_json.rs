//! Parses JSON texts into documents: MongoDB Extended JSON v2, canonical and relaxed, as
//! [its specification](https://github.com/mongodb/specifications/blob/master/source/extended-json/extended-json.md) has
//! it; the v1 forms that older `mongoexport`s wrote (`$date` as a number, `$binary` next to `$type`, `$regex` next
//! to `$options`); and what JSON has no numbers for, as `mongoexport` writes it: `NaN`, `Infinity`, `-Infinity`.
//!
//! Stricter than the specification in three points, because a parser that is lenient loses data in silence: a name that
//! occurs twice in one object is an error, so is a malformed wrapper, and so is anything that MongoDB would not store.
//!
//! Bare numbers: digits alone are an Int32 or, where it is too small, an Int64; beyond that a double, as the
//! specification has it. A number with a fraction or an exponent is a double, and so is `-0`. A number that no double can
//! hold, such as `1e400`, is an error rather than infinity.

use std::fmt;

use bson::Bson;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{MAX_DEPTH, ValidationError, notation, validate, wrapper};
use crate::record::Document;

/// The text nests deeper than the document does: a wrapper at the deepest level adds up to three levels of its own
/// (`{"$dbPointer":{"$id":{"$oid":…}}}`). [`validate`] counts those of the document.
const MAX_TEXT_DEPTH: usize = MAX_DEPTH + 3;

/// The reason why a text is not a document.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no JSON, or no Extended JSON; `offset` counts bytes of the text.
    #[error("{reason}")]
    Syntax { reason: String, offset: usize, is_foreign: bool },
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
    Ok(validate(parse_whole(text)?)?)
}

/// Reads one object, after which only white space follows.
///
/// # Errors
///
/// When the text is anything else.
pub fn parse_whole(text: &[u8]) -> Result<bson::Document, Error> {
    let (fields, length) = parse_first(text)?;
    match text[length..].iter().position(|byte| !byte.is_ascii_whitespace()) {
        None => Ok(fields),
        Some(at) => Err(Error::Syntax { reason: "trailing characters".into(), offset: length + at, is_foreign: false }),
    }
}

/// Reads the object at the beginning of `text`, and returns the number of bytes that it takes.
///
/// # Errors
///
/// When the text begins with something else, or ends before the object does.
pub fn parse_first(text: &[u8]) -> Result<(bson::Document, usize), Error> {
    let (value, length) = match first_value(text) {
        Ok(first) => first,
        Err(error) if error.is_eof() => return Err(Error::syntax(text, &error, |offset| offset)),
        Err(error) => match notation::quote_special_numbers(text) {
            None => return Err(Error::syntax(text, &error, |offset| offset)),
            Some(quoted) => match first_value(&quoted.text) {
                Ok((value, length)) => (value, quoted.offset_before(length)),
                Err(error) => {
                    return Err(Error::syntax(&quoted.text, &error, |offset| quoted.offset_before(offset)));
                }
            },
        },
    };
    match value {
        Bson::Document(fields) => Ok((fields, length)),
        _ => Err(Error::NotAnObject),
    }
}

fn first_value(text: &[u8]) -> serde_json::Result<(Bson, usize)> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    match values.next() {
        Some(value) => Ok((value?.0, values.byte_offset())),
        // Nothing but white space, for which this has the error.
        None => serde_json::from_slice::<Value>(text).map(|value| (value.0, text.len())),
    }
}

impl Error {
    /// `place` leads from an offset in `text` to the one to be reported.
    fn syntax(text: &[u8], error: &serde_json::Error, place: impl Fn(usize) -> usize) -> Self {
        let (line, column) = (error.line(), error.column());
        let reason = error.to_string();
        let reason = reason.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&reason);
        let mut line_starts = memchr::memchr_iter(b'\n', text).map(|end| end + 1);
        let line_start = if line > 1 { line_starts.nth(line - 2).unwrap_or(text.len()) } else { 0 };
        let offset = (line_start + column).saturating_sub(1);
        if let Some((reason, at)) = notation::explain(text, offset).filter(|_| error.is_syntax()) {
            // A comment may stand before documents that are JSON.
            let is_foreign = reason != notation::COMMENT;
            return Self::Syntax { reason: reason.to_owned(), offset: place(at), is_foreign };
        }
        let (reason, at) = match notation::invalid_utf8(text, offset).filter(|_| error.is_syntax()) {
            Some(at) => ("this is not UTF-8: convert the file to UTF-8", at),
            None if reason.ends_with("hex escape") => (r"`\u` is half of a surrogate pair: write both halves", offset),
            None if reason == "expected ident" && !text.trim_ascii_start().starts_with(b"{") => {
                ("a document begins with { in JSON", offset)
            }
            None if reason == "expected ident" => ("expected true, false or null; a string has double quotes", offset),
            None => (reason, offset),
        };
        Self::Syntax { reason: reason.to_owned(), offset: place(at), is_foreign: false }
    }

    /// The text ends in the middle of a value.
    pub fn is_cut(&self) -> bool {
        matches!(self, Self::Syntax { reason, .. } if reason.starts_with("EOF"))
    }
}

struct Value(Bson);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Seed { depth: 0 }.deserialize(deserializer).map(Self)
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
