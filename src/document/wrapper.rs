//! Converts the type wrappers of Extended JSON, such as `{"$oid": …}`, to BSON values.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bson::oid::ObjectId;
use bson::raw::CString;
use bson::spec::{BinarySubtype, ElementType};
use bson::{Binary, Bson, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp};
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;

use crate::record::{ValueRef, to_bson};
use crate::wire;

/// Accepts base64 with and without padding: some exporters leave it out, and the bytes are the same.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An object that is a type wrapper becomes its value; any other stays a document.
///
/// The order of a wrapper's names is free (`{"$scope": …, "$code": …}`). `$ref` with `$id` is a DBRef, an ordinary document
/// by convention; names that merely begin with a `$` mean nothing here.
pub fn unwrap(fields: Document) -> Result<Bson, String> {
    let Some(found) = fields.keys().find(|name| is_wrapper(name)) else { return Ok(Bson::Document(fields)) };
    // A stored MongoDB query has the operator `$regex` with a value that is no text.
    if fields.get("$regex").is_some_and(|pattern| !matches!(pattern, Bson::String(_))) {
        return Ok(Bson::Document(fields));
    }
    let first = fields.keys().next().map(String::as_str).unwrap_or_default();
    if !first.starts_with('$') {
        return Err(format!("`{found}` stands among other fields: it is a type wrapper, alone in its object"));
    }
    let only = |names: &[&str]| match fields.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(format!("`{name}` does not belong next to `{first}`")),
        None => Ok(()),
    };
    if let Some(code) = fields.get("$code") {
        only(&["$code", "$scope"])?;
        let code = code.as_str().ok_or("`$code` must be a string")?.to_owned();
        return match fields.get("$scope") {
            None => Ok(Bson::JavaScriptCode(code)),
            Some(Bson::Document(scope)) => {
                Ok(Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code, scope: scope.clone() }))
            }
            Some(_) => Err("`$scope` must be an object".into()),
        };
    }
    if let Some(value) = fields.get("$binary") {
        only(&["$binary", "$type"])?;
        return binary(value, fields.get("$type"));
    }
    if let Some(pattern) = fields.get("$regex") {
        only(&["$regex", "$options"])?;
        return regex(Some(pattern), fields.get("$options").or(Some(&Bson::String(String::new()))));
    }
    match fields.iter().next() {
        Some((name, value)) if fields.len() == 1 => wrapper(name, value),
        _ => {
            only(&[first])?;
            Err(format!("`{first}` cannot stand alone"))
        }
    }
}

fn is_wrapper(name: &str) -> bool {
    matches!(
        name,
        "$oid"
            | "$symbol"
            | "$numberInt"
            | "$numberLong"
            | "$numberDouble"
            | "$numberDecimal"
            | "$binary"
            | "$uuid"
            | "$code"
            | "$scope"
            | "$timestamp"
            | "$regularExpression"
            | "$regex"
            | "$options"
            | "$dbPointer"
            | "$date"
            | "$minKey"
            | "$maxKey"
            | "$undefined"
    )
}

/// Reads a wrapper that has one name.
fn wrapper(name: &str, value: &Bson) -> Result<Bson, String> {
    let wrong = |right: &str| format!("`{name}` must be {right}");
    match name {
        "$oid" => object_id(value).map(Bson::ObjectId).ok_or_else(|| wrong("a string of 24 hex digits")),
        "$symbol" => value.as_str().map(|text| Bson::Symbol(text.into())).ok_or_else(|| wrong("a string")),
        "$numberInt" => integer(value)
            .and_then(|value| i32::try_from(value).ok())
            .map(Bson::Int32)
            .ok_or_else(|| wrong("a whole number of 32 bits, best in quotes")),
        "$numberLong" => {
            integer(value).map(Bson::Int64).ok_or_else(|| wrong("a whole number of 64 bits, best in quotes"))
        }
        "$numberDouble" => double(value)
            .map(Bson::Double)
            .ok_or_else(|| wrong("a number in quotes, Infinity, -Infinity or NaN")),
        "$numberDecimal" => decimal(value).map(Bson::Decimal128).ok_or_else(|| {
            wrong(
                "a decimal number in quotes of at most 34 digits with an exponent between -6176 and 6111, Infinity or NaN",
            )
        }),
        "$uuid" => value
            .as_str()
            .and_then(uuid)
            .map(|uuid| Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: uuid.to_vec() }))
            .ok_or_else(|| wrong("a string of 32 hex digits in the form 8-4-4-4-12")),
        "$timestamp" => timestamp(value).ok_or_else(|| wrong("an object of `t` and `i`, whole numbers of 32 bits")),
        "$regularExpression" => match value {
            Bson::Document(inner) if inner.len() == 2 => regex(inner.get("pattern"), inner.get("options")),
            _ => Err(wrong("an object of `pattern` and `options`, two strings")),
        },
        "$dbPointer" => db_pointer(value).ok_or_else(|| wrong("an object of `$ref`, a string, and `$id`, an ObjectId")),
        "$date" => date(value),
        "$minKey" => is_one(value).then_some(Bson::MinKey).ok_or_else(|| wrong("1")),
        "$maxKey" => is_one(value).then_some(Bson::MaxKey).ok_or_else(|| wrong("1")),
        "$undefined" => (*value == Bson::Boolean(true)).then_some(Bson::Undefined).ok_or_else(|| wrong("true")),
        _ => Err(format!("`{name}` cannot stand alone")),
    }
}

fn object_id(value: &Bson) -> Option<ObjectId> {
    value.as_str().and_then(|text| ObjectId::parse_str(text).ok())
}

/// Reads a whole number, with or without quotes. Accepts only digits and a minus sign: `FromStr` would accept a leading `+`,
/// which the specification does not have.
fn integer(value: &Bson) -> Option<i64> {
    match value {
        Bson::String(text) => text.parse().ok().filter(|_| !text.starts_with('+')),
        Bson::Int32(value) => Some((*value).into()),
        Bson::Int64(value) => Some(*value),
        Bson::Double(value) => whole(*value),
        _ => None,
    }
}

/// Converts a double to an integer if that is exact.
fn whole(value: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
}

fn double(value: &Bson) -> Option<f64> {
    let text = match value {
        Bson::String(text) => text.as_str(),
        Bson::Int32(value) => return Some((*value).into()),
        Bson::Int64(value) => return Some(*value as f64),
        Bson::Double(value) => return Some(*value),
        _ => return None,
    };
    match text {
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        // Rust's parser accepts more words than the specification ("inf", "nan"), and returns infinity for a number that is
        // too large.
        _ if text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) => {
            text.parse().ok().filter(|value: &f64| value.is_finite())
        }
        _ => None,
    }
}

/// Reads 32 hex digits, with hyphens in the usual places or without any.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let mut text = text.to_ascii_lowercase();
    if text.len() == 32 && text.is_ascii() {
        for at in [20, 16, 12, 8] {
            text.insert(at, '-');
        }
    }
    wire::parse_uuid(&text)
}

/// Reads a decimal that 128 bits hold exactly. The crate refuses to round, but accepts a few texts that are not numbers, such
/// as `.`, `.+5` and `sNaN`.
fn decimal(value: &Bson) -> Option<Decimal128> {
    let text = match value {
        Bson::String(text) => text.as_str(),
        Bson::Int32(_) | Bson::Int64(_) => return value.to_string().parse().ok(),
        // The shortest digits of a double are those in the file, unless the file has more than a double holds.
        Bson::Double(value) => return value.to_string().parse().ok(),
        _ => return None,
    };
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mantissa = unsigned.split(['e', 'E']).next()?;
    let is_number = mantissa.bytes().any(|byte| byte.is_ascii_digit())
        && mantissa.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let is_word = ["inf", "infinity", "nan"].iter().any(|word| unsigned.eq_ignore_ascii_case(word));
    if is_number || is_word { text.parse().ok() } else { None }
}

fn is_one(value: &Bson) -> bool {
    integer(value) == Some(1) && !matches!(value, Bson::String(_))
}

fn timestamp(value: &Bson) -> Option<Bson> {
    let Bson::Document(inner) = value else { return None };
    let part = |name| {
        let number = inner.get(name).filter(|value| !matches!(value, Bson::String(_)))?;
        u32::try_from(integer(number)?).ok()
    };
    (inner.len() == 2).then_some(Bson::Timestamp(Timestamp { time: part("t")?, increment: part("i")? }))
}

/// Builds a DBPointer from its bytes: the crate has no constructor for this type.
fn db_pointer(value: &Bson) -> Option<Bson> {
    let Bson::Document(inner) = value else { return None };
    let (Bson::String(namespace), Bson::ObjectId(id)) = (inner.get("$ref")?, inner.get("$id")?) else { return None };
    let mut bytes = (namespace.len() as i32 + 1).to_le_bytes().to_vec();
    bytes.extend_from_slice(namespace.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&id.bytes());
    (inner.len() == 2).then(|| to_bson(ValueRef { kind: ElementType::DbPointer, bytes: &bytes }))?
}

fn date(value: &Bson) -> Result<Bson, String> {
    let millis = match value {
        // The wire form is tried first: it covers years that the date crate does not.
        Bson::String(text) => match wire::parse_date(text) {
            Some(millis) => Some(millis),
            None if is_leap_second(text) => {
                return Err(
                    "`$date` is a leap second, which MongoDB has no value for: write the second before it, or \
                            after it"
                        .into(),
                );
            }
            None => other_date(text),
        },
        _ => integer(value),
    };
    millis
        .map(|millis| Bson::DateTime(bson::DateTime::from_millis(millis)))
        .ok_or_else(|| "`$date` must be an RFC 3339 date and time, or a whole number of milliseconds".into())
}

/// Returns true if the second is 60, which the date crate would read as 59.
fn is_leap_second(text: &str) -> bool {
    let clock = text.split_once(['T', 't', ' ']).map_or("", |(_, clock)| clock);
    let digits: String =
        clock.chars().take_while(|c| c.is_ascii_digit() || *c == ':').filter(char::is_ascii_digit).collect();
    digits.get(4..6) == Some("60")
}

/// Reads RFC 3339 with any offset, and truncates the fraction of a second to milliseconds. Composes the parts itself, because
/// `jiff::Timestamp` excludes the last day of the year 9999, which many data sets use for "never".
fn other_date(text: &str) -> Option<i64> {
    let pieces = Pieces::parse(text).ok()?;
    let local = pieces.date().to_datetime(pieces.time()?);
    let since_1970 = local.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
    let utc = since_1970.checked_sub(pieces.to_numeric_offset()?.into())?;
    i64::try_from(utc.as_nanos().div_euclid(1_000_000)).ok()
}

fn binary(value: &Bson, v1_type: Option<&Bson>) -> Result<Bson, String> {
    let (base64, subtype) = match (value, v1_type) {
        (Bson::Document(inner), None) if inner.len() == 2 => {
            (inner.get("base64"), inner.get("subType").or(inner.get("subtype")))
        }
        (Bson::String(_), Some(subtype)) => (Some(value), Some(subtype)),
        _ => (None, None),
    };
    let (Some(Bson::String(base64)), Some(Bson::String(subtype))) = (base64, subtype) else {
        return Err("`$binary` must be an object of `base64` and `subType`, two strings".into());
    };
    let bytes = BASE64.decode(base64).map_err(|error| format!("`$binary`: {error}"))?;
    let subtype = Some(subtype.as_str())
        .filter(|text| matches!(text.len(), 1 | 2) && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|text| u8::from_str_radix(text, 16).ok())
        .ok_or("`$binary`: the subtype must be one or two hex digits")?;
    Ok(Bson::Binary(Binary { subtype: subtype.into(), bytes }))
}

fn regex(pattern: Option<&Bson>, options: Option<&Bson>) -> Result<Bson, String> {
    let (Some(Bson::String(pattern)), Some(Bson::String(options))) = (pattern, options) else {
        return Err("a regular expression must have a pattern and options, two strings".into());
    };
    // BSON wants the options in alphabetical order.
    let mut options: Vec<char> = options.chars().collect();
    options.sort_unstable();
    match (CString::try_from(pattern.as_str()), CString::try_from(options.into_iter().collect::<String>())) {
        (Ok(pattern), Ok(options)) => Ok(Bson::RegularExpression(Regex { pattern, options })),
        _ => Err("a regular expression cannot have a NUL in it".into()),
    }
}
