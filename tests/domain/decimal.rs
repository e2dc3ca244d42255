//! Decimal128 by the rules of its specification: text that is kept, normalised, or refused.

use bson::{Bson, Decimal128};
use proptest::prelude::*;
use records::document::extended_json;
use rstest::rstest;

use crate::documents::decimal;
use crate::tree;

/// Parses the text as a Decimal128 in Extended JSON.
fn parse(text: &str) -> Result<Decimal128, String> {
    let line = serde_json::json!({ "_id": 1, "v": { "$numberDecimal": text } }).to_string();
    let document = extended_json::parse(line.as_bytes()).map_err(|error| error.to_string())?;
    let value = tree(&document).remove("v");
    let Some(Bson::Decimal128(decimal)) = value else { panic!("{value:?} is no Decimal128") };
    Ok(decimal)
}

fn read(text: &str) -> Result<String, String> {
    parse(text).map(|decimal| decimal.to_string())
}

#[rstest]
#[case("0")]
#[case("-0")]
#[case("0.00")]
#[case("1.50")]
#[case("-1.50")]
#[case("12345678901234567")]
#[case("0.1234567890123456789012345678901234")]
#[case("0.000001")]
#[case("0.000001234567890123456789012345678901234")]
#[case("1E-7")]
#[case("1.0E-7")]
#[case("0E-7")]
#[case("0E+3")]
#[case("1E+3")]
#[case("1.000E+3")]
#[case("1.5E+6")]
#[case("9.999999999999999999999999999999999E+6144")]
#[case("-9.999999999999999999999999999999999E+6144")]
#[case("1E-6176")]
#[case("9.99E-6174")]
#[case("0E-6176")]
#[case("0E+6111")]
#[case("-0E+6111")]
#[case("NaN")]
#[case("Infinity")]
#[case("-Infinity")]
fn the_scientific_string_is_kept_as_it_is(#[case] text: &str) {
    // The exponent of `1.000E+3` is 0, so the kept text has no exponent.
    let kept = if text == "1.000E+3" { "1000" } else { text };
    assert_eq!(read(text).as_deref(), Ok(kept));
}

#[rstest]
#[case::plus("+1", "1")]
#[case::leading_zeros("007", "7")]
#[case::no_whole_part(".5", "0.5")]
#[case::no_fraction("5.", "5")]
#[case::small_e("1e3", "1E+3")]
#[case::exponent_without_sign("1E3", "1E+3")]
#[case::exponent_with_zeros("1E+003", "1E+3")]
#[case::plain_from_exponent("150E-2", "1.50")]
#[case::scientific_from_plain("0.0000001", "1E-7")]
#[case::scientific_with_trailing_zeros("100E2", "1.00E+4")]
#[case::zero_with_a_point_and_an_exponent("0.00E+5", "0E+3")]
#[case::nan("nAn", "NaN")]
#[case::negative_nan("-NaN", "NaN")]
#[case::inf("inf", "Infinity")]
#[case::negative_inf("-INF", "-Infinity")]
#[case::zero_below_the_least_exponent("0E-7000", "0E-6176")]
#[case::zero_above_the_greatest_exponent("-0E+7000", "-0E+6111")]
#[case::exponent_moved_into_the_coefficient("1E+6112", "1.0E+6112")]
#[case::as_far_as_it_goes("1E+6144", "1.000000000000000000000000000000000E+6144")]
#[case::zeros_dropped_for_the_least_exponent("10E-6177", "1E-6176")]
#[case::zeros_dropped_for_the_coefficient(
    "12345678901234567890123456789012340",
    "1.234567890123456789012345678901234E+34"
)]
#[case::zeros_dropped_after_a_point("1.2345678901234567890123456789012300000", "1.234567890123456789012345678901230")]
fn other_text_is_brought_into_form(#[case] text: &str, #[case] form: &str) {
    assert_eq!(read(text).as_deref(), Ok(form));
}

#[rstest]
#[case::empty("")]
#[case::sign_alone("-")]
#[case::two_signs("--1")]
#[case::point_alone(".")]
#[case::sign_after_a_point(".+5")]
#[case::sign_after_a_whole_part("1.+5")]
#[case::sign_in_the_middle("1+5")]
#[case::two_plus_signs("++1")]
#[case::two_signs_of_the_exponent("1e+-5")]
#[case::point_and_exponent_alone(".e5")]
#[case::signalling_nan("sNaN")]
#[case::other_digits_after_a_digit("1１１１１１１１１１１１１１１１１１")]
#[case::two_points("1.2.3")]
#[case::no_exponent("1e")]
#[case::no_mantissa("e5")]
#[case::two_exponents("1e2e3")]
#[case::fraction_in_the_exponent("1e1.5")]
#[case::space(" 1")]
#[case::letters("0x1")]
#[case::other_digits("１")]
#[case::underscore("1_000")]
#[case::long_infinity("Infinityx")]
#[case::thirty_five_digits("12345678901234567890123456789012345")]
#[case::thirty_five_digits_of_fraction("0.12345678901234567890123456789012345")]
#[case::too_large("1E+6145")]
#[case::too_large_for_its_digits("12E+6144")]
#[case::too_small("1E-6177")]
#[case::too_small_for_its_digits("1.5E-6176")]
#[case::endless_exponent("1E99999999999")]
fn what_would_have_to_be_rounded_or_is_no_number_is_refused(#[case] text: &str) {
    let why = "`$numberDecimal` must be a decimal number in quotes of at most 34 digits with an exponent between -6176 and 6111, \
               Infinity or NaN";
    assert_eq!(read(text), Err(why.to_owned()));
}

#[test]
fn thirty_four_digits_are_kept_exactly() {
    let text = "9".repeat(34);
    let coefficient = 10_u128.pow(34) - 1;
    let exponent_of_0 = 6176_u128 << 113;
    assert_eq!(parse(&text).map(|decimal| decimal.bytes()), Ok((exponent_of_0 | coefficient).to_le_bytes()));
    assert_eq!(read(&text), Ok(text));
}

proptest! {
    #[test]
    fn every_decimal_comes_back_from_its_text(decimal in decimal()) {
        prop_assert_eq!(parse(&decimal.to_string()), Ok(decimal));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[-+.eE0-9]{0,50}|\\PC{0,20}|[0-9]{30,40}\\PC{0,20}") {
        if let Ok(form) = read(&text) {
            prop_assert_eq!(read(&form), Ok(form));
        }
    }
}
