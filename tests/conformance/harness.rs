//! What a case is, and what it gets: a store of its own, empty.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};
use records::document::{Document, Value, extended_json};
use records::record::{Key, Record, RecordId};
use records::store::fallback::{self, Mode, Settings};
use records::store::{self, Backend, Options, Place, Query, Store};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::elsewhere::Elsewhere;
use crate::servers;

/// Long enough for a busy machine: what takes this long has failed. Time-outs have tests of their own.
const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Case {
    pub name: &'static str,
    pub needs: Needs,
    pub run: fn(&Context),
}

/// Which backends a case is for.
#[derive(Clone, Copy)]
pub enum Needs {
    Any,
    /// Records can be put and removed one by one.
    Embedded,
    /// Records are there when the store is opened again.
    Directory,
}

impl Needs {
    pub fn are_met_by(self, place: Place) -> bool {
        match self {
            Self::Any => true,
            Self::Embedded => place != Place::Server,
            Self::Directory => place == Place::Directory,
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

/// Where one trial has its stores: a directory, or a database, that no other trial has.
pub struct Context {
    backend: &'static Backend,
    runtime: Handle,
    area: Area,
    stores: AtomicU32,
}

enum Area {
    Memory,
    Directory(TempDir),
    /// The URL of a database.
    Server(String),
    /// Memory stores by name, each behind a fallback: what is promised of a store is promised of one made of two.
    Fallback(Mutex<BTreeMap<String, Arc<dyn Store>>>),
}

impl Context {
    pub fn new(backend: &'static Backend, runtime: Handle) -> Result<Self, String> {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let area = match backend.place {
            Place::Memory => Area::Memory,
            Place::Directory => {
                Area::Directory(TempDir::new().map_err(|error| format!("no temporary directory: {error}"))?)
            }
            Place::Server => {
                let number = DATABASES.fetch_add(1, Ordering::Relaxed);
                let url = servers::url(backend.name, &format!("conformance_{}_{number}", std::process::id()))?;
                runtime.block_on(reach(backend.name, &url))?;
                Area::Server(url)
            }
        };
        Ok(Self { backend, runtime, area, stores: AtomicU32::new(0) })
    }

    /// Beside a memory store, which is as good as a server then.
    pub fn fallback(backend: &'static Backend, runtime: Handle) -> Self {
        Self { backend, runtime, area: Area::Fallback(Mutex::default()), stores: AtomicU32::new(0) }
    }

    pub fn place(&self) -> Place {
        match self.area {
            Area::Fallback(_) => Place::Server,
            _ => self.backend.place,
        }
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// A case that takes one empty store.
    pub fn store(&self, case: impl AsyncFnOnce(Arc<dyn Store>)) {
        self.block_on(async { case(self.fresh().await).await });
    }

    /// A case that opens stores itself.
    pub fn context(&self, case: impl AsyncFnOnce(&Self)) {
        self.block_on(case(self));
    }

    /// A case that runs many times, each time on an empty store, with what `strategy` makes up.
    pub fn property(&self, case: impl FnOnce(&Self)) {
        case(self);
    }

    /// Runs `check` with `embedded` values, fewer where each one waits for a server.
    pub fn check<T: std::fmt::Debug>(
        &self,
        embedded: u32,
        strategy: &impl Strategy<Value = T>,
        check: impl AsyncFn(Arc<dyn Store>, T),
    ) {
        let cases = match self.place() {
            Place::Memory => embedded,
            Place::Directory => embedded / 2,
            Place::Server => embedded / 8,
        };
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        let checked = TestRunner::new(config).run(strategy, |value| {
            self.store(async |store| check(store, value).await);
            Ok(())
        });
        if let Err(error) = checked {
            panic!("{error}");
        }
    }

    /// An empty store that nothing else uses.
    async fn fresh(&self) -> Arc<dyn Store> {
        let number = self.stores.fetch_add(1, Ordering::Relaxed);
        self.open(&format!("store_{number}")).await
    }

    /// The same store at every call: what was kept in it is there again, once the one before was dropped.
    pub async fn reopen(&self) -> Arc<dyn Store> {
        self.open("reopened").await
    }

    async fn open(&self, name: &str) -> Arc<dyn Store> {
        let url = match &self.area {
            Area::Memory => format!("{}:", self.backend.name),
            Area::Directory(directory) => format!("{}:{}", self.backend.name, directory.path().join(name).display()),
            Area::Server(url) => url.clone(),
            Area::Fallback(primaries) => {
                let mut primaries = primaries.lock().await;
                if !primaries.contains_key(name) {
                    let primary = store::open("memory:", Options::default()).await.expect("a memory store");
                    primaries.insert(name.to_owned(), Arc::new(Elsewhere(primary)));
                }
                return beside(primaries[name].clone()).await;
            }
        };
        let options = Options { collection: name.to_owned(), timeout: TIMEOUT, ..Default::default() };
        let opened = records::store::open(&url, options).await;
        opened.unwrap_or_else(|error| panic!("the store does not open: {}", chain(&error)))
    }
}

async fn beside(primary: Arc<dyn Store>) -> Arc<dyn Store> {
    let settings = Settings {
        copy: "memory:".to_owned(),
        source: "conformance".to_owned(),
        mode: Mode::Standby,
        // Nothing here is away, and a busy machine is no reason to ask the copy.
        after: TIMEOUT,
        max_age: None,
        refresh: Duration::from_millis(250),
        max_bytes: u64::MAX,
        options: Options::default(),
    };
    fallback::over(primary, settings).await.expect("a fallback")
}

/// Asks a server once whether it is there: if it is not, every trial says so at once, not after a time-out each.
async fn reach(name: &'static str, url: &str) -> Result<(), String> {
    static REACHED: Mutex<BTreeMap<&str, Result<(), String>>> = Mutex::const_new(BTreeMap::new());
    let mut reached = REACHED.lock().await;
    if let Some(known) = reached.get(name) {
        return known.clone();
    }
    let options = Options { collection: "records".to_owned(), timeout: Duration::from_secs(10), ..Default::default() };
    let ping = async { records::store::open(url, options).await?.ping().await };
    let result = ping.await.map_err(|error| format!("the {name} server of the environment: {}", chain(&error)));
    reached.insert(name, result.clone());
    result
}

/// An error with all that lies beneath it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// The document that Extended JSON says.
pub fn document(text: &str) -> Document {
    extended_json::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A document of `size` bytes and a few. Binary data: it is written far quicker than text where nothing is optimised.
pub fn large(id: Value, size: usize) -> Document {
    let bytes = Value::Binary { subtype: 0, bytes: vec![7; size] };
    Document::new(vec![("_id".into(), id), ("bytes".into(), bytes)]).expect("a document within the limits")
}

/// Documents `{"_id": 0}` and so on.
pub fn numbered(ids: impl IntoIterator<Item = i64>) -> Vec<Document> {
    ids.into_iter().map(|id| document(&format!(r#"{{"_id":{id}}}"#))).collect()
}

pub async fn upsert(store: &dyn Store, documents: Vec<Document>) {
    store.upsert(documents).await.unwrap_or_else(|error| panic!("upsert: {}", chain(&error)));
}

pub async fn upsert_texts(store: &dyn Store, texts: &[&str]) {
    upsert(store, texts.iter().map(|text| document(text)).collect()).await;
}

pub async fn get(store: &dyn Store, id: &str) -> Option<Record> {
    store.get(&id.into()).await.unwrap_or_else(|error| panic!("get of {id:?}: {}", chain(&error))).record
}

/// The JSON of the record with this id.
pub async fn get_json(store: &dyn Store, id: &str) -> Option<String> {
    get(store, id).await.map(|record| json(&record))
}

pub async fn list(store: &dyn Store, after: Option<&Key>) -> Vec<Record> {
    let listed = store.list(Query { after: after.cloned(), ..Query::all() }).try_collect().await;
    listed.unwrap_or_else(|error| panic!("list: {}", chain(&error)))
}

pub async fn list_keys(store: &dyn Store, after: Option<&Key>) -> Vec<Key> {
    list(store, after).await.into_iter().map(|record| record.key().clone()).collect()
}

pub fn json(record: &Record) -> String {
    String::from_utf8(record.json().to_vec()).expect("records are UTF-8")
}

/// The id by which a client asks for this document: its `_id` as the record shows it.
pub fn id_of(document: &Document) -> RecordId {
    #[derive(serde::Deserialize)]
    struct WithId<'a> {
        #[serde(rename = "_id", borrow)]
        id: &'a serde_json::value::RawValue,
    }
    let record = document.to_record();
    let id = serde_json::from_slice::<WithId>(record.json()).expect("records have an _id").id.get();
    serde_json::from_str::<String>(id).unwrap_or_else(|_| id.to_owned()).into()
}
