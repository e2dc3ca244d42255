//! Lists: in `_id` order across all types, from any point, whole, and in bounded memory.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use records::document::{Document, Value};
use records::record::{Key, Record};
use records::store::{Query, Store};

use crate::harness::{cases, document, get, json, large, list, list_keys, numbered, upsert};

cases! {
    Any by store {
        a_list_of_an_empty_store_is_empty,
        a_list_gives_the_bytes_of_to_record,
        a_list_is_in_id_order_across_all_types,
        a_list_is_in_the_order_of_keys,
        a_list_begins_after_a_key_that_is_there,
        a_list_begins_after_a_key_that_is_not_there,
        a_list_after_the_last_key_is_empty,
        a_list_of_many_records_is_whole_and_in_order,
        a_list_of_many_records_begins_anywhere,
        a_list_of_large_records_is_whole,
        a_list_may_be_dropped_half_way,
        a_list_may_outlive_the_store_handle,
        a_list_that_is_never_read_harms_nobody,
        a_list_that_ended_stays_ended,
    }
}

/// One `_id` of every kind, and of every kind some, in MongoDB's order.
const IN_ORDER: &[&str] = &[
    r#"{"$numberDouble":"-1e300"}"#,
    r#"{"$numberLong":"-9223372036854775808"}"#,
    r#"{"$numberLong":"-9223372036854775807"}"#,
    "-5.5",
    "-5",
    "0",
    r#"{"$numberDouble":"5e-324"}"#,
    "0.5",
    "5.0",
    "5.5",
    "6",
    "10",
    r#"{"$numberDouble":"9007199254740992"}"#,
    r#"{"$numberLong":"9007199254740993"}"#,
    r#"{"$numberLong":"9223372036854775807"}"#,
    r#"{"$numberDouble":"9223372036854775808"}"#,
    r#"{"$numberDouble":"1e300"}"#,
    r#"" ""#,
    r#""10""#,
    r#""5""#,
    r#""A""#,
    r#""a""#,
    r#""a\u0000""#,
    r#""a\u0001""#,
    r#""aa""#,
    r#""b""#,
    r#""é""#,
    r#""水""#,
    r#""\uffff""#,
    r#""😀""#,
    r#"{"$uuid":"00000000-0000-0000-0000-000000000000"}"#,
    r#"{"$uuid":"7fffffff-ffff-4fff-bfff-ffffffffffff"}"#,
    r#"{"$uuid":"80000000-0000-4000-8000-000000000000"}"#,
    r#"{"$oid":"000000000000000000000000"}"#,
    r#"{"$oid":"507f1f77bcf86cd799439011"}"#,
    r#"{"$oid":"ff7f1f77bcf86cd799439011"}"#,
    "false",
    "true",
    r#"{"$date":{"$numberLong":"-9223372036854775808"}}"#,
    r#"{"$date":{"$numberLong":"-1"}}"#,
    r#"{"$date":{"$numberLong":"0"}}"#,
    r#"{"$date":"2015-09-10T08:55:47Z"}"#,
];

fn with_id(id: &str) -> Document {
    document(&format!(r#"{{"_id":{id},"a":1}}"#))
}

/// Stores [`IN_ORDER`] in another order, and returns its records in order.
async fn one_of_each(store: &dyn Store) -> Vec<Record> {
    let mut documents: Vec<_> = IN_ORDER.iter().map(|id| with_id(id)).collect();
    let in_order = documents.iter().map(|document| document.to_record()).collect();
    documents.reverse();
    documents.rotate_left(IN_ORDER.len() / 3);
    upsert(store, documents).await;
    in_order
}

async fn a_list_of_an_empty_store_is_empty(store: Arc<dyn Store>) {
    assert_eq!(list(&*store, None).await, []);
    for id in IN_ORDER {
        assert_eq!(list(&*store, Some(with_id(id).key())).await, [], "after {id}");
    }
}

async fn a_list_gives_the_bytes_of_to_record(store: Arc<dyn Store>) {
    let only = document(r#"{"z":[1.0,"é\u0000",{"":null}],"_id":{"$oid":"507f1f77bcf86cd799439011"},"a b":true}"#);
    upsert(&*store, vec![only.clone()]).await;
    assert_eq!(list(&*store, None).await, [only.to_record()]);
}

async fn a_list_is_in_id_order_across_all_types(store: Arc<dyn Store>) {
    let expected = one_of_each(&*store).await;
    let listed = list(&*store, None).await;
    assert_eq!(listed.iter().map(json).collect::<Vec<_>>(), expected.iter().map(json).collect::<Vec<_>>());
    assert_eq!(listed, expected);
}

async fn a_list_is_in_the_order_of_keys(store: Arc<dyn Store>) {
    one_of_each(&*store).await;
    let listed = list_keys(&*store, None).await;
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(listed, sorted);
}

async fn a_list_begins_after_a_key_that_is_there(store: Arc<dyn Store>) {
    let expected = one_of_each(&*store).await;
    for (index, record) in expected.iter().enumerate() {
        assert_eq!(list(&*store, Some(record.key())).await, expected[index + 1..], "after {:?}", record.key());
    }
    // By value: 5.0 is there, 5 is the same key.
    assert_eq!(list_keys(&*store, Some(&Key::Integer(5))).await[0], Key::double(5.5));
}

async fn a_list_begins_after_a_key_that_is_not_there(store: Arc<dyn Store>) {
    let expected = one_of_each(&*store).await;
    let absent = [
        Key::double(f64::NEG_INFINITY),
        Key::Integer(-6),
        Key::double(5.25),
        Key::Integer(1 << 53 | 2),
        Key::double(f64::INFINITY),
        Key::String("".into()),
        Key::String("5\0".into()),
        Key::String("\u{10ffff}".into()),
        Key::Uuid([0x50; 16]),
        Key::Uuid([0xff; 16]),
        Key::ObjectId([0x50; 12]),
        Key::ObjectId([0xff; 12]),
        Key::Date(-2),
        Key::Date(i64::MAX),
    ];
    for after in &absent {
        let rest: Vec<_> = expected.iter().filter(|record| record.key() > after).cloned().collect();
        assert_eq!(list(&*store, Some(after)).await, rest, "after {after:?}");
    }
}

async fn a_list_after_the_last_key_is_empty(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..10)).await;
    assert_eq!(list(&*store, Some(&Key::Integer(9))).await, []);
    assert_eq!(list(&*store, Some(&Key::String("a".into()))).await, []);
}

/// More than one page, or batch, of any store.
const MANY: i64 = 5_000;

async fn a_list_of_many_records_is_whole_and_in_order(store: Arc<dyn Store>) {
    upsert(&*store, numbered((0..MANY).rev())).await;
    assert_eq!(list_keys(&*store, None).await, (0..MANY).map(Key::Integer).collect::<Vec<_>>());
}

async fn a_list_of_many_records_begins_anywhere(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..MANY)).await;
    for after in [0, 1, 254, 255, 256, 999, 1_000, 1_001, 2_500, MANY - 2, MANY - 1] {
        let rest: Vec<_> = (after + 1..MANY).map(Key::Integer).collect();
        assert_eq!(list_keys(&*store, Some(&Key::Integer(after))).await, rest, "after {after}");
    }
}

async fn a_list_of_large_records_is_whole(store: Arc<dyn Store>) {
    // More than MongoDB sends in one batch.
    for id in 0..5 {
        upsert(&*store, vec![large(Value::Int32(id), 4 << 20)]).await;
    }
    let keys = list_keys(&*store, None).await;
    assert_eq!(keys, (0..5).map(Key::Integer).collect::<Vec<_>>());
}

async fn a_list_may_be_dropped_half_way(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..MANY)).await;
    for taken in [0, 1, 255, 256, 257, 1_000, 1_001, 2_500] {
        let some: Vec<_> = store.list(Query::all()).take(taken).try_collect().await.expect("a list");
        assert_eq!(some.len(), taken);
    }
    // Many more than there are connections to a server, each of which would be held by a list that was not closed.
    for _ in 0..200 {
        assert!(store.list(Query::all()).next().await.is_some_and(|first| first.is_ok()));
    }
    assert!(get(&*store, "4999").await.is_some());
    assert_eq!(list_keys(&*store, None).await.len() as i64, MANY);
}

async fn a_list_may_outlive_the_store_handle(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..MANY)).await;
    let mut listing = store.list(Query::all());
    assert!(listing.next().await.is_some_and(|first| first.is_ok()));
    drop(store);
    assert_eq!(listing.try_collect::<Vec<_>>().await.expect("the rest").len() as i64, MANY - 1);
}

async fn a_list_that_is_never_read_harms_nobody(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..MANY)).await;
    // Some are never polled, some are held after their first record.
    let unread: Vec<_> = (0..100).map(|_| store.list(Query::all())).collect();
    let mut begun: Vec<_> = (0..100).map(|_| store.list(Query::all())).collect();
    for listing in &mut begun {
        assert!(listing.next().await.is_some_and(|first| first.is_ok()));
    }
    assert!(get(&*store, "4999").await.is_some());
    assert_eq!(list_keys(&*store, None).await.len() as i64, MANY);
    drop((unread, begun));
}

async fn a_list_that_ended_stays_ended(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..3)).await;
    let mut listing = store.list(Query::all());
    while let Some(record) = listing.next().await {
        record.expect("a list");
    }
    assert!(listing.next().await.is_none());
}
