//! Records in this process's memory: the reference implementation of the contract, and the fastest lookup.
//!
//! Two indexes share the records: a hash table for [`Store::get`] and a B-tree for lists in `_id` order. Neither structure is
//! fast at both.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures::future::{BoxFuture, ready};
use futures::stream::{self, StreamExt};

use super::{
    CHUNK_BYTES, CHUNK_DOCUMENTS, ChunkStream, CountResult, EmbeddedStore, Error, GetResult, ListRequest, ListResult,
    Opened, Options, Precision, Result, Store, count_listed, execute,
};
use crate::record::{Document, Key, RecordId};

#[derive(Clone, Default)]
pub struct Memory {
    // A std lock: it is held for a lookup or for one page, never across an await.
    indexes: Arc<RwLock<Indexes>>,
}

#[derive(Default)]
struct Indexes {
    // A table of pointers fits the processor's caches where the records do not: a lookup among a million waits for memory
    // once, at the record.
    by_key: HashSet<ByKey>,
    in_order: BTreeMap<Key, Document>,
}

/// A document that is found by its key.
struct ByKey(Document);

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

pub async fn open(url: String, _: Options) -> Result<Opened> {
    check(url).await?;
    Ok(Opened::Embedded(Arc::new(Memory::default())))
}

pub async fn check(url: String) -> Result<Vec<String>> {
    match url.as_str() {
        "memory:" | "memory://" => Ok(Vec::new()),
        _ => Err(Error::invalid("a memory store has no name: write it as memory:")),
    }
}

impl Memory {
    // A poisoned lock is safe to use: each index is updated by a single call, so a panic leaves no partial change that
    // matters.
    fn read<T>(&self, read: impl FnOnce(&Indexes) -> T) -> T {
        read(&self.indexes.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Indexes) -> T) -> T {
        write(&mut self.indexes.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next documents, and whether there may be more.
    fn chunk(&self, after: Option<&Key>, most: usize) -> (Vec<Document>, bool) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|indexes| {
            let mut bytes = 0;
            let mut chunk = Vec::with_capacity(most);
            for (_, document) in indexes.in_order.range::<Key, _>((start, Bound::Unbounded)) {
                bytes += document.bson().len();
                chunk.push(document.clone());
                if chunk.len() >= most || bytes >= CHUNK_BYTES {
                    return (chunk, true);
                }
            }
            (chunk, false)
        })
    }

    /// Scans the documents after `after`. The lock is released between two chunks, so that writers can proceed.
    fn chunks(&self, after: Option<Key>, expected: Option<usize>) -> ChunkStream {
        let store = self.clone();
        let most = expected.unwrap_or(usize::MAX).clamp(1, CHUNK_DOCUMENTS);
        let chunks = stream::unfold(Some(after), move |next| {
            ready(next.map(|after| {
                let (chunk, more) = store.chunk(after.as_ref(), most);
                let next = chunk.last().filter(|_| more).map(|last| Some(last.key().clone()));
                (Ok(chunk), next)
            }))
        });
        chunks.boxed()
    }
}

impl Indexes {
    fn put(&mut self, document: Document) -> Option<Document> {
        self.by_key.replace(ByKey(document.clone()));
        self.in_order.insert(document.key().clone(), document)
    }
}

impl Store for Memory {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        Box::pin(async { self.try_get(id).unwrap_or_else(|| Ok(GetResult::default())) })
    }

    fn try_get(&self, id: &RecordId) -> Option<Result<GetResult>> {
        let keys = id.keys();
        let find = |indexes: &Indexes| {
            keys.iter().find_map(|key| indexes.by_key.get(key).map(|ByKey(document)| document.clone()))
        };
        Some(Ok(self.read(find).into()))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        let store = self.clone();
        Box::pin(execute(Arc::new(move |after, expected| store.chunks(after, expected)), request))
    }

    fn count(&self, request: ListRequest, _: Precision) -> BoxFuture<'_, Result<Option<CountResult>>> {
        if request.filter.is_empty() {
            let number = self.read(|indexes| indexes.in_order.len());
            return Box::pin(ready(Ok(Some(CountResult::exact(number as u64)))));
        }
        Box::pin(count_listed(self, request))
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // All bytes first, then all documents: the parts that a lookup reads are adjacent, so that among a million
            // documents fewer pages miss the TLB.
            let bytes: Vec<_> = documents.iter().map(|document| Bytes::copy_from_slice(document.bson())).collect();
            let own =
                documents.iter().zip(bytes).map(|(document, bytes)| Document::with_key(document.key().clone(), bytes));
            let own: Vec<Document> = own.collect();
            self.write(|indexes| own.into_iter().for_each(|document| drop(indexes.put(document))));
            Ok(())
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(ready(Ok(())))
    }
}

impl EmbeddedStore for Memory {
    fn put(&self, document: Document) -> Result<Option<usize>> {
        Ok(self.write(|indexes| indexes.put(document)).map(|old| old.bson().len()))
    }

    fn remove(&self, key: &Key) -> Result<Option<usize>> {
        let removed = self.write(|indexes| {
            indexes.by_key.remove(key);
            indexes.in_order.remove(key)
        });
        Ok(removed.map(|old| old.bson().len()))
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
