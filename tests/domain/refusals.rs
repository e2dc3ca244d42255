//! Every text that is refused, with its message, and the `_id`s that are accepted.

use bson::{Bson, doc};
use records::document::extended_json::{self, Error};
use records::document::{MAX_BYTES, MAX_BYTES_WITH_ID, ValidationError, validate};
use rstest::rstest;

use crate::documents::{binary, code_with_scope, date_of, db_pointer, timestamp_of};
use crate::tree;

const PYTHON: &str =
    "this is Python, not JSON, which has true, false and null: write the file by json.dumps of bson.json_util";
const SHELL: &str =
    "this is the notation of the MongoDB shell, not JSON: write the file by mongoexport or EJSON.stringify";
const JAVASCRIPT: &str =
    "this is JavaScript, not JSON: field names have double quotes there, and JSON has no `undefined`";
const HALF: &str = r"`\u` is half of a surrogate pair: write both halves";
const QUOTES: &str = "this is Python or JavaScript, not JSON: strings have double quotes";
const TYPOGRAPHY: &str = "JSON has straight quotation marks and plain spaces: these are those of a text processor";
const DECIMAL: &str = "`$numberDecimal` must be a decimal number in quotes of at most 34 digits with an exponent between \
    -6176 and 6111, Infinity or NaN";
const DATE: &str = "`$date` must be an RFC 3339 date and time, or a whole number of milliseconds";
const LEAP_SECOND: &str =
    "`$date` is a leap second, which MongoDB has no value for: write the second before it, or after it";
const COMMENT: &str = "JSON has no comments";
const NUMBER: &str = "a number begins with a digit or a minus sign in JSON, and has no leading zeros";

fn reason(text: impl AsRef<[u8]>) -> String {
    extended_json::parse(text.as_ref()).unwrap_err().to_string()
}

#[rstest]
#[case::nothing("", "EOF while parsing a value")]
#[case::no_json("name: x", "a document begins with { in JSON")]
#[case::no_word("{\"_id\":1,\"a\":nul}", "expected true, false or null; a string has double quotes")]
#[case::array("[]", "it is not a JSON object")]
#[case::number("5", "it is not a JSON object")]
#[case::null("null", "it is not a JSON object")]
#[case::wrapper(r#"{"$oid":"507f1f77bcf86cd799439011"}"#, "it is not a JSON object")]
#[case::cut(r#"{"_id":1"#, "EOF while parsing an object")]
#[case::trailing_characters(r#"{"_id":1} x"#, "trailing characters")]
#[case::two_documents(r#"{"_id":1}{"_id":2}"#, "trailing characters")]
#[case::trailing_comma(r#"{"_id":1,}"#, "trailing comma")]
#[case::single_quotes("{'_id':1}", QUOTES)]
#[case::raw_control_character(
    "{\"_id\":\"a\u{1}\"}",
    "control character (\\u0000-\\u001F) found while parsing a string"
)]
#[case::unknown_escape(r#"{"_id":"\x41"}"#, "invalid escape")]
#[case::lone_leading_surrogate(r#"{"_id":"\ud800"}"#, HALF)]
#[case::two_leading_surrogates(r#"{"_id":"\ud800\ud800"}"#, HALF)]
#[case::lone_trailing_surrogate(r#"{"_id":"\udc00"}"#, HALF)]
#[case::too_large_a_number(r#"{"_id":1,"v":1e400}"#, "number out of range")]
#[case::too_large_a_negative_number(r#"{"_id":1,"v":-1e400}"#, "number out of range")]
#[case::leading_zero(r#"{"_id":05}"#, NUMBER)]
#[case::leading_plus(r#"{"_id":+5}"#, NUMBER)]
#[case::leading_point(r#"{"_id":.5}"#, NUMBER)]
#[case::another_special_number(r#"{"_id":1,"v":NaNa}"#, "expected value")]
#[case::special_number_as_a_name(r#"{"_id":1,NaN:2}"#, JAVASCRIPT)]
#[case::python_literal(r#"{"_id":1,"v":True}"#, PYTHON)]
#[case::python_none(r#"{"_id":1,"v":[None]}"#, PYTHON)]
#[case::string_in_single_quotes(r#"{"_id":1,"v":'a'}"#, QUOTES)]
#[case::string_in_backticks(r#"{"_id":1,"v":`a`}"#, QUOTES)]
#[case::typographic_quotes("{\u{201c}_id\u{201d}:1}", TYPOGRAPHY)]
#[case::no_break_space("{\"_id\":1,\u{a0}\"a\":2}", TYPOGRAPHY)]
#[case::bare_name(r#"{_id:1}"#, JAVASCRIPT)]
#[case::undefined(r#"{"_id":1,"v":undefined}"#, JAVASCRIPT)]
#[case::shell_object_id(r#"{"_id":ObjectId("507f1f77bcf86cd799439011")}"#, SHELL)]
#[case::shell_date(r#"{"_id":1,"v":ISODate("2024-01-01")}"#, SHELL)]
#[case::shell_new_date(r#"{"_id":1,"v":new Date(0)}"#, SHELL)]
#[case::shell_regex(r#"{"_id":1,"v":/a/i}"#, SHELL)]
#[case::comment("{\"_id\":1, // one\n}", COMMENT)]
fn what_is_no_json_is_refused(#[case] text: &str, #[case] why: &str) {
    assert_eq!(reason(text), why);
}

#[rstest]
#[case::in_a_string(b"{\"_id\":\"\xff\"}")]
#[case::in_a_name(b"{\"\xc3\":1}")]
#[case::encoded_surrogate(b"{\"_id\":\"\xed\xa0\x80\"}")]
fn broken_utf8_is_refused(#[case] text: &[u8]) {
    assert_eq!(reason(text), "this is not UTF-8: convert the file to UTF-8");
}

#[rstest]
#[case::no_id(r#"{"a":1}"#, "it has no `_id`")]
#[case::empty_object("{}", "it has no `_id`")]
#[case::nested_id(r#"{"a":{"_id":1}}"#, "it has no `_id`")]
#[case::twice(r#"{"_id":1,"a":2,"a":2}"#, "the field name `a` stands twice in one object")]
#[case::nested_twice(r#"{"_id":1,"o":[{"":2,"b":0,"":3}]}"#, "the field name `` stands twice in one object")]
#[case::escaped_twice(r#"{"_id":1,"\u005fid":2}"#, "the field name `_id` stands twice in one object")]
#[case::nul_in_a_name(r#"{"_id":1,"a\u0000b":2}"#, r#"the field name "a\0b" has a NUL in it"#)]
#[case::operator(
    r#"{"_id":1,"$set":{"a":1}}"#,
    "the field name `$set` starts with `$`, which MongoDB keeps for operators"
)]
#[case::operator_without_an_id(r#"{"$set":{"_id":1}}"#, "it has no `_id`")]
#[case::db_ref(
    r#"{"_id":1,"$ref":"c","$id":1}"#,
    "the field name `$ref` starts with `$`, which MongoDB keeps for operators"
)]
#[case::empty_timestamp(
    r#"{"_id":1,"t":{"$timestamp":{"t":0,"i":0}}}"#,
    "the field `t` is the empty timestamp, which MongoDB would replace by its own clock"
)]
fn what_mongodb_would_not_store_as_it_is_is_refused(#[case] text: &str, #[case] why: &str) {
    assert_eq!(reason(text), why);
}

#[rstest]
#[case("[1]", "an array")]
#[case("[]", "an array")]
#[case(r#"{"$undefined":true}"#, "undefined")]
#[case(r#"{"$regularExpression":{"pattern":"a","options":""}}"#, "a regular expression")]
#[case(r#"{"$regex":"a"}"#, "a regular expression")]
fn an_id_of_a_type_that_mongodb_does_not_take_is_refused(#[case] id: &str, #[case] what: &str) {
    assert_eq!(reason(format!(r#"{{"_id":{id}}}"#)), format!("its `_id` is {what}, which MongoDB does not take"));
}

/// MongoDB refuses the same, with the codes 2 and 52.
#[rstest]
#[case::first(r#"{"$a":1}"#, "$a")]
#[case::operator(r#"{"$eq":1}"#, "$eq")]
#[case::later(r#"{"a":1,"$a":1}"#, "$a")]
#[case::nested(r#"{"a":{"$set":1}}"#, "$set")]
#[case::in_an_array(r#"{"a":[1,{"$a":1}]}"#, "$a")]
#[case::in_a_nested_array(r#"{"a":[[{"$a":1}]]}"#, "$a")]
#[case::in_a_nested_scope(r#"{"c":{"$code":"x","$scope":{"$a":1}}}"#, "$a")]
#[case::db_ref_without_id(r#"{"$ref":"c"}"#, "$ref")]
#[case::db_ref_to_a_number(r#"{"$ref":1,"$id":1}"#, "$ref")]
#[case::db_ref_in_another_order(r#"{"$id":1,"$ref":"c"}"#, "$id")]
#[case::db_ref_after_another_field(r#"{"a":1,"$ref":"c","$id":1}"#, "$ref")]
#[case::db_ref_in_a_numbered_database(r#"{"$ref":"c","$id":1,"$db":1}"#, "$db")]
#[case::db_ref_and_an_operator(r#"{"$ref":"c","$id":1,"$a":1}"#, "$a")]
#[case::db_ref_and_a_later_operator(r#"{"$ref":"c","$id":1,"a":1,"$a":1}"#, "$a")]
#[case::database_alone(r#"{"$db":"d"}"#, "$db")]
fn an_id_with_the_name_of_an_operator_is_refused(#[case] id: &str, #[case] name: &str) {
    let why = format!("the field name `{name}` starts with `$`, which MongoDB keeps for operators");
    assert_eq!(reason(format!(r#"{{"_id":{id}}}"#)), why);
}

const OBJECT_ID: [u8; 12] = *b"\x50\x7f\x1f\x77\xbc\xf8\x6c\xd7\x99\x43\x90\x11";

/// A real server accepts each of these ids in an upsert.
#[rstest]
#[case::empty_string(r#""""#, Bson::String(String::new()))]
#[case::string_with_nul(r#""a\u0000b""#, Bson::String("a\0b".into()))]
#[case::null("null", Bson::Null)]
#[case::nan(r#"{"$numberDouble":"NaN"}"#, Bson::Double(f64::NAN))]
#[case::infinity(r#"{"$numberDouble":"-Infinity"}"#, Bson::Double(f64::NEG_INFINITY))]
#[case::decimal(r#"{"$numberDecimal":"1.50"}"#, Bson::Decimal128("1.50".parse().unwrap()))]
#[case::decimal_nan(r#"{"$numberDecimal":"NaN"}"#, Bson::Decimal128("NaN".parse().unwrap()))]
#[case::object_id(r#"{"$oid":"507f1f77bcf86cd799439011"}"#, Bson::ObjectId(OBJECT_ID.into()))]
#[case::boolean("false", Bson::Boolean(false))]
#[case::date(r#"{"$date":-1}"#, date_of(-1))]
#[case::binary(r#"{"$binary":{"base64":"AQID","subType":"00"}}"#, binary(0, &[1, 2, 3]))]
#[case::empty_binary(r#"{"$binary":{"base64":"","subType":"00"}}"#, binary(0, &[]))]
#[case::old_binary(r#"{"$binary":{"base64":"AQID","subType":"02"}}"#, binary(2, &[1, 2, 3]))]
#[case::short_uuid(r#"{"$binary":{"base64":"AQID","subType":"04"}}"#, binary(4, &[1, 2, 3]))]
#[case::custom_binary(r#"{"$binary":{"base64":"AQID","subType":"ff"}}"#, binary(255, &[1, 2, 3]))]
#[case::timestamp(r#"{"$timestamp":{"t":1,"i":2}}"#, timestamp_of(1, 2))]
#[case::empty_timestamp(r#"{"$timestamp":{"t":0,"i":0}}"#, timestamp_of(0, 0))]
#[case::code(r#"{"$code":"x"}"#, Bson::JavaScriptCode("x".into()))]
#[case::code_with_scope(r#"{"$code":"x","$scope":{"a":1}}"#, code_with_scope("x", doc! { "a": 1 }))]
#[case::code_with_an_operator(r#"{"$code":"x","$scope":{"$a":1}}"#, code_with_scope("x", doc! { "$a": 1 }))]
#[case::symbol(r#"{"$symbol":"s"}"#, Bson::Symbol("s".into()))]
#[case::db_pointer(
    r#"{"$dbPointer":{"$ref":"c","$id":{"$oid":"507f1f77bcf86cd799439011"}}}"#,
    db_pointer("c", OBJECT_ID)
)]
#[case::min_key(r#"{"$minKey":1}"#, Bson::MinKey)]
#[case::max_key(r#"{"$maxKey":1}"#, Bson::MaxKey)]
#[case::document(r#"{"b":1,"a":[]}"#, doc! { "b": 1, "a": [] }.into())]
#[case::empty_document("{}", doc! {}.into())]
#[case::document_of_what_is_no_id(
    r#"{"_id":[],"a":{"$undefined":true},"":{"$timestamp":{"t":0,"i":0}},"a.b":1}"#,
    doc! { "_id": [], "a": Bson::Undefined, "": timestamp_of(0, 0), "a.b": 1 }.into()
)]
#[case::db_ref(r#"{"$ref":"c","$id":1}"#, doc! { "$ref": "c", "$id": 1 }.into())]
#[case::db_ref_in_a_database(
    r#"{"$ref":"c","$id":{"$a":1},"$db":"d","a":1}"#,
    doc! { "$ref": "c", "$id": { "$a": 1 }, "$db": "d", "a": 1 }.into()
)]
#[case::nested_db_ref(r#"{"a":[{"$ref":"c","$id":1}]}"#, doc! { "a": [{ "$ref": "c", "$id": 1 }] }.into())]
fn every_other_id_is_taken(#[case] id: &str, #[case] value: Bson) {
    let document = extended_json::parse(format!(r#"{{"v":5,"_id":{id}}}"#).as_bytes()).unwrap();
    assert_eq!(format!("{:?}", tree(&document)), format!("{:?}", doc! { "_id": value, "v": 5 }));
    let (kind, bytes) = document.key().to_value().unwrap();
    let again = records::record::Key::new(records::record::ValueRef { kind, bytes: &bytes }).unwrap();
    assert_eq!(&again, document.key());
}

#[rstest]
#[case::short_oid(r#"{"$oid":"507f"}"#, "`$oid` must be a string of 24 hex digits")]
#[case::no_hex_oid(r#"{"$oid":"507f1f77bcf86cd79943901g"}"#, "`$oid` must be a string of 24 hex digits")]
#[case::number_oid(r#"{"$oid":5}"#, "`$oid` must be a string of 24 hex digits")]
#[case::wide_int(r#"{"$numberInt":"2147483648"}"#, "`$numberInt` must be a whole number of 32 bits, best in quotes")]
#[case::fraction_int(r#"{"$numberInt":5.5}"#, "`$numberInt` must be a whole number of 32 bits, best in quotes")]
#[case::plus_int(r#"{"$numberInt":"+5"}"#, "`$numberInt` must be a whole number of 32 bits, best in quotes")]
#[case::wide_long(
    r#"{"$numberLong":"9223372036854775808"}"#,
    "`$numberLong` must be a whole number of 64 bits, best in quotes"
)]
#[case::fraction_long(r#"{"$numberLong":"5.0"}"#, "`$numberLong` must be a whole number of 64 bits, best in quotes")]
#[case::other_infinity(
    r#"{"$numberDouble":"inf"}"#,
    "`$numberDouble` must be a number in quotes, Infinity, -Infinity or NaN"
)]
#[case::too_large_a_double(
    r#"{"$numberDouble":"1e400"}"#,
    "`$numberDouble` must be a number in quotes, Infinity, -Infinity or NaN"
)]
#[case::empty_double(
    r#"{"$numberDouble":""}"#,
    "`$numberDouble` must be a number in quotes, Infinity, -Infinity or NaN"
)]
#[case::decimal(r#"{"$numberDecimal":"1.2.3"}"#, DECIMAL)]
#[case::decimal_of_a_boolean(r#"{"$numberDecimal":true}"#, DECIMAL)]
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
#[case::regex_with_other_options(
    r#"{"$regex":"a","$options":1}"#,
    "a regular expression must have a pattern and options, two strings"
)]
#[case::regex_with_nul(r#"{"$regex":"\u0000","$options":""}"#, "a regular expression cannot have a NUL in it")]
#[case::db_pointer(
    r#"{"$dbPointer":{"$ref":"c","$id":5}}"#,
    "`$dbPointer` must be an object of `$ref`, a string, and `$id`, an ObjectId"
)]
#[case::date_without_time(r#"{"$date":"2015-09-10"}"#, DATE)]
#[case::date_without_offset(r#"{"$date":"2015-09-10T08:55:47"}"#, DATE)]
#[case::no_such_day(r#"{"$date":"2015-02-29T00:00:00Z"}"#, DATE)]
#[case::double_date(r#"{"$date":1.5}"#, DATE)]
#[case::date_of_nan(r#"{"$date":{"$numberDouble":"NaN"}}"#, DATE)]
#[case::date_of_null(r#"{"$date":null}"#, DATE)]
#[case::leap_second(r#"{"$date":"2016-12-31T23:59:60Z"}"#, LEAP_SECOND)]
#[case::leap_second_elsewhere(r#"{"$date":"2017-01-01T00:59:60.5+01:00"}"#, LEAP_SECOND)]
#[case::leap_second_without_colons(r#"{"$date":"2016-12-31T235960Z"}"#, LEAP_SECOND)]
#[case::second_61(r#"{"$date":"2016-12-31T23:59:61Z"}"#, DATE)]
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
#[case::after_others(
    r#"{"a":1,"$b":2,"$oid":"507f1f77bcf86cd799439011"}"#,
    "`$oid` stands among other fields: it is a type wrapper, alone in its object"
)]
#[case::before_others(r#"{"$oid":"507f1f77bcf86cd799439011","a":1}"#, "`a` does not belong next to `$oid`")]
#[case::two_wrappers(r#"{"$numberInt":"1","$numberLong":"1"}"#, "`$numberLong` does not belong next to `$numberInt`")]
fn a_malformed_wrapper_is_refused(#[case] value: &str, #[case] why: &str) {
    assert_eq!(reason(format!(r#"{{"_id":1,"v":{value}}}"#)), why);
}

/// Returns a document with `levels` levels around `core`, the document itself included.
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
fn levels_in_an_id_count_as_well() {
    let in_id = |levels: usize| format!(r#"{{"_id":{}5{}}}"#, r#"{"a":"#.repeat(levels - 1), "}".repeat(levels - 1));
    assert!(extended_json::parse(in_id(100).as_bytes()).is_ok());
    assert_eq!(reason(in_id(101)), "it nests deeper than 100 levels");
}

/// Returns a document of `bytes` bytes with an `_id` of `id_len` bytes, without its length and its NUL.
fn sized(bytes: usize, id_len: usize) -> bson::Document {
    // The length, the elements `_id` and `v`, and the NUL.
    let around = 4 + (2 + 3 + 4 + 1) + (2 + 1 + 4 + 1) + 1;
    doc! { "_id": "i".repeat(id_len), "v": "x".repeat(bytes - around - id_len) }
}

#[test]
fn sixteen_mebibytes_of_bson_are_taken_and_one_byte_more_is_refused() {
    assert_eq!(validate(sized(MAX_BYTES, 5)).map(|document| document.bson().len()), Ok(MAX_BYTES));
    assert_eq!(validate(sized(MAX_BYTES + 1, 5)), Err(ValidationError::TooLarge(MAX_BYTES + 1)));
}

/// A real server accepts an `_id` of 15 KiB in the largest document, and one of 7 MiB in a document of 9 MiB.
#[rstest]
#[case(MAX_BYTES)]
#[case(9 * 1024 * 1024)]
fn a_document_is_taken_if_a_command_can_hold_its_id_twice(#[case] bytes: usize) {
    let id_len = MAX_BYTES_WITH_ID - bytes - 5;
    assert_eq!(validate(sized(bytes, id_len)).map(|document| document.bson().len()), Ok(bytes));
    let too_large = Err(ValidationError::IdTooLarge(MAX_BYTES_WITH_ID + 1));
    assert_eq!(validate(sized(bytes, id_len + 1)), too_large);
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
    let Error::Syntax { reason, offset, .. } = error else { panic!("{error:?}") };
    let before = &text[..offset];
    assert_eq!(
        (before.matches('\n').count() + 1, before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1),
        (at_line, at)
    );
    assert!(!reason.contains(" at line"), "{reason}");
}
