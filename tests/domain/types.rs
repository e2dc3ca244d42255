//! A table of all forms of each BSON type, with the wire JSON that `records::wire` specifies.

use bson::Bson;
use records::document::extended_json;
use rstest::rstest;

use crate::{json, tree};

fn parsed(value: &str) -> (Bson, String) {
    let document = extended_json::parse(format!(r#"{{"_id":1,"v":{value}}}"#).as_bytes()).unwrap();
    let json = json(&document);
    let wire = json.strip_prefix(r#"{"_id":1,"v":"#).unwrap().strip_suffix('}').unwrap();
    (tree(&document).remove("v").unwrap(), wire.to_owned())
}

#[rstest]
#[case::canonical_double(r#"{"$numberDouble":"5.5"}"#, "5.5")]
#[case::relaxed_double("5.5", "5.5")]
#[case::whole_double(r#"{"$numberDouble":"5.0"}"#, "5.0")]
#[case::whole_double_without_a_point(r#"{"$numberDouble":"5"}"#, "5.0")]
#[case::large_double(r#"{"$numberDouble":"1E+300"}"#, "1e+300")]
#[case::negative_zero(r#"{"$numberDouble":"-0.0"}"#, "-0.0")]
#[case::not_a_number(r#"{"$numberDouble":"NaN"}"#, "null")]
#[case::infinity(r#"{"$numberDouble":"Infinity"}"#, "null")]
#[case::negative_infinity(r#"{"$numberDouble":"-Infinity"}"#, "null")]
#[case::string(r#""Curaçao""#, r#""Curaçao""#)]
#[case::escaped_string(r#""\u00e7\ud83d\ude00\u0000\n\/""#, r#""ç😀\u0000\n/""#)]
#[case::document(r#"{"b":1,"a":{"c":[]}}"#, r#"{"b":1,"a":{"c":[]}}"#)]
#[case::empty_document("{}", "{}")]
#[case::array(r#"[1, "two", [3]]"#, r#"[1,"two",[3]]"#)]
#[case::canonical_binary(r#"{"$binary":{"base64":"AQID","subType":"00"}}"#, r#""AQID""#)]
#[case::binary_without_padding(r#"{"$binary":{"base64":"AQI","subType":"00"}}"#, r#""AQI=""#)]
#[case::binary_with_short_subtype(r#"{"$binary":{"subType":"0","base64":"AQI="}}"#, r#""AQI=""#)]
#[case::v1_binary(r#"{"$binary":"AQID","$type":"80"}"#, r#""AQID""#)]
#[case::v1_binary_type_first(r#"{"$type":"00","$binary":"AQID"}"#, r#""AQID""#)]
#[case::canonical_uuid(
    r#"{"$binary":{"base64":"OyQRAeK7QlWMr0E2xWapYg==","subType":"04"}}"#,
    r#""3b241101-e2bb-4255-8caf-4136c566a962""#
)]
#[case::short_uuid(r#"{"$uuid":"3B241101-e2bb-4255-8caf-4136c566a962"}"#, r#""3b241101-e2bb-4255-8caf-4136c566a962""#)]
#[case::old_uuid(
    r#"{"$binary":{"base64":"OyQRAeK7QlWMr0E2xWapYg==","subType":"03"}}"#,
    r#""OyQRAeK7QlWMr0E2xWapYg==""#
)]
#[case::uuid_without_hyphens(
    r#"{"$uuid":"3b241101e2bb42558caf4136c566a962"}"#,
    r#""3b241101-e2bb-4255-8caf-4136c566a962""#
)]
#[case::uuid_of_another_length(r#"{"$binary":{"base64":"AQID","subType":"04"}}"#, r#""AQID""#)]
#[case::object_id(r#"{"$oid":"507f1f77bcf86cd799439011"}"#, r#""507f1f77bcf86cd799439011""#)]
#[case::object_id_in_capitals(r#"{"$oid":"507F1F77BCF86CD799439011"}"#, r#""507f1f77bcf86cd799439011""#)]
#[case::yes("true", "true")]
#[case::no("false", "false")]
#[case::canonical_date(r#"{"$date":{"$numberLong":"1441875347000"}}"#, r#""2015-09-10T08:55:47.000Z""#)]
#[case::relaxed_date(r#"{"$date":"2015-09-10T08:55:47Z"}"#, r#""2015-09-10T08:55:47.000Z""#)]
#[case::date_with_milliseconds(r#"{"$date":"2015-09-10T08:55:47.501Z"}"#, r#""2015-09-10T08:55:47.501Z""#)]
#[case::date_with_microseconds(r#"{"$date":"2015-09-10T08:55:47.501999Z"}"#, r#""2015-09-10T08:55:47.501Z""#)]
#[case::old_date_with_microseconds(r#"{"$date":"1969-12-31T23:59:59.999999Z"}"#, r#""1969-12-31T23:59:59.999Z""#)]
#[case::date_with_a_basic_offset(r#"{"$date":"2015-09-10T08:55:47.000+0000"}"#, r#""2015-09-10T08:55:47.000Z""#)]
#[case::date_east_of_greenwich(r#"{"$date":"2015-09-10T00:55:47+02:00"}"#, r#""2015-09-09T22:55:47.000Z""#)]
#[case::date_west_of_greenwich(r#"{"$date":"2015-09-10T23:55:47.5-0130"}"#, r#""2015-09-11T01:25:47.500Z""#)]
#[case::last_date_of_four_digits(r#"{"$date":"9999-12-31T23:59:59Z"}"#, r#""9999-12-31T23:59:59.000Z""#)]
#[case::last_millisecond_of_four_digits(r#"{"$date":"9999-12-31T23:59:59.999Z"}"#, r#""9999-12-31T23:59:59.999Z""#)]
#[case::date_past_four_digits(r#"{"$date":"9999-12-31T23:59:59-01:00"}"#, r#""+010000-01-01T00:59:59.000Z""#)]
#[case::date_of_five_digits(r#"{"$date":{"$numberLong":"253402300800000"}}"#, r#""+010000-01-01T00:00:00.000Z""#)]
#[case::date_before_the_year_0(r#"{"$date":{"$numberLong":"-62167219200001"}}"#, r#""-000001-12-31T23:59:59.999Z""#)]
#[case::wire_date(r#"{"$date":"+010000-01-01T00:00:00.000Z"}"#, r#""+010000-01-01T00:00:00.000Z""#)]
#[case::v1_date(r#"{"$date":1441875347000}"#, r#""2015-09-10T08:55:47.000Z""#)]
#[case::date_of_an_unquoted_long(r#"{"$date":{"$numberLong":1441875347000}}"#, r#""2015-09-10T08:55:47.000Z""#)]
#[case::date_of_a_double(r#"{"$date":1441875347000.0}"#, r#""2015-09-10T08:55:47.000Z""#)]
#[case::date_of_a_canonical_double(r#"{"$date":{"$numberDouble":"1.441875347E12"}}"#, r#""2015-09-10T08:55:47.000Z""#)]
#[case::date_with_hours_of_offset(r#"{"$date":"2015-09-10T08:55:47+00"}"#, r#""2015-09-10T08:55:47.000Z""#)]
#[case::date_of_minutes(r#"{"$date":"2015-09-10T08:55Z"}"#, r#""2015-09-10T08:55:00.000Z""#)]
#[case::v1_early_date(r#"{"$date":-1}"#, r#""1969-12-31T23:59:59.999Z""#)]
#[case::null("null", "null")]
#[case::undefined(r#"{"$undefined":true}"#, "null")]
#[case::canonical_int32(r#"{"$numberInt":"-5"}"#, "-5")]
#[case::relaxed_int32("5", "5")]
#[case::unquoted_int32(r#"{"$numberInt":-5}"#, "-5")]
#[case::unquoted_int64(r#"{"$numberLong":12}"#, "12")]
#[case::unquoted_double(r#"{"$numberDouble":5}"#, "5.0")]
#[case::unquoted_decimal(r#"{"$numberDecimal":1.5}"#, r#""1.5""#)]
#[case::unquoted_whole_decimal(r#"{"$numberDecimal":9007199254740993}"#, r#""9007199254740993""#)]
#[case::unquoted_nan(r#"{"$numberDouble":NaN}"#, "null")]
#[case::canonical_int64(r#"{"$numberLong":"9007199254740993"}"#, "9007199254740993")]
#[case::relaxed_int64("9007199254740993", "9007199254740993")]
#[case::least_int64("-9223372036854775808", "-9223372036854775808")]
#[case::decimal(r#"{"$numberDecimal":"1.50"}"#, r#""1.50""#)]
#[case::decimal_with_exponent(r#"{"$numberDecimal":"1e3"}"#, r#""1E+3""#)]
#[case::decimal_nan(r#"{"$numberDecimal":"NaN"}"#, r#""NaN""#)]
#[case::regex(r#"{"$regularExpression":{"pattern":"^a","options":"i"}}"#, r#""/^a/i""#)]
#[case::regex_with_unsorted_options(r#"{"$regularExpression":{"options":"xi","pattern":"a\"b"}}"#, r#""/a\"b/ix""#)]
#[case::v1_regex(r#"{"$regex":"^a","$options":"i"}"#, r#""/^a/i""#)]
#[case::v1_regex_without_options(r#"{"$regex":"^a"}"#, r#""/^a/""#)]
#[case::stored_query(
    r#"{"$regex":{"$regularExpression":{"pattern":"p","options":"ix"}},"$options":"i"}"#,
    r#"{"$regex":"/p/ix","$options":"i"}"#
)]
#[case::code(r#"{"$code":"x => x"}"#, r#""x => x""#)]
#[case::code_with_scope(r#"{"$code":"x","$scope":{"x":1}}"#, r#"{"code":"x","scope":{"x":1}}"#)]
#[case::scope_first(r#"{"$scope":{},"$code":"x"}"#, r#"{"code":"x","scope":{}}"#)]
#[case::symbol(r#"{"$symbol":"s"}"#, r#""s""#)]
#[case::timestamp(r#"{"$timestamp":{"t":1565545664,"i":1}}"#, r#"{"t":1565545664,"i":1}"#)]
#[case::largest_timestamp(r#"{"$timestamp":{"i":4294967295,"t":4294967295}}"#, r#"{"t":4294967295,"i":4294967295}"#)]
#[case::db_pointer(
    r#"{"$dbPointer":{"$ref":"db.c","$id":{"$oid":"507f1f77bcf86cd799439011"}}}"#,
    r#"{"$ref":"db.c","$id":"507f1f77bcf86cd799439011"}"#
)]
#[case::db_ref(r#"{"$ref":"c","$id":{"$numberInt":"1"},"$db":"d"}"#, r#"{"$ref":"c","$id":1,"$db":"d"}"#)]
#[case::min_key(r#"{"$minKey":1}"#, r#""MinKey""#)]
#[case::max_key(r#"{"$maxKey":1}"#, r#""MaxKey""#)]
#[case::no_wrapper(r#"{"$set":1,"$":2,"a":3}"#, r#"{"$set":1,"$":2,"a":3}"#)]
fn each_form_of_each_type_has_its_wire_json(#[case] text: &str, #[case] wire: &str) {
    assert_eq!(parsed(text).1, wire);
}

#[rstest]
#[case::int32("5", Bson::Int32(5), "5")]
#[case::double("5.0", Bson::Double(5.0), "5.0")]
#[case::exponent("5e0", Bson::Double(5.0), "5.0")]
#[case::large_exponent("5E+2", Bson::Double(500.0), "500.0")]
#[case::negative_zero("-0", Bson::Double(-0.0), "-0.0")]
#[case::zero("0", Bson::Int32(0), "0")]
#[case::widest_int32("-2147483648", Bson::Int32(i32::MIN), "-2147483648")]
#[case::narrowest_int64("2147483648", Bson::Int64(2_147_483_648), "2147483648")]
#[case::widest_int64("9223372036854775807", Bson::Int64(i64::MAX), "9223372036854775807")]
#[case::one_beyond_int64("9223372036854775808", Bson::Double(9_223_372_036_854_775_808.0), "9.223372036854776e+18")]
#[case::widest_u64("18446744073709551615", Bson::Double(18_446_744_073_709_551_615.0), "1.8446744073709552e+19")]
#[case::below_int64("-9223372036854775809", Bson::Double(-9_223_372_036_854_775_808.0), "-9.223372036854776e+18")]
#[case::many_digits("100000000000000000000000", Bson::Double(1e23), "1e+23")]
#[case::too_small("1e-400", Bson::Double(0.0), "0.0")]
#[case::subnormal("5e-324", Bson::Double(5e-324), "5e-324")]
#[case::bare_nan("NaN", Bson::Double(f64::NAN), "null")]
#[case::bare_infinity("Infinity", Bson::Double(f64::INFINITY), "null")]
#[case::bare_negative_infinity(" -Infinity ", Bson::Double(f64::NEG_INFINITY), "null")]
#[case::special_numbers_in_strings(r#"[NaN,"NaN","\"NaN",{"a:NaN":Infinity}]"#, bson::bson!([f64::NAN, "NaN", "\"NaN", {"a:NaN": f64::INFINITY}]), r#"[null,"NaN","\"NaN",{"a:NaN":null}]"#)]
#[case::largest("1.7976931348623157e308", Bson::Double(f64::MAX), "1.7976931348623157e+308")]
fn a_bare_number_keeps_its_kind(#[case] text: &str, #[case] value: Bson, #[case] wire: &str) {
    let (parsed, json) = parsed(text);
    assert_eq!(format!("{parsed:?}"), format!("{value:?}"));
    assert_eq!(json, wire);
}
