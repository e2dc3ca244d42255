//! Collections and databases that do not exist, and writes that the server refuses.

use super::super::*;
use super::lookups::stored;
use crate::document::extended_json;

async fn degraded(store: &dyn Store) -> Option<String> {
    store.health().await.expect("a server").degraded
}

async fn open_as(server: &str, database: &str, collection: &str) -> Arc<dyn Store> {
    let options = Options { collection: collection.to_owned(), ..Options::default() };
    open(format!("{server}/{database}"), options).await.expect("a store").into_store()
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_collection_or_database_that_does_not_exist_is_named_with_similar_names() {
    let (server, store, database) = stored("shop").await;
    let name = database.name().to_owned();
    let said = degraded(&*store).await.expect("a reason");
    // A shared server may have databases with similar names.
    assert!(said.starts_with(&format!("there is no collection records in the database {name}")), "{said}");
    database.collection("orders").insert_one(doc! { "_id": 1 }).await.expect("a document");
    let url = super::lookups::server_url(&server);
    let typo = open_as(&url, &name, "ordes").await;
    let said = degraded(&*typo).await.expect("a reason");
    assert_eq!(
        said,
        format!(
            "there is no collection ordes in the database {name} (there are collections with similar names: orders)"
        )
    );
    let typo = open_as(&url, &format!("x{name}"), "orders").await;
    let said = degraded(&*typo).await.expect("a reason");
    assert!(said.contains("(there are databases with similar names: ") && said.contains(&name), "{said}");
    assert_eq!(degraded(&*open_as(&url, &name, "orders").await).await, None);
    // It is noticed when it is created, or looks empty.
    database.collection("records").insert_one(doc! { "_id": 1 }).await.expect("a document");
    store.list(ListRequest::default()).await.expect("a list");
    let begin = std::time::Instant::now();
    while let Some(said) = degraded(&*store).await {
        assert!(begin.elapsed() < std::time::Duration::from_secs(60), "{said}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_write_that_is_refused_in_part_says_what_was_stored_and_what_was_not() {
    let (_server, store, database) = stored("refusing").await;
    let unique = mongodb::options::IndexOptions::builder().unique(true).build();
    let index = mongodb::IndexModel::builder().keys(doc! { "e": 1 }).options(unique).build();
    database.collection::<Bdoc>("records").create_index(index).await.expect("an index");
    let texts = [r#"{"_id":1,"e":"secret-4711"}"#, r#"{"_id":2,"e":"secret-4711"}"#, r#"{"_id":3,"e":"c"}"#];
    let documents = texts.map(|text| extended_json::parse(text.as_bytes()).expect("a document")).to_vec();
    let error = store.upsert(documents).await.expect_err("a duplicate");
    assert_eq!((error.kind(), error.remedy()), (crate::store::Kind::Invalid, Some("Correct them")));
    let outcome = error.outcome().expect("an outcome");
    assert_eq!((outcome.stored, outcome.unknown, outcome.refused.len()), (2, 0, 1));
    let refused = &outcome.refused[0];
    assert_eq!(refused.document.as_ref().map(Document::key), Some(&Key::int64(2)));
    assert!(refused.reason.starts_with("code 11000 (DuplicateKey): "), "{}", refused.reason);
    assert!(!error.report().to_string().contains("4711"), "{}", error.report());
    assert_eq!(database.collection::<Bdoc>("records").count_documents(doc! {}).await.expect("a count"), 2);
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_write_into_a_view_is_not_to_be_tried_again() {
    let (_server, store, database) = stored("writing").await;
    database.create_collection("records").view_on("documents").await.expect("a view");
    let document = extended_json::parse(br#"{"_id":"secret-4711"}"#).expect("a document");
    let error = store.upsert(vec![document]).await.expect_err("a view");
    assert_eq!(error.remedy(), Some("It is a view: name the collection that it shows"));
    assert!(!error.report().to_string().contains("4711"), "{}", error.report());
}
