//! Records in a directory of this machine, by [sled](https://docs.rs/sled/0.34): survives a restart, needs no server.
//!
//! The database maps the bytes of a [`Key`], which sort as MongoDB sorts ids, to the document's BSON. Next to it, [`directory`]
//! keeps the files `FORMAT` and `LOCK`.
//!
//! sled 0.34 takes a damaged log for one that ends where the damage begins, and opens with what came before: it would
//! serve an empty store without a word. So every flush is sealed: a number goes up in the database and then in `FORMAT`,
//! and a database that opens with a lower number than `FORMAT` has lost what was acknowledged.
//!
//! By then sled has already "repaired" the file. So it is opened with a copy beside it, which goes when all is well and
//! comes back when not: a damaged store is left as it was found. That doubles the disk space for a moment, and takes the
//! time of a copy where the file system cannot share blocks.
//!
//! A cache for everything is worth its memory, which is 390 MB for a million records of 250 bytes: with 16 or 128 MB a
//! lookup among them unpacks its page anew, which takes more than five times as long, and the first list grows the process
//! by 110 MB all the same, since sled keeps more than a cache. What keeps lists from growing it is that opening the store
//! reads through it once.
//!
//! Reads answer on the calling task: they find their page in sled's cache or in the system's, and a hop to a blocking
//! thread would cost several times as much. What waits for the disk (opening, writing, flushing) and what reads much
//! (lists) leaves the async threads.

mod directory;

use std::fmt;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use sled::{Db, IVec, Tree};

use super::{
    CHUNK_BYTES, CHUNK_DOCUMENTS, ChunkStream, EmbeddedStore, Error, GetResult, ListRequest, ListResult, Opened,
    Options, Result, Store, execute,
};
use crate::record::{Document, Key, RecordId};
use directory::Directory;

/// A longer document shares the memory of sled's cache: many readers of a document of 15 MB hold it once.
const SHARED_BYTES: usize = 64 * 1024;

/// How long to wait for the lock: sled gives it up a moment after the store is dropped, so a quick restart may meet
/// its own predecessor.
const LOCK_PATIENCE: Duration = Duration::from_millis(1_500);

/// Beside the records, in a tree of its own: what the store knows about itself. The seal was there first.
const NOTES_TREE: &str = "seal";
const SEAL: &str = "seal";
const LOADING: &str = "loading";

#[derive(Clone)]
pub struct Sled {
    directory: Arc<Directory>,
    db: Db,
    // The default tree of `db`, named once: `Db` would look it up at every call.
    records: Tree,
    notes: Tree,
    /// The number of the last flush. Locked while one is under way: their order in the file is their order on the disk.
    seal: Arc<Mutex<u64>>,
}

pub async fn open(url: String, options: Options) -> Result<Opened> {
    let directory = super::directory(&url)?;
    let at = directory.display().to_string();
    let open = tokio::task::spawn_blocking(move || Sled::open(directory, options.cache_bytes)).await;
    let open = open
        .unwrap_or_else(|panic| Err(Error::broken(format!("cannot open the sled store in {at}")).with_source(panic)));
    Ok(Opened::Embedded(Arc::new(open?)))
}

/// Makes no directory, and leaves one that is there unlocked.
pub async fn check(url: String) -> Result<()> {
    directory::refuse_others(&super::directory(&url)?)
}

/// A copy of a short value: a response may live long, and would keep more alive than the document.
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
        let (directory, sealed) = Directory::take(path)?;
        let directory = Arc::new(directory);
        directory.guard(|| {
            // sled 0.34 may panic on a damaged file where it should return an error.
            catch_unwind(AssertUnwindSafe(|| Self::open_database(directory.clone(), sealed, cache_bytes)))
                .unwrap_or_else(|_| Err(damaged(&directory).with_source("sled panicked")))
        })
    }

    fn open_database(directory: Arc<Directory>, sealed: u64, cache_bytes: u64) -> Result<Self> {
        if sealed > 0 && !directory.database().join("db").is_file() {
            // sled would make a new one.
            return Err(damaged(&directory).with_source("its file sled/db is missing"));
        }
        let db = open_database(&directory, cache_bytes)?;
        let notes = db.open_tree(NOTES_TREE).map_err(|error| damaged(&directory).with_source(error))?;
        let records = Tree::clone(&db);
        let store = Self { directory, db, records, notes, seal: Arc::new(Mutex::new(sealed)) };
        store.check(sealed, cache_bytes)?;
        Ok(store)
    }

    /// Whether this is all that was acknowledged, and ours.
    fn check(&self, sealed: u64, cache_bytes: u64) -> Result<()> {
        let found = self.notes.get(SEAL).map_err(|error| self.failed("read", error))?;
        let found = found.and_then(|seal| seal.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes);
        if found < sealed {
            let lost = format!("what was written since its flush {found} of {sealed} is lost");
            return Err(damaged(&self.directory).with_source(lost));
        }
        // As much as the cache holds is read through: what is damaged shows now rather than to a client, and the memory
        // is taken now rather than by the first list.
        let mut bytes = 0;
        for entry in self.records.iter() {
            let (key, bson) = entry.map_err(|error| self.failed("read", error))?;
            bytes += key.len() as u64 + bson.len() as u64;
            self.document(&key, bson.to_vec())?;
            if bytes > cache_bytes {
                break;
            }
        }
        if let Some((key, bson)) = self.records.last().map_err(|error| self.failed("read", error))? {
            self.document(&key, bson.to_vec())?;
        }
        Ok(())
    }

    fn failed(&self, what: &str, error: sled::Error) -> Error {
        let at = &self.directory;
        match error {
            sled::Error::Corruption { .. } => damaged(&self.directory).with_source(error),
            // A full disk may be made room on; nothing that was acknowledged is lost by it.
            sled::Error::Io(_) => {
                Error::unavailable(format!("cannot {what} the sled store in {at}")).with_source(error)
            }
            _ => Error::broken(format!("cannot {what} the sled store in {at}")).with_source(error),
        }
    }

    /// A document that was read, checked against its key.
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

    /// The next documents after `after`, and where to go on, if there may be more.
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

    /// Runs `work` where blocking is allowed. It goes on if the caller goes away.
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
        // A number that was not written down is used again, which is as good.
        let mut seal = self.seal.lock().unwrap_or_else(PoisonError::into_inner);
        let next = *seal + 1;
        let written = self.notes.insert(SEAL, &next.to_be_bytes()).and_then(|_| self.db.flush());
        written.map_err(|error| self.failed("write", error))?;
        self.directory.seal(next).map_err(|error| self.failed("write", error.into()))?;
        *seal = next;
        Ok(())
    }
}

fn open_database(directory: &Directory, cache_bytes: u64) -> Result<Db> {
    let begin = Instant::now();
    loop {
        match sled::Config::new().path(directory.database()).cache_capacity(cache_bytes).open() {
            Ok(db) => return Ok(db),
            // A store that was dropped in this process a moment ago. sled reports a taken lock as any I/O error, with
            // these words.
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

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        self.blocking(move |store| {
            // One by one: a batch of sled's keeps every page that it touches in memory, whatever the cache may take.
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
        Ok(put.map_err(|error| self.failed("write", error))?.map(|old| old.len()))
    }

    fn remove(&self, key: &Key) -> Result<Option<usize>> {
        let removed = self.records.remove(key.as_bytes()).map_err(|error| self.failed("write", error))?;
        Ok(removed.map(|old| old.len()))
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(Self::flush_blocking)
    }

    fn is_empty(&self) -> Result<bool> {
        self.records.first().map(|first| first.is_none()).map_err(|error| self.failed("read", error))
    }

    fn loading(&self) -> Result<Option<String>> {
        let note = self.notes.get(LOADING).map_err(|error| self.failed("read", error))?;
        Ok(note.map(|what| String::from_utf8_lossy(&what).into_owned()))
    }

    fn set_loading(&self, what: Option<&str>) -> BoxFuture<'_, Result<()>> {
        let what = what.map(str::to_owned);
        self.blocking(move |store| {
            // In the same log as the records, so before all that follows it, and behind all that it follows.
            let noted = match what {
                Some(what) => store.notes.insert(LOADING, what.as_bytes()),
                None => store.notes.remove(LOADING),
            };
            noted.map_err(|error| store.failed("write", error))?;
            store.flush_blocking()
        })
    }
}

impl fmt::Debug for Sled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sled store in {}", self.directory)
    }
}
