//! A MongoDB server, a store with a replica of it, and writes that bypass the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use records::document::extended_json;
use records::record::Document;
use records::store::fallback::{self, Mode, Settings};
use records::store::{GetResult, Health, ListRequest, MetricValue, Options, Store};

use crate::servers::mongod::{Mongod, document, element, text};

/// The store whose server can be started here.
pub const NAME: &str = "mongodb";

pub const DATABASE: &str = "fallback";

/// The time-out of the stores whose server fails: far longer than an answer of the replica may take.
pub const TIMEOUT: Duration = Duration::from_secs(4);

/// The longest wait of a test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns true if `TEST_TIMES` is set: times are checked only on a quiet machine.
pub fn times_are_asked_for() -> bool {
    std::env::var_os("TEST_TIMES").is_some()
}

/// Returns the number in the environment variable `name`, if it is set.
pub fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number, and is {value:?}")))
}

/// Opens a store whose server answers: a busy machine may need long.
pub async fn open(url: &str) -> Arc<dyn Store> {
    open_within(url, PATIENCE).await
}

pub async fn open_within(url: &str, timeout: Duration) -> Arc<dyn Store> {
    open_with(url, Options { timeout, ..Default::default() }).await
}

pub async fn open_with(url: &str, options: Options) -> Arc<dyn Store> {
    let (url, query) = url.split_once("/?").map_or((url, String::new()), |(url, query)| (url, format!("?{query}")));
    let options = Options { collection: "records".to_owned(), ..options };
    let opened = records::store::open(&format!("{url}/{DATABASE}{query}"), options).await;
    opened.expect("a store opens without its server").into_store()
}

pub fn settings(mode: Mode) -> Settings {
    Settings {
        url: "memory:".to_owned(),
        source: "test".to_owned(),
        scope: String::new(),
        mode,
        timeout: Duration::from_millis(250),
        max_age: None,
        first_snapshot_within: Duration::ZERO,
        snapshot_interval: Duration::from_millis(500),
        audit_interval: Duration::ZERO,
        size_limit: 1 << 30,
        from: Vec::new(),
        save: None,
        options: Options::default(),
    }
}

pub async fn over(url: &str, settings: Settings) -> Arc<dyn Store> {
    fallback::over(open_within(url, TIMEOUT).await, settings).await.expect("a store with a replica")
}

/// Opens a store like [`over`]. The time-out of its primary is longer than any test, so an answer cannot have waited for it.
pub async fn over_patient(url: &str, settings: Settings) -> Arc<dyn Store> {
    fallback::over(open_within(url, PATIENCE * 10).await, settings).await.expect("a store with a replica")
}

pub fn parsed(text: &str) -> Document {
    extended_json::parse(text.as_bytes()).expect("a document")
}

pub fn numbered(ids: std::ops::Range<i32>) -> Vec<Document> {
    ids.map(|id| parsed(&format!(r#"{{"_id":{id},"text":"some text to make it as long as a record is"}}"#))).collect()
}

/// Starts a server with a hundred records.
pub async fn filled() -> Mongod {
    let server = Mongod::start().expect("a server");
    open(&server.url()).await.upsert(numbered(0..100)).await.expect("an upsert");
    server
}

pub async fn filled_set() -> Mongod {
    let server = Mongod::start_replica_set().expect("a server");
    open(&server.url()).await.upsert(numbered(0..100)).await.expect("an upsert");
    server
}

/// Waits until `check` returns true, and returns the time that took.
pub async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !check().await {
        assert!(begin.elapsed() < PATIENCE, "waiting for {what} took too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begin.elapsed()
}

pub async fn health(store: &dyn Store) -> Health {
    store.health().await.expect("health")
}

/// Waits until the primary answers and the replica is complete.
pub async fn ready(store: &dyn Store) -> Duration {
    until("a store with a whole copy", async || store.health().await.is_ok_and(|health| health.degraded.is_none()))
        .await
}

pub async fn get(store: &dyn Store, id: &str) -> GetResult {
    store.get(&id.into()).await.unwrap_or_else(|error| panic!("get of {id}: {}", error.report()))
}

pub fn json(found: &GetResult) -> String {
    found.document.as_ref().map(json_of).unwrap_or_default()
}

pub fn json_of(document: &Document) -> String {
    let mut json = Vec::new();
    records::wire::document(&mut json, document.bson()).expect("BSON");
    String::from_utf8(json).expect("UTF-8")
}

pub async fn count(store: &dyn Store) -> usize {
    let list = store.list(ListRequest::default()).await.expect("a list");
    list.rows.try_collect::<Vec<_>>().await.expect("rows").len()
}

// Writes that bypass the store.

pub fn integer(name: &str, value: i32) -> Vec<u8> {
    element(0x10, name, &value.to_le_bytes())
}

pub fn sent(server: &Mongod, elements: &[Vec<u8>]) {
    sent_to(server, DATABASE, elements);
}

fn sent_to(server: &Mongod, database: &str, elements: &[Vec<u8>]) {
    let reply = server.command(database, &elements.concat()).expect("a reply");
    let ok = element(0x01, "ok", &1.0_f64.to_le_bytes());
    let refused = b"writeErrors";
    let said = String::from_utf8_lossy(&reply).into_owned();
    assert!(reply.windows(ok.len()).any(|part| part == ok), "{said}");
    assert!(!reply.windows(refused.len()).any(|part| part == refused), "{said}");
}

/// Sets the field `n` of the record `id`: an update, not a replacement.
pub fn set_n(server: &Mongod, id: i32, n: i32) {
    let change = element(0x03, "$set", &document(&integer("n", n)));
    let update = [element(0x03, "q", &document(&integer("_id", id))), element(0x03, "u", &document(&change))].concat();
    let updates = element(0x03, "0", &document(&update));
    sent(server, &[element(0x02, "update", &text("records")), element(0x04, "updates", &document(&updates))]);
}

pub fn delete(server: &Mongod, id: i32) {
    let delete = [element(0x03, "q", &document(&integer("_id", id))), integer("limit", 1)].concat();
    let deletes = element(0x03, "0", &document(&delete));
    sent(server, &[element(0x02, "delete", &text("records")), element(0x04, "deletes", &document(&deletes))]);
}

/// Inserts the record `id`, which exists: the server refuses it.
pub fn insert_again(server: &Mongod, id: i32) {
    let documents = element(0x03, "0", &document(&integer("_id", id)));
    let insert = [element(0x02, "insert", &text("records")), element(0x04, "documents", &document(&documents))];
    let reply = server.command(DATABASE, &insert.concat()).expect("a reply");
    let said = String::from_utf8_lossy(&reply);
    assert!(said.contains("E11000"), "{said}");
}

/// Inserts documents, each given by its elements.
pub fn insert(server: &Mongod, collection: &str, documents: &[Vec<u8>]) {
    let of = |(at, elements): (usize, &Vec<u8>)| element(0x03, &at.to_string(), &document(elements));
    let documents: Vec<_> = documents.iter().enumerate().map(of).collect();
    let documents = element(0x04, "documents", &document(&documents.concat()));
    sent(server, &[element(0x02, "insert", &text(collection)), documents]);
}

/// Replaces the record that `id` finds by `with`; both are elements of documents.
pub fn replace(server: &Mongod, id: &[u8], with: &[u8]) {
    let update = [element(0x03, "q", &document(id)), element(0x03, "u", &document(with))].concat();
    let updates = element(0x03, "0", &document(&update));
    sent(server, &[element(0x02, "update", &text("records")), element(0x04, "updates", &document(&updates))]);
}

pub fn delete_all(server: &Mongod) {
    let delete = [element(0x03, "q", &document(&[])), integer("limit", 0)].concat();
    let deletes = element(0x03, "0", &document(&delete));
    sent(server, &[element(0x02, "delete", &text("records")), element(0x04, "deletes", &document(&deletes))]);
}

/// Makes the records a view of the collection `on`.
pub fn create_view(server: &Mongod, on: &str) {
    create_view_with(server, on, &element(0x04, "pipeline", &document(&[])));
}

/// Makes the records a view of the collection `on`. `pipeline` is an element.
pub fn create_view_with(server: &Mongod, on: &str, pipeline: &[u8]) {
    sent(server, &[element(0x02, "create", &text("records")), element(0x02, "viewOn", &text(on)), pipeline.to_vec()]);
}

/// Makes the records a time series by the field `time`.
pub fn create_time_series(server: &Mongod, time: &str) {
    let options = element(0x03, "timeseries", &document(&element(0x02, "timeField", &text(time))));
    sent(server, &[element(0x02, "create", &text("records")), options]);
}

/// Gives the collection `from` the name of the records.
pub fn rename_to_records(server: &Mongod, from: &str) {
    let name = |collection: &str| text(&format!("{DATABASE}.{collection}"));
    sent_to(server, "admin", &[element(0x02, "renameCollection", &name(from)), element(0x02, "to", &name("records"))]);
}

pub fn drop_collection(server: &Mongod) {
    sent(server, &[element(0x02, "drop", &text("records"))]);
}

/// Creates the user `reader` with the password `secret`, who may read the records.
pub fn create_user(server: &Mongod) {
    let role = [element(0x02, "role", &text("read")), element(0x02, "db", &text(DATABASE))].concat();
    let roles = document(&element(0x03, "0", &document(&role)));
    let (name, password) = (element(0x02, "createUser", &text("reader")), element(0x02, "pwd", &text("secret")));
    sent_to(server, "admin", &[name, password, element(0x04, "roles", &roles)]);
}

pub fn drop_user(server: &Mongod) {
    sent_to(server, "admin", &[element(0x02, "dropUser", &text("reader"))]);
}

/// The name of the administrator on a server with access control.
const OPERATOR: &str = "operator";

/// Creates the administrator, before access control is enabled.
pub fn create_operator(server: &Mongod) {
    let role = element(0x02, "0", &text("root"));
    let (name, password) = (element(0x02, "createUser", &text(OPERATOR)), element(0x02, "pwd", &text(OPERATOR)));
    sent_to(server, "admin", &[name, password, element(0x04, "roles", &document(&role))]);
}

/// Creates a user like [`create_user`] who may only find records.
pub fn create_finder(server: &Mongod) {
    let place = [element(0x02, "db", &text(DATABASE)), element(0x02, "collection", &text(""))].concat();
    let actions = element(0x04, "actions", &document(&element(0x02, "0", &text("find"))));
    let privilege = [element(0x03, "resource", &document(&place)), actions].concat();
    let privileges = element(0x04, "privileges", &document(&element(0x03, "0", &document(&privilege))));
    let none = element(0x04, "roles", &document(&[]));
    sent_to(server, "admin", &[element(0x02, "createRole", &text("finder")), privileges, none]);
    let roles = document(&element(0x02, "0", &text("finder")));
    let (name, password) = (element(0x02, "createUser", &text("reader")), element(0x02, "pwd", &text("secret")));
    sent_to(server, "admin", &[name, password, element(0x04, "roles", &roles)]);
}

/// Grants or revokes the reader's right to read, on open connections as well.
#[cfg(feature = "mongodb")]
pub async fn let_reader_read(server: &Mongod, may: bool) {
    use mongodb::bson::doc;
    let url = format!("mongodb://{OPERATOR}:{OPERATOR}@127.0.0.1:{}/?authSource=admin", server.port());
    let operator = mongodb::Client::with_uri_str(url).await.expect("a client");
    let roles = if may { vec![doc! { "role": "read", "db": DATABASE }] } else { vec![] };
    operator.database("admin").run_command(doc! { "updateUser": "reader", "roles": roles }).await.expect("an update");
}

#[cfg(not(feature = "mongodb"))]
pub async fn let_reader_read(_: &Mongod, _: bool) {
    unreachable!("without the store there is nothing to forbid");
}

/// Returns the counters and gauges of the store, one on each line.
pub fn metrics(store: &dyn Store) -> String {
    let lines = store.metrics().into_iter().filter_map(|metric| {
        let unit = metric.unit.map(|unit| format!("_{unit}")).unwrap_or_default();
        match metric.value {
            MetricValue::Counter(value) => Some(format!("{}{unit}_total {value}\n", metric.name)),
            MetricValue::Gauge(value) => Some(format!("{}{unit} {value:?}\n", metric.name)),
            _ => None,
        }
    });
    lines.collect()
}

/// Returns the state of the replication in the metrics.
pub fn metrics_of_state(store: &dyn Store) -> &'static str {
    let metrics = store.metrics();
    let state = metrics.iter().find(|metric| metric.name == "fallback_replica_sync_state").expect("a metric");
    let MetricValue::Gauges { values, .. } = &state.value else { panic!("{state:?}") };
    let current: Vec<_> = values.iter().filter(|(_, value)| *value == 1.0).collect();
    assert_eq!(current.len(), 1, "{values:?}");
    current[0].0
}
