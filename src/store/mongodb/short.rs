//! Short lists: read as the records lie, and put in order here.
//!
//! By the index of `_id` the server reaches for each record by itself, and sends a thousand at a time. Read as they lie, and all
//! at once, they cost it a third of that. What a list is that fits into one batch is only known when it was read, so the first
//! one that does not fit is read twice, and from then on the collection counts as large, until a whole list says otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::batch::records;
use super::{MongoDb, Query, Result, error, filter, only};
use crate::record::{Key, Record};

/// How many records a short list has at most, and how much JSON they are together, in bytes: what a reader who is slow holds
/// in memory, where a longer list holds two batches.
const RECORDS: usize = 4_000;
const BYTES: usize = 4 * 1024 * 1024;

/// Whether the collection's list was too long when it was last read whole.
#[derive(Clone, Debug, Default)]
pub struct Large(Arc<AtomicBool>);

/// What was read of a list so far.
#[derive(Debug, Default)]
pub struct Length {
    records: usize,
    bytes: usize,
    opaque: bool,
}

impl Length {
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

impl Large {
    /// Takes note of a list that was read to its end.
    pub fn note(&self, query: &Query, length: &Length) {
        // One of some records, or of some of their fields, says nothing of the next one.
        if *query == Query::all() {
            self.0.store(!length.is_short(), Ordering::Relaxed);
        }
    }
}

impl MongoDb {
    /// All that `query` is of, in `_id` order, if that is known to be short now.
    pub async fn read_short(&self, query: &Query) -> Result<Option<Vec<Record>>> {
        // What begins somewhere or ends early is read by the index, and no further.
        let may_be = query.after.is_none() && query.limit.is_none() && !self.large.0.load(Ordering::Relaxed);
        if !may_be {
            return Ok(None);
        }
        let _permit = self.permit().await?;
        let batch = async {
            let collection = self.inner.collection().await?;
            // One more, to see that there are more; and the server keeps no cursor open for them.
            let most = RECORDS as u32 + 1;
            let find = collection.find(filter::candidates(&query.filters, None)).limit(most.into()).batch_size(most);
            let find = only(find, filter::fields(query)).max_time(self.inner.options.timeout);
            let mut cursor = find.batch().await?;
            super::next(&mut cursor).await
        };
        let Some(batch) = batch.await.map_err(error::sorted)? else { return Ok(Some(Vec::new())) };
        let cursor = batch.as_raw_document().get_document("cursor");
        // What is more than a reply can hold is left with the server, under an id.
        let whole = cursor.is_ok_and(|cursor| cursor.get_i64("id").is_ok_and(|id| id == 0));
        let mut length = Length::default();
        if whole {
            let mut records = records(&batch)?;
            length.add(&records);
            if length.is_short() {
                records.sort_by(|one, other| one.key().cmp(other.key()));
                // An index that was used for the filters may have led to a record twice, where it was written meanwhile.
                records.dedup_by(|one, other| one.key() == other.key());
                return Ok(Some(records));
            }
        }
        self.large.0.store(true, Ordering::Relaxed);
        Ok(None)
    }
}
