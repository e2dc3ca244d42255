//! The values that a dotted path reaches in a BSON document, as MongoDB's query language defines it
//! ([Query an array](https://www.mongodb.com/docs/manual/tutorial/query-arrays/),
//! [Query an array of embedded documents](https://www.mongodb.com/docs/manual/tutorial/query-array-of-documents/)).

use crate::record::ValueRef;
use crate::record::raw::{self, Result};

/// Calls `visit` with each value that the path reaches, and with `None` for each document on the way that lacks the field.
///
/// An array at the end of the path is visited element by element, then as a whole. An array on the way stands for those of
/// its elements that are documents, and a name of digits also for the element at that position. No other array inside an
/// array is entered.
///
/// # Errors
///
/// When the bytes are not BSON.
pub fn visit_path<'a>(
    document: &'a [u8],
    path: &[Box<str>],
    visit: &mut dyn FnMut(Option<ValueRef<'a>>),
) -> Result<()> {
    let mut current = document;
    let mut rest = path;
    while let Some((name, after)) = rest.split_first() {
        match raw::find(current, name.as_bytes())? {
            Some(value) if value.is_array() => return visit_array(value, after, visit),
            Some(value) if after.is_empty() => {
                visit(Some(value));
                return Ok(());
            }
            Some(value) if value.is_document() => (current, rest) = (value.bytes, after),
            _ => break,
        }
    }
    visit(None);
    Ok(())
}

fn visit_array<'a>(array: ValueRef<'a>, path: &[Box<str>], visit: &mut dyn FnMut(Option<ValueRef<'a>>)) -> Result<()> {
    let Some((name, after)) = path.split_first() else {
        for element in array.elements()? {
            visit(Some(element?.1));
        }
        visit(Some(array));
        return Ok(());
    };
    let position = position(name);
    for (index, element) in array.elements()?.enumerate() {
        let (_, value) = element?;
        if value.is_document() {
            visit_path(value.bytes, path, visit)?;
        }
        if position != Some(index) {
            continue;
        }
        if after.is_empty() {
            visit(Some(value));
        } else if value.is_document() {
            visit_path(value.bytes, after, visit)?;
        } else if value.is_array() {
            visit_array(value, after, visit)?;
        }
    }
    Ok(())
}

/// The position in an array that a name stands for.
pub fn position(name: &str) -> Option<usize> {
    let is_position = name == "0" || (!name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit()));
    name.parse().ok().filter(|_| is_position)
}
