//! Generators of similar values: many are equal, or nearly equal.

use bson::{Bson, Decimal128, Document as Tree, doc};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use records::record::Document;

use crate::documents::{self, binary, code_with_scope, date_of, db_pointer, object_id, regex_of, stored, timestamp_of};
use crate::server::raw;

/// The names of fields: few, and some are positions in arrays.
pub const NAMES: &[&str] = &["a", "b", "0", "1", "01", "2"];

/// 2024-01-02T00:00:00Z.
pub const DAY: i64 = 1_704_153_600_000;

pub fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().expect("a Decimal128"))
}

/// Generates a number, or a neighbour of it, in one of the types that can hold it.
pub fn number() -> impl Strategy<Value = Bson> {
    const DOUBLES: &[f64] = &[
        0.0,
        0.1,
        0.5,
        1.0,
        1.5,
        2.0,
        3.0,
        5e-324,
        2.225_073_858_507_201_4e-308,
        1e15,
        9_007_199_254_740_992.0,
        9_223_372_036_854_775_808.0,
        1e22,
        1e23,
        1e300,
        f64::MAX,
        f64::INFINITY,
    ];
    const DECIMALS: &[&str] = &[
        "0.1",
        "-0.1",
        "1.0",
        "1.50",
        "0E+3",
        "-0",
        "1E+3",
        "1E-6176",
        "-1E-6176",
        "1E-400",
        "1E+400",
        "-1E+400",
        "9.999999999999999999999999999999999E+6144",
        "9007199254740993",
        "9007199254740992.5",
        "9223372036854775807",
        "9223372036854775807.5",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775808.5",
        "1.797693134862315708145274237317043E+308",
        "1.797693134862315708145274237317044E+308",
        "4.9E-324",
        "2.5E-324",
        "2.4E-324",
        "Infinity",
        "-Infinity",
        "NaN",
    ];
    const INTEGERS: &[i64] =
        &[i64::MAX, i64::MAX - 1, i64::MIN, i64::MIN + 1, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, (1 << 62) + 1];
    let near_double =
        (select(DOUBLES), any::<bool>(), -1..=1_i32, 0..4_u8).prop_map(|(double, negative, near, form)| {
            let double = match near {
                -1 => double.next_down(),
                0 => double,
                _ => double.next_up(),
            };
            let double = if negative { -double } else { double };
            let rounded = |digits: usize| {
                let text = format!("{double:.digits$e}");
                text.parse::<Decimal128>().map_or(Bson::Double(double), Bson::Decimal128)
            };
            match form {
                0 => rounded(33),
                1 => rounded(16),
                2 if double.fract() == 0.0 && double.abs() < 9e18 => Bson::Int64(double as i64),
                _ => Bson::Double(double),
            }
        });
    prop_oneof![
        4 => (-2..4_i32, 0..5_u8).prop_map(|(number, form)| match form {
            0 => Bson::Int32(number),
            1 => Bson::Int64(number.into()),
            2 => Bson::Double(number.into()),
            3 => decimal(&format!("{number}.00")),
            _ => Bson::Double(f64::from(number) / 2.0),
        }),
        3 => near_double,
        2 => select(DECIMALS).prop_map(decimal),
        1 => select(INTEGERS).prop_map(Bson::Int64),
        1 => select(vec![f64::NAN, -f64::NAN, -0.0]).prop_map(Bson::Double),
        1 => documents::double().prop_map(Bson::Double),
        1 => documents::decimal().prop_map(Bson::Decimal128),
    ]
}

/// Strings, including some that resemble another type.
pub const TEXTS: &[&str] = &[
    "",
    "a",
    "aa",
    "ab",
    "b",
    "B",
    "a\0",
    "a\0b",
    "\0",
    "\u{1}",
    "é",
    "z",
    "\u{ffff}",
    "\u{10000}",
    "null",
    "true",
    "1",
    "2",
    "1.5",
    "0.1",
    "10",
    "-1",
    ":",
    "9",
    "2024",
    "2024-01-02",
    "2024-01-02T00:00:00Z",
    "2024-01-02T00:00:00.000Z",
    "2024-01-03",
    "507f1f77bcf86cd799439011",
    "3b241101-e2bb-4255-8caf-4136c566a962",
    "a,b",
    "\"a\"",
    "a\\b",
];

/// Generates a value of any type without nested values.
///
/// All namespaces of DBPointers with the same length are equal: the server's sort treats others as equal, its index does not.
pub fn scalar() -> impl Strategy<Value = Bson> {
    let text = || select(TEXTS).prop_map(str::to_owned);
    let date = (-1..=1_i64, -1..=1_i64).prop_map(|(day, milli)| date_of(DAY + day * 86_400_000 + milli));
    let bytes = || vec(select(vec![0, 1, 0x7f, 0x80, 0xff]), 0..3);
    let id = [0x50, 0x7f, 0x1f, 0x77, 0xbc, 0xf8, 0x6c, 0xd7, 0x99, 0x43, 0x90, 0x11];
    let few_ids = select(vec![[0; 12], [0xff; 12], id]);
    let uuid = [0x3b, 0x24, 0x11, 0x01, 0xe2, 0xbb, 0x42, 0x55, 0x8c, 0xaf, 0x41, 0x36, 0xc5, 0x66, 0xa9, 0x62];
    prop_oneof![
        6 => number(),
        5 => text().prop_map(Bson::String),
        1 => text().prop_map(Bson::Symbol),
        1 => text().prop_map(Bson::JavaScriptCode),
        2 => Just(Bson::Null),
        1 => Just(Bson::Undefined),
        2 => any::<bool>().prop_map(Bson::Boolean),
        2 => date,
        1 => documents::date().prop_map(date_of),
        1 => few_ids.clone().prop_map(|id| Bson::ObjectId(bson::oid::ObjectId::from_bytes(id))),
        1 => object_id(),
        2 => (select(vec![0, 1, 2, 3, 4, 5, 6, 7, 9, 0x7f, 0x80, 0xff]), bytes()).prop_map(|(subtype, bytes)| binary(subtype, &bytes)),
        1 => (3..6_u8).prop_map(move |subtype| binary(subtype, &uuid)),
        1 => (0..3_u32, 1..3_u32).prop_map(|(time, increment)| timestamp_of(time, increment)),
        1 => select(vec![u32::MAX, 1 << 31, (1 << 31) - 1]).prop_map(|time| timestamp_of(time, 1)),
        1 => (select(vec!["", "a", "a.*", "b"]), select(vec!["", "i", "im", "x"])).prop_map(|(p, o)| regex_of(p, o)),
        1 => (select(vec!["", "a", "db.a"]), few_ids).prop_map(|(namespace, id)| db_pointer(namespace, id)),
        1 => select(vec![Bson::MinKey, Bson::MaxKey]),
        1 => (select(vec!["", "a", "b"]), select(vec![doc! {}, doc! { "a": 1 }, doc! { "a": 1.0 }, doc! { "b": "a" }]))
            .prop_map(|(code, scope)| code_with_scope(code, scope)),
    ]
}

/// Generates a scalar, or documents and arrays of scalars.
pub fn value() -> impl Strategy<Value = Bson> {
    scalar().prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            2 => fields(inner.clone()).prop_map(Bson::Document),
            3 => vec(inner.clone(), 0..4).prop_map(Bson::Array),
        ]
    })
}

fn fields(value: impl Strategy<Value = Bson>) -> impl Strategy<Value = Tree> {
    vec((select(NAMES).prop_map(str::to_owned), value), 0..4).prop_map(|fields| fields.into_iter().collect())
}

/// Generates values that are mostly documents and arrays, so that paths lead through them.
fn nested() -> impl Strategy<Value = Bson> {
    scalar().prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            1 => scalar(),
            4 => fields(inner.clone()).prop_map(Bson::Document),
            4 => vec(inner.clone(), 0..4).prop_map(Bson::Array),
        ]
    })
}

/// Generates the fields of a document without its `_id`.
pub fn fields_of_a_document() -> impl Strategy<Value = Tree> {
    prop_oneof![fields(nested()), fields(scalar()), fields(value())]
}

/// Generates fields like [`fields_of_a_document`], with few distinct values and no arrays.
pub fn flat_fields() -> impl Strategy<Value = Tree> {
    let few = vec![Bson::Null, Bson::Undefined, Bson::Int32(0), Bson::Int32(1), Bson::MinKey, Bson::MaxKey];
    let value = prop_oneof![
        12 => select(few),
        2 => Just(Bson::Null),
        1 => Just(Bson::String("a".to_owned())),
    ];
    vec((select(vec!["a", "b", "0"]).prop_map(str::to_owned), value), 0..4)
        .prop_map(|fields| fields.into_iter().collect())
}

/// Generates documents with an `_id` from 0 on and with fields of [`NAMES`].
pub fn numbered_documents() -> impl Strategy<Value = Vec<Document>> {
    vec(fields_of_a_document(), 1..24).prop_map(|trees| {
        let numbered = trees.into_iter().enumerate().map(|(number, fields)| {
            let mut tree = doc! { "_id": number as i32 };
            tree.extend(fields);
            stored(&tree)
        });
        numbered.collect()
    })
}

pub fn tree(document: &Document) -> Tree {
    raw(document).try_into().expect("a tree")
}

/// Returns true if a collection accepts the value as an `_id`.
pub fn is_id(value: &Bson) -> bool {
    !matches!(value, Bson::Array(_) | Bson::RegularExpression(_) | Bson::Undefined)
}

/// Generates a path of field names.
pub fn path() -> impl Strategy<Value = Vec<&'static str>> {
    vec(select(NAMES), 1..4)
}
