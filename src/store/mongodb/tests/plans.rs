//! How the server carries out what the store sends: by the index of `_id`, touching no more than it must.
//!
//! The commands are those that the store sent, caught on their way and explained.

use std::sync::Mutex;

use futures::TryStreamExt;
use mongodb::bson::{Bson as Value, Document as Tree};
use mongodb::event::EventHandler;
use mongodb::event::command::CommandEvent;

use super::super::*;
use super::servers::{mongod, url};
use crate::document::extended_json;
use crate::query::Selection;

pub struct Watched {
    pub store: MongoDb,
    pub client: Client,
    pub database: String,
    pub finds: Arc<Mutex<Vec<Tree>>>,
    // Ends with the test, where it was started for it.
    _server: Option<mongod::Mongod>,
}

impl Watched {
    /// A store of a few hundred records with ids of every type, whose commands are caught.
    pub async fn filled() -> Self {
        let database = format!("plans_{}_{}", std::process::id(), mongod::free_port().expect("a number"));
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
        // As if lists had been read before: the first one of all asks for few, and then anew.
        store.held.learn(&Query::all(), 1, 30);
        Self { store, client, database, finds, _server: server }
    }

    /// What the server says of the one `find` that was sent since the last time.
    pub async fn explained(&self) -> Explained {
        match self.all_explained().await.as_mut_slice() {
            [explained] => std::mem::take(explained),
            others => panic!("one find was expected, not {others:?}"),
        }
    }

    /// What the server says of every `find` that was sent since the last time.
    pub async fn all_explained(&self) -> Vec<Explained> {
        let finds: Vec<Tree> = self.finds.lock().expect("no panic").drain(..).collect();
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

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_lookup_asks_the_index_for_one_key_and_touches_one_document_at_most() {
    let watched = Watched::filled().await;
    for (id, matches) in [
        ("00000000000000000000012a", &[1][..]),
        ("17", &[1]),
        ("17.0", &[1]),
        ("ffffffffffffffffffffffff", &[0, 0]),
        ("no such id", &[0]),
        ("00000000-0000-4000-8000-00000000012a", &[1]),
        ("ffffffff-0000-4000-8000-00000000012a", &[0, 0]),
        ("true", &[0, 0]),
        ("2015-09-10T08:55:47.000Z", &[0, 0]),
    ] {
        watched.store.get(&id.into()).await.expect("a get");
        let explained = watched.all_explained().await;
        let returned: Vec<i32> = explained.iter().map(|find| find.returned).collect();
        assert_eq!(returned, matches, "{id}: {explained:?}");
        for find in explained {
            assert!(find.uses_the_index_of_ids(), "{id}: {find:?}");
            assert_eq!(find.documents, find.returned, "{id}: {find:?}");
            assert!(find.keys <= 1, "{id}: {find:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn lookups_in_flight_are_one_find_by_the_index_that_touches_a_document_for_each() {
    let watched = Watched::filled().await;
    let ids: Vec<RecordId> = (100..200_u32).map(|n| format!("{n:024x}").as_str().into()).collect();
    let found = futures::future::join_all(ids.iter().map(|id| watched.store.get(id))).await;
    assert!(found.into_iter().all(|found| found.expect("a get").record.is_some()));
    let explained = watched.explained().await;
    assert!(explained.uses_the_index_of_ids(), "{explained:?}");
    assert_eq!((explained.returned, explained.documents), (100, 100), "{explained:?}");
    // Between two keys that are not neighbours the scan looks at where the next one begins.
    assert!(explained.keys <= 200, "{explained:?}");
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn strings_that_look_like_numbers_are_asked_for_at_once_after_the_first() {
    let watched = Watched::filled().await;
    let only_as_string = extended_json::parse(br#"{"_id":"4711"}"#).expect("a document");
    watched.store.upsert(vec![only_as_string]).await.expect("an upsert");
    let mut round_trips = Vec::new();
    for _ in 0..3 {
        assert!(watched.store.get(&"4711".into()).await.expect("a get").record.is_some());
        round_trips.push(watched.all_explained().await.len());
    }
    assert_eq!(round_trips, [2, 1, 1]);
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_list_from_behind_a_key_walks_the_index_and_sorts_nothing() {
    let watched = Watched::filled().await;
    let keys = [Key::Integer(17), Key::String("17".into()), Key::ObjectId([0; 12]), Key::Uuid([0; 16]), Key::Date(0)];
    for after in keys {
        let listed =
            watched.store.list(Query::after(after.clone())).try_collect::<Vec<_>>().await.expect("a list").len();
        let explained = watched.explained().await;
        assert!(explained.uses_the_index_of_ids(), "after {after:?}: {explained:?}");
        // The bound itself is read, and left out by the store.
        let read = listed as i32..=listed as i32 + 1;
        assert!(read.contains(&explained.returned), "after {after:?}: {listed}, {explained:?}");
        assert_eq!(explained.documents, explained.returned, "after {after:?}: {explained:?}");
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

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn fields_that_nobody_looks_at_are_not_sent() {
    let watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    let index = doc! { "b": 1, "a": 1, "_id": 1 };
    collection.create_index(mongodb::IndexModel::builder().keys(index).build()).await.expect("an index");
    let texts = [r#"{"_id":"x","z":[1],"a":{"in":2,"out":3},"b":4}"#, r#"{"_id":"y","z":[1],"b":4}"#];
    let documents = texts.map(|text| extended_json::parse(text.as_bytes()).expect("a document"));
    watched.store.upsert(documents.into()).await.expect("an upsert");
    for (parameters, expected) in [
        (vec![("_id.in", "x,y"), ("fields", "a.in")], [r#"{"_id":"x","a":{"in":2,"out":3}}"#, r#"{"_id":"y"}"#]),
        // The index has all of it, in another order, and could not tell what is missing from what is null.
        (vec![("b.eq", "4"), ("fields", "a,b")], [r#"{"_id":"x","a":{"in":2,"out":3},"b":4}"#, r#"{"_id":"y","b":4}"#]),
        // Names that mean something else to MongoDB.
        (vec![("b.eq", "4"), ("fields", r"a\.in")], texts),
    ] {
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let Selection { filters, fields, .. } = Selection::parse(&parameters).expect("parameters");
        let listed = watched.store.list(Query { filters, fields, ..Query::all() }).try_collect::<Vec<_>>().await;
        let listed: Vec<_> = listed.expect("a list").iter().map(|record| record.json().clone()).collect();
        assert_eq!(listed, expected, "{parameters:?}");
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_filter_uses_the_index_of_its_field() {
    let watched = Watched::filled().await;
    let collection = watched.client.database(&watched.database).collection::<Tree>("records");
    collection.create_index(mongodb::IndexModel::builder().keys(doc! { "v.n": 1 }).build()).await.expect("an index");
    let documents = (0..300).map(|n| format!(r#"{{"_id":"n{n}","v":{{"n":{n},"other":{n}}}}}"#));
    let documents = documents.map(|text| extended_json::parse(text.as_bytes()).expect("a document")).collect();
    watched.store.upsert(documents).await.expect("an upsert");
    for (name, value, most) in [
        ("v.n.eq", "17", 1),
        ("v.n.in", "17,18,nothing", 2),
        ("v.n.gte", "290", 10),
        ("v.n.lt", "2015-09-10", 0),
        ("v.n.eq", "507f1f77bcf86cd799439011", 0),
        ("v.n.eq", "gold", 0),
        ("v.n.eq", "true", 0),
        ("_id.eq", "n17", 1),
    ] {
        let filters = Selection::parse(&[(name.to_owned(), value.to_owned())]).expect("a filter").filters;
        for after in [None, Some(Key::String("a".into()))] {
            let query = Query { after, filters: filters.clone(), limit: Some(10), ..Query::all() };
            watched.store.list(query).try_collect::<Vec<_>>().await.expect("a list");
            let explained = watched.explained().await;
            assert!(!explained.stages.iter().any(|stage| stage == "COLLSCAN"), "{name}={value}: {explained:?}");
            assert!(explained.documents <= most, "{name}={value}: {explained:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn however_many_ranges_are_asked_for_mongodb_is_told_of_a_few() {
    let watched = Watched::filled().await;
    let parameters: Vec<(String, String)> =
        (0..30).flat_map(|n| [("a.lt".to_owned(), format!("z{n}")), (format!("f{n}.eq"), "x".to_owned())]).collect();
    let selection = Selection::parse(&parameters[..30]).expect("filters");
    let query = Query { filters: selection.filters, limit: Some(5), ..Query::all() };
    let found: Vec<_> = crate::store::selected(&watched.store, query).try_collect().await.expect("a list");
    assert!(found.is_empty());
    let finds = watched.finds.lock().expect("no panic").clone();
    let clauses = finds[0].get_document("filter").and_then(|filter| filter.get_array("$and")).expect("clauses");
    let ranges = clauses.iter().filter(|clause| clause.as_document().is_some_and(|clause| clause.contains_key("$or")));
    assert_eq!((ranges.count(), clauses.len()), (2, 2 + 15), "{clauses:?}");
}
