//! The type wrappers of Extended JSON: `{"$oid": …}` and its like, from the object they are to the value they mean.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;

use super::{Fields, Value};
use crate::wire;

/// Some exporters leave the padding out; what the bytes are is certain all the same.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An object that is a type wrapper becomes its value; any other stays a document.
///
/// The order of a wrapper's names is free (`{"$scope": …, "$code": …}`). `$ref` with `$id` is a DBRef, an ordinary document
/// by convention; names that merely begin with a `$` mean nothing here.
pub fn unwrap(fields: Fields) -> Result<Value, String> {
    let Some((found, _)) = fields.iter().find(|(name, _)| is_wrapper(name)) else {
        return Ok(Value::Document(fields));
    };
    let first = &fields[0].0;
    if !first.starts_with('$') {
        return Err(format!("`{found}` stands among other fields: it is a type wrapper, alone in its object"));
    }
    let take = |wanted: &str| fields.iter().find(|(name, _)| &**name == wanted).map(|(_, value)| value);
    let only = |names: &[&str]| match fields.iter().find(|(name, _)| !names.contains(&&**name)) {
        Some((name, _)) => Err(format!("`{name}` does not belong beside `{first}`")),
        None => Ok(()),
    };
    if let Some(code) = take("$code") {
        only(&["$code", "$scope"])?;
        let code = text(code).ok_or("`$code` must be a string")?;
        return match take("$scope") {
            None => Ok(Value::Code(code.into())),
            Some(Value::Document(scope)) => Ok(Value::CodeWithScope { code: code.into(), scope: scope.clone() }),
            Some(_) => Err("`$scope` must be an object".into()),
        };
    }
    if let Some(value) = take("$binary") {
        only(&["$binary", "$type"])?;
        return binary(value, take("$type"));
    }
    if let Some(pattern) = take("$regex") {
        only(&["$regex", "$options"])?;
        return regex(Some(pattern), take("$options").or(Some(&Value::String("".into()))));
    }
    let [(name, value)] = fields.as_slice() else {
        only(&[first])?;
        return Err(format!("`{first}` cannot stand alone"));
    };
    wrapper(name, value)
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

/// A wrapper of one name.
fn wrapper(name: &str, value: &Value) -> Result<Value, String> {
    let wrong = |right: &str| format!("`{name}` must be {right}");
    match name {
        "$oid" => text(value)
            .and_then(|text| wire::parse_object_id(&text.to_ascii_lowercase()))
            .map(Value::ObjectId)
            .ok_or_else(|| wrong("a string of 24 hex digits")),
        "$symbol" => text(value).map(|text| Value::Symbol(text.into())).ok_or_else(|| wrong("a string")),
        "$numberInt" => number(value).map(Value::Int32).ok_or_else(|| wrong("a string with a whole number of 32 bits")),
        "$numberLong" => {
            number(value).map(Value::Int64).ok_or_else(|| wrong("a string with a whole number of 64 bits"))
        }
        "$numberDouble" => text(value)
            .and_then(double)
            .map(Value::Double)
            .ok_or_else(|| wrong("a string with a number, Infinity, -Infinity or NaN")),
        "$numberDecimal" => text(value)
            .ok_or_else(|| wrong("a string"))?
            .parse()
            .map(Value::Decimal128)
            .map_err(|error| format!("`{name}`: {error}")),
        "$uuid" => text(value)
            .and_then(|text| wire::parse_uuid(&text.to_ascii_lowercase()))
            .map(|uuid| Value::Binary { subtype: 4, bytes: uuid.to_vec() })
            .ok_or_else(|| wrong("a string of 32 hex digits in the form 8-4-4-4-12")),
        "$timestamp" => timestamp(value).ok_or_else(|| wrong("an object of `t` and `i`, whole numbers of 32 bits")),
        "$regularExpression" => match value {
            Value::Document(inner) if inner.len() == 2 => regex(field(inner, "pattern"), field(inner, "options")),
            _ => Err(wrong("an object of `pattern` and `options`, two strings")),
        },
        "$dbPointer" => db_pointer(value).ok_or_else(|| wrong("an object of `$ref`, a string, and `$id`, an ObjectId")),
        "$date" => date(value).ok_or_else(|| wrong("an RFC 3339 date and time or a number of milliseconds")),
        "$minKey" => one(value).then_some(Value::MinKey).ok_or_else(|| wrong("1")),
        "$maxKey" => one(value).then_some(Value::MaxKey).ok_or_else(|| wrong("1")),
        "$undefined" => (*value == Value::Bool(true)).then_some(Value::Undefined).ok_or_else(|| wrong("true")),
        _ => Err(format!("`{name}` cannot stand alone")),
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn field<'a>(fields: &'a Fields, wanted: &str) -> Option<&'a Value> {
    fields.iter().find(|(name, _)| &**name == wanted).map(|(_, value)| value)
}

/// Digits only: `FromStr` would take a leading `+`, which the specification does not know.
fn number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    text(value)?.strip_prefix('+').map_or(text(value), |_| None)?.parse().ok()
}

fn double(text: &str) -> Option<f64> {
    match text {
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        // Rust's parser knows more words than the specification ("inf", "nan"), so let only numbers through; and it makes
        // infinity of a number that is too large.
        _ if text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) => {
            text.parse().ok().filter(|value: &f64| value.is_finite())
        }
        _ => None,
    }
}

fn one(value: &Value) -> bool {
    matches!(value, Value::Int32(1))
}

fn timestamp(value: &Value) -> Option<Value> {
    let Value::Document(inner) = value else { return None };
    let part = |name| match field(inner, name)? {
        Value::Int32(value) => u32::try_from(*value).ok(),
        Value::Int64(value) => u32::try_from(*value).ok(),
        _ => None,
    };
    (inner.len() == 2).then_some(Value::Timestamp { time: part("t")?, increment: part("i")? })
}

fn db_pointer(value: &Value) -> Option<Value> {
    match value {
        Value::Document(inner) if inner.len() == 2 => match (field(inner, "$ref")?, field(inner, "$id")?) {
            (Value::String(namespace), Value::ObjectId(id)) => {
                Some(Value::DbPointer { namespace: namespace.clone(), id: *id })
            }
            _ => None,
        },
        _ => None,
    }
}

fn date(value: &Value) -> Option<Value> {
    match value {
        Value::Int32(millis) => Some(Value::Date((*millis).into())),
        Value::Int64(millis) => Some(Value::Date(*millis)),
        Value::String(text) => {
            // Our own form first: it reaches years that the crate does not.
            wire::parse_date(text).or_else(|| other_date(text)).map(Value::Date)
        }
        _ => None,
    }
}

/// RFC 3339 with any offset and any fraction of a second, of which milliseconds are kept. Taken apart here because
/// `jiff::Timestamp` ends a day before the year 9999 does, which is where many a data set puts "never".
fn other_date(text: &str) -> Option<i64> {
    let pieces = Pieces::parse(text).ok()?;
    let local = pieces.date().to_datetime(pieces.time()?);
    let since_1970 = local.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
    let utc = since_1970.checked_sub(pieces.to_numeric_offset()?.into())?;
    i64::try_from(utc.as_nanos().div_euclid(1_000_000)).ok()
}

fn binary(value: &Value, v1_type: Option<&Value>) -> Result<Value, String> {
    let (base64, subtype) = match (value, v1_type) {
        (Value::Document(inner), None) if inner.len() == 2 => {
            (field(inner, "base64"), field(inner, "subType").or(field(inner, "subtype")))
        }
        (Value::String(_), Some(subtype)) => (Some(value), Some(subtype)),
        _ => (None, None),
    };
    let (Some(Value::String(base64)), Some(Value::String(subtype))) = (base64, subtype) else {
        return Err("`$binary` must be an object of `base64` and `subType`, two strings".into());
    };
    let bytes = BASE64.decode(&**base64).map_err(|error| format!("`$binary`: {error}"))?;
    let subtype = Some(&**subtype)
        .filter(|text| matches!(text.len(), 1 | 2) && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|text| u8::from_str_radix(text, 16).ok())
        .ok_or("`$binary`: the subtype must be one or two hex digits")?;
    Ok(Value::Binary { subtype, bytes })
}

fn regex(pattern: Option<&Value>, options: Option<&Value>) -> Result<Value, String> {
    let (Some(Value::String(pattern)), Some(Value::String(options))) = (pattern, options) else {
        return Err("a regular expression must have a pattern and options, two strings".into());
    };
    if pattern.contains('\0') || options.contains('\0') {
        return Err("a regular expression cannot have a NUL in it".into());
    }
    // BSON wants the options in alphabetical order; sorting here makes every store show them alike.
    let mut options: Vec<char> = options.chars().collect();
    options.sort_unstable();
    Ok(Value::Regex { pattern: pattern.clone(), options: options.into_iter().collect::<String>().into() })
}
