//! Records in a MongoDB, by the [official driver](https://docs.rs/mongodb), on raw bytes.
//!
//! The store differs from plain calls of the driver in four ways:
//!
//! - **No future of the driver is dropped half way.** The driver's documentation warns against it, and a client that disconnects
//!   would cause it. Every call runs to its end in its own task; only the wait for it may end early.
//! - **Every wait is bounded in seconds.** The driver selects a server for up to 30 s, and waits for a free connection
//!   without end. Here one deadline spans the whole call, and the number of calls in progress is bounded, so that a server
//!   that hangs cannot pile up tasks.
//! - **Lookups that wait at the same time share a command:** see [`batcher`].
//! - **The client is created when it is first needed,** with retries, so that the service starts while MongoDB or the DNS for its
//!   address is down. A new URI replaces it while the service runs: see [`client`].
//!
//! [`lists`] executes lists: [`pushdown`] translates them to MongoDB's query language, as far as the kind of the collection
//! ([`namespace`]) allows; [`cursor`] reads and closes the server's cursors, and [`reply`] extracts the documents of their
//! batches. [`counts`] counts documents within bounds. [`changes`] follows the change stream. [`error`] classifies the driver's
//! errors, and [`failures`] counts them.

mod batcher;
mod changes;
mod client;
mod connections;
mod counts;
mod cursor;
mod error;
mod failures;
mod lists;
mod namespace;
mod pushdown;
mod reply;
mod uri;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use futures::future::BoxFuture;
use mongodb::bson::spec::ElementType;
use mongodb::bson::{Bson, Document as Bdoc, RawDocumentBuf, cstr, doc, serialize_to_raw_document_buf};
use mongodb::options::{Acknowledgment, ClientOptions, ConnectionString, HostInfo};
use mongodb::{Client, Collection};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{
    ChangeStream, CountResult, Error, Freshness, GetResult, Health, ListRequest, ListResult, Metric, Opened, Options,
    Precision, Result, ResumeToken, SnapshotRows, Store, WriteOutcome, count_listed,
};
use crate::query::Sort;
use crate::record::{Document, Key, RecordId, ValueRef, raw};
use batcher::{BatchLoader, LookupBatcher};
use client::{Current, LazyClient};
use connections::Connections;
use cursor::Cursor;
use failures::Failures;
use namespace::{Collation, Kind, NamespaceCache};

/// The database if the URI does not name one.
const DEFAULT_DATABASE: &str = "records";

/// The calls that may be in progress for each connection of the pool. A few wait for a connection, so that none is idle; more
/// would only wait longer.
const CALLS_PER_CONNECTION: u32 = 4;

/// The connections of the pool that lists leave free, if the pool is large enough: one each for a lookup, a ping and the change
/// stream. A few slow lists could otherwise block everything else.
const NOT_FOR_LISTS: u32 = 3;

/// The driver's default.
const DEFAULT_POOL_SIZE: u32 = 10;

const VIEW_FAILS: &str = "MongoDB cannot read the view: its pipeline fails, perhaps on a single record. Run it in the MongoDB \
                          shell, which tells the cause, and correct the view or the record.";

/// The size of one write command, in bytes. MongoDB accepts a little more than 16 MiB, so that a single larger document also
/// fits.
const COMMAND_BYTES: usize = 8 * 1024 * 1024;
/// The documents in one write command. MongoDB accepts 100,000; smaller commands are as fast overall, and each takes less time.
const COMMAND_DOCUMENTS: usize = 5_000;

#[derive(Clone)]
pub struct MongoDb {
    inner: Arc<Inner>,
    batcher: Arc<LookupBatcher<Arc<Inner>>>,
    /// True if the last record with an ambiguous id (a string or another type) was found by the string.
    ids_are_strings: Arc<AtomicBool>,
}

struct Inner {
    options: Options,
    database: String,
    client: Current,
    connections: Connections,
    failures: Failures,
    namespaces: NamespaceCache,
    /// Permits for calls that are neither lookups nor lists.
    calls: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    /// The latest time of the server that a change stream has seen: see [`changes`].
    seen: AtomicU64,
    /// The time at which the change stream began: a snapshot must include everything before it. 0 without a stream.
    begun: AtomicU64,
    /// The snapshots that have failed since the last one was complete.
    snapshot_failures: AtomicU32,
    /// True if a list has met documents without an `_id`.
    has_missing_ids: AtomicBool,
}

/// Reads the URI without connecting.
pub async fn open(url: String, options: Options) -> Result<Opened> {
    check_collection(&options.collection)?;
    let uri = parse_and_warn(&url).await?;
    let pool = uri.max_pool_size.filter(|size| *size > 0).unwrap_or(DEFAULT_POOL_SIZE);
    let database = database_of(&uri);
    let inner = Inner::new(uri, options, database, OnceCell::new(), pool);
    Ok(Opened::Remote(Arc::new(MongoDb::new(inner, pool))))
}

pub async fn check(url: String, options: Options) -> Result<Vec<String>> {
    check_collection(&options.collection)?;
    let (_, warnings) = parse(&url).await?;
    Ok(warnings.into_iter().map(|warning| format!("{URI_WARNING}: {warning}")).collect())
}

/// Refuses the names with which MongoDB answers every command with `InvalidNamespace`.
fn check_collection(name: &str) -> Result<()> {
    if name.starts_with('.') || name.contains(['$', '\0']) {
        let rule = "in MongoDB, a name does not begin with `.` and has no `$`";
        return Err(Error::invalid(format!("--collection {name:?} cannot be a collection: {rule}")));
    }
    Ok(())
}

fn database_of(uri: &ConnectionString) -> String {
    uri.default_database.clone().unwrap_or_else(|| DEFAULT_DATABASE.to_owned())
}

const URI_WARNING: &str = "an option of the MongoDB URI";

async fn parse_and_warn(url: &str) -> Result<ConnectionString> {
    let (uri, warnings) = parse(url).await?;
    for warning in warnings {
        tracing::warn!("{URI_WARNING}: {warning}");
    }
    Ok(uri)
}

/// Parses the URI, and returns it with warnings.
async fn parse(url: &str) -> Result<(ConnectionString, Vec<String>)> {
    let invalid = |reason: String| Error::invalid(format!("the MongoDB URI is wrong: {reason}"));
    let uri::Prepared { uri, warnings } = uri::prepare(url).map_err(invalid)?;
    let refused = |error: mongodb::error::Error| invalid(error::redact(&error, url));
    let uri = ConnectionString::parse(uri).map_err(refused)?;
    if !matches!(uri.host_info, HostInfo::DnsRecord(_)) {
        // Reports now the errors that the driver would report later. With `mongodb+srv` this needs the DNS, which may be down.
        ClientOptions::parse(uri.clone()).await.map_err(refused)?;
    }
    Ok((uri, warnings))
}

impl Inner {
    /// `pool` is the maximum number of connections that `client` has.
    fn new(uri: ConnectionString, options: Options, database: String, client: OnceCell<Client>, pool: u32) -> Self {
        let permits = |count: u32| Arc::new(Semaphore::new((count as usize).min(Semaphore::MAX_PERMITS)));
        Self {
            options,
            database,
            client: Current::new(LazyClient::new(uri, client)),
            connections: Connections::default(),
            failures: Failures::default(),
            namespaces: NamespaceCache::default(),
            calls: permits(pool.saturating_mul(CALLS_PER_CONNECTION)),
            lists: permits(pool.saturating_sub(NOT_FOR_LISTS).max(1)),
            seen: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            snapshot_failures: AtomicU32::new(0),
            has_missing_ids: AtomicBool::new(false),
        }
    }

    async fn client(&self) -> mongodb::error::Result<Client> {
        self.client.get().connected(self.options.timeout, &self.connections).await
    }

    async fn collection(&self) -> mongodb::error::Result<Collection<RawDocumentBuf>> {
        Ok(self.client().await?.database(&self.database).collection(&self.options.collection))
    }

    /// Finds one `_id` through `client`. Like a lookup, this needs a server and the right to read.
    async fn find_one(&self, client: Client) -> mongodb::error::Result<()> {
        let collection: Collection<RawDocumentBuf> =
            client.database(&self.database).collection(&self.options.collection);
        let find = collection.find(doc! {}).projection(doc! { "_id": 1 }).limit(1);
        find.max_time(self.options.timeout).await?.advance().await.map(drop)
    }

    /// Replaces or inserts each document, by one `update` command.
    async fn replace(&self, documents: &[Document]) -> Result<()> {
        let command = update_command(&self.options.collection, documents)?;
        let run = async {
            let client = self.client().await?;
            let mut command = command;
            let mut concern = self.client.get().uri().write_concern.clone().unwrap_or_default();
            // Without an acknowledgement, the server does not say what it refused.
            if concern.w == Some(Acknowledgment::Nodes(0)) {
                concern.w = Some(Acknowledgment::Nodes(1));
            }
            // A standalone server acknowledges a write before its journal is on disk, and loses the write when it is killed. The
            // URI may override this.
            concern.journal.get_or_insert(true);
            command.append(cstr!("writeConcern"), serialize_to_raw_document_buf(&concern)?);
            client.database(&self.database).run_raw_command(command).await
        };
        let unknown =
            |error: Error| error.with_outcome(WriteOutcome { unknown: documents.len(), ..WriteOutcome::default() });
        let reply = run.await.map_err(error::classify).map_err(unknown)?;
        error::refusals(&reply, documents)
    }
}

/// Builds the command from raw bytes: the tree types of the `bson` crate refuse strings that are not UTF-8.
fn update_command(collection: &str, documents: &[Document]) -> Result<RawDocumentBuf> {
    let malformed = |error| Error::invalid("a document cannot be read").with_source(error);
    let mut updates = Vec::with_capacity(documents.len());
    for document in documents {
        let id = raw::find(document.bson(), b"_id").map_err(malformed)?;
        updates.push((id.ok_or_else(|| Error::invalid("a document has no _id"))?, document.bson()));
    }
    let embedded = |bytes| ValueRef { kind: ElementType::EmbeddedDocument, bytes };
    let boolean = |value: &'static [u8; 1]| ValueRef { kind: ElementType::Boolean, bytes: value };
    let mut command = Vec::new();
    raw::append_document(&mut command, |out| {
        raw::append_name(out, b"update", ElementType::String);
        out.extend_from_slice(&(collection.len() as i32 + 1).to_le_bytes());
        out.extend_from_slice(collection.as_bytes());
        out.push(0);
        raw::append_name(out, b"updates", ElementType::Array);
        raw::append_document(out, |out| {
            for (index, (id, document)) in updates.into_iter().enumerate() {
                raw::append_name(out, itoa::Buffer::new().format(index).as_bytes(), ElementType::EmbeddedDocument);
                raw::append_document(out, |out| {
                    raw::append_name(out, b"q", ElementType::EmbeddedDocument);
                    raw::append_document(out, |out| {
                        raw::append_name(out, b"_id", ElementType::EmbeddedDocument);
                        // Without `$eq`, a regular expression would be matched as a pattern.
                        raw::append_document(out, |out| raw::append_element(out, b"$eq", id));
                    });
                    raw::append_element(out, b"u", embedded(document));
                    raw::append_element(out, b"upsert", boolean(&[1]));
                });
            }
        });
        // Unordered: the keys are unique, and the first refused document must not stop the others.
        raw::append_element(out, b"ordered", boolean(&[0]));
    });
    RawDocumentBuf::from_bytes(command)
        .map_err(|error| Error::broken("an update command was malformed").with_source(error))
}

/// Returns the filter that finds the documents with these keys by the index of `_id`. No key is a regular expression, which
/// `$in` would execute: an id in a URL cannot denote one.
fn filter_by_keys(keys: &[Key]) -> Bdoc {
    let mut ids: Vec<Bson> = keys.iter().filter_map(pushdown::bson_of).collect();
    // The server has a fast path for a single `_id`.
    if ids.len() == 1 {
        doc! { "_id": ids.remove(0) }
    } else {
        doc! { "_id": { "$in": ids } }
    }
}

impl Inner {
    /// `filter` within the condition of the records that are shown, where the server compares strings as the condition does.
    async fn exposed(&self, filter: Bdoc) -> Bdoc {
        let condition = self.options.exposure.filter();
        let compares_bytes = async { self.namespace().await.is_ok_and(|at| at.collation == Collation::ByBytes) };
        if condition.is_empty() || !compares_bytes.await {
            return filter;
        }
        let mut clauses = pushdown::push_down(condition).clauses;
        clauses.insert(0, filter);
        pushdown::conjunction(clauses)
    }

    /// The documents that match the condition, with the fields that are shown.
    fn show(&self, documents: Vec<Document>) -> Result<Vec<Document>> {
        let exposure = &self.options.exposure;
        if exposure.is_whole() {
            return Ok(documents);
        }
        let shown = documents.into_iter().filter_map(|document| exposure.show(document).transpose());
        shown.collect::<std::result::Result<_, _>>().map_err(reply::unreadable)
    }

    /// The projection of the fields that are shown, and of those that their condition needs.
    fn exposed_fields(&self) -> Option<Bdoc> {
        let exposure = &self.options.exposure;
        pushdown::projection(exposure.projection()?, &Sort::default(), exposure.filter())
    }
}

impl BatchLoader for Arc<Inner> {
    async fn load(&self, keys: Vec<Key>, mut deliver: impl FnMut(Vec<Document>) -> bool + Send) -> Result<()> {
        let load = async {
            let open = async {
                let collection = self.collection().await?;
                let mut find =
                    collection.find(self.exposed(filter_by_keys(&keys)).await).max_time(self.options.timeout);
                if let Some(fields) = self.exposed_fields() {
                    find = find.projection(fields);
                }
                let batches = find.batch().await?;
                Ok(Cursor::of(&collection, batches))
            };
            let mut cursor = open.await.map_err(error::classify)?;
            while let Some(batch) = cursor.next().await.map_err(error::classify)? {
                if !deliver(self.show(reply::documents(batch)?)?) {
                    break;
                }
            }
            Ok(())
        };
        load.await.inspect_err(|error| self.failures.count(error))
    }
}

impl MongoDb {
    fn new(inner: Inner, connections: u32) -> Self {
        let inner = Arc::new(inner);
        let batcher = Arc::new(LookupBatcher::new(inner.clone(), connections as usize));
        Self { inner, batcher, ids_are_strings: Arc::default() }
    }

    /// Finds the record that `id` addresses: that of the first of its keys that has one.
    async fn lookup(&self, id: &RecordId) -> Result<GetResult> {
        let keys = id.keys();
        let typed = keys.len() - 1;
        if typed == 0 {
            return Ok(self.first_of(&keys).await?.unwrap_or_default().1);
        }
        // Each key costs the server time. Most collections have ids of one type, so the string is sent along only if the last
        // record was found by it.
        let ids_are_strings = self.ids_are_strings.load(Ordering::Relaxed);
        let (first, rest) = keys.split_at(if ids_are_strings { keys.len() } else { typed });
        let found = match self.first_of(first).await? {
            Some(found) => Some(found),
            None if rest.is_empty() => None,
            None => self.first_of(rest).await?.map(|(index, result)| (typed + index, result)),
        };
        let Some((index, result)) = found else { return Ok(GetResult::default()) };
        if ids_are_strings != (index == typed) {
            self.ids_are_strings.store(index == typed, Ordering::Relaxed);
        }
        Ok(result)
    }

    /// Returns the result of the first key that has a record, and the index of that key.
    async fn first_of(&self, keys: &[Key]) -> Result<Option<(usize, GetResult)>> {
        for (index, lookup) in self.batcher.get(keys).into_iter().enumerate() {
            let result = lookup.result().await?;
            if result.document.is_some() {
                return Ok(Some((index, result)));
            }
        }
        Ok(None)
    }

    fn timed_out(&self) -> Error {
        error::timed_out("MongoDB did not answer in time", self.inner.options.timeout)
    }

    /// Waits for `call` until the time-out of a call.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.inner.options.timeout, call).await.unwrap_or_else(|_| {
            let error = self.timed_out();
            self.inner.failures.count(&error);
            Err(error)
        })
    }

    /// Runs `call` to its end in its own task, and waits for it until the time-out of a call.
    async fn bounded<T, F>(&self, call: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.in_time(async {
            let permit = permit(&self.inner.calls).await?;
            let inner = self.inner.clone();
            let call = call(inner.clone());
            let task = tokio::spawn(async move {
                let result = call.await.inspect_err(|error| inner.failures.count(error));
                // The permit is held until the driver is done, even if the caller has given up.
                drop(permit);
                result
            });
            task.await.unwrap_or_else(|error| Err(Error::broken("a call to MongoDB gave up").with_source(error)))
        })
        .await
    }
}

async fn permit(calls: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let closed = |error| Error::broken("the MongoDB store is closed").with_source(error);
    calls.clone().acquire_owned().await.map_err(closed)
}

impl Store for MongoDb {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        Box::pin(async {
            let as_of = self.inner.client.as_of();
            Ok(GetResult { as_of, ..self.in_time(self.lookup(id)).await? })
        })
    }

    fn get_fresh<'a>(&'a self, id: &'a RecordId, freshness: &'a Freshness) -> BoxFuture<'a, Result<GetResult>> {
        match freshness.not_before {
            None => self.get(id),
            Some(time) => Box::pin(async move { self.lookup_after(&id.keys(), time).await }),
        }
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        self.list_rows(request.within(&self.inner.options.exposure))
    }

    fn count(&self, request: ListRequest, precision: Precision) -> BoxFuture<'_, Result<Option<CountResult>>> {
        let request = request.within(&self.inner.options.exposure);
        match request.freshness.not_before {
            None => Box::pin(self.count_documents(request, precision)),
            Some(_) => Box::pin(count_listed(self, ListRequest { projection: None, ..request })),
        }
    }

    fn snapshot(&self, after: Option<Key>) -> BoxFuture<'_, Result<SnapshotRows>> {
        self.snapshot_rows(after)
    }

    fn identity(&self) -> BoxFuture<'_, Result<Option<String>>> {
        Box::pin(changes::identity(&self.inner))
    }

    fn changes(&self, after: Option<ResumeToken>) -> ChangeStream {
        changes::watch(self, after)
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // Only the last document of each key is sent, since the server may change the order within a command.
            let last: HashMap<_, _> =
                documents.iter().enumerate().map(|(index, document)| (document.key().clone(), index)).collect();
            let mut commands: Vec<Vec<Document>> = Vec::new();
            let (mut bytes, mut stored) = (0, documents.len() - last.len());
            for (index, document) in documents.into_iter().enumerate() {
                if last.get(document.key()) != Some(&index) {
                    continue;
                }
                let size = document.bson().len();
                match commands.last_mut() {
                    Some(command) if bytes + size <= COMMAND_BYTES && command.len() < COMMAND_DOCUMENTS => {
                        command.push(document);
                        bytes += size;
                    }
                    _ => {
                        commands.push(vec![document]);
                        bytes = size;
                    }
                }
            }
            for command in commands {
                let count = command.len();
                let replaced = self.bounded(|inner| async move { inner.replace(&command).await }).await;
                replaced.map_err(|error| {
                    // After a time-out, it is unknown which documents were stored.
                    let unknown = WriteOutcome { unknown: count, ..WriteOutcome::default() };
                    let outcome = error.outcome().cloned().unwrap_or(unknown);
                    error.with_outcome(WriteOutcome { stored: stored + outcome.stored, ..outcome })
                })?;
                stored += count;
            }
            Ok(())
        })
    }

    /// Closes immediately: an open cursor must not keep the process from ending.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Some(client) = self.inner.client.get().created() else { return };
            let shutdown = tokio::spawn(async move { client.shutdown().immediate(true).await });
            let _ = tokio::time::timeout(self.inner.options.timeout, shutdown).await;
        })
    }

    /// Needs no permit for lists, so that a ping is answered as long as lookups are.
    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.bounded(|inner| async move {
            let find_one = async { inner.find_one(inner.client().await?).await };
            find_one.await.map_err(error::classify)
        }))
    }

    fn reconnect(&self, url: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let uri = parse_and_warn(&url).await?;
            if database_of(&uri) != self.inner.database {
                return Err(Error::invalid(
                    "the MongoDB URI names another database: restart the service to serve that",
                ));
            }
            // The replica and the change stream are of the server that is in use.
            if uri.host_info != self.inner.client.get().uri().host_info {
                return Err(Error::invalid("the MongoDB URI names other hosts: restart the service to use those"));
            }
            self.bounded(|inner| async move {
                let next = LazyClient::new(uri, OnceCell::new());
                let find_one =
                    async { inner.find_one(next.connected(inner.options.timeout, &inner.connections).await?).await };
                find_one.await.map_err(error::classify)?;
                inner.client.set(next);
                Ok(())
            })
            .await
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        Box::pin(async {
            let mut read = self.ping().await;
            let may_be_a_view = read.as_ref().map_or_else(error::is_refusal, |()| true);
            let is_view = may_be_a_view && self.namespace().await.is_ok_and(|namespace| namespace.kind == Kind::View);
            if is_view && read.is_ok() {
                // A ping asks for the `_id` alone, and the server skips the stages that it does not need for that.
                read = self.find_some(doc! {}, 1).await.map(drop);
            }
            read.map_err(|error| match error::is_refusal(&error) {
                true if is_view => {
                    Error::unavailable("MongoDB cannot read the view").with_source(error).with_reason(VIEW_FAILS)
                }
                true => Error::unavailable("MongoDB cannot read the collection").with_source(error),
                false => error,
            })?;
            let missing = self.bounded(|inner| async move {
                match inner.namespace().await {
                    Ok(namespace) if namespace.is_missing => Ok(inner.missing_collection().await),
                    // A user who may not list collections can still read records, so this is no failure.
                    _ => Ok(None),
                }
            });
            let missing = missing.await.unwrap_or_default();
            let without_id = || {
                let is_so = self.inner.has_missing_ids.load(Ordering::Relaxed);
                is_so.then(|| "some records have no `_id`: they are listed, and have no pages".to_owned())
            };
            Ok(Health { degraded: missing.or_else(without_id), is_from_replica: false })
        })
    }

    fn metrics(&self) -> Vec<Metric> {
        let mut metrics = self.batcher.metrics();
        metrics.extend(self.inner.connections.metrics());
        metrics.push(self.inner.failures.metric());
        metrics
    }
}

impl fmt::Debug for MongoDb {
    /// Shows the database and the collection, and not the URI, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MongoDB store in {}.{}", self.inner.database, self.inner.options.collection)
    }
}

#[cfg(test)]
mod tests;
