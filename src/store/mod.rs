//! Where records live: the [`Store`] trait, its contract, and the list of backends.
//!
//! This is the only place that asks which features are compiled in. A backend is one file, one line in the list at the
//! end of this module, and one Cargo feature with its optional dependency. Tests and benches read [`BACKENDS`], so they
//! pick a new one up by themselves.

mod budget;
mod changes;
mod error;
pub mod fallback;
mod select;
mod turn;

use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, ready};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use prometheus_client::registry::Registry;

pub use budget::{Budget, Share};
pub use changes::{Batch, Change, Feed, Interruption, Token};
pub use error::{Error, Kind, Result};
pub use select::{PAGE_BYTES, Page, page, selected};
pub use turn::{TURN_BYTES, Turn};

use crate::document::Document;
use crate::query::{Fields, Filters, Sort, sort};
use crate::record::{Key, Record, RecordId};

/// Records in `_id` order. Owns what it needs: it may outlive the call that made it.
pub type RecordStream = BoxStream<'static, Result<Record>>;

/// What a lookup found, and how far it can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub record: Option<Record>,
    /// `None` when the store itself answered. Otherwise a copy of it did, which was last known to be current that long
    /// ago.
    pub age: Option<Duration>,
}

impl From<Option<Record>> for Found {
    fn from(record: Option<Record>) -> Self {
        Self { record, age: None }
    }
}

/// The records of a list as they come, and how far they can be relied on.
pub struct Listing {
    records: RecordStream,
    /// A list that has ended stays so, whoever asks again.
    ended: bool,
    age: Arc<OnceLock<Duration>>,
}

impl Listing {
    /// A list out of `records`. Whoever makes it may set `age` until the stream has given its first item, or its end.
    pub fn new(records: RecordStream, age: Arc<OnceLock<Duration>>) -> Self {
        Self { records, ended: false, age }
    }

    /// As [`Found::age`]. Known once the stream has given its first item, or its end.
    pub fn age(&self) -> Option<Duration> {
        self.age.get().copied()
    }

    /// Where [`age`](Self::age) will be found by whoever hands the list on.
    pub fn known_age(&self) -> Arc<OnceLock<Duration>> {
        self.age.clone()
    }
}

impl From<RecordStream> for Listing {
    fn from(records: RecordStream) -> Self {
        Self::new(records, Arc::default())
    }
}

impl Stream for Listing {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.records.as_mut().poll_next(context));
        self.ended = next.is_none();
        Poll::Ready(next)
    }
}

/// How a store is that can be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What is not as it should be although requests are answered, for the operator. Quotes no backend.
    pub degraded: Option<String>,
}

/// Which records a list is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Only records whose key is greater.
    pub after: Option<Key>,
    /// Records of which not all of these hold may be left out. They need not be: [`selected`] decides about each record,
    /// the same for every store, so a store may use what it can of them to find fewer, and ignore the rest.
    pub filters: Filters,
    /// What the reader looks at, beside what the filters ask about: of each record a store may leave out any other of its
    /// fields, and need not. `None`: all of it.
    pub fields: Option<Fields>,
    /// How many records of which the filters hold the reader takes at most. The list may end there, or go on.
    pub limit: Option<usize>,
    /// What the reader looks for, if not for the first ones by `_id`.
    pub order: Option<Order>,
}

/// Another order than that of the `_id`, and how much of it is looked at.
///
/// Of the records of which the filters hold and which come behind `after` a store may leave out all but the first `limit`, and
/// the others may then come in any order. It need not do either: [`page`] puts whatever comes in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub sort: Sort,
    pub after: Option<(sort::Value, Key)>,
    pub limit: usize,
}

impl Query {
    /// Every record.
    pub fn all() -> Self {
        Self::default()
    }

    /// How many records to read at a time, where it would be `usual` many for a whole list: the reader of a short page
    /// takes no more.
    fn page(&self, usual: usize) -> usize {
        self.limit.filter(|_| self.filters.is_empty()).map_or(usual, |limit| limit.clamp(1, usual))
    }

    /// Every record behind `key`.
    pub fn after(key: Key) -> Self {
        Self { after: Some(key), ..Self::default() }
    }
}

/// A place that records live in. A server holds one, as `Arc<dyn Store>`, chosen at run time.
///
/// # Contract
///
/// Every clause is a case of `tests/conformance`, which runs against every backend.
///
/// - **Bytes.** A document that went in by [`upsert`](Store::upsert) comes out as the bytes of
///   [`Document::to_record`], whatever the backend.
/// - **Absence** is `None`, or an empty list; never an error. An error is never absence: after one, nothing is known.
/// - **Order.** Lists are in `_id` order, as [`Key`] compares; there is one record for each key.
/// - **Concurrency.** All calls may be made at once from any number of tasks. A call sees every write that returned
///   before it began. One record is read and written whole; a list is not a snapshot.
/// - **Cancellation.** Any future or stream may be dropped at any time; a write that was under way may then happen or
///   not.
/// - **Time.** A call to a store in another process returns within the time-out the store was opened with, for a list
///   within that time for each step. An embedded store waits for nothing but the disk.
/// - **Errors.** Three kinds ([`Kind`]): `Unavailable`, try again later; `Invalid`, change the input; `Broken`, tell the
///   operator.
pub trait Store: Debug + Send + Sync + 'static {
    /// The record that `id` addresses, if there is one.
    ///
    /// Nothing is done before a reply that is pending is polled.
    ///
    /// The id is compared as text with what the record's JSON shows, except that numbers compare by value: see
    /// [`RecordId::keys`]. No id is an error.
    fn get<'a>(&'a self, id: &'a RecordId) -> Reply<'a, Found>;

    /// Every record that `query` asks for, in `_id` order unless it has another. Nothing is done before the list is read.
    ///
    /// A query is a leave to do less: records of which its filters do not hold, and fields that it does not name, may be there
    /// all the same. [`selected`] and [`page`] give exactly what was asked for, alike over every store.
    ///
    /// In bounded memory, however many there are: the store reads ahead of the consumer by a bounded number of records,
    /// and waits when the consumer does. A record that is there all the while is listed exactly once; one that is written
    /// or removed meanwhile may be listed or not. The stream ends after its first error; without one, it is whole.
    fn list(&self, query: Query) -> Listing;

    /// Puts every document where its key is, in place of what was there, its `_id` included: `5.0` put over `5` shows as
    /// `5.0`. Of two with the same key, the later one stays. Of two calls at once, either may be the later one.
    ///
    /// When it returns `Ok`, all of them are stored as lastingly as the backend can: in memory until the process ends,
    /// on disk after an `fsync`, in MongoDB under the write concern of its URI, which includes the journal unless it says
    /// `journal=false`. After an error some may be stored and some not: the same call may be made again, since twice is as
    /// good as once.
    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>>;

    /// Whether a [`get`](Store::get) that was made now would be answered.
    fn ping(&self) -> BoxFuture<'_, Result<()>>;

    /// As [`ping`](Store::ping), and what the operator should know although requests are answered.
    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        Box::pin(async { self.ping().await.map(|()| Health::default()) })
    }

    /// Every record, as a copy of the store is made from: never one that the store may yet take back. Otherwise as
    /// [`list`](Store::list).
    fn snapshot(&self) -> Listing {
        self.list(Query::all())
    }

    /// What changes from now on, or from behind the batch that `after` came with. Nothing is done before it is read.
    fn changes(&self, after: Option<Token>) -> Feed {
        let _ = after;
        futures::stream::once(async { Err(Interruption::Unsupported) }).boxed()
    }

    /// Makes what the store counts and measures known to `registry`, under names that begin with `store_`. No record, id or
    /// secret is part of it.
    fn register(&self, registry: &mut Registry) {
        let _ = registry;
    }

    /// The store as an embedded one, if it lives in this process.
    fn as_embedded(&self) -> Option<&dyn EmbeddedStore> {
        None
    }
}

/// What a store in this process can do besides: take records as they are, and drop them.
///
/// A copy of another store is kept this way. Where many writers meet, the last one wins.
pub trait EmbeddedStore: Store {
    /// Puts `record` where its key is. Readers see it when this returns; it survives a crash after the next
    /// [`flush`](EmbeddedStore::flush). Returns how long the JSON was that it replaces, in bytes, if there was any.
    fn put(&self, record: Record) -> Result<Option<usize>>;

    /// Removes the record with this key. Returns how long its JSON was, in bytes, if there was one.
    fn remove(&self, key: &Key) -> Result<Option<usize>>;

    /// Returns when all that was written before is as lasting as the store can make it.
    fn flush(&self) -> BoxFuture<'_, Result<()>>;

    /// Whether there is no record at all.
    fn is_empty(&self) -> Result<bool>;

    /// What is being loaded, or was when the process ended: of that the store may hold a part.
    fn loading(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Notes what is being loaded from now on, or that nothing is. When it returns `Ok`, this is as lasting as all that was
    /// written before. A store that ends with its process need not know.
    fn set_loading(&self, what: Option<&str>) -> BoxFuture<'_, Result<()>> {
        let _ = what;
        Box::pin(ready(Ok(())))
    }
}

/// The future of a call. An embedded store has its answer at once, and pays for no allocation to say so.
#[must_use = "futures do nothing unless polled"]
pub enum Reply<'a, T> {
    /// `None` once it was polled.
    Ready(Option<Result<T>>),
    Pending(BoxFuture<'a, Result<T>>),
}

impl<T> Reply<'_, T> {
    pub fn ready(result: Result<T>) -> Self {
        Self::Ready(Some(result))
    }
}

impl<T: Unpin> Future for Reply<'_, T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(result) => match result.take() {
                Some(result) => Poll::Ready(result),
                // A future that was polled to its end has nothing more to say.
                None => Poll::Pending,
            },
            Self::Pending(future) => future.as_mut().poll(context),
        }
    }
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where records are kept inside a database that has collections.
    pub collection: String,
    /// How long one call to a store in another process may take.
    pub timeout: Duration,
    /// How much memory a store on this machine's disk may take to keep what it has read, in bytes. It takes no more than
    /// its records need.
    pub cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { collection: "records".to_owned(), timeout: Duration::from_secs(5), cache_bytes: 1024 * 1024 * 1024 }
    }
}

/// Where a backend keeps its records, which decides what its URL is and what a test must provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this process, gone with it. The URL is the scheme and a colon.
    Memory,
    /// In a directory that belongs to one process at a time: the scheme, a colon, its path.
    Directory,
    /// In a server elsewhere: a URL with `//` and a host.
    Server,
}

/// What a store in a directory writes there before anything of its own: by this file a directory is known to be a store's.
pub const FORMAT_FILE: &str = "FORMAT";

/// A backend that is compiled in.
pub struct Backend {
    /// The first of the URL schemes it answers to, which is also its name.
    pub name: &'static str,
    pub place: Place,
    open: Open,
    check: Check,
}

type Check = fn(String) -> BoxFuture<'static, Result<()>>;
type Open = fn(String, Options) -> BoxFuture<'static, Result<Arc<dyn Store>>>;

/// Opens the store that `url` names.
///
/// A store in another process need not be reachable: it is connected to when it is needed, again and again.
///
/// # Errors
///
/// `Invalid` when the URL is wrong, or names a backend that is unknown or not compiled in; whatever keeps an embedded
/// store from being opened otherwise. The text says what to do, and never repeats the URL, which may hold a password.
pub async fn open(url: &str, options: Options) -> Result<Arc<dyn Store>> {
    (backend(url)?.open)(url.to_owned(), options).await
}

/// What [`open`] would refuse of `url`, as far as that shows without opening, making or connecting to anything.
///
/// # Errors
///
/// Those of [`open`].
pub async fn check(url: &str) -> Result<()> {
    (backend(url)?.check)(url.to_owned()).await
}

fn backend(url: &str) -> Result<&'static Backend> {
    let no_url = || Error::invalid(format!("a store is named by a URL, one of {}", examples()));
    let name = name(url).ok_or_else(no_url)?;
    let backend = BACKENDS.iter().find(|backend| backend.name == name);
    backend.ok_or_else(|| {
        if MISSING.contains(&name) {
            Error::invalid(format!("this build has no {name} store: rebuild with --features {name}"))
        } else if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
            Error::invalid(format!("there is no {name:?} store: use one of {}", examples()))
        } else {
            // Not a scheme, so perhaps a password.
            no_url()
        }
    })
}

/// Where the store that `url` names would keep its records; `None` when this build has no such store.
pub fn place(url: &str) -> Option<Place> {
    let name = name(url)?;
    BACKENDS.iter().find(|backend| backend.name == name).map(|backend| backend.place)
}

/// What the scheme of `url` says of the store.
fn name(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once(':')?;
    // A way to find a MongoDB, not another store.
    Some(if scheme == "mongodb+srv" { "mongodb" } else { scheme })
}

fn examples() -> String {
    let form = |backend: &Backend| match backend.place {
        Place::Memory => format!("{}:", backend.name),
        Place::Directory => format!("{}:DIRECTORY", backend.name),
        Place::Server => format!("{}://HOST/DATABASE", backend.name),
    };
    BACKENDS.iter().map(form).collect::<Vec<_>>().join(", ")
}

/// What comes after the scheme of an embedded store's URL, as a path.
fn directory(url: &str) -> Result<PathBuf> {
    let path = url.split_once(':').map(|(_, path)| path).unwrap_or_default();
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err(Error::invalid("the URL names no directory: write it behind the colon, as in sled:DIRECTORY"));
    }
    Ok(path.into())
}

/// One line per backend. Emits its module, its row in [`BACKENDS`] where it is compiled in, and its name in [`MISSING`]
/// where it is not. `memory` has no feature: it is the reference, and always there.
macro_rules! backends {
    ($($name:literal => $module:ident, $place:ident;)*) => {
        mod memory;
        $(#[cfg(feature = $name)] mod $module;)*

        /// The backends of this build.
        pub const BACKENDS: &[Backend] = &[
            Backend {
                name: "memory",
                place: Place::Memory,
                open: |url, options| Box::pin(memory::open(url, options)),
                check: |url| Box::pin(memory::check(url)),
            },
            $(#[cfg(feature = $name)]
            Backend {
                name: $name,
                place: Place::$place,
                open: |url, options| Box::pin($module::open(url, options)),
                check: |url| Box::pin($module::check(url)),
            },)*
        ];

        /// The backends that exist, but not in this build.
        const MISSING: &[&str] = &[$(#[cfg(not(feature = $name))] $name,)*];
    };
}

backends! {
    "sled" => sled, Directory;
    "mongodb" => mongodb, Server;
}

/// What is served when nothing is set: an embedded store that needs no setting up. A build that has MongoDB and nothing
/// beside it is made for production, where serving sample data by mistake would be worse than not starting.
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
