//! The cases, and the empty store for each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bson::{Bson, doc};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};
use records::document::{extended_json, validate};
use records::query::{After, Cursor, Exposure, Position, Selection};
use records::record::{Document, Key, RecordId};
use records::store::fallback::{self, Mode, Settings};
use records::store::{
    Backend, BackendKind, CountResult, Freshness, GetResult, ListRequest, ListResult, MemoryPool, MemoryReservation,
    Opened, Options, Page, Precision, Result as StoreResult, Row, Store, exposed, page,
};
use records::wire;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::elsewhere::Unreadable;
use crate::servers;

/// The time-out of a call: long enough for a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A limit above the number of documents in any case.
pub const ALL: usize = 1_000_000;

pub struct Case {
    pub name: &'static str,
    pub needs: Needs,
    pub run: fn(&Context),
}

/// The stores to which a case applies.
#[derive(Clone, Copy, PartialEq)]
pub enum Needs {
    Any,
    /// Stores in which null does not match undefined: all but MongoDB before 8.0.
    Undefined,
    /// Embedded stores, which put and remove single documents.
    Embedded,
    /// Embedded stores that keep their documents when they are opened again.
    Local,
    /// Stores in another process.
    Remote,
    /// MongoDB, for its kinds of collections.
    #[cfg(feature = "mongodb")]
    MongoDb,
}

impl Needs {
    /// Returns true if the case applies to `backend`; `is_plain` tells that it gets the backend without a replica, and all that it
    /// holds.
    pub fn are_met_by(self, backend: &Backend, is_plain: bool) -> bool {
        match self {
            Self::Any | Self::Undefined => true,
            _ if !is_plain => false,
            Self::Embedded => backend.kind != BackendKind::Remote,
            Self::Local => backend.kind == BackendKind::Local,
            Self::Remote => backend.kind == BackendKind::Remote,
            #[cfg(feature = "mongodb")]
            Self::MongoDb => backend.name == "mongodb",
        }
    }
}

/// Lists the cases of a file: the names of the functions, grouped by the stores that they need.
macro_rules! cases {
    ($($needs:ident by $how:ident { $($name:ident,)* })*) => {
        pub const CASES: &[$crate::harness::Case] = &[$($(
            $crate::harness::Case {
                name: stringify!($name),
                needs: $crate::harness::Needs::$needs,
                run: |context| context.$how($name),
            },
        )*)*];
    };
}
pub(crate) use cases;

/// The directory or the database for the stores of one trial.
pub struct Context {
    backend: &'static Backend,
    fallback: Option<Mode>,
    exposure: Arc<Exposure>,
    runtime: Handle,
    area: Area,
    stores: AtomicU32,
}

enum Area {
    Memory,
    Directory(TempDir),
    /// The URL of a database.
    Server(String),
}

impl Context {
    /// With `is_exposed`, the stores show a part of their records. That part is all of the cases' records: they have neither the
    /// hidden field, nor the one by which records do not match.
    pub fn new(
        backend: &'static Backend,
        fallback: Option<Mode>,
        is_exposed: bool,
        runtime: Handle,
    ) -> Result<Self, String> {
        let area = match backend.kind {
            BackendKind::InMemory => Area::Memory,
            BackendKind::Local => {
                Area::Directory(TempDir::new().map_err(|error| format!("no temporary directory: {error}"))?)
            }
            BackendKind::Remote => {
                let url = servers::url(backend.name, &servers::unused_name("conformance"))?;
                runtime.block_on(reach(backend.name, &url))?;
                Area::Server(url)
            }
        };
        let hide = ["hidden by exposure".to_owned(), "hidden.by exposure".to_owned()];
        let condition = "left out by exposure.exists=false&hidden by exposure.ne=1";
        let exposure = match is_exposed {
            true => Exposure::parse(&[], &hide, Some(condition)).expect("an exposure"),
            false => Exposure::default(),
        };
        Ok(Self { backend, fallback, exposure: Arc::new(exposure), runtime, area, stores: AtomicU32::new(0) })
    }

    pub fn kind(&self) -> BackendKind {
        if self.fallback.is_none() && self.exposure.is_whole() { self.backend.kind } else { BackendKind::Remote }
    }

    pub fn backend(&self) -> &'static Backend {
        self.backend
    }

    /// Returns true if a replica answers.
    pub fn has_replica(&self) -> bool {
        self.fallback.is_some()
    }

    /// Returns the URL of the trial's database.
    #[cfg(feature = "mongodb")]
    pub fn url(&self) -> &str {
        match &self.area {
            Area::Server(url) => url,
            _ => panic!("only a server has databases"),
        }
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Runs a case on an empty store.
    pub fn store(&self, case: impl AsyncFnOnce(Arc<dyn Store>)) {
        self.block_on(async { case(self.fresh().await.into_store()).await });
    }

    /// Runs a case that opens stores itself.
    pub fn context(&self, case: impl AsyncFnOnce(&Self)) {
        self.block_on(case(self));
    }

    /// Runs a case that calls [`check`](Self::check).
    pub fn property(&self, case: impl FnOnce(&Self)) {
        case(self);
    }

    /// Runs `check` with about `cases` generated values: fewer with a slow store and where a part is shown, more if
    /// `PROPTEST_CASES` exceeds proptest's default of 256.
    pub fn check<T: std::fmt::Debug>(
        &self,
        cases: u32,
        strategy: &impl Strategy<Value = T>,
        check: impl AsyncFn(Opened, T),
    ) {
        let cases = match (self.fallback, self.backend.kind) {
            (Some(_), _) => cases / 16,
            (None, BackendKind::InMemory) if !self.exposure.is_whole() => cases / 4,
            (None, BackendKind::InMemory) => cases,
            (None, BackendKind::Local) => cases / 2,
            (None, BackendKind::Remote) => cases / 8,
        };
        let config = Config { failure_persistence: None, ..Config::default() };
        let config = Config { cases: (cases * config.cases / 256).max(1), ..config };
        let checked = TestRunner::new(config).run(strategy, |value| {
            self.block_on(async { check(self.fresh().await, value).await });
            Ok(())
        });
        if let Err(error) = checked {
            panic!("{error}");
        }
    }

    /// Opens a new, empty store that shows this part.
    pub async fn fresh_part(&self, exposure: Exposure) -> Opened {
        let number = self.stores.fetch_add(1, Ordering::Relaxed);
        self.open_part(&format!("store_{number}"), Arc::new(exposure)).await
    }

    /// Opens a new, empty store.
    pub async fn fresh(&self) -> Opened {
        let number = self.stores.fetch_add(1, Ordering::Relaxed);
        self.open(&format!("store_{number}")).await
    }

    /// Opens the same store at every call. The previous handle must be dropped first.
    pub async fn reopen(&self) -> Opened {
        self.open("reopened").await
    }

    pub async fn open(&self, name: &str) -> Opened {
        self.open_part(name, Arc::clone(&self.exposure)).await
    }

    async fn open_part(&self, name: &str, exposure: Arc<Exposure>) -> Opened {
        let url = match &self.area {
            Area::Memory => format!("{}:", self.backend.name),
            Area::Directory(directory) => format!("{}:{}", self.backend.name, directory.path().join(name).display()),
            Area::Server(url) => url.clone(),
        };
        let options = Options {
            collection: name.to_owned(),
            timeout: TIMEOUT,
            exposure: Arc::clone(&exposure),
            ..Default::default()
        };
        let begin = Instant::now();
        let mut opened = records::store::open(&url, options.clone()).await;
        // Between fork and exec, a process that another trial starts also holds the lock of the directory.
        while opened.as_ref().is_err_and(|error| error.is_unavailable()) && begin.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_millis(10)).await;
            opened = records::store::open(&url, options.clone()).await;
        }
        let opened = opened.unwrap_or_else(|error| panic!("the store does not open: {}", error.report()));
        let opened = match opened {
            Opened::Embedded(store) if !exposure.is_whole() => {
                Opened::Remote(exposed(Opened::Embedded(store).into_store(), exposure))
            }
            opened => opened,
        };
        match self.fallback {
            Some(mode) => Opened::Remote(Arc::new(CaughtUp::over(opened.into_store(), mode).await)),
            None => opened,
        }
    }
}

/// A store with a replica that answers every read. A write returns once [`GetResult::staleness`] shows that the replica has it.
#[derive(Debug)]
struct CaughtUp(Arc<dyn Store>);

impl CaughtUp {
    async fn over(primary: Arc<dyn Store>, mode: Mode) -> Self {
        let primary = match mode {
            Mode::Standby => Arc::new(Unreadable(primary)),
            Mode::Replica => primary,
        };
        let settings = Settings {
            url: "memory:".to_owned(),
            source: "conformance".to_owned(),
            scope: String::new(),
            mode,
            timeout: TIMEOUT,
            max_age: None,
            first_snapshot_within: Duration::ZERO,
            snapshot_interval: Duration::from_millis(10),
            audit_interval: Duration::ZERO,
            size_limit: u64::MAX,
            from: Vec::new(),
            save: None,
            options: Options::default(),
        };
        let store = Self(fallback::over(primary, settings).await.expect("a fallback"));
        store.catch_up().await;
        store
    }

    /// Waits until the replica is known to be as the primary is now, or newer.
    async fn catch_up(&self) {
        let begin = Instant::now();
        loop {
            let asked = Instant::now();
            let result = self.0.get(&"absent".into()).await;
            let staleness = result.ok().and_then(|result| result.staleness);
            let current = staleness.and_then(|staleness| asked.checked_sub(staleness));
            // The staleness is rounded to milliseconds.
            if current.is_some_and(|current| current > begin + Duration::from_millis(1)) {
                return;
            }
            assert!(begin.elapsed() < TIMEOUT, "the replica does not catch up: {:?}", self.0.health().await);
            sleep(Duration::from_millis(3)).await;
        }
    }
}

impl Store for CaughtUp {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, StoreResult<GetResult>> {
        self.0.get(id)
    }

    fn get_fresh<'a>(&'a self, id: &'a RecordId, freshness: &'a Freshness) -> BoxFuture<'a, StoreResult<GetResult>> {
        self.0.get_fresh(id, freshness)
    }

    fn try_get(&self, id: &RecordId) -> Option<StoreResult<GetResult>> {
        self.0.try_get(id)
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, StoreResult<ListResult>> {
        self.0.list(request)
    }

    fn count(&self, request: ListRequest, precision: Precision) -> BoxFuture<'_, StoreResult<Option<CountResult>>> {
        self.0.count(request, precision)
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(async {
            self.0.upsert(documents).await?;
            self.catch_up().await;
            Ok(())
        })
    }

    fn ping(&self) -> BoxFuture<'_, StoreResult<()>> {
        self.0.ping()
    }

    fn health(&self) -> BoxFuture<'_, StoreResult<records::store::Health>> {
        self.0.health()
    }

    fn metrics(&self) -> Vec<records::store::Metric> {
        self.0.metrics()
    }
}

/// Pings a server once, so that all trials fail at once if it is away, and not each after a time-out.
async fn reach(name: &'static str, url: &str) -> Result<(), String> {
    static REACHED: Mutex<BTreeMap<&str, Result<(), String>>> = Mutex::const_new(BTreeMap::new());
    let mut reached = REACHED.lock().await;
    if let Some(known) = reached.get(name) {
        return known.clone();
    }
    let options = Options { collection: "records".to_owned(), timeout: Duration::from_secs(10), ..Default::default() };
    let ping = async { records::store::open(url, options).await?.into_store().ping().await };
    let result = ping.await.map_err(|error| format!("the {name} server of the environment: {}", error.report()));
    reached.insert(name, result.clone());
    result
}

/// Parses a document in Extended JSON.
pub fn document(text: &str) -> Document {
    extended_json::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Returns a document with this `_id`, given as Extended JSON.
pub fn with_id(id: &str) -> Document {
    document(&format!(r#"{{"_id":{id},"a":1}}"#))
}

/// Returns a document of little more than `size` bytes. Binary data, which a debug build encodes much faster than text.
pub fn large(id: impl Into<Bson>, size: usize) -> Document {
    let bytes = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![7; size] };
    validate(doc! { "_id": id.into(), "bytes": bytes }).expect("a document within the limits")
}

/// Returns the documents `{"_id": 0}` and so on.
pub fn numbered(ids: impl IntoIterator<Item = i64>) -> Vec<Document> {
    ids.into_iter().map(|id| document(&format!(r#"{{"_id":{id}}}"#))).collect()
}

pub fn keys_of(documents: &[Document]) -> Vec<Key> {
    documents.iter().map(|document| document.key().clone()).collect()
}

pub async fn upsert(store: &dyn Store, documents: Vec<Document>) {
    store.upsert(documents).await.unwrap_or_else(|error| panic!("upsert: {}", error.report()));
}

pub async fn upsert_texts(store: &dyn Store, texts: &[impl AsRef<str>]) {
    upsert(store, texts.iter().map(|text| document(text.as_ref())).collect()).await;
}

/// The heads of the requests that would ask for the same over HTTP.
static REQUESTS: std::sync::Mutex<BTreeSet<String>> = std::sync::Mutex::new(BTreeSet::new());

fn keep_request(path: &str, parameters: &[(&str, &str)]) {
    const SPECIAL: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'&').add(b'/').add(b'=').add(b'?');
    let encode = |text| utf8_percent_encode(text, SPECIAL);
    let parameters = parameters.iter().map(|(name, value)| format!("{}={}&", encode(name), encode(value)));
    let request = format!("GET /{}?{} HTTP/1.1\r\n\r\n", encode(path), parameters.collect::<String>());
    REQUESTS.lock().expect("requests").insert(request);
}

pub fn requests() -> String {
    REQUESTS.lock().expect("requests").iter().cloned().collect()
}

pub async fn get(store: &dyn Store, id: &str) -> Option<Document> {
    keep_request(id, &[]);
    let result = store.get(&id.into()).await;
    result.unwrap_or_else(|error| panic!("get of {id:?}: {}", error.report())).document
}

/// Returns the JSON of the record with this id.
pub async fn get_json(store: &dyn Store, id: &str) -> Option<String> {
    get(store, id).await.map(|document| json(&document))
}

pub async fn try_rows(store: &dyn Store, request: ListRequest) -> StoreResult<Vec<Row>> {
    store.list(request).await?.rows.try_collect().await
}

pub async fn rows(store: &dyn Store, request: ListRequest) -> Vec<Row> {
    try_rows(store, request.clone()).await.unwrap_or_else(|error| panic!("{request:?}: {}", error.report()))
}

/// Returns all documents of a list.
pub async fn documents(store: &dyn Store, request: &ListRequest) -> Vec<Document> {
    // Requests with a sort need a limit.
    let limit = request.limit.or((!request.sort.is_empty()).then_some(ALL));
    rows(store, ListRequest { limit, ..request.clone() }).await.into_iter().map(|row| row.document).collect()
}

/// Returns a list in `_id` order.
pub async fn list(store: &dyn Store, after: Option<&Key>) -> Vec<Document> {
    documents(store, &after.map(after_key).unwrap_or_default()).await
}

pub async fn list_keys(store: &dyn Store, after: Option<&Key>) -> Vec<Key> {
    keys_of(&list(store, after).await)
}

/// Returns the request of a list in `_id` order after this key.
pub fn after_key(key: &Key) -> ListRequest {
    let cursor = Cursor { position: Position::of_key(key), no_arrays: false };
    ListRequest { after: Some(cursor), ..Default::default() }
}

/// Parses the parameters of a URL into a request.
pub fn request(parameters: &[(&str, &str)]) -> ListRequest {
    keep_request("", parameters);
    let owned: Vec<_> = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let selection = Selection::parse(&owned).unwrap_or_else(|error| panic!("{parameters:?}: {error:?}"));
    let after = match selection.after {
        Some(After::Cursor(cursor)) => Some(cursor),
        Some(After::Id(_)) => panic!("`after_id` is not for stores"),
        None => None,
    };
    let Selection { filter, sort, projection, limit, .. } = selection;
    ListRequest { filter, sort, after, projection, limit, ..Default::default() }
}

/// Returns a reservation with room for any page.
pub fn reservation() -> MemoryReservation {
    MemoryPool::new(1 << 30).reservation()
}

pub async fn read_page(store: &dyn Store, request: &ListRequest, limit: usize) -> Page {
    let page = page(store, request, limit, &mut reservation()).await;
    page.unwrap_or_else(|error| panic!("{request:?}, {limit} a page: {}", error.report()))
}

/// Reads all pages. Each cursor passes through its text.
pub async fn pages(store: &dyn Store, request: &ListRequest, limit: usize) -> Vec<Vec<Document>> {
    let mut request = request.clone();
    let mut pages = Vec::new();
    loop {
        let page = read_page(store, &request, limit).await;
        pages.push(page.documents);
        let Some(next) = page.next else { return pages };
        let text = next.encode(&request.sort);
        let read = Cursor::decode(&text, &request.sort);
        assert_eq!(read.as_ref(), Some(&next));
        request.after = read;
    }
}

/// Returns all documents of a list, and checks that its pages have the same ones, for each of the limits.
pub async fn paged(store: &dyn Store, request: &ListRequest, limits: impl IntoIterator<Item = usize>) -> Vec<Document> {
    let whole = documents(store, request).await;
    for limit in limits {
        let pages = pages(store, request, limit).await;
        let (last, full) = pages.split_last().expect("a page at least");
        assert!(last.len() <= limit && full.iter().all(|page| page.len() == limit), "{request:?}, {limit} a page");
        assert_eq!(pages.concat(), whole, "{request:?}, {limit} a page");
    }
    whole
}

/// Returns the `_id`s, as JSON, of the records that match the parameters.
pub async fn ids(store: &dyn Store, parameters: &[(&str, &str)]) -> Vec<String> {
    let found = paged(store, &request(parameters), [3]).await;
    found.iter().map(|document| wire::id(document.bson()).expect("an _id")).collect()
}

pub fn json(document: &Document) -> String {
    let mut json = Vec::new();
    wire::document(&mut json, document.bson()).expect("BSON");
    String::from_utf8(json).expect("JSON is UTF-8")
}

/// Returns the id of this document in a URL: its `_id` as the record shows it.
pub fn id_of(document: &Document) -> RecordId {
    #[derive(serde::Deserialize)]
    struct WithId<'a> {
        #[serde(rename = "_id", borrow)]
        id: &'a serde_json::value::RawValue,
    }
    let json = json(document);
    let id = serde_json::from_str::<WithId>(&json).expect("records have an _id").id.get();
    serde_json::from_str::<String>(id).unwrap_or_else(|_| id.to_owned()).into()
}
