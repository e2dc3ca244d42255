//! Generators of arbitrary documents, and their text in MongoDB Extended JSON v2, for property tests.
//!
//! Every BSON type occurs, at any nesting. Include it by `#[path = "../support/documents.rs"] mod documents;`; from a
//! unit test too, since the crate knows itself as `records` there.

// Each test binary uses the part that it needs.
#![allow(dead_code)]

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, DbPointer, Decimal128, Document as Tree, JavaScriptCodeWithScope, RawDocument, Regex,
    Timestamp,
};
use jiff::SignedDuration;
use jiff::civil;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use records::record::Document;

/// Generates the fields of a document that MongoDB stores, with an `_id` at any place.
pub fn fields() -> impl Strategy<Value = Tree> {
    let others = vec((name(false), top_level_value()), 0..8);
    (others, id(), any::<prop::sample::Index>()).prop_map(|(others, id, at)| {
        let mut fields: Vec<_> = others.into_iter().filter(|(name, _)| name != "_id").collect();
        fields.insert(at.index(fields.len() + 1), ("_id".to_owned(), id));
        distinct(fields)
    })
}

/// Generates a document in the form that MongoDB stores: with the `_id` first.
pub fn document() -> impl Strategy<Value = Document> {
    fields().prop_map(|fields| stored(&fields))
}

/// Returns the document with the `_id` moved to the front.
pub fn stored(fields: &Tree) -> Document {
    let id = fields.iter().filter(|(name, _)| *name == "_id");
    let others = fields.iter().filter(|(name, _)| *name != "_id");
    let tree: Tree = id.chain(others).map(|(name, value)| (name.clone(), value.clone())).collect();
    Document::new(tree.to_vec().expect("a tree can be written")).expect("what the crate writes is BSON")
}

/// Generates every `_id` that MongoDB accepts, and strings that resemble another type.
pub fn id() -> impl Strategy<Value = Bson> {
    let is_id = |value: &Bson| !matches!(value, Bson::Array(_) | Bson::RegularExpression(_) | Bson::Undefined);
    prop_oneof![
        3 => object_id(),
        3 => text().prop_filter("an empty _id", |text| !text.is_empty()).prop_map(Bson::String),
        2 => id_lookalike().prop_map(Bson::String),
        1 => int32().prop_map(Bson::Int32),
        1 => int64().prop_map(Bson::Int64),
        2 => double().prop_map(Bson::Double),
        1 => decimal().prop_map(Bson::Decimal128),
        1 => any::<bool>().prop_map(Bson::Boolean),
        1 => date().prop_map(date_of),
        2 => uuid(),
        3 => value_with(false).prop_filter("MongoDB refuses it as an _id", is_id).prop_map(without_empty_timestamp),
    ]
}

/// Returns true if `is` holds for the value or for a value inside it.
pub fn contains(value: &Bson, is: &dyn Fn(&Bson) -> bool) -> bool {
    is(value)
        || match value {
            Bson::Array(values) => values.iter().any(|value| contains(value, is)),
            Bson::Document(fields) => fields.values().any(|value| contains(value, is)),
            Bson::JavaScriptCodeWithScope(code) => code.scope.values().any(|value| contains(value, is)),
            _ => false,
        }
}

/// Generates values for a field: of every type, similar to other types, equal ones, strings with long common prefixes; or no
/// value.
pub fn mixed() -> impl Strategy<Value = Option<Bson>> {
    let text = |text: String| Some(Bson::String(text));
    let known = vec!["", "a", "b", "MinKey", "507f1f77bcf86cd799439011", "2015-09-10T08:55:47.000Z", "null"];
    prop_oneof![
        1 => Just(None),
        3 => value().prop_map(Some),
        6 => leaf().prop_map(Some),
        3 => id().prop_map(Some),
        3 => select(known).prop_map(move |some| text(some.to_owned())),
        2 => (250..260_usize, select(vec!["", "a", "b", "é"])).prop_map(move |(length, end)| text("x".repeat(length) + end)),
        2 => (0..3_i32).prop_map(|number| Some(Bson::Int32(number))),
        1 => any::<bool>().prop_map(|value| Some(Bson::Boolean(value))),
        1 => (0..3_i64).prop_map(|days| Some(date_of(1_441_875_347_000 + days * 86_400_000))),
    ]
}

/// Generates a value of any type, nested to a bounded depth and size.
pub fn value() -> impl Strategy<Value = Bson> {
    value_with(true)
}

/// Generates a [`value`]; with `dollar`, field names may begin with `$`.
fn value_with(dollar: bool) -> impl Strategy<Value = Bson> {
    leaf().prop_recursive(4, 24, 5, move |inner| {
        let nested = || vec((name(dollar), inner.clone()), 0..5).prop_map(distinct);
        prop_oneof![
            3 => nested().prop_map(Bson::Document),
            3 => vec(inner.clone(), 0..5).prop_map(Bson::Array),
            1 => (text(), nested()).prop_map(|(code, scope)| code_with_scope(&code, scope)),
        ]
    })
}

/// MongoDB replaces an empty timestamp at the top level by its clock, so documents that have one are refused.
fn top_level_value() -> impl Strategy<Value = Bson> {
    value().prop_map(without_empty_timestamp)
}

fn without_empty_timestamp(value: Bson) -> Bson {
    match value {
        Bson::Timestamp(Timestamp { time: 0, increment: 0 }) => timestamp_of(0, 1),
        other => other,
    }
}

/// Generates a value of any type that contains no other values.
pub fn leaf() -> impl Strategy<Value = Bson> {
    prop_oneof![
        double().prop_map(Bson::Double),
        text().prop_map(Bson::String),
        (subtype(), vec(any::<u8>(), 0..20)).prop_map(|(subtype, bytes)| binary(subtype, &bytes)),
        (subtype(), any::<[u8; 16]>()).prop_map(|(subtype, bytes)| binary(subtype, &bytes)),
        object_id(),
        any::<bool>().prop_map(Bson::Boolean),
        date().prop_map(date_of),
        select(vec![Bson::Null, Bson::Undefined, Bson::MinKey, Bson::MaxKey]),
        regex(),
        // MongoDB's sort compares a namespace up to its first NUL, and its filters compare all of it. No real namespace has one.
        (text(), any::<[u8; 12]>()).prop_map(|(namespace, id)| db_pointer(&namespace.replace('\0', ""), id)),
        text().prop_map(Bson::JavaScriptCode),
        text().prop_map(Bson::Symbol),
        int32().prop_map(Bson::Int32),
        int64().prop_map(Bson::Int64),
        (any::<u32>(), any::<u32>()).prop_map(|(time, increment)| timestamp_of(time, increment)),
        decimal().prop_map(Bson::Decimal128),
    ]
}

pub fn object_id() -> impl Strategy<Value = Bson> {
    any::<[u8; 12]>().prop_map(|id| Bson::ObjectId(ObjectId::from_bytes(id)))
}

pub fn uuid() -> impl Strategy<Value = Bson> {
    any::<[u8; 16]>().prop_map(|bytes| binary(4, &bytes))
}

pub fn binary(subtype: u8, bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::from(subtype), bytes: bytes.to_vec() })
}

pub fn date_of(millis: i64) -> Bson {
    Bson::DateTime(DateTime::from_millis(millis))
}

pub fn timestamp_of(time: u32, increment: u32) -> Bson {
    Bson::Timestamp(Timestamp { time, increment })
}

pub fn code_with_scope(code: &str, scope: Tree) -> Bson {
    Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: code.to_owned(), scope })
}

/// Reads a DBPointer from bytes, since the crate has no constructor for it.
pub fn db_pointer(namespace: &str, id: [u8; 12]) -> Bson {
    let mut bytes = b"\0\0\0\0\x0cv\0".to_vec();
    bytes.extend_from_slice(&(namespace.len() as i32 + 1).to_le_bytes());
    bytes.extend_from_slice(namespace.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&id);
    bytes.push(0);
    let length = bytes.len() as i32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let tree = RawDocument::from_bytes(&bytes).and_then(Tree::try_from).expect("a document with a DBPointer");
    tree.get("v").cloned().expect("the DBPointer")
}

/// Returns the namespace and the id of a DBPointer, which are private in the crate.
pub fn parts_of(pointer: &DbPointer) -> (String, [u8; 12]) {
    let mut tree = Tree::new();
    tree.insert("v", Bson::DbPointer(pointer.clone()));
    let bytes = tree.to_vec().expect("a tree can be written");
    let (namespace, id) = bytes[11..bytes.len() - 1].split_at(bytes.len() - 24);
    let namespace = std::str::from_utf8(&namespace[..namespace.len() - 1]).expect("UTF-8");
    (namespace.to_owned(), id.try_into().expect("12 bytes"))
}

fn distinct(fields: Vec<(String, Bson)>) -> Tree {
    let mut tree = Tree::new();
    for (name, value) in fields {
        if !tree.contains_key(&name) {
            tree.insert(name, value);
        }
    }
    tree
}

/// Generates the name of a field: any text without a NUL; with `dollar` also names that look like operators, except for type
/// wrappers, whose objects would be read as values.
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

/// Generates strings with all kinds of characters: plain, escaped in JSON, control, non-ASCII, beyond the basic plane, NUL.
pub fn text() -> impl Strategy<Value = String> {
    const ODD: &[char] = &['"', '\\', '/', '\0', '\u{1f}', '\n', '\r', '\t', '\u{8}', '\u{c}', '\u{7f}', '\u{2028}'];
    let character = prop_oneof![4 => prop::char::range(' ', '~'), 1 => select(ODD), 1 => any::<char>()];
    vec(character, 0..12).prop_map(String::from_iter)
}

/// Generates strings that look like the wire form of another type.
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

/// Generates doubles of any bits (huge, tiny, subnormal), whole numbers and special values. Only one NaN, since no text form
/// distinguishes others.
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

/// Generates milliseconds since 1970: all values of BSON, usual years, and the limits of years with four digits.
pub fn date() -> impl Strategy<Value = i64> {
    const LIMITS: &[i64] = &[i64::MIN, i64::MAX, 0, -1, 253_402_300_799_999, 253_402_300_800_000, -62_167_219_200_001];
    prop_oneof![any::<i64>(), -62_167_219_200_000..253_402_300_800_000_i64, select(LIMITS)]
}

/// Generates any Decimal128 in its usual form: coefficients of up to 34 digits, all exponents.
pub fn decimal() -> impl Strategy<Value = Decimal128> {
    const BIAS: i32 = 6176;
    let coefficient =
        prop_oneof![0..1_000_u128, any::<u64>().prop_map(u128::from), 0..10_u128.pow(34), Just(10_u128.pow(34) - 1),];
    let exponent = prop_oneof![-6176..=6111_i32, -40..10_i32, select(vec![-6176, 6111])];
    prop_oneof![
        8 => (any::<bool>(), coefficient, exponent).prop_map(|(negative, coefficient, exponent)| {
            let bits = u128::from(negative) << 127 | ((exponent + BIAS) as u128) << 113 | coefficient;
            Decimal128::from_bytes(bits.to_le_bytes())
        }),
        1 => any::<bool>().prop_map(|negative| {
            let bits = u128::from(negative) << 127 | 0b1_1110 << 122;
            Decimal128::from_bytes(bits.to_le_bytes())
        }),
        1 => Just(Decimal128::from_bytes((0b1_1111_u128 << 122).to_le_bytes())),
    ]
}

fn subtype() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), 0..=9_u8, any::<u8>()]
}

/// Generates regular expressions. BSON keeps the options in alphabetical order, and neither part may have a NUL.
fn regex() -> impl Strategy<Value = Bson> {
    let options = subsequence(vec!['i', 'l', 'm', 's', 'u', 'x'], 0..=6);
    (text(), options).prop_map(|(pattern, options)| regex_of(&pattern.replace('\0', ""), &String::from_iter(options)))
}

pub fn regex_of(pattern: &str, options: &str) -> Bson {
    let [pattern, options] = [pattern, options].map(|text| text.try_into().expect("no NUL"));
    Bson::RegularExpression(Regex { pattern, options })
}

/// Returns the document as canonical Extended JSON, which keeps every type.
pub fn canonical(fields: &Tree) -> String {
    object(fields, Form::Canonical)
}

/// Returns the document as relaxed Extended JSON, in which numbers and most dates are easy to read. A small Int64 is read back as
/// an Int32 (see [`narrowed`]).
pub fn relaxed(fields: &Tree) -> String {
    object(fields, Form::Relaxed)
}

/// Returns the document after a round trip through the relaxed form: a whole number becomes an Int32 if it fits.
pub fn narrowed(fields: &Tree) -> Tree {
    fn narrow(value: &Bson) -> Bson {
        match value {
            Bson::Int64(wide) => i32::try_from(*wide).map_or(Bson::Int64(*wide), Bson::Int32),
            Bson::Document(fields) => Bson::Document(narrowed(fields)),
            Bson::Array(values) => Bson::Array(values.iter().map(narrow).collect()),
            Bson::JavaScriptCodeWithScope(code) => code_with_scope(&code.code, narrowed(&code.scope)),
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

fn object(fields: &Tree, form: Form) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}:{}", quoted(name), extended(value, form))).collect();
    format!("{{{}}}", fields.join(","))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is always JSON")
}

fn extended(value: &Bson, form: Form) -> String {
    let wrapped = |name: &str, text: &str| format!(r#"{{"{name}":{}}}"#, quoted(text));
    let relaxed = form == Form::Relaxed;
    match value {
        // `{:?}` keeps the `.0` of a whole number, and the sign of a zero.
        Bson::Double(value) if relaxed && value.is_finite() => format!("{value:?}"),
        Bson::Double(value) if value.is_infinite() => {
            wrapped("$numberDouble", if *value > 0.0 { "Infinity" } else { "-Infinity" })
        }
        Bson::Double(value) => wrapped("$numberDouble", &format!("{value:?}")),
        Bson::Int32(value) if relaxed => value.to_string(),
        Bson::Int64(value) if relaxed => value.to_string(),
        Bson::Int32(value) => wrapped("$numberInt", &value.to_string()),
        Bson::Int64(value) => wrapped("$numberLong", &value.to_string()),
        Bson::DateTime(date) => match date.timestamp_millis() {
            millis @ 0..=253_402_300_799_999 if relaxed => {
                // A civil time, because `Timestamp` excludes the last day of the year 9999.
                let time = civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0) + SignedDuration::from_millis(millis);
                wrapped("$date", &format!("{time}Z"))
            }
            millis => format!(r#"{{"$date":{{"$numberLong":"{millis}"}}}}"#),
        },
        Bson::Decimal128(value) => wrapped("$numberDecimal", &value.to_string()),
        Bson::String(text) => quoted(text),
        Bson::Symbol(text) => wrapped("$symbol", text),
        Bson::JavaScriptCode(code) => wrapped("$code", code),
        Bson::JavaScriptCodeWithScope(code) => {
            format!(r#"{{"$code":{},"$scope":{}}}"#, quoted(&code.code), object(&code.scope, form))
        }
        Bson::Document(fields) => object(fields, form),
        Bson::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| extended(value, form)).collect();
            format!("[{}]", values.join(","))
        }
        Bson::Binary(binary) => {
            let base64 = BASE64_STANDARD.encode(&binary.bytes);
            let subtype = u8::from(binary.subtype);
            format!(r#"{{"$binary":{{"base64":"{base64}","subType":"{subtype:02x}"}}}}"#)
        }
        Bson::ObjectId(id) => wrapped("$oid", &hex(&id.bytes())),
        Bson::Boolean(value) => value.to_string(),
        Bson::Null => "null".into(),
        Bson::Undefined => r#"{"$undefined":true}"#.into(),
        Bson::RegularExpression(regex) => {
            let (pattern, options) = (quoted(regex.pattern.as_str()), quoted(regex.options.as_str()));
            format!(r#"{{"$regularExpression":{{"pattern":{pattern},"options":{options}}}}}"#)
        }
        Bson::DbPointer(pointer) => {
            let (namespace, id) = parts_of(pointer);
            format!(r#"{{"$dbPointer":{{"$ref":{},"$id":{{"$oid":"{}"}}}}}}"#, quoted(&namespace), hex(&id))
        }
        Bson::Timestamp(Timestamp { time, increment }) => {
            format!(r#"{{"$timestamp":{{"t":{time},"i":{increment}}}}}"#)
        }
        Bson::MinKey => r#"{"$minKey":1}"#.into(),
        Bson::MaxKey => r#"{"$maxKey":1}"#.into(),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
