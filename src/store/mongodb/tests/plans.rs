//! The plans by which the server executes the store's commands: one `find` for a page, with a suitable index, and no document
//! examined that is not returned.
//!
//! The commands are those that the store sent, recorded by the driver's events and explained.

use std::sync::Mutex;

use futures::StreamExt;
use mongodb::bson::{Bson as Value, Document as Tree};
use mongodb::event::EventHandler;
use mongodb::event::command::CommandEvent;

use super::super::*;
use super::servers::{mongod, unused_name, url};
use crate::document::extended_json;
use crate::query::{Cursor, Position, Selection};
use crate::store::{ListRequest, Page, page};

pub struct Watched {
    pub store: MongoDb,
    pub client: Client,
    pub database: String,
    pub finds: Arc<Mutex<Vec<Tree>>>,
    // A server that was started for the test ends with it.
    _server: Option<mongod::Mongod>,
}

impl Watched {
    /// Opens a store with records whose ids have every type, and records its commands.
    pub async fn filled() -> Self {
        let database = unused_name("plans");
        let server = mongod::program().map(|_| mongod::Mongod::start().expect("a server"));
        let url = server.as_ref().map_or_else(
            || url("mongodb", &database).expect("TEST_MONGODB_URL"),
            |server| format!("{}/{database}", server.url()),
        );
        let uri = ConnectionString::parse(&url).expect("a URL");
        let finds = Arc::new(Mutex::new(Vec::new()));
        let mut options = ClientOptions::parse(uri.clone()).await.expect("a URL");
        let caught = finds.clone();
        options.command_event_handler = Some(EventHandler::callback(move |event| {
            if let CommandEvent::Started(started) = event
                && started.command_name == "find"
            {
                caught.lock().expect("no panic").push(started.command);
            }
        }));
        let client = Client::with_options(options).expect("a client");
        let options = Options { timeout: std::time::Duration::from_secs(30), ..Default::default() };
        let inner =
            Inner::new(uri, options, database.clone(), OnceCell::new_with(Some(client.clone())), DEFAULT_POOL_SIZE);
        let store = MongoDb::new(inner, DEFAULT_POOL_SIZE);
        let documents = (0..300).flat_map(|n| {
            [
                format!(r#"{{"_id":{n}}}"#),
                format!(r#"{{"_id":"{n}"}}"#),
                format!(r#"{{"_id":{{"$oid":"{n:024x}"}}}}"#),
                format!(r#"{{"_id":"{n:024x}"}}"#),
                format!(r#"{{"_id":{{"$uuid":"00000000-0000-4000-8000-{n:012x}"}}}}"#),
            ]
        });
        let documents = documents.map(|text| extended_json::parse(text.as_bytes()).expect("a document")).collect();
        store.upsert(documents).await.expect("an upsert");
        Self { store, client, database, finds, _server: server }
    }

    /// Explains the one `find` that was sent since the last call.
    pub async fn explained(&self) -> Explained {
        match self.all_explained().await.as_mut_slice() {
            [explained] => std::mem::take(explained),
            others => panic!("one find was expected, not {others:?}"),
        }
    }

    /// Explains every `find` that was sent since the last call.
    pub async fn all_explained(&self) -> Vec<Explained> {
        let finds: Vec<Tree> = self.finds.lock().expect("no panic").drain(..).collect();
        assert!(!finds.is_empty(), "the store sent no find");
        let mut all = Vec::new();
        for find in finds {
            all.push(self.explain(find).await);
        }
        all
    }

    async fn explain(&self, mut find: Tree) -> Explained {
        for of_the_driver in ["$db", "lsid", "$clusterTime", "$readPreference"] {
            find.remove(of_the_driver);
        }
        let explain = doc! { "explain": find.clone(), "verbosity": "executionStats" };
        let reply = self.client.database(&self.database).run_command(explain).await.expect("an explanation");
        let plan = reply.get_document("queryPlanner").and_then(|planner| planner.get_document("winningPlan"));
        let mut stages = Vec::new();
        stages_of(&Value::Document(plan.expect("a plan").clone()), &mut stages);
        let stats = reply.get_document("executionStats").expect("statistics");
        let number = |name| stats.get_i32(name).expect("a number");
        Explained {
            find,
            stages,
            returned: number("nReturned"),
            keys: number("totalKeysExamined"),
            documents: number("totalDocsExamined"),
        }
    }
}

#[derive(Debug, Default)]
pub struct Explained {
    /// For the message of a failure.
    #[allow(dead_code)]
    pub find: Tree,
    /// The stages of the plan, and the names of the indexes they use.
    pub stages: Vec<String>,
    pub returned: i32,
    pub keys: i32,
    pub documents: i32,
}

impl Explained {
    pub fn uses_the_index_of_ids(&self) -> bool {
        let by_key = self.stages.iter().any(|stage| stage == "IDHACK");
        let by_range = self.stages.iter().any(|stage| stage == "IXSCAN") && self.stages.iter().any(|s| s == "_id_");
        (by_key || by_range) && !self.stages.iter().any(|stage| stage == "COLLSCAN" || stage == "SORT")
    }
}

fn stages_of(plan: &Value, stages: &mut Vec<String>) {
    match plan {
        Value::Document(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "stage" || name == "indexName" => stages.push(text.clone()),
                    _ => stages_of(value, stages),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| stages_of(value, stages)),
        _ => {}
    }
}

/// Parses a query string without percent signs.
pub fn request(query: &str) -> ListRequest {
    let parameters: Vec<(String, String)> = query
        .split('&')
        .map(|parameter| parameter.split_once('=').expect("a parameter"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let Selection { filter, sort, projection, limit, .. } = Selection::parse(&parameters).expect("parameters");
    ListRequest { filter, sort, projection, limit, after: None, ..Default::default() }
}

async fn read_page(store: &MongoDb, request: &ListRequest) -> Page {
    let pool = crate::store::MemoryPool::new(64 << 20);
    page(store, request, request.limit.expect("a limit"), &mut pool.reservation()).await.expect("a page")
}

fn json(page: &Page) -> Vec<String> {
    let each = page.documents.iter().map(|document| {
        let mut json = Vec::new();
        crate::wire::document(&mut json, document.bson()).expect("BSON");
        String::from_utf8(json).expect("UTF-8")
    });
    each.collect()
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_lookup_asks_the_index_for_one_key_and_touches_one_document_at_most() {
    let watched = Watched::filled().await;
    for (id, is_found) in [
        ("00000000000000000000012a", true),
        ("17", true),
        ("17.0", true),
        ("ffffffffffffffffffffffff", false),
        ("no such id", false),
        ("00000000-0000-4000-8000-00000000012a", true),
        ("ffffffff-0000-4000-8000-00000000012a", false),
        ("true", false),
        ("2015-09-10T08:55:47.000Z", false),
    ] {
        let found = watched.store.get(&id.into()).await.expect("a get");
        assert_eq!(found.document.is_some(), is_found, "{id}");
        for find in watched.all_explained().await {
            assert!(find.uses_the_index_of_ids(), "{id}: {find:?}");
            assert_eq!(find.documents, find.returned, "{id}: {find:?}");
            assert!(find.keys <= 2, "{id}: {find:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_ping_touches_one_document() {
    let watched = Watched::filled().await;
    watched.store.ping().await.expect("a ping");
    let explained = watched.explained().await;
    assert!(explained.documents <= 1, "{explained:?}");
}

/// Fills the store with documents that have equal values and several types, and creates indexes for some of their fields.
pub async fn with_fields() -> Watched {
    let watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    collection.delete_many(doc! {}).await.expect("a deletion");
    for keys in
        [doc! { "n": 1, "_id": 1 }, doc! { "name": -1, "_id": 1 }, doc! { "born": 1 }, doc! { "few": 1, "_id": 1 }]
    {
        collection.create_index(mongodb::IndexModel::builder().keys(keys).build()).await.expect("an index");
    }
    let documents = (0..3_000_i64).map(|n| {
        let born = mongodb::bson::DateTime::from_millis(n * 86_400_000);
        let name = format!("name{n:04}");
        let number: Value = match n {
            1_500 => Value::Null,
            1_600 => "text".into(),
            n => (n / 2).into(),
        };
        doc! { "_id": n, "n": number, "name": name, "born": born, "x": n % 1_000, "few": n % 2, "pad": "p".repeat(100) }
    });
    collection.insert_many(documents).await.expect("documents");
    watched.finds.lock().expect("no panic").clear();
    watched
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn each_page_is_one_find_that_examines_the_documents_of_the_page() {
    let watched = with_fields().await;
    for query in
        ["limit=100", "sort=n&limit=100", "sort=-name&limit=100", "sort=few&limit=100", "sort=few,_id&limit=100"]
    {
        let mut request = request(query);
        let mut ids = Vec::new();
        for number in 0.. {
            let page = read_page(&watched.store, &request).await;
            ids.extend(page.documents.iter().map(|document| document.key().clone()));
            let explained = watched.explained().await;
            // If the keyset spans types, documents at the edge of a branch may be read twice.
            let most = if number == 0 { 101 } else { 212 };
            assert!(explained.documents <= most, "{query}, page {number}: {explained:?}");
            let sorts = explained.stages.iter().any(|stage| stage == "SORT" || stage == "COLLSCAN");
            assert!(!sorts, "{query}: {explained:?}");
            let Some(next) = page.next else { break };
            request.after = Some(next);
        }
        assert_eq!(ids.len(), 3_000, "{query}");
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 3_000, "{query}");
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn without_an_index_the_server_sorts_and_sends_the_page_alone() {
    let watched = with_fields().await;
    for query in ["sort=x&limit=100", "sort=born&limit=100"] {
        let mut request = request(query);
        for number in 0..3 {
            request.after = read_page(&watched.store, &request).await.next;
            let explained = watched.explained().await;
            assert_eq!(explained.returned, 101, "{query}, page {number}: {explained:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_filter_uses_the_index_of_its_field_with_tight_bounds() {
    let watched = with_fields().await;
    for (query, most) in [
        ("n.eq=17", 2),
        ("n.in=17,18,nothing", 4),
        ("n.gte=1490", 20),
        ("n.gte=10&n.lt=15", 10),
        ("born.gte=1970-02-01&born.lt=1970-02-11", 10),
        ("born.eq=1970-02-01", 1),
        ("name.gte=name010&name.lt=name011", 10),
        ("n.eq=507f1f77bcf86cd799439011", 0),
        ("name.starts=name010", 10),
        ("or=(n.eq=17,name.starts=name010)", 12),
        ("_id.eq=17", 1),
    ] {
        let first = request(&format!("{query}&limit=1000"));
        let after = Cursor { position: Position::of_key(&Key::int64(-1)), no_arrays: true };
        for request in [first.clone(), ListRequest { after: Some(after), ..first }] {
            let page = read_page(&watched.store, &request).await;
            let explained = watched.explained().await;
            assert!(!explained.stages.iter().any(|stage| stage == "COLLSCAN"), "{query}: {explained:?}");
            assert!(explained.documents <= most, "{query}: {explained:?}");
            assert_eq!(page.documents.len() as i32, explained.returned, "{query}: {explained:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_prefix_is_a_range_of_the_index() {
    let watched = with_fields().await;
    for (query, matching) in [("name.starts=name010", 10), ("name.starts=name12", 100), ("name.starts=nobody", 0)] {
        for query in [query.to_owned(), format!("{query}&sort=-name"), format!("{query}&fields=x")] {
            let page = read_page(&watched.store, &request(&format!("{query}&limit=1000"))).await;
            assert_eq!(page.documents.len(), matching, "{query}");
            let explained = watched.explained().await;
            let text = explained.find.to_string();
            assert!(text.contains("\"$gte\"") && !text.contains("$regex"), "{query}: {text}");
            // The scan ends at the first key after the range.
            assert!(explained.keys as usize <= matching + 1, "{query}: {explained:?}");
            assert_eq!(explained.documents as usize, matching, "{query}: {explained:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_page_by_a_prefix_is_one_find_with_a_limit() {
    let watched = with_fields().await;
    for query in
        ["name.starts=name&limit=10", "name.starts=name&sort=x&limit=10", "or=(name.starts=name,n.eq=5)&limit=10"]
    {
        assert_eq!(read_page(&watched.store, &request(query)).await.documents.len(), 10, "{query}");
        let explained = watched.explained().await;
        assert_eq!(explained.returned, 11, "{query}: {explained:?}");
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_projection_is_pushed_down_and_keeps_the_order_of_the_document() {
    let watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    let index = doc! { "b": 1, "a": 1, "_id": 1 };
    collection.create_index(mongodb::IndexModel::builder().keys(index).build()).await.expect("an index");
    let texts = [r#"{"_id":"x","z":[1],"a":{"in":2,"out":3},"b":4}"#, r#"{"_id":"y","z":[1],"b":4}"#];
    let documents = texts.map(|text| extended_json::parse(text.as_bytes()).expect("a document"));
    watched.store.upsert(documents.into()).await.expect("an upsert");
    for (query, expected, is_pushed_down) in [
        ("_id.in=x,y&fields=a.in", [r#"{"_id":"x","a":{"in":2}}"#, r#"{"_id":"y"}"#], true),
        // The index has the fields in another order, and cannot tell missing from null.
        ("b.eq=4&fields=a,b", [r#"{"_id":"x","a":{"in":2,"out":3},"b":4}"#, r#"{"_id":"y","b":4}"#], true),
        ("b.eq=4&sort=a.in&fields=z", [r#"{"_id":"y","z":[1]}"#, r#"{"_id":"x","z":[1]}"#], true),
        // MongoDB cannot name this field.
        (r"b.eq=4&fields=a\.in", [r#"{"_id":"x"}"#, r#"{"_id":"y"}"#], false),
    ] {
        let page = read_page(&watched.store, &request(&format!("{query}&limit=10"))).await;
        assert_eq!(json(&page), expected, "{query}");
        let finds = std::mem::take(&mut *watched.finds.lock().expect("no panic"));
        let projected = finds.iter().filter(|find| find.contains_key("projection")).count();
        assert!(!finds.is_empty(), "{query}");
        assert_eq!(projected, if is_pushed_down { finds.len() } else { 0 }, "{query}: {finds:?}");
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn arrays_have_their_place_by_the_least_element_with_and_without_an_index() {
    let watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    collection.delete_many(doc! {}).await.expect("a deletion");
    let documents = (0..200_i32).map(|n| match n % 4 {
        0 => doc! { "_id": n, "v": [n, 1_000 - n] },
        1 => doc! { "_id": n, "v": n },
        2 => doc! { "_id": n, "v": [] },
        _ => doc! { "_id": n, "v": [{ "w": n }, n] },
    });
    collection.insert_many(documents).await.expect("documents");
    for with_index in [false, true] {
        if with_index {
            let index = mongodb::IndexModel::builder().keys(doc! { "v": 1, "_id": 1 }).build();
            collection.create_index(index).await.expect("an index");
        }
        for (query, sort) in [("sort=v", doc! { "v": 1, "_id": 1 }), ("sort=-v", doc! { "v": -1, "_id": 1 })] {
            let mut request = request(&format!("{query}&limit=7"));
            let mut ids = Vec::new();
            loop {
                let page = read_page(&watched.store, &request).await;
                ids.extend(page.documents.iter().map(|document| document.key().clone()));
                let Some(next) = page.next else { break };
                request.after = Some(next);
            }
            let mut expected = Vec::new();
            let mut cursor = collection.find(doc! {}).sort(sort).await.expect("a find");
            while let Some(document) = cursor.next().await.transpose().expect("a document") {
                expected.push(Key::int64(document.get_i32("_id").expect("a number").into()));
            }
            assert_eq!(ids, expected, "{query}, index: {with_index}");
        }
    }
}
