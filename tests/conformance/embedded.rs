//! Embedded stores, which also put and remove single documents.

use std::sync::Arc;

use records::record::{Document, Key};
use records::store::{BackendKind, CountResult, EmbeddedStore, ListRequest, Opened, Precision};

use crate::harness::{Context, cases, document, get, list, list_keys, numbered, upsert, upsert_texts, with_id};

cases! {
    Any by context {
        a_store_is_embedded_where_it_lives_in_this_process,
    }
    Embedded by context {
        put_is_seen_at_once,
        put_replaces_the_record,
        put_returns_the_size_of_what_it_replaces,
        put_keeps_the_bytes_as_they_are,
        remove_returns_the_size_of_what_it_removes,
        a_removed_record_is_gone_from_get_and_list,
        removing_the_typed_id_uncovers_the_string,
        a_store_is_empty_until_the_first_record_and_after_the_last,
        flush_is_ok,
    }
    Local by context {
        reopening_finds_what_was_put_before_a_flush,
        reopening_misses_what_was_removed_before_a_flush,
        reopening_finds_what_was_being_loaded_until_that_is_done,
    }
}

type Embedded = Arc<dyn EmbeddedStore>;

fn embedded(opened: Opened) -> Embedded {
    match opened {
        Opened::Embedded(store) => store,
        Opened::Remote(_) => panic!("an embedded store"),
    }
}

async fn fresh(context: &Context) -> Embedded {
    embedded(context.fresh().await)
}

async fn reopened(context: &Context) -> Embedded {
    embedded(context.reopen().await)
}

fn put(store: &dyn EmbeddedStore, text: &str) -> Document {
    let document = document(text);
    store.put(document.clone()).expect("put");
    document
}

fn remove(store: &dyn EmbeddedStore, key: &Key) -> bool {
    store.remove(key).expect("remove").is_some()
}

async fn a_store_is_embedded_where_it_lives_in_this_process(context: &Context) {
    let is_embedded = matches!(context.reopen().await, Opened::Embedded(_));
    assert_eq!(is_embedded, context.kind() != BackendKind::Remote);
}

async fn put_is_seen_at_once(context: &Context) {
    let store = fresh(context).await;
    let record = put(&*store, r#"{"_id":{"$oid":"507f1f77bcf86cd799439011"},"a":1}"#);
    assert_eq!(get(&*store, "507f1f77bcf86cd799439011").await.as_ref(), Some(&record));
    assert_eq!(list(&*store, None).await, [record]);
}

async fn put_replaces_the_record(context: &Context) {
    let store = fresh(context).await;
    upsert_texts(&*store, &[r#"{"_id":5,"a":1}"#]).await;
    // The key is the same, since numbers compare by value.
    let record = put(&*store, r#"{"_id":5.0,"b":2}"#);
    assert_eq!(get(&*store, "5").await.as_ref(), Some(&record));
    assert_eq!(list(&*store, None).await, [record]);
}

async fn put_returns_the_size_of_what_it_replaces(context: &Context) {
    let store = fresh(context).await;
    let (short, long) = (document(r#"{"_id":5}"#), document(r#"{"_id":5.0,"text":"longer"}"#));
    assert_eq!(store.put(short.clone()).expect("put"), None);
    assert_eq!(store.put(long.clone()).expect("put"), Some(short.bson().len()));
    assert_eq!(store.put(short).expect("put"), Some(long.bson().len()));
}

/// A replica may hold documents that no import accepts: with an array as `_id`, two fields with one name, a string that is not
/// UTF-8.
async fn put_keeps_the_bytes_as_they_are(context: &Context) {
    let store = fresh(context).await;
    let element = |kind: u8, name: &str, value: &[u8]| [&[kind], name.as_bytes(), &[0], value].concat();
    let whole = |elements: &[Vec<u8>]| {
        let elements = elements.concat();
        [&(elements.len() as u32 + 5).to_le_bytes()[..], &elements, &[0]].concat()
    };
    let array = element(4, "_id", &whole(&[element(16, "0", &[1, 0, 0, 0])]));
    let twice = [element(16, "same", &[1, 0, 0, 0]), element(16, "same", &[2, 0, 0, 0])].concat();
    let text = element(2, "text", &[3, 0, 0, 0, 0xff, b'a', 0]);
    let document = Document::new(whole(&[array, twice, text])).expect("BSON");
    store.put(document.clone()).expect("put");
    upsert(&*store, vec![with_id(r#""a string""#), with_id("true")]).await;
    let all = list(&*store, None).await;
    assert_eq!(all[1], document);
    assert_eq!(list(&*store, Some(document.key())).await, all[2..]);
    assert!(remove(&*store, document.key()));
}

async fn remove_returns_the_size_of_what_it_removes(context: &Context) {
    let store = fresh(context).await;
    assert_eq!(store.remove(&Key::int64(1)).expect("remove"), None);
    upsert(&*store, numbered(0..3)).await;
    assert_eq!(store.remove(&Key::string("1")).expect("remove"), None);
    assert_eq!(store.remove(&Key::int64(1)).expect("remove"), Some(numbered([1])[0].bson().len()));
    assert_eq!(store.remove(&Key::int64(1)).expect("remove"), None);
}

async fn a_removed_record_is_gone_from_get_and_list(context: &Context) {
    let store = fresh(context).await;
    upsert(&*store, numbered(0..3)).await;
    remove(&*store, &Key::int64(1));
    assert_eq!(get(&*store, "1").await, None);
    assert_eq!(list_keys(&*store, None).await, [0, 2].map(Key::int64));
    let count = store.count(ListRequest::default(), Precision::Exact).await.expect("a count");
    assert_eq!(count, Some(CountResult::exact(2)));
    let again = put(&*store, r#"{"_id":1,"again":true}"#);
    assert_eq!(get(&*store, "1").await, Some(again));
}

async fn removing_the_typed_id_uncovers_the_string(context: &Context) {
    let store = fresh(context).await;
    for (typed, text) in [
        (r#"{"$oid":"507f1f77bcf86cd799439011"}"#, "507f1f77bcf86cd799439011"),
        ("5.5", "5.5"),
        ("7", "7"),
        ("true", "true"),
        (r#"{"$date":0}"#, "1970-01-01T00:00:00.000Z"),
    ] {
        let string = put(&*store, &format!(r#"{{"_id":"{text}"}}"#));
        let typed = put(&*store, &format!(r#"{{"_id":{typed}}}"#));
        assert_eq!(get(&*store, text).await.as_ref(), Some(&typed));
        assert!(remove(&*store, typed.key()));
        assert_eq!(get(&*store, text).await, Some(string));
    }
}

async fn a_store_is_empty_until_the_first_record_and_after_the_last(context: &Context) {
    let store = fresh(context).await;
    let is_empty = || store.is_empty().expect("is_empty");
    assert!(is_empty());
    upsert(&*store, numbered(0..2)).await;
    assert!(!is_empty());
    remove(&*store, &Key::int64(0));
    assert!(!is_empty());
    remove(&*store, &Key::int64(1));
    assert!(is_empty());
}

async fn flush_is_ok(context: &Context) {
    let store = fresh(context).await;
    store.flush().await.expect("with nothing to write");
    put(&*store, r#"{"_id":1}"#);
    store.flush().await.expect("with something to write");
}

async fn reopening_finds_what_was_put_before_a_flush(context: &Context) {
    let store = reopened(context).await;
    let record = put(&*store, r#"{"_id":1,"a":"é"}"#);
    store.flush().await.expect("flush");
    drop(store);
    assert_eq!(list(&*reopened(context).await, None).await, [record]);
}

async fn reopening_misses_what_was_removed_before_a_flush(context: &Context) {
    let store = reopened(context).await;
    upsert(&*store, numbered(0..3)).await;
    remove(&*store, &Key::int64(1));
    store.flush().await.expect("flush");
    drop(store);
    assert_eq!(list_keys(&*reopened(context).await, None).await, [0, 2].map(Key::int64));
}

async fn reopening_finds_what_was_being_loaded_until_that_is_done(context: &Context) {
    let loading = |store: &dyn EmbeddedStore| store.loading().expect("loading");
    for what in [None, Some("one"), Some("two"), None] {
        let store = reopened(context).await;
        store.set_loading(what).await.expect("set_loading");
        assert_eq!(loading(&*store).as_deref(), what);
        // Writes do not end the import, and its name is not listed as a record.
        upsert(&*store, numbered(0..2)).await;
        drop(store);
        let store = reopened(context).await;
        assert_eq!(loading(&*store).as_deref(), what);
        assert_eq!(list_keys(&*store, None).await, [0, 1].map(Key::int64));
    }
}
