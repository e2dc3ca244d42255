//! Collections of every kind that MongoDB has: each serves lookups, lists, pages and sorted pages.

use std::collections::HashMap;
use std::time::Duration;

use ::mongodb::bson::{Bson, Document as Tree, RawDocumentBuf, doc};
use ::mongodb::options::ClientOptions;
use ::mongodb::{Client, Database};
use futures::TryStreamExt;
use records::query::{Cursor, Position};
use records::record::{Document, Key, RecordId};
use records::store::{ListRequest, Store, page};

use crate::harness::{ALL, Context, cases, get, id_of, list, pages, request, reservation, rows};

cases! {
    MongoDb by context {
        a_plain_collection_serves,
        an_indexed_collection_serves,
        an_index_that_sees_its_first_array_between_two_pages_serves,
        a_view_serves,
        a_view_with_a_collation_serves,
        a_view_whose_ids_repeat_serves,
        a_view_whose_ids_are_arrays_serves,
        a_view_with_too_many_records_of_one_id_has_no_page_of_them,
        a_view_without_ids_is_listed_and_has_no_pages,
        a_time_series_serves,
        a_capped_collection_serves,
        a_clustered_collection_serves,
        a_collection_with_a_collation_serves,
    }
}

/// The collection that the store opens.
const NAME: &str = "records";

async fn database(context: &Context) -> Database {
    let client = Client::with_uri_str(context.url()).await.expect("a client");
    client.default_database().expect("the URL names a database")
}

/// Returns the version of a server; `None` if it does not answer.
pub async fn version(url: &str) -> Option<String> {
    let mut options = ClientOptions::parse(url).await.ok()?;
    options.server_selection_timeout = Some(Duration::from_secs(10));
    let database = Client::with_options(options).ok()?.database("admin");
    let build = database.run_command(doc! { "buildInfo": 1 }).await.ok()?;
    build.get_str("version").ok().map(str::to_owned)
}

async fn create(database: &Database, options: Tree) {
    let mut command = doc! { "create": NAME };
    command.extend(options);
    database.run_command(command).await.expect("a collection");
}

async fn create_view(database: &Database, pipeline: Vec<Tree>) {
    create(database, doc! { "viewOn": "documents", "pipeline": pipeline }).await;
}

async fn insert(database: &Database, collection: &str, documents: impl IntoIterator<Item = Tree>) {
    database.collection::<Tree>(collection).insert_many(documents).await.expect("documents");
}

/// Returns unordered documents with ids of several types, and with fields that repeat, are missing, differ in case, or are
/// arrays.
fn varied() -> Vec<Tree> {
    const TEXTS: &[&str] = &["a", "B", "b", "A", "é", "e", "Z", "a b", ""];
    let documents = (0..40_i32).map(|n| {
        let n = (n * 17) % 40;
        let id = match n % 4 {
            0 => Bson::Int32(n),
            1 => Bson::String(format!("{}{n}", TEXTS[n as usize % TEXTS.len()])),
            2 => Bson::Double(f64::from(n) + 0.5),
            _ => Bson::Document(doc! { "n": n }),
        };
        let mut document = doc! { "_id": id, "n": n, "s": TEXTS[n as usize % TEXTS.len()] };
        match n % 5 {
            0 => drop(document.insert("v", n % 3)),
            1 => drop(document.insert("v", "text")),
            2 => drop(document.insert("v", vec![n, 1, 20 - n])),
            3 => drop(document.insert("v", doc! { "x": n % 2 })),
            _ => {}
        }
        document
    });
    documents.collect()
}

const REQUESTS: &[&[(&str, &str)]] = &[
    &[],
    &[("n.gte", "10"), ("n.lt", "30")],
    &[("s.eq", "a")],
    &[("s.ne", "A")],
    &[("s.gt", "B")],
    &[("_id.gte", "")],
    &[("fields", "s")],
    &[("sort", "n")],
    &[("sort", "-s")],
    &[("sort", "s,-v")],
    &[("sort", "v")],
    &[("sort", "-v,n")],
    &[("sort", "-_id")],
    &[("sort", "v.x,-n"), ("s.in", "a,A,é,")],
    &[("sort", "-v"), ("fields", "n"), ("n.ne", "7")],
    &[("sort", "missing")],
    &[("sort", "-s"), ("v.exists", "false")],
];

/// Returns the rows by their position in the order, and rows with the same position by their bytes.
fn placed(request: &ListRequest, documents: impl IntoIterator<Item = Document>) -> Vec<(Vec<u8>, Document)> {
    let place = |document: Document| {
        let position = request.sort.position(&document).expect("a position");
        (position.as_bytes().to_vec(), document)
    };
    let mut placed: Vec<_> = documents.into_iter().map(place).collect();
    placed.sort_by(|a, b| (&a.0, a.1.bson()).cmp(&(&b.0, b.1.bson())));
    placed
}

async fn serves(context: &Context, database: &Database) {
    let all: Vec<RawDocumentBuf> =
        database.collection(NAME).find(doc! {}).await.expect("a find").try_collect().await.expect("documents");
    let all: Vec<_> = all.into_iter().map(|raw| Document::new(raw.into_bytes()).expect("BSON")).collect();
    assert!(!all.is_empty());
    let store = context.open(NAME).await.into_store();
    serves_lookups(&*store, &all).await;
    for parameters in REQUESTS {
        serves_list(&*store, &all, &request(parameters)).await;
    }
}

async fn serves_lookups(store: &dyn Store, all: &[Document]) {
    let mut by_key: HashMap<&Key, Vec<&Document>> = HashMap::new();
    all.iter().for_each(|document| by_key.entry(document.key()).or_default().push(document));
    let ids: Vec<RecordId> = all.iter().map(id_of).chain(["none", "-1", "A b0", "E9"].map(RecordId::from)).collect();
    // Single lookups, and batches of them.
    let mut results = Vec::new();
    for id in &ids {
        results.push(store.get(id).await);
    }
    results.extend(futures::future::join_all(ids.iter().map(|id| store.get(id))).await);
    for (id, result) in ids.iter().chain(&ids).zip(results) {
        let result = result.unwrap_or_else(|error| panic!("get of {id:?}: {}", error.report()));
        let found = id.keys().iter().find_map(|key| by_key.get(key));
        assert_eq!(result.document.is_some(), found.is_some(), "{id:?}");
        if let (Some(document), Some(found)) = (&result.document, found) {
            assert!(found.contains(&document), "{id:?}: {document:?}");
        }
        assert_eq!(result.is_ambiguous, found.is_some_and(|found| found.len() > 1), "{id:?}");
    }
}

async fn serves_list(store: &dyn Store, all: &[Document], request: &ListRequest) {
    let matching = all.iter().filter(|document| request.filter.matches(document.bson()).expect("BSON"));
    let whole = placed(request, matching.cloned());
    let limit = (!request.sort.is_empty()).then_some(ALL);
    let listed = rows(store, ListRequest { limit, ..request.clone() }).await;
    assert!(listed.is_sorted_by_key(|row| row.position()), "{request:?}");
    let mut expected: Vec<_> = whole
        .into_iter()
        .map(|(place, document)| match &request.projection {
            Some(projection) => (place, projection.apply(&document).expect("BSON")),
            None => (place, document),
        })
        .collect();
    expected.sort_by(|a, b| (&a.0, a.1.bson()).cmp(&(&b.0, b.1.bson())));
    let listed = listed.into_iter().map(|row| (row.position().as_bytes().to_vec(), row.document));
    let mut listed: Vec<_> = listed.collect();
    listed.sort_by(|a, b| (&a.0, a.1.bson()).cmp(&(&b.0, b.1.bson())));
    assert_eq!(listed, expected, "{request:?}");
    for limit in 1..=7 {
        serves_pages(store, &expected, request, limit).await;
    }
}

/// Checks that each page has `limit` rows, and those that share the position of its last one.
async fn serves_pages(store: &dyn Store, expected: &[(Vec<u8>, Document)], request: &ListRequest, limit: usize) {
    let mut rest = expected;
    for mut page in pages(store, request, limit).await {
        let mut end = limit.min(rest.len());
        while end > 0 && end < rest.len() && rest[end].0 == rest[end - 1].0 {
            end += 1;
        }
        let (mut due, later) = (rest[..end].iter().map(|(_, document)| document.clone()).collect::<Vec<_>>(), rest);
        // A projection may have removed the sort fields, so rows with the same position are compared as a set.
        due.sort_by(|a, b| a.bson().cmp(b.bson()));
        page.sort_by(|a, b| a.bson().cmp(b.bson()));
        assert_eq!(page, due, "{request:?}, {limit} a page");
        rest = &later[end..];
    }
    assert!(rest.is_empty(), "{request:?}, {limit} a page");
}

async fn a_plain_collection_serves(context: &Context) {
    let database = database(context).await;
    insert(&database, NAME, varied()).await;
    serves(context, &database).await;
}

async fn an_indexed_collection_serves(context: &Context) {
    let database = database(context).await;
    let index = |key: Tree, name: &str| doc! { "key": key, "name": name };
    let indexes = vec![
        index(doc! { "n": 1, "_id": 1 }, "n"),
        index(doc! { "v": 1, "_id": 1 }, "v"),
        index(doc! { "s": 1, "v": -1, "_id": 1 }, "s_v"),
        index(doc! { "v.x": 1, "n": -1, "_id": 1 }, "x_n"),
        index(doc! { "s": -1, "_id": 1 }, "s"),
    ];
    database.run_command(doc! { "createIndexes": NAME, "indexes": indexes }).await.expect("indexes");
    insert(&database, NAME, varied()).await;
    serves(context, &database).await;
}

/// The cursor says that there were no arrays. Records that exist throughout must still be listed exactly once.
async fn an_index_that_sees_its_first_array_between_two_pages_serves(context: &Context) {
    let database = database(context).await;
    let index = doc! { "key": { "v": 1, "_id": 1 }, "name": "v" };
    database.run_command(doc! { "createIndexes": NAME, "indexes": [index] }).await.expect("an index");
    insert(&database, NAME, (0..20).map(|n| doc! { "_id": n, "v": n })).await;
    let store = context.open(NAME).await.into_store();
    for sort in ["v", "-v"] {
        let mut request = request(&[("sort", sort)]);
        let mut keys = Vec::new();
        for round in 0.. {
            let page = page(&*store, &request, 3, &mut reservation()).await.expect("a page");
            keys.extend(page.documents.iter().map(|document| document.key().clone()));
            let Some(next) = page.next else { break };
            request.after = Some(next);
            let array = doc! { "_id": format!("{sort}{round}"), "v": [-1, round, 100] };
            insert(&database, NAME, [array]).await;
        }
        let mut numbers: Vec<_> = keys.iter().filter(|key| key.rank() == Key::int64(0).rank()).cloned().collect();
        if sort == "-v" {
            numbers.reverse();
        }
        assert_eq!(numbers, (0..20).map(Key::int64).collect::<Vec<_>>(), "{sort}");
        database.collection::<Tree>(NAME).delete_many(doc! { "_id": { "$type": "string" } }).await.expect("a delete");
    }
}

async fn a_view_serves(context: &Context) {
    let database = database(context).await;
    insert(&database, "documents", varied()).await;
    create_view(&database, vec![doc! { "$set": { "m": { "$add": ["$n", 1] } } }]).await;
    serves(context, &database).await;
}

fn collation() -> Tree {
    doc! { "locale": "en", "strength": 1 }
}

async fn a_view_with_a_collation_serves(context: &Context) {
    let database = database(context).await;
    create_collated(&database, "documents").await;
    insert(&database, "documents", varied()).await;
    create(&database, doc! { "viewOn": "documents", "pipeline": [], "collation": collation() }).await;
    serves(context, &database).await;
}

async fn create_collated(database: &Database, name: &str) {
    database.run_command(doc! { "create": name, "collation": collation() }).await.expect("a collection");
}

async fn a_view_whose_ids_repeat_serves(context: &Context) {
    let database = database(context).await;
    insert(&database, "documents", varied()).await;
    let copies = doc! { "$cond": [{ "$lt": ["$n", 8] }, { "$range": [0, "$n"] }, [0]] };
    create_view(&database, vec![doc! { "$set": { "copy": copies } }, doc! { "$unwind": "$copy" }]).await;
    serves(context, &database).await;
}

async fn a_view_whose_ids_are_arrays_serves(context: &Context) {
    let database = database(context).await;
    insert(&database, "documents", varied()).await;
    let id = doc! { "$cond": [{ "$lt": ["$n", 20] }, [{ "$mod": ["$n", 3] }, "$s", "$n"], "$_id"] };
    create_view(&database, vec![doc! { "$set": { "_id": id } }]).await;
    serves(context, &database).await;
}

async fn a_view_with_too_many_records_of_one_id_has_no_page_of_them(context: &Context) {
    let database = database(context).await;
    insert(&database, "documents", [doc! { "_id": 1 }, doc! { "_id": "many", "text": "x".repeat(300_000) }]).await;
    let copies = doc! { "$cond": [{ "$eq": ["$_id", "many"] }, { "$range": [0, 40] }, [0]] };
    create_view(&database, vec![doc! { "$set": { "copy": copies } }, doc! { "$unwind": "$copy" }]).await;
    let store = context.open(NAME).await.into_store();
    assert_eq!(list(&*store, None).await.len(), 41);
    for sort in [None, Some(("sort", "-_id"))] {
        let mut request = request(&sort.into_iter().collect::<Vec<_>>());
        if sort.is_none() {
            let first = page(&*store, &request, 1, &mut reservation()).await.expect("a page");
            assert_eq!(first.documents.len(), 1);
            request.after = first.next;
        }
        let error = page(&*store, &request, 1, &mut reservation()).await.expect_err("12 MB in one page");
        let (parameter, detail) = error.rejection().expect("a rejection");
        assert!(parameter == "limit" && detail.contains(r#""many""#), "{detail}");
    }
}

async fn a_view_without_ids_is_listed_and_has_no_pages(context: &Context) {
    let database = database(context).await;
    insert(&database, "documents", varied()).await;
    create_view(&database, vec![doc! { "$unset": "_id" }]).await;
    let store = context.open(NAME).await.into_store();
    let listed = list(&*store, None).await;
    assert_eq!(listed.len(), 40);
    assert!(listed.iter().all(|document| document.key().is_missing()));
    let numbers = rows(&*store, request(&[("n.gte", "10"), ("n.lt", "20")])).await;
    assert_eq!(numbers.len(), 10);
    assert_eq!(get(&*store, "1").await, None);
    assert_eq!(get(&*store, "null").await, None);
    let after = Some(Cursor { position: Position::of_key(&Key::int64(3)), no_arrays: false });
    let error = store.list(ListRequest { after, ..ListRequest::default() }).await.expect_err("no ids, none after one");
    assert_eq!(error.rejection().map(|(parameter, _)| parameter), Some("after_id"), "{}", error.report());
    for parameters in [&[][..], &[("sort", "n")], &[("n.gt", "5")]] {
        let error = page(&*store, &request(parameters), 3, &mut reservation()).await.expect_err("no ids, no pages");
        assert_eq!(error.rejection().map(|(parameter, _)| parameter), Some("limit"), "{}", error.report());
    }
}

async fn a_time_series_serves(context: &Context) {
    let database = database(context).await;
    create(&database, doc! { "timeseries": { "timeField": "t", "metaField": "m" } }).await;
    let measurements = varied().into_iter().enumerate().map(|(at, mut document)| {
        let at = at as i64;
        document.insert("t", ::mongodb::bson::DateTime::from_millis(1_700_000_000_000 + at * 977));
        document.insert("m", at % 3);
        if at % 7 == 0 {
            document.insert("_id", "repeats");
        }
        document
    });
    insert(&database, NAME, measurements).await;
    serves(context, &database).await;
}

async fn a_capped_collection_serves(context: &Context) {
    let database = database(context).await;
    create(&database, doc! { "capped": true, "size": 1 << 20 }).await;
    insert(&database, NAME, varied()).await;
    serves(context, &database).await;
}

async fn a_clustered_collection_serves(context: &Context) {
    let database = database(context).await;
    create(&database, doc! { "clusteredIndex": { "key": { "_id": 1 }, "unique": true } }).await;
    insert(&database, NAME, varied()).await;
    serves(context, &database).await;
}

async fn a_collection_with_a_collation_serves(context: &Context) {
    let database = database(context).await;
    create_collated(&database, NAME).await;
    insert(&database, NAME, varied()).await;
    serves(context, &database).await;
}
