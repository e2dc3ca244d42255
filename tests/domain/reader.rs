//! Files of documents: every form that they may have, and the messages for invalid ones.

use std::io::{self, BufRead, BufReader, Read};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use records::document::reader::{Documents, InvalidDocument, MAX_TEXT_BYTES};
use records::record::Document;
use records::wire;
use rstest::rstest;

use crate::documents::{canonical, fields, relaxed, stored};
use crate::json;

const MARK: &str = "\u{feff}";

fn read_from(input: impl BufRead) -> Vec<Result<Document, InvalidDocument>> {
    Documents::new(input).map(|read| read.expect("the input can be read")).collect()
}

/// Through a buffer of one byte, so that everything falls on a border of the buffer.
fn read_bytewise(text: &[u8]) -> Vec<Result<Document, InvalidDocument>> {
    read_from(BufReader::with_capacity(1, text))
}

/// The outcome of each text: the JSON of the `_id`, or the place and the reason.
fn outcomes(text: &str) -> Vec<String> {
    let show = |read: Vec<Result<Document, InvalidDocument>>| -> Vec<String> {
        let id = |document: Document| wire::id(document.bson()).expect("an _id");
        read.into_iter().map(|read| read.map_or_else(|invalid| invalid.to_string(), id)).collect()
    };
    let whole = show(read_from(text.as_bytes()));
    assert_eq!(show(read_bytewise(text.as_bytes())), whole, "read byte by byte");
    whole
}

fn white_space() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,3}"
}

/// The same document with white space wherever JSON allows it: outside strings, around every sign.
fn spread(text: &str, space: &str) -> String {
    let (mut out, mut in_string, mut escaped) = (String::new(), false, false);
    for character in text.chars() {
        let sign = !in_string && matches!(character, '{' | '}' | '[' | ']' | ':' | ',');
        in_string ^= character == '"' && !escaped;
        escaped = in_string && character == '\\' && !escaped;
        out.extend(sign.then_some(space));
        out.push(character);
        out.extend(sign.then_some(space));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn documents_on_lines_are_read_back(
        documents in vec(fields(), 0..5),
        separators in vec(select(vec!["\n", "\r\n", "\n\n", "\n \t\n", "\r\n\r\n  "]), 5),
        mark: bool,
        last_line_ends: bool,
    ) {
        let lines = documents.iter().zip(&separators).map(|(document, end)| canonical(document) + end);
        let mut text = if mark { MARK.to_owned() } else { String::new() };
        text.extend(lines);
        let text = if last_line_ends { &*text } else { text.trim_end() };
        let expected: Vec<_> = documents.iter().map(|document| Ok(stored(document))).collect();
        prop_assert_eq!(read_from(text.as_bytes()), &*expected);
        prop_assert_eq!(read_bytewise(text.as_bytes()), &*expected);
    }

    #[test]
    fn documents_in_an_array_are_read_back(
        documents in vec(fields(), 0..5),
        inside in white_space(),
        around in white_space(),
        mark: bool,
    ) {
        let elements: Vec<_> = documents.iter().map(|document| spread(&canonical(document), &inside)).collect();
        let between = format!("{around},{around}");
        let mark = if mark { MARK } else { "" };
        let text = format!("{mark}{around}[{around}{}{around}]{around}", elements.join(&between));
        let expected: Vec<_> = documents.iter().map(|document| Ok(stored(document))).collect();
        prop_assert_eq!(read_from(text.as_bytes()), &*expected);
        prop_assert_eq!(read_bytewise(text.as_bytes()), &*expected);
    }

    #[test]
    fn a_bad_line_is_named_and_costs_no_other(before in vec(fields(), 0..4), after in vec(fields(), 0..4)) {
        let lines = |documents: &[bson::Document]| documents.iter().map(|d| relaxed(d) + "\n").collect::<String>();
        let read = read_from(format!("{}oops\n{}", lines(&before), lines(&after)).as_bytes());
        prop_assert_eq!(read.len(), before.len() + 1 + after.len());
        for (index, read) in read.iter().enumerate() {
            prop_assert_eq!(read.as_ref().err().map(|invalid| invalid.line), (index == before.len()).then_some(index as u64 + 1));
        }
    }

    #[test]
    fn all_bytes_are_counted(documents in vec(fields(), 0..3), array: bool) {
        let texts: Vec<_> = documents.iter().map(canonical).collect();
        let text = if array { format!("[{}]\n", texts.join(",\n")) } else { texts.join("\n") };
        let mut reader = Documents::new(text.as_bytes());
        prop_assert!(reader.by_ref().all(|read| read.is_ok_and(|document| document.is_ok())));
        prop_assert_eq!(reader.bytes(), text.len() as u64);
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_read_differently_in_pieces(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..200),
            vec(select(b"[]{},:\"\\ \n1aenult\xef\xbb\xbf".to_vec()), 0..200),
        ]
    ) {
        prop_assert_eq!(read_bytewise(&bytes), read_from(&*bytes));
    }
}

#[rstest]
#[case::empty("", &[])]
#[case::blank(" \r\n\t\n", &[])]
#[case::mark_alone(MARK, &[])]
#[case::one_without_an_end(r#"{"_id":1}"#, &["1"])]
#[case::white_space_around("\n  {\"_id\":1}  \r\n\n", &["1"])]
#[case::reading_goes_on("{\"_id\":1}\n{\"_id\":}\n{\"_id\":3}\n", &[
    "1",
    "line 2, column 8: expected value",
    "3",
])]
#[case::blank_lines_count("\n\n{\"_id\":1}\n\n{}\n", &["1", "line 5: it has no `_id`"])]
#[case::windows_lines_count("{\"_id\":1}\r\n\r\n{}\r\n", &["1", "line 3: it has no `_id`"])]
#[case::column_counts_what_comes_before("  {\"_id\":}", &["line 1, column 10: expected value"])]
#[case::column_does_not_count_the_mark("\u{feff}{\"_id\":}", &["line 1, column 8: expected value"])]
#[case::one_document_on_two_lines("{\"_id\":\n1}\n", &[
    "line 1, column 7: EOF while parsing a value",
    "line 2, column 2: trailing characters",
])]
#[case::two_documents_on_one_line("{\"_id\":1} {\"_id\":2}\n{\"_id\":3}", &[
    "line 1, column 11: trailing characters",
    "3",
])]
#[case::array_on_a_later_line("{\"_id\":1}\n[]\n", &["1", "line 2: it is not a JSON object"])]
#[case::commas_between_lines("{\"_id\":1},\n{\"_id\":2}", &["line 1, column 10: trailing characters", "2"])]
fn lines_are_read_and_bad_ones_named(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(outcomes(text), expected);
}

#[rstest]
#[case::empty("[]", &[])]
#[case::empty_with_white_space(" [ \n ] \n", &[])]
#[case::one(r#"[{"_id":1}]"#, &["1"])]
#[case::as_mongoexport_writes_it("[{\"_id\":1},\n{\"_id\":2}]\n", &["1", "2"])]
#[case::signs_in_strings(r#"[{"_id":"],{[}"},{"_id":"\"],["},{"_id":"\\"}]"#, &[
    r#""],{[}""#,
    r#""\"],[""#,
    r#""\\""#,
])]
#[case::nested(r#"[{"_id":1,"a":[{"b":[]},[[],{}]]},{"_id":2}]"#, &["1", "2"])]
#[case::array_in_the_array(r#"[[{"_id":1}],{"_id":2}]"#, &["line 1: it is not a JSON object", "2"])]
#[case::other_values(r#"[1,"a",null,{"_id":2}]"#, &[
    "line 1: it is not a JSON object",
    "line 1: it is not a JSON object",
    "line 1: it is not a JSON object",
    "2",
])]
#[case::place_of_a_bad_element("[{\"_id\":1},\n {\"_id\":2,\n  \"a\":x},\n {}, {\"_id\":}]", &[
    "1",
    "line 3, column 7: expected value",
    "line 4: it has no `_id`",
    "line 4, column 13: expected value",
])]
#[case::missing_comma(r#"[{"_id":1} {"_id":2}]"#, &["line 1, column 12: trailing characters"])]
#[case::two_commas(r#"[{"_id":1},,{"_id":2}]"#, &[
    "1",
    "line 1, column 12: EOF while parsing a value",
    "2",
])]
#[case::comma_first(r#"[,{"_id":1}]"#, &["line 1, column 2: EOF while parsing a value", "1"])]
#[case::comma_last(r#"[{"_id":1},]"#, &["1", "line 1, column 12: EOF while parsing a value"])]
#[case::brace_too_many(r#"[{"_id":1}},{"_id":2}]"#, &["line 1, column 11: trailing characters", "2"])]
#[case::end_missing("[{\"_id\":1},\n{\"_id\":2}\n", &[
    "1",
    "2",
    "line 3: the file ends before the array does: `]` is missing",
])]
#[case::cut_in_an_element("[{\"_id\":1},\n{\"_id\":", &[
    "1",
    "line 2, column 7: EOF while parsing a value",
    "line 2: the file ends before the array does: `]` is missing",
])]
#[case::cut_in_a_string("[{\"_id\":\"1},\n{\"_id\":2}]", &[
    "line 1: control character (\\u0000-\\u001F) found while parsing a string",
    "line 2: the file ends before the array does: `]` is missing",
])]
#[case::only_a_bracket("[", &["line 1: the file ends before the array does: `]` is missing"])]
#[case::something_after_the_end("[{\"_id\":1}]\n{\"_id\":2}\n", &[
    "1",
    "line 2: something stands after the end of the array",
])]
#[case::two_arrays("[{\"_id\":1}][{\"_id\":2}]", &["1", "line 1: something stands after the end of the array"])]
fn arrays_are_read_and_their_faults_named(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(outcomes(text), expected);
}

#[rstest]
#[case(b"\xef{\"_id\":1}\n{\"_id\":2}")]
#[case(b"\xef\xbb{\"_id\":1}\n{\"_id\":2}")]
#[case(b"\xff\xfe{\0\n{\"_id\":2}")]
fn half_a_byte_order_mark_makes_a_bad_line(#[case] text: &[u8]) {
    for read in [read_from(text), read_bytewise(text)] {
        assert!(matches!(&*read, [Err(InvalidDocument { line: 1, .. }), Ok(_)]), "{read:?}");
    }
}

#[test]
fn a_line_longer_than_the_limit_is_refused_and_the_next_one_is_read() {
    let long = io::repeat(b'x').take(MAX_TEXT_BYTES as u64 + 1);
    let input = BufReader::with_capacity(1 << 20, long.chain(&b"\n{\"_id\":2}\n"[..]));
    let mut reader = Documents::new(input);
    let invalid = reader.next().unwrap().unwrap().unwrap_err();
    assert_eq!(invalid.to_string(), format!("line 1: it is longer than {MAX_TEXT_BYTES} bytes"));
    assert_eq!(json(&reader.next().unwrap().unwrap().unwrap()), "{\"_id\":2}");
    assert!(reader.next().is_none());
}

#[test]
fn an_input_that_cannot_be_read_on_is_an_error_of_the_input() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("unplugged"))
        }
    }
    let mut reader = Documents::new(BufReader::new(b"{\"_id\":1}\n{\"_".chain(Broken)));
    assert!(reader.next().is_some_and(|read| read.is_ok_and(|document| document.is_ok())));
    assert_eq!(reader.next().unwrap().unwrap_err().to_string(), "unplugged");
}
