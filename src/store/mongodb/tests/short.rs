//! Which lists are read at once, as the records lie, and which by the index.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::bson::Document as Tree;

use super::super::*;
use super::lists::{filtered, keys_of};
use super::plans::Watched;
use crate::document::extended_json;

/// Beside those that [`Watched`] has, more than a short list is of.
const MANY: i32 = 4_000;

async fn upsert(watched: &Watched, texts: impl Iterator<Item = String>) {
    let documents = texts.map(|text| extended_json::parse(text.as_bytes()).expect("a document")).collect();
    watched.store.upsert(documents).await.expect("an upsert");
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_short_list_is_one_find_of_the_records_as_they_lie_put_in_order_here() {
    let watched = Watched::filled().await;
    let keys = keys_of(&watched.store, Query::all()).await;
    assert_eq!(keys.len(), 1_500);
    assert!(keys.is_sorted_by(|one, next| one < next));
    let explained = watched.explained().await;
    assert!(!explained.stages.iter().any(|stage| stage == "IXSCAN" || stage == "SORT"), "{explained:?}");
    assert_eq!((explained.returned, explained.documents), (1_500, 1_500), "{explained:?}");

    let keys = keys_of(&watched.store, filtered("_id.in", "20,17,nothing,18")).await;
    assert!(keys.is_sorted_by(|one, next| one < next));
    assert_eq!(keys.len(), 6);
    let explained = watched.explained().await;
    assert_eq!(explained.documents, 6, "{explained:?}");
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_list_that_has_grown_long_is_read_by_the_index_until_it_is_short_again() {
    let mut watched = Watched::filled().await;
    upsert(&watched, (1_000..1_000 + MANY).map(|id| format!(r#"{{"_id":{id}}}"#))).await;
    for finds in [2, 1, 1] {
        let keys = keys_of(&watched.store, Query::all()).await;
        assert_eq!(keys.len() as i32, 1_500 + MANY);
        assert!(keys.is_sorted_by(|one, next| one < next));
        let explained = watched.all_explained().await;
        assert_eq!(explained.len(), finds, "{explained:?}");
        assert!(explained.last().is_some_and(|last| last.uses_the_index_of_ids()), "{explained:?}");
    }
    // Few of many: that does not tell how many there are.
    assert_eq!(keys_of(&watched.store, filtered("_id.eq", "10000")).await, []);
    assert_eq!(watched.all_explained().await.len(), 1);

    // As if the time had come to try again.
    watched.store.last = Last::with(Duration::ZERO);
    for _ in 0..2 {
        keys_of(&watched.store, Query::all()).await;
        assert_eq!(watched.all_explained().await.len(), 2);
    }
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    collection.delete_many(doc! { "_id": { "$gte": 1_000 } }).await.expect("a deletion");
    for _ in 0..2 {
        assert_eq!(keys_of(&watched.store, Query::all()).await.len(), 1_500);
        let explained = watched.explained().await;
        assert!(!explained.uses_the_index_of_ids(), "{explained:?}");
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_list_of_few_records_that_are_large_is_not_short() {
    let mut watched = Watched::filled().await;
    // Once more than a list may hold, once more than the server may send at once, and once also that, but as JSON a fifth of it.
    let text = |size: usize| format!("\"{}\"", "x".repeat(size));
    let numbers = format!("[{}0]", "0,".repeat(400_000));
    for (filler, count) in [(text(1 << 20), 5), (text(4 << 20), 5), (numbers, 5)] {
        for id in 0..count {
            upsert(&watched, std::iter::once(format!(r#"{{"_id":{id},"filler":{filler}}}"#))).await;
        }
        watched.store.last = Last::default();
        for tries in [1, 0] {
            let keys = keys_of(&watched.store, Query::all()).await;
            assert_eq!(keys.len(), 1_500);
            assert!(keys.is_sorted_by(|one, next| one < next));
            let found = std::mem::take(&mut *watched.finds.lock().expect("no panic"));
            // By the index it may take several, of so many records each as are no larger together than a batch should be.
            let at_once = found.iter().filter(|find| !find.contains_key("sort")).count();
            assert!(at_once == tries && found.len() > tries, "{found:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn ids_whose_order_only_the_server_knows_are_in_its_order() {
    let watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    // The bytes of a negative number come behind those of a positive one.
    let numbers = [7, -1, 300, -300, 0];
    collection.insert_many(numbers.map(|n| doc! { "_id": { "n": n }, "n": n })).await.expect("an insertion");
    for _ in 0..2 {
        let all: Vec<Record> = watched.store.list(Query::all()).try_collect().await.expect("a list");
        assert!(all.is_sorted_by(|one, next| one.key().rank() <= next.key().rank()));
        let is_one = |record: &&Record| matches!(record.key(), Key::Opaque { .. });
        let shown: Vec<_> = all.iter().filter(is_one).map(|record| record.json().clone()).collect();
        assert_eq!(shown, [-300, -1, 0, 7, 300].map(|n| format!(r#"{{"_id":{{"n":{n}}},"n":{n}}}"#)));
    }
}
