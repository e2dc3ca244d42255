//! Random sequences of operations, compared with a `BTreeMap` as the model.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use records::record::{Document, Key, RecordId};
use records::store::{EmbeddedStore, Opened};

use crate::harness::{Context, cases, document, get, id_of, list, upsert};

cases! {
    Any by property {
        any_run_of_operations_answers_as_the_model_does,
    }
}

/// Few ids, so that operations concern the same records. Some pairs have the same key or the same text.
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
    r#"{"$numberDecimal":"5.50"}"#,
    r#"{"a":1}"#,
    r#"{"a":1.0}"#,
    "null",
    r#""null""#,
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
    /// This and the following operations are for embedded stores only.
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

type Model = BTreeMap<Key, Document>;

/// Puts a document into the model, and returns the size of the document that it replaces.
fn put(model: &mut Model, document: Document) -> Option<usize> {
    model.insert(document.key().clone(), document).map(|old| old.bson().len())
}

async fn apply(opened: &Opened, model: &mut Model, operation: Operation) {
    let store = opened.clone().into_store();
    match operation {
        Operation::Upsert(documents) => {
            for document in &documents {
                put(model, document.clone());
            }
            upsert(&*store, documents).await;
        }
        Operation::Get(id) => {
            let expected = id.keys().iter().find_map(|key| model.get(key).cloned());
            assert_eq!(get(&*store, id.as_str()).await, expected, "get {id:?}");
        }
        Operation::List(after) => {
            let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let expected: Vec<_> =
                model.range::<Key, _>((start, Bound::Unbounded)).map(|(_, document)| document.clone()).collect();
            assert_eq!(list(&*store, after.as_ref()).await, expected, "list after {after:?}");
        }
        other => {
            if let Opened::Embedded(store) = opened {
                apply_embedded(&**store, model, other).await;
            }
        }
    }
}

async fn apply_embedded(store: &dyn EmbeddedStore, model: &mut Model, operation: Operation) {
    match operation {
        Operation::Put(document) => {
            assert_eq!(store.put(document.clone()).expect("put"), put(model, document.clone()), "{document:?}");
        }
        Operation::Remove(key) => {
            let expected = model.remove(&key).map(|old| old.bson().len());
            assert_eq!(store.remove(&key).expect("remove"), expected, "remove {key:?}");
        }
        Operation::Flush => store.flush().await.expect("flush"),
        Operation::IsEmpty => assert_eq!(store.is_empty().expect("is_empty"), model.is_empty()),
        Operation::Upsert(_) | Operation::Get(_) | Operation::List(_) => unreachable!("an operation of every store"),
    }
}

fn any_run_of_operations_answers_as_the_model_does(context: &Context) {
    context.check(256, &operations(), async |opened, operations| {
        let mut model = Model::new();
        for operation in operations {
            apply(&opened, &mut model, operation).await;
        }
        apply(&opened, &mut model, Operation::List(None)).await;
    });
}
