//! Lookups in unusual collections.

use mongodb::options::Collation;

use super::super::*;
use super::servers::{mongod, unused_name, url};

pub async fn stored(name: &str) -> (Option<mongod::Mongod>, Arc<dyn Store>, mongodb::Database) {
    let name = unused_name(name);
    let server = mongod::program().map(|_| mongod::Mongod::start().expect("a server"));
    let url = server
        .as_ref()
        .map_or_else(|| url("mongodb", &name).expect("TEST_MONGODB_URL"), |server| format!("{}/{name}", server.url()));
    let database = Client::with_uri_str(&url).await.expect("a client").database(&name);
    (server, open(url, Options::default()).await.expect("a store").into_store(), database)
}

/// Returns the URL of the server that [`stored`] used, without a path.
pub fn server_url(server: &Option<mongod::Mongod>) -> String {
    let url = server.as_ref().map_or_else(|| url("mongodb", "").expect("TEST_MONGODB_URL"), mongod::Mongod::url);
    url.trim_end_matches('/').to_owned()
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn an_id_that_repeats_in_a_view_finds_one_of_its_documents_and_hides_no_other() {
    let (_server, store, database) = stored("repeating").await;
    let copies = doc! { "$set": { "copy": { "$cond": [{ "$lt": ["$_id", 5] }, { "$range": [0, 400] }, [0]] } } };
    let view = database.create_collection("records").view_on("documents");
    view.pipeline([copies, doc! { "$unwind": "$copy" }]).await.expect("a view");
    let documents: Vec<_> = (0..60).map(|id| doc! { "_id": id }).collect();
    database.collection("documents").insert_many(documents).await.expect("documents");
    for _ in 0..3 {
        let ids: Vec<RecordId> = (0..61).map(|id: i32| id.to_string().into()).collect();
        let results = futures::future::join_all(ids.iter().map(|id| store.get(id))).await;
        for (id, result) in (0..).zip(results) {
            let result = result.expect("a lookup");
            assert_eq!(result.document.as_ref().map(Document::key), (id < 60).then_some(&Key::int64(id)));
            assert_eq!(result.is_ambiguous, id < 5, "{id}");
        }
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_collection_with_a_collation_finds_an_id_by_its_bytes() {
    let (_server, store, database) = stored("collated").await;
    let collation = Collation::builder().locale("en".to_owned()).strength(mongodb::options::CollationStrength::Primary);
    database.create_collection("records").collation(collation.build()).await.expect("a collection");
    let documents = [doc! { "_id": "Ada" }, doc! { "_id": "bob" }];
    database.collection("records").insert_many(documents).await.expect("documents");
    for (id, is_found) in [("Ada", true), ("ada", false), ("bob", true), ("BOB", false)] {
        let found = store.get(&id.into()).await.expect("a lookup").document;
        assert_eq!(found.is_some(), is_found, "{id}");
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_typed_id_shadows_the_string_whatever_was_found_before() {
    let (_server, store, database) = stored("shadows").await;
    let documents =
        [doc! { "_id": 1 }, doc! { "_id": "1" }, doc! { "_id": "2" }, doc! { "_id": "3" }, doc! { "_id": 4 }];
    database.collection("records").insert_many(documents).await.expect("documents");
    for (id, key) in [
        ("1", Some(Key::int64(1))),
        ("2", Some(Key::string("2"))),
        ("1", Some(Key::int64(1))),
        ("3", Some(Key::string("3"))),
        ("3", Some(Key::string("3"))),
        ("4", Some(Key::int64(4))),
        ("5", None),
    ] {
        let found = store.get(&id.into()).await.expect("a lookup").document;
        assert_eq!(found.map(|document| document.key().clone()), key, "{id}");
    }
}
