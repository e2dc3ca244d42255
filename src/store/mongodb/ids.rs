//! Ids that the server has in another order than we have: all those whose keys are opaque.
//!
//! What sorts records that are alike by their `_id`, and takes the first ones, takes the wrong ones then; and what it leaves out
//! would be missing from every page. So a collection that has one such `_id` is put in order here. Whether it has is asked for
//! each page: the index of `_id` has them in places of their own. But decimals lie among all other numbers, which the server
//! goes through to find one: for those it is asked once a minute, and where it takes long to tell, as if there were none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, doc};
use mongodb::options::Hint;

use super::MongoDb;
use super::ahead::Batches;
use super::cursor::Cursor;
use super::short::{AGAIN_AFTER, QUICK};
use crate::record::Key;
use crate::store::Result;

/// What makes an opaque key of an `_id`, by ranges of the index that have nothing else in them.
const OPAQUE: [&str; 10] = [
    "minKey",
    "undefined",
    "null",
    "object",
    "timestamp",
    "regex",
    "dbPointer",
    "javascript",
    "javascriptWithScope",
    "maxKey",
];

/// Whether the server has an order among keys like this one that [`Key`] does not know.
pub fn is_opaque(key: &Key) -> bool {
    matches!(key, Key::Opaque { .. })
}

/// Ids whose keys are opaque, found by the index of `_id` in no time: but for decimals, and for what counts as a string without
/// being one that can be read.
fn opaque_ids() -> Document {
    // Binary data is in the order of its length, its subtype, its bytes.
    let uuid = |byte| Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: vec![byte; 16] });
    doc! { "$or": [
        { "_id": { "$type": OPAQUE.to_vec() } },
        { "_id": { "$lt": uuid(0) } },
        { "_id": { "$gt": uuid(0xff) } },
    ] }
}

/// Ids that are decimals. To find one, or none, the server goes through all numbers.
fn decimal_ids() -> Document {
    doc! { "_id": { "$type": "decimal" } }
}

/// Whether there are decimals among the ids, by the last look that has ended; and when the next one is due.
#[derive(Clone, Debug, Default)]
pub struct Decimals(Arc<Mutex<(Option<Instant>, Option<bool>)>>);

impl Decimals {
    fn state(&self) -> MutexGuard<'_, (Option<Instant>, Option<bool>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to look again. Others do not look while this one does.
    fn is_due(&self) -> bool {
        let (next, _) = &mut *self.state();
        let due = next.is_none_or(|next| next <= Instant::now());
        if due {
            *next = Some(Instant::now() + AGAIN_AFTER);
        }
        due
    }

    fn were(&self, seen: bool) {
        self.state().1 = Some(seen);
    }

    /// It could not be told: what was known before stands.
    fn were_not_found(&self) -> bool {
        *self.state().1.get_or_insert(false)
    }

    /// The look was none.
    fn are_still_due(&self) {
        self.state().0 = None;
    }

    /// While the first look is under way there may be some: to put the list in order here is slower, and right in any case.
    fn were_seen(&self) -> bool {
        self.state().1.unwrap_or(true)
    }
}

impl MongoDb {
    /// Whether there is a record whose `_id` has an opaque key, as far as that can be told.
    ///
    /// # Errors
    ///
    /// When MongoDB does not answer, or nobody reads the list.
    pub async fn has_opaque_ids(&self, batches: &Batches) -> Result<bool> {
        let within = self.inner.options.timeout;
        if self.has_one(opaque_ids(), within, batches).await? {
            return Ok(true);
        }
        if !self.decimals.is_due() {
            return Ok(self.decimals.were_seen());
        }
        match self.has_one(decimal_ids(), within / QUICK, batches).await {
            Ok(seen) => {
                self.decimals.were(seen);
                Ok(seen)
            }
            Err(error) if batches.is_closed() => {
                self.decimals.are_still_due();
                Err(error)
            }
            // So many numbers that it cannot be told in time.
            Err(_) => Ok(self.decimals.were_not_found()),
        }
    }

    /// Whether there is a record that `filter` finds.
    async fn has_one(&self, filter: Document, within: Duration, batches: &Batches) -> Result<bool> {
        let open = async {
            let collection = self.inner.collection().await?;
            let find = collection.find(filter).projection(doc! { "_id": 1 }).limit(1);
            let batches = find.hint(Hint::Keys(doc! { "_id": 1 })).max_time(within).batch().await?;
            Ok(Cursor::of(&collection, batches))
        };
        Ok(self.next(&mut None, open, batches).await?.is_some_and(|found| !found.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_nothing_is_known_of_decimals_there_may_be_some() {
        let decimals = Decimals::default();
        assert!(decimals.is_due());
        // Another page, meanwhile.
        assert!(!decimals.is_due() && decimals.were_seen());
        decimals.are_still_due();
        assert!(decimals.is_due() && decimals.were_seen());
        decimals.were(false);
        assert!(!decimals.is_due() && !decimals.were_seen());

        let decimals = Decimals::default();
        assert!(decimals.is_due() && !decimals.were_not_found() && !decimals.were_seen());
        decimals.were(true);
        assert!(decimals.were_not_found() && decimals.were_seen());
    }
}
