//! Cases, and the empty store that each of them gets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bson::{Bson, doc};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};
use records::document::{extended_json, validate};
use records::query::{After, Cursor, Position, Selection};
use records::record::{Document, Key, RecordId};
use records::store::fallback::{self, Mode, Settings};
use records::store::{
    Backend, BackendKind, CountResult, Freshness, GetResult, ListRequest, ListResult, MemoryPool, MemoryReservation,
    Opened, Options, Page, Precision, Result as StoreResult, Row, Store, page,
};
use records::wire;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::elsewhere::Unreadable;
use crate::servers;

/// Long enough for a busy machine: what takes this long has failed.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// More than any case stores.
pub const ALL: usize = 1_000_000;

pub struct Case {
    pub name: &'static str,
    pub needs: Needs,
    pub run: fn(&Context),
}

/// The stores that a case is for.
#[derive(Clone, Copy, PartialEq)]
pub enum Needs {
    Any,
    /// Null does not match undefined: all stores but a MongoDB before 8.0.
    Undefined,
    /// Documents can be put and removed one by one.
    Embedded,
    /// Documents are there when the store is opened again.
    Local,
    /// A store in another process.
    Remote,
    /// A collection of a kind that only MongoDB has.
    #[cfg(feature = "mongodb")]
    MongoDb,
}

impl Needs {
    /// `has_fallback`: the case gets the backend with a replica.
    pub fn are_met_by(self, backend: &Backend, has_fallback: bool) -> bool {
        match self {
            Self::Any | Self::Undefined => true,
            _ if has_fallback => false,
            Self::Embedded => backend.kind != BackendKind::Remote,
            Self::Local => backend.kind == BackendKind::Local,
            Self::Remote => backend.kind == BackendKind::Remote,
            #[cfg(feature = "mongodb")]
            Self::MongoDb => backend.name == "mongodb",
        }
    }
}

/// Lists the cases of a file: by what they need, the functions' names.
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

/// The place of one trial's stores: a directory, or a database, that no other trial has.
pub struct Context {
    backend: &'static Backend,
    fallback: Option<Mode>,
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
    pub fn new(backend: &'static Backend, fallback: Option<Mode>, runtime: Handle) -> Result<Self, String> {
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
        Ok(Self { backend, fallback, runtime, area, stores: AtomicU32::new(0) })
    }

    pub fn kind(&self) -> BackendKind {
        match self.fallback {
            Some(_) => BackendKind::Remote,
            None => self.backend.kind,
        }
    }

    pub fn backend(&self) -> &'static Backend {
        self.backend
    }

    /// Returns true if a replica answers.
    pub fn has_replica(&self) -> bool {
        self.fallback.is_some()
    }

    /// The URL of the trial's database.
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

    /// A case that takes one empty store.
    pub fn store(&self, case: impl AsyncFnOnce(Arc<dyn Store>)) {
        self.block_on(async { case(self.fresh().await.into_store()).await });
    }

    /// A case that opens stores itself.
    pub fn context(&self, case: impl AsyncFnOnce(&Self)) {
        self.block_on(case(self));
    }

    /// A case that runs many times, each time on an empty store, with generated values.
    pub fn property(&self, case: impl FnOnce(&Self)) {
        case(self);
    }

    /// Runs `check` with `cases` values, fewer where each takes a store longer; more, if `PROPTEST_CASES` asks for more than
    /// proptest's 256.
    pub fn check<T: std::fmt::Debug>(
        &self,
        cases: u32,
        strategy: &impl Strategy<Value = T>,
        check: impl AsyncFn(Opened, T),
    ) {
        let cases = match (self.fallback, self.backend.kind) {
            (Some(_), _) => cases / 16,
            (None, BackendKind::InMemory) => cases,
            (None, BackendKind::Local) => cases / 2,
            (None, BackendKind::Remote) => cases / 8,
        };
        let config = Config { failure_persistence: None, ..Config::default() };
        let config = Config { cases: cases * config.cases / 256, ..config };
        let checked = TestRunner::new(config).run(strategy, |value| {
            self.block_on(async { check(self.fresh().await, value).await });
            Ok(())
        });
        if let Err(error) = checked {
            panic!("{error}");
        }
    }

    /// An empty store that nothing else uses.
    pub async fn fresh(&self) -> Opened {
        let number = self.stores.fetch_add(1, Ordering::Relaxed);
        self.open(&format!("store_{number}")).await
    }

    /// The same store at every call: its documents are there again, once the one before was dropped.
    pub async fn reopen(&self) -> Opened {
        self.open("reopened").await
    }

    pub async fn open(&self, name: &str) -> Opened {
        let url = match &self.area {
            Area::Memory => format!("{}:", self.backend.name),
            Area::Directory(directory) => format!("{}:{}", self.backend.name, directory.path().join(name).display()),
            Area::Server(url) => url.clone(),
        };
        let options = Options { collection: name.to_owned(), timeout: TIMEOUT, ..Default::default() };
        let begin = Instant::now();
        let mut opened = records::store::open(&url, options.clone()).await;
        // A process that another trial starts has the lock of a directory too, from its fork to its exec.
        while opened.as_ref().is_err_and(|error| error.is_unavailable()) && begin.elapsed() < Duration::from_secs(5) {
            sleep(Duration::from_millis(10)).await;
            opened = records::store::open(&url, options.clone()).await;
        }
        let opened = opened.unwrap_or_else(|error| panic!("the store does not open: {}", error.report()));
        match self.fallback {
            Some(mode) => Opened::Remote(Arc::new(CaughtUp::over(opened.into_store(), mode).await)),
            None => opened,
        }
    }
}

/// A store with a replica that answers every read. A write returns once the replica has it, as [`GetResult::staleness`] tells.
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
            size_limit: u64::MAX,
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
            // Staleness is in milliseconds, and rounded.
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

/// Asks a server once whether it is there: if it is not, every trial says so at once, not after a time-out each.
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

/// The document that Extended JSON says.
pub fn document(text: &str) -> Document {
    extended_json::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A document with this `_id`, given as Extended JSON.
pub fn with_id(id: &str) -> Document {
    document(&format!(r#"{{"_id":{id},"a":1}}"#))
}

/// A document of `size` bytes and a few. Binary data: it is written far quicker than text where nothing is optimised.
pub fn large(id: impl Into<Bson>, size: usize) -> Document {
    let bytes = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![7; size] };
    validate(doc! { "_id": id.into(), "bytes": bytes }).expect("a document within the limits")
}

/// Documents `{"_id": 0}` and so on.
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

pub async fn get(store: &dyn Store, id: &str) -> Option<Document> {
    let result = store.get(&id.into()).await;
    result.unwrap_or_else(|error| panic!("get of {id:?}: {}", error.report())).document
}

/// The JSON of the record with this id.
pub async fn get_json(store: &dyn Store, id: &str) -> Option<String> {
    get(store, id).await.map(|document| json(&document))
}

pub async fn try_rows(store: &dyn Store, request: ListRequest) -> StoreResult<Vec<Row>> {
    store.list(request).await?.rows.try_collect().await
}

pub async fn rows(store: &dyn Store, request: ListRequest) -> Vec<Row> {
    try_rows(store, request.clone()).await.unwrap_or_else(|error| panic!("{request:?}: {}", error.report()))
}

/// The documents of a whole list.
pub async fn documents(store: &dyn Store, request: &ListRequest) -> Vec<Document> {
    // A request that has a sort has a limit too.
    let limit = request.limit.or((!request.sort.is_empty()).then_some(ALL));
    rows(store, ListRequest { limit, ..request.clone() }).await.into_iter().map(|row| row.document).collect()
}

/// A list in `_id` order.
pub async fn list(store: &dyn Store, after: Option<&Key>) -> Vec<Document> {
    documents(store, &after.map(after_key).unwrap_or_default()).await
}

pub async fn list_keys(store: &dyn Store, after: Option<&Key>) -> Vec<Key> {
    keys_of(&list(store, after).await)
}

/// A list in `_id` order that begins after this key.
pub fn after_key(key: &Key) -> ListRequest {
    let cursor = Cursor { position: Position::of_key(key), no_arrays: false };
    ListRequest { after: Some(cursor), ..Default::default() }
}

/// The request that the parameters of a URL make.
pub fn request(parameters: &[(&str, &str)]) -> ListRequest {
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

/// Memory for any page.
pub fn reservation() -> MemoryReservation {
    MemoryPool::new(1 << 30).reservation()
}

pub async fn read_page(store: &dyn Store, request: &ListRequest, limit: usize) -> Page {
    let page = page(store, request, limit, &mut reservation()).await;
    page.unwrap_or_else(|error| panic!("{request:?}, {limit} a page: {}", error.report()))
}

/// All pages, each after the cursor of the one before as its text gives it back.
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

/// The documents of a whole list, which must be those of its pages, at each of the limits.
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

/// The `_id`s, as JSON, of the records that the parameters ask for.
pub async fn ids(store: &dyn Store, parameters: &[(&str, &str)]) -> Vec<String> {
    let found = paged(store, &request(parameters), [3]).await;
    found.iter().map(|document| wire::id(document.bson()).expect("an _id")).collect()
}

pub fn json(document: &Document) -> String {
    let mut json = Vec::new();
    wire::document(&mut json, document.bson()).expect("BSON");
    String::from_utf8(json).expect("JSON is UTF-8")
}

/// The id by which a client asks for this document: its `_id` as the record shows it.
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
