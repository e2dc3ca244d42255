//! Lookups: an id finds the record of the first of its keys that has one, and any other id finds nothing, however odd.

use std::sync::Arc;

use bson::Bson;
use bson::oid::ObjectId;
use records::record::{Key, RecordId};
use records::store::Store;

use crate::harness::{cases, document, get, get_json, ids, large, list_keys, upsert, upsert_texts, with_id};

cases! {
    Any by store {
        get_of_an_unknown_id_is_none,
        get_finds_by_object_id,
        get_finds_by_string,
        get_finds_by_int32,
        get_finds_by_int64,
        get_finds_by_double,
        get_finds_by_decimal,
        what_is_no_number_is_found_by_its_text,
        get_finds_by_uuid,
        get_finds_by_bool,
        get_finds_by_date,
        get_finds_by_symbol,
        get_gives_the_document_as_it_was_stored,
        get_compares_numbers_by_value,
        get_of_a_number_without_an_exact_double_finds_the_double_and_the_decimal,
        get_of_a_negative_zero_finds_the_zero,
        get_of_null_finds_the_string_only,
        a_typed_id_shadows_the_string_with_the_same_text,
        a_typed_id_shadows_the_string_even_when_both_are_large,
        without_the_typed_id_the_string_is_found,
        an_odd_id_is_none_and_no_error,
        an_odd_string_id_is_found,
        an_id_in_another_spelling_finds_the_same_value,
        an_id_that_denotes_another_value_is_none,
        an_id_that_no_text_denotes_is_listed_and_not_found,
        an_id_is_no_pattern_and_no_operator,
        try_get_answers_as_get_or_not_at_all,
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
    (r#"{"$numberDecimal":"0.10"}"#, "0.10"),
];

/// Stores `id`, given as Extended JSON, among others, and checks that `text` finds it.
async fn assert_found(store: Arc<dyn Store>, id: &str, text: &str) {
    upsert(&*store, vec![with_id(r#""other""#), with_id(id), with_id("-77")]).await;
    assert_eq!(get(&*store, text).await, Some(with_id(id)), "{text:?}");
}

async fn get_of_an_unknown_id_is_none(store: Arc<dyn Store>) {
    assert_eq!(get(&*store, "absent").await, None, "in an empty store");
    upsert_texts(&*store, &[r#"{"_id":"present"}"#]).await;
    assert_eq!(get(&*store, "absent").await, None, "among others");
}

async fn get_finds_by_object_id(store: Arc<dyn Store>) {
    assert_found(store, r#"{"$oid":"507f1f77bcf86cd799439011"}"#, OBJECT_ID).await;
}

async fn get_finds_by_string(store: Arc<dyn Store>) {
    assert_found(store, r#""Curaçao/ 1""#, "Curaçao/ 1").await;
}

async fn get_finds_by_int32(store: Arc<dyn Store>) {
    assert_found(store, r#"{"$numberInt":"-2147483648"}"#, "-2147483648").await;
}

async fn get_finds_by_int64(store: Arc<dyn Store>) {
    assert_found(store.clone(), r#"{"$numberLong":"9223372036854775807"}"#, "9223372036854775807").await;
    assert_found(store.clone(), r#"{"$numberLong":"-9223372036854775808"}"#, "-9223372036854775808").await;
    // This number has no exact double.
    assert_found(store, r#"{"$numberLong":"9007199254740993"}"#, "9007199254740993").await;
}

async fn get_finds_by_double(store: Arc<dyn Store>) {
    assert_found(store.clone(), "5.5", "5.5").await;
    assert_found(store.clone(), "1e300", "1e+300").await;
    assert_found(store, r#"{"$numberDouble":"-9223372036854775808"}"#, "-9.223372036854776e+18").await;
}

async fn get_finds_by_decimal(store: Arc<dyn Store>) {
    assert_found(store.clone(), r#"{"$numberDecimal":"1.50"}"#, "1.50").await;
    assert_found(store.clone(), r#"{"$numberDecimal":"0.1"}"#, "0.1").await;
    assert_found(store.clone(), r#"{"$numberDecimal":"1E+6000"}"#, "1E+6000").await;
    assert_found(store, r#"{"$numberDecimal":"-1E-6000"}"#, "-1E-6000").await;
}

async fn what_is_no_number_is_found_by_its_text(store: Arc<dyn Store>) {
    for text in ["NaN", "Infinity", "-Infinity"] {
        let decimal = format!(r#"{{"$numberDecimal":"{text}"}}"#);
        assert_found(store.clone(), &decimal, text).await;
        assert_eq!(ids(&*store, &[("_id.eq", text)]).await, [format!("\"{text}\"")]);
    }
    // The typed `_id` shadows the string.
    upsert_texts(&*store, &[r#"{"_id":"NaN","s":1}"#, r#"{"_id":"Infinities"}"#]).await;
    assert_eq!(get_json(&*store, "NaN").await.as_deref(), Some(r#"{"_id":"NaN","a":1}"#));
    assert_eq!(ids(&*store, &[("_id.in", "NaN,Infinities")]).await, [r#""NaN""#, r#""Infinities""#, r#""NaN""#]);
}

async fn get_finds_by_uuid(store: Arc<dyn Store>) {
    assert_found(store, r#"{"$uuid":"3b241101-e2bb-4255-8caf-4136c566a962"}"#, UUID).await;
}

async fn get_finds_by_bool(store: Arc<dyn Store>) {
    assert_found(store.clone(), "true", "true").await;
    assert_found(store, "false", "false").await;
}

async fn get_finds_by_date(store: Arc<dyn Store>) {
    assert_found(store.clone(), r#"{"$date":"2015-09-10T08:55:47Z"}"#, DATE).await;
    let far = r#"{"$date":{"$numberLong":"253402300800000"}}"#;
    assert_found(store, far, "+010000-01-01T00:00:00.000Z").await;
}

/// A symbol is equal to a string.
async fn get_finds_by_symbol(store: Arc<dyn Store>) {
    assert_found(store, r#"{"$symbol":"name"}"#, "name").await;
}

async fn get_gives_the_document_as_it_was_stored(store: Arc<dyn Store>) {
    let documents: Vec<_> = [
        r#"{"b":1,"_id":"fields in order","a":{"z":null,"y":[1,{"x":2.0}]}}"#,
        r#"{"_id":"text","quote":"\"","newline":"\n","nul":"\u0000","unicode":"é水😀\u2028","slash":"a/b\\c"}"#,
        r#"{"_id":"numbers","a":5,"b":5.0,"c":9007199254740993,"d":1e300,"e":-0.0,"f":{"$numberDouble":"NaN"}}"#,
    ]
    .iter()
    .map(|text| document(text))
    .collect();
    upsert(&*store, documents.clone()).await;
    for (document, id) in documents.into_iter().zip(["fields in order", "text", "numbers"]) {
        assert_eq!(get(&*store, id).await, Some(document));
    }
    let fields_in_order = r#"{"_id":"fields in order","b":1,"a":{"z":null,"y":[1,{"x":2.0}]}}"#;
    assert_eq!(get_json(&*store, "fields in order").await.as_deref(), Some(fields_in_order));
}

async fn get_compares_numbers_by_value(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":5}"#, r#"{"_id":6.0}"#, r#"{"_id":{"$numberLong":"7"}}"#]).await;
    for (id, json) in [(5, r#"{"_id":5}"#), (6, r#"{"_id":6.0}"#), (7, r#"{"_id":7}"#)] {
        assert_eq!(get_json(&*store, &format!("{id}")).await.as_deref(), Some(json));
        assert_eq!(get_json(&*store, &format!("{id}.0")).await.as_deref(), Some(json));
    }
}

async fn get_of_a_number_without_an_exact_double_finds_the_double_and_the_decimal(store: Arc<dyn Store>) {
    upsert(&*store, vec![with_id("0.1")]).await;
    assert_eq!(get(&*store, "0.1").await, Some(with_id("0.1")));
    assert_eq!(get(&*store, "1e-1").await, Some(with_id("0.1")));
    let decimal = r#"{"$numberDecimal":"0.2"}"#;
    upsert(&*store, vec![with_id(decimal)]).await;
    assert_eq!(get(&*store, "0.20").await, Some(with_id(decimal)));
    // The double and the decimal are two numbers.
    upsert(&*store, vec![with_id("0.2")]).await;
    assert_eq!(list_keys(&*store, None).await.len(), 3);
}

async fn get_of_null_finds_the_string_only(store: Arc<dyn Store>) {
    upsert(&*store, vec![with_id("null")]).await;
    assert_eq!(get(&*store, "null").await, None);
    upsert(&*store, vec![with_id(r#""null""#)]).await;
    assert_eq!(get(&*store, "null").await, Some(with_id(r#""null""#)));
    assert_eq!(list_keys(&*store, None).await, [Key::null(), Key::string("null")]);
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
        assert_eq!(get(&*store, text).await, Some(document(&typed)), "{text}");
    }
}

/// Together, the two documents exceed a reply of MongoDB.
async fn a_typed_id_shadows_the_string_even_when_both_are_large(store: Arc<dyn Store>) {
    let typed = ObjectId::parse_str(OBJECT_ID).expect("an ObjectId");
    upsert(&*store, vec![large(typed, 9 << 20)]).await;
    upsert(&*store, vec![large(OBJECT_ID, 9 << 20)]).await;
    let found = get(&*store, OBJECT_ID).await.expect("both are there");
    assert_eq!(*found.key(), Key::object_id(typed.bytes()));
    // The typed id is also found if the string fills the reply.
    upsert(&*store, vec![large("5", 9 << 20), large(Bson::Double(5.0), 9 << 20)]).await;
    assert_eq!(get(&*store, "5").await.map(|found| found.key().clone()), Some(Key::int64(5)));
}

async fn without_the_typed_id_the_string_is_found(store: Arc<dyn Store>) {
    for (_, text) in TYPED {
        let string = format!(r#"{{"_id":"{text}"}}"#);
        upsert_texts(&*store, &[&string]).await;
        assert_eq!(get_json(&*store, text).await, Some(string));
    }
}

/// Returns unusual ids. Some resemble typed values, but none denotes one of [`TYPED`].
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
    // In an empty store, and in a store with an id of every type.
    for id in odd_ids() {
        assert_eq!(get(&*store, &id).await, None, "{id:?}");
    }
    upsert(&*store, TYPED.iter().map(|(typed, _)| with_id(typed)).collect()).await;
    for id in odd_ids() {
        assert_eq!(get(&*store, &id).await, None, "{id:?}");
    }
}

async fn an_odd_string_id_is_found(store: Arc<dyn Store>) {
    let ids = odd_ids();
    let documents: Vec<_> = ids.iter().map(|id| with_id(&serde_json::to_string(id).expect("text is JSON"))).collect();
    upsert(&*store, documents.clone()).await;
    for (id, document) in ids.iter().zip(documents) {
        assert_eq!(get(&*store, id).await, Some(document), "{id:?}");
    }
}

async fn an_id_in_another_spelling_finds_the_same_value(store: Arc<dyn Store>) {
    upsert(&*store, TYPED.iter().map(|(typed, _)| with_id(typed)).collect()).await;
    for (typed, spellings) in [
        (TYPED[0].0, &["507F1F77BCF86CD799439011", "507f1f77bcf86cd799439011"][..]),
        (TYPED[1].0, &["3B241101-E2BB-4255-8CAF-4136C566A962", "3b241101-E2BB-4255-8caf-4136c566a962"]),
        ("5", &["5", "5.0", "5.00", "5e0", "50e-1", "0.5E+1"]),
        (TYPED[3].0, &["9007199254740993", "9007199254740993.0", "9.007199254740993e15"]),
        (r#"{"$numberDecimal":"0.10"}"#, &["0.1", "0.10", "1e-1"]),
        (
            TYPED[6].0,
            &[
                "2015-09-10T08:55:47Z",
                "2015-09-10T08:55:47.0Z",
                "2015-09-10T08:55:47.000000000Z",
                "2015-09-10t08:55:47z",
                "2015-09-10T10:55:47+02:00",
                "2015-09-10T08:55:47.000-00:00",
                "2015-09-09T23:55:47.000-09:00",
            ],
        ),
    ] {
        for spelling in spellings {
            assert_eq!(get(&*store, spelling).await, Some(with_id(typed)), "{spelling:?}");
        }
    }
}

async fn an_id_that_denotes_another_value_is_none(store: Arc<dyn Store>) {
    upsert(&*store, TYPED.iter().map(|(typed, _)| with_id(typed)).collect()).await;
    for (_, text) in TYPED {
        let others = [format!(" {text}"), format!("{text} "), format!("0{text}"), format!("\"{text}\"")];
        for other in others {
            assert_eq!(get(&*store, &other).await, None, "{other:?}");
        }
    }
    for other in [
        "+5",
        "5.",
        "05",
        "0x5",
        "9007199254740992",
        "9007199254740994",
        "TRUE",
        "2015-09-10",
        "2015-09-10T08:55",
        "2015-09-10T08:55:47",
        "2015-09-10T08:55:47.0001Z",
        "2015-09-10T08:55:47.001Z",
        "2015-09-10T08:55:47+01:00",
        "1441875347000",
    ] {
        assert_eq!(get(&*store, other).await, None, "{other:?}");
    }
}

async fn an_id_that_no_text_denotes_is_listed_and_not_found(store: Arc<dyn Store>) {
    let untold = [
        (r#"{"$minKey":1}"#, "MinKey"),
        (r#"{"a":1}"#, r#"{"a":1}"#),
        (r#"{"$binary":{"base64":"AQID","subType":"00"}}"#, "AQID"),
        (r#"{"$timestamp":{"t":1,"i":2}}"#, r#"{"t":1,"i":2}"#),
        (r#"{"$code":"code"}"#, "code"),
        (r#"{"$maxKey":1}"#, "MaxKey"),
    ];
    upsert(&*store, untold.iter().map(|(id, _)| with_id(id)).collect()).await;
    for (_, text) in untold {
        assert_eq!(get(&*store, text).await, None, "{text:?}");
    }
    assert_eq!(list_keys(&*store, None).await, untold.map(|(id, _)| with_id(id).key().clone()));
}

async fn an_id_is_no_pattern_and_no_operator(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":"a"}"#, r#"{"_id":"b"}"#]).await;
    for id in [".*", "/a/", "a*", "*", "?", "A", r#"{"$exists":true}"#, r#"{"$gt":""}"#, "a\0", "a' || '1'=='1"] {
        assert_eq!(get(&*store, id).await, None, "{id:?}");
    }
}

async fn try_get_answers_as_get_or_not_at_all(store: Arc<dyn Store>) {
    upsert(&*store, TYPED.iter().map(|(typed, _)| with_id(typed)).collect()).await;
    let texts = TYPED.iter().map(|(_, text)| (*text).to_owned());
    for id in texts.chain(odd_ids()).map(RecordId::from) {
        let expected = get(&*store, id.as_str()).await;
        if let Some(answer) = store.try_get(&id) {
            assert_eq!(answer.expect("a lookup").document, expected, "{id:?}");
        }
    }
}
