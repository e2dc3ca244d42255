//! Sorted pages against those of a memory store, by an index and without.

use std::collections::HashSet;

use futures::TryStreamExt;
use futures::future::join_all;
use mongodb::IndexModel;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Decimal128, Document as Tree, Timestamp};
use mongodb::options::Collation;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use super::super::*;
use super::documents;
use super::plans::{Explained, Watched};
use crate::document::{Value, extended_json};
use crate::query::Selection;
use crate::store::{Share, page, selected};

async fn memory() -> Arc<dyn Store> {
    crate::store::open("memory:", Options::default()).await.expect("a store")
}

fn parsed(text: &str) -> Document {
    extended_json::parse(text.as_bytes()).expect("a document")
}

async fn index_both_ways(collection: &Collection<Tree>, field: &str) {
    let index = |direction| IndexModel::builder().keys(doc! { field: direction, "_id": 1 }).build();
    collection.create_indexes([index(1), index(-1)]).await.expect("indexes");
}

/// Goes through a sorted list page by page, from the store and from memory; `look` is what to do after each page.
async fn alike(
    watched: &Watched,
    reference: &dyn Store,
    parameters: &[(&str, &str)],
    limit: usize,
    mut look: impl AsyncFnMut(),
) {
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let Selection { filters, sort, .. } = Selection::parse(&parameters).expect("parameters");
    let mut after = None;
    loop {
        let query = Query { filters: filters.clone(), ..Query::all() };
        let expected = page(reference, query.clone(), sort.as_ref(), after.clone(), limit, &mut Share::default())
            .await
            .expect("a page");
        let found =
            page(&watched.store, query, sort.as_ref(), after, limit, &mut Share::default()).await.expect("a page");
        assert_eq!(found, expected, "{parameters:?}");
        look().await;
        if found.next.is_none() {
            return;
        }
        after = found.next;
    }
}

/// As [`alike`], and what the server did for each page.
async fn sorted_alike(
    watched: &Watched,
    reference: &dyn Store,
    parameters: &[(&str, &str)],
    limit: usize,
) -> Vec<Vec<Explained>> {
    let mut pages = Vec::new();
    alike(watched, reference, parameters, limit, async || pages.push(watched.all_explained().await)).await;
    pages
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn an_order_reads_a_page_of_the_index_of_its_field_whatever_the_page() {
    let watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    index_both_ways(&collection, "v.n").await;
    let texts = (0..300).map(|n| match n % 6 {
        0 => format!(r#"{{"_id":"n{n}","v":{{"n":{}}}}}"#, n / 30),
        1 => format!(r#"{{"_id":"n{n}","v":{{"n":"{n}"}}}}"#),
        2 => format!(r#"{{"_id":"n{n}","v":{{"n":{{"$date":{{"$numberLong":"{}"}}}}}}}}"#, 1_000_000_000_i64 * n),
        3 => format!(r#"{{"_id":"n{n}","v":{{"n":{{"$oid":"{n:024x}"}}}}}}"#),
        4 => format!(r#"{{"_id":"n{n}","v":{{"n":{}}}}}"#, n % 4 == 0),
        _ => format!(r#"{{"_id":"n{n}","v":{{"n":null}}}}"#),
    });
    let documents: Vec<Document> = texts.map(|text| parsed(&text)).collect();
    watched.store.upsert(documents.clone()).await.expect("an upsert");
    let reference = memory().await;
    reference.upsert(documents).await.expect("an upsert");
    // What they have beside these is of no interest, and keeps the lists from ending with it.
    let those = [("v.exists", "true"), ("_id.gte", "n")];
    for sort in ["v.n", "-v.n"] {
        for page in sorted_alike(&watched, &*reference, &[those[0], those[1], ("sort", sort)], 10).await {
            for find in &page {
                assert!(!find.stages.iter().any(|stage| stage == "COLLSCAN"), "{sort}: {find:?}");
            }
        }
    }
    // Without filters to choose another index, and without what has no such field.
    let fewer = reference.as_embedded().expect("memory");
    for n in 0..300 {
        let keys = [
            Key::Integer(n),
            Key::String(format!("{n}").as_str().into()),
            Key::String(format!("{n:024x}").as_str().into()),
        ];
        keys.iter().for_each(|key| drop(fewer.remove(key)));
    }
    collection.delete_many(doc! { "v": { "$exists": false } }).await.expect("a removal");
    for sort in ["v.n", "-v.n"] {
        for page in sorted_alike(&watched, &*reference, &[("sort", sort)], 10).await {
            for find in &page {
                assert!(!find.stages.iter().any(|stage| stage == "COLLSCAN"), "{sort}: {find:?}");
                // A page and one record; or, of what is odd, decimals among the numbers.
                let most = if find.find.contains_key("limit") { 15 } else { 50 };
                assert!(find.documents <= most && find.keys <= most + 10, "{sort}: {find:?}");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn an_order_that_no_index_serves_is_one_list_in_memory() {
    let watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    index_both_ways(&collection, "v").await;
    let reference = memory().await;
    watched.store.upsert(vec![parsed(r#"{"_id":"array","v":[1]}"#)]).await.expect("an upsert");
    collection.delete_many(doc! { "v": { "$exists": false } }).await.expect("a removal");
    reference.upsert(vec![parsed(r#"{"_id":"array","v":[1]}"#)]).await.expect("an upsert");
    for sort in ["v", "-v", "w", "-w"] {
        for page in sorted_alike(&watched, &*reference, &[("sort", sort)], 10).await {
            assert_eq!(page.len(), 1, "{sort}: {page:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn pages_of_ids_whose_order_only_the_server_knows_have_every_record_once() {
    let mut watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    let decimal = |n: i32| format!("{n}.5").parse::<Decimal128>().expect("a decimal");
    let binary = |subtype, bytes| Binary { subtype, bytes };
    // Alone, and among others whose order is known.
    let ids: [&dyn Fn(i32) -> Bson; 6] = [
        &|n| doc! { "n": n }.into(),
        &|n| if n % 2 == 0 { doc! { "n": n }.into() } else { n.to_string().into() },
        &|n| if n == 1 { Bson::Null } else { n.into() },
        &|n| if n % 10 == 0 { decimal(n).into() } else { n.into() },
        &|n| match n % 3 {
            0 => binary(BinarySubtype::Uuid, n.to_be_bytes().repeat(4)).into(),
            1 => binary(BinarySubtype::Generic, n.to_be_bytes().repeat(4)).into(),
            _ => binary(BinarySubtype::Generic, n.to_be_bytes().into()).into(),
        },
        &|n| Timestamp { time: n as u32, increment: 1 }.into(),
    ];
    for id in ids {
        collection.drop().await.expect("a removal");
        for field in ["n", "alike"] {
            index_both_ways(&collection, field).await;
        }
        let documents = (1..=1_000).map(|n| doc! { "_id": id(n), "n": n / 100, "alike": true });
        collection.insert_many(documents).await.expect("an insertion");
        let reference = memory().await;
        let all: Vec<Record> = watched.store.list(Query::all()).try_collect().await.expect("a list");
        for record in all {
            reference.as_embedded().expect("memory").put(record).expect("a put");
        }
        // As if a minute had passed.
        watched.store.decimals = Decimals::default();
        for sort in ["_id", "-_id", "n", "-n", "alike"] {
            alike(&watched, &*reference, &[("sort", sort)], 100, async || ()).await;
        }
        let mut seen = HashSet::new();
        let mut after: Option<crate::query::Cursor> = None;
        loop {
            let found =
                page(&watched.store, Query::all(), None, after, 100, &mut Share::default()).await.expect("a page");
            assert!(found.records.iter().all(|record| seen.insert(record.key().clone())));
            after = found.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 1_000);
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn filters_go_by_bytes_in_a_collection_that_goes_by_a_language() {
    let watched = Watched::filled().await;
    let database = watched.client.database(&watched.database);
    database.collection::<Tree>("records").drop().await.expect("a removal");
    let english = Collation::builder().locale("en").build();
    database.create_collection("records").collation(english).await.expect("a collection");
    let collection = database.collection::<Tree>("records");
    collection.create_index(IndexModel::builder().keys(doc! { "name": 1 }).build()).await.expect("an index");
    let names = ["Zebra", "apple", "Apple", "zebra", "Äpfel", "banana"];
    collection.insert_many(names.map(|name| doc! { "_id": name, "name": name })).await.expect("an insertion");
    // Known to be short, which those with a limit are not asked.
    assert_eq!(watched.store.list(Query::all()).count().await, names.len());
    for limit in [None, Some(100)] {
        for (name, value, expected) in [
            ("name.lt", "apple", &["Apple", "Zebra"][..]),
            ("name.gt", "apple", &["banana", "zebra", "Äpfel"]),
            ("name.gte", "z", &["zebra", "Äpfel"]),
            ("name.eq", "apple", &["apple"]),
            ("_id.lt", "a", &["Apple", "Zebra"]),
        ] {
            let filters = Selection::parse(&[(name.to_owned(), value.to_owned())]).expect("a filter").filters;
            let query = Query { filters, limit, ..Query::all() };
            let found: Vec<Record> = selected(&watched.store, query).try_collect().await.expect("a list");
            let expected: Vec<_> = expected.iter().map(|id| Key::String((*id).into())).collect();
            let found: Vec<_> = found.iter().map(|record| record.key().clone()).collect();
            assert_eq!(found, expected, "{name}={value}, {limit:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn an_index_puts_any_values_in_the_order_of_their_json() {
    let watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    let paths = ["v", "v.t", "v.scope.a", "v.code"];
    let path = select(vec!["v", "v", "v", "v.t", "v.scope.a", "v.code"]);
    let asked = (path, any::<bool>(), 1..8_usize, select(vec![None, None, Some("exists"), Some("gte")]));
    let strategy = (vec(documents::mixed(), 1..40), vec(asked, 4..12));
    // Indexes take a while to make.
    let cases = Config::default().cases / 10;
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let runtime = tokio::runtime::Handle::current();
    let checked = tokio::task::block_in_place(|| {
        runner.run(&strategy, |(values, queries)| {
            runtime.block_on(async {
                // With the collection goes what its indexes know of arrays.
                collection.drop().await.expect("a removal");
                join_all(paths.map(|path| index_both_ways(&collection, path))).await;
                let documents: Vec<Document> = values.into_iter().enumerate().map(document).collect();
                let reference = memory().await;
                reference.upsert(documents.clone()).await.expect("an upsert");
                watched.store.upsert(documents).await.expect("an upsert");
                for (path, descending, limit, operator) in queries {
                    let sort = format!("{}{path}", if descending { "-" } else { "" });
                    let filter = operator.map(|operator| format!("{path}.{operator}"));
                    let value = if operator == Some("exists") { "true" } else { "b" };
                    let mut parameters = vec![("sort", &*sort)];
                    parameters.extend(filter.as_deref().map(|name| (name, value)));
                    alike(&watched, &*reference, &parameters, limit, async || ()).await;
                }
            });
            Ok(())
        })
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}

/// A name of digits is a place in an array to MongoDB, and a name to everybody else. An index by it does not tell whether it
/// has seen an array.
#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn an_index_by_places_in_arrays_is_none_by_names() {
    let watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    collection.drop().await.expect("a removal");
    index_both_ways(&collection, "v.0").await;
    let texts = [
        r#"{"_id":"A","v":["z"]}"#,
        r#"{"_id":"B","v":["y"]}"#,
        r#"{"_id":"C","v":["x"]}"#,
        r#"{"_id":"D","v":{"0":"w"}}"#,
        r#"{"_id":"E","v":{"0":"v"}}"#,
    ];
    let documents: Vec<Document> = texts.into_iter().map(parsed).collect();
    let reference = memory().await;
    reference.upsert(documents.clone()).await.expect("an upsert");
    watched.store.upsert(documents).await.expect("an upsert");
    for sort in ["v.0", "-v.0"] {
        alike(&watched, &*reference, &[("sort", sort)], 2, async || ()).await;
    }
}

/// Not in the order in which they are stored, and without the arrays that would keep the index from being used.
fn document((index, value): (usize, Option<Value>)) -> Document {
    let id = Value::Int32((index as i32 * 37) % 41);
    let value = value.filter(|value| !matches!(value, Value::Array(_)));
    Document::new([("_id".into(), id)].into_iter().chain(value.map(|value| ("v".into(), value))).collect())
        .expect("a document")
}
