//! Arbitrary documents, and their text as MongoDB Extended JSON v2: what property tests feed to parsers and stores.
//!
//! Every BSON type occurs, at any nesting. Include it by `#[path = "../support/documents.rs"] mod documents;`; from a
//! unit test too, since the crate knows itself as `records` there.

// Each test binary uses the part that it needs.
#![allow(dead_code)]

use std::collections::HashSet;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::SignedDuration;
use jiff::civil::DateTime;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use records::document::decimal::Decimal128;
use records::document::{Document, Fields, Value};

/// Fields that [`Document::new`] takes: an importable `_id` among others, first or not.
pub fn fields() -> impl Strategy<Value = Fields> {
    let others = vec((name(false), top_level_value()), 0..8);
    (others, id(), any::<prop::sample::Index>()).prop_map(|(others, id, at)| {
        let mut fields = distinct(others);
        fields.retain(|(name, _)| &**name != "_id");
        fields.insert(at.index(fields.len() + 1), ("_id".into(), id));
        fields
    })
}

pub fn document() -> impl Strategy<Value = Document> {
    fields().prop_map(|fields| Document::new(fields).expect("generated documents can be stored"))
}

/// Every type of `_id` that can be imported, and the strings that look like another type.
pub fn id() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => any::<[u8; 12]>().prop_map(Value::ObjectId),
        3 => text().prop_filter("an empty _id", |text| !text.is_empty()).prop_map(|text| Value::String(text.into())),
        2 => id_lookalike().prop_map(|text| Value::String(text.into())),
        1 => int32().prop_map(Value::Int32),
        1 => int64().prop_map(Value::Int64),
        2 => double().prop_filter("not finite", |value| value.is_finite()).prop_map(Value::Double),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => date().prop_map(Value::Date),
        2 => any::<[u8; 16]>().prop_map(|bytes| Value::Binary { subtype: 4, bytes: bytes.into() }),
    ]
}

/// Values for one field: of every type, those that look like another, many that are alike, strings that are alike for the
/// 256 bytes that decide a place in an order; or none.
pub fn mixed() -> impl Strategy<Value = Option<Value>> {
    let text = |text: String| Some(Value::String(text.into()));
    let known = vec!["", "a", "b", "MinKey", "507f1f77bcf86cd799439011", "2015-09-10T08:55:47.000Z", "null"];
    prop_oneof![
        1 => Just(None),
        3 => value().prop_map(Some),
        6 => leaf().prop_map(Some),
        3 => id().prop_map(Some),
        3 => select(known).prop_map(move |some| text(some.to_owned())),
        2 => (250..260_usize, select(vec!["", "a", "b", "é"])).prop_map(move |(length, end)| text("x".repeat(length) + end)),
        2 => (0..3_i32).prop_map(|number| Some(Value::Int32(number))),
        1 => any::<bool>().prop_map(|value| Some(Value::Bool(value))),
        1 => (0..3_i64).prop_map(|days| Some(Value::Date(1_441_875_347_000 + days * 86_400_000))),
    ]
}

/// A value of any type, nested to a bounded depth and size.
pub fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 24, 5, |inner| {
        let nested = || vec((name(true), inner.clone()), 0..5).prop_map(distinct);
        prop_oneof![
            3 => nested().prop_map(Value::Document),
            3 => vec(inner.clone(), 0..5).prop_map(Value::Array),
            1 => (text(), nested()).prop_map(|(code, scope)| Value::CodeWithScope { code: code.into(), scope }),
        ]
    })
}

/// MongoDB replaces an empty timestamp at the top level by its clock, so documents that have one are refused.
fn top_level_value() -> impl Strategy<Value = Value> {
    value().prop_map(|value| match value {
        Value::Timestamp { time: 0, increment: 0 } => Value::Timestamp { time: 0, increment: 1 },
        other => other,
    })
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        double().prop_map(Value::Double),
        text().prop_map(|text| Value::String(text.into())),
        (subtype(), vec(any::<u8>(), 0..20)).prop_map(|(subtype, bytes)| Value::Binary { subtype, bytes }),
        (subtype(), any::<[u8; 16]>()).prop_map(|(subtype, bytes)| Value::Binary { subtype, bytes: bytes.into() }),
        any::<[u8; 12]>().prop_map(Value::ObjectId),
        any::<bool>().prop_map(Value::Bool),
        date().prop_map(Value::Date),
        select(vec![Value::Null, Value::Undefined, Value::MinKey, Value::MaxKey]),
        regex(),
        (text(), any::<[u8; 12]>()).prop_map(|(name, id)| Value::DbPointer { namespace: name.into(), id }),
        text().prop_map(|text| Value::Code(text.into())),
        text().prop_map(|text| Value::Symbol(text.into())),
        int32().prop_map(Value::Int32),
        int64().prop_map(Value::Int64),
        timestamp(),
        decimal().prop_map(Value::Decimal128),
    ]
}

fn distinct(fields: Vec<(String, Value)>) -> Fields {
    let mut seen = HashSet::new();
    fields.into_iter().filter(|(name, _)| seen.insert(name.clone())).map(|(name, value)| (name.into(), value)).collect()
}

/// A field's name: anything without a NUL. Where `dollar` allows it, also names that look like operators; none of these
/// is a type wrapper, whose object would be read as a value.
fn name(dollar: bool) -> impl Strategy<Value = String> {
    const ODD: &[&str] =
        &["", " ", "a b", "a.b", ".", "_id", "0", "é", "水素", "\u{1f600}", "\u{1}\n\t", "\"\\/", "a$"];
    const DOLLARS: &[&str] = &["$", "$$", "$a", "$set", "$ref", "$id", "$db", "$type", "$OID", "$oid ", "$number"];
    prop_oneof![
        4 => "[a-z_]{1,6}",
        2 => select(ODD).prop_map(str::to_owned),
        1 => text().prop_map(|text| text.replace('\0', "").trim_start_matches('$').to_owned()),
        u32::from(dollar) => select(DOLLARS).prop_map(str::to_owned),
    ]
}

/// Strings of every kind of character: plain, escaped in JSON, control, beyond ASCII, beyond the basic plane, NUL.
pub fn text() -> impl Strategy<Value = String> {
    const ODD: &[char] = &['"', '\\', '/', '\0', '\u{1f}', '\n', '\r', '\t', '\u{8}', '\u{c}', '\u{7f}', '\u{2028}'];
    let character = prop_oneof![4 => prop::char::range(' ', '~'), 1 => select(ODD), 1 => any::<char>()];
    vec(character, 0..12).prop_map(String::from_iter)
}

/// Strings that the wire form of another type could be mistaken for.
fn id_lookalike() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9a-f]{24}",
        "[0-9A-F]{24}",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "[+-]?[0-9]{1,20}",
        "[+-]?[0-9]{1,3}\\.[0-9]{0,3}(e[+-]?[0-9]{1,3})?",
        "[12][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\\.[0-9]{3}Z",
        "true|false|null|NaN|Infinity|-Infinity|-0|-0\\.0",
    ]
}

fn int32() -> impl Strategy<Value = i32> {
    prop_oneof![any::<i32>(), -10..10, select(vec![i32::MIN, i32::MAX])]
}

fn int64() -> impl Strategy<Value = i64> {
    const LIMITS: &[i64] =
        &[i64::MIN, i64::MAX, i32::MIN as i64 - 1, i32::MAX as i64 + 1, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1];
    prop_oneof![any::<i64>(), -10..10_i64, select(LIMITS)]
}

/// Any bits at all (huge, tiny, subnormal), whole numbers, and the special ones. There is one NaN: no text form keeps
/// the others apart.
pub fn double() -> impl Strategy<Value = f64> {
    const SPECIAL: &[f64] = &[
        0.0,
        -0.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        -5e-324,
        0.1,
        1e15,
        1e16,
        1e17,
        9_007_199_254_740_993.0,
        9_223_372_036_854_775_808.0,
        -9_223_372_036_854_775_808.0,
    ];
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits).prop_map(|value| if value.is_nan() { f64::NAN } else { value }),
        any::<i32>().prop_map(f64::from),
        (-1_000_000..1_000_000).prop_map(|value| f64::from(value) / 100.0),
        select(SPECIAL),
    ]
}

/// Milliseconds since 1970: all that BSON has, years that people use, and the ends of the years with four digits.
pub fn date() -> impl Strategy<Value = i64> {
    const LIMITS: &[i64] = &[i64::MIN, i64::MAX, 0, -1, 253_402_300_799_999, 253_402_300_800_000, -62_167_219_200_001];
    prop_oneof![any::<i64>(), -62_167_219_200_000..253_402_300_800_000_i64, select(LIMITS)]
}

fn timestamp() -> impl Strategy<Value = Value> {
    (any::<u32>(), any::<u32>()).prop_map(|(time, increment)| Value::Timestamp { time, increment })
}

pub fn decimal() -> impl Strategy<Value = Decimal128> {
    let coefficient = prop_oneof![
        0..10_u128.pow(34),
        0..1_000_u128,
        (0..34_u32).prop_map(|power| 10_u128.pow(power)),
        Just(10_u128.pow(34) - 1)
    ];
    let exponent = prop_oneof![-6176..=6111_i32, -40..10_i32, select(vec![-6176, 6111])];
    prop_oneof![
        8 => (any::<bool>(), coefficient, exponent)
            .prop_map(|(negative, coefficient, exponent)| Decimal128::Finite { negative, coefficient, exponent }),
        1 => any::<bool>().prop_map(|negative| Decimal128::Infinity { negative }),
        1 => Just(Decimal128::NaN),
    ]
}

fn subtype() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), 0..=9_u8, any::<u8>()]
}

/// BSON keeps the options in alphabetical order, and neither part may have a NUL.
fn regex() -> impl Strategy<Value = Value> {
    let options = subsequence(vec!['i', 'l', 'm', 's', 'u', 'x'], 0..=6);
    (text(), options).prop_map(|(pattern, options)| Value::Regex {
        pattern: pattern.replace('\0', "").into(),
        options: options.into_iter().collect::<String>().into(),
    })
}

/// The document as canonical Extended JSON: every type is told.
pub fn canonical(fields: &Fields) -> String {
    object(fields, Form::Canonical)
}

/// The document as relaxed Extended JSON: numbers and dates of these millennia are easy to read, and a small Int64 comes
/// back as an Int32 (see [`narrowed`]).
pub fn relaxed(fields: &Fields) -> String {
    object(fields, Form::Relaxed)
}

/// What is left of the types in relaxed form: a whole number is an Int32 where it fits.
pub fn narrowed(fields: &Fields) -> Fields {
    fn narrow(value: &Value) -> Value {
        match value {
            Value::Int64(wide) => i32::try_from(*wide).map_or(Value::Int64(*wide), Value::Int32),
            Value::Document(fields) => Value::Document(narrowed(fields)),
            Value::Array(values) => Value::Array(values.iter().map(narrow).collect()),
            Value::CodeWithScope { code, scope } => Value::CodeWithScope { code: code.clone(), scope: narrowed(scope) },
            other => other.clone(),
        }
    }
    fields.iter().map(|(name, field)| (name.clone(), narrow(field))).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Canonical,
    Relaxed,
}

fn object(fields: &Fields, form: Form) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}:{}", quoted(name), extended(value, form))).collect();
    format!("{{{}}}", fields.join(","))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is always JSON")
}

fn extended(value: &Value, form: Form) -> String {
    let wrapped = |name: &str, text: &str| format!(r#"{{"{name}":{}}}"#, quoted(text));
    let relaxed = form == Form::Relaxed;
    match value {
        // `{:?}` keeps the `.0` of a whole number, and the sign of a zero.
        Value::Double(value) if relaxed && value.is_finite() => format!("{value:?}"),
        Value::Double(value) if value.is_infinite() => {
            wrapped("$numberDouble", if *value > 0.0 { "Infinity" } else { "-Infinity" })
        }
        Value::Double(value) => wrapped("$numberDouble", &format!("{value:?}")),
        Value::Int32(value) if relaxed => value.to_string(),
        Value::Int64(value) if relaxed => value.to_string(),
        Value::Int32(value) => wrapped("$numberInt", &value.to_string()),
        Value::Int64(value) => wrapped("$numberLong", &value.to_string()),
        Value::Date(millis @ 0..=253_402_300_799_999) if relaxed => {
            // A civil time, because a `Timestamp` ends a day before the year 9999 does.
            let time = DateTime::constant(1970, 1, 1, 0, 0, 0, 0) + SignedDuration::from_millis(*millis);
            wrapped("$date", &format!("{time}Z"))
        }
        Value::Date(millis) => format!(r#"{{"$date":{{"$numberLong":"{millis}"}}}}"#),
        Value::Decimal128(value) => wrapped("$numberDecimal", &value.to_string()),
        Value::String(text) => quoted(text),
        Value::Symbol(text) => wrapped("$symbol", text),
        Value::Code(code) => wrapped("$code", code),
        Value::CodeWithScope { code, scope } => {
            format!(r#"{{"$code":{},"$scope":{}}}"#, quoted(code), object(scope, form))
        }
        Value::Document(fields) => object(fields, form),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| extended(value, form)).collect();
            format!("[{}]", values.join(","))
        }
        Value::Binary { subtype, bytes } => {
            let base64 = BASE64_STANDARD.encode(bytes);
            format!(r#"{{"$binary":{{"base64":"{base64}","subType":"{subtype:02x}"}}}}"#)
        }
        Value::ObjectId(id) => wrapped("$oid", &hex(id)),
        Value::Bool(value) => value.to_string(),
        Value::Null => "null".into(),
        Value::Undefined => r#"{"$undefined":true}"#.into(),
        Value::Regex { pattern, options } => {
            format!(r#"{{"$regularExpression":{{"pattern":{},"options":{}}}}}"#, quoted(pattern), quoted(options))
        }
        Value::DbPointer { namespace, id } => {
            format!(r#"{{"$dbPointer":{{"$ref":{},"$id":{{"$oid":"{}"}}}}}}"#, quoted(namespace), hex(id))
        }
        Value::Timestamp { time, increment } => format!(r#"{{"$timestamp":{{"t":{time},"i":{increment}}}}}"#),
        Value::MinKey => r#"{"$minKey":1}"#.into(),
        Value::MaxKey => r#"{"$maxKey":1}"#.into(),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
