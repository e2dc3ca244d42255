//! Lists: in `_id` order across all types, from any point, complete, and in bounded memory.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt};
use records::record::{Document, Key};
use records::store::{ListRequest, Store};

use crate::harness::{
    after_key, cases, document, documents, get, json, keys_of, large, list, list_keys, numbered, request, rows, upsert,
    with_id,
};

cases! {
    Any by store {
        a_list_of_an_empty_store_is_empty,
        a_list_gives_documents_as_they_were_stored,
        a_list_is_in_id_order_across_all_types,
        a_list_is_in_the_order_of_keys,
        a_list_begins_after_a_key_that_is_there,
        a_list_begins_after_a_key_that_is_not_there,
        a_list_after_the_last_key_is_empty,
        a_list_of_many_records_is_whole_and_in_order,
        a_list_of_many_records_begins_anywhere,
        a_list_of_large_records_is_whole,
        a_limited_list_is_as_long_as_asked,
        a_list_without_an_order_has_no_positions,
        a_projection_keeps_the_fields_that_were_asked_for,
        a_projection_does_not_change_which_records_are_listed,
        a_list_may_be_dropped_half_way,
        a_list_may_outlive_the_store_handle,
        a_list_that_is_never_read_blocks_no_other,
    }
}

/// Values of every type that an `_id` may have, in MongoDB's order.
const IN_ORDER: &[&str] = &[
    r#"{"$minKey":1}"#,
    "null",
    r#"{"$numberDouble":"NaN"}"#,
    r#"{"$numberDouble":"-Infinity"}"#,
    r#"{"$numberDecimal":"-1E+400"}"#,
    r#"{"$numberDouble":"-1e300"}"#,
    r#"{"$numberLong":"-9223372036854775808"}"#,
    r#"{"$numberLong":"-9223372036854775807"}"#,
    "-5.5",
    "-5",
    "0",
    r#"{"$numberDecimal":"1E-6000"}"#,
    r#"{"$numberDouble":"5e-324"}"#,
    r#"{"$numberDecimal":"0.1"}"#,
    "0.1",
    "0.5",
    "5.0",
    r#"{"$numberDecimal":"5.25"}"#,
    "5.5",
    "6",
    "10",
    r#"{"$numberDouble":"9007199254740992"}"#,
    r#"{"$numberLong":"9007199254740993"}"#,
    r#"{"$numberLong":"9223372036854775807"}"#,
    r#"{"$numberDecimal":"9223372036854775807.5"}"#,
    r#"{"$numberDouble":"9223372036854775808"}"#,
    r#"{"$numberDouble":"1e300"}"#,
    r#"{"$numberDecimal":"1E+400"}"#,
    r#"{"$numberDouble":"Infinity"}"#,
    r#""""#,
    r#"" ""#,
    r#""10""#,
    r#""5""#,
    r#""A""#,
    r#""a""#,
    r#""a\u0000""#,
    r#""a\u0001""#,
    r#""aa""#,
    r#"{"$symbol":"ab"}"#,
    r#""b""#,
    r#""é""#,
    r#""水""#,
    r#""\uffff""#,
    r#""😀""#,
    "{}",
    r#"{"a":{"$minKey":1}}"#,
    r#"{"a":1}"#,
    r#"{"a":1,"b":1}"#,
    r#"{"b":1}"#,
    r#"{"a":"a"}"#,
    r#"{"a":[]}"#,
    r#"{"a":true}"#,
    r#"{"$binary":{"base64":"","subType":"00"}}"#,
    r#"{"$binary":{"base64":"AQ==","subType":"80"}}"#,
    r#"{"$binary":{"base64":"AQI=","subType":"00"}}"#,
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
    r#"{"$timestamp":{"t":1,"i":2}}"#,
    r#"{"$timestamp":{"t":4294967295,"i":1}}"#,
    r#"{"$dbPointer":{"$ref":"db.c","$id":{"$oid":"507f1f77bcf86cd799439011"}}}"#,
    r#"{"$code":"a"}"#,
    r#"{"$code":"a","$scope":{"a":1}}"#,
    r#"{"$maxKey":1}"#,
];

/// Stores [`IN_ORDER`] in another order, and returns its documents in order.
async fn one_of_each(store: &dyn Store) -> Vec<Document> {
    let mut documents: Vec<_> = IN_ORDER.iter().map(|id| with_id(id)).collect();
    let in_order = documents.clone();
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

async fn a_list_gives_documents_as_they_were_stored(store: Arc<dyn Store>) {
    let only = document(r#"{"z":[1.0,"é\u0000",{"":null}],"_id":{"$oid":"507f1f77bcf86cd799439011"},"a b":true}"#);
    upsert(&*store, vec![only.clone()]).await;
    assert_eq!(list(&*store, None).await, [only]);
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
    // The store has 5.0, which has the same key as 5.
    assert_eq!(list(&*store, Some(&Key::int64(5))).await[0], with_id(r#"{"$numberDecimal":"5.25"}"#));
}

async fn a_list_begins_after_a_key_that_is_not_there(store: Arc<dyn Store>) {
    let expected = one_of_each(&*store).await;
    for after in [
        "-1e301",
        "-6",
        "5.375",
        r#"{"$numberDecimal":"5.3"}"#,
        r#"{"$numberLong":"9007199254740994"}"#,
        r#"{"$numberDouble":"1e308"}"#,
        r#"{"$numberDecimal":"1E+6000"}"#,
        r#""5\u0000""#,
        r#""\udbff\udfff""#,
        r#"{"a":0}"#,
        r#"{"z":1}"#,
        r#"{"$binary":{"base64":"//8=","subType":"00"}}"#,
        r#"{"$uuid":"50505050-5050-5050-5050-505050505050"}"#,
        r#"{"$uuid":"ffffffff-ffff-ffff-ffff-ffffffffffff"}"#,
        r#"{"$oid":"505050505050505050505050"}"#,
        r#"{"$oid":"ffffffffffffffffffffffff"}"#,
        r#"{"$date":{"$numberLong":"-2"}}"#,
        r#"{"$date":{"$numberLong":"9223372036854775807"}}"#,
        r#"{"$timestamp":{"t":2147483648,"i":1}}"#,
        r#"{"$code":"b"}"#,
    ] {
        let after = with_id(after).key().clone();
        let rest: Vec<_> = expected.iter().filter(|document| *document.key() > after).cloned().collect();
        assert_eq!(list(&*store, Some(&after)).await, rest, "after {after:?}");
    }
}

async fn a_list_after_the_last_key_is_empty(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..10)).await;
    assert_eq!(list(&*store, Some(&Key::int64(9))).await, []);
    assert_eq!(list(&*store, Some(&Key::string("a"))).await, []);
}

/// More than a page or a batch of any store.
const MANY: i64 = 5_000;

async fn a_list_of_many_records_is_whole_and_in_order(store: Arc<dyn Store>) {
    upsert(&*store, numbered((0..MANY).rev())).await;
    assert_eq!(list_keys(&*store, None).await, (0..MANY).map(Key::int64).collect::<Vec<_>>());
}

async fn a_list_of_many_records_begins_anywhere(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..MANY)).await;
    for after in [0, 1, 254, 255, 256, 999, 1_000, 1_001, 2_500, MANY - 2, MANY - 1] {
        let rest: Vec<_> = (after + 1..MANY).map(Key::int64).collect();
        assert_eq!(list_keys(&*store, Some(&Key::int64(after))).await, rest, "after {after}");
    }
}

async fn a_list_of_large_records_is_whole(store: Arc<dyn Store>) {
    // Together more than a batch of MongoDB.
    for id in 0..5 {
        upsert(&*store, vec![large(id, 4 << 20)]).await;
    }
    let keys = list_keys(&*store, None).await;
    assert_eq!(keys, (0..5).map(Key::int64).collect::<Vec<_>>());
}

async fn a_limited_list_is_as_long_as_asked(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..50)).await;
    for limit in [1, 2, 49, 50, 51, 10_000] {
        let request = ListRequest { limit: Some(limit), ..ListRequest::default() };
        let expected: Vec<_> = (0..50.min(limit as i64)).map(Key::int64).collect();
        assert_eq!(keys_of(&documents(&*store, &request).await), expected);
        let rest = ListRequest { limit: Some(limit), ..after_key(&Key::int64(9)) };
        let expected: Vec<_> = (10..50.min(10 + limit as i64)).map(Key::int64).collect();
        assert_eq!(keys_of(&documents(&*store, &rest).await), expected);
    }
}

async fn a_list_without_an_order_has_no_positions(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..3)).await;
    for row in rows(&*store, ListRequest::default()).await {
        assert_eq!(row.position, None);
        assert_eq!(row.position().as_bytes(), row.document.key().as_bytes());
    }
}

async fn a_projection_keeps_the_fields_that_were_asked_for(store: Arc<dyn Store>) {
    let text = r#"{"_id":1,"z":0,"a":{"b":{"c":1,"d":2},"e":3},"l":[{"b":1,"c":2},5,[{"b":3},{"c":4}],{"c":5},[]],
        "0":{"1":1},"a.b":2,"$x":1,"s":"text","\u0001":{"x":1}}"#;
    // `$x` is nested, since no store accepts it at the top level.
    let text = text.replace(r#""$x":1"#, r#""x":{"$x":1,"y":2}"#);
    upsert(&*store, vec![document(&text), document(r#"{"_id":2}"#)]).await;
    for (fields, expected) in [
        ("s", r#"{"_id":1,"s":"text"}"#),
        ("_id", r#"{"_id":1}"#),
        ("missing", r#"{"_id":1}"#),
        ("s,z", r#"{"_id":1,"z":0,"s":"text"}"#),
        ("a.b.c", r#"{"_id":1,"a":{"b":{"c":1}}}"#),
        ("a.e,a.b.d", r#"{"_id":1,"a":{"b":{"d":2},"e":3}}"#),
        ("a.b,a", r#"{"_id":1,"a":{"b":{"c":1,"d":2},"e":3}}"#),
        ("a,a.b.c", r#"{"_id":1,"a":{"b":{"c":1,"d":2},"e":3}}"#),
        ("a.missing", r#"{"_id":1,"a":{}}"#),
        ("s.t", r#"{"_id":1}"#),
        ("l.b", r#"{"_id":1,"l":[{"b":1},[{"b":3},{}],{},[]]}"#),
        ("l.0", r#"{"_id":1,"l":[{},[{},{}],{},[]]}"#),
        ("0.1", r#"{"_id":1,"0":{"1":1}}"#),
        (r"a\.b", r#"{"_id":1,"a.b":2}"#),
        ("x.$x", r#"{"_id":1,"x":{"$x":1}}"#),
        ("\u{1}.x", r#"{"_id":1,"\u0001":{"x":1}}"#),
    ] {
        for sort in [None, Some(("sort", "s")), Some(("sort", "a.e")), Some(("sort", "-l.c"))] {
            let parameters: Vec<_> = [("fields", fields), ("limit", "2")].into_iter().chain(sort).collect();
            let listed = documents(&*store, &request(&parameters)).await;
            let mut listed: Vec<_> = listed.iter().map(json).collect();
            listed.sort();
            assert_eq!(listed, [expected, r#"{"_id":2}"#], "{parameters:?}");
        }
    }
}

async fn a_projection_does_not_change_which_records_are_listed(store: Arc<dyn Store>) {
    let numbers = (0..20).map(|n| document(&format!(r#"{{"_id":{n},"n":{},"m":{}}}"#, n % 3, n % 2)));
    upsert(&*store, numbers.collect()).await;
    for parameters in [&[("n.eq", "1")][..], &[("n.gt", "0"), ("sort", "-m,n")], &[("sort", "m"), ("_id.lt", "9")]] {
        let whole = documents(&*store, &request(parameters)).await;
        assert!(!whole.is_empty());
        for fields in ["_id", "m", "n", "other"] {
            let request = request(&[parameters, &[("fields", fields)]].concat());
            assert_eq!(keys_of(&documents(&*store, &request).await), keys_of(&whole), "{parameters:?}, {fields}");
        }
    }
}

async fn a_list_may_be_dropped_half_way(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..MANY)).await;
    for taken in [0, 1, 255, 256, 257, 1_000, 1_001, 2_500] {
        let rows = store.list(ListRequest::default()).await.expect("a list").rows;
        let some: Vec<_> = rows.take(taken).try_collect().await.expect("rows");
        assert_eq!(some.len(), taken);
    }
    // Many more lists than connections: an unclosed list would hold its connection.
    for _ in 0..200 {
        let mut rows = store.list(ListRequest::default()).await.expect("a list").rows;
        assert!(rows.next().await.is_some_and(|first| first.is_ok()));
    }
    // Drops the future before there is a list.
    for _ in 0..200 {
        drop(store.list(ListRequest::default()).now_or_never());
    }
    assert!(get(&*store, "4999").await.is_some());
    assert_eq!(list_keys(&*store, None).await.len() as i64, MANY);
}

async fn a_list_may_outlive_the_store_handle(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..MANY)).await;
    let mut rows = store.list(ListRequest::default()).await.expect("a list").rows;
    assert!(rows.next().await.is_some_and(|first| first.is_ok()));
    drop(store);
    assert_eq!(rows.try_collect::<Vec<_>>().await.expect("the rest").len() as i64, MANY - 1);
}

async fn a_list_that_is_never_read_blocks_no_other(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..MANY)).await;
    // Some lists are never read, others are kept after their first row.
    let mut lists = Vec::new();
    for number in 0..200 {
        let mut list = store.list(ListRequest::default()).await.expect("a list");
        if number % 2 == 0 {
            assert!(list.rows.next().await.is_some_and(|first| first.is_ok()));
        }
        lists.push(list);
    }
    assert!(get(&*store, "4999").await.is_some());
    assert_eq!(list_keys(&*store, None).await.len() as i64, MANY);
    drop(lists);
}
