//! The keys that the text of an id in a URL can denote.

use bson::{Bson, DateTime, doc};
use proptest::prelude::*;
use records::document::validate;
use records::record::{Document, Key, RecordId, raw};
use records::wire;
use rstest::rstest;

use crate::documents::id;

fn keys(text: &str) -> Vec<Key> {
    RecordId::from(text).keys().to_vec()
}

fn string(text: &str) -> Key {
    Key::string(text)
}

fn key(value: impl Into<Bson>) -> Key {
    let bytes = doc! { "v": value.into() }.to_vec().unwrap();
    Key::new(raw::find(&bytes, b"v").unwrap().unwrap()).unwrap()
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

fn date(millis: i64) -> Bson {
    Bson::DateTime(DateTime::from_millis(millis))
}

fn object_id(text: &str) -> Bson {
    Bson::ObjectId(text.parse().unwrap())
}

fn uuid(byte: u8) -> Bson {
    Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![byte; 16] })
}

#[rstest]
#[case::integer("5", 5)]
#[case::negative("-5", -5)]
#[case::zero("0", 0)]
#[case::minus_zero("-0", 0)]
#[case::largest("9223372036854775807", i64::MAX)]
#[case::least("-9223372036854775808", i64::MIN)]
#[case::where_doubles_end("9007199254740993", 9_007_199_254_740_993_i64)]
#[case::double("5.5", 5.5)]
#[case::trailing_zero("5.50", 5.5)]
#[case::whole_double("5.0", 5)]
#[case::negative_zero("-0.0", 0)]
#[case::exponent("1e3", 1_000)]
#[case::beyond_int64("9223372036854775808", 9_223_372_036_854_775_808.0)]
#[case::yes("true", true)]
#[case::no("false", false)]
#[case::date("2015-09-10T08:55:47.000Z", date(1_441_875_347_000))]
#[case::date_without_milliseconds("2015-09-10T08:55:47Z", date(1_441_875_347_000))]
#[case::date_elsewhere("2015-09-10t10:55:47.0000+02:00", date(1_441_875_347_000))]
#[case::late_date("+010000-01-01T00:00:00.000Z", date(253_402_300_800_000))]
#[case::early_date("-000001-12-31T23:59:59.999Z", date(-62_167_219_200_001))]
#[case::object_id("507f1f77bcf86cd799439011", object_id("507f1f77bcf86cd799439011"))]
#[case::object_id_in_capitals("507F1F77BCF86CD799439011", object_id("507f1f77bcf86cd799439011"))]
#[case::uuid("11111111-1111-1111-1111-111111111111", uuid(0x11))]
#[case::uuid_in_capitals("ABABABAB-ABAB-ABAB-ABAB-ABABABABABAB", uuid(0xab))]
fn text_that_denotes_a_value_stands_for_it_and_then_for_itself(#[case] text: &str, #[case] value: impl Into<Bson>) {
    assert_eq!(keys(text), [key(value), string(text)]);
}

#[rstest]
#[case::tenth("0.1", &[decimal("0.1"), 0.1.into()])]
#[case::negative("-0.1", &[Bson::from(-0.1), decimal("-0.1")])]
#[case::large("1e+300", &[Bson::from(1e300), decimal("1e+300")])]
#[case::beyond_double("1e400", &[decimal("1e400")])]
fn a_number_without_an_exact_double_stands_for_two(#[case] text: &str, #[case] values: &[Bson]) {
    let mut expected: Vec<Key> = values.iter().cloned().map(key).collect();
    expected.sort();
    let mut found = keys(text);
    assert_eq!(found.pop(), Some(string(text)));
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn digits_may_be_an_object_id_and_a_number() {
    let text = "111111111111111111111111";
    let number = decimal(text);
    let found = keys(text);
    assert_eq!(found[0], key(object_id(text)));
    assert!(found.contains(&key(number)) && found.last() == Some(&string(text)), "{found:?}");
}

#[rstest]
#[case::empty("")]
#[case::leading_zero("05")]
#[case::leading_plus("+5")]
#[case::point("5.")]
#[case::no_whole_part(".5")]
#[case::beyond_decimal("1e7000")]
#[case::space(" 5")]
#[case::hex_number("0x5")]
#[case::capitals("TRUE")]
#[case::mixed("True")]
#[case::truth("truely")]
#[case::negative_infinity("-inf")]
#[case::null("null")]
#[case::day("2015-09-10")]
#[case::no_such_day("2015-02-29T00:00:00.000Z")]
#[case::date_without_offset("2015-09-10T08:55:47")]
#[case::leap_second("2016-12-31T23:59:60Z")]
#[case::between_milliseconds("2015-09-10T08:55:47.0005Z")]
#[case::short_object_id("507f1f77bcf86cd79943901")]
#[case::bare_uuid("3b241101e2bb42558caf4136c566a962")]
#[case::path("../../etc/passwd")]
#[case::nul("\0")]
#[case::non_ascii("水素")]
fn any_other_text_stands_for_itself_alone(#[case] text: &str) {
    assert_eq!(keys(text), [string(text)]);
}

#[test]
fn an_id_of_four_kilobytes_stands_for_itself() {
    let digits = "1".repeat(4_096);
    assert_eq!(keys(&digits), [string(&digits)]);
}

/// Returns the `_id` in the record's JSON, without the quotes of a string.
fn shown(document: &Document) -> String {
    let mut json = Vec::new();
    wire::document(&mut json, document.bson()).unwrap();
    let parsed: serde_json::Value = serde_json::from_slice(&json).unwrap();
    match &parsed["_id"] {
        serde_json::Value::String(text) => text.clone(),
        _ => {
            let json = std::str::from_utf8(&json).unwrap();
            json.strip_prefix(r#"{"_id":"#).unwrap().strip_suffix('}').unwrap().to_owned()
        }
    }
}

/// Returns true if the `_id` in the record's JSON, used as an id, finds the record.
fn has_address(id: &Bson) -> bool {
    match id {
        Bson::String(text) => !text.is_empty(),
        Bson::Double(value) => value.is_finite(),
        Bson::Decimal128(value) => value.to_string().bytes().all(|byte| !byte.is_ascii_alphabetic() || byte == b'E'),
        Bson::Binary(binary) => binary.subtype == bson::spec::BinarySubtype::Uuid && binary.bytes.len() == 16,
        Bson::Int32(_) | Bson::Int64(_) | Bson::Boolean(_) | Bson::DateTime(_) | Bson::ObjectId(_) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_text_that_a_record_shows_as_its_id_finds_it(id in id().prop_filter("it has an address", has_address)) {
        let document = validate(doc! { "_id": id.clone() }).unwrap();
        let keys = keys(&shown(&document));
        match id {
            // A string that resembles another type comes last, since the typed `_id` is tried first.
            Bson::String(_) => prop_assert_eq!(keys.last(), Some(document.key())),
            _ => prop_assert!(keys.contains(document.key()), "{:?}", keys),
        }
    }

    #[test]
    fn any_text_is_an_id(text in "\\PC{0,40}") {
        prop_assert_eq!(keys(&text).pop(), Some(string(&text)));
        let id = RecordId::from(text.clone());
        prop_assert_eq!(id.to_string(), text);
    }
}

/// Found by the fuzz target `ids`: the one year that has no absolute value.
#[test]
fn the_smallest_integer_as_a_year_is_a_string() {
    let text = "-9223372036854775808-01-01T00:00:00.000Z";
    assert_eq!(keys(text), [string(text)]);
}
