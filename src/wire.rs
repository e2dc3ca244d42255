//! The wire mapping: the plain JSON form of each BSON type in responses. This table is the only definition.
//!
//! | type | JSON | example |
//! |---|---|---|
//! | Double | number; a whole one keeps `.0`; NaN and infinities → `null` | `5.5`, `5.0`, `1e+300` |
//! | String | string | `"Curaçao"` |
//! | Embedded document | object, field order kept | `{"a":1}` |
//! | Array | array | `[1,"two"]` |
//! | Binary, subtype 4, 16 bytes (UUID) | string, hyphenated lower case | `"3b241101-e2bb-4255-8caf-4136c566a962"` |
//! | Binary, any other | string, base64 with padding; the subtype is not shown | `"AQID"` |
//! | ObjectId | string, 24 lower-case hex digits | `"507f1f77bcf86cd799439011"` |
//! | Boolean | `true`, `false` | |
//! | Date | string, RFC 3339 in UTC with milliseconds | `"2015-09-10T08:55:47.000Z"` |
//! | Date outside the years 0 to 9999 | the same with a signed year of six digits or more (ISO 8601) | `"+010000-01-01T00:00:00.000Z"` |
//! | Null, Undefined | `null` | |
//! | Int32, Int64 | number, all digits | `9007199254740993` |
//! | Decimal128 | string, as the IEEE 754 scientific string; NaN and infinities too | `"1.50"`, `"1E+3"`, `"NaN"` |
//! | Regular expression | string, `/pattern/options` | `"/^a/i"` |
//! | JavaScript code | string, the code | `"x => x"` |
//! | JavaScript code with scope | object of `code` and `scope` | `{"code":"x","scope":{"x":1}}` |
//! | Symbol | string | `"s"` |
//! | Timestamp | object of `t` (seconds) and `i` (ordinal) | `{"t":1565545664,"i":1}` |
//! | DBPointer | object of `$ref` and `$id` | `{"$ref":"db.c","$id":"507f1f77bcf86cd799439011"}` |
//! | MinKey, MaxKey | the strings `"MinKey"`, `"MaxKey"` | |
//!
//! The mapping loses types on purpose: it is for people and programs that want plain JSON. Data that must come back as it
//! was belongs in Extended JSON, which the importer reads.
//!
//! The encoder appends to a buffer, so that a whole list is written without a tree or a copy in between.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bson::Decimal128;
use bson::spec::ElementType;

use crate::record::raw::{self, Elements, MAX_DEPTH, Malformed, Result, ValueRef};

/// The longest part of an id that a message shows, in characters.
const ID_SHOWN: usize = 128;

/// Longest form of a date: a sign, nine digits of year (`i64` milliseconds reach the year 292,278,994), and the rest.
const DATE_MAX: usize = 32;

/// Appends the JSON of a BSON document: one object, on one line, in UTF-8.
///
/// Replaces bytes that are not UTF-8, which some clients of MongoDB write, by U+FFFD: one bad string must not hide the record
/// or fail the list.
///
/// # Errors
///
/// When the bytes are not a BSON document; `out` then ends in half an object.
pub fn document(out: &mut Vec<u8>, document: &[u8]) -> Result<()> {
    write_document(out, document, 0)
}

/// Appends the JSON of a value, as [`document`] does.
///
/// # Errors
///
/// Those of [`document`].
pub fn value(out: &mut Vec<u8>, value: ValueRef<'_>) -> Result<()> {
    write_value(out, value, 0)
}

/// Returns the JSON of the document's `_id` for a message, cut after `ID_SHOWN` characters.
pub fn id(document: &[u8]) -> Option<String> {
    let mut out = Vec::new();
    write_value(&mut out, raw::find(document, b"_id").ok()??, 0).ok()?;
    Some(String::from_utf8_lossy(&out).chars().take(ID_SHOWN).collect())
}

fn write_document(out: &mut Vec<u8>, document: &[u8], depth: usize) -> Result<()> {
    let mut separator = b'{';
    for element in Elements::new(document)? {
        let (name, value) = element?;
        out.push(separator);
        separator = b',';
        string(out, name);
        out.push(b':');
        write_value(out, value, depth)?;
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

fn write_value(out: &mut Vec<u8>, value: ValueRef<'_>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Malformed("it nests too deep"));
    }
    match value.kind {
        ElementType::Double => double(out, f64::from_le_bytes(value.fixed()?)),
        ElementType::String | ElementType::JavaScriptCode | ElementType::Symbol => string(out, value.text()?),
        ElementType::EmbeddedDocument => write_document(out, value.bytes, depth + 1)?,
        ElementType::Array => {
            out.push(b'[');
            // BSON names an array's elements by their indexes. MongoDB ignores the names and uses the order of the bytes.
            for (index, element) in value.elements()?.enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(out, element?.1, depth + 1)?;
            }
            out.push(b']');
        }
        ElementType::Binary => {
            let (subtype, payload) = value.binary()?;
            binary(out, subtype, payload);
        }
        ElementType::ObjectId => object_id(out, &value.fixed()?),
        ElementType::Boolean => out.extend_from_slice(if value.bytes == [0] { b"false" } else { b"true" }),
        ElementType::DateTime => date(out, i64::from_le_bytes(value.fixed()?)),
        ElementType::Null | ElementType::Undefined => out.extend_from_slice(b"null"),
        ElementType::RegularExpression => {
            // MongoDB sorts the options; they are shown as they are.
            let (pattern, options) = value.regex()?;
            string(out, &[b"/", pattern, b"/", options].concat());
        }
        ElementType::DbPointer => {
            let (namespace, id) = value.db_pointer()?;
            out.extend_from_slice(b"{\"$ref\":");
            string(out, namespace);
            out.extend_from_slice(b",\"$id\":");
            object_id(out, id);
            out.push(b'}');
        }
        ElementType::JavaScriptCodeWithScope => {
            let (code, scope) = value.code_with_scope()?;
            out.extend_from_slice(b"{\"code\":");
            string(out, code);
            out.extend_from_slice(b",\"scope\":");
            write_document(out, scope, depth + 1)?;
            out.push(b'}');
        }
        ElementType::Int32 => integer(out, i32::from_le_bytes(value.fixed()?).into()),
        ElementType::Timestamp => {
            let bits = u64::from_le_bytes(value.fixed()?);
            out.extend_from_slice(b"{\"t\":");
            integer(out, (bits >> 32) as i64);
            out.extend_from_slice(b",\"i\":");
            integer(out, i64::from(bits as u32));
            out.push(b'}');
        }
        ElementType::Int64 => integer(out, i64::from_le_bytes(value.fixed()?)),
        ElementType::Decimal128 => string(out, Decimal128::from_bytes(value.fixed()?).to_string().as_bytes()),
        ElementType::MinKey => out.extend_from_slice(b"\"MinKey\""),
        ElementType::MaxKey => out.extend_from_slice(b"\"MaxKey\""),
    }
    Ok(())
}

/// Appends a JSON string. `value` may have bytes that are not UTF-8.
fn string(out: &mut Vec<u8>, value: &[u8]) {
    // Most strings need no escapes. The fold has no early exit, so that the compiler can vectorise it.
    if value.iter().fold(true, |plain, byte| plain & (byte.is_ascii() & stands_for_itself(*byte))) {
        return quoted(out, value);
    }
    let text = String::from_utf8_lossy(value);
    if text.bytes().fold(true, |plain, byte| plain & stands_for_itself(byte)) {
        quoted(out, text.as_bytes());
    } else {
        // Writing to a Vec cannot fail, and a str always serialises.
        serde_json::to_writer(out, &*text).unwrap_or_default();
    }
}

/// Returns true if the byte needs no escape in a JSON string.
fn stands_for_itself(byte: u8) -> bool {
    (byte >= 0x20) & (byte != b'"') & (byte != b'\\')
}

fn quoted(out: &mut Vec<u8>, value: &[u8]) {
    out.reserve(value.len() + 2);
    out.push(b'"');
    out.extend_from_slice(value);
    out.push(b'"');
}

/// Writes NaN and the infinities, which JSON does not have, as `null`.
fn double(out: &mut Vec<u8>, value: f64) {
    serde_json::to_writer(out, &value).unwrap_or_default();
}

fn integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn object_id(out: &mut Vec<u8>, id: &[u8; 12]) {
    out.push(b'"');
    hex(out, id);
    out.push(b'"');
}

/// Appends binary data of any subtype; 16 bytes of subtype 4 are a UUID.
fn binary(out: &mut Vec<u8>, subtype: u8, bytes: &[u8]) {
    out.push(b'"');
    match <&[u8; 16]>::try_from(bytes) {
        Ok(uuid) if subtype == 4 => hyphenated(out, uuid),
        _ => {
            // A stack buffer avoids zeroing the output before the encoder writes to it.
            let mut buffer = [0; 4 * 768];
            for piece in bytes.chunks(3 * 768) {
                // A multiple of three bytes encodes without padding.
                let length = BASE64_STANDARD.encode_slice(piece, &mut buffer).unwrap_or_default();
                out.extend_from_slice(&buffer[..length]);
            }
        }
    }
    out.push(b'"');
}

/// Appends a date: `millis` since 1970-01-01T00:00:00Z, any `i64`.
fn date(out: &mut Vec<u8>, millis: i64) {
    let days = millis.div_euclid(86_400_000);
    let of_day = millis.rem_euclid(86_400_000);
    let (year, month, day) = civil_from_days(days);
    out.reserve(DATE_MAX);
    out.push(b'"');
    match year {
        0..=9999 => digits(out, year, 4),
        _ => {
            out.push(if year < 0 { b'-' } else { b'+' });
            digits(out, year.abs(), 6);
        }
    }
    let mut rest = *b"-00-00T00:00:00.000Z\"";
    for (at, value) in [
        (1..3, month),
        (4..6, day),
        (7..9, of_day / 3_600_000),
        (10..12, of_day / 60_000 % 60),
        (13..15, of_day / 1_000 % 60),
        (16..19, of_day % 1_000),
    ] {
        let mut left = value;
        for digit in rest[at].iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
    }
    out.extend_from_slice(&rest);
}

/// Reads the wire form of a UUID: 8-4-4-4-12 lower-case hex digits.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|&at| bytes[at] != b'-') {
        return None;
    }
    let mut compact = [0; 32];
    let mut rest = &mut compact[..];
    for part in bytes.split(|&byte| byte == b'-') {
        // An extra hyphen makes a part too long for the rest.
        let (head, tail) = rest.split_at_mut_checked(part.len())?;
        head.copy_from_slice(part);
        rest = tail;
    }
    let mut uuid = [0; 16];
    unhex(&compact, &mut uuid).then_some(uuid)
}

/// Reads the wire form of a date, and no other form of RFC 3339, into milliseconds since 1970.
pub fn parse_date(text: &str) -> Option<i64> {
    let (year, rest) = match text.as_bytes() {
        [b'+' | b'-', ..] => text.split_at_checked(text[1..].find('-')? + 1)?,
        _ => text.split_at_checked(4)?,
    };
    let year = year.parse::<i64>().ok().filter(|year| year.unsigned_abs() < 300_000_000)?;
    let field =
        |at: usize, width: usize| -> Option<i64> { rest.get(at..at + width)?.parse::<u16>().ok().map(i64::from) };
    let (month, day) = (field(1, 2)?, field(4, 2)?);
    let (hour, minute, second, milli) = (field(7, 2)?, field(10, 2)?, field(13, 2)?, field(16, 3)?);
    let of_day = ((hour * 60 + minute) * 60 + second) * 1_000 + milli;
    // The first day that an `i64` can hold is incomplete: its midnight would overflow.
    let millis = i128::from(days_from_civil(year, month, day)) * 86_400_000 + i128::from(of_day);
    let millis = i64::try_from(millis).ok()?;
    // Accepts only the form that this module writes, by a comparison of the texts.
    let mut form = Vec::with_capacity(DATE_MAX);
    date(&mut form, millis);
    (form.get(1..form.len() - 1)? == text.as_bytes()).then_some(millis)
}

fn digits(out: &mut Vec<u8>, value: i64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value).as_bytes();
    out.resize(out.len() + width.saturating_sub(text.len()), b'0');
    out.extend_from_slice(text);
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn hyphenated(out: &mut Vec<u8>, uuid: &[u8; 16]) {
    for (index, part) in [&uuid[..4], &uuid[4..6], &uuid[6..8], &uuid[8..10], &uuid[10..]].into_iter().enumerate() {
        if index > 0 {
            out.push(b'-');
        }
        hex(out, part);
    }
}

fn unhex(text: &[u8], out: &mut [u8]) -> bool {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != out.len() * 2 {
        return false;
    }
    for (pair, byte) in text.chunks_exact(2).zip(out) {
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return false,
        }
    }
    true
}

/// Converts days since 1970-01-01 to year, month and day in the proleptic Gregorian calendar. Covers every day that `i64`
/// milliseconds can express, which no date crate does. Counts in 400-year cycles from 1 March, so that the leap day is last.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let cycle = days.div_euclid(146_097);
    let of_cycle = days.rem_euclid(146_097);
    let year_of_cycle = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (cycle * 400 + year_of_cycle + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let cycle = year.div_euclid(400);
    let year_of_cycle = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + of_year;
    cycle * 146_097 + of_cycle - 719_468
}
