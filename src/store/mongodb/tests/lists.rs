//! Lists of unusual collections, and lists that are slow.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::bson::Bson;
use mongodb::options::Collation;
use tokio::time::timeout;

use super::super::*;
use super::plans::{Watched, request};
use super::servers::{mongod, unused_name, url};
use crate::query::{Cursor, Position};
use crate::store::{ListRequest, Opened, Row};

async fn keys_of(store: &dyn Store, request: ListRequest) -> Vec<Key> {
    let rows: Vec<Row> = store.list(request).await.expect("a list").rows.try_collect().await.expect("rows");
    rows.iter().map(|row| row.document.key().clone()).collect()
}

fn after(key: Key) -> ListRequest {
    let after = Some(Cursor { position: Position::of_key(&key), no_arrays: false });
    ListRequest { after, ..ListRequest::default() }
}

/// Opens an empty database on a new server, or on that of `TEST_MONGODB_URL`. Returns the server, the store and the database.
async fn stored(name: &str, options: Options) -> (Option<mongod::Mongod>, Arc<dyn Store>, mongodb::Database) {
    let name = unused_name(name);
    let server = mongod::program().map(|_| mongod::Mongod::start().expect("a server"));
    let url = server
        .as_ref()
        .map_or_else(|| url("mongodb", &name).expect("TEST_MONGODB_URL"), |server| format!("{}/{name}", server.url()));
    let database = Client::with_uri_str(&url).await.expect("a client").database(&name);
    let Opened::Remote(store) = open(url, options).await.expect("a store") else { panic!("it is a server's") };
    (server, store, database)
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_list_that_was_dropped_before_its_turn_asks_nothing() {
    let watched = Watched::filled().await;
    keys_of(&watched.store, request("limit=1")).await;
    watched.finds.lock().expect("no panic").clear();
    // Takes all permits, as calls do that get no answer.
    let lists = watched.store.inner.lists.clone();
    let all = u32::try_from(lists.available_permits()).expect("a few");
    let stuck = lists.acquire_many_owned(all).await.expect("all of them");
    for request in [ListRequest::default(), request("limit=10"), after(Key::int64(17)), request("sort=n&limit=10")] {
        for _ in 0..25 {
            timeout(Duration::from_millis(5), watched.store.list(request.clone()))
                .await
                .expect_err("it is not its turn");
        }
    }
    drop(stuck);
    assert_eq!(keys_of(&watched.store, ListRequest::default()).await.len(), 1_500);
    // Permits are granted in order, so earlier lists would have been sent before this one.
    assert_eq!(watched.finds.lock().expect("no panic").len(), 1);
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn lists_that_are_slow_leave_connections_to_lookups_and_to_pings() {
    let within = Duration::from_secs(3);
    let (_server, store, database) = stored("lists", Options { timeout: within, ..Options::default() }).await;
    let fast = doc! { "$ne": ["$_id", "slow"] };
    let slow = doc! { "$function": { "body": "function() { sleep(20000); return true }", "args": [], "lang": "js" } };
    let pipeline = [doc! { "$match": { "$expr": { "$or": [fast, slow] } } }];
    database.create_collection("records").view_on("documents").pipeline(pipeline).await.expect("a view");
    let documents = ["1", "2", "slow"].map(|id| doc! { "_id": id });
    database.collection("documents").insert_many(documents).await.expect("documents");
    assert!(store.get(&"1".into()).await.expect("a get").document.is_some());

    let mut lists = tokio::spawn({
        let store = store.clone();
        async move { futures::future::join_all((0..50).map(|_| store.list(ListRequest::default()))).await }
    });
    let mut answers = 0;
    let lists = loop {
        tokio::select! {
            lists = &mut lists => break lists.expect("the lists"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                store.ping().await.expect("a ping");
                assert!(store.get(&"2".into()).await.expect("a get").document.is_some());
                answers += 1;
            }
        }
    };
    assert!(answers > 0);
    for list in lists {
        assert!(list.expect_err("it is slow").is_unavailable());
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_collection_with_a_collation_is_listed_by_bytes_from_everywhere() {
    let (_server, store, database) = stored("language", Options::default()).await;
    let collation = || Collation::builder().locale("en".to_owned()).build();
    database.create_collection("records").collation(collation()).await.expect("a collection");
    let letters = ["a", "B", "c", "D", "\u{e9}", "E", "f"].map(Bson::from);
    let others = [1.into(), 7.5.into(), true.into(), doc! { "a": "B" }.into(), doc! { "a": "a" }.into()];
    let documents: Vec<_> = letters.into_iter().chain(others).map(|id| doc! { "_id": id, "n": 1 }).collect();
    database.collection("records").insert_many(documents.clone()).await.expect("documents");
    let expected = keys_of(&*store, request("n.eq=1")).await;
    assert!(expected.len() == 12 && expected.is_sorted());
    assert_eq!(keys_of(&*store, ListRequest::default()).await, expected);
    let snapshot: Vec<Row> = store.snapshot(None).await.expect("a list").rows.try_collect().await.expect("rows");
    assert_eq!(snapshot.len(), 12);
    for (index, key) in expected.iter().enumerate() {
        assert_eq!(keys_of(&*store, after(key.clone())).await, expected[index + 1..], "after {key:?}");
    }
    // A view refuses another collation, so the store sorts it.
    database.collection::<Bson>("records").drop().await.expect("a drop");
    let view = database.create_collection("records").view_on("documents").collation(collation());
    view.pipeline([]).await.expect("a view");
    database.collection("documents").insert_many(documents).await.expect("documents");
    assert_eq!(keys_of(&*store, ListRequest::default()).await, expected);
    assert_eq!(keys_of(&*store, request("_id.gte=\"B\"&_id.lt=\"c\"")).await.len(), 4);
    for (index, key) in expected.iter().enumerate() {
        let limited = ListRequest { limit: Some(3), ..after(key.clone()) };
        let rest = &expected[index + 1..];
        assert_eq!(keys_of(&*store, limited).await, rest[..rest.len().min(3)], "after {key:?}");
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_list_that_takes_long_in_all_has_time_for_each_step() {
    let within = Duration::from_secs(8);
    let (_server, store, database) = stored("steps", Options { timeout: within, ..Options::default() }).await;
    let slow = doc! { "$function": { "body": "function() { sleep(4); return true }", "args": [], "lang": "js" } };
    let pipeline = [doc! { "$match": { "$expr": slow } }];
    database.create_collection("records").view_on("documents").pipeline(pipeline).await.expect("a view");
    let documents: Vec<_> = (0..2_500).map(|id| doc! { "_id": id, "n": 1, "pad": "p".repeat(2_000) }).collect();
    database.collection("documents").insert_many(documents).await.expect("documents");
    let expected: Vec<_> = (0..2_500).map(Key::int64).collect();
    // 2,500 calls of 4 ms take longer than one call may.
    assert_eq!(keys_of(&*store, request("n.eq=1")).await, expected);
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn the_size_of_batches_follows_the_size_of_the_documents() {
    let watched = Watched::filled().await;
    let pad = |id: i32| if (1_000..1_200).contains(&id) { "x".repeat(100_000) } else { "x".repeat(100) };
    let documents = (0..5_000).map(|id| doc! { "_id": id, "pad": pad(id) }).collect::<Vec<_>>();
    let collection = watched.client.database(&watched.database).collection::<mongodb::bson::Document>("large");
    collection.insert_many(documents).await.expect("documents");
    let uri = watched.store.inner.client.get().uri().clone();
    let options = Options { collection: "large".to_owned(), ..Options::default() };
    let client = OnceCell::new_with(Some(watched.client.clone()));
    let store = MongoDb::new(Inner::new(uri, options, watched.database.clone(), client, 10), 10);
    watched.finds.lock().expect("no panic").clear();
    let keys = keys_of(&store, ListRequest::default()).await;
    assert_eq!(keys, (0..5_000).map(Key::int64).collect::<Vec<_>>());
    let finds = watched.finds.lock().expect("no panic").clone();
    let sizes: Vec<i64> = finds
        .iter()
        .map(|find| find.get_i64("batchSize").or(find.get_i32("batchSize").map(Into::into)).expect("a size"))
        .collect();
    // Batches shrink for large documents and grow again after them, without a new cursor for each batch.
    let smallest = sizes.iter().min().expect("a find");
    assert!(*smallest <= 10 && sizes.last() > Some(smallest) && sizes.len() < 30, "{sizes:?}");
}
