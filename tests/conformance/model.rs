//! Random operations, one after the other, against a `BTreeMap` that must always give the same answers.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use records::document::Document;
use records::record::{Key, RecordId};
use records::store::Store;

use crate::harness::{Context, cases, document, get, id_of, list, upsert};

cases! {
    Any by property {
        any_run_of_operations_answers_as_the_model_does,
    }
}

/// Few enough that operations meet, with pairs that are one key, or one text.
const IDS: &[&str] = &[
    "0",
    r#"{"$numberDouble":"-0.0"}"#,
    "5",
    "5.0",
    r#"{"$numberLong":"5"}"#,
    r#""5""#,
    r#""5.0""#,
    "5.5",
    r#""a""#,
    r#""a/b""#,
    r#"{"$uuid":"3b241101-e2bb-4255-8caf-4136c566a962"}"#,
    r#""3b241101-e2bb-4255-8caf-4136c566a962""#,
    r#"{"$oid":"507f1f77bcf86cd799439011"}"#,
    r#""507f1f77bcf86cd799439011""#,
    "true",
    r#""true""#,
    r#"{"$date":0}"#,
    r#""1970-01-01T00:00:00.000Z""#,
];

#[derive(Clone, Debug)]
enum Operation {
    Upsert(Vec<Document>),
    Get(RecordId),
    List(Option<Key>),
    /// The rest is for embedded stores only.
    Put(Document),
    Remove(Key),
    Flush,
    IsEmpty,
}

fn documents() -> impl Strategy<Value = Document> {
    let text = |id: &str, n: u32| document(&format!(r#"{{"_id":{id},"n":{n}}}"#));
    (select(IDS), 0..1_000_u32).prop_map(move |(id, n)| text(id, n))
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let key = || documents().prop_map(|document| document.key().clone());
    let operation = prop_oneof![
        3 => vec(documents(), 0..6).prop_map(Operation::Upsert),
        3 => documents().prop_map(|document| Operation::Get(id_of(&document))),
        2 => prop::option::of(key()).prop_map(Operation::List),
        2 => documents().prop_map(Operation::Put),
        3 => key().prop_map(Operation::Remove),
        1 => Just(Operation::Flush),
        1 => Just(Operation::IsEmpty),
    ];
    vec(operation, 1..30)
}

type Model = BTreeMap<Key, Bytes>;

/// How long the JSON was that it replaces.
fn put(model: &mut Model, document: &Document) -> Option<usize> {
    model.insert(document.key().clone(), document.to_record().json().clone()).map(|json| json.len())
}

async fn apply(store: &dyn Store, model: &mut Model, operation: Operation) {
    match (operation, store.as_embedded()) {
        (Operation::Upsert(documents), _) => {
            for document in &documents {
                put(model, document);
            }
            upsert(store, documents).await;
        }
        (Operation::Get(id), _) => {
            let expected = id.keys().find_map(|key| model.get(&key).cloned());
            assert_eq!(get(store, id.as_str()).await.map(|record| record.json().clone()), expected, "get {id:?}");
        }
        (Operation::List(after), _) => {
            let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let expected: Vec<_> = model.range((start, Bound::Unbounded)).map(|(_, json)| json.clone()).collect();
            let listed: Vec<_> =
                list(store, after.as_ref()).await.into_iter().map(|record| record.json().clone()).collect();
            assert_eq!(listed, expected, "list after {after:?}");
        }
        (Operation::Put(document), Some(store)) => {
            assert_eq!(store.put(document.to_record()).expect("put"), put(model, &document), "{document:?}");
        }
        (Operation::Remove(key), Some(store)) => {
            let expected = model.remove(&key).map(|json| json.len());
            assert_eq!(store.remove(&key).expect("remove"), expected, "remove {key:?}");
        }
        (Operation::Flush, Some(store)) => store.flush().await.expect("flush"),
        (Operation::IsEmpty, Some(store)) => assert_eq!(store.is_empty().expect("is_empty"), model.is_empty()),
        (Operation::Put(_) | Operation::Remove(_) | Operation::Flush | Operation::IsEmpty, None) => {}
    }
}

fn any_run_of_operations_answers_as_the_model_does(context: &Context) {
    context.check(256, &operations(), async |store, operations| {
        let mut model = Model::new();
        for operation in operations {
            apply(&*store, &mut model, operation).await;
        }
        apply(&*store, &mut model, Operation::List(None)).await;
    });
}
