//! From the text in a URL to the keys it may stand for.

use proptest::prelude::*;
use records::document::{Document, Value};
use records::record::{Key, RecordId};
use rstest::rstest;

use crate::documents::id;

fn keys(text: &str) -> Vec<Key> {
    RecordId::from(text).keys().collect()
}

fn string(text: &str) -> Key {
    Key::String(text.into())
}

#[rstest]
#[case::integer("5", Key::Integer(5))]
#[case::negative("-5", Key::Integer(-5))]
#[case::zero("0", Key::Integer(0))]
#[case::largest("9223372036854775807", Key::Integer(i64::MAX))]
#[case::least("-9223372036854775808", Key::Integer(i64::MIN))]
#[case::double("5.5", Key::Double(5.5))]
#[case::whole_double("5.0", Key::Integer(5))]
#[case::negative_zero("-0.0", Key::Integer(0))]
#[case::large_double("1e+300", Key::Double(1e300))]
#[case::large_whole_double("1e+16", Key::Integer(10_000_000_000_000_000))]
#[case::small_double("5e-324", Key::Double(5e-324))]
#[case::yes("true", Key::Bool(true))]
#[case::no("false", Key::Bool(false))]
#[case::date("2015-09-10T08:55:47.000Z", Key::Date(1_441_875_347_000))]
#[case::late_date("+010000-01-01T00:00:00.000Z", Key::Date(253_402_300_800_000))]
#[case::early_date("-000001-12-31T23:59:59.999Z", Key::Date(-62_167_219_200_001))]
#[case::object_id("507f1f77bcf86cd799439011", Key::ObjectId(*b"\x50\x7f\x1f\x77\xbc\xf8\x6c\xd7\x99\x43\x90\x11"))]
#[case::digits_of_an_object_id(
    "111111111111111111111111",
    Key::ObjectId([0x11; 12])
)]
#[case::uuid("11111111-1111-1111-1111-111111111111", Key::Uuid([0x11; 16]))]
fn text_in_the_form_of_a_type_stands_for_that_type_and_then_for_itself(#[case] text: &str, #[case] typed: Key) {
    assert_eq!(keys(text), [typed, string(text)]);
}

#[rstest]
#[case::empty("")]
#[case::leading_zero("05")]
#[case::leading_plus("+5")]
#[case::minus_zero("-0")]
#[case::point("5.")]
#[case::no_whole_part(".5")]
#[case::trailing_zero("5.50")]
#[case::exponent("1e3")]
#[case::exponent_without_sign("1e300")]
#[case::large_exponent("1E+300")]
#[case::infinite("1e400")]
#[case::beyond_int64("9223372036854775808")]
#[case::space(" 5")]
#[case::hex_number("0x5")]
#[case::capitals("TRUE")]
#[case::mixed("True")]
#[case::truth("truely")]
#[case::nan("NaN")]
#[case::infinity("Infinity")]
#[case::negative_infinity("-inf")]
#[case::null("null")]
#[case::date_without_milliseconds("2015-09-10T08:55:47Z")]
#[case::day("2015-09-10")]
#[case::no_such_day("2015-02-29T00:00:00.000Z")]
#[case::capital_object_id("507F1F77BCF86CD799439011")]
#[case::short_object_id("507f1f77bcf86cd79943901")]
#[case::capital_uuid("3B241101-E2BB-4255-8CAF-4136C566A962")]
#[case::bare_uuid("3b241101e2bb42558caf4136c566a962")]
#[case::path("../../etc/passwd")]
#[case::nul("\0")]
#[case::non_ascii("水素")]
fn any_other_text_stands_for_itself_alone(#[case] text: &str) {
    assert_eq!(keys(text), [string(text)]);
}

#[test]
fn an_id_of_four_kilobytes_stands_for_itself_alone() {
    let digits = "1".repeat(4_096);
    assert_eq!(keys(&digits), [string(&digits)]);
}

/// The `_id` as the record shows it: a string without its quotes, anything else as it is.
fn shown(document: &Document) -> String {
    let record = document.to_record();
    let json: serde_json::Value = serde_json::from_slice(record.json()).unwrap();
    match &json["_id"] {
        serde_json::Value::String(text) => text.clone(),
        _ => {
            let json = std::str::from_utf8(record.json()).unwrap();
            json.strip_prefix(r#"{"_id":"#).unwrap().strip_suffix('}').unwrap().to_owned()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_text_that_a_record_shows_as_its_id_finds_it(id in id()) {
        let document = Document::new(vec![("_id".into(), id.clone())]).unwrap();
        let keys = keys(&shown(&document));
        prop_assert!(keys.len() <= 2);
        match id {
            // A string that looks like another type comes second; the typed `_id` would answer first.
            Value::String(_) => prop_assert_eq!(keys.last(), Some(document.key())),
            _ => prop_assert_eq!(&keys[0], document.key()),
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
    assert_eq!(RecordId::from(text).keys().collect::<Vec<_>>(), [Key::String(text.into())]);
}
