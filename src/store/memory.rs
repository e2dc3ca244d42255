//! Records in this process's memory: the reference for what the contract means, and as fast as a lookup gets.
//!
//! Two indexes over the same records, because no one structure is good at both: a hash table answers [`Store::get`], a
//! B-tree lists in `_id` order. Records are shared between the two.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::{BoxFuture, ready};
use futures::stream::{self, StreamExt};

use super::{EmbeddedStore, Error, Found, Listing, Options, Query, Reply, Result, Store};
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
    // A table of pointers, which is small enough for the processor's caches where the records are not: a lookup among a
    // million waits for memory once, at the record.
    by_key: HashSet<ByKey>,
    in_order: BTreeMap<Key, Record>,
}

/// A record that is found by its key.
struct ByKey(Record);

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

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for ByKey {}

pub async fn open(url: String, _: Options) -> Result<Arc<dyn Store>> {
    check(url).await?;
    Ok(Arc::new(Memory::default()))
}

pub async fn check(url: String) -> Result<()> {
    match url.as_str() {
        "memory:" | "memory://" => Ok(()),
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

    fn page(&self, after: Option<&Key>, size: usize) -> Vec<Record> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|indexes| {
            indexes.in_order.range((start, Bound::Unbounded)).take(size).map(|(_, record)| record.clone()).collect()
        })
    }
}

impl Indexes {
    fn put(&mut self, record: Record) -> Option<Record> {
        self.by_key.replace(ByKey(record.clone()));
        self.in_order.insert(record.key().clone(), record)
    }
}

impl Store for Memory {
    fn get<'a>(&'a self, id: &'a RecordId) -> Reply<'a, Found> {
        let find =
            |indexes: &Indexes| id.keys().find_map(|key| indexes.by_key.get(&key).map(|ByKey(record)| record.clone()));
        Reply::ready(Ok(self.read(find).into()))
    }

    fn list(&self, query: Query) -> Listing {
        let store = self.clone();
        let size = query.page(PAGE);
        let pages = stream::unfold(Some(query.after), move |next| {
            ready(next.map(|after| {
                let page = store.page(after.as_ref(), size);
                // A page that is not full was the last one.
                let next = page.last().filter(|_| page.len() == size).map(|last| Some(last.key().clone()));
                (page, next)
            }))
        });
        pages.flat_map(stream::iter).map(Ok).boxed().into()
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // Written out before the lock is taken, so that readers wait for the inserts alone.
            let json: Vec<_> = documents.iter().map(Document::to_json).collect();
            // After the JSON, not each beside its own: what a lookup reads of a record lies close to the others', so that among
            // a million the processor's tables of addresses reach further.
            let records: Vec<Record> =
                documents.iter().zip(json).map(|(document, json)| Record::new(document.key().clone(), json)).collect();
            self.write(|indexes| records.into_iter().for_each(|record| drop(indexes.put(record))));
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
    fn put(&self, record: Record) -> Result<Option<usize>> {
        Ok(self.write(|indexes| indexes.put(record)).map(|old| old.json().len()))
    }

    fn remove(&self, key: &Key) -> Result<Option<usize>> {
        let removed = self.write(|indexes| {
            indexes.by_key.remove(key);
            indexes.in_order.remove(key)
        });
        Ok(removed.map(|old| old.json().len()))
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
