//! The forms that `records::wire` reads as well as writes: dates and UUIDs.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, doc};
use proptest::prelude::*;
use records::wire;
use rstest::rstest;

use crate::documents::{self, hex};
use crate::slow;

/// Returns the JSON of a value, without quotes.
fn unquoted(value: impl Into<Bson>) -> String {
    let mut out = Vec::new();
    wire::document(&mut out, &doc! { "v": value.into() }.to_vec().unwrap()).unwrap();
    let json = String::from_utf8(out).unwrap();
    json.trim_start_matches(r#"{"v":"#).trim_end_matches('}').trim_matches('"').to_owned()
}

fn date(millis: i64) -> String {
    unquoted(DateTime::from_millis(millis))
}

#[rstest]
#[case(0, "1970-01-01T00:00:00.000Z")]
#[case(-1, "1969-12-31T23:59:59.999Z")]
#[case(1_441_875_347_000, "2015-09-10T08:55:47.000Z")]
#[case(951_782_399_999, "2000-02-28T23:59:59.999Z")]
#[case(951_782_400_000, "2000-02-29T00:00:00.000Z")]
#[case(-62_167_219_200_000, "0000-01-01T00:00:00.000Z")]
#[case(-62_167_219_200_001, "-000001-12-31T23:59:59.999Z")]
#[case(253_402_300_799_999, "9999-12-31T23:59:59.999Z")]
#[case(253_402_300_800_000, "+010000-01-01T00:00:00.000Z")]
#[case(i64::MAX, "+292278994-08-17T07:12:55.807Z")]
#[case(i64::MIN, "-292275055-05-16T16:47:04.192Z")]
fn dates_have_this_form_and_no_other_is_read(#[case] millis: i64, #[case] form: &str) {
    assert_eq!(date(millis), form);
    assert_eq!(wire::parse_date(form), Some(millis));
}

#[rstest]
#[case("2015-09-10T08:55:47Z")]
#[case("2015-09-10T08:55:47.0Z")]
#[case("2015-09-10T08:55:47.0000Z")]
#[case("2015-09-10T08:55:47.000z")]
#[case("2015-09-10t08:55:47.000Z")]
#[case("2015-09-10 08:55:47.000Z")]
#[case("2015-09-10T08:55:47.000+00:00")]
#[case("2015-09-10T08:55:47.000")]
#[case("2015-09-10T24:00:00.000Z")]
#[case("2015-09-10T23:59:60.000Z")]
#[case("2015-02-29T00:00:00.000Z")]
#[case("2015-13-01T00:00:00.000Z")]
#[case("2015-00-10T00:00:00.000Z")]
#[case("2015-09-00T00:00:00.000Z")]
#[case("2015-+9-10T08:55:47.000Z")]
#[case("+002015-09-10T08:55:47.000Z")]
#[case("-000000-01-01T00:00:00.000Z")]
#[case("+292278994-08-17T07:12:55.808Z")]
#[case("-292275055-05-16T16:47:04.191Z")]
#[case("+999999999-01-01T00:00:00.000Z")]
#[case("+9223372036854775807-01-01T00:00:00.000Z")]
#[case("2015-09-1é:55:47.000Z")]
#[case("-")]
#[case("+-")]
#[case("")]
fn nearly_dates_are_not_read(#[case] text: &str) {
    assert_eq!(wire::parse_date(text), None);
}

#[rstest]
#[case("3B241101-e2bb-4255-8caf-4136c566a962")]
#[case("3b241101e2bb42558caf4136c566a962")]
#[case("{3b241101-e2bb-4255-8caf-4136c566a962}")]
#[case("3b24110-1e2bb-4255-8caf-4136c566a962")]
#[case("3b241101-e2bb-4255-8caf-4136c566a96-")]
#[case("3b241101-e2bb-4255-8caf--136c566a962")]
#[case("3b241101-e2bb-4255-8caf-4136c566a96")]
#[case("------------------------------------")]
#[case("3b241101-e2bb-4255-8caf-4136c566a9é")]
fn nearly_uuids_are_not_read(#[case] text: &str) {
    assert_eq!(wire::parse_uuid(text), None);
}

proptest! {
    #[test]
    fn dates_are_written_as_another_calendar_has_them(millis in documents::date()) {
        prop_assert_eq!(date(millis), slow::date(millis));
    }

    #[test]
    fn every_date_is_read_back(millis in documents::date()) {
        prop_assert_eq!(wire::parse_date(&date(millis)), Some(millis));
    }

    #[test]
    fn only_the_form_of_a_date_is_read(
        text in "[+-]?[0-9]{4,9}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\\.[0-9]{3}Z"
    ) {
        if let Some(millis) = wire::parse_date(&text) {
            prop_assert_eq!(date(millis), text);
        }
    }

    #[test]
    fn object_ids_are_written_in_lower_case_hex(id: [u8; 12]) {
        prop_assert_eq!(unquoted(ObjectId::from_bytes(id)), hex(&id));
    }

    #[test]
    fn uuids_are_read_in_exactly_the_form_they_are_written(uuid: [u8; 16], text in "[0-9a-f-]{36}") {
        let form = |uuid: [u8; 16]| unquoted(Binary { subtype: BinarySubtype::Uuid, bytes: uuid.to_vec() });
        prop_assert_eq!(wire::parse_uuid(&form(uuid)), Some(uuid));
        if let Some(uuid) = wire::parse_uuid(&text) {
            prop_assert_eq!(form(uuid), text);
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,40}|[-+0-9TZ:.é]{20,36}") {
        let _ = (wire::parse_date(&text), wire::parse_uuid(&text));
    }
}
