//! The storage layer: the [`Store`] trait with its contract, and the list of backends.
//!
//! Only this file asks which features are compiled in. A backend is one file or folder, one line in the list at the end of
//! this file, and one Cargo feature with its optional dependency. Tests and benches read [`BACKENDS`], so they pick a new one
//! up by themselves.

mod changes;
mod error;
mod exec;
mod exposed;
pub mod fallback;
mod freshness;
mod list;
mod memory_pool;
mod metric;
mod page;
pub mod url;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, ready};

pub use changes::{Change, ChangeBatch, ChangeStream, ChangeStreamError, ResumeToken};
pub use error::{Error, Kind, Refusal, RefusedDocument, Result, WriteOutcome};
pub use exec::{CHUNK_BYTES, CHUNK_DOCUMENTS, ChunkStream, Chunks, execute, execute_unordered};
pub use exposed::exposed;
pub use fallback::ReplicaExport;
pub use freshness::{ClusterTime, Freshness, NOT_BEFORE};
use list::count_listed;
pub use list::{
    AuditReport, COUNT_TIME, CountResult, GetResult, ListRequest, ListResult, Precision, Row, RowStream, SnapshotRows,
};
pub use memory_pool::{MemoryPool, MemoryReservation, UNCOUNTED_BYTES};
pub use metric::{Histogram, Metric, MetricValue};
pub use page::{PAGE_BYTES, Page, page};

use crate::query::Exposure;
use crate::record::{Document, Key, RecordId};

/// The state of a store that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// A warning for the operator although requests are answered. Quotes no text of the backend.
    pub degraded: Option<String>,
    /// True if a replica answers because the primary does not: the time of the check is no latency of the primary.
    pub is_from_replica: bool,
}

/// A store of records. A server holds one as `Arc<dyn Store>`, chosen at run time.
///
/// # Contract
///
/// Every clause is a case of `tests/conformance`, which runs against every backend.
///
/// - **Bytes.** A document that went in by [`upsert`](Store::upsert) comes out with the same wire JSON from every backend.
/// - **Absence** is `None`, or an empty list; never an error. An error is never absence: after one, nothing is known.
/// - **Exactness.** A list has exactly the documents that were asked for, in the order that was asked for, as MongoDB defines
///   both. Without an order it is in `_id` order, as [`Key`] compares.
/// - **Concurrency.** All calls may be made at once from any number of tasks. A call sees every write that returned
///   before it began. One record is read and written whole; a list is not a snapshot.
/// - **Cancellation.** Any future or stream may be dropped at any time; a write that was under way may then happen or
///   not.
/// - **Time.** A call to a store in another process returns within the time-out the store was opened with, for a list
///   within that time for each step. An embedded store waits for nothing but the disk.
/// - **Errors.** Three kinds ([`Kind`]): `Unavailable`, try again later; `Invalid`, change the input; `Broken`, tell the
///   operator.
pub trait Store: Debug + Send + Sync + 'static {
    /// Returns the record that `id` addresses, if it exists. Every id is valid.
    ///
    /// The keys of [`RecordId::keys`] are tried in their order.
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>>;

    /// Returns the result of [`get`](Store::get) within the bounds of `freshness`.
    ///
    /// # Errors
    ///
    /// `Unavailable`, also when no half of a fallback has an answer within the bounds: see [`Refusal`]. `Invalid` when the bound
    /// is a cluster time, and the store has none.
    fn get_fresh<'a>(&'a self, id: &'a RecordId, freshness: &'a Freshness) -> BoxFuture<'a, Result<GetResult>> {
        match freshness.without_cluster_time() {
            Ok(()) => self.get(id),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    /// Returns the result of [`get`](Store::get) if the store can answer without waiting, `None` otherwise.
    fn try_get(&self, id: &RecordId) -> Option<Result<GetResult>> {
        let _ = id;
        None
    }

    /// Lists the documents that match `request`. The future resolves once the first row is known, or that the list is empty.
    ///
    /// Memory is bounded: the store reads ahead of the consumer by a bounded number of bytes, then waits for it. A record
    /// that exists throughout is listed exactly once; a record that is written or removed during the list may or may not
    /// be listed. The stream ends after its first error; without an error it is complete.
    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>>;

    /// Counts the documents that match the filter of `request`, wherever it begins, up to its limit. A count that reaches the
    /// limit or takes longer than [`COUNT_TIME`] ends as an estimate: the number so far, or a better one. `None` where there is
    /// no number after that time.
    fn count(&self, request: ListRequest, precision: Precision) -> BoxFuture<'_, Result<Option<CountResult>>> {
        let _ = precision;
        Box::pin(count_listed(self, ListRequest { projection: None, ..request }))
    }

    /// Inserts every document, or replaces the one with the same key, `_id` included: `5.0` replaces `5` and shows as `5.0`.
    /// If a key repeats, the last document wins. Concurrent calls may win in either order.
    ///
    /// After `Ok`, all documents are as durable as the backend allows: in memory until the process ends, on disk after
    /// `fsync`, in MongoDB under the write concern of its URI, which includes the journal unless it says `journal=false`.
    /// After an error, some documents may be stored. The call is idempotent and may be repeated.
    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>>;

    /// Returns `Ok` if a [`get`](Store::get) would be answered now.
    fn ping(&self) -> BoxFuture<'_, Result<()>>;

    /// Pings the store, and returns warnings for the operator.
    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        Box::pin(async { self.ping().await.map(|()| Health::default()) })
    }

    /// Lists every document for a replica, and only state that a failover cannot roll back. With `after`, lists those after
    /// the last document of a snapshot that was interrupted, if that one was in order.
    fn snapshot(&self, after: Option<Key>) -> BoxFuture<'_, Result<SnapshotRows>> {
        let _ = after;
        let list = self.list(ListRequest::default());
        Box::pin(async { Ok(SnapshotRows { rows: list.await?.rows, is_in_order: false }) })
    }

    /// Streams the changes from now on, or since the batch of `after`. Starts when the stream is first polled.
    fn changes(&self, after: Option<ResumeToken>) -> ChangeStream {
        let _ = after;
        let why = || ChangeStreamError::Unsupported("this store has no change stream".to_owned());
        futures::stream::once(async move { Err(why()) }).boxed()
    }

    /// Returns the identity of what the store has now, without secrets: with another one, the records are others. `None` if the
    /// store cannot tell.
    fn identity(&self) -> BoxFuture<'_, Result<Option<String>>> {
        Box::pin(ready(Ok(None)))
    }

    /// Returns the replica of this store for another instance, if the store keeps one.
    fn replica(&self) -> Option<ReplicaExport> {
        None
    }

    /// Connects by `url` from now on, once a server has answered by it. Calls in progress keep the connection they have. After an
    /// error nothing has changed.
    ///
    /// # Errors
    ///
    /// `Invalid` if the URL is wrong, or names another database; `Unavailable` if no server answers by it.
    fn reconnect(&self, url: String) -> BoxFuture<'_, Result<()>> {
        let _ = url;
        Box::pin(ready(Err(Error::invalid("this store has no connection to replace"))))
    }

    /// Returns the report of the last audit of a replica, and that of the last one which found differences.
    fn audits(&self) -> [Option<AuditReport>; 2] {
        [None, None]
    }

    /// Closes the connections to a store in another process. Calls after this one may fail.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    /// Returns the store's metrics, whose names begin with `store_`, `fallback_` or `circuit_breaker_`. Labels contain no
    /// record, id or secret.
    fn metrics(&self) -> Vec<Metric> {
        Vec::new()
    }
}

/// A store in this process, which also writes and removes single documents, as a replica needs. The last writer wins.
pub trait EmbeddedStore: Store {
    /// Inserts or replaces `document`. Readers see it on return; it survives a crash after the next
    /// [`flush`](EmbeddedStore::flush). Returns the size of the replaced document in bytes, if there was one.
    fn put(&self, document: Document) -> Result<Option<usize>>;

    /// Removes the document with this key. Returns its size in bytes, if it existed.
    fn remove(&self, key: &Key) -> Result<Option<usize>>;

    /// Makes all previous writes durable, as far as the store can.
    fn flush(&self) -> BoxFuture<'_, Result<()>>;

    /// Returns true if the store holds no document.
    fn is_empty(&self) -> Result<bool>;

    /// Returns the import that is in progress, or was when the process ended: the store may hold a part of it.
    fn loading(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Records which import is in progress, or that it is complete, as durably as the writes before it. A store that ends with
    /// its process may ignore it.
    fn set_loading(&self, what: Option<&str>) -> BoxFuture<'_, Result<()>> {
        let _ = what;
        Box::pin(ready(Ok(())))
    }
}

/// An open store.
#[derive(Clone, Debug)]
pub enum Opened {
    Embedded(Arc<dyn EmbeddedStore>),
    Remote(Arc<dyn Store>),
}

impl Opened {
    pub fn into_store(self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => store,
            Self::Remote(store) => store,
        }
    }
}

/// Options for opening a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The collection, for a database that has collections.
    pub collection: String,
    /// The time-out of one call to a store in another process.
    pub timeout: Duration,
    /// The cache size in bytes of a store on this machine's disk. The cache never grows beyond the size of the records.
    pub cache_bytes: u64,
    /// The part of the records that is shown. A store in another process has nothing else for those that read it; a store in this
    /// process is restricted by [`exposed()`].
    pub exposure: Arc<Exposure>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            collection: "records".to_owned(),
            timeout: Duration::from_secs(5),
            cache_bytes: 1024 * 1024 * 1024,
            exposure: Arc::default(),
        }
    }
}

/// The location of a backend's records, which decides the form of its URL and what a test must provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// In this process, lost when it ends. The URL is the scheme and a colon.
    InMemory,
    /// In a directory that belongs to one process at a time: the scheme, a colon, its path.
    Local,
    /// In a server elsewhere: a URL with `//` and a host.
    Remote,
}

/// The file that a store in a directory writes there first: it marks the directory as a store's.
pub const FORMAT_FILE: &str = "FORMAT";

/// A backend that is compiled in.
pub struct Backend {
    /// The first of the URL schemes it answers to, which is also its name.
    pub name: &'static str,
    pub kind: BackendKind,
    open: Open,
    check: Check,
}

/// Returns warnings.
type Check = fn(String, Options) -> BoxFuture<'static, Result<Vec<String>>>;
type Open = fn(String, Options) -> BoxFuture<'static, Result<Opened>>;

/// Opens the store that `url` names.
///
/// A store in another process need not be reachable: it is connected to when it is needed, again and again.
///
/// # Errors
///
/// `Invalid` when the URL is wrong, or names a backend that is unknown or not compiled in; whatever keeps an embedded
/// store from being opened otherwise. The text says what to do, and never repeats the URL, which may hold a password.
pub async fn open(url: &str, options: Options) -> Result<Opened> {
    (backend(url)?.open)(url.to_owned(), options).await
}

/// Checks `url` and `options` as [`open`] does, as far as that is possible without opening, making or connecting to anything. Returns what
/// is ignored in it, and why; [`open`] logs that.
///
/// # Errors
///
/// Those of [`open`].
pub async fn check(url: &str, options: &Options) -> Result<Vec<String>> {
    (backend(url)?.check)(url.to_owned(), options.clone()).await
}

fn backend(url: &str) -> Result<&'static Backend> {
    let quoted = if url.starts_with(['"', '\'']) { ", without quotation marks around it" } else { "" };
    let no_url = || Error::invalid(format!("a store is named by a URL{quoted}, one of {}", examples()));
    let name = name(url).ok_or_else(no_url)?;
    let backend = BACKENDS.iter().find(|backend| backend.name == name);
    backend.ok_or_else(|| {
        if MISSING.contains(&name) {
            Error::invalid(format!("this build has no {name} store: rebuild with --features {name}"))
        } else if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
            Error::invalid(format!("there is no {name:?} store: use one of {}", examples()))
        } else {
            // The text before the colon is no scheme and may be a password.
            no_url()
        }
    })
}

/// The kind of the store that `url` names; `None` when this build has no such store.
pub fn kind(url: &str) -> Option<BackendKind> {
    let name = name(url)?;
    BACKENDS.iter().find(|backend| backend.name == name).map(|backend| backend.kind)
}

/// The backend that the scheme of `url` names.
fn name(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once(':')?;
    // The scheme only changes how the servers are discovered.
    Some(if scheme == "mongodb+srv" { "mongodb" } else { scheme })
}

fn examples() -> String {
    let form = |backend: &Backend| match backend.kind {
        BackendKind::InMemory => format!("{}:", backend.name),
        BackendKind::Local => format!("{}:DIRECTORY", backend.name),
        BackendKind::Remote => format!("{}://HOST/DATABASE", backend.name),
    };
    BACKENDS.iter().map(form).collect::<Vec<_>>().join(", ")
}

/// The part of an embedded store's URL after the scheme, as a path.
fn directory(url: &str) -> Result<PathBuf> {
    let (scheme, path) = url.split_once(':').unwrap_or_default();
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err(Error::invalid(format!("the URL names no directory: write it as {scheme}:DIRECTORY")));
    }
    Ok(path.into())
}

/// The backend registry, one line each. Emits the module, a row in [`BACKENDS`] if the backend is compiled in, and its name in
/// [`MISSING`] if it is not. `memory` is the reference implementation and has no feature.
macro_rules! backends {
    ($($name:literal => $module:ident, $kind:ident;)*) => {
        mod memory;
        $(#[cfg(feature = $name)] mod $module;)*

        /// The backends of this build.
        pub const BACKENDS: &[Backend] = &[
            Backend {
                name: "memory",
                kind: BackendKind::InMemory,
                open: |url, options| Box::pin(memory::open(url, options)),
                check: |url, _| Box::pin(memory::check(url)),
            },
            $(#[cfg(feature = $name)]
            Backend {
                name: $name,
                kind: BackendKind::$kind,
                open: |url, options| Box::pin($module::open(url, options)),
                check: |url, options| Box::pin($module::check(url, options)),
            },)*
        ];

        /// The backends that exist, but not in this build.
        const MISSING: &[&str] = &[$(#[cfg(not(feature = $name))] $name,)*];
    };
}

backends! {
    "sled" => sled, Local;
    "mongodb" => mongodb, Remote;
}

/// The store that is served by default: an embedded store, which needs no set-up. A build with MongoDB alone is made for
/// production and has no default, because serving sample data by mistake would be worse than not starting.
pub const DEFAULT_URL: Option<&str> = if cfg!(feature = "sled") {
    Some("sled:records.sled")
} else if cfg!(feature = "mongodb") {
    None
} else {
    Some("memory:")
};

/// The records that an empty embedded store starts with, unless told otherwise: Extended JSON lines. Left out of a build
/// that has no [`DEFAULT_URL`].
#[cfg(any(feature = "sled", not(feature = "mongodb")))]
pub const SEED: Option<&str> = Some(include_str!("../../seed/elements.jsonl"));
#[cfg(not(any(feature = "sled", not(feature = "mongodb"))))]
pub const SEED: Option<&str> = None;
