//! What only a store in this process can do: take and drop single records.

use std::sync::Arc;

use records::record::{Key, Record};
use records::store::{EmbeddedStore, Place, Store};

use crate::harness::{Context, cases, document, get, list, list_keys, numbered, upsert, upsert_texts};

cases! {
    Any by context {
        a_store_is_embedded_where_it_lives_in_this_process,
    }
    Embedded by store {
        put_is_seen_at_once,
        put_replaces_the_record,
        put_keeps_the_bytes_as_they_are,
        remove_says_whether_there_was_one,
        a_removed_record_is_gone_from_get_and_list,
        removing_the_typed_id_uncovers_the_string,
        a_store_is_empty_until_the_first_record_and_after_the_last,
        flush_is_ok,
    }
    Directory by context {
        reopening_finds_what_was_put_before_a_flush,
        reopening_misses_what_was_removed_before_a_flush,
        reopening_finds_what_was_being_loaded_until_that_is_done,
    }
}

fn embedded(store: &dyn Store) -> &dyn EmbeddedStore {
    store.as_embedded().expect("an embedded store")
}

fn put(store: &dyn Store, text: &str) -> Record {
    let record = document(text).to_record();
    embedded(store).put(record.clone()).expect("put");
    record
}

fn remove(store: &dyn Store, key: Key) -> bool {
    embedded(store).remove(&key).expect("remove").is_some()
}

async fn a_store_is_embedded_where_it_lives_in_this_process(context: &Context) {
    assert_eq!(context.reopen().await.as_embedded().is_some(), context.place() != Place::Server);
}

async fn put_is_seen_at_once(store: Arc<dyn Store>) {
    let record = put(&*store, r#"{"_id":{"$oid":"507f1f77bcf86cd799439011"},"a":1}"#);
    assert_eq!(get(&*store, "507f1f77bcf86cd799439011").await.as_ref(), Some(&record));
    assert_eq!(list(&*store, None).await, [record]);
}

async fn put_replaces_the_record(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":5,"a":1}"#]).await;
    // The same key, by value.
    let record = put(&*store, r#"{"_id":5.0,"b":2}"#);
    assert_eq!(get(&*store, "5").await.as_ref(), Some(&record));
    assert_eq!(list(&*store, None).await, [record]);
}

/// A copy of another store's record may have an `_id` of a type that no import takes.
async fn put_keeps_the_bytes_as_they_are(store: Arc<dyn Store>) {
    let key = Key::Opaque { rank: records::record::rank::DOCUMENT, bytes: [3, 0, 255].as_slice().into() };
    let record = Record::new(key.clone(), r#"{"_id":{"a":1},"same":1,"same":2}"#);
    embedded(&*store).put(record.clone()).expect("put");
    upsert_texts(&*store, &[r#"{"_id":"a string"}"#, r#"{"_id":true}"#]).await;
    let all = list(&*store, None).await;
    assert_eq!(all[1], record);
    assert_eq!(list(&*store, Some(&key)).await, all[2..]);
    assert!(remove(&*store, key));
}

async fn remove_says_whether_there_was_one(store: Arc<dyn Store>) {
    assert!(!remove(&*store, Key::Integer(1)));
    upsert(&*store, numbered(0..3)).await;
    assert!(!remove(&*store, Key::String("1".into())));
    assert!(remove(&*store, Key::Integer(1)));
    assert!(!remove(&*store, Key::Integer(1)));
}

async fn a_removed_record_is_gone_from_get_and_list(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..3)).await;
    remove(&*store, Key::Integer(1));
    assert_eq!(get(&*store, "1").await, None);
    assert_eq!(list_keys(&*store, None).await, [0, 2].map(Key::Integer));
    let again = put(&*store, r#"{"_id":1,"again":true}"#);
    assert_eq!(get(&*store, "1").await, Some(again));
}

async fn removing_the_typed_id_uncovers_the_string(store: Arc<dyn Store>) {
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
        assert!(remove(&*store, typed.key().clone()));
        assert_eq!(get(&*store, text).await, Some(string));
    }
}

async fn a_store_is_empty_until_the_first_record_and_after_the_last(store: Arc<dyn Store>) {
    let is_empty = || embedded(&*store).is_empty().expect("is_empty");
    assert!(is_empty());
    upsert(&*store, numbered(0..2)).await;
    assert!(!is_empty());
    remove(&*store, Key::Integer(0));
    assert!(!is_empty());
    remove(&*store, Key::Integer(1));
    assert!(is_empty());
}

async fn flush_is_ok(store: Arc<dyn Store>) {
    embedded(&*store).flush().await.expect("with nothing to write");
    put(&*store, r#"{"_id":1}"#);
    embedded(&*store).flush().await.expect("with something to write");
}

async fn reopening_finds_what_was_put_before_a_flush(context: &Context) {
    let store = context.reopen().await;
    let record = put(&*store, r#"{"_id":1,"a":"é"}"#);
    embedded(&*store).flush().await.expect("flush");
    drop(store);
    assert_eq!(list(&*context.reopen().await, None).await, [record]);
}

async fn reopening_misses_what_was_removed_before_a_flush(context: &Context) {
    let store = context.reopen().await;
    upsert(&*store, numbered(0..3)).await;
    remove(&*store, Key::Integer(1));
    embedded(&*store).flush().await.expect("flush");
    drop(store);
    assert_eq!(list_keys(&*context.reopen().await, None).await, [0, 2].map(Key::Integer));
}

async fn reopening_finds_what_was_being_loaded_until_that_is_done(context: &Context) {
    let loading = |store: &dyn Store| embedded(store).loading().expect("loading");
    for what in [None, Some("one"), Some("two"), None] {
        let store = context.reopen().await;
        embedded(&*store).set_loading(what).await.expect("set_loading");
        assert_eq!(loading(&*store).as_deref(), what);
        // Whatever is loaded is no end of it, and it is no record.
        upsert(&*store, numbered(0..2)).await;
        drop(store);
        let store = context.reopen().await;
        assert_eq!(loading(&*store).as_deref(), what);
        assert_eq!(list_keys(&*store, None).await, [0, 1].map(Key::Integer));
    }
}
