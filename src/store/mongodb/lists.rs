//! Lists: read batch by batch, one ahead of who reads them, in a task of their own that ends when nobody does.

use std::future::Future;
use std::sync::atomic::Ordering;

use futures::stream::{self, StreamExt};
use mongodb::action::Find;
use mongodb::bson::{Document as Bson, RawDocumentBuf, doc};
use mongodb::options::{Collation, Hint, ReadConcern, ReadPreference};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::batch::records;
use super::cursor::Cursor;
use super::order::Sorted;
use super::{Inner, MongoDb, bson, changes, error, filter, permit};
use crate::record::{Key, Record};
use crate::store::{Error, Listing, Query, Result};

/// How many records the server sends at a time. Its own default is as many as fit into 16 MB, which a list would hold
/// twice, one going out and one coming in.
pub const BATCH_RECORDS: u32 = 1_000;

/// Where a list goes, batch by batch. `None` says that this was all.
pub type Batches = mpsc::Sender<Result<Option<Vec<Record>>>>;

/// `find`, of these fields alone, if it is not of all.
pub fn only(find: Find<'_, RawDocumentBuf>, fields: Option<Bson>) -> Find<'_, RawDocumentBuf> {
    match fields {
        Some(fields) => find.projection(fields),
        None => find,
    }
}

/// As filters and orders compare strings, whatever the collection's own collation is.
pub fn by_bytes() -> Collation {
    Collation::builder().locale("simple".to_owned()).build()
}

pub fn unread() -> Error {
    Error::broken("nobody reads the list any more")
}

impl Inner {
    /// `settled`: only what no failover takes back.
    async fn cursor(&self, query: &Query, settled: bool) -> mongodb::error::Result<Cursor> {
        if !query.filters.is_empty() {
            return self.candidates(query).await;
        }
        match self.by_index(query, settled, Some(by_bytes())).await {
            // Its strings are in the order of a language, where the collection has one. The server says so before it reads
            // anything, and would put all in order for each such list: beside that it is nothing to ask twice.
            Err(error) if query.after.is_some() && error::is_of_the_bound(&error) => self.candidates(query).await,
            Err(error) if error::is_of_the_order(&error) => self.by_index(query, settled, None).await,
            cursor => cursor,
        }
    }

    /// All of which the filters may hold, by whichever index the server chooses.
    async fn candidates(&self, query: &Query) -> mongodb::error::Result<Cursor> {
        let collection = self.collection().await?;
        let few = query.limit.map_or(BATCH_RECORDS, |limit| u32::try_from(limit).unwrap_or(BATCH_RECORDS));
        // Some of the candidates may be left out, and should not cost a round trip each.
        let batch = few.clamp(100, BATCH_RECORDS);
        // The planner chooses the index; what has none to use is given up by the server too.
        let filter = filter::candidates(&query.filters, query.after.as_ref());
        let find = collection.find(filter).collation(by_bytes()).sort(doc! { "_id": 1 }).batch_size(batch);
        // Where none is left out, the server need not put more in order than are taken.
        let find = match query.limit.filter(|_| query.filters.is_empty()).and_then(|limit| i64::try_from(limit).ok()) {
            Some(limit) => find.limit(limit),
            None => find,
        };
        let find = only(find, filter::fields(query));
        find.max_time(self.options.timeout).batch().await.map(|batches| Cursor::of(&collection, batches))
    }

    /// All by the index of `_id`, and no more of it than is taken.
    async fn by_index(&self, query: &Query, settled: bool, order: Option<Collation>) -> mongodb::error::Result<Cursor> {
        let collection = self.collection().await?;
        let by_id = doc! { "_id": 1 };
        let batch = query.page(BATCH_RECORDS as usize) as u32;
        let find = collection.find(doc! {}).sort(by_id.clone()).hint(Hint::Keys(by_id)).batch_size(batch);
        let find = match order {
            Some(order) => find.collation(order),
            None => find,
        };
        // The bound of the index includes what it names.
        let find = match query.limit.and_then(|limit| i64::try_from(limit).ok()?.checked_add(1)) {
            Some(limit) => find.limit(limit).batch_size(batch + 1),
            None => find,
        };
        let find = only(find, filter::fields(query));
        let find = match &query.after {
            // `$gt` would compare within the key's type only; a bound of the index compares across all types.
            Some(key) => find.min(doc! { "_id": bson::from_key(key) }),
            None => find,
        };
        if !settled {
            return find.batch().await.map(|batches| Cursor::of(&collection, batches));
        }
        let find = find.read_concern(ReadConcern::majority()).selection_criteria(ReadPreference::Primary.into());
        match self.begun.load(Ordering::Relaxed) {
            0 => find.batch().await.map(Cursor::of_primary),
            begun => {
                // The server waits until a majority has what was done up to then.
                let mut session = self.client().await?.start_session().causal_consistency(true).await?;
                session.advance_operation_time(changes::timestamp(begun));
                let cursor = find.session(&mut session).batch().await?;
                Ok(Cursor::in_session(cursor, session))
            }
        }
    }
}

/// What is new in a batch behind the record at `place`, which then is that of the last one. A record that was removed and put
/// again, or written, while the server reads may be found twice; in the order of the list they are neighbours.
fn new_in(mut batch: Vec<Record>, place: &mut Option<Key>) -> Vec<Record> {
    batch.dedup_by(|one, before| one.key() == before.key());
    if batch.first().is_some_and(|first| Some(first.key()) == place.as_ref()) {
        batch.remove(0);
    }
    if let Some(record) = batch.last() {
        *place = Some(record.key().clone());
    }
    batch
}

impl MongoDb {
    /// Reads the list from the server, and says when that was all: a reader that ends without a word has failed.
    async fn read(self, query: Query, settled: bool, batches: Batches) {
        let read = self.read_all(query, settled, &batches).await;
        // That nobody reads any more is no failure.
        if let Err(error) = &read
            && (error.is_unavailable() || !batches.is_closed())
        {
            self.inner.failures.count(error);
        }
        let _ = batches.send(read.map(|()| None)).await;
    }

    /// Batch by batch, one ahead of what `batches` has taken.
    async fn read_all(&self, mut query: Query, settled: bool, batches: &Batches) -> Result<()> {
        if let Some(sorted) = Sorted::of(&query)
            && self.is_in_order(&sorted, batches).await?
        {
            return self.read_in_order(&sorted, batches).await;
        }
        if !settled && let Some(records) = self.read_short(&query, batches).await {
            return batches.send(Ok(Some(records))).await.map_err(|_| unread());
        }
        let (mut place, mut cursor) = (query.after.clone(), None);
        loop {
            let batch = self.next(&mut cursor, self.inner.cursor(&query, settled), batches).await;
            // To the server the time that a find may take is that of all its batches, to us that of each. So another one goes on
            // where this one has come to, if it has come anywhere.
            if batch.as_ref().is_err_and(error::was_out_of_time)
                && !settled
                && place != query.after
                && place.as_ref().is_some_and(bson::is_from_key)
            {
                (query.after, cursor) = (place.clone(), None);
                continue;
            }
            let Some(batch) = batch? else { return Ok(()) };
            // An error here: nobody listens any more. The cursor is dropped between two calls, and closed by that.
            batches.send(Ok(Some(new_in(batch, &mut place)))).await.map_err(|_| unread())?;
        }
    }

    /// Waits until a call for the list that goes to `batches` may be made.
    ///
    /// # Errors
    ///
    /// When nobody reads that list any more: what MongoDB did not answer while it was away must not be asked when it is back,
    /// ahead of those who still wait. And when it takes as long as a call may.
    pub async fn turn(&self, batches: &Batches) -> Result<OwnedSemaphorePermit> {
        let permit = timeout(self.inner.options.timeout, permit(&self.inner.lists));
        tokio::select! {
            biased;
            () = batches.closed() => Err(unread()),
            permit = permit => permit.unwrap_or_else(|_| Err(self.late())),
        }
    }

    /// The next batch of `cursor`, which `open` gives where there is none yet. One call, that others wait for their turn with.
    pub async fn next(
        &self,
        cursor: &mut Option<Cursor>,
        open: impl Future<Output = mongodb::error::Result<Cursor>>,
        batches: &Batches,
    ) -> Result<Option<Vec<Record>>> {
        let _permit = self.turn(batches).await?;
        let batch = async {
            let cursor = match cursor {
                Some(cursor) => cursor,
                none => none.insert(open.await?),
            };
            cursor.next().await
        };
        batch.await.map_err(error::sorted)?.as_ref().map(records).transpose()
    }

    /// Every record that `query` asks for; `settled`: only what no failover takes back.
    pub fn listed(&self, query: Query, settled: bool) -> Listing {
        let within = self.inner.options.timeout;
        let (sender, receiver) = mpsc::channel(1);
        let after = query.after.clone();
        let reader = self.clone().read(query, settled, sender);
        let inner = self.inner.clone();
        // The task begins when the stream is first polled: a list that is never read costs nothing.
        let batches =
            stream::unfold((receiver, Some(reader), inner), move |(mut receiver, mut reader, inner)| async move {
                if let Some(reader) = reader.take() {
                    tokio::spawn(reader);
                }
                let batch = match timeout(within, receiver.recv()).await {
                    Ok(Some(batch)) => batch.transpose()?,
                    Ok(None) => Err(Error::broken("the reader of a list gave up")),
                    Err(_) => {
                        receiver.close();
                        let late = error::late("MongoDB sent nothing of the list", within);
                        inner.failures.count(&late);
                        Err(late)
                    }
                };
                Some((batch, (receiver, None, inner)))
            });
        let mut ended = false;
        batches
            .take_while(move |batch| {
                let go_on = !ended;
                ended = batch.is_err();
                futures::future::ready(go_on)
            })
            .flat_map(|batch| match batch {
                Ok(records) => stream::iter(records.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            // A bound of the index includes what it names.
            .skip_while(move |record| {
                futures::future::ready(record.as_ref().is_ok_and(|record| Some(record.key()) == after.as_ref()))
            })
            .boxed()
            .into()
    }
}
