//! Lists: read batch by batch, one ahead of who reads them, in a task of their own that ends when nobody does. How large a
//! batch is, and when it is asked for, [`ahead`](super::ahead) says.

use std::future::{Future, ready};
use std::sync::atomic::Ordering;

use futures::future::Either;
use futures::stream::{self, StreamExt};
use mongodb::action::Find;
use mongodb::bson::{Document as Bson, RawDocumentBuf, doc};
use mongodb::options::{Collation, Hint, ReadConcern, ReadPreference};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::ahead::{BATCH_BYTES, Batch, Batches, batches, bytes_of, unread};
use super::batch::records;
use super::cursor::Cursor;
use super::order::Sorted;
use super::{Inner, MongoDb, bson, changes, error, filter, permit};
use crate::record::{Key, Record};
use crate::store::{Error, Listing, Query, Result};

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

impl Inner {
    /// `batch` records at a time; `settled`: only what no failover takes back.
    async fn cursor(&self, query: &Query, batch: u32, settled: bool) -> mongodb::error::Result<Cursor> {
        if !query.filters.is_empty() {
            return self.candidates(query, batch).await;
        }
        match self.by_index(query, batch, settled, Some(by_bytes())).await {
            // Its strings are in the order of a language, where the collection has one. The server says so before it reads
            // anything, and would put all in order for each such list: beside that it is nothing to ask twice.
            Err(error) if query.after.is_some() && error::is_of_the_bound(&error) => {
                self.candidates(query, batch).await
            }
            Err(error) if error::is_of_the_order(&error) => self.by_index(query, batch, settled, None).await,
            cursor => cursor,
        }
    }

    /// All of which the filters may hold, by whichever index the server chooses.
    async fn candidates(&self, query: &Query, batch: u32) -> mongodb::error::Result<Cursor> {
        let collection = self.collection().await?;
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
    async fn by_index(
        &self,
        query: &Query,
        batch: u32,
        settled: bool,
        order: Option<Collation>,
    ) -> mongodb::error::Result<Cursor> {
        let collection = self.collection().await?;
        let by_id = doc! { "_id": 1 };
        // The bound of the index includes what it names.
        let batch = batch + u32::from(query.after.is_some() || query.limit.is_some());
        let find = collection.find(doc! {}).sort(by_id.clone()).hint(Hint::Keys(by_id)).batch_size(batch);
        let find = match order {
            Some(order) => find.collation(order),
            None => find,
        };
        let find = match query.limit.and_then(|limit| i64::try_from(limit).ok()?.checked_add(1)) {
            Some(limit) => find.limit(limit),
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

/// What is new in a batch behind the record at `place`. A record that was removed and put again, or written, while the server
/// reads may be found twice; in the order of the list they are neighbours. A bound of the index includes what it names.
fn new_in(mut batch: Vec<Record>, place: Option<&Key>) -> Vec<Record> {
    batch.dedup_by(|one, before| one.key() == before.key());
    if batch.first().is_some_and(|first| Some(first.key()) == place) {
        batch.remove(0);
    }
    batch
}

impl MongoDb {
    /// Reads the list from the server, and says when that was all: a reader that ends without a word has failed.
    pub async fn read(self, query: Query, settled: bool, batches: Batches) {
        let read = self.read_all(query, settled, &batches).await;
        // That nobody reads any more is no failure.
        if let Err(error) = &read
            && (error.is_unavailable() || !batches.is_closed())
        {
            self.inner.failures.count(error);
        }
        batches.end(read).await;
    }

    /// Batch by batch, as `batches` has room for them.
    async fn read_all(&self, mut query: Query, settled: bool, batches: &Batches) -> Result<()> {
        if let Some(sorted) = Sorted::of(&query)
            && self.is_in_order(&sorted, batches).await?
        {
            return self.read_in_order(&sorted, batches).await;
        }
        if !settled && let Some((records, room)) = self.read_short(&query, batches).await {
            return batches.send(records, room).await;
        }
        let (mut place, mut cursor) = (query.after.clone(), None);
        let (mut asked, mut bytes) = (0, self.held.first_bytes(&query));
        loop {
            // An error here: nobody listens any more. The cursor is dropped between two calls, and closed by that.
            let room = batches.ready(bytes).await?;
            let may_ask_for = self.held.batch_up_to_limit(&query, &room);
            // A cursor asks for as many each time. One for less goes on where this list has come to.
            let is_known = !settled && place.as_ref().is_some_and(bson::is_from_key);
            if room.is_none() && is_known && may_ask_for < asked / 2 {
                (query.after, cursor) = (place.clone(), None);
            }
            if cursor.is_none() {
                asked = may_ask_for;
            }
            let batch = self.next(&mut cursor, self.inner.cursor(&query, asked, settled), batches).await;
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
            let Some(records) = batch? else { return Ok(()) };
            let mut records = new_in(records, place.as_ref());
            bytes = bytes_of(&records);
            self.held.learn(&query, records.len(), bytes);
            let (was_whole, few) = (records.len() >= asked as usize, room.held_of(&records, bytes));
            // Likewise one for more; and what is far too much the list does not keep.
            let place_is_known = |few: usize| few > 0 && bson::is_from_key(records[few - 1].key());
            if !settled && place_is_known(few) {
                let better = self.held.batch_up_to_limit(&query, &room);
                let more = was_whole && bytes < BATCH_BYTES / 4 && better / 2 >= asked;
                if more || few < records.len() {
                    records.truncate(few);
                    query.after = records.last().map(|record| record.key().clone());
                    (cursor, bytes) = (None, bytes_of(&records));
                }
            }
            if let Some(record) = records.last() {
                place = Some(record.key().clone());
            }
            bytes = bytes.max(1);
            batches.send(records, room).await?;
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
        let (sender, reading) = batches(self.held.clone());
        let reader = self.clone().read(query, settled, sender);
        let inner = self.inner.clone();
        // The task begins when the stream is first polled: a list that is never read costs nothing.
        let batches =
            stream::unfold((reading, Some(reader), inner), move |(mut reading, mut reader, inner)| async move {
                if let Some(reader) = reader.take() {
                    tokio::spawn(reader);
                }
                let batch = match timeout(within, reading.next()).await {
                    Ok(Some(batch)) => batch.transpose()?,
                    Ok(None) => Err(Error::broken("the reader of a list gave up")),
                    Err(_) => {
                        reading.close();
                        let late = error::late("MongoDB sent nothing of the list", within);
                        inner.failures.count(&late);
                        Err(late)
                    }
                };
                Some((batch, (reading, None, inner)))
            });
        let mut ended = false;
        batches
            .take_while(move |batch| {
                let go_on = !ended;
                ended = batch.is_err();
                ready(go_on)
            })
            .flat_map(|batch| match batch {
                // Its room is given back when the last of them was taken.
                Ok(Batch { records, room }) => Either::Left(stream::iter(records.into_iter().map(move |record| {
                    let _ = &room;
                    Ok(record)
                }))),
                Err(error) => Either::Right(stream::once(ready(Err(error)))),
            })
            .boxed()
            .into()
    }
}
