//! Every text that is refused, and the words it is refused with.

use records::document::extended_json::{self, Error};
use records::document::{Document, MAX_BYTES, Refusal, Value};
use rstest::rstest;

fn reason(text: impl AsRef<[u8]>) -> String {
    extended_json::parse(text.as_ref()).unwrap_err().to_string()
}

#[rstest]
#[case::nothing("", "EOF while parsing a value")]
#[case::no_json("name: x", "expected ident")]
#[case::array("[]", "it is not a JSON object")]
#[case::number("5", "it is not a JSON object")]
#[case::null("null", "it is not a JSON object")]
#[case::wrapper(r#"{"$oid":"507f1f77bcf86cd799439011"}"#, "it is not a JSON object")]
#[case::cut(r#"{"_id":1"#, "EOF while parsing an object")]
#[case::trailing_characters(r#"{"_id":1} x"#, "trailing characters")]
#[case::two_documents(r#"{"_id":1}{"_id":2}"#, "trailing characters")]
#[case::trailing_comma(r#"{"_id":1,}"#, "trailing comma")]
#[case::single_quotes("{'_id':1}", "key must be a string")]
#[case::raw_control_character(
    "{\"_id\":\"a\u{1}\"}",
    "control character (\\u0000-\\u001F) found while parsing a string"
)]
#[case::unknown_escape(r#"{"_id":"\x41"}"#, "invalid escape")]
#[case::lone_leading_surrogate(r#"{"_id":"\ud800"}"#, "unexpected end of hex escape")]
#[case::two_leading_surrogates(r#"{"_id":"\ud800\ud800"}"#, "lone leading surrogate in hex escape")]
#[case::lone_trailing_surrogate(r#"{"_id":"\udc00"}"#, "lone leading surrogate in hex escape")]
#[case::too_large_a_number(r#"{"_id":1,"v":1e400}"#, "number out of range")]
#[case::too_large_a_negative_number(r#"{"_id":1,"v":-1e400}"#, "number out of range")]
#[case::leading_zero(r#"{"_id":05}"#, "invalid number")]
#[case::leading_plus(r#"{"_id":+5}"#, "expected value")]
#[case::bare_nan(r#"{"_id":NaN}"#, "expected value")]
fn what_is_no_json_is_refused(#[case] text: &str, #[case] why: &str) {
    assert_eq!(reason(text), why);
}

#[rstest]
#[case::in_a_string(b"{\"_id\":\"\xff\"}")]
#[case::in_a_name(b"{\"\xc3\":1}")]
#[case::encoded_surrogate(b"{\"_id\":\"\xed\xa0\x80\"}")]
fn broken_utf8_is_refused(#[case] text: &[u8]) {
    assert_eq!(reason(text), "invalid unicode code point");
}

#[rstest]
#[case::no_id(r#"{"a":1}"#, "it has no `_id`")]
#[case::empty_object("{}", "it has no `_id`")]
#[case::nested_id(r#"{"a":{"_id":1}}"#, "it has no `_id`")]
#[case::empty_id(r#"{"_id":""}"#, "its `_id` is the empty string, which no URL can ask for")]
#[case::twice(r#"{"_id":1,"a":2,"a":2}"#, "the field name `a` stands twice in one object")]
#[case::nested_twice(r#"{"_id":1,"o":[{"":2,"b":0,"":3}]}"#, "the field name `` stands twice in one object")]
#[case::escaped_twice(r#"{"_id":1,"\u005fid":2}"#, "the field name `_id` stands twice in one object")]
#[case::nul_in_a_name(r#"{"_id":1,"a\u0000b":2}"#, r#"the field name "a\0b" has a NUL in it"#)]
#[case::operator(
    r#"{"_id":1,"$set":{"a":1}}"#,
    "the field name `$set` starts with `$`, which MongoDB keeps for operators"
)]
#[case::empty_timestamp(
    r#"{"_id":1,"t":{"$timestamp":{"t":0,"i":0}}}"#,
    "the field `t` is the empty timestamp, which MongoDB would replace by its own clock"
)]
fn what_mongodb_would_not_store_as_it_is_is_refused(#[case] text: &str, #[case] why: &str) {
    assert_eq!(reason(text), why);
}

#[rstest]
#[case(r#"{"a":1}"#, "an embedded document")]
#[case("[1]", "an array")]
#[case("null", "null")]
#[case(r#"{"$undefined":true}"#, "undefined")]
#[case(r#"{"$numberDouble":"NaN"}"#, "not a finite number")]
#[case(r#"{"$numberDouble":"-Infinity"}"#, "not a finite number")]
#[case(r#"{"$binary":{"base64":"AQID","subType":"00"}}"#, "binary data other than a UUID")]
#[case(r#"{"$binary":{"base64":"AQID","subType":"04"}}"#, "binary data other than a UUID")]
#[case(r#"{"$regularExpression":{"pattern":"a","options":""}}"#, "a regular expression")]
#[case(r#"{"$dbPointer":{"$ref":"c","$id":{"$oid":"507f1f77bcf86cd799439011"}}}"#, "a DBPointer")]
#[case(r#"{"$code":"x"}"#, "JavaScript code")]
#[case(r#"{"$code":"x","$scope":{}}"#, "JavaScript code")]
#[case(r#"{"$symbol":"s"}"#, "a symbol")]
#[case(r#"{"$timestamp":{"t":1,"i":1}}"#, "a timestamp")]
#[case(r#"{"$numberDecimal":"1"}"#, "a Decimal128")]
#[case(r#"{"$minKey":1}"#, "a MinKey or MaxKey")]
#[case(r#"{"$maxKey":1}"#, "a MinKey or MaxKey")]
fn an_id_of_a_type_without_an_address_is_refused(#[case] id: &str, #[case] what: &str) {
    let why = format!("its `_id` is {what}: it must be an ObjectId, a string, a number, a UUID, a boolean or a date");
    assert_eq!(reason(format!(r#"{{"_id":{id}}}"#)), why);
}

#[rstest]
#[case::short_oid(r#"{"$oid":"507f"}"#, "`$oid` must be a string of 24 hex digits")]
#[case::no_hex_oid(r#"{"$oid":"507f1f77bcf86cd79943901g"}"#, "`$oid` must be a string of 24 hex digits")]
#[case::number_oid(r#"{"$oid":5}"#, "`$oid` must be a string of 24 hex digits")]
#[case::wide_int(r#"{"$numberInt":"2147483648"}"#, "`$numberInt` must be a string with a whole number of 32 bits")]
#[case::bare_int(r#"{"$numberInt":5}"#, "`$numberInt` must be a string with a whole number of 32 bits")]
#[case::plus_int(r#"{"$numberInt":"+5"}"#, "`$numberInt` must be a string with a whole number of 32 bits")]
#[case::wide_long(
    r#"{"$numberLong":"9223372036854775808"}"#,
    "`$numberLong` must be a string with a whole number of 64 bits"
)]
#[case::fraction_long(r#"{"$numberLong":"5.0"}"#, "`$numberLong` must be a string with a whole number of 64 bits")]
#[case::other_infinity(
    r#"{"$numberDouble":"inf"}"#,
    "`$numberDouble` must be a string with a number, Infinity, -Infinity or NaN"
)]
#[case::too_large_a_double(
    r#"{"$numberDouble":"1e400"}"#,
    "`$numberDouble` must be a string with a number, Infinity, -Infinity or NaN"
)]
#[case::empty_double(
    r#"{"$numberDouble":""}"#,
    "`$numberDouble` must be a string with a number, Infinity, -Infinity or NaN"
)]
#[case::decimal(
    r#"{"$numberDecimal":"1.2.3"}"#,
    "`$numberDecimal`: a Decimal128 is a decimal number of at most 34 digits with an exponent between -6176 and 6111, \
     Infinity or NaN"
)]
#[case::bare_decimal(r#"{"$numberDecimal":1}"#, "`$numberDecimal` must be a string")]
#[case::uuid(r#"{"$uuid":"3b241101"}"#, "`$uuid` must be a string of 32 hex digits in the form 8-4-4-4-12")]
#[case::symbol(r#"{"$symbol":1}"#, "`$symbol` must be a string")]
#[case::code(r#"{"$code":1}"#, "`$code` must be a string")]
#[case::scope(r#"{"$code":"x","$scope":1}"#, "`$scope` must be an object")]
#[case::scope_alone(r#"{"$scope":{}}"#, "`$scope` cannot stand alone")]
#[case::options_alone(r#"{"$options":"i"}"#, "`$options` cannot stand alone")]
#[case::timestamp(
    r#"{"$timestamp":{"t":-1,"i":1}}"#,
    "`$timestamp` must be an object of `t` and `i`, whole numbers of 32 bits"
)]
#[case::timestamp_with_more(
    r#"{"$timestamp":{"t":1,"i":1,"x":1}}"#,
    "`$timestamp` must be an object of `t` and `i`, whole numbers of 32 bits"
)]
#[case::regex_without_options(
    r#"{"$regularExpression":{"pattern":"a"}}"#,
    "`$regularExpression` must be an object of `pattern` and `options`, two strings"
)]
#[case::regex_of_numbers(
    r#"{"$regex":1,"$options":""}"#,
    "a regular expression must have a pattern and options, two strings"
)]
#[case::regex_with_nul(r#"{"$regex":"\u0000","$options":""}"#, "a regular expression cannot have a NUL in it")]
#[case::db_pointer(
    r#"{"$dbPointer":{"$ref":"c","$id":5}}"#,
    "`$dbPointer` must be an object of `$ref`, a string, and `$id`, an ObjectId"
)]
#[case::date_without_time(
    r#"{"$date":"2015-09-10"}"#,
    "`$date` must be an RFC 3339 date and time or a number of milliseconds"
)]
#[case::date_without_offset(
    r#"{"$date":"2015-09-10T08:55:47"}"#,
    "`$date` must be an RFC 3339 date and time or a number of milliseconds"
)]
#[case::no_such_day(
    r#"{"$date":"2015-02-29T00:00:00Z"}"#,
    "`$date` must be an RFC 3339 date and time or a number of milliseconds"
)]
#[case::double_date(r#"{"$date":1.5}"#, "`$date` must be an RFC 3339 date and time or a number of milliseconds")]
#[case::min_key(r#"{"$minKey":2}"#, "`$minKey` must be 1")]
#[case::max_key(r#"{"$maxKey":true}"#, "`$maxKey` must be 1")]
#[case::undefined(r#"{"$undefined":false}"#, "`$undefined` must be true")]
#[case::binary_without_subtype(
    r#"{"$binary":{"base64":"AQID"}}"#,
    "`$binary` must be an object of `base64` and `subType`, two strings"
)]
#[case::binary_of_a_string(
    r#"{"$binary":"AQID"}"#,
    "`$binary` must be an object of `base64` and `subType`, two strings"
)]
#[case::bad_base64(r#"{"$binary":{"base64":"A*==","subType":"00"}}"#, "`$binary`: Invalid symbol 42, offset 1.")]
#[case::bad_subtype(
    r#"{"$binary":{"base64":"","subType":"+1"}}"#,
    "`$binary`: the subtype must be one or two hex digits"
)]
#[case::among_others(
    r#"{"a":1,"$oid":"507f1f77bcf86cd799439011"}"#,
    "`$oid` stands among other fields: it is a type wrapper, alone in its object"
)]
#[case::behind_others(
    r#"{"a":1,"$b":2,"$oid":"507f1f77bcf86cd799439011"}"#,
    "`$oid` stands among other fields: it is a type wrapper, alone in its object"
)]
#[case::before_others(r#"{"$oid":"507f1f77bcf86cd799439011","a":1}"#, "`a` does not belong beside `$oid`")]
#[case::two_wrappers(r#"{"$numberInt":"1","$numberLong":"1"}"#, "`$numberLong` does not belong beside `$numberInt`")]
fn a_malformed_wrapper_is_refused(#[case] value: &str, #[case] why: &str) {
    assert_eq!(reason(format!(r#"{{"_id":1,"v":{value}}}"#)), why);
}

/// `_id` and as many levels as asked for, the document itself counted, around `core`.
fn nested(levels: usize, open: &str, core: &str, close: &str) -> String {
    format!(r#"{{"_id":1,"v":{}{core}{}}}"#, open.repeat(levels - 1), close.repeat(levels - 1))
}

#[rstest]
#[case::arrays("[", "5", "]")]
#[case::documents(r#"{"a":"#, "5", "}")]
#[case::wrapped_numbers("[", r#"{"$numberInt":"5"}"#, "]")]
#[case::deep_wrappers(r#"{"a":"#, r#"{"$dbPointer":{"$ref":"","$id":{"$oid":"507f1f77bcf86cd799439011"}}}"#, "}")]
fn a_hundred_levels_are_read_and_one_more_is_refused(#[case] open: &str, #[case] core: &str, #[case] close: &str) {
    assert!(extended_json::parse(nested(100, open, core, close).as_bytes()).is_ok());
    assert_eq!(reason(nested(101, open, core, close)), "it nests deeper than 100 levels");
    assert_eq!(reason(nested(50_000, open, core, close)), "it nests deeper than 100 levels");
}

#[test]
fn code_with_scope_counts_as_two_levels() {
    let code = r#"{"$code":"x","$scope":{}}"#;
    assert!(extended_json::parse(nested(98, "[", code, "]").as_bytes()).is_ok());
    assert_eq!(reason(nested(99, "[", code, "]")), "it nests deeper than 100 levels");
}

#[test]
fn a_repeated_name_is_found_among_many() {
    let names: String = (0..1_000).map(|index| format!(r#""n{index}":0,"#)).collect();
    assert!(extended_json::parse(format!(r#"{{{names}"_id":1}}"#).as_bytes()).is_ok());
    let why = "the field name `n500` stands twice in one object";
    assert_eq!(reason(format!(r#"{{{names}"n500":1,"_id":1}}"#)), why);
}

#[test]
fn sixteen_mebibytes_of_bson_are_taken_and_one_byte_more_is_refused() {
    // A length, `_id` as an Int32, `v` as a string, a NUL.
    let around = 4 + (2 + 3 + 4) + (2 + 1 + 4 + 1) + 1;
    let fields =
        |length: usize| vec![("_id".into(), Value::Int32(1)), ("v".into(), Value::String("x".repeat(length).into()))];
    assert_eq!(Document::new(fields(MAX_BYTES - around)).map(|document| document.encoded_len()), Ok(MAX_BYTES));
    assert_eq!(Document::new(fields(MAX_BYTES - around + 1)), Err(Refusal::TooLarge(MAX_BYTES + 1)));
}

#[rstest]
#[case("{\"_id\":1,\n \"a\":x}", 2, 6)]
#[case(r#"{"_id":{"$oid":""}}"#, 1, 18)]
fn a_syntax_error_names_its_place_and_does_not_repeat_it(
    #[case] text: &str,
    #[case] at_line: usize,
    #[case] at: usize,
) {
    let error = extended_json::parse(text.as_bytes()).unwrap_err();
    let Error::Syntax { reason, line, column } = error else { panic!("{error:?}") };
    assert_eq!((line, column), (at_line, at));
    assert!(!reason.contains(" at line"), "{reason}");
}
