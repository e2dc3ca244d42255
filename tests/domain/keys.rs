//! The order of keys, which is the order of lists. `tests/oracle` compares it with that of a real server.

use std::cmp::Ordering;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Timestamp, doc};
use proptest::prelude::*;
use proptest::sample::Index;
use records::record::{Key, ValueRef, raw};
use rstest::rstest;

use crate::documents;

fn key(value: impl Into<Bson>) -> Key {
    let bytes = doc! { "v": value.into() }.to_vec().unwrap();
    Key::new(raw::find(&bytes, b"v").unwrap().unwrap()).unwrap()
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

fn binary(subtype: BinarySubtype, bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype, bytes: bytes.to_vec() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_value_with_the_key_comes_back_from_its_bytes(value in documents::value()) {
        let key = key(value);
        let (kind, bytes) = key.to_value().unwrap();
        let back = Key::new(ValueRef { kind, bytes: &bytes }).unwrap();
        prop_assert_eq!(&back, &key);
        prop_assert_eq!(Key::from_bytes(key.as_bytes()).unwrap(), key);
    }

    #[test]
    fn bytes_that_are_no_key_are_refused(
        bytes in proptest::collection::vec(any::<u8>(), 1..40),
        value in documents::value(),
        at: Index,
        byte: u8,
    ) {
        let mut changed = key(value).as_bytes().to_vec();
        *at.get_mut(&mut changed) = byte;
        for bytes in [bytes, changed] {
            if let Ok(key) = Key::from_bytes(&bytes) {
                let (kind, value) = key.to_value().unwrap();
                let again = Key::new(ValueRef { kind, bytes: &value }).unwrap();
                prop_assert_eq!(again.as_bytes(), &bytes);
            }
        }
    }

    #[test]
    fn a_sequence_of_keys_sorts_as_its_values_do(a in documents::value(), b in documents::value(), c in documents::value()) {
        let (a, b, c) = (key(a), key(b), key(c));
        let sequence = |first: &Key, second: &Key| [first.as_bytes(), second.as_bytes()].concat();
        let expected = a.cmp(&b).then(b.cmp(&c));
        prop_assert_eq!(sequence(&a, &b).cmp(&sequence(&b, &c)), expected);
        let bytes = sequence(&a, &b);
        let mut rest = bytes.as_slice();
        prop_assert_eq!(Key::split_first(&mut rest).unwrap(), a);
        prop_assert_eq!(rest, b.as_bytes());
    }

    #[test]
    fn numbers_compare_by_their_exact_value(integer: i64, near in -3..=3_i32) {
        // The nearest double, or one of its neighbours.
        let mut double = integer as f64;
        for _ in 0..near.abs() {
            double = if near > 0 { double.next_up() } else { double.next_down() };
        }
        let (whole, fraction) = (double.floor() as i128, double - double.floor());
        let exact = i128::from(integer).cmp(&whole).then(0.0.partial_cmp(&fraction).unwrap());
        prop_assert_eq!(key(integer).cmp(&key(double)), exact);
        prop_assert_eq!(key(decimal(&integer.to_string())), key(integer));
    }
}

#[rstest]
#[case::whole(5.0, 5)]
#[case::negative_zero(-0.0, 0)]
#[case::where_precision_ends(9_007_199_254_740_992.0, 9_007_199_254_740_992_i64)]
#[case::least(-9_223_372_036_854_775_808.0, i64::MIN)]
#[case::decimal(decimal("5.00"), 5)]
#[case::decimal_with_exponent(decimal("1.2E+3"), 1_200)]
#[case::decimal_zero(decimal("-0E+3"), 0)]
#[case::half(decimal("-0.50"), -0.5)]
#[case::decimal_infinity(decimal("Infinity"), f64::INFINITY)]
#[case::decimal_nan(decimal("NaN"), f64::NAN)]
#[case::symbol(Bson::Symbol("a".into()), "a")]
#[case::deep(doc! { "a": 1, "b": [2, { "c": 0.5 }] }, doc! { "a": 1.0, "b": [decimal("2.0"), { "c": decimal("0.50") }] })]
fn values_that_compare_equal_have_one_key(#[case] a: impl Into<Bson>, #[case] b: impl Into<Bson>) {
    assert_eq!(key(a), key(b));
}

#[rstest]
#[case("0.1", 0.1)]
#[case("1E+23", 1e23)]
#[case("1E-300", 1e-300)]
fn a_decimal_near_a_double_is_another_value(#[case] text: &str, #[case] double: f64) {
    assert_ne!(key(decimal(text)), key(double));
    assert_ne!(key(decimal(text)), key(decimal(&format!("-{text}"))));
}

#[test]
fn types_come_in_the_order_of_mongodb() {
    let in_order = [
        key(Bson::MinKey),
        key(Bson::Undefined),
        key(Bson::Null),
        key(f64::NAN),
        key(f64::NEG_INFINITY),
        key(decimal("-1E+400")),
        key(-9_223_372_036_854_777_856.0),
        key(i64::MIN),
        key(-1),
        key(-0.5),
        key(decimal("-1E-400")),
        key(0),
        key(decimal("1E-400")),
        key(decimal("0.1")),
        key(0.1),
        key(0.5),
        key(9_007_199_254_740_992_i64),
        key(9_007_199_254_740_993_i64),
        key(decimal("9007199254740993.5")),
        key(i64::MAX),
        key(9_223_372_036_854_775_808.0),
        key(decimal("1E+400")),
        key(f64::INFINITY),
        key(""),
        key("\0"),
        key("\0a"),
        key("10"),
        key("9"),
        key("Z"),
        key("a"),
        key("a\0"),
        key("é"),
        key("\u{ffff}"),
        key("\u{10000}"),
        key(doc! {}),
        key(doc! { "a": 1 }),
        key(doc! { "a": 1, "b": 1 }),
        key(doc! { "b": 1 }),
        key(doc! { "a": "x" }),
        key(Bson::Array(vec![])),
        key(Bson::Array(vec![1.into()])),
        key(binary(BinarySubtype::Generic, b"")),
        key(binary(BinarySubtype::Generic, b"b")),
        key(binary(BinarySubtype::Uuid, b"a")),
        key(binary(BinarySubtype::Generic, b"aa")),
        key(Bson::ObjectId("000000000000000000000000".parse().unwrap())),
        key(false),
        key(true),
        key(DateTime::from_millis(i64::MIN)),
        key(DateTime::from_millis(0)),
        key(Timestamp { time: 0, increment: 1 }),
        key(Bson::JavaScriptCode("x".into())),
        key(Bson::MaxKey),
    ];
    for pair in in_order.windows(2) {
        assert_eq!(pair[0].cmp(&pair[1]), Ordering::Less, "{:?} comes before {:?}", pair[0], pair[1]);
    }
    assert!(Key::default().is_missing() && Key::default() < in_order[0]);
}

#[test]
fn a_key_that_nests_deeper_than_mongodb_stores_is_refused_before_a_query_has_it() {
    let nested = |depth| key((0..depth).fold(Bson::Null, |inner, _| Bson::Array(vec![inner])));
    for (depth, is_read) in [(1, true), (180, true), (181, false), (240, false)] {
        let bytes = nested(depth);
        assert_eq!(Key::from_bytes(bytes.as_bytes()).is_ok(), is_read, "{depth} levels");
    }
}
