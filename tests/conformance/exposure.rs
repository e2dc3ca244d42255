//! A store that shows a part behaves like a store that holds nothing else.

use std::sync::Arc;

use records::query::Exposure;
use records::store::{ListRequest, Precision, Store};

use crate::harness::*;

cases! {
    Any by context {
        what_is_hidden_is_in_no_answer,
        what_is_exposed_is_all_there_is,
        a_condition_holds_for_lookups_lists_and_counts,
        names_that_a_query_cannot_say_are_hidden_too,
        a_condition_on_a_prefix_holds,
    }
}

const RECORDS: &[&str] = &[
    r#"{"_id":1,"a":{"b":1,"c":2},"d":[{"b":1,"c":3},[{"b":1}],4],"x.y":1,"s":"abc"}"#,
    r#"{"_id":2,"a":[{"b":1},{"c":1}],"d":5,"s":"abd"}"#,
    r#"{"_id":3,"a":7,"b":8,"s":"b"}"#,
];

async fn part(context: &Context, expose: &[&str], hide: &[&str], condition: Option<&str>) -> Arc<dyn Store> {
    let [expose, hide] =
        [expose, hide].map(|fields| fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>());
    let exposure = Exposure::parse(&expose, &hide, condition).expect("an exposure");
    let store = context.fresh_part(exposure).await.into_store();
    upsert_texts(&*store, RECORDS).await;
    store
}

/// Compares lookups, lists and lists in another order with `expected`; an empty text is no record.
async fn shows(store: &dyn Store, expected: [&str; 3]) {
    for (id, expected) in ["1", "2", "3"].into_iter().zip(expected) {
        assert_eq!(get_json(store, id).await.unwrap_or_default(), expected, "record {id}");
    }
    let mut shown: Vec<_> = expected.into_iter().filter(|text| !text.is_empty()).map(str::to_owned).collect();
    assert_eq!(list(store, None).await.iter().map(json).collect::<Vec<_>>(), shown);
    shown.reverse();
    let sorted = paged(store, &request(&[("sort", "-_id")]), [1, 2]).await;
    assert_eq!(sorted.iter().map(json).collect::<Vec<_>>(), shown);
    for count in [Precision::Exact, Precision::Estimated] {
        let count = store.count(ListRequest::default(), count).await.expect("a count").expect("a number in time");
        assert_eq!(count.number, shown.len() as u64);
    }
}

async fn what_is_hidden_is_in_no_answer(context: &Context) {
    let store = part(context, &[], &["a.b", "d.b", "b", "s"], None).await;
    shows(
        &*store,
        [
            r#"{"_id":1,"a":{"c":2},"d":[{"c":3},[{}],4],"x.y":1}"#,
            r#"{"_id":2,"a":[{},{"c":1}],"d":5}"#,
            r#"{"_id":3,"a":7}"#,
        ],
    )
    .await;
    let some = documents(&*store, &request(&[("fields", "a"), ("sort", "-a.c")])).await;
    let some: Vec<_> = some.iter().map(json).collect();
    assert_eq!(some, [r#"{"_id":1,"a":{"c":2}}"#, r#"{"_id":2,"a":[{},{"c":1}]}"#, r#"{"_id":3,"a":7}"#]);
}

async fn what_is_exposed_is_all_there_is(context: &Context) {
    let store = part(context, &["a.b", "d"], &[], None).await;
    shows(
        &*store,
        [
            r#"{"_id":1,"a":{"b":1},"d":[{"b":1,"c":3},[{"b":1}],4]}"#,
            r#"{"_id":2,"a":[{"b":1},{}],"d":5}"#,
            r#"{"_id":3}"#,
        ],
    )
    .await;
    let some = documents(&*store, &request(&[("fields", "a,d.c"), ("a.b.eq", "1")])).await;
    let some: Vec<_> = some.iter().map(json).collect();
    assert_eq!(some, [r#"{"_id":1,"a":{"b":1},"d":[{"c":3},[{}]]}"#, r#"{"_id":2,"a":[{"b":1},{}]}"#]);
}

async fn a_condition_holds_for_lookups_lists_and_counts(context: &Context) {
    // By a hidden field.
    let store = part(context, &["d"], &[], Some("s.gt=abc&a.exists=true")).await;
    shows(&*store, ["", r#"{"_id":2,"d":5}"#, r#"{"_id":3}"#]).await;
    assert_eq!(ids(&*store, &[("d.eq", "5")]).await, ["2"]);
    assert_eq!(ids(&*store, &[("or", "(_id.eq=1,_id.eq=3)")]).await, ["3"]);
    let store = part(context, &[], &["s", "d"], Some("or=(s.eq=abc,b.gt=7)")).await;
    shows(&*store, [r#"{"_id":1,"a":{"b":1,"c":2},"x.y":1}"#, "", r#"{"_id":3,"a":7,"b":8}"#]).await;
}

async fn names_that_a_query_cannot_say_are_hidden_too(context: &Context) {
    let store = part(context, &[], &["x\\.y", "a", "d"], None).await;
    shows(&*store, [r#"{"_id":1,"s":"abc"}"#, r#"{"_id":2,"s":"abd"}"#, r#"{"_id":3,"b":8,"s":"b"}"#]).await;
    let store = part(context, &["x\\.y"], &[], Some("x\\.y.eq=1")).await;
    shows(&*store, [r#"{"_id":1,"x.y":1}"#, "", ""]).await;
}

async fn a_condition_on_a_prefix_holds(context: &Context) {
    let store = part(context, &[], &["s", "a", "d"], Some("s.starts=ab")).await;
    shows(&*store, [r#"{"_id":1,"x.y":1}"#, r#"{"_id":2}"#, ""]).await;
}
