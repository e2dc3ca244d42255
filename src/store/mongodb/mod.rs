//! Records in a MongoDB, by the [official driver](https://docs.rs/mongodb), on raw bytes.
//!
//! What is different from calling the driver directly, and why:
//!
//! - **No future of the driver is ever dropped half way.** The driver's documentation warns of it, and a client that
//!   hangs up would do just that. Every call runs to its end in a task of its own; only the wait for it ends early.
//! - **Every wait is bounded in seconds.** The driver selects a server for up to 30 s, and waits for a free connection
//!   without end. Here one deadline spans it all, and so many calls are let in at once and no more, that a stuck server
//!   cannot pile up tasks without limit.
//! - **Lookups in flight share a round trip:** see [`lookups`].
//! - **The client is made when it is first needed,** and again until that succeeds, so that the service starts while
//!   MongoDB, or the DNS that knows where it is, is down.
//!
//! [`bson`] turns the server's bytes into wire JSON, [`batch`] many at a time; [`lists`] reads lists by the server's cursors,
//! which [`cursor`] ends, no further than [`ahead`] has room for, [`filter`] and [`order`] say in MongoDB's words what they are
//! of, and [`short`] reads those at once that are; [`ids`] knows where the server's order is not ours; [`changes`] follows what
//! changes; [`error`] sorts the driver's errors, and [`failures`] counts them.

mod ahead;
mod batch;
mod bson;
mod changes;
mod connections;
mod cursor;
mod error;
mod failures;
mod filter;
mod ids;
mod lists;
mod lookups;
mod order;
mod short;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::BoxFuture;
use futures::stream::StreamExt;
use mongodb::bson::{Document as Bson, RawDocumentBuf, doc};
use mongodb::options::{Acknowledgment, ClientOptions, ConnectionString, HostInfo};
use mongodb::{Client, Collection};
use prometheus_client::registry::Registry;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Error, Feed, Found, Listing, Options, Query, Reply, Result, Store, Token};
use crate::document::Document;
use crate::record::{Key, Record, RecordId};
use ahead::Held;
use batch::records;
use connections::Connections;
use failures::Failures;
use ids::Decimals;
use lookups::{Fetch, Lookups};
use short::Last;

/// The database, where the URI's path names none.
const DEFAULT_DATABASE: &str = "records";

/// How many calls may be under way for each connection of the pool. A few may wait for a connection, so that none stands
/// idle; more would only wait longer.
const CALLS_PER_CONNECTION: u32 = 4;

/// How many connections are left to what must not wait for lists, where the pool has as many: a lookup, a ping and the change
/// stream take one each. Lists may be slow, and few of them would do to keep all others out.
const NOT_FOR_LISTS: u32 = 3;

/// What the driver does when the URI says nothing.
const DEFAULT_POOL_SIZE: u32 = 10;

/// How much of an import goes into one command, in bytes. A command is a document, with a document's limit of 16 MiB;
/// a single larger record goes alone, for which the server leaves room.
const COMMAND_BYTES: usize = 8 * 1024 * 1024;
/// As many as the server takes in one command would be 100,000; this many are no slower, and shorter to wait for.
const COMMAND_DOCUMENTS: usize = 5_000;

#[derive(Clone)]
pub struct MongoDb {
    inner: Arc<Inner>,
    lookups: Arc<Lookups<Arc<Inner>>>,
    /// Whether the last id that may be two keys was found as a string.
    strings: Arc<AtomicBool>,
    last: Last,
    held: Held,
    decimals: Decimals,
}

struct Inner {
    uri: ConnectionString,
    options: Options,
    database: String,
    client: OnceCell<Client>,
    connections: Connections,
    failures: Failures,
    /// Calls that are no lookups, and not for lists.
    calls: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    /// How far the server was at most, as a change stream has heard: see [`changes`].
    seen: AtomicU64,
    /// What a snapshot must at least have, for a change stream to have the rest. 0 where there was none.
    begun: AtomicU64,
}

/// Reads the URI, and connects to nothing.
pub async fn open(url: String, options: Options) -> Result<Arc<dyn Store>> {
    let uri = parsed(&url).await?;
    let pool = uri.max_pool_size.filter(|size| *size > 0).unwrap_or(DEFAULT_POOL_SIZE);
    let database = uri.default_database.clone().unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
    Ok(Arc::new(MongoDb::new(Inner::new(uri, options, database, OnceCell::new(), pool), pool)))
}

pub async fn check(url: String) -> Result<()> {
    parsed(&url).await.map(drop)
}

async fn parsed(url: &str) -> Result<ConnectionString> {
    let wrong = |error: mongodb::error::Error| {
        Error::invalid(format!("the MongoDB URI is wrong: {}", error::without_secrets(&error, url)))
    };
    let uri = ConnectionString::parse(url).map_err(wrong)?;
    if !matches!(uri.host_info, HostInfo::DnsRecord(_)) {
        // Options that the driver refuses are refused now; for `mongodb+srv` that takes the DNS, so later.
        ClientOptions::parse(uri.clone()).await.map_err(wrong)?;
    }
    Ok(uri)
}

impl Inner {
    /// `pool`: how many connections `client` has at most.
    fn new(uri: ConnectionString, options: Options, database: String, client: OnceCell<Client>, pool: u32) -> Self {
        let places = |count: u32| Arc::new(Semaphore::new((count as usize).min(Semaphore::MAX_PERMITS)));
        Self {
            uri,
            options,
            database,
            client,
            connections: Connections::default(),
            failures: Failures::default(),
            calls: places(pool.saturating_mul(CALLS_PER_CONNECTION)),
            lists: places(pool.saturating_sub(NOT_FOR_LISTS).max(1)),
            seen: AtomicU64::new(0),
            begun: AtomicU64::new(0),
        }
    }

    async fn client(&self) -> mongodb::error::Result<&Client> {
        self.client
            .get_or_try_init(|| async {
                let mut options = ClientOptions::parse(self.uri.clone()).await?;
                // What the URI says stands. A connection that takes half of a call's time is given up, so that the other
                // half is left for another server or a second try.
                let half = self.options.timeout / 2;
                options.app_name.get_or_insert_with(|| "records".to_owned());
                options.connect_timeout.get_or_insert(half);
                options.server_selection_timeout.get_or_insert(half);
                options.cmap_event_handler = Some(self.connections.handler());
                Client::with_options(options)
            })
            .await
    }

    async fn collection(&self) -> mongodb::error::Result<Collection<RawDocumentBuf>> {
        Ok(self.client().await?.database(&self.database).collection(&self.options.collection))
    }

    /// The filter that finds every record that `keys` may mean, by the index of `_id`.
    fn filter(keys: &[Key]) -> Bson {
        match keys {
            [key] => doc! { "_id": bson::from_key(key) },
            keys => doc! { "_id": { "$in": keys.iter().map(bson::from_key).collect::<Vec<_>>() } },
        }
    }

    /// One `update` command that replaces or inserts each document.
    async fn replace(&self, documents: &[Document]) -> Result<()> {
        let mut command = Vec::new();
        bson::with_length(&mut command, |out| {
            bson::append_string(out, "update", &self.options.collection);
            bson::append_nested(out, "updates", true, |out| {
                for (index, document) in documents.iter().enumerate() {
                    bson::append_nested(out, &index.to_string(), false, |out| {
                        bson::append_nested(out, "q", false, |out| {
                            bson::append_element(out, "_id", &document.fields()[0].1)
                        });
                        bson::append_nested(out, "u", false, |out| bson::append_fields(out, document.fields()));
                        bson::append_bool(out, "upsert", true);
                    });
                }
            });
            // Their order does not matter, no two have one key; and the first bad one shall not keep back the others.
            bson::append_bool(out, "ordered", false);
        });
        let command = RawDocumentBuf::from_bytes(command)
            .map_err(|error| Error::broken("an update command was malformed").with_source(error))?;
        let run = async {
            let client = self.client().await?;
            let mut command = command;
            let mut concern = self.uri.write_concern.clone().unwrap_or_default();
            // A lone server says yes before its journal is on disk, and forgets the last moment when it is killed. What
            // the URI says stands; and a write that nobody waits for cannot wait for the disk.
            concern.journal.get_or_insert(concern.w != Some(Acknowledgment::Nodes(0)));
            let concern = mongodb::bson::serialize_to_raw_document_buf(&concern)?;
            command.append(mongodb::bson::cstr!("writeConcern"), concern);
            client.database(&self.database).run_raw_command(command).await
        };
        error::refusals(&run.await.map_err(error::sorted)?)
    }
}

impl Fetch for Arc<Inner> {
    async fn fetch(&self, keys: Vec<Key>, mut found: impl FnMut(Record) + Send) -> Result<()> {
        let begin = async {
            let collection = self.collection().await?;
            let count = keys.len() as i64;
            // All in one batch, but for records that together are too large for it.
            let find = collection.find(Inner::filter(&keys)).limit(count).batch_size(keys.len() as u32);
            find.max_time(self.options.timeout).batch().await
        };
        let fetched = async {
            let mut batches = begin.await.map_err(error::sorted)?;
            while let Some(batch) = batches.next().await {
                records(&batch.map_err(error::sorted)?)?.into_iter().for_each(&mut found);
            }
            Ok(())
        };
        fetched.await.inspect_err(|error| self.failures.count(error))
    }
}

impl MongoDb {
    fn new(inner: Inner, connections: u32) -> Self {
        let inner = Arc::new(inner);
        let lookups = Arc::new(Lookups::new(inner.clone(), connections as usize));
        let (last, held, decimals) = (Last::default(), Held::default(), Decimals::default());
        Self { inner, lookups, strings: Arc::default(), last, held, decimals }
    }

    /// What `id` addresses, by the keys it may stand for.
    async fn find(&self, id: &RecordId) -> Result<Option<Record>> {
        let mut keys = id.keys();
        let (Some(first), second) = (keys.next(), keys.next()) else { return Ok(None) };
        let Some(second) = second else {
            let [lookup] = self.lookups.get([first]);
            return lookup.answer().await;
        };
        // The typed key comes first, and nearly always finds it: the string is asked for only then, which is the faster
        // way for a collection with ObjectIds. Where strings look like something else, both are asked for at once.
        let (found, string) = if self.strings.load(Ordering::Relaxed) {
            let [typed, string] = self.lookups.get([first, second]);
            match typed.answer().await? {
                Some(record) => (Some(record), false),
                None => (string.answer().await?, true),
            }
        } else {
            let [typed] = self.lookups.get([first]);
            match typed.answer().await? {
                Some(record) => (Some(record), false),
                None => {
                    let [string] = self.lookups.get([second]);
                    (string.answer().await?, true)
                }
            }
        };
        if found.is_some() && string != self.strings.load(Ordering::Relaxed) {
            self.strings.store(string, Ordering::Relaxed);
        }
        Ok(found)
    }

    fn late(&self) -> Error {
        error::late("MongoDB did not answer in time", self.inner.options.timeout)
    }

    /// As [`late`](Self::late), where nothing but the wait ends.
    fn given_up(&self) -> Error {
        let late = self.late();
        self.inner.failures.count(&late);
        late
    }

    /// Runs `call` to its end in a task of its own, and waits for it as long as a call may take.
    async fn bounded<T, F>(&self, call: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let within = self.inner.options.timeout;
        timeout(within, async {
            let permit = permit(&self.inner.calls).await?;
            let call = call(self.inner.clone());
            let inner = self.inner.clone();
            let task = tokio::spawn(async move {
                let result = call.await.inspect_err(|error| inner.failures.count(error));
                // Held as long as the driver is at work, not as long as somebody waits.
                drop(permit);
                result
            });
            task.await.unwrap_or_else(|error| Err(Error::broken("a call to MongoDB gave up").with_source(error)))
        })
        .await
        .unwrap_or_else(|_| Err(self.given_up()))
    }
}

async fn permit(calls: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let closed = |error| Error::broken("the MongoDB store is closed").with_source(error);
    calls.clone().acquire_owned().await.map_err(closed)
}

impl Store for MongoDb {
    fn get<'a>(&'a self, id: &'a RecordId) -> Reply<'a, Found> {
        Reply::Pending(Box::pin(async move {
            let found = timeout(self.inner.options.timeout, self.find(id)).await;
            found.unwrap_or_else(|_| Err(self.given_up())).map(Found::from)
        }))
    }

    fn list(&self, query: Query) -> Listing {
        self.listed(query, false)
    }

    fn snapshot(&self) -> Listing {
        self.listed(Query::all(), true)
    }

    fn changes(&self, after: Option<Token>) -> Feed {
        changes::feed(self, after)
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // One command has each key once: within a command the server may change the order.
            let mut last = HashMap::with_capacity(documents.len());
            for (index, document) in documents.iter().enumerate() {
                last.insert(document.key().clone(), index);
            }
            let mut command = Vec::new();
            let mut bytes = 0;
            for (index, document) in documents.into_iter().enumerate() {
                if last.get(document.key()) != Some(&index) {
                    continue;
                }
                let size = document.encoded_len();
                if !command.is_empty() && (bytes + size > COMMAND_BYTES || command.len() == COMMAND_DOCUMENTS) {
                    let full = std::mem::take(&mut command);
                    self.bounded(|inner| async move { inner.replace(&full).await }).await?;
                    bytes = 0;
                }
                bytes += size;
                command.push(document);
            }
            if command.is_empty() {
                return Ok(());
            }
            self.bounded(|inner| async move { inner.replace(&command).await }).await
        })
    }

    fn register(&self, registry: &mut Registry) {
        self.lookups.register(registry);
        self.inner.connections.register(registry);
        self.inner.failures.register(registry);
    }

    /// Takes no list's place, so that it is answered as long as lookups are. Finds one `_id`, which asks for what a lookup needs: a server that is there, and the right to read.
    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.bounded(|inner| async move {
            let one = async {
                let collection = inner.collection().await?;
                let find = collection.find(doc! {}).projection(doc! { "_id": 1 }).limit(1);
                find.max_time(inner.options.timeout).batch().await?.next().await.transpose()
            };
            one.await.map(drop).map_err(error::sorted)
        }))
    }
}

impl fmt::Debug for MongoDb {
    /// Names the place, never the URI: that may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MongoDB store in {}.{}", self.inner.database, self.inner.options.collection)
    }
}

#[cfg(test)]
mod tests;
