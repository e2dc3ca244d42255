//! Short lists: read as the records lie, and put in order here.
//!
//! By the index of `_id` the server reaches for each record by itself, and sends a thousand at a time. Read as they lie, and all
//! at once, they cost it half of that or less. Whether a list is short enough is only known when it was read. So one that was not is
//! read again by the index, and for a minute all others are read by the index alone. The same holds when the server refuses,
//! or is long in answering: over a slow network a list may come in parts where it cannot come at once. And while those that
//! were read at once and are not taken yet hold all that lists may hold together, others are read by the index.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mongodb::raw_batch_cursor::RawBatch;
use tokio::time::timeout;

use super::ahead::{Batches, Room, bytes_of};
use super::batch::records;
use super::cursor::{Cursor, left_under};
use super::ids::is_opaque;
use super::lists::{by_bytes, only};
use super::{Inner, MongoDb, Query, filter};
use crate::record::Record;

/// How many records a short list has at most, and how much JSON they are together, in bytes: all of it is held in memory until
/// the last record was taken.
const RECORDS: usize = 4_000;
const BYTES: usize = 4 * 1024 * 1024;

/// Which part of a call's time a short list may take. The rest is left to read it by the index.
pub const QUICK: u32 = 10;

/// How long lists are read by the index before one is tried at once again.
pub const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What is known of lists by the last one that was tried.
#[derive(Clone, Debug)]
pub struct Last {
    seen: Arc<Mutex<Seen>>,
    /// How much JSON it had, in bytes.
    bytes: Arc<AtomicUsize>,
    again_after: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Seen {
    Nothing,
    Short,
    /// Tried again from then on.
    Long(Instant),
}

impl Default for Last {
    fn default() -> Self {
        Self::with(AGAIN_AFTER)
    }
}

impl Last {
    pub fn with(again_after: Duration) -> Self {
        let bytes = Arc::new(AtomicUsize::new(BYTES));
        Self { seen: Arc::new(Mutex::new(Seen::Nothing)), bytes, again_after }
    }

    fn was(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    fn was_long(&self) {
        self.was(Seen::Long(Instant::now() + self.again_after));
    }

    /// Whether this list should be tried at once.
    fn is_worth_a_try(&self, query: &Query) -> bool {
        // What begins somewhere or ends early is read by the index, and no further.
        if query.after.is_some() || query.limit.is_some() {
            return false;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Seen::Short => true,
            // A few of very many may be long in the finding.
            _ if !query.filters.is_empty() => false,
            Seen::Nothing => true,
            Seen::Long(until) if Instant::now() < until => false,
            Seen::Long(_) => {
                // Others do not try while this one does.
                *seen = Seen::Long(Instant::now() + self.again_after);
                true
            }
        }
    }
}

impl MongoDb {
    /// All that `query` is of, in `_id` order, if it is short. If not, or if that cannot be told, the index has to say.
    pub async fn read_short(&self, query: &Query, batches: &Batches) -> Option<(Vec<Record>, Room)> {
        if !self.last.is_worth_a_try(query) {
            return None;
        }
        let quick = self.inner.options.timeout / QUICK;
        let permit = timeout(quick, self.turn(batches)).await.ok()?.ok()?;
        let mut room = self.held.room(self.last.bytes.load(Ordering::Relaxed))?;
        let reply = self.inner.clone().at_once(query.clone());
        // In a task of its own: the call runs to its end also when it is not waited for.
        let call = tokio::spawn(async move {
            let reply = reply.await;
            drop(permit);
            reply
        });
        let short = match timeout(quick, call).await {
            Ok(Ok(Ok(Some(reply)))) => self.short(query, &reply),
            // What is wrong the index will find too, and say; unless only this way is barred.
            _ => None,
        };
        let Some(mut records) = short else {
            self.last.was_long();
            return None;
        };
        if query.filters.is_empty() {
            self.last.was(Seen::Short);
        }
        let bytes = bytes_of(&records);
        self.last.bytes.store(bytes, Ordering::Relaxed);
        if !self.held.fit(&mut room, bytes) {
            return None;
        }
        records.sort_by(|one, other| one.key().cmp(other.key()));
        // One that was removed and put again meanwhile may lie in two places; and to one that was written the index of a filter
        // may lead twice.
        records.dedup_by(|one, other| one.key() == other.key());
        Some((records, room))
    }

    /// The records of a reply that has all of them, if they are few and their order can be told here.
    fn short(&self, query: &Query, reply: &RawBatch) -> Option<Vec<Record>> {
        let left = left_under(reply)?;
        let records = records(reply).ok()?;
        let bytes = bytes_of(&records);
        self.held.learn(query, records.len(), bytes);
        // What is more than a reply can hold is left with the server, under an id.
        if left != 0 {
            return None;
        }
        // The server has an order among these that their bytes do not tell.
        let opaque = records.iter().any(|record| is_opaque(record.key()));
        (records.len() <= RECORDS && bytes <= BYTES && !opaque).then_some(records)
    }
}

impl Inner {
    async fn at_once(self: Arc<Self>, query: Query) -> mongodb::error::Result<Option<RawBatch>> {
        let collection = self.collection().await?;
        // One more, to see that there are more; and the server keeps no cursor open for them.
        let most = RECORDS as u32 + 1;
        let find = collection.find(filter::candidates(&query.filters, None)).limit(most.into()).batch_size(most);
        let find = if query.filters.is_empty() { find } else { find.collation(by_bytes()) };
        let batches = only(find, filter::fields(&query)).max_time(self.options.timeout).batch().await?;
        Cursor::of(&collection, batches).next().await
    }
}
