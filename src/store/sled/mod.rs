//! Records in a directory of this machine, by [sled](https://docs.rs/sled/0.34): survives a restart, needs no server.
//!
//! The database maps the bytes of a [`Key`], which sort as MongoDB sorts ids, to the document's BSON. Next to it, [`directory`]
//! keeps the files `FORMAT` and `LOCK`.
//!
//! sled 0.34 truncates a damaged log where the damage begins and opens with the rest, so it could silently serve an empty
//! store. Every flush therefore increments the flush epoch, first in the database and then in `FORMAT`: a database whose
//! epoch is lower than that of `FORMAT` has lost acknowledged writes.
//!
//! sled "repairs" the file before the epochs can be compared. The database is therefore opened with a backup, which is
//! restored if the check fails, so that a damaged store stays as it was found. The backup doubles the disk space while the
//! store opens, and takes the time of a copy if the file system cannot share blocks.
//!
//! The default cache holds everything, 390 MB for a million records of 250 bytes: with 16 or 128 MB a lookup unpacks its
//! page each time, which takes more than five times as long, and the first list still grows the process by 110 MB, because
//! sled keeps more than a cache. Reading the whole store once while it opens keeps lists from growing the process later.
//!
//! Lookups run on the calling task: they find their page in sled's cache or in the system's, and a blocking thread would
//! cost several times as much. Opening, writing, flushing and lists run on blocking threads.

mod directory;

use std::fmt;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{BoxFuture, ready};
use futures::stream::{self, StreamExt};
use sled::{Db, IVec, Tree};

use super::{
    CHUNK_BYTES, CHUNK_DOCUMENTS, ChunkStream, CountResult, EmbeddedStore, Error, GetResult, ListRequest, ListResult,
    Opened, Options, Precision, Result, Store, count_listed, execute,
};
use crate::record::{Document, Key, RecordId};
use directory::Directory;

/// A longer document shares the memory of sled's cache: many readers of a document of 15 MB hold it once.
const SHARED_BYTES: usize = 64 * 1024;

/// The time to wait for the lock: sled releases it shortly after the store is dropped, so a quick restart may meet its own
/// predecessor.
const LOCK_PATIENCE: Duration = Duration::from_millis(1_500);

/// A separate tree for the store's metadata.
const METADATA_TREE: &str = "metadata";
const FLUSH_EPOCH: &str = "flush_epoch";
const IMPORT_IN_PROGRESS: &str = "import_in_progress";

#[derive(Clone)]
pub struct Sled {
    directory: Arc<Directory>,
    db: Db,
    // The default tree of `db`, resolved once: `Db` would look it up at every call.
    records: Tree,
    metadata: Tree,
    /// The number of records. `None` where the cache was too small to read them all when the store was opened.
    count: Option<Arc<AtomicU64>>,
    /// The epoch of the last flush. Locked during a flush, so that epochs reach the disk in order.
    flush_epoch: Arc<Mutex<u64>>,
}

pub async fn open(url: String, options: Options) -> Result<Opened> {
    let directory = super::directory(&url)?;
    let at = directory.display().to_string();
    let open = tokio::task::spawn_blocking(move || Sled::open(directory, options.cache_bytes)).await;
    let open = open
        .unwrap_or_else(|panic| Err(Error::broken(format!("cannot open the sled store in {at}")).with_source(panic)));
    Ok(Opened::Embedded(Arc::new(open?)))
}

/// Creates no directory and takes no lock.
pub async fn check(url: String, _: Options) -> Result<Vec<String>> {
    directory::refuse_foreign(&super::directory(&url)?).map(|()| Vec::new())
}

/// Copies a short value: a slow response would otherwise keep sled's whole page in memory.
fn bytes_of(value: IVec) -> Bytes {
    if value.len() > SHARED_BYTES { Bytes::from_owner(value) } else { Bytes::copy_from_slice(&value) }
}

fn damaged(directory: &Directory) -> Error {
    Error::broken(format!(
        "the sled store in {directory} is damaged. It was left as it is: move the directory away, then import the records again"
    ))
}

impl Sled {
    fn open(path: PathBuf, cache_bytes: u64) -> Result<Self> {
        let (directory, acknowledged) = Directory::open(path)?;
        let directory = Arc::new(directory);
        directory.open_with_backup(|| {
            // sled 0.34 may panic on a damaged file where it should return an error.
            catch_unwind(AssertUnwindSafe(|| Self::open_database(directory.clone(), acknowledged, cache_bytes)))
                .unwrap_or_else(|_| Err(damaged(&directory).with_source("sled panicked")))
        })
    }

    fn open_database(directory: Arc<Directory>, acknowledged: u64, cache_bytes: u64) -> Result<Self> {
        if acknowledged > 0 && !directory.database().join("db").is_file() {
            // sled would make a new one.
            return Err(damaged(&directory).with_source("its file sled/db is missing"));
        }
        let db = open_database(&directory, cache_bytes)?;
        let metadata = db.open_tree(METADATA_TREE).map_err(|error| damaged(&directory).with_source(error))?;
        let records = Tree::clone(&db);
        let flush_epoch = Arc::new(Mutex::new(acknowledged));
        let mut store = Self { directory, db, records, metadata, count: None, flush_epoch };
        store.count = store.check(acknowledged, cache_bytes)?.map(|count| Arc::new(count.into()));
        Ok(store)
    }

    /// Checks that no acknowledged write is missing and that every document matches its key. Returns the number of documents,
    /// if it read them all.
    fn check(&self, acknowledged: u64, cache_bytes: u64) -> Result<Option<u64>> {
        let found = self.metadata.get(FLUSH_EPOCH).map_err(|error| self.failed("read", error))?;
        let found = found.and_then(|epoch| epoch.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes);
        if found < acknowledged {
            let lost = format!("what was written since its flush {found} of {acknowledged} is lost");
            return Err(damaged(&self.directory).with_source(lost));
        }
        // Reads as much as the cache holds, so that damage is reported at start rather than to a client, and the memory is
        // allocated at start rather than by the first list.
        let (mut bytes, mut count, mut is_whole) = (0, 0, true);
        for entry in self.records.iter() {
            count += 1;
            let (key, bson) = entry.map_err(|error| self.failed("read", error))?;
            bytes += key.len() as u64 + bson.len() as u64;
            self.document(&key, bson.to_vec())?;
            if bytes > cache_bytes {
                is_whole = false;
                break;
            }
        }
        if let Some((key, bson)) = self.records.last().map_err(|error| self.failed("read", error))? {
            self.document(&key, bson.to_vec())?;
        }
        Ok(is_whole.then_some(count))
    }

    fn failed(&self, what: &str, error: sled::Error) -> Error {
        let at = &self.directory;
        match error {
            sled::Error::Corruption { .. } => damaged(&self.directory).with_source(error),
            // A full disk can be cleared, and loses no acknowledged write.
            sled::Error::Io(_) => {
                Error::unavailable(format!("cannot {what} the sled store in {at}")).with_source(error)
            }
            _ => Error::broken(format!("cannot {what} the sled store in {at}")).with_source(error),
        }
    }

    /// Parses a document and checks it against its key.
    fn document(&self, key: &[u8], bson: Vec<u8>) -> Result<Document> {
        let document = Document::new(bson).map_err(|error| damaged(&self.directory).with_source(error))?;
        if document.key().as_bytes() != key {
            return Err(damaged(&self.directory).with_source("a document has another `_id` than its key says"));
        }
        Ok(document)
    }

    fn find(&self, id: &RecordId) -> Result<Option<Document>> {
        for key in id.keys() {
            if let Some(bson) = self.records.get(key.as_bytes()).map_err(|error| self.failed("read", error))? {
                return Ok(Some(Document::with_key(key, bytes_of(bson))));
            }
        }
        Ok(None)
    }

    /// Returns the next documents after `after`, and the key to continue from if there may be more.
    fn chunk(&self, after: Option<&Key>, most: usize) -> Result<(Vec<Document>, Option<Key>)> {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_bytes()));
        let mut chunk = Vec::with_capacity(most);
        let mut bytes = 0;
        for entry in self.records.range::<&[u8], _>((start, Bound::Unbounded)) {
            let (key, bson) = entry.map_err(|error| self.failed("read", error))?;
            bytes += bson.len();
            let key = Key::from_stored(&key).ok_or_else(|| damaged(&self.directory).with_source("a key is empty"))?;
            chunk.push(Document::with_key(key, bytes_of(bson)));
            if chunk.len() >= most || bytes >= CHUNK_BYTES {
                let last = chunk.last().map(|last: &Document| last.key().clone());
                return Ok((chunk, last));
            }
        }
        Ok((chunk, None))
    }

    fn chunks(&self, after: Option<Key>, expected: Option<usize>) -> ChunkStream {
        let store = self.clone();
        let most = expected.unwrap_or(usize::MAX).clamp(1, CHUNK_DOCUMENTS);
        let chunks = stream::try_unfold(Some(after), move |next| {
            let chunk = next.map(|after| store.blocking(move |store| store.chunk(after.as_ref(), most)));
            async move {
                let Some(chunk) = chunk else { return Ok(None) };
                let (chunk, last) = chunk.await?;
                Ok::<_, Error>(Some((chunk, last.map(Some))))
            }
        });
        chunks.boxed()
    }

    /// Runs `work` on a blocking thread. It completes even if the future is dropped.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let store = self.clone();
        Box::pin(async move {
            tokio::task::spawn_blocking(move || work(&store))
                .await
                .unwrap_or_else(|panic| Err(Error::broken("the sled store gave up").with_source(panic)))
        })
    }

    fn flush_blocking(&self) -> Result<()> {
        // After a failure the epoch is reused, which is safe because it was not acknowledged.
        let mut epoch = self.flush_epoch.lock().unwrap_or_else(PoisonError::into_inner);
        let next = *epoch + 1;
        let written = self.metadata.insert(FLUSH_EPOCH, &next.to_be_bytes()).and_then(|_| self.db.flush());
        written.map_err(|error| self.failed("write", error))?;
        self.directory.set_flush_epoch(next).map_err(|error| self.failed("write", error.into()))?;
        *epoch = next;
        Ok(())
    }
}

fn open_database(directory: &Directory, cache_bytes: u64) -> Result<Db> {
    let begin = Instant::now();
    loop {
        match sled::Config::new().path(directory.database()).cache_capacity(cache_bytes).open() {
            Ok(db) => return Ok(db),
            // A store that this process has just dropped may still hold the lock, which sled reports as an I/O error with
            // this text.
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock") && begin.elapsed() < LOCK_PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error @ sled::Error::Io(_)) => {
                return Err(Error::broken(format!("cannot open the sled store in {directory}")).with_source(error));
            }
            Err(error) => return Err(damaged(directory).with_source(error)),
        }
    }
}

impl Store for Sled {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        Box::pin(async { self.find(id).map(GetResult::from) })
    }

    fn try_get(&self, id: &RecordId) -> Option<Result<GetResult>> {
        Some(self.find(id).map(GetResult::from))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        let store = self.clone();
        Box::pin(execute(Arc::new(move |after, expected| store.chunks(after, expected)), request))
    }

    fn count(&self, request: ListRequest, _: Precision) -> BoxFuture<'_, Result<Option<CountResult>>> {
        match self.count.as_ref().filter(|_| request.filter.is_empty()) {
            Some(count) => Box::pin(ready(Ok(Some(CountResult::exact(count.load(Ordering::Relaxed)))))),
            None => Box::pin(count_listed(self, request)),
        }
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        self.blocking(move |store| {
            // Single inserts: a sled batch keeps every page that it touches in memory, beyond the cache size.
            for document in documents {
                store.put(document)?;
            }
            store.flush_blocking()
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(|store| store.records.first().map(drop).map_err(|error| store.failed("read", error)))
    }
}

impl EmbeddedStore for Sled {
    fn put(&self, document: Document) -> Result<Option<usize>> {
        let put = self.records.insert(document.key().as_bytes(), document.bson().as_ref());
        let old = put.map_err(|error| self.failed("write", error))?;
        if let Some(count) = self.count.as_ref().filter(|_| old.is_none()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(old.map(|old| old.len()))
    }

    fn remove(&self, key: &Key) -> Result<Option<usize>> {
        let removed = self.records.remove(key.as_bytes()).map_err(|error| self.failed("write", error))?;
        if let Some(count) = self.count.as_ref().filter(|_| removed.is_some()) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(removed.map(|old| old.len()))
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(Self::flush_blocking)
    }

    fn is_empty(&self) -> Result<bool> {
        self.records.first().map(|first| first.is_none()).map_err(|error| self.failed("read", error))
    }

    fn loading(&self) -> Result<Option<String>> {
        let note = self.metadata.get(IMPORT_IN_PROGRESS).map_err(|error| self.failed("read", error))?;
        Ok(note.map(|what| String::from_utf8_lossy(&what).into_owned()))
    }

    fn set_loading(&self, what: Option<&str>) -> BoxFuture<'_, Result<()>> {
        let what = what.map(str::to_owned);
        self.blocking(move |store| {
            // The metadata shares the log of the records, so its order relative to their writes survives a crash.
            let written = match what {
                Some(what) => store.metadata.insert(IMPORT_IN_PROGRESS, what.as_bytes()),
                None => store.metadata.remove(IMPORT_IN_PROGRESS),
            };
            written.map_err(|error| store.failed("write", error))?;
            store.flush_blocking()
        })
    }
}

impl fmt::Debug for Sled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sled store in {}", self.directory)
    }
}
