//! Records as CSV ([RFC 4180](https://www.rfc-editor.org/rfc/rfc4180)): a row for each record, a column for each field.
//!
//! Cells are the texts of the wire mapping, and so lose types: null, a missing field and an empty text are all empty. Spreadsheet
//! programs execute a cell that begins like a formula, so such a text gets an apostrophe, which is one more loss. Numbers stay as
//! they are.
//!
//! Written in place: a cell of several megabytes takes no second buffer, as one of the `csv` crate would.

use bson::spec::ElementType;

use crate::query::Path;
use crate::record::{Document, Malformed, ValueRef, raw};
use crate::wire;

/// Appends the row with the names of the columns.
pub fn write_header(out: &mut Vec<u8>, columns: &[Path]) {
    write_cells(out, columns, |out, column| {
        let start = out.len();
        out.extend_from_slice(column.to_string().as_bytes());
        escape_formula(out, start);
        quote(out, start);
        Ok(())
    })
    // A name is no BSON.
    .unwrap_or_default();
}

/// Appends the row of a record.
///
/// # Errors
///
/// When the document is not BSON.
pub fn write_row(out: &mut Vec<u8>, columns: &[Path], document: &Document) -> Result<(), Malformed> {
    write_cells(out, columns, |out, column| {
        let start = out.len();
        if let Some(kind) = write_at_path(out, document.bson(), column.names())? {
            use ElementType::{Decimal128, Double, Int32, Int64};
            if !matches!(kind, Double | Int32 | Int64 | Decimal128) {
                escape_formula(out, start);
            }
            quote(out, start);
        }
        Ok(())
    })
}

fn write_cells(
    out: &mut Vec<u8>,
    columns: &[Path],
    write_cell: impl Fn(&mut Vec<u8>, &Path) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let start = out.len();
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_cell(out, column)?;
    }
    if out.len() == start {
        // Many readers skip an empty line.
        out.extend_from_slice(b"\"\"");
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends the text of the value at the path, and returns its type. An array on the path becomes an array of the values in its
/// elements.
fn write_at_path(out: &mut Vec<u8>, document: &[u8], names: &[Box<str>]) -> Result<Option<ElementType>, Malformed> {
    let Some((name, rest)) = names.split_first() else { return Ok(None) };
    let Some(value) = raw::find(document, name.as_bytes())? else { return Ok(None) };
    if rest.is_empty() {
        write_text(out, value)?;
        return Ok(Some(value.kind));
    }
    if value.is_document() {
        return write_at_path(out, value.bytes, rest);
    }
    if value.is_array() {
        write_array(out, value, rest)?;
        return Ok(Some(value.kind));
    }
    Ok(None)
}

/// Appends the values at the path in the elements, as a JSON array. Elements without a value there are left out.
fn write_array(out: &mut Vec<u8>, array: ValueRef<'_>, names: &[Box<str>]) -> Result<(), Malformed> {
    out.push(b'[');
    let start = out.len();
    for element in array.elements()? {
        let (_, value) = element?;
        let before = out.len();
        if before > start {
            out.push(b',');
        }
        if !write_element(out, value, names)? {
            out.truncate(before);
        }
    }
    out.push(b']');
    Ok(())
}

/// Appends the value at the path in an element as JSON. Returns false if there is no value.
fn write_element(out: &mut Vec<u8>, value: ValueRef<'_>, names: &[Box<str>]) -> Result<bool, Malformed> {
    if value.is_array() {
        write_array(out, value, names)?;
        return Ok(true);
    }
    if !value.is_document() {
        return Ok(false);
    }
    let Some((name, rest)) = names.split_first() else { return Ok(false) };
    match raw::find(value.bytes, name.as_bytes())? {
        None => Ok(false),
        Some(value) if rest.is_empty() => wire::value(out, value).map(|()| true),
        Some(value) => write_element(out, value, rest),
    }
}

/// Appends the value as it is shown in JSON, a string without its quotes and escapes; nothing for null.
fn write_text(out: &mut Vec<u8>, value: ValueRef<'_>) -> Result<(), Malformed> {
    let start = out.len();
    let lossy = |out: &mut Vec<u8>, text| out.extend_from_slice(String::from_utf8_lossy(text).as_bytes());
    match value.kind {
        ElementType::String | ElementType::Symbol | ElementType::JavaScriptCode => lossy(out, value.text()?),
        ElementType::RegularExpression => {
            let (pattern, options) = value.regex()?;
            lossy(out, &[b"/", pattern, b"/", options].concat());
        }
        _ => {
            wire::value(out, value)?;
            // The strings of all other types need no escapes.
            if out[start] == b'"' {
                out.pop();
                out.remove(start);
            } else if &out[start..] == b"null" {
                out.truncate(start);
            }
        }
    }
    Ok(())
}

/// Puts an apostrophe before a text that a spreadsheet would take for a formula.
fn escape_formula(out: &mut Vec<u8>, start: usize) {
    if out.get(start).is_some_and(|first| b"=+-@\t\r".contains(first)) {
        out.insert(start, b'\'');
    }
}

/// Puts quotes around the cell, if it needs them, and doubles those in it.
fn quote(out: &mut Vec<u8>, start: usize) {
    let cell = &out[start..];
    if !cell.iter().any(|byte| b"\",\r\n".contains(byte)) {
        return;
    }
    let quotes = cell.iter().filter(|byte| **byte == b'"').count();
    let end = out.len();
    out.resize(end + quotes + 2, b'"');
    // From the end, so that no byte is overwritten before it was read.
    let mut to = out.len() - 1;
    for from in (start..end).rev() {
        let byte = out[from];
        let width = if byte == b'"' { 2 } else { 1 };
        out[to - width..to].fill(byte);
        to -= width;
    }
    out[start] = b'"';
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use proptest::array;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn cells(document: bson::Document, columns: &[&str]) -> String {
        let columns: Vec<Path> = columns.iter().map(|column| Path::parse(column).expect("a path")).collect();
        let mut out = b"x".to_vec();
        write_row(&mut out, &columns, &Document::new(document.to_vec().expect("bytes")).expect("BSON")).expect("a row");
        String::from_utf8(out).expect("UTF-8")[1..].to_owned()
    }

    #[rstest]
    #[case::plain(doc! { "_id": 1, "a": "x y" }, "x y")]
    #[case::comma(doc! { "_id": 1, "a": "x,y" }, r#""x,y""#)]
    #[case::quotes(doc! { "_id": 1, "a": "\"x\" \"" }, "\"\"\"x\"\" \"\"\"")]
    #[case::lines(doc! { "_id": 1, "a": "x\r\ny\n" }, "\"x\r\ny\n\"")]
    #[case::backslash(doc! { "_id": 1, "a": "x\\y" }, "x\\y")]
    #[case::formula(doc! { "_id": 1, "a": "=1+1" }, "'=1+1")]
    #[case::formula_in_quotes(doc! { "_id": 1, "a": "@SUM(1,2)" }, "\"'@SUM(1,2)\"")]
    #[case::plus(doc! { "_id": 1, "a": "+49" }, "'+49")]
    #[case::minus(doc! { "_id": 1, "a": "-x" }, "'-x")]
    #[case::tab(doc! { "_id": 1, "a": "\t=1" }, "'\t=1")]
    #[case::carriage_return(doc! { "_id": 1, "a": "\r=1" }, "\"'\r=1\"")]
    #[case::not_first(doc! { "_id": 1, "a": "1=1" }, "1=1")]
    #[case::negative(doc! { "_id": 1, "a": -5 }, "-5")]
    #[case::negative_long(doc! { "_id": 1, "a": -5_i64 }, "-5")]
    #[case::negative_double(doc! { "_id": 1, "a": -5.0 }, "-5.0")]
    #[case::negative_decimal(doc! { "_id": 1, "a": "-1.50".parse::<bson::Decimal128>().unwrap() }, "-1.50")]
    #[case::not_a_number(doc! { "_id": 1, "a": f64::NAN }, r#""""#)]
    #[case::boolean(doc! { "_id": 1, "a": true }, "true")]
    #[case::null(doc! { "_id": 1, "a": null }, r#""""#)]
    #[case::missing(doc! { "_id": 1 }, r#""""#)]
    #[case::empty(doc! { "_id": 1, "a": "" }, r#""""#)]
    #[case::null_as_a_text(doc! { "_id": 1, "a": "null" }, "null")]
    #[case::date(doc! { "_id": 1, "a": bson::DateTime::from_millis(0) }, "1970-01-01T00:00:00.000Z")]
    #[case::id(doc! { "_id": 1, "a": bson::oid::ObjectId::from_bytes([7; 12]) }, "070707070707070707070707")]
    #[case::array(doc! { "_id": 1, "a": [1, "x", null] }, "\"[1,\"\"x\"\",null]\"")]
    #[case::array_of_one(doc! { "_id": 1, "a": [1] }, "[1]")]
    #[case::object(doc! { "_id": 1, "a": { "b": { "c": 1.5 } } }, "\"{\"\"b\"\":{\"\"c\"\":1.5}}\"")]
    #[case::regex(doc! { "_id": 1, "a": bson::Regex { pattern: "a\"\\d".try_into().unwrap(), options: "i".try_into().unwrap() } }, "\"/a\"\"\\d/i\"")]
    fn a_cell_is_the_text_of_a_value(#[case] document: bson::Document, #[case] cell: &str) {
        assert_eq!(cells(document, &["a"]), format!("{cell}\r\n"));
    }

    #[test]
    fn a_column_is_a_path() {
        let document = doc! {
            "_id": 1,
            "a": { "b": "x", "c": [{ "d": 1 }, 5, { "d": "-" }, { "e": 1 }, [{ "d": { "d": 2 } }]] },
            "a.b": "y",
            "n": 5,
        };
        for (column, cell) in [
            ("a.b", "x"),
            (r"a\.b", "y"),
            ("a.c.d", r#""[1,""-"",[{""d"":2}]]""#),
            ("a.c.d.d", "[[2]]"),
            ("a.c.nothing", "[[]]"),
            ("a.b.x", ""),
            ("n.x", ""),
            ("x.y", ""),
        ] {
            assert_eq!(cells(document.clone(), &["n", column, "_id"]), format!("5,{cell},1\r\n"), "{column}");
        }
    }

    proptest! {
        #[test]
        fn a_reader_gets_the_texts_back(rows in vec(array::uniform3("[ -~\\t\\r\\né😀]{0,8}"), 1..8)) {
            let columns = ["a", "b", "c"].map(|column| Path::parse(column).expect("a path"));
            let mut out = Vec::new();
            write_header(&mut out, &columns);
            for [a, b, c] in &rows {
                let document = doc! { "_id": 1, "a": a, "b": b, "c": c }.to_vec().expect("bytes");
                write_row(&mut out, &columns, &Document::new(document).expect("BSON")).expect("a row");
            }
            let mut reader = ::csv::Reader::from_reader(out.as_slice());
            prop_assert_eq!(reader.headers().expect("a header"), vec!["a", "b", "c"]);
            let read: Vec<Vec<String>> = reader.deserialize().collect::<Result<_, _>>().expect("rows");
            let disarmed = |text: &String| match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
                true => format!("'{text}"),
                false => text.clone(),
            };
            let expected: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(disarmed).collect()).collect();
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_name_is_as_dangerous_as_a_text() {
        let mut out = Vec::new();
        write_header(
            &mut out,
            &["_id", "a.b", "=x", r"a\,b", r"\-x"].map(|column| Path::parse(column).expect("a path")),
        );
        assert_eq!(String::from_utf8(out).expect("UTF-8"), "_id,a.b,'=x,\"a\\,b\",\\-x\r\n");
    }
}
