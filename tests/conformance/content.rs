//! The content of documents: every type, odd names, any size and depth up to the limits, the same bytes everywhere.

use std::sync::Arc;

use bson::{Bson, Timestamp, doc};
use records::document::{MAX_BYTES, MAX_BYTES_WITH_ID, MAX_DEPTH, ValidationError, validate};
use records::record::Document;
use records::store::Store;

use crate::harness::{cases, document, get, json, large, list, upsert, upsert_texts};

cases! {
    Any by store {
        every_type_in_every_place_is_kept,
        types_may_differ_under_one_name,
        field_names_may_be_odd,
        nested_field_names_may_look_like_operators,
        an_empty_timestamp_that_is_nested_is_kept,
        a_record_of_a_mebibyte_is_kept,
        a_record_of_the_largest_size_is_kept,
        the_longest_id_of_the_largest_document_is_found,
        a_long_id_is_found,
        a_record_of_many_fields_is_kept,
        a_record_of_the_deepest_nesting_is_kept,
        fields_named_id_deeper_down_are_fields,
        arrays_may_be_empty_and_long,
    }
}

/// Stores the documents, then checks that get and list return the same BSON and the same wire JSON.
async fn keeps(store: &dyn Store, documents: Vec<(&str, Document)>) {
    let (ids, mut documents): (Vec<_>, Vec<_>) = documents.into_iter().unzip();
    upsert(store, documents.clone()).await;
    for (id, document) in ids.into_iter().zip(&documents) {
        let found = get(store, id).await.expect("it was stored");
        // Without `assert_eq!`, which would print megabytes.
        assert!(found == *document, "get {id:?}");
        assert!(json(&found) == json(document), "get {id:?}");
    }
    documents.sort_by(|a, b| a.key().cmp(b.key()));
    assert!(list(store, None).await == documents);
}

async fn keeps_one(store: &dyn Store, text: &str) {
    keeps(store, vec![("1", document(text))]).await;
}

const EVERY_TYPE: &[&str] = &[
    "5.5",
    "5.0",
    "-0.0",
    r#"{"$numberDouble":"NaN"}"#,
    r#"{"$numberDouble":"-Infinity"}"#,
    r#""é\u0000水😀""#,
    r#""""#,
    "{}",
    r#"{"a":{"b":1}}"#,
    "[]",
    r#"[1,[2,[3]],{"a":[]}]"#,
    r#"{"$binary":{"base64":"AQID","subType":"00"}}"#,
    r#"{"$binary":{"base64":"AQID","subType":"02"}}"#,
    r#"{"$binary":{"base64":"","subType":"80"}}"#,
    r#"{"$binary":{"base64":"AQID","subType":"04"}}"#,
    r#"{"$uuid":"3b241101-e2bb-4255-8caf-4136c566a962"}"#,
    r#"{"$undefined":true}"#,
    r#"{"$oid":"507f1f77bcf86cd799439011"}"#,
    "true",
    "false",
    r#"{"$date":"2015-09-10T08:55:47.123Z"}"#,
    r#"{"$date":{"$numberLong":"-9223372036854775808"}}"#,
    "null",
    r#"{"$regularExpression":{"pattern":"^a/\"","options":"ix"}}"#,
    r#"{"$dbPointer":{"$ref":"db.c","$id":{"$oid":"507f1f77bcf86cd799439011"}}}"#,
    r#"{"$code":"x => \"x\""}"#,
    r#"{"$code":"x","$scope":{"x":{"$numberLong":"1"}}}"#,
    r#"{"$symbol":"s"}"#,
    "5",
    r#"{"$timestamp":{"t":4294967295,"i":1}}"#,
    r#"{"$numberLong":"5"}"#,
    r#"{"$numberLong":"-9223372036854775808"}"#,
    r#"{"$numberDecimal":"1.50"}"#,
    r#"{"$numberDecimal":"-0E+6111"}"#,
    r#"{"$numberDecimal":"NaN"}"#,
    r#"{"$minKey":1}"#,
    r#"{"$maxKey":1}"#,
];

async fn every_type_in_every_place_is_kept(store: Arc<dyn Store>) {
    for value in EVERY_TYPE {
        let text =
            format!(r#"{{"_id":1,"a":{value},"b":[{value},{{"c":{value}}}],"d":{{"e":[[{value}]],"f":{value}}}}}"#);
        keeps_one(&*store, &text).await;
    }
    let all: Vec<String> = EVERY_TYPE.iter().enumerate().map(|(n, value)| format!(r#""{n}":{value}"#)).collect();
    keeps_one(&*store, &format!(r#"{{"_id":1,{}}}"#, all.join(","))).await;
}

async fn types_may_differ_under_one_name(store: Arc<dyn Store>) {
    let ids: Vec<String> = (0..EVERY_TYPE.len()).map(|id| id.to_string()).collect();
    let with = |(id, value): (&String, &&str)| document(&format!(r#"{{"_id":{id},"mixed":{value},"list":[{value}]}}"#));
    let documents = ids.iter().zip(EVERY_TYPE).map(|pair| (pair.0.as_str(), with(pair))).collect();
    keeps(&*store, documents).await;
}

async fn field_names_may_be_odd(store: Arc<dyn Store>) {
    let names =
        [" ", "a b", "", "a.b", ".", "..", "a.", ".a", "0", "é水😀", r"\u0001\n\t", r#"\"\\/"#, "a$", "a.$b", "id"];
    let fields: Vec<String> = names.iter().map(|name| format!(r#""{name}":1"#)).collect();
    let nested = fields.join(",");
    keeps_one(&*store, &format!(r#"{{{nested},"_id":1,"in":{{{nested}}},"list":[{{{nested}}}]}}"#)).await;
    // Each field is the only one of its document.
    for field in fields {
        keeps_one(&*store, &format!(r#"{{{field},"_id":1}}"#)).await;
    }
}

async fn nested_field_names_may_look_like_operators(store: Arc<dyn Store>) {
    let names = ["$", "$$", "$set", "$a", "$ref", "$id", "$db", "$where", "$unset", "$type", "$gt", "$inc", "$each"];
    for name in names {
        keeps_one(&*store, &format!(r#"{{"_id":1,"a":{{"{name}":1}},"b":[{{"x":1,"{name}":{{"{name}":2}}}}]}}"#)).await;
    }
    keeps_one(&*store, r#"{"_id":1,"a":{"$id":1,"$ref":"c","$db":"d"}}"#).await;
    keeps_one(&*store, r#"{"_id":1,"a":{"$ref":"c","$id":{"$oid":"507f1f77bcf86cd799439011"},"$db":"d","x":1}}"#).await;
    // At the top level, such names are operators, which no store accepts.
    let refused = validate(doc! { "_id": 1, "$set": Bson::Null });
    assert_eq!(refused, Err(ValidationError::OperatorName("$set".into())));
}

async fn an_empty_timestamp_that_is_nested_is_kept(store: Arc<dyn Store>) {
    let empty = r#"{"$timestamp":{"t":0,"i":0}}"#;
    keeps_one(&*store, &format!(r#"{{"_id":1,"a":{{"b":{empty}}},"c":[{empty}]}}"#)).await;
    // At the top level, MongoDB would replace it by its clock.
    let refused = validate(doc! { "_id": 1, "t": Timestamp { time: 0, increment: 0 } });
    assert_eq!(refused, Err(ValidationError::EmptyTimestamp("t".into())));
}

/// Returns a document of exactly `length` bytes as BSON.
fn of_length(id: impl Into<Bson>, length: usize) -> Document {
    let id = id.into();
    let frame = large(id.clone(), 0).bson().len();
    let document = large(id, length - frame);
    assert_eq!(document.bson().len(), length);
    document
}

async fn a_record_of_a_mebibyte_is_kept(store: Arc<dyn Store>) {
    keeps(&*store, vec![("1", of_length(1, 1 << 20))]).await;
}

async fn a_record_of_the_largest_size_is_kept(store: Arc<dyn Store>) {
    let largest = of_length(1, MAX_BYTES);
    let mut fields = bson::Document::from_reader(&largest.bson()[..]).expect("BSON");
    // A field with an empty name and a null adds two bytes.
    fields.insert("", Bson::Null);
    assert_eq!(validate(fields), Err(ValidationError::TooLarge(MAX_BYTES + 2)));
    keeps(&*store, vec![("1", largest)]).await;
}

async fn the_longest_id_of_the_largest_document_is_found(store: Arc<dyn Store>) {
    // A command holds the id a second time, with five bytes for its length and its end.
    let id = "x".repeat(MAX_BYTES_WITH_ID - MAX_BYTES - 5);
    let largest = of_length(id.as_str(), MAX_BYTES);
    keeps(&*store, vec![(&id, largest.clone())]).await;
    let mut fields = bson::Document::from_reader(&largest.bson()[..]).expect("BSON");
    fields.insert("_id", id + "x");
    let Ok(bson::Bson::Binary(mut bytes)) = fields.remove("bytes").ok_or(()) else { panic!("the bytes") };
    bytes.bytes.pop();
    fields.insert("bytes", bytes);
    assert_eq!(validate(fields), Err(ValidationError::IdTooLarge(MAX_BYTES_WITH_ID + 1)));
}

async fn a_long_id_is_found(store: Arc<dyn Store>) {
    for length in [1_024, 100_000, 1_000_000] {
        let id = "é".repeat(length / 2);
        upsert(&*store, vec![large(id.as_str(), 10), large(format!("{id}a"), 10)]).await;
        assert!(get(&*store, &id).await == Some(large(id, 10)));
    }
    let keys = crate::harness::list_keys(&*store, None).await;
    assert!(keys.len() == 6 && keys.is_sorted());
}

async fn a_record_of_many_fields_is_kept(store: Arc<dyn Store>) {
    let fields: Vec<String> = (0..10_000).map(|n| format!(r#""field {n}":{n}"#)).collect();
    keeps_one(&*store, &format!(r#"{{{},"_id":1}}"#, fields.join(","))).await;
}

async fn a_record_of_the_deepest_nesting_is_kept(store: Arc<dyn Store>) {
    // The document itself counts as a level. Extended JSON writes the innermost value as two more objects.
    let date = r#"{"$date":{"$numberLong":"0"}}"#;
    let nested = |open: &str, close: &str| {
        let inner = MAX_DEPTH - 1;
        format!(r#"{{"_id":1,"a":{}{date}{}}}"#, open.repeat(inner), close.repeat(inner))
    };
    for (open, close) in [(r#"{"a":"#, "}"), ("[", "]")] {
        keeps_one(&*store, &nested(open, close)).await;
    }
    // No store accepts deeper nesting, of arrays or of documents.
    for wrap in [|inner| Bson::Array(vec![inner]), |inner| Bson::Document(doc! { "a": inner })] {
        let deep = |levels: usize| {
            let value = (0..levels).fold(Bson::Int32(1), |inner, _| wrap(inner));
            validate(doc! { "_id": 1, "a": value })
        };
        assert!(deep(MAX_DEPTH - 1).is_ok());
        assert_eq!(deep(MAX_DEPTH), Err(ValidationError::TooDeep));
    }
}

async fn fields_named_id_deeper_down_are_fields(store: Arc<dyn Store>) {
    keeps_one(&*store, r#"{"a":{"_id":2,"b":{"_id":null}},"list":[{"_id":"3"},{"_id":[]}],"_id":1}"#).await;
    assert_eq!(get(&*store, "2").await, None);
}

async fn arrays_may_be_empty_and_long(store: Arc<dyn Store>) {
    let long: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    upsert_texts(&*store, &[r#"{"_id":1,"a":[[],[[]],[{}]]}"#]).await;
    keeps_one(&*store, &format!(r#"{{"_id":1,"a":[{}],"b":[null,null]}}"#, long.join(","))).await;
}
