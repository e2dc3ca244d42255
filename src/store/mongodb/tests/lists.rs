//! Lists: whose turn it is to ask MongoDB, and what must not wait for them; what they have where a collection is unlike others.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::bson::Bson;
use mongodb::options::Collation;
use tokio::time::timeout;

use super::super::*;
use super::plans::Watched;
use super::servers::{mongod, url};
use crate::query::Selection;

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_list_that_nobody_waits_for_any_more_asks_nothing() {
    let watched = Watched::filled().await;
    let by_field = [("sort".to_owned(), "n".to_owned())];
    let sort = Selection::parse(&by_field).expect("parameters").sort.expect("an order");
    let order = crate::store::Order { sort, after: None, limit: 10 };
    let kinds = [
        Query::all(),
        Query { limit: Some(10), ..Query::all() },
        Query::after(Key::Integer(17)),
        Query { order: Some(order), ..Query::all() },
    ];
    // As calls do that are not answered.
    let lists = watched.store.inner.lists.clone();
    let all = u32::try_from(lists.available_permits()).expect("a few");
    let stuck = lists.acquire_many_owned(all).await.expect("all of them");
    for query in kinds.iter().cycle().take(100) {
        let mut list = watched.store.list(query.clone());
        timeout(Duration::from_millis(5), list.next()).await.expect_err("it is not its turn");
    }
    drop(stuck);
    let all: Vec<Record> = watched.store.list(Query::all()).try_collect().await.expect("a list");
    assert_eq!(all.len(), 1_500);
    // What had waited before it would have been asked before it.
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
    assert!(store.get(&"1".into()).await.expect("a get").record.is_some());

    for _ in 0..2 {
        let lists = (0..50).map(|_| store.list(Query::all()).try_collect::<Vec<_>>());
        let lists = tokio::spawn(futures::future::join_all(lists));
        let begin = std::time::Instant::now();
        while begin.elapsed() < within / 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            store.ping().await.expect("a ping");
            assert!(store.get(&"2".into()).await.expect("a get").record.is_some());
        }
        assert!(!lists.is_finished());
        for list in lists.await.expect("the lists") {
            assert!(list.expect_err("it is slow").is_unavailable());
        }
    }
}

/// A store of an empty database on a server of its own, or else on the one that is named, and the database.
async fn stored(name: &str, options: Options) -> (Option<mongod::Mongod>, Arc<dyn Store>, mongodb::Database) {
    let name = format!("{name}_{}", std::process::id());
    let server = mongod::program().map(|_| mongod::Mongod::start().expect("a server"));
    let url = server
        .as_ref()
        .map_or_else(|| url("mongodb", &name).expect("TEST_MONGODB_URL"), |server| format!("{}/{name}", server.url()));
    let database = Client::with_uri_str(&url).await.expect("a client").database(&name);
    (server, open(url, options).await.expect("a store"), database)
}

pub async fn keys_of(store: &dyn Store, query: Query) -> Vec<Key> {
    let records: Vec<Record> = store.list(query).try_collect().await.expect("a list");
    records.iter().map(|record| record.key().clone()).collect()
}

pub fn filtered(name: &str, value: &str) -> Query {
    let filters = Selection::parse(&[(name.to_owned(), value.to_owned())]).expect("a filter").filters;
    Query { filters, ..Query::all() }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_collection_in_the_order_of_a_language_is_listed_in_ours_from_everywhere() {
    let (_server, store, database) = stored("language", Options::default()).await;
    let language = Collation::builder().locale("en".to_owned()).build();
    database.create_collection("records").collation(language).await.expect("a collection");
    let letters = ["a", "B", "c", "D", "\u{e9}", "E", "f"].map(Bson::from);
    let ids = letters.into_iter().chain([
        1.into(),
        7.5.into(),
        true.into(),
        doc! { "a": "B" }.into(),
        doc! { "a": "a" }.into(),
    ]);
    let documents: Vec<_> = ids.map(|id| doc! { "_id": id, "n": 1 }).collect();
    database.collection("records").insert_many(documents).await.expect("documents");
    let expected = keys_of(&*store, filtered("n.eq", "1")).await;
    assert_eq!(expected.len(), 12);
    assert!(expected.iter().map(Key::rank).is_sorted());
    assert_eq!(keys_of(&*store, Query::all()).await, expected);
    let snapshot: Vec<Record> = store.snapshot().try_collect().await.expect("a list");
    assert!(snapshot.iter().map(Record::key).eq(&expected));
    for (index, after) in expected.iter().enumerate() {
        let behind = &expected[index + 1..];
        assert_eq!(keys_of(&*store, Query::after(after.clone())).await, behind, "behind {after:?}");
        let begun = keys_of(&*store, Query { limit: Some(2), ..Query::after(after.clone()) }).await;
        assert!(behind.starts_with(&begun) && begun.len() >= behind.len().min(2), "behind {after:?}: {begun:?}");
    }
    // A view has no other order than its own.
    database.collection::<Bson>("records").drop().await.expect("a drop");
    let language = Collation::builder().locale("en".to_owned()).build();
    let view = database.create_collection("records").view_on("documents").collation(language);
    view.pipeline([]).await.expect("a view");
    database.collection("documents").insert_many([doc! { "_id": "b" }, doc! { "_id": "A" }]).await.expect("documents");
    for query in [Query::all(), Query { limit: Some(2), ..Query::all() }] {
        assert_eq!(keys_of(&*store, query).await.len(), 2);
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_record_that_the_server_finds_twice_is_listed_once() {
    let (_server, store, database) = stored("twice", Options::default()).await;
    // As it may find one that is removed and put again while it reads.
    let pipeline = [doc! { "$set": { "twice": [1, 2] } }, doc! { "$unwind": "$twice" }];
    database.create_collection("records").view_on("documents").pipeline(pipeline).await.expect("a view");
    let documents: Vec<_> = (0..1_500).map(|id| doc! { "_id": id, "n": 1 }).collect();
    database.collection("documents").insert_many(documents).await.expect("documents");
    let expected: Vec<_> = (0..1_500).map(Key::Integer).collect();
    for query in [Query::all(), Query { limit: Some(9_999), ..Query::all() }, filtered("n.eq", "1")] {
        assert!(keys_of(&*store, query.clone()).await == expected, "{query:?}");
    }
    assert!(keys_of(&*store, Query::after(Key::Integer(1_000))).await == expected[1_001..]);
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_list_that_takes_long_in_all_has_time_for_each_step() {
    let within = Duration::from_secs(8);
    let (_server, store, database) = stored("steps", Options { timeout: within, ..Options::default() }).await;
    let slow = doc! { "$function": { "body": "function() { sleep(4); return true }", "args": [], "lang": "js" } };
    let pipeline = [doc! { "$match": { "$expr": slow } }];
    database.create_collection("records").view_on("documents").pipeline(pipeline).await.expect("a view");
    let documents: Vec<_> = (0..2_500).map(|id| doc! { "_id": id, "n": 1 }).collect();
    database.collection("documents").insert_many(documents).await.expect("documents");
    let begin = std::time::Instant::now();
    // A hundred at a time.
    let query = Query { limit: Some(100), ..filtered("n.eq", "1") };
    let expected: Vec<_> = (0..2_500).map(Key::Integer).collect();
    assert!(keys_of(&*store, query).await == expected);
    assert!(begin.elapsed() > within);
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD"]
async fn a_list_that_is_dropped_leaves_no_cursor_on_the_secondary_that_has_it() {
    // Of a set that is started for it, and nothing else.
    if mongod::program().is_none() {
        return;
    }
    let set = mongod::Mongod::start_set_of(3).expect("a replica set");
    let plain = |server: &mongod::Mongod| format!("mongodb://127.0.0.1:{}/?directConnection=true", server.port());
    let url = format!("mongodb://127.0.0.1:{}/cursors?replicaSet=rs0&w=3&readPreference=secondary", set[0].port());
    let documents: Vec<_> = (0..10_000).map(|id| doc! { "_id": id, "n": 1 }).collect();
    let client = Client::with_uri_str(&url).await.expect("a client");
    client.database("cursors").collection("records").insert_many(documents).await.expect("documents");
    let store = open(url, Options::default()).await.expect("a store");
    let open_cursors = async || {
        let mut open = 0;
        for server in &set[1..] {
            let client = Client::with_uri_str(plain(server)).await.expect("a client");
            let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await.expect("a status");
            let cursors = status.get_document("metrics").and_then(|metrics| metrics.get_document("cursor"));
            open += cursors
                .and_then(|cursors| cursors.get_document("open"))
                .and_then(|open| open.get_i64("total"))
                .expect("a number");
        }
        open
    };
    // What the members read of one another they read by cursors too.
    let before = open_cursors().await;
    for query in [Query::after(Key::Integer(0)), filtered("n.eq", "1")].iter().cycle().take(10) {
        let mut list = store.list(query.clone());
        list.next().await.expect("a list").expect("a record");
    }
    let begin = std::time::Instant::now();
    while open_cursors().await > before {
        assert!(begin.elapsed() < Duration::from_secs(20), "{} cursors are left", open_cursors().await - before);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_batch_is_never_much_larger_than_it_should_be_whatever_the_records_are() {
    let watched = Watched::filled().await;
    let filler = |id: i32| if (1_000..1_200).contains(&id) { "x".repeat(100_000) } else { "x".repeat(100) };
    let documents = (0..5_000).map(|id| doc! { "_id": id, "filler": filler(id) }).collect::<Vec<_>>();
    let collection = watched.client.database(&watched.database).collection::<mongodb::bson::Document>("large");
    collection.insert_many(documents).await.expect("documents");
    let uri = watched.store.inner.uri.clone();
    let options = Options { collection: "large".to_owned(), ..Options::default() };
    let client = OnceCell::new_with(Some(watched.client.clone()));
    let store = MongoDb::new(Inner::new(uri, options, watched.database.clone(), client, 10), 10);
    for after in [None, Some(Key::Integer(-1)), Some(Key::Integer(999))] {
        let (batches, mut reading) = ahead::batches(Held::default());
        let query = Query { after: after.clone(), ..Query::all() };
        let reader = tokio::spawn(store.clone().read(query, false, batches));
        let mut keys = Vec::new();
        while let Some(batch) = reading.next().await.expect("an end").expect("a batch") {
            let bytes = ahead::bytes_of(&batch.records);
            assert!(bytes <= 2 * ahead::BATCH_BYTES, "{bytes} bytes");
            keys.extend(batch.records.iter().map(|record| record.key().clone()));
        }
        reader.await.expect("no panic");
        let begin = if after == Some(Key::Integer(999)) { 1_000 } else { 0 };
        assert!(keys == (begin..5_000).map(Key::Integer).collect::<Vec<_>>(), "{} keys", keys.len());
    }
    // Of the small ones there are as many in a batch as there may be.
    let few = watched.finds.lock().expect("no panic").len();
    assert!(few < 30, "{few} finds");
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn an_order_does_not_keep_a_list_from_beginning_behind_a_key() {
    let watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<mongodb::bson::Document>("records");
    let model = mongodb::IndexModel::builder().keys(doc! { "_id": 1, "n": 1 }).build();
    collection.create_index(model).await.expect("an index");
    let sort = Selection::parse(&[("sort".to_owned(), "_id".to_owned())]).expect("parameters").sort.expect("an order");
    let order = crate::store::Order { sort, after: None, limit: 10 };
    let after = Some(Key::Integer(100));
    let keys = keys_of(&watched.store, Query { after: after.clone(), order: Some(order), ..Query::all() }).await;
    assert!(!keys.is_empty() && keys.iter().all(|key| Some(key) > after.as_ref()), "{:?}", keys.first());
}
