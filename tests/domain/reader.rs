//! Files of documents: every form that they may have, and the messages for invalid ones.

use std::io::{self, BufReader, Read};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use records::document::reader::{Documents, InvalidDocument, MAX_TEXT_BYTES, Place};
use records::record::Document;
use records::wire;
use rstest::rstest;

use crate::documents::{canonical, fields, relaxed, stored};
use crate::json;

const MARK: &str = "\u{feff}";

fn read_from(input: impl Read) -> Vec<Result<Document, InvalidDocument>> {
    Documents::new(input).map(|read| read.expect("the input can be read")).collect()
}

/// Reads one byte at a time, so that every position is the end of a buffer once.
struct Bytewise<'a>(&'a [u8]);

impl Read for Bytewise<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

fn read_bytewise(text: &[u8]) -> Vec<Result<Document, InvalidDocument>> {
    read_from(Bytewise(text))
}

/// Returns the outcome of each text: the JSON of the `_id`, or the place and the reason.
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

/// Adds white space wherever JSON allows it: outside of strings, around every sign.
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
            let line = read.as_ref().err().map(|invalid| match invalid.place { Place::Line { line, .. } => line, _ => 0 });
            prop_assert_eq!(line, (index == before.len()).then_some(index as u64 + 1));
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
#[case::one_document_on_two_lines("{\"_id\":\n1}\n", &["1"])]
#[case::pretty("{\n  \"_id\": 1,\n  \"a\": [\n    {\n}]\n}\n{\n  \"_id\": 2\n}\n", &["1", "2"])]
#[case::brackets_at_the_begin_of_lines("{\"_id\":1,\"a\":[\n{\"_id\":2},\n{\"_id\":3}\n]}\n{\"_id\":4}", &["1", "4"])]
#[case::special_numbers("{\"_id\":1,\"a\":NaN}\n{\"_id\":2,\n\"a\":[-Infinity]}{\"_id\":NaN}", &["1", "2", "null"])]
#[case::column_after_special_numbers("{\"_id\":1,\"a\":NaN,\"b\":[Infinity],\"c\":}", &["line 1, column 37: expected value"])]
#[case::two_documents_on_one_line("{\"_id\":1} {\"_id\":2}\n{\"_id\":3}", &["1", "2", "3"])]
#[case::bad_document_between_others("{\"_id\":1}{\"_id\":x}{\"_id\":3}", &["1", "line 1, column 17: expected value", "3"])]
#[case::array_on_a_later_line("{\"_id\":1}\n[]\n", &["1"])]
#[case::arrays_and_documents("[{\"_id\":1}]{\"_id\":2}\n[{\"_id\":3}]", &["1", "2", "3"])]
#[case::json_text_sequence("\u{1e}{\"_id\":1}\n\u{1e}{\"_id\":2}\n", &["1", "2"])]
#[case::commas_between_lines("{\"_id\":1},\n{\"_id\":2}", &[
    "1",
    "line 1, column 10: a comma stands between documents: put them into an array, or leave it out",
    "2",
])]
#[case::marks_of_several_files("\u{feff}{\"_id\":1}\n\u{feff}{\"_id\":2}\n\u{feff}", &["1", "2"])]
#[case::cut_line("{\"_id\":1}\n{\"_id\":2,\"a\":\n{\"_id\":3}\n{\"_id\":4}\n", &[
    "1",
    "line 2, column 13: EOF while parsing a value",
    "3",
    "4",
])]
#[case::line_cut_in_a_string("{\"_id\":2,\"a\":\"x\n{\"_id\":3}\n", &["line 1, column 15: EOF while parsing a string", "3"])]
#[case::line_cut_after_a_comma("{\"_id\":2,\n{\"_id\":3}\n", &["line 1, column 9: EOF while parsing a value", "3"])]
#[case::last_line_cut("{\"_id\":1}\n{\"_id\":2,\"a\":", &["1", "line 2, column 13: EOF while parsing a value"])]
#[case::pretty_and_cut("{\n  \"_id\": 1\n}\n{\n  \"_id\": 2,\n  \"a\": {\n", &[
    "1",
    "line 4, column 1: EOF while parsing an object, and where the document ends is not certain: nothing after it was read",
])]
#[case::python("{'_id': 1}\n{'_id': 2}\n", &[
    "line 1, column 2: this is Python or JavaScript, not JSON: strings have double quotes. Nothing after it was read",
])]
#[case::python_later("{\"_id\":1}\n{'_id': 2}\n{\"_id\":3}\n", &[
    "1",
    "line 2, column 2: this is Python or JavaScript, not JSON: strings have double quotes",
    "3",
])]
#[case::table("_id,name\n1,a\n2,b\n", &[
    "the file: this is CSV or another table of text: convert it to JSON first (mongoimport --type=csv takes it)",
])]
#[case::xml("\n<?xml version=\"1.0\"?>\n<a/>\n", &["the file: this is XML or HTML: convert it to JSON first"])]
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
#[case::missing_comma("[{\"_id\":1},{\"_id\":2}\n {\"_id\":3},{\"_id\":4}]", &[
    "1",
    "2",
    "line 2, column 2: a comma is missing before this element of the array",
    "3",
    "4",
])]
#[case::two_commas(r#"[{"_id":1},,{"_id":2}]"#, &[
    "1",
    "line 1, column 12: an element is missing before this comma: leave the comma out",
    "2",
])]
#[case::comma_first(r#"[,{"_id":1}]"#, &["line 1, column 2: an element is missing before this comma: leave the comma out", "1"])]
#[case::comma_last("[{\"_id\":1},\n]{\"_id\":2}", &[
    "1",
    "line 1, column 11: a comma stands before the end of the array: JSON has no trailing commas",
    "2",
])]
#[case::brace_too_many(r#"[{"_id":1}},{"_id":2}]"#, &[
    "1",
    "line 1: a comma is missing between two elements of the array: nothing after it was read",
])]
#[case::end_missing("[{\"_id\":1},\n{\"_id\":2}\n", &[
    "1",
    "2",
    "line 3: the file ends before the array does: `]` is missing",
])]
#[case::cut_in_an_element("[{\"_id\":1},\n{\"_id\":", &[
    "1",
    "line 2, column 7: EOF while parsing a value, and where the document ends is not certain: nothing after it was read",
])]
#[case::cut_in_a_string("[{\"_id\":\"1},\n{\"_id\":2}]", &[
    "line 1, column 12: EOF while parsing a string, and where the document ends is not certain: nothing after it was read",
])]
#[case::only_a_bracket("[", &["line 1: the file ends before the array does: `]` is missing"])]
#[case::document_after_the_end("[{\"_id\":1}]\n{\"_id\":2}\n", &["1", "2"])]
#[case::bracket_after_the_end("[{\"_id\":1}]]\n", &[
    "1",
    "line 1, column 12: expected value, and where the document ends is not certain: nothing after it was read",
])]
#[case::two_arrays("[{\"_id\":1}][{\"_id\":2}]", &["1", "2"])]
fn arrays_are_read_and_their_faults_named(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(outcomes(text), expected);
}

#[rstest]
#[case(b"\xef{\"_id\":1}\n{\"_id\":2}")]
#[case(b"\xef\xbb{\"_id\":1}\n{\"_id\":2}")]
fn half_a_byte_order_mark_makes_a_bad_line(#[case] text: &[u8]) {
    for read in [read_from(text), read_bytewise(text)] {
        assert!(matches!(&*read, [Err(InvalidDocument { place: Place::Line { line: 1, .. }, .. }), Ok(_)]), "{read:?}");
    }
}

#[test]
fn a_line_longer_than_the_limit_is_refused_and_the_next_one_is_read() {
    let long = b"\"".chain(io::repeat(b'x').take(MAX_TEXT_BYTES as u64));
    let mut reader = Documents::new(long.chain(&b"\n{\"_id\":2}\n"[..]));
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

/// Returns the outcomes of a binary file.
fn outcomes_of(bytes: &[u8]) -> Vec<String> {
    let show = |read: Vec<Result<Document, InvalidDocument>>| -> Vec<String> {
        read.into_iter()
            .map(|read| read.map_or_else(|invalid| invalid.to_string(), |document| json(&document)))
            .collect()
    };
    let whole = show(read_from(bytes));
    assert_eq!(show(read_bytewise(bytes)), whole, "read byte by byte");
    whole
}

fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(to_bytes).collect()
}

#[rstest]
#[case::little_endian("\u{feff}", u16::to_le_bytes)]
#[case::big_endian("\u{feff}", u16::to_be_bytes)]
#[case::little_endian_without_a_mark("", u16::to_le_bytes)]
#[case::big_endian_without_a_mark("", u16::to_be_bytes)]
fn utf16_is_read(#[case] mark: &str, #[case] to_bytes: fn(u16) -> [u8; 2]) {
    let text = format!("{mark}{{\"_id\":1,\"name\":\"水素 😀\"}}\r\n{{\"_id\":2}}\r\n");
    assert_eq!(outcomes_of(&utf16(&text, to_bytes)), [r#"{"_id":1,"name":"水素 😀"}"#, r#"{"_id":2}"#]);
    let pretty = utf16(&format!("{mark}[\r\n{{\r\n\"_id\": 1}}]"), to_bytes);
    assert_eq!(outcomes_of(&pretty), [r#"{"_id":1}"#]);
}

#[rstest]
#[case::half_a_character(b"\xff\xfe{\0}")]
#[case::half_a_pair(b"\xff\xfe{\0\"\0\x3d\xd8")]
#[case::second_half_of_a_pair(b"\xff\xfe{\0\"\0\x00\xde}\0")]
fn broken_utf16_is_an_error_of_the_input(#[case] bytes: &[u8]) {
    let error = Documents::new(bytes).find_map(Result::err).expect("an error");
    assert!(error.to_string().contains("UTF-16"), "{error}");
}

#[test]
fn bson_is_read_as_it_is() {
    let mut file = Vec::new();
    for document in
        [bson::doc! { "_id": 1, "a": f64::NAN }, bson::doc! { "a": { "$set": 1 }, "_id": "x" }, bson::doc! {}]
    {
        file.extend(document.to_vec().unwrap());
    }
    let expected =
        [r#"{"_id":1,"a":null}"#, r#"{"_id":"x","a":{"$set":1}}"#, "the document at byte 59: it has no `_id`"];
    assert_eq!(outcomes_of(&file), expected);
    // A string that is not UTF-8, which some clients store.
    let text = b"\x14\0\0\0\x10_id\0\x01\0\0\0\x02a\0\x02\0\0\0\xff\0\0";
    let mut text = text.to_vec();
    text[0] = text.len() as u8;
    let read = read_from(&*text);
    assert_eq!(read[0].as_ref().unwrap().bson(), &text);
}

#[rstest]
#[case::cut(&[], "the document at byte 14: the file ends in the middle of it")]
#[case::impossible_length(
    b"\xff\xff\xff\x7f",
    "the document at byte 14: its length cannot be 2147483647 bytes, so the rest of the file was not read"
)]
#[case::two_ids(
    b"\x17\0\0\0\x10_id\0\x01\0\0\0\x10_id\0\x02\0\0\0\0",
    "the document at byte 14: the field name `_id` stands twice in one object"
)]
#[case::malformed(b"\x08\0\0\0\x10a\0\0", "the document at byte 14: malformed BSON: a value is truncated")]
fn damaged_bson_is_named_with_its_place(#[case] bytes: &[u8], #[case] why: &str) {
    let good = bson::doc! { "_id": 1 }.to_vec().unwrap();
    let next = if bytes.is_empty() { &good[..9] } else { bytes };
    assert_eq!(outcomes_of(&[&good, next].concat()), [r#"{"_id":1}"#, why]);
}

#[rstest]
#[case::zip(b"PK\x03\x04\x14\0\0\0", "a ZIP archive")]
#[case::bzip2(b"BZh91AY&SY", "bzip2")]
#[case::xz(b"\xfd7zXZ\0\0\x04", "xz")]
#[case::sqlite(b"SQLite format 3\0\x10\0", "SQLite")]
#[case::parquet(b"PAR1\x15\x04", "Parquet")]
#[case::mongodump_archive(b"\x6d\xe2\x99\x81\x66\0\0\0", "mongorestore")]
#[case::pdf(b"%PDF-1.7\n", "PDF")]
#[case::yaml(b"---\n_id: 1\n", "YAML")]
#[case::xml(b"\xef\xbb\xbf<?xml version=\"1.0\"?>", "XML")]
#[case::html(b"<!DOCTYPE html><html>", "HTML")]
#[case::sql(b"-- MySQL dump 10.13\n", "SQL")]
#[case::tabs(b"_id\tname\n1\ta\n", "CSV")]
#[case::semicolons(b"\"_id\";\"name\"\n1;\"a\"\n", "CSV")]
#[case::git_lfs(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS")]
#[case::utf32(b"\xff\xfe\0\0{\0\0\0}\0\0\0", "UTF-32")]
#[case::yaml_list(b"- _id: 1\n- _id: 2\n", "YAML")]
#[case::sql_of_sqlite(b"PRAGMA foreign_keys=OFF;\nINSERT INTO a VALUES(1,2);\n", "SQL")]
#[case::javascript(b"const a = [{_id: 1}];\nmodule.exports = a;\n", "a program")]
#[case::python(b"import json\nprint(1)\n", "a program")]
#[case::shell(b"#!/bin/sh\n", "a program")]
#[case::mongosh(b"use shop\ndb.a.insertOne({})\n", "mongosh")]
#[case::response(b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP response")]
#[case::prose(b"Not found\nTry again later\n", "a text without documents")]
#[case::column(b"name\nalice\nbob\n", "a text without documents")]
#[case::unknown(b"\x01\x02\x03\x04\x05\x06\x07", "binary")]
fn another_kind_of_file_is_named_once(#[case] bytes: &[u8], #[case] what: &str) {
    let outcomes = outcomes_of(bytes);
    assert!(
        outcomes.len() == 1 && outcomes[0].starts_with("the file: this is ") && outcomes[0].contains(what),
        "{outcomes:?}"
    );
}

#[test]
fn a_tar_archive_is_named() {
    let mut archive = vec![0; 1024];
    archive[..10].copy_from_slice(b"file.jsonl");
    archive[257..262].copy_from_slice(b"ustar");
    assert_eq!(outcomes_of(&archive), ["the file: this is a tar archive: unpack it first"]);
}

#[cfg(feature = "compression")]
mod compressed {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    /// A skippable frame of four bytes, then a frame of data.
    fn pzstd(bytes: &[u8]) -> Vec<u8> {
        [b"\x50\x2a\x4d\x18\x04\0\0\0abcd", &*zstd(bytes)].concat()
    }

    #[rstest]
    fn every_form_is_read_compressed_as_well(#[values(gzip, zstd, pzstd)] compress: fn(&[u8]) -> Vec<u8>) {
        let lines = "{\"_id\":1}\n{\"_id\":2}\n";
        let bson = [bson::doc! { "_id": 1 }.to_vec().unwrap(), bson::doc! { "_id": 2 }.to_vec().unwrap()].concat();
        let utf16 = utf16(&format!("\u{feff}{lines}"), u16::to_le_bytes);
        for file in [lines.as_bytes(), b"[{\"_id\":1},{\"_id\":2}]", &bson, &utf16] {
            let compressed = compress(file);
            assert_eq!(outcomes_of(&compressed), [r#"{"_id":1}"#, r#"{"_id":2}"#]);
            let mut reader = Documents::new(&*compressed);
            reader.by_ref().for_each(drop);
            assert_eq!(reader.bytes(), compressed.len() as u64);
        }
        // Compressors that work in parallel write one part after another.
        let parts = [compress(b"{\"_id\":1}\n{\"_i"), compress(b"d\":2}\n")].concat();
        assert_eq!(outcomes_of(&parts), [r#"{"_id":1}"#, r#"{"_id":2}"#]);
    }

    #[rstest]
    fn what_is_compressed_in_a_file_is_named(#[values(gzip, zstd)] compress: fn(&[u8]) -> Vec<u8>) {
        let twice = "the file: what is compressed in it is compressed twice: decompress it once";
        assert_eq!(outcomes_of(&compress(&compress(b"{\"_id\":1}"))), [twice]);
        let archive = "the file: what is compressed in it is a ZIP archive (or a spreadsheet in one): unpack it first";
        assert_eq!(outcomes_of(&compress(b"PK\x03\x04\x14\0\0\0")), [archive]);
    }

    /// Returns the number of documents before the last outcome, and that outcome.
    fn end_of(file: &[u8]) -> (usize, String) {
        let outcomes: Vec<_> = Documents::new(file).map(|read| read.unwrap()).collect();
        (outcomes.len() - 1, outcomes.last().unwrap().as_ref().unwrap_err().to_string())
    }

    const REMEDY: &str = "): any value in it may be wrong, so get another copy of the file, and import that";

    const LINES: u64 = 1_000;

    fn lines() -> Vec<u8> {
        let line = |id| format!("{{\"_id\":{id},\"n\":{}}}\n", id * 7_919 % 10_007);
        (0..LINES).map(line).collect::<String>().into_bytes()
    }

    #[rstest]
    #[case(gzip, "gzip")]
    #[case(zstd, "Zstandard")]
    fn a_truncated_file_says_so_and_after_how_many_documents(
        #[case] compress: fn(&[u8]) -> Vec<u8>,
        #[case] name: &str,
    ) {
        let says = |(documents, error): (usize, String)| {
            let begin = format!("the file: the {name} data is truncated after {documents} documents (");
            assert!(error.starts_with(&begin), "{error} after {documents}");
            assert!(
                error.ends_with(
                    " bytes decompressed): the file ends early, or is corrupted: get the whole file, and import that"
                ),
                "{error}"
            );
            documents
        };
        let whole = compress(&lines());
        // In the header, in the data, and in the checksum.
        for length in [4, 5, 9, 12, 20, whole.len() / 2, whole.len() - 8, whole.len() - 5, whole.len() - 1] {
            says(end_of(&whole[..length]));
        }
        let bson = bson::doc! { "_id": 1 }.to_vec().unwrap();
        for form in [b"[{\"_id\":1},\n{\"_id\":2}]", &*utf16("{\"_id\":1}\n", u16::to_le_bytes), &bson] {
            let file = compress(form);
            says(end_of(&file[..file.len() - 3]));
        }
        // In the second member, at its first byte, and at its last.
        let two = [whole.clone(), whole.clone()].concat();
        for length in [whole.len() + 1, whole.len() + 7, two.len() - 1] {
            assert!(says(end_of(&two[..length])) >= LINES as usize);
        }
        assert_eq!(outcomes_of(&two).len(), 2 * LINES as usize);
    }

    #[rstest]
    #[case(gzip, "gzip")]
    #[case(zstd, "Zstandard")]
    fn a_corrupted_file_says_so_and_after_how_many_documents(
        #[case] compress: fn(&[u8]) -> Vec<u8>,
        #[case] name: &str,
    ) {
        let whole = compress(&lines());
        let mut files: Vec<Vec<u8>> = Vec::new();
        // A method that does not exist, a reserved bit.
        let header = if name == "gzip" { (2, 0x07) } else { (4, 0x08) };
        files.push(whole.clone());
        files[0][header.0] = header.1;
        // The middle is garbage, or zero.
        let middle = whole.len() / 2;
        files.push([&whole[..middle], &[0xff; 300], &whole[middle + 300..]].concat());
        files.push([&whole[..middle], &[0; 300], &whole[middle + 300..]].concat());
        // The second member is damaged.
        files.push([&*whole, &files[0]].concat());
        for file in files {
            let (documents, error) = end_of(&file);
            let begin = format!("the file: the {name} data is corrupted, which shows after {documents} documents (");
            assert!(error.starts_with(&begin) && error.ends_with(REMEDY), "{error}");
        }
    }

    #[rstest]
    #[case(gzip, "gzip")]
    #[case(zstd, "Zstandard")]
    fn bytes_after_the_end_of_compressed_data_are_named(#[case] compress: fn(&[u8]) -> Vec<u8>, #[case] name: &str) {
        for garbage in [&b"\n"[..], b"\0\0\0\0\0\0\0\0", b"{\"_id\":1}\n", b"some more text"] {
            let (documents, error) = end_of(&[&*compress(&lines()), garbage].concat());
            assert_eq!(documents, LINES as usize);
            let begin = format!("the file: the {name} data is followed by other bytes after 1000 documents (");
            assert!(error.starts_with(&begin) && error.ends_with("): remove them"), "{error}");
        }
    }

    #[test]
    fn a_wrong_checksum_or_length_is_corruption() {
        let compressed = gzip(&lines());
        let mut checked = zstd::Encoder::new(Vec::new(), 1).unwrap();
        checked.include_checksum(true).unwrap();
        checked.write_all(&lines()).unwrap();
        for (mut file, at) in [(compressed.clone(), 8), (compressed, 4), (checked.finish().unwrap(), 4)] {
            let at = file.len() - at;
            file[at] ^= 1;
            let (_, error) = end_of(&file);
            assert!(error.contains("data is corrupted, which shows after"), "{error}");
        }
    }

    #[test]
    fn where_reading_stops_early_corrupted_data_is_named_as_the_cause() {
        let bson = [bson::doc! { "_id": 1 }.to_vec().unwrap(), b"\xff\xff\xff\x7f and more".to_vec()].concat();
        let python = b"{'_id': 1}\n{\"_id\": 2}\n";
        let array = b"[{\"_id\":1},\n{\"_id\":2}}\n{\"_id\":3}]";
        for (file, says) in
            [(&bson[..], "its length cannot be"), (python, "strings have"), (array, "a comma is missing")]
        {
            let mut file = gzip(file);
            let (_, error) = end_of(&file);
            assert!(error.contains(says), "{error}");
            let checksum = file.len() - 8;
            file[checksum] ^= 1;
            let (_, error) = end_of(&file);
            assert!(
                error.contains("the gzip data is corrupted, which shows after") && error.ends_with(REMEDY),
                "{error}"
            );
        }
    }

    #[test]
    fn data_that_needs_another_decoder_is_told_apart_from_damage() {
        let mut long = zstd::Encoder::new(Vec::new(), 1).unwrap();
        long.window_log(28).unwrap();
        long.write_all(&lines()).unwrap();
        // A frame that names the dictionary 7, with one block of one byte.
        let with_dictionary = b"\x28\xb5\x2f\xfd\x21\x07\x01\x09\0\0{";
        for (file, says) in [
            (
                long.finish().unwrap(),
                "a window of more than 128 MiB after 0 documents (0 bytes decompressed): decompress",
            ),
            (with_dictionary.to_vec(), "a dictionary after 0 documents (0 bytes decompressed): decompress it first"),
        ] {
            let (_, error) = end_of(&file);
            assert!(error.contains(says), "{error}");
        }
    }

    #[rstest]
    fn a_document_that_unpacks_to_more_than_the_limit_is_refused(#[values(gzip, zstd)] compress: fn(&[u8]) -> Vec<u8>) {
        let mut file = b"{\"_id\":\"".to_vec();
        file.resize(MAX_TEXT_BYTES + 2 * 1024 * 1024, b'x');
        let read: Vec<_> = Documents::new(&*compress(&file)).map(|read| read.unwrap().map(drop)).collect();
        let reason = format!("it is longer than {MAX_TEXT_BYTES} bytes");
        let place = Place::Line { line: 1, column: None };
        assert_eq!(read, [Err(InvalidDocument { place, reason })]);
    }
}

#[test]
fn a_text_that_cannot_be_decoded_is_one_error_and_the_end() {
    let cut = [&b"\xfe\xff"[..], &[0, b'1', 0, b'\n', 0]].concat();
    let failures = Documents::new(&cut[..]).filter(Result::is_err).take(2).count();
    assert_eq!(failures, 1);
}
/// The stream of a fallback replica with two records.
mod replica {
    use bson::spec::BinarySubtype;
    use bson::{Binary, doc};
    use sha2::{Digest, Sha256};

    use super::*;

    /// Returns a replica whose trailer counts `count` records, and the length of its parts: header, two records, trailer.
    fn replica_with(count: i64) -> (Vec<u8>, [usize; 4]) {
        let header = doc! { "replica": 1, "source": "s", "scope": "", "age": 0_i64, "written": 1_i64 };
        let digest = Binary { subtype: BinarySubtype::Generic, bytes: vec![0; 32] };
        let trailer = doc! { "records": count, "token": null, "sha256": digest };
        let parts = [header, doc! { "_id": 1, "price": 1000 }, doc! { "_id": 2, "price": 1001 }, trailer];
        let parts = parts.map(|part| part.to_vec().unwrap());
        let mut stream = parts.concat();
        let at = stream.len() - 33;
        let digest = Sha256::digest(&stream[..at]);
        stream[at..at + 32].copy_from_slice(&digest);
        (stream, parts.map(|part| part.len()))
    }

    const CORRUPTED: &str = "the file: the fallback replica is corrupted, which shows after 2 documents: any value in it may be \
                             wrong, so get another copy of the file, and import that";

    #[test]
    fn its_records_are_read_without_its_header_and_its_trailer() {
        assert_eq!(outcomes_of(&replica_with(2).0), [r#"{"_id":1,"price":1000}"#, r#"{"_id":2,"price":1001}"#]);
    }

    #[test]
    fn a_changed_value_a_wrong_count_or_bytes_after_the_end_are_corruption() {
        let (whole, [header, first, ..]) = replica_with(2);
        // In a value, in the name of the source, and in the digest.
        for at in [header + first - 2, 29, whole.len() - 2] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(outcomes_of(&changed).last().unwrap(), CORRUPTED, "byte {at}");
        }
        assert_eq!(outcomes_of(&replica_with(3).0)[2], CORRUPTED);
        assert_eq!(outcomes_of(&[&*whole, b"\0"].concat())[2], CORRUPTED);
    }

    #[test]
    fn a_truncated_one_says_so_wherever_it_ends() {
        let (whole, [header, first, second, trailer]) = replica_with(2);
        let ends = [(header, 0), (header + 7, 0), (header + first, 1), (header + first + second, 2)];
        for (length, documents) in ends.into_iter().chain([(whole.len() - trailer + 5, 2), (whole.len() - 1, 2)]) {
            let says = format!(
                "the file: the fallback replica is truncated after {documents} documents: the file ends early, or is corrupted: \
                 get the whole file, and import that"
            );
            assert_eq!(outcomes_of(&whole[..length]).last(), Some(&says), "{length} bytes");
        }
    }

    #[test]
    fn one_of_another_version_is_refused() {
        let header = doc! { "replica": 2, "source": "s", "scope": "", "age": 0_i64, "written": 1_i64 };
        let refused = outcomes_of(&header.to_vec().unwrap());
        assert_eq!(refused.len(), 1);
        assert!(refused[0].contains("a fallback replica in the format of another version"), "{refused:?}");
    }

    #[test]
    fn a_document_without_an_id_that_is_no_header_stays_a_document() {
        let file = doc! { "replica": 1, "name": "of a painting" }.to_vec().unwrap();
        assert_eq!(outcomes_of(&file), ["the document at byte 0: it has no `_id`"]);
    }
}

#[test]
fn a_comment_before_the_documents_is_invalid_like_one_between_them() {
    let comment = |line: u64| format!("line {line}, column 1: JSON has no comments");
    let (one, two) = ("1".to_owned(), "2".to_owned());
    assert_eq!(outcomes("// exported\n{\"_id\":1}\n{\"_id\":2}\n"), [comment(1), one.clone(), two.clone()]);
    assert_eq!(outcomes("{\"_id\":1}\n// exported\n{\"_id\":2}\n"), [one.clone(), comment(2), two.clone()]);
    assert_eq!(outcomes("# exported\n[{\"_id\":1},\n{\"_id\":2}]\n"), [comment(1), one, two]);
}
