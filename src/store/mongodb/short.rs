//! Short lists: read as the records lie, and put in order here.
//!
//! By the index of `_id` the server reaches for each record by itself, and sends a thousand at a time. Read as they lie, and all
//! at once, they cost it a third of that. What a list is that fits into one batch is only known when it was read, so the first
//! one that does not fit is read twice. The next ones are read by the index, until one of all records was short again. So they
//! are where the answer is long in coming: over a slow network they may come in parts, where they cannot come at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::batch::records;
use super::{MongoDb, Query, Result, error, filter, only};
use crate::record::{Key, Record};

/// How many records a short list has at most, and how much JSON they are together, in bytes: what a reader who is slow holds
/// in memory, where a longer list holds two batches.
const RECORDS: usize = 4_000;
const BYTES: usize = 4 * 1024 * 1024;

/// How the list of all records was when it was last read; neither, before it was.
#[derive(Clone, Debug, Default)]
pub struct Last(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    short: AtomicBool,
    /// Or too long in coming.
    long: AtomicBool,
}

/// What was read of a list so far.
#[derive(Debug)]
pub struct Length {
    begun: Instant,
    records: usize,
    bytes: usize,
    opaque: bool,
}

impl Length {
    pub fn none() -> Self {
        Self { begun: Instant::now(), records: 0, bytes: 0, opaque: false }
    }

    pub fn add(&mut self, records: &[Record]) {
        self.records += records.len();
        self.bytes += records.iter().map(|record| record.json().len()).sum::<usize>();
        // The server has an order among these that their bytes do not tell.
        self.opaque |= records.iter().any(|record| matches!(record.key(), Key::Opaque { .. }));
    }

    fn is_short(&self) -> bool {
        self.records <= RECORDS && self.bytes <= BYTES && !self.opaque
    }
}

/// How long a list may be in coming that is read at once, where a call may take `within`: over a slow network a part of it may
/// come in that time, and not all.
fn quick(within: Duration) -> Duration {
    within / 2
}

impl Last {
    /// Takes note of a list that was read to its end, by calls that may take so long each.
    pub fn note(&self, query: &Query, length: &Length, within: Duration) {
        // One of some records, or of some of their fields, says nothing of the next one.
        if *query == Query::all() {
            self.was(length.is_short() && length.begun.elapsed() < quick(within));
        }
    }

    fn was(&self, short: bool) {
        self.0.short.store(short, Ordering::Relaxed);
        self.0.long.store(!short, Ordering::Relaxed);
    }

    /// Whether a list should be tried to be read at once.
    fn may_be_short(&self, query: &Query) -> bool {
        // What begins somewhere or ends early is read by the index, and no further.
        let all = query.after.is_none() && query.limit.is_none();
        // A few of very many may be long in the finding.
        let known = query.filters.is_empty() || self.0.short.load(Ordering::Relaxed);
        all && known && !self.0.long.load(Ordering::Relaxed)
    }
}

impl MongoDb {
    /// All that `query` is of, in `_id` order, if that is known to be short now.
    pub async fn read_short(&self, query: &Query) -> Result<Option<Vec<Record>>> {
        if !self.last.may_be_short(query) {
            return Ok(None);
        }
        let _permit = self.permit().await?;
        let mut length = Length::none();
        let batch = async {
            let collection = self.inner.collection().await?;
            // One more, to see that there are more; and the server keeps no cursor open for them.
            let most = RECORDS as u32 + 1;
            let find = collection.find(filter::candidates(&query.filters, None)).limit(most.into()).batch_size(most);
            let find = only(find, filter::fields(query)).max_time(self.inner.options.timeout);
            let mut cursor = find.batch().await?;
            super::next(&mut cursor).await
        };
        let mut batch = std::pin::pin!(batch);
        let batch = match timeout(quick(self.inner.options.timeout), &mut batch).await {
            Ok(batch) => batch,
            Err(_) => {
                // Said now: whoever asks next should not wait for as long.
                self.last.was(false);
                batch.await
            }
        };
        let Some(batch) = batch.map_err(error::sorted)? else { return Ok(None) };
        let cursor = batch.as_raw_document().get_document("cursor");
        // What is more than a reply can hold is left with the server, under an id.
        let whole = cursor.is_ok_and(|cursor| cursor.get_i64("id").is_ok_and(|id| id == 0));
        if whole {
            let mut records = records(&batch)?;
            length.add(&records);
            if length.is_short() {
                self.last.note(query, &length, self.inner.options.timeout);
                records.sort_by(|one, other| one.key().cmp(other.key()));
                // An index that was used for the filters may have led to a record twice, where it was written meanwhile.
                records.dedup_by(|one, other| one.key() == other.key());
                return Ok(Some(records));
            }
        }
        self.last.was(false);
        Ok(None)
    }
}
