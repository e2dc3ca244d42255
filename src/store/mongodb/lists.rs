//! Lists: one `find` for a page, one cursor for a stream.
//!
//! [`pushdown`] expresses a request in MongoDB's query language. The server then executes it, and this module
//! reads the rows and drops those that the language could only approximate. Three kinds of lists are executed here instead, over
//! a scan of the collection: those sorted by a field that the language cannot name, those of a view with a collation, which
//! refuses to compare by bytes, and those that a server with `notablescan` refuses to sort. The whole of a small collection is
//! read in natural order and sorted here.
//!
//! Each cursor is read in its own task, since no future of the driver may be dropped half way. The task reads one batch ahead of
//! the consumer while batches are small, and ends when the consumer has gone.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use mongodb::ClientSession;
use mongodb::bson::spec::ElementType;
use mongodb::bson::{Document as Bdoc, doc};
use mongodb::options::{Collation as CollationOption, ReadConcern, ReadPreference, SelectionCriteria};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::changes::{self, ServerTime};
use super::cursor::Cursor;
use super::namespace::{Collation, Kind, Namespace};
use super::pushdown::Pushed;
use super::reply::documents;
use super::{Inner, MongoDb, error, filter_by_keys, permit, pushdown};
use crate::query::{Filter, Position, Projection, Sort, position};
use crate::record::{Document, Key, Malformed, rank};
use crate::store::{
    ChunkStream, ClusterTime, Error, GetResult, ListRequest, ListResult, Refusal, Result, Row, SnapshotRows, exec,
};

/// The size of a batch: large enough that the cost of a round trip does not matter.
const BATCH_BYTES: usize = 512 * 1024;
const BATCH_DOCUMENTS: usize = 5_000;

/// A collection up to this size is read at once.
const SMALL_COLLECTION_BYTES: usize = 1024 * 1024;

/// The size of a batch of a snapshot. A round trip may take much longer than the server takes for such a batch.
const SNAPSHOT_BATCH_DOCUMENTS: usize = 1_000_000;
const SNAPSHOT_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The size of a document, where it is unknown.
const DOCUMENT_BYTES: usize = 1024;

/// The size of a batch while the size of the documents is unknown.
const FIRST_BATCH_DOCUMENTS: usize = 100;

/// The largest batch after which the next one is read ahead. Bounds the memory of lists with large batches.
const READ_AHEAD_BYTES: usize = 2 * BATCH_BYTES;

/// The pause before another read after a cluster time that the server has not heard of.
const AHEAD_PAUSE: Duration = Duration::from_millis(50);

/// The number of documents that are searched for the fields to blame when a sort is refused.
const UNSORTABLE_SEARCHED: i64 = 20;

/// A `find` command.
#[derive(Clone, Default)]
struct Find {
    clauses: Vec<Bdoc>,
    /// `None` for a scan, whose order does not matter.
    sort: Option<Bdoc>,
    projection: Option<Bdoc>,
    limit: Option<usize>,
    batch: usize,
    /// Compares strings by bytes although the collection has a collation.
    by_bytes: bool,
    /// Reads only what a failover cannot roll back.
    settled: bool,
    /// Reads a state that has every write up to this time.
    not_before: Option<ServerTime>,
    /// Limits the server to the time of one call.
    is_timed: bool,
    /// Another cursor may continue after the last key: the order is that of `_id`, and ids are unique.
    is_resumable: bool,
}

impl Find {
    fn filter(&self) -> Bdoc {
        pushdown::conjunction(self.clauses.clone())
    }

    fn resume_after(&mut self, key: &Key) {
        self.clauses.extend(pushdown::keyset(&Sort::default(), &Position::of_key(key), true));
    }

    /// Changes the batch size if batches of documents like these are far from [`BATCH_BYTES`]. Returns true if it changed, which
    /// needs another cursor.
    fn resize(&mut self, documents: &[Document]) -> bool {
        let bytes = size_of(documents);
        let fitting = fitting(bytes / documents.len().max(1));
        let is_too_large = bytes > 4 * BATCH_BYTES;
        let is_too_small = bytes < BATCH_BYTES / 4 && documents.len() == self.batch && fitting >= 4 * self.batch;
        let resizes = self.is_resumable && (is_too_large || is_too_small);
        if resizes {
            self.batch = fitting;
        }
        resizes
    }
}

fn size_of(documents: &[Document]) -> usize {
    documents.iter().map(|document| document.bson().len()).sum()
}

/// Returns the number of documents of this size that fit into a batch.
fn fitting(bytes: usize) -> usize {
    (BATCH_BYTES / bytes.max(1)).clamp(1, BATCH_DOCUMENTS)
}

impl Inner {
    async fn open(&self, find: &Find) -> mongodb::error::Result<Cursor> {
        let collection = self.collection().await?;
        let batch = u32::try_from(find.batch).unwrap_or(u32::MAX);
        let mut command = collection.find(find.filter()).batch_size(batch);
        if let Some(sort) = &find.sort {
            command = command.sort(sort.clone()).allow_disk_use(true);
        }
        if let Some(projection) = &find.projection {
            command = command.projection(projection.clone());
        }
        if let Some(limit) = find.limit.and_then(|limit| i64::try_from(limit).ok()) {
            command = command.limit(limit);
        }
        if find.by_bytes {
            command = command.collation(CollationOption::builder().locale("simple".to_owned()).build());
        }
        if find.is_timed {
            // The server applies this limit to all batches of the cursor together.
            command = command.max_time(self.options.timeout);
        }
        if !find.settled {
            let Some(time) = find.not_before else {
                return command.batch().await.map(|batches| Cursor::of(&collection, batches));
            };
            let mut session = self.session_after(time).await?;
            let batches = command.session(&mut session).batch().await?;
            return Ok(Cursor::in_session(&collection, batches, session, false));
        }
        let command = command.read_concern(ReadConcern::majority());
        match find.not_before {
            None => {
                let command = command.selection_criteria(ReadPreference::Primary.into());
                command.batch().await.map(Cursor::of_primary)
            }
            Some(time) => {
                // With this operation time, the server waits until it knows that a majority has everything up to it. So a
                // secondary serves as well, unless it lags too far: after a failure, the next attempt reads from the primary.
                let is_retry = self.snapshot_failures.load(Ordering::Relaxed) % 2 == 1;
                let secondary = || ReadPreference::SecondaryPreferred { options: None };
                let server = if is_retry { ReadPreference::Primary } else { secondary() };
                let mut session = self.session_after(time).await?;
                let command = command.selection_criteria(SelectionCriteria::ReadPreference(server));
                let batches = command.session(&mut session).batch().await?;
                Ok(Cursor::in_session(&collection, batches, session, true))
            }
        }
    }

    /// A session whose reads see every write up to `time`: the server waits for them.
    async fn session_after(&self, time: ServerTime) -> mongodb::error::Result<ClientSession> {
        let mut session = self.client().await?.start_session().causal_consistency(true).await?;
        session.advance_operation_time(changes::timestamp(time));
        Ok(session)
    }

    /// Returns true if the server reads the sort order of `find` from indexes without arrays; false if it does not tell.
    async fn sorts_without_arrays(&self, find: Find) -> Result<bool> {
        let explained = async {
            let collection = self.collection().await?;
            let within = i64::try_from(self.options.timeout.as_millis()).unwrap_or(i64::MAX);
            let mut command = doc! { "find": collection.name(), "filter": find.filter(), "limit": 1 };
            command.insert("sort", find.sort);
            let explain = doc! { "explain": command, "verbosity": "queryPlanner", "maxTimeMS": within };
            let database = self.client().await?.database(&self.database);
            let run = database.run_command(explain);
            match collection.selection_criteria() {
                Some(criteria) => run.selection_criteria(criteria.clone()).await,
                None => run.await,
            }
        };
        let Ok(explained) = explained.await else { return Ok(false) };
        let plan = explained.get_document("queryPlanner").ok().and_then(|planner| planner.get("winningPlan"));
        Ok(plan.is_some_and(pushdown::sorts_by_index_without_arrays))
    }
}

impl MongoDb {
    pub fn list_rows(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        Box::pin(async move {
            let as_of = self.inner.client.as_of();
            let Some(time) = request.freshness.not_before else {
                return Ok(ListResult { as_of, ..self.list_any(request).await? });
            };
            let list = self.reach(|| self.list_any(request.clone())).await?;
            Ok(ListResult { as_of: as_of.max(Some(time)), ..list })
        })
    }

    /// The record that one of `keys` addresses, the first of them first, in a state that has every write up to `time`.
    pub async fn lookup_after(&self, keys: &[Key], time: ClusterTime) -> Result<GetResult> {
        let as_of = self.inner.client.as_of().max(Some(time));
        let find = Find {
            clauses: vec![filter_by_keys(keys)],
            projection: self.inner.exposed_fields(),
            batch: FIRST_BATCH_DOCUMENTS,
            not_before: Some(time.bits()),
            is_timed: true,
            ..Find::default()
        };
        let found = || {
            let find = find.clone();
            self.bounded(|inner| async move {
                let mut cursor = inner.open(&find).await.map_err(error::classify)?;
                let mut found = Vec::new();
                while let Some(batch) = cursor.next().await.map_err(error::classify)? {
                    found.extend(inner.show(documents(batch)?)?);
                }
                Ok(found)
            })
        };
        let found = self.reach(found).await?;
        // A collection with a collation may return other keys as well.
        let by_key = |key| found.iter().filter(move |document| document.key() == key);
        let Some(key) = keys.iter().find(|key| by_key(*key).next().is_some()) else {
            return Ok(GetResult { as_of, ..GetResult::default() });
        };
        let (document, is_ambiguous) = (by_key(key).next().cloned(), by_key(key).count() > 1);
        Ok(GetResult { document, is_ambiguous, staleness: None, as_of })
    }

    /// Repeats a read after a cluster time that the server has not heard of yet, without holding a permit meanwhile.
    async fn reach<T, F: Future<Output = Result<T>>>(&self, read: impl Fn() -> F) -> Result<T> {
        let begun = Instant::now();
        loop {
            match read().await {
                Err(error) if error::has_no_cluster_time(&error) => return Err(Error::no_cluster_time()),
                Err(error) if !error::is_ahead_of_cluster(&error) => return Err(error),
                Err(error) if begun.elapsed() >= self.inner.options.timeout / 2 => {
                    let text = "MongoDB has not reached the cluster time that the request names";
                    return Err(Error::refused(Refusal::TooStale, text).with_source(error));
                }
                Err(_) => sleep(AHEAD_PAUSE).await,
                result => return result,
            }
        }
    }

    fn list_any(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        Box::pin(async move {
            let mut listed = self.list_once(request.clone()).await;
            if listed.as_ref().is_err_and(error::is_of_a_view) {
                // The collection has become a view since its kind was looked up.
                self.inner.namespaces.forget();
                listed = self.list_once(request.clone()).await;
            }
            if listed.as_ref().is_err_and(error::is_of_a_view) {
                // It is a view with a collation that the user may not see.
                self.inner.namespaces.set_other_collation();
                listed = self.list_once(request.clone()).await;
            }
            match listed {
                Ok(list) if request.after.is_some() && request.sort.is_empty() => {
                    self.unless_ids_are_missing(list).await
                }
                listed => listed,
            }
        })
    }

    /// Rejects a list after an id if the view has documents without an `_id`: the list would end early without an error.
    async fn unless_ids_are_missing(&self, list: ListResult) -> Result<ListResult> {
        let mut rows = list.rows.peekable();
        if Pin::new(&mut rows).peek().await.is_none()
            && self.namespace().await?.kind == Kind::View
            && !self.find_some(doc! { "_id": { "$exists": false } }, 1).await?.is_empty()
        {
            self.inner.has_missing_ids.store(true, Ordering::Relaxed);
            let detail = "Records without an `_id` have no pages: leave `limit`, `sort`, `after` and `after_id` out.";
            return Err(Error::rejected("after_id", detail));
        }
        Ok(ListResult { rows: rows.boxed(), ..list })
    }

    async fn list_once(&self, request: ListRequest) -> Result<ListResult> {
        let namespace = self.namespace().await?;
        let Pushed { clauses, residual, is_complete } = pushdown::push_down(&request.filter);
        let has_other_collation = namespace.collation == Collation::Other && namespace.kind == Kind::View;
        // The server sorts arrays by one element, or as a whole, depending on the other fields of the sort.
        let has_array_ids = namespace.kind == Kind::View
            && !has_other_collation
            && !self.find_some(doc! { "_id": { "$type": "array" } }, 1).await?.is_empty();
        let sort = pushdown::order(&request.sort).filter(|_| !has_other_collation && !has_array_ids);
        let scan = Find {
            clauses: if has_other_collation { Vec::new() } else { clauses },
            batch: self.batch_documents(&namespace, None),
            by_bytes: namespace.collation != Collation::ByBytes && !has_other_collation,
            not_before: request.freshness.not_before.map(ClusterTime::bits),
            ..Find::default()
        };
        let Some(sort) = sort else { return self.execute(scan, request).await };
        let all = ListRequest { freshness: request.freshness, ..ListRequest::default() };
        if request == all
            && !namespace.ids_may_repeat
            && namespace.collection_bytes.is_some_and(|bytes| bytes <= SMALL_COLLECTION_BYTES)
            && let Some(list) = self.list_small(&scan).await?
        {
            return Ok(list);
        }
        let mut find = Find { sort: Some(sort), ..scan.clone() };
        let mut skip = None;
        if let Some(after) = &request.after {
            let mut no_arrays = after.no_arrays || request.sort.is_empty();
            if let Some(undefined) = pushdown::undefined_after(&request.sort, &after.position).filter(|_| no_arrays) {
                no_arrays = self.find_some(undefined, 1).await?.is_empty();
            }
            find.clauses.extend(pushdown::keyset(&request.sort, &after.position, no_arrays));
            // Unless it is over `_id` alone, a keyset may admit documents before the position.
            skip = Some(after.position.clone());
        }
        let fields = request.projection.as_ref();
        find.projection = fields.and_then(|fields| pushdown::projection(fields, &request.sort, &residual));
        let limit = request.limit.filter(|_| is_complete);
        let ids_repeat = namespace.ids_may_repeat;
        // If dropped rows use up the limit, a second `find` reads on. Where ids repeat, it could not tell which rows the first
        // one has returned, so there the limit is not pushed down.
        find.limit = limit.filter(|_| !ids_repeat || (request.after.is_none() && residual.is_empty()));
        find.batch = self.batch_documents(&namespace, limit);
        find.is_resumable = limit.is_none() && request.sort.is_empty() && !ids_repeat;
        find.is_timed = limit.is_some() || (find.is_resumable && !request.filter.is_empty());
        let explain = (request.after.is_none() && request.limit.is_some() && namespace.kind == Kind::Collection)
            .then(|| find.clone())
            .filter(|_| !request.sort.is_empty() && pushdown::index_tells_arrays(&request.sort));
        let is_expressed = fields.is_some_and(Projection::is_inclusion_or_exclusion);
        let is_pushed_down =
            find.projection.is_some() && is_expressed && request.sort.is_empty() && residual.is_empty();
        let has_residual = !residual.is_empty();
        let rows = Rows {
            store: self.clone(),
            batches: self.read(find.clone(), request.projection.is_some()),
            find,
            residual,
            sort: request.sort.clone(),
            projection: request.projection.clone().filter(|_| !is_pushed_down),
            limit: request.limit,
            skip,
            ids_repeat,
            last: None,
            seen: HashSet::new(),
            read: 0,
            dropped: 0,
            is_whole: request.filter.is_empty() && request.after.is_none() && request.limit.is_none(),
            has_missing_ids: false,
        };
        let no_arrays = async {
            match explain {
                Some(find) => self.bounded(|inner| async move { inner.sorts_without_arrays(find).await }).await,
                None => Ok(request.after.as_ref().is_some_and(|after| after.no_arrays)),
            }
        };
        let sort = rows.sort.clone();
        let clauses = rows.find.clauses.clone();
        let (list, no_arrays) = tokio::join!(exec::peek(rows.into_stream()), no_arrays);
        match list {
            Ok(list) => Ok(ListResult { no_arrays: no_arrays.unwrap_or(false), ..list }),
            // Perhaps only records that the residual filter drops cannot be sorted.
            Err(error) if error::is_unsortable(&error) && has_residual => self.execute(scan, request).await,
            Err(error) if error::is_unsortable(&error) => Err(self.unsortable(&sort, clauses, error).await),
            Err(error) if error::has_no_plan(&error) => {
                self.execute(Find { sort: Some(doc! { "_id": 1 }), ..scan }, request).await
            }
            Err(error) => Err(error),
        }
    }

    /// Lists a small collection in natural order, which costs the server half as much as by the index of `_id`. Returns `None`
    /// if the collection has grown meanwhile.
    async fn list_small(&self, scan: &Find) -> Result<Option<ListResult>> {
        let mut batches = self.read(Find { batch: BATCH_DOCUMENTS, ..scan.clone() }, false);
        let mut documents = Vec::new();
        while let Some(batch) = batches.next().await.transpose()? {
            documents.extend(batch);
            if size_of(&documents) > 2 * SMALL_COLLECTION_BYTES {
                return Ok(None);
            }
        }
        documents.sort_by(|a, b| a.key().cmp(b.key()));
        documents.dedup_by(|a, b| a.key() == b.key() && !a.key().is_missing());
        Ok(Some(stream::iter(documents.into_iter().map(|document| Ok(document.into()))).boxed().into()))
    }

    /// Executes the request here, over a scan.
    async fn execute(&self, scan: Find, request: ListRequest) -> Result<ListResult> {
        let store = self.clone();
        exec::execute_unordered(Arc::new(move |_, _| store.read(scan.clone(), false)), request).await
    }

    /// Lists every document after `after` in the state that a majority of the members has.
    pub fn snapshot_rows(&self, after: Option<Key>) -> BoxFuture<'_, Result<SnapshotRows>> {
        Box::pin(async move {
            // Repeated ids would be taken for one if the collection has become a view since.
            self.inner.namespaces.forget();
            let namespace = self.namespace().await?;
            let is_in_order = namespace.has_ids_in_key_order();
            // A replica that follows no changes claims to be as new as the moment before its snapshot, and one that does is never
            // taken back by the next snapshot: both need the last write of now, also where a change stream began long ago.
            let is_one_set = !namespace.ids_may_repeat;
            let time = self.bounded(|inner| async move { changes::snapshot_time(&inner, is_one_set).await });
            let not_before = time.await?;
            let mut find = Find {
                // The index of `_id` gives this order, whatever its collation. The server would have to sort a view.
                sort: (namespace.kind == Kind::Collection).then(|| doc! { "_id": 1 }),
                projection: self.inner.exposed_fields(),
                batch: self.snapshot_batch(&namespace),
                settled: true,
                not_before,
                ..Find::default()
            };
            if let Some(after) = after {
                if !is_in_order {
                    return Err(Error::invalid("the snapshot cannot go on: the collection has changed"));
                }
                find.resume_after(&after);
            }
            let inner = Arc::clone(&self.inner);
            // The condition is checked here: a batch that the server fills up with few documents of many could take too long.
            let is_projected = find.projection.is_some();
            let shown = self.read(find, is_projected).map(move |batch| inner.show(batch?));
            let rows = shown.map_ok(|batch| stream::iter(batch.into_iter().map(|each| Ok(each.into()))));
            let list = exec::peek(rows.try_flatten().boxed()).await?;
            Ok(SnapshotRows { rows: list.rows, is_in_order })
        })
    }

    /// Returns the number of documents in a batch of a snapshot: more than fit into a reply, which the server ends at 16 MiB.
    /// After failures fewer, since a slow link may not transfer 16 MiB in the time of one call.
    fn snapshot_batch(&self, namespace: &Namespace) -> usize {
        match self.inner.snapshot_failures.load(Ordering::Relaxed) {
            0 => SNAPSHOT_BATCH_DOCUMENTS,
            failures => {
                let bytes = self.inner.namespaces.document_bytes(namespace).unwrap_or(DOCUMENT_BYTES).max(1);
                ((SNAPSHOT_BATCH_BYTES >> failures.min(6)) / bytes).max(1)
            }
        }
    }

    pub async fn namespace(&self) -> Result<Namespace> {
        self.bounded(|inner| async move { inner.namespace().await.map_err(error::classify) }).await
    }

    fn batch_documents(&self, namespace: &Namespace, limit: Option<usize>) -> usize {
        let bytes = self.inner.namespaces.document_bytes(namespace);
        bytes.map_or(FIRST_BATCH_DOCUMENTS, fitting).min(limit.unwrap_or(usize::MAX)).max(1)
    }

    /// Returns the error for a sort that MongoDB refuses. It names the fields to blame if such a document is found.
    async fn unsortable(&self, sort: &Sort, clauses: Vec<Bdoc>, refused: Error) -> Error {
        let arrays = |names: &[Box<str>]| Some(pushdown::arrays(names)).filter(|arrays| !arrays.is_empty());
        let fields: Vec<_> = sort.0.iter().filter_map(|field| arrays(field.path.names())).collect();
        let mut suspects = Vec::new();
        for (at, one) in fields.iter().enumerate() {
            let pairs =
                fields[..at].iter().map(|other| doc! { "$and": [{ "$or": one.clone() }, { "$or": other.clone() }] });
            suspects.extend(pairs);
        }
        let has_position = |names: &&[Box<str>]| names[1..].iter().any(|name| position(name).is_some());
        let positional = sort.0.iter().map(|field| field.path.names()).filter(has_position);
        suspects.extend(positional.filter_map(arrays).flatten());
        let filter = pushdown::conjunction(clauses.into_iter().chain([doc! { "$or": suspects }]).collect());
        let found = self.find_some(filter, UNSORTABLE_SEARCHED).await.unwrap_or_default();
        let error = found.iter().find_map(|document| sort.position(document).err()).map(exec::sort_error);
        error.unwrap_or_else(|| {
            let detail = "The records cannot be sorted: two of the fields are arrays in one record, or a name of digits is both \
                          a position in an array and a field of its elements. Sort by other fields, or filter such records out.";
            Error::rejected("sort", detail).with_source(refused)
        })
    }

    /// Returns at most `limit` documents, and at most one batch, in any order.
    pub async fn find_some(&self, filter: Bdoc, limit: i64) -> Result<Vec<Document>> {
        let found = self.bounded(|inner| async move {
            let find = async {
                let collection = inner.collection().await?;
                let find = collection.find(filter).limit(limit).max_time(inner.options.timeout);
                find.batch().await?.next().await.transpose()
            };
            find.await.map_err(error::classify)?.map(documents).transpose()
        });
        Ok(found.await?.unwrap_or_default())
    }

    /// Returns the batches of `find`. Nothing is sent before the first poll.
    fn read(&self, find: Find, is_projected: bool) -> ChunkStream {
        let reader =
            Reader { store: self.clone(), find: Some(find), is_projected, channels: None, is_requested: false };
        stream::try_unfold(reader, async |mut reader| Ok(reader.next().await?.map(|batch| (batch, reader)))).boxed()
    }
}

/// The consumer of the list has gone.
struct Gone;

/// A batch, or the end of the list.
type Batch = Result<Option<Vec<Document>>>;

/// The consumer's side of a cursor.
struct Reader {
    store: MongoDb,
    find: Option<Find>,
    is_projected: bool,
    channels: Option<(mpsc::Sender<()>, mpsc::Receiver<Batch>)>,
    is_requested: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Vec<Document>>> {
        if let Some(find) = self.find.take() {
            let (requests, requested) = mpsc::channel(1);
            let (batches, received) = mpsc::channel(1);
            tokio::spawn(read_batches(self.store.clone(), find, requested, batches));
            self.channels = Some((requests, received));
        }
        let Some((requests, received)) = &mut self.channels else { return Ok(None) };
        if !self.is_requested {
            // If the reader has ended, its last batch has the error.
            let _ = requests.try_send(());
        }
        let within = self.store.inner.options.timeout;
        let batch = match timeout(within, received.recv()).await {
            Ok(Some(batch)) => batch?,
            Ok(None) => return Err(Error::broken("the reader of a list gave up")),
            Err(_) => {
                let late = error::timed_out("MongoDB sent nothing of the list", within);
                self.store.inner.failures.count(&late);
                return Err(late);
            }
        };
        let Some(batch) = batch else {
            self.channels = None;
            return Ok(None);
        };
        let bytes = size_of(&batch);
        if !self.is_projected {
            self.store.inner.namespaces.learn_size(batch.len(), bytes);
        }
        self.is_requested = bytes <= READ_AHEAD_BYTES && requests.try_send(()).is_ok();
        Ok(Some(batch))
    }
}

/// Sends a batch for each request, until there are no more.
async fn read_batches(store: MongoDb, mut find: Find, mut requested: mpsc::Receiver<()>, batches: mpsc::Sender<Batch>) {
    let (mut cursor, mut last) = (None, None);
    while requested.recv().await.is_some() {
        let batch = loop {
            let Ok(batch) = next_batch(&store, &find, &mut cursor, &batches).await else { return };
            match (&batch, last.take()) {
                // The cursor has exceeded its `maxTimeMS`, and has read some documents: another cursor reads on.
                (Err(error), Some(key)) if find.is_resumable && error::has_exceeded_time(error) => {
                    cursor = None;
                    find.resume_after(&key);
                }
                _ => break batch,
            }
        };
        match &batch {
            Ok(Some(documents)) => {
                // A document without an `_id`, as in views and the oplog, cannot be resumed after.
                last = documents.last().map(|document| document.key().clone()).filter(|key| !key.is_missing());
                if let Some(key) = last.as_ref().filter(|_| find.resize(documents)) {
                    cursor = None;
                    find.resume_after(key);
                }
            }
            Ok(None) if find.settled => store.inner.snapshot_failures.store(0, Ordering::Relaxed),
            Ok(None) => {}
            Err(error) => {
                store.inner.failures.count(error);
                if find.settled {
                    store.inner.snapshot_failures.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let is_last = !matches!(batch, Ok(Some(_)));
        if batches.send(batch).await.is_err() || is_last {
            return;
        }
    }
}

async fn next_batch(
    store: &MongoDb,
    find: &Find,
    cursor: &mut Option<Cursor>,
    batches: &mpsc::Sender<Batch>,
) -> std::result::Result<Batch, Gone> {
    // A list whose consumer has gone is not sent: after an outage, it would delay lists that are still waited for.
    let _permit: OwnedSemaphorePermit = tokio::select! {
        biased;
        () = batches.closed() => return Err(Gone),
        permit = timeout(store.inner.options.timeout, permit(&store.inner.lists)) => match permit {
            Ok(Ok(permit)) => permit,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(_) => return Ok(Err(store.timed_out())),
        },
    };
    let batch = async {
        let cursor = match cursor {
            Some(cursor) => cursor,
            none => none.insert(store.inner.open(find).await?),
        };
        cursor.next().await
    };
    Ok(match batch.await {
        Ok(Some(batch)) => documents(batch).map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(error::classify(error)),
    })
}

/// The rows of the batches, made exact.
struct Rows {
    store: MongoDb,
    batches: ChunkStream,
    find: Find,
    residual: Filter,
    sort: Sort,
    /// The projection, if the server does not do all of it.
    projection: Option<Projection>,
    /// The rows that are still wanted.
    limit: Option<usize>,
    /// Rows up to here are dropped.
    skip: Option<Position>,
    ids_repeat: bool,
    /// The last key, to drop a record that comes twice because it is written while the server reads.
    last: Option<Key>,
    /// All keys so far, for the same in a sorted list.
    seen: HashSet<Key>,
    /// The documents that the current `find` has returned, and how many of them were dropped.
    read: usize,
    dropped: usize,
    /// True if the request selects every document.
    is_whole: bool,
    has_missing_ids: bool,
}

impl Rows {
    fn into_stream(self) -> crate::store::RowStream {
        let chunks =
            stream::try_unfold(self, async |mut rows| Ok::<_, Error>(rows.next().await?.map(|chunk| (chunk, rows))));
        chunks.map_ok(|chunk| stream::iter(chunk.into_iter().map(Ok))).try_flatten().boxed()
    }

    async fn next(&mut self) -> Result<Option<Vec<Row>>> {
        if self.limit == Some(0) {
            return Ok(None);
        }
        let Some(batch) = self.batches.next().await.transpose()? else {
            let may_have_more = self.find.limit.is_some_and(|limit| self.read >= limit) && self.dropped > 0;
            if !may_have_more {
                if self.is_whole && !self.has_missing_ids {
                    self.store.inner.has_missing_ids.store(false, Ordering::Relaxed);
                }
                return Ok(None);
            }
            // The server counted dropped rows towards the limit, so it is asked again without one.
            self.find.limit = None;
            if let Some(last) = self.last.as_ref().filter(|_| self.sort.is_empty()) {
                self.find.resume_after(last);
            }
            (self.read, self.dropped) = (0, 0);
            self.batches = self.store.read(self.find.clone(), self.find.projection.is_some());
            return Ok(Some(Vec::new()));
        };
        let mut rows = Vec::with_capacity(batch.len());
        for document in batch {
            self.read += 1;
            match self.row(document)? {
                Some(row) if self.limit != Some(0) => {
                    self.limit = self.limit.map(|limit| limit - 1);
                    rows.push(row);
                }
                Some(_) => break,
                None => self.dropped += 1,
            }
        }
        // Lets other tasks run between two batches, even if no row matches.
        tokio::task::yield_now().await;
        Ok(Some(rows))
    }

    /// Returns the row of a document; `None` if it does not belong to the list.
    fn row(&mut self, document: Document) -> Result<Option<Row>> {
        if !self.residual.is_empty() && !self.residual.matches(document.bson()).map_err(malformed)? {
            return Ok(None);
        }
        let position = match self.sort.is_empty() {
            true => None,
            // Only views have an `_id` that is an array. The server sorts it by one element or as a whole, depending on the
            // other fields, which no position can express.
            false if document.key().rank() == rank(ElementType::Array) => {
                let detail = "A record has just got an array as its `_id`, by which MongoDB cannot sort. Try again.";
                return Err(Error::rejected("sort", detail));
            }
            false => Some(self.sort.position(&document).map_err(exec::sort_error)?),
        };
        if let Some(skip) = &self.skip {
            let is_before = match &position {
                Some(position) => position <= skip,
                None => document.key().as_bytes() <= skip.as_bytes(),
            };
            if is_before {
                return Ok(None);
            }
        }
        if document.key().is_missing() {
            self.has_missing_ids = true;
            self.store.inner.has_missing_ids.store(true, Ordering::Relaxed);
        } else if !self.ids_repeat && !self.is_new(document.key()) {
            return Ok(None);
        }
        let document = match &self.projection {
            Some(projection) => projection.apply(&document).map_err(malformed)?,
            // Perhaps only a few documents of a batch match, and a slice would keep the whole batch in memory.
            None if !self.residual.is_empty() => document.detached(),
            None => document,
        };
        Ok(Some(Row { document, position }))
    }
}

impl Rows {
    fn is_new(&mut self, key: &Key) -> bool {
        if !self.sort.is_empty() {
            return self.seen.insert(key.clone());
        }
        // In `_id` order, duplicates are adjacent.
        self.last.replace(key.clone()).as_ref() != Some(key)
    }
}

fn malformed(error: Malformed) -> Error {
    Error::unavailable("MongoDB sent a document that cannot be read").with_source(error)
}
