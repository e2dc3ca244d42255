//! A reader for BSON bytes ([bsonspec.org](https://bsonspec.org/spec.html)) and the few writers that go with it.
//!
//! The `bson` crate reads raw documents too, but refuses a document for one string that is not UTF-8. Some clients write
//! such strings, and one of them must not hide the record, let alone the list. So names and strings are bytes here.

use bson::spec::ElementType;

/// Deeper documents are refused: MongoDB stores none, and each level takes stack.
pub const MAX_DEPTH: usize = 250;

/// The old subtype of generic binary data, which carries its length a second time.
const BINARY_OLD: u8 = 2;

/// The bytes are not BSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed BSON: {0}")]
pub struct Malformed(pub &'static str);

pub type Result<T> = std::result::Result<T, Malformed>;

/// The type and the bytes of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueRef<'a> {
    pub kind: ElementType,
    pub bytes: &'a [u8],
}

impl<'a> ValueRef<'a> {
    pub const NULL: ValueRef<'static> = ValueRef { kind: ElementType::Null, bytes: &[] };
    pub const UNDEFINED: ValueRef<'static> = ValueRef { kind: ElementType::Undefined, bytes: &[] };

    /// The value of a type with a fixed width.
    pub fn fixed<const N: usize>(self) -> Result<[u8; N]> {
        self.bytes.try_into().map_err(|_| Malformed("a value is truncated"))
    }

    /// The text of a string, code or symbol: a length, that many bytes, the last of them NUL.
    pub fn text(self) -> Result<&'a [u8]> {
        text(self.bytes)
    }

    /// Subtype and payload of binary data.
    pub fn binary(self) -> Result<(u8, &'a [u8])> {
        match self.bytes {
            [_, _, _, _, BINARY_OLD, _, _, _, _, payload @ ..] => Ok((BINARY_OLD, payload)),
            [_, _, _, _, subtype, payload @ ..] => Ok((*subtype, payload)),
            _ => Err(Malformed("binary data is truncated")),
        }
    }

    /// Pattern and options of a regular expression.
    pub fn regex(self) -> Result<(&'a [u8], &'a [u8])> {
        let (pattern, rest) = cstring(self.bytes)?;
        Ok((pattern, cstring(rest)?.0))
    }

    /// Namespace and id of a DBPointer.
    pub fn db_pointer(self) -> Result<(&'a [u8], &'a [u8; 12])> {
        let (namespace, id) = self.bytes.split_last_chunk::<12>().ok_or(Malformed("a DBPointer is truncated"))?;
        Ok((text(namespace)?, id))
    }

    /// Code and scope of code with scope.
    pub fn code_with_scope(self) -> Result<(&'a [u8], &'a [u8])> {
        let truncated = Malformed("code with scope is truncated");
        let inner = self.bytes.get(4..).ok_or(truncated)?;
        let (code, scope) = inner.split_at_checked(string_len(inner)?).ok_or(truncated)?;
        Ok((text(code)?, scope))
    }

    /// The elements of an embedded document or an array.
    pub fn elements(self) -> Result<Elements<'a>> {
        Elements::new(self.bytes)
    }

    pub fn is_array(self) -> bool {
        self.kind == ElementType::Array
    }

    pub fn is_document(self) -> bool {
        self.kind == ElementType::EmbeddedDocument
    }
}

/// Name and value of one element.
pub type Element<'a> = (&'a [u8], ValueRef<'a>);

/// Iterates over the elements of a document or an array. Ends after the first error.
#[derive(Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// # Errors
    ///
    /// When `document` is not as long as its first four bytes say, or has no NUL at its end.
    pub fn new(document: &'a [u8]) -> Result<Self> {
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

    // Every byte that is read and written passes through here.
    #[inline]
    fn read(&mut self) -> Result<Option<Element<'a>>> {
        let Some((&tag, rest)) = self.rest.split_first() else { return Ok(None) };
        let kind = ElementType::from(tag).ok_or(Malformed("a type is unknown"))?;
        let (name, rest) = cstring(rest)?;
        let (bytes, rest) = rest.split_at_checked(value_len(kind, rest)?).ok_or(Malformed("a value is truncated"))?;
        self.rest = rest;
        Ok(Some((name, ValueRef { kind, bytes })))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let element = self.read().transpose();
        if matches!(element, Some(Err(_))) {
            self.rest = &[];
        }
        element
    }
}

/// The first element of `document` with this name: where a name repeats, MongoDB takes the first one too.
///
/// # Errors
///
/// When the bytes before it are not BSON.
pub fn find<'a>(document: &'a [u8], name: &[u8]) -> Result<Option<ValueRef<'a>>> {
    for element in Elements::new(document)? {
        let (found, value) = element?;
        if found == name {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Checks that every byte of `document` can be read, down to its deepest level.
///
/// # Errors
///
/// At the first byte that cannot be read.
pub fn validate(document: &[u8]) -> Result<()> {
    fn level(document: &[u8], depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Malformed("it nests too deep"));
        }
        for element in Elements::new(document)? {
            let (_, value) = element?;
            match value.kind {
                ElementType::EmbeddedDocument | ElementType::Array => level(value.bytes, depth + 1)?,
                ElementType::JavaScriptCodeWithScope => level(value.code_with_scope()?.1, depth + 1)?,
                ElementType::String | ElementType::JavaScriptCode | ElementType::Symbol => drop(value.text()?),
                ElementType::Binary => drop(value.binary()?),
                ElementType::DbPointer => drop(value.db_pointer()?),
                _ => {}
            }
        }
        Ok(())
    }
    level(document, 0)
}

/// Returns the length of a value of this type at the start of `rest`. The result may exceed the length of `rest`.
fn value_len(kind: ElementType, rest: &[u8]) -> Result<usize> {
    use ElementType::{
        Array, Binary, Boolean, DateTime, DbPointer, Decimal128, Double, EmbeddedDocument, Int32, Int64,
        JavaScriptCode, JavaScriptCodeWithScope, MaxKey, MinKey, Null, ObjectId, RegularExpression, String, Symbol,
        Timestamp, Undefined,
    };
    Ok(match kind {
        Undefined | Null | MinKey | MaxKey => 0,
        Boolean => 1,
        Int32 => 4,
        Double | DateTime | Timestamp | Int64 => 8,
        ObjectId => 12,
        Decimal128 => 16,
        String | JavaScriptCode | Symbol => string_len(rest)?,
        DbPointer => string_len(rest)? + 12,
        EmbeddedDocument | Array | JavaScriptCodeWithScope => length(rest)?,
        Binary => 5 + length(rest)?,
        RegularExpression => {
            let (_, options) = cstring(rest)?;
            let (_, after) = cstring(options)?;
            rest.len() - after.len()
        }
    })
}

fn length(bytes: &[u8]) -> Result<usize> {
    let bytes = bytes.first_chunk().ok_or(Malformed("a length is truncated"))?;
    usize::try_from(i32::from_le_bytes(*bytes)).map_err(|_| Malformed("a length is negative"))
}

fn string_len(bytes: &[u8]) -> Result<usize> {
    Ok(4 + length(bytes)?)
}

fn text(value: &[u8]) -> Result<&[u8]> {
    match value {
        [_, _, _, _, text @ .., 0] if string_len(value)? == value.len() => Ok(text),
        _ => Err(Malformed("a string is not as long as it says")),
    }
}

fn cstring(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    // Names are short: a vectorised search would still be setting up when this loop is done.
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(Malformed("a name does not end"))?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

/// Appends a document or an array that holds the elements that `write` appends.
pub fn append_document(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    out.push(0);
    // A document of MongoDB is at most 16 MiB, a command a little more.
    let length = (out.len() - start) as i32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends one element. `name` has no NUL.
pub fn append_element(out: &mut Vec<u8>, name: &[u8], value: ValueRef<'_>) {
    append_name(out, name, value.kind);
    out.extend_from_slice(value.bytes);
}

/// Appends the type and the name of an element, whose value the caller appends.
pub fn append_name(out: &mut Vec<u8>, name: &[u8], kind: ElementType) {
    out.push(kind as u8);
    out.extend_from_slice(name);
    out.push(0);
}
