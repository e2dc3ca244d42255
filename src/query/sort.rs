//! The order of a list, and the sort keys that put documents into it as MongoDB does
//! ([sort](https://www.mongodb.com/docs/manual/reference/method/cursor.sort/)).

use std::fmt;

use smallvec::SmallVec;

use super::path::Path;
use super::traverse::position;
use crate::record::raw::{self, Malformed};
use crate::record::{Document, Key, KeyBytes, ValueRef, complement, encode};

/// Sort fields, the first one first; equal documents follow in ascending order of `_id`. Empty: by `_id` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sort(pub Vec<SortField>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortField {
    pub path: Path,
    pub descending: bool,
}

/// The text of the parameter `sort`.
impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}{}", if field.descending { "-" } else { "" }, field.path)?;
        }
        Ok(())
    }
}

/// The place of a document in a list: bytes that sort as the documents do.
///
/// Consists of a key for each sort field, complemented where the order is descending, and the key of the `_id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(KeyBytes);

impl Position {
    /// The place of an `_id` in a list that has no other order.
    pub fn of_key(key: &Key) -> Self {
        Self(KeyBytes::from_slice(key.as_bytes()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads a position in the order of `sort`: one key for each of its fields, and the key of the `_id`.
    ///
    /// # Errors
    ///
    /// When the bytes are no position in that order.
    pub fn split(&self, sort: &Sort) -> Result<(Vec<Key>, Key), Malformed> {
        let mut rest = self.0.clone();
        let mut values = Vec::with_capacity(sort.0.len());
        for field in &sort.0 {
            if field.descending {
                complement(&mut rest);
            }
            let mut bytes = rest.as_slice();
            values.push(Key::split_first(&mut bytes)?);
            rest = KeyBytes::from_slice(bytes);
            if field.descending {
                complement(&mut rest);
            }
        }
        Ok((values, Key::from_bytes(&rest)?))
    }

    /// Takes bytes that [`as_bytes`](Self::as_bytes) gave, perhaps in another process.
    ///
    /// # Errors
    ///
    /// When they are no position in the order of `sort`.
    pub fn from_bytes(bytes: &[u8], sort: &Sort) -> Result<Self, Malformed> {
        let position = Self(KeyBytes::from_slice(bytes));
        position.split(sort)?;
        Ok(position)
    }
}

/// Why a document has no place in an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SortError {
    /// MongoDB refuses it too: it would have to combine each element of one with each of the other.
    #[error("`{0}` and `{1}` are arrays in one record")]
    ParallelArrays(Path, Path),
    #[error("`{0}` is both a position in an array and a field of its elements")]
    Ambiguous(Path),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Sort {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The place of a document: its least sort key, since an array gives a key for each element.
    ///
    /// # Errors
    ///
    /// When two sort fields are arrays in the document.
    pub fn position(&self, document: &Document) -> Result<Position, SortError> {
        if self.is_empty() {
            return Ok(Position::of_key(document.key()));
        }
        let fields = self.0.iter().map(|field| Field { rest: field.path.names(), value: None });
        let mut keys = Keys { sort: self, least: None };
        keys.expand(fields.collect(), Some(document.bson()), &[])?;
        let mut bytes = keys.least.unwrap_or_default();
        bytes.extend_from_slice(document.key().as_bytes());
        Ok(Position(bytes))
    }
}

/// A sort field while its path is followed: `value` is known once nothing is left of the path.
#[derive(Clone, Copy)]
struct Field<'a> {
    rest: &'a [Box<str>],
    value: Option<ValueRef<'a>>,
}

/// The element of an array that a name of digits stands for.
#[derive(Clone, Copy)]
struct Positional<'a> {
    element: ValueRef<'a>,
    /// The value that the rest of the path reaches from `element`, and the part of the path that remains.
    reached: Option<ValueRef<'a>>,
    rest: &'a [Box<str>],
}

type Fields<'a> = SmallVec<[Field<'a>; 2]>;

struct Keys<'s> {
    sort: &'s Sort,
    least: Option<KeyBytes>,
}

impl Keys<'_> {
    /// Generates the sort keys of `document` by MongoDB's rules for index keys: an array on the path of several fields is
    /// expanded once for all of them, so that a key combines values of one element.
    fn expand<'a>(
        &mut self,
        mut fields: Fields<'a>,
        document: Option<&'a [u8]>,
        positional: &[Option<Positional<'a>>],
    ) -> Result<(), SortError> {
        let mut array: Option<(usize, ValueRef<'a>)> = None;
        let mut in_array: SmallVec<[usize; 2]> = SmallVec::new();
        let mut is_nested = false;
        for index in 0..fields.len() {
            if fields[index].value.is_some() {
                continue;
            }
            let path = &self.sort.0[index].path;
            let positional = positional.get(index).copied().flatten();
            let (found, rest) = extract_next(document, positional, fields[index].rest, path)?;
            match found {
                Some(value) if value.is_array() => {
                    is_nested |= positional.is_some_and(|positional| positional.element.is_array());
                    match array {
                        Some((other, seen)) if seen.bytes.as_ptr() != value.bytes.as_ptr() => {
                            let other = self.sort.0[other].path.clone();
                            return Err(SortError::ParallelArrays(other, path.clone()));
                        }
                        _ => array = Some((index, value)),
                    }
                    fields[index].rest = rest;
                    in_array.push(index);
                }
                found => fields[index].value = Some(found.unwrap_or(ValueRef::NULL)),
            }
        }
        let Some((_, array)) = array else { return Ok(self.offer(&fields)?) };
        let mut elements = array.elements()?.peekable();
        if elements.peek().is_none() {
            for index in in_array {
                let value = if fields[index].rest.is_empty() { ValueRef::UNDEFINED } else { ValueRef::NULL };
                fields[index].value = Some(value);
            }
            return Ok(self.offer(&fields)?);
        }
        let mut positional: SmallVec<[Option<Positional<'a>>; 2]> = SmallVec::from_elem(None, fields.len());
        for index in &in_array {
            let rest = fields[*index].rest;
            if let Some(name) = rest.first()
                && position(name).is_some()
                && let Some(element) = raw::find(array.bytes, name.as_bytes())?
            {
                let (reached, rest) = extract(array.bytes, rest)?;
                positional[*index] = Some(Positional { element, reached, rest });
            }
        }
        for element in elements {
            let (_, value) = element?;
            let mut each = fields.clone();
            for index in &in_array {
                if each[*index].rest.is_empty() {
                    each[*index].value = Some(if is_nested { array } else { value });
                }
            }
            self.expand(each, value.is_document().then_some(value.bytes), &positional)?;
        }
        Ok(())
    }

    /// Keeps the key if it is the least so far.
    fn offer(&mut self, fields: &Fields<'_>) -> Result<(), Malformed> {
        let mut bytes = KeyBytes::new();
        for (field, sort) in fields.iter().zip(&self.sort.0) {
            let start = bytes.len();
            encode(&mut bytes, field.value.unwrap_or(ValueRef::NULL))?;
            if sort.descending {
                complement(&mut bytes[start..]);
            }
        }
        if self.least.as_ref().is_none_or(|least| bytes < *least) {
            self.least = Some(bytes);
        }
        Ok(())
    }
}

type Extracted<'a> = (Option<ValueRef<'a>>, &'a [Box<str>]);

fn extract_next<'a>(
    document: Option<&'a [u8]>,
    positional: Option<Positional<'a>>,
    path: &'a [Box<str>],
    whole: &Path,
) -> Result<Extracted<'a>, SortError> {
    let has_field = match (document, path.first()) {
        (Some(document), Some(name)) => raw::find(document, name.as_bytes())?.is_some(),
        _ => false,
    };
    match (has_field, positional) {
        (true, Some(_)) => Err(SortError::Ambiguous(whole.clone())),
        (false, Some(positional)) => Ok((positional.reached, positional.rest)),
        (true, None) => Ok(extract(document.unwrap_or_default(), path)?),
        (false, None) => Ok((None, &[])),
    }
}

/// The value at the end of the path or the first array on the way, and what is then left of the path.
fn extract<'a>(document: &'a [u8], path: &'a [Box<str>]) -> Result<Extracted<'a>, Malformed> {
    let (mut current, mut rest) = (document, path);
    while let Some((name, after)) = rest.split_first() {
        match raw::find(current, name.as_bytes())? {
            Some(value) if value.is_array() || after.is_empty() => return Ok((Some(value), after)),
            Some(value) if value.is_document() => (current, rest) = (value.bytes, after),
            _ => break,
        }
    }
    Ok((None, &[]))
}
