//! Upserts: they replace whole records, are idempotent, and the last one wins.

use std::sync::Arc;

use records::store::Store;

use crate::harness::{
    Context, cases, document, get, get_json, json, large, list, list_keys, numbered, upsert, upsert_texts,
};

cases! {
    Any by store {
        upsert_of_nothing_changes_nothing,
        upsert_twice_is_as_good_as_once,
        upsert_replaces_the_whole_record,
        of_two_with_one_key_in_an_upsert_the_later_one_stays,
        of_two_numbers_of_one_value_in_an_upsert_the_later_one_stays,
        upsert_replaces_a_number_by_another_of_the_same_value,
        upsert_replaces_an_id_by_an_equal_one_of_every_type,
        upsert_of_one_key_a_thousand_times_leaves_the_last,
        upsert_of_many_stores_them_all,
        upsert_of_many_large_ones_stores_them_all,
        a_write_is_seen_by_the_next_call,
    }
    Local by context {
        reopening_finds_what_was_upserted,
        reopening_finds_the_last_of_many_upserts,
    }
}

async fn upsert_of_nothing_changes_nothing(store: Arc<dyn Store>) {
    upsert(&*store, Vec::new()).await;
    assert_eq!(list(&*store, None).await, []);
    upsert(&*store, numbered(0..3)).await;
    upsert(&*store, Vec::new()).await;
    assert_eq!(list(&*store, None).await.len(), 3);
}

async fn upsert_twice_is_as_good_as_once(store: Arc<dyn Store>) {
    let documents = || [r#"{"_id":1,"a":1}"#, r#"{"_id":"1","a":2}"#, r#"{"_id":true}"#].map(document).to_vec();
    upsert(&*store, documents()).await;
    let once = list(&*store, None).await;
    upsert(&*store, documents()).await;
    assert_eq!(list(&*store, None).await, once);
    assert_eq!(once.len(), 3);
}

async fn upsert_replaces_the_whole_record(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":1,"old":1,"both":1,"nested":{"old":1}}"#, r#"{"_id":2,"other":1}"#]).await;
    upsert_texts(&*store, &[r#"{"_id":1,"nested":{"new":1},"both":2}"#]).await;
    assert_eq!(get_json(&*store, "1").await.as_deref(), Some(r#"{"_id":1,"nested":{"new":1},"both":2}"#));
    assert_eq!(get_json(&*store, "2").await.as_deref(), Some(r#"{"_id":2,"other":1}"#));
    upsert_texts(&*store, &[r#"{"_id":1}"#]).await;
    assert_eq!(get_json(&*store, "1").await.as_deref(), Some(r#"{"_id":1}"#));
}

async fn of_two_with_one_key_in_an_upsert_the_later_one_stays(store: Arc<dyn Store>) {
    let texts =
        [r#"{"_id":1,"a":1}"#, r#"{"_id":2,"a":1}"#, r#"{"_id":1,"a":2}"#, r#"{"_id":3}"#, r#"{"_id":1,"a":3}"#];
    upsert_texts(&*store, &texts).await;
    let all: Vec<_> = list(&*store, None).await.iter().map(json).collect();
    assert_eq!(all, [r#"{"_id":1,"a":3}"#, r#"{"_id":2,"a":1}"#, r#"{"_id":3}"#]);
}

async fn of_two_numbers_of_one_value_in_an_upsert_the_later_one_stays(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":5,"a":1}"#, r#"{"_id":5.0,"a":2}"#]).await;
    upsert_texts(&*store, &[r#"{"_id":6.0,"a":1}"#, r#"{"_id":{"$numberLong":"6"},"a":2}"#]).await;
    let all: Vec<_> = list(&*store, None).await.iter().map(json).collect();
    assert_eq!(all, [r#"{"_id":5.0,"a":2}"#, r#"{"_id":6,"a":2}"#]);
}

async fn upsert_replaces_a_number_by_another_of_the_same_value(store: Arc<dyn Store>) {
    let long = r#"{"_id":{"$numberLong":"5"},"a":1}"#;
    for text in [r#"{"_id":5,"a":1}"#, r#"{"_id":5.0,"a":1}"#, long, r#"{"_id":5.0,"a":2}"#, r#"{"_id":5,"a":3}"#] {
        upsert_texts(&*store, &[text]).await;
        let expected = document(text);
        assert_eq!(get(&*store, "5").await.as_ref(), Some(&expected));
        assert_eq!(list(&*store, None).await, [expected]);
    }
    // Zero and negative zero are the same key.
    for text in [r#"{"_id":0}"#, r#"{"_id":{"$numberDouble":"-0.0"}}"#, r#"{"_id":0.0}"#] {
        upsert_texts(&*store, &[text]).await;
        assert_eq!(get(&*store, "0").await, Some(document(text)));
    }
}

async fn upsert_replaces_an_id_by_an_equal_one_of_every_type(store: Arc<dyn Store>) {
    for equal in [
        &["7", "7.0", r#"{"$numberLong":"7"}"#, r#"{"$numberDecimal":"7.00"}"#][..],
        &[r#""a""#, r#"{"$symbol":"a"}"#, r#""a""#],
        &[r#"{"a":1,"b":[2.0]}"#, r#"{"a":1.0,"b":[2]}"#],
        &[r#"{"$numberDouble":"NaN"}"#, r#"{"$numberDecimal":"NaN"}"#],
    ] {
        let before = list(&*store, None).await.len();
        for (n, id) in equal.iter().enumerate() {
            let document = document(&format!(r#"{{"_id":{id},"n":{n}}}"#));
            upsert(&*store, vec![document.clone()]).await;
            let all = list(&*store, None).await;
            assert_eq!(all.len(), before + 1, "{id}");
            assert!(all.contains(&document), "{id} was changed");
        }
    }
}

async fn upsert_of_one_key_a_thousand_times_leaves_the_last(store: Arc<dyn Store>) {
    let documents = (0..1_000).map(|n| document(&format!(r#"{{"_id":"one","n":{n}}}"#))).collect();
    upsert(&*store, documents).await;
    assert_eq!(get_json(&*store, "one").await.as_deref(), Some(r#"{"_id":"one","n":999}"#));
    assert_eq!(list(&*store, None).await.len(), 1);
}

async fn upsert_of_many_stores_them_all(store: Arc<dyn Store>) {
    // More than fit into a single command.
    upsert(&*store, numbered(0..12_000)).await;
    assert_eq!(list_keys(&*store, None).await.len(), 12_000);
    assert!(get(&*store, "11999").await.is_some());
}

async fn upsert_of_many_large_ones_stores_them_all(store: Arc<dyn Store>) {
    upsert(&*store, (0..4).map(|id| large(id, 5 << 20)).collect()).await;
    for id in 0..4 {
        assert!(get(&*store, &id.to_string()).await.is_some(), "{id}");
    }
}

async fn a_write_is_seen_by_the_next_call(store: Arc<dyn Store>) {
    for n in 0..20 {
        let text = format!(r#"{{"_id":"one","n":{n}}}"#);
        upsert_texts(&*store, &[&text]).await;
        assert_eq!(get_json(&*store, "one").await.as_ref(), Some(&text));
        assert_eq!(list(&*store, None).await.iter().map(json).collect::<Vec<_>>(), [text]);
    }
}

async fn reopening_finds_what_was_upserted(context: &Context) {
    let store = context.reopen().await.into_store();
    upsert(&*store, numbered(0..1_000)).await;
    let before = list(&*store, None).await;
    drop(store);
    let store = context.reopen().await.into_store();
    assert_eq!(list(&*store, None).await, before);
    assert!(get(&*store, "999").await.is_some());
}

async fn reopening_finds_the_last_of_many_upserts(context: &Context) {
    for n in 0..5 {
        let store = context.reopen().await.into_store();
        if n > 0 {
            assert_eq!(get_json(&*store, "one").await, Some(format!(r#"{{"_id":"one","n":{}}}"#, n - 1)));
        }
        upsert_texts(&*store, &[r#"{"_id":"one","n":-1}"#]).await;
        upsert_texts(&*store, &[&format!(r#"{{"_id":"one","n":{n}}}"#)]).await;
    }
}
