//! Records in this process's memory: the reference for what the contract means, and as fast as a lookup gets.
//!
//! Two indexes over the same records, because no one structure is good at both: a hash table answers [`Store::get`], a
//! B-tree lists in `_id` order. Records and the text of their keys are shared between the two.
//!
//! Among a million records a lookup is a handful of cache misses and little else, so the table is kept dense: sets of
//! records that hash and compare by the key inside, rather than maps with the key beside.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::{BoxFuture, ready};
use futures::stream::{self, StreamExt};

use super::{EmbeddedStore, Error, Options, RecordStream, Reply, Result, Store};
use crate::document::Document;
use crate::record::{Key, Record, RecordId};

/// How many records a list takes out of the store at a time. Between two pages writers get their turn.
const PAGE: usize = 256;

#[derive(Clone, Default)]
pub struct Memory {
    // A std lock: it is held for a lookup or for one page, never across an await.
    indexes: Arc<RwLock<Indexes>>,
}

#[derive(Default)]
struct Indexes {
    by_key: HashSet<ByKey, Seed>,
    in_order: BTreeSet<ByKey>,
}

/// A record that stands for its key.
struct ByKey(Record);

pub async fn open(url: String, _: Options) -> Result<Arc<dyn Store>> {
    match url.as_str() {
        "memory:" | "memory://" => Ok(Arc::new(Memory::default())),
        _ => Err(Error::invalid("a memory store has no name: write it as memory:")),
    }
}

impl Memory {
    // A panic while the lock was held cannot have left half of a change behind that matters: each index is changed by
    // one call of its own.
    fn read<T>(&self, read: impl FnOnce(&Indexes) -> T) -> T {
        read(&self.indexes.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Indexes) -> T) -> T {
        write(&mut self.indexes.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn page(&self, after: Option<&Key>) -> Vec<Record> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|indexes| {
            let range = indexes.in_order.range::<Key, _>((start, Bound::Unbounded));
            range.take(PAGE).map(|ByKey(record)| record.clone()).collect()
        })
    }
}

impl Indexes {
    fn put(&mut self, record: Record) {
        self.by_key.replace(ByKey(record.clone()));
        self.in_order.replace(ByKey(record));
    }
}

impl Store for Memory {
    fn get<'a>(&'a self, id: &'a RecordId) -> Reply<'a, Option<Record>> {
        Reply::ready(Ok(
            self.read(|indexes| id.keys().find_map(|key| indexes.by_key.get(&key)).map(|ByKey(record)| record.clone()))
        ))
    }

    fn list(&self, after: Option<&Key>) -> RecordStream {
        let store = self.clone();
        let pages = stream::unfold(after.cloned(), move |after| {
            let page = store.page(after.as_ref());
            ready(page.last().map(|last| last.key().clone()).map(|last| (page, Some(last))))
        });
        pages.flat_map(stream::iter).map(Ok).boxed()
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // Written out before the lock is taken, so that readers wait for the inserts alone.
            let records: Vec<Record> = documents.iter().map(Document::to_record).collect();
            self.write(|indexes| records.into_iter().for_each(|record| indexes.put(record)));
            Ok(())
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn as_embedded(&self) -> Option<&dyn EmbeddedStore> {
        Some(self)
    }
}

impl EmbeddedStore for Memory {
    fn put(&self, record: Record) -> Result<()> {
        self.write(|indexes| indexes.put(record));
        Ok(())
    }

    fn remove(&self, key: &Key) -> Result<bool> {
        Ok(self.write(|indexes| {
            indexes.in_order.remove(key);
            indexes.by_key.remove(key)
        }))
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn is_empty(&self) -> Result<bool> {
        Ok(self.read(|indexes| indexes.in_order.is_empty()))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory store of {} records", self.read(|indexes| indexes.in_order.len()))
    }
}

impl Borrow<Key> for ByKey {
    fn borrow(&self) -> &Key {
        self.0.key()
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for ByKey {}

/// Makes hashers that multiply each word and fold the product: a fraction of what std's SipHash takes for a short key.
/// Two numbers that differ in every process keep the collisions from being worked out beforehand; clients cannot try
/// for them, since they only look up.
#[derive(Clone)]
struct Seed {
    start: u64,
    factor: u64,
}

impl Default for Seed {
    fn default() -> Self {
        let random = RandomState::new();
        // An odd factor loses nothing in a multiplication.
        Self { start: random.hash_one(0), factor: random.hash_one(1) | 1 }
    }
}

impl BuildHasher for Seed {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding { state: self.start, factor: self.factor }
    }
}

struct Folding {
    state: u64,
    factor: u64,
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        // The length tells apart what the overlap of the last word does not.
        self.write_u64(bytes.len() as u64);
        match bytes.last_chunk() {
            Some(last) => {
                let (words, rest) = bytes.as_chunks();
                words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
                if !rest.is_empty() {
                    self.write_u64(u64::from_le_bytes(*last));
                }
            }
            None => self.write_u64(bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))),
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = product as u64 ^ (product >> 64) as u64;
    }

    fn write_i64(&mut self, word: i64) {
        self.write_u64(word as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_that_differ_a_little_spread_over_the_whole_table() {
        let seed = Seed::default();
        let keys = (0..4_096_u32).flat_map(|index| {
            let mut id = [0x5f; 12];
            id[8..].copy_from_slice(&index.to_be_bytes());
            let text = format!("order-{index}");
            [
                Key::ObjectId(id),
                Key::Integer(index.into()),
                Key::double(f64::from(index) + 0.5),
                Key::String(text.into()),
            ]
        });
        let hashes: Vec<u64> = keys.map(|key| seed.hash_one(key)).collect();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), hashes.len());
        // The table takes the place from the lowest bits and the tag from the highest: 16,384 balls into as many places
        // hit 10,357 of them where chance alone rules.
        for bits in [|hash: &u64| hash & 0x3fff, |hash: &u64| hash >> 50] {
            let hit = hashes.iter().map(bits).collect::<HashSet<_>>().len();
            assert!((9_900..10_800).contains(&hit), "{hit} places were hit");
        }
    }

    #[test]
    fn strings_of_one_character_repeated_have_different_hashes() {
        let seed = Seed::default();
        let hashes: HashSet<u64> =
            (0..100).map(|length| seed.hash_one(Key::String("a".repeat(length).into()))).collect();
        assert_eq!(hashes.len(), 100);
    }
}
