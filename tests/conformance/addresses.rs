//! What an id finds: every type of `_id`, and nothing where there is none, however odd the id.

use std::sync::Arc;

use records::document::{MAX_ID_BYTES, Value};
use records::record::Key;
use records::store::Store;

use crate::harness::{cases, document, get, get_json, large, upsert, upsert_texts};

cases! {
    Any by store {
        get_of_an_unknown_id_is_none,
        get_finds_by_object_id,
        get_finds_by_string,
        get_finds_by_int32,
        get_finds_by_int64,
        get_finds_by_double,
        get_finds_by_uuid,
        get_finds_by_bool,
        get_finds_by_date,
        get_gives_the_bytes_of_to_record,
        get_compares_numbers_by_value,
        get_of_a_negative_zero_finds_the_zero,
        a_typed_id_shadows_the_string_with_the_same_text,
        a_typed_id_shadows_the_string_even_when_both_are_large,
        without_the_typed_id_the_string_is_found,
        an_odd_id_is_none_and_no_error,
        an_odd_string_id_is_found,
        an_id_in_another_spelling_is_none,
        an_id_is_no_pattern_and_no_operator,
    }
}

const OBJECT_ID: &str = "507f1f77bcf86cd799439011";
const UUID: &str = "3b241101-e2bb-4255-8caf-4136c566a962";
const DATE: &str = "2015-09-10T08:55:47.000Z";

/// An `_id` of every type as Extended JSON, with the text that addresses it.
const TYPED: &[(&str, &str)] = &[
    (r#"{"$oid":"507f1f77bcf86cd799439011"}"#, OBJECT_ID),
    (r#"{"$uuid":"3b241101-e2bb-4255-8caf-4136c566a962"}"#, UUID),
    ("5", "5"),
    (r#"{"$numberLong":"9007199254740993"}"#, "9007199254740993"),
    ("5.5", "5.5"),
    ("true", "true"),
    (r#"{"$date":"2015-09-10T08:55:47Z"}"#, DATE),
];

/// Stores `id`, given as Extended JSON, among others, and asks for it by `text`.
async fn finds(store: Arc<dyn Store>, id: &str, text: &str) {
    upsert_texts(&*store, &[r#"{"_id":"other"}"#, &format!(r#"{{"_id":{id},"a":1}}"#), r#"{"_id":-77}"#]).await;
    let expected = document(&format!(r#"{{"_id":{id},"a":1}}"#)).to_record();
    assert_eq!(get(&*store, text).await, Some(expected), "{text:?}");
}

async fn get_of_an_unknown_id_is_none(store: Arc<dyn Store>) {
    assert_eq!(get(&*store, "nobody").await, None, "in an empty store");
    upsert_texts(&*store, &[r#"{"_id":"somebody"}"#]).await;
    assert_eq!(get(&*store, "nobody").await, None, "among others");
}

async fn get_finds_by_object_id(store: Arc<dyn Store>) {
    finds(store, r#"{"$oid":"507f1f77bcf86cd799439011"}"#, OBJECT_ID).await;
}

async fn get_finds_by_string(store: Arc<dyn Store>) {
    finds(store, r#""Curaçao/ 1""#, "Curaçao/ 1").await;
}

async fn get_finds_by_int32(store: Arc<dyn Store>) {
    finds(store, r#"{"$numberInt":"-2147483648"}"#, "-2147483648").await;
}

async fn get_finds_by_int64(store: Arc<dyn Store>) {
    finds(store.clone(), r#"{"$numberLong":"9223372036854775807"}"#, "9223372036854775807").await;
    finds(store.clone(), r#"{"$numberLong":"-9223372036854775808"}"#, "-9223372036854775808").await;
    // No double is this number.
    finds(store, r#"{"$numberLong":"9007199254740993"}"#, "9007199254740993").await;
}

async fn get_finds_by_double(store: Arc<dyn Store>) {
    finds(store.clone(), "5.5", "5.5").await;
    finds(store.clone(), "1e300", "1e+300").await;
    finds(store, r#"{"$numberDouble":"-9223372036854775808"}"#, "-9.223372036854776e+18").await;
}

async fn get_finds_by_uuid(store: Arc<dyn Store>) {
    finds(store, r#"{"$uuid":"3b241101-e2bb-4255-8caf-4136c566a962"}"#, UUID).await;
}

async fn get_finds_by_bool(store: Arc<dyn Store>) {
    finds(store.clone(), "true", "true").await;
    finds(store, "false", "false").await;
}

async fn get_finds_by_date(store: Arc<dyn Store>) {
    finds(store.clone(), r#"{"$date":"2015-09-10T08:55:47Z"}"#, DATE).await;
    let far = r#"{"$date":{"$numberLong":"253402300800000"}}"#;
    finds(store, far, "+010000-01-01T00:00:00.000Z").await;
}

async fn get_gives_the_bytes_of_to_record(store: Arc<dyn Store>) {
    let documents: Vec<_> = [
        r#"{"b":1,"_id":"fields in order","a":{"z":null,"y":[1,{"x":2.0}]}}"#,
        r#"{"_id":"text","quote":"\"","newline":"\n","nul":"\u0000","unicode":"é水😀\u2028","slash":"a/b\\c"}"#,
        r#"{"_id":"numbers","a":5,"b":5.0,"c":9007199254740993,"d":1e300,"e":-0.0,"f":{"$numberDouble":"NaN"}}"#,
    ]
    .iter()
    .map(|text| document(text))
    .collect();
    upsert(&*store, documents.clone()).await;
    for (document, id) in documents.iter().zip(["fields in order", "text", "numbers"]) {
        assert_eq!(get(&*store, id).await, Some(document.to_record()));
    }
}

async fn get_compares_numbers_by_value(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":5}"#, r#"{"_id":6.0}"#, r#"{"_id":{"$numberLong":"7"}}"#]).await;
    for (id, json) in [(5, r#"{"_id":5}"#), (6, r#"{"_id":6.0}"#), (7, r#"{"_id":7}"#)] {
        assert_eq!(get_json(&*store, &format!("{id}")).await.as_deref(), Some(json));
        assert_eq!(get_json(&*store, &format!("{id}.0")).await.as_deref(), Some(json));
    }
}

async fn get_of_a_negative_zero_finds_the_zero(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":{"$numberDouble":"-0.0"}}"#]).await;
    for id in ["0", "0.0", "-0.0"] {
        assert_eq!(get_json(&*store, id).await.as_deref(), Some(r#"{"_id":-0.0}"#), "{id}");
    }
}

async fn a_typed_id_shadows_the_string_with_the_same_text(store: Arc<dyn Store>) {
    for (typed, text) in TYPED {
        let string = format!(r#"{{"_id":"{text}","is":"the string"}}"#);
        let typed = format!(r#"{{"_id":{typed},"is":"the typed one"}}"#);
        upsert_texts(&*store, &[&string, &typed]).await;
        assert_eq!(get(&*store, text).await, Some(document(&typed).to_record()), "{text}");
    }
}

/// Together they are more than one reply of a server may hold.
async fn a_typed_id_shadows_the_string_even_when_both_are_large(store: Arc<dyn Store>) {
    let typed = *b"\x50\x7f\x1f\x77\xbc\xf8\x6c\xd7\x99\x43\x90\x11";
    upsert(&*store, vec![large(Value::ObjectId(typed), 9 << 20)]).await;
    upsert(&*store, vec![large(Value::String(OBJECT_ID.into()), 9 << 20)]).await;
    let found = get(&*store, OBJECT_ID).await.expect("both are there");
    assert_eq!(*found.key(), Key::ObjectId(typed));
}

async fn without_the_typed_id_the_string_is_found(store: Arc<dyn Store>) {
    for (_, text) in TYPED {
        let string = format!(r#"{{"_id":"{text}"}}"#);
        upsert_texts(&*store, &[&string]).await;
        assert_eq!(get_json(&*store, text).await, Some(string));
    }
}

/// Ids that look like something, or like nothing, and none of which is anybody's.
fn odd_ids() -> Vec<String> {
    let fixed = [
        "",
        " ",
        "é水😀",
        "\u{1}\u{1b}\n\r\t",
        "\0",
        "a\0b",
        "../..",
        "../../etc/passwd",
        "a/b",
        "%2e%2e%2f",
        "$gt",
        "$where",
        r#"{"$ne":1}"#,
        r#"{"$oid":"507f1f77bcf86cd799439011"}"#,
        "[]",
        "null",
        "zzzzzzzzzzzzzzzzzzzzzzzz",
        "507f1f77bcf86cd79943901",
        "3b241101-e2bb-4255-8caf-4136c566a96",
        "3b241101e2bb42558caf4136c566a962",
        "05",
        "+5",
        "1e3",
        "1e999",
        ".5",
        "NaN",
        "inf",
        "Infinity",
        "-Infinity",
        "-",
        "-0",
        "0x10",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "9.223372036854776e+18",
        "2015-09-10",
        "2015-13-10T08:55:47.000Z",
        "+292278994-08-17T07:12:55.807Z",
        "+999999999-01-01T00:00:00.000Z",
        "True",
    ];
    let long = ["a".repeat(4096), "é".repeat(2048), "9".repeat(4096), "-".repeat(4096), "f".repeat(100_000)];
    fixed.into_iter().map(str::to_owned).chain(long).collect()
}

async fn an_odd_id_is_none_and_no_error(store: Arc<dyn Store>) {
    // With nothing there, and with something of every type there.
    for id in odd_ids() {
        assert_eq!(get(&*store, &id).await, None, "{id:?}");
    }
    for (typed, _) in TYPED {
        upsert_texts(&*store, &[&format!(r#"{{"_id":{typed}}}"#)]).await;
    }
    for id in odd_ids() {
        assert_eq!(get(&*store, &id).await, None, "{id:?}");
    }
}

async fn an_odd_string_id_is_found(store: Arc<dyn Store>) {
    let can_be_stored = |id: &String| !id.is_empty() && id.len() <= MAX_ID_BYTES;
    for id in odd_ids().into_iter().filter(can_be_stored) {
        let json = format!(r#"{{"_id":{}}}"#, serde_json::to_string(&id).expect("text is JSON"));
        let expected = document(&json).to_record();
        upsert_texts(&*store, &[&json]).await;
        assert_eq!(get(&*store, &id).await, Some(expected), "{id:?}");
    }
}

/// One record has one address, but for numbers, which compare by value.
async fn an_id_in_another_spelling_is_none(store: Arc<dyn Store>) {
    for (typed, text) in TYPED {
        upsert_texts(&*store, &[&format!(r#"{{"_id":{typed}}}"#)]).await;
        let same = |other: &String| other == text;
        let spellings =
            [text.to_uppercase(), format!(" {text}"), format!("{text} "), format!("0{text}"), format!("\"{text}\"")];
        for other in spellings.into_iter().filter(|other| !same(other)) {
            assert_eq!(get(&*store, &other).await, None, "{other:?}");
        }
    }
    for other in ["+5", "5.", "5.00", "5e0", "2015-09-10T08:55:47Z", "2015-09-10T08:55:47.000+00:00"] {
        assert_eq!(get(&*store, other).await, None, "{other:?}");
    }
}

async fn an_id_is_no_pattern_and_no_operator(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":"a"}"#, r#"{"_id":"b"}"#]).await;
    for id in [".*", "/a/", "a*", "*", "?", "A", r#"{"$exists":true}"#, r#"{"$gt":""}"#, "a\0", "a' || '1'=='1"] {
        assert_eq!(get(&*store, id).await, None, "{id:?}");
    }
}
