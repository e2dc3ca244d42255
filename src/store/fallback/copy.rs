//! The copy as readers see it: one generation, whole, or none.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::StreamExt;
use tokio::time::Instant;

use super::super::{Change, EmbeddedStore, Error, GetResult, Kind, ListRequest, ListResult, Result};
use crate::record::{Document, Key, RecordId};

/// The bytes that count for each record in addition to its BSON: its key, and its places in the indexes.
pub const RECORD_BYTES: u64 = 150;

/// A copy with more than this is freed where blocking is allowed: it takes a while.
const MANY_RECORDS: u64 = 10_000;

/// Why the copy does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    Incomplete,
    TooLarge,
    TooOld,
}

/// What the keeper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Keeping {
    /// Nothing yet, or it cannot.
    Interrupted,
    /// Follows the feed of changes.
    Following,
    /// Copies anew from time to time.
    Refreshing,
    /// Has given up until the primary holds less.
    TooLarge,
}

/// The store of one copy, from its first record on.
pub struct Generation {
    /// There until it is dropped.
    store: Option<Arc<dyn EmbeddedStore>>,
    /// Where it lives, if that is on a disk.
    directory: Option<PathBuf>,
    retired: AtomicBool,
    /// Milliseconds from the copy's epoch.
    current: AtomicI64,
    records: AtomicU64,
    bytes: AtomicU64,
    /// It could not be written or read: from then on a store on disk may say the same of every call.
    failed: AtomicBool,
}

pub struct Copy {
    /// Times are counted from here, in milliseconds.
    epoch: Instant,
    max_age: Option<Duration>,
    served: RwLock<std::result::Result<Arc<Generation>, Off>>,
    keeping: AtomicU8,
    too_old: AtomicBool,
    pub answers: AtomicU64,
    pub snapshots: AtomicU64,
    pub interruptions: AtomicU64,
}

impl Generation {
    /// What `store` holds is counted from here. `directory` is where it lives.
    pub fn new(store: Arc<dyn EmbeddedStore>, directory: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self {
            store: Some(store),
            directory,
            retired: AtomicBool::new(false),
            current: AtomicI64::new(i64::MIN),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        })
    }

    pub fn store(&self) -> Result<&dyn EmbeddedStore> {
        self.store.as_deref().ok_or_else(|| Error::broken("a copy is gone"))
    }

    /// Applies changes, in their order.
    pub fn make(&self, changes: &[Change]) -> Result<()> {
        // All bytes before all documents, so that these lie close to each other, as the memory store has it.
        let own: Vec<_> = changes.iter().map(|change| self.own(change)).collect();
        for (change, own) in changes.iter().zip(own) {
            match (change, own) {
                (Change::Put(document), Some(bson)) => self.put(Document::with_key(document.key().clone(), bson))?,
                (Change::Put(document), None) => self.put(document.clone())?,
                (Change::Remove(key), _) => self.remove(key)?,
            }
        }
        Ok(())
    }

    /// The bytes of a document that is kept in memory as it is: the primary may have cut it out of a batch, all of which it would
    /// keep there, and the size of the copy would be that of the batches.
    fn own(&self, change: &Change) -> Option<Bytes> {
        match change {
            Change::Put(document) if self.directory.is_none() => Some(Bytes::copy_from_slice(document.bson())),
            _ => None,
        }
    }

    fn put(&self, document: Document) -> Result<()> {
        let length = document.bson().len() as u64;
        let before = self.store()?.put(document)?;
        self.bytes.fetch_add(length, Ordering::Relaxed);
        match before {
            Some(before) => self.bytes.fetch_sub(before as u64, Ordering::Relaxed),
            None => self.records.fetch_add(1, Ordering::Relaxed),
        };
        Ok(())
    }

    fn remove(&self, key: &Key) -> Result<()> {
        if let Some(before) = self.store()?.remove(key)? {
            self.bytes.fetch_sub(before as u64, Ordering::Relaxed);
            self.records.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What it holds, counted afterwards.
    pub fn counted(&self, records: u64, bytes: u64) {
        self.records.store(records, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// As the limit counts.
    pub fn size(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) + self.records() * RECORD_BYTES
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// From now on it is only asked where nobody else answers.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Says it once.
    fn cannot_be_read(&self, error: &Error) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            tracing::error!(cause = %error.report(), "the copy cannot be read");
        }
    }

    /// Where it lives, if it outlives the process.
    pub fn directory(&self) -> Option<PathBuf> {
        self.directory.clone()
    }

    /// What is behind it goes when the last reader has gone.
    pub fn discard(self: Arc<Self>) {
        self.retired.store(true, Ordering::Relaxed);
        if self.has_failed() && self.directory.is_some() {
            // Before it is closed, for which a store that could not write may wait for ever.
            tokio::task::spawn_blocking(move || self.directory.as_deref().map(super::home::empty));
        }
    }
}

impl Drop for Generation {
    /// Whoever read it last is the one who drops it, and may be a connection that others share a thread with.
    fn drop(&mut self) {
        // One that is still served ends with the process, or is opened again at once.
        if !self.retired.load(Ordering::Relaxed) {
            return;
        }
        let (store, directory) = (self.store.take(), self.directory.take());
        if directory.is_none() && self.records() <= MANY_RECORDS {
            return;
        }
        let end = move || {
            // Closing a store waits for the disk, freeing a large one takes its time.
            drop(store);
            let Some(directory) = directory else { return };
            if let Err(error) = super::home::remove(&directory)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "cannot remove the old copy in {}", directory.display());
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}

impl Copy {
    pub fn new(max_age: Option<Duration>) -> Self {
        Self {
            epoch: Instant::now(),
            max_age,
            served: RwLock::new(Err(Off::Incomplete)),
            keeping: AtomicU8::new(Keeping::Interrupted as u8),
            too_old: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
            interruptions: AtomicU64::new(0),
        }
    }

    fn millis(&self, at: Instant) -> i64 {
        match at.checked_duration_since(self.epoch) {
            Some(since) => since.as_millis() as i64,
            // Rounded down too.
            None => -(self.epoch.duration_since(at).as_millis() as i64) - 1,
        }
    }

    /// `generation` is known to be what the primary was at `current`, or newer.
    pub fn proven(&self, generation: &Generation, current: Instant) {
        generation.current.fetch_max(self.millis(current), Ordering::Relaxed);
    }

    /// As [`proven`](Self::proven), for what may be before this process.
    pub fn proven_ago(&self, generation: &Generation, ago: Duration) {
        let current = self.millis(Instant::now()) - ago.as_millis() as i64 - 1;
        generation.current.fetch_max(current, Ordering::Relaxed);
    }

    /// The age of `generation`.
    pub fn age_of(&self, generation: &Generation) -> Duration {
        let current = generation.current.load(Ordering::Relaxed);
        Duration::from_millis(u64::try_from(self.millis(Instant::now()).saturating_sub(current)).unwrap_or_default())
    }

    /// From now on `generation` is read, or nothing is.
    pub fn serve(&self, generation: std::result::Result<Arc<Generation>, Off>) {
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *served, generation);
        drop(served);
        if let Ok(before) = before {
            before.discard();
        }
    }

    pub fn served(&self) -> std::result::Result<Arc<Generation>, Off> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn keeping(&self) -> Keeping {
        match self.keeping.load(Ordering::Relaxed) {
            1 => Keeping::Following,
            2 => Keeping::Refreshing,
            3 => Keeping::TooLarge,
            _ => Keeping::Interrupted,
        }
    }

    /// Returns what it was before.
    pub fn set_keeping(&self, keeping: Keeping) -> Keeping {
        let before = self.keeping();
        self.keeping.store(keeping as u8, Ordering::Relaxed);
        before
    }

    pub fn is_kept(&self) -> bool {
        matches!(self.keeping(), Keeping::Following | Keeping::Refreshing)
    }

    /// The age at which an answer would be given.
    pub fn age(&self) -> std::result::Result<Duration, Off> {
        self.allowed(self.age_of(&*self.served()?))
    }

    fn allowed(&self, age: Duration) -> std::result::Result<Duration, Off> {
        let too_old = self.max_age.is_some_and(|max| age > max);
        if too_old != self.too_old.load(Ordering::Relaxed) && too_old != self.too_old.swap(too_old, Ordering::Relaxed) {
            match too_old {
                true => tracing::warn!(age_s = age.as_secs(), "the copy is older than allowed: it does not answer"),
                false => tracing::info!(age_s = age.as_secs(), "the copy is as young as it must be again"),
            }
        }
        if too_old { Err(Off::TooOld) } else { Ok(age) }
    }

    /// `None` when the copy cannot answer. `well`: nor when it has failed before.
    pub fn get(&self, id: &RecordId, well: bool) -> Option<GetResult> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        let generation = served.as_ref().ok().filter(|generation| !(well && generation.has_failed()))?;
        // Before the record is read: it may become younger meanwhile, and then this says too much, not too little.
        let age = self.allowed(self.age_of(generation)).ok()?;
        // An embedded store answers at once.
        match generation.store().ok()?.try_get(id)? {
            Ok(found) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                Some(GetResult { staleness: Some(age), ..found })
            }
            Err(error) => {
                generation.cannot_be_read(&error);
                None
            }
        }
    }

    /// `None` when the copy cannot answer, by its first row. `well`: nor when it has failed before.
    ///
    /// # Errors
    ///
    /// When the request is to blame, which the primary would say too.
    pub async fn list(&self, request: ListRequest, well: bool) -> Option<Result<ListResult>> {
        let generation = self.served().ok().filter(|generation| !(well && generation.has_failed()))?;
        let age = self.allowed(self.age_of(&generation)).ok()?;
        let list = match generation.store().ok()?.list(request).await {
            Ok(list) => list,
            Err(error) if error.kind() == Kind::Invalid => return Some(Err(error)),
            Err(error) => {
                generation.cannot_be_read(&error);
                return None;
            }
        };
        self.answers.fetch_add(1, Ordering::Relaxed);
        // Held as long as it is read: its directory stays. After the list it is dropped, and so the last to have the store.
        let rows = list.rows.inspect(move |row| {
            if let Err(error) = row {
                generation.cannot_be_read(error);
            }
        });
        Some(Ok(ListResult { rows: rows.boxed(), staleness: Some(age), no_arrays: false }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::future::{BoxFuture, ready};

    use super::super::super::{Opened, Store};
    use super::*;
    use crate::document::extended_json;

    async fn memory() -> Arc<dyn EmbeddedStore> {
        match crate::store::open("memory:", Default::default()).await.expect("a store") {
            Opened::Embedded(store) => store,
            Opened::Remote(_) => panic!("it is in this process"),
        }
    }

    #[test]
    fn what_a_list_was_the_last_to_read_is_not_freed_by_the_task_that_reads() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            let store = memory().await;
            let left = Arc::downgrade(&store);
            let generation = Generation::new(store, None);
            let put = |id| {
                let text = format!(r#"{{"_id":{id}}}"#);
                Change::Put(extended_json::parse(text.as_bytes()).expect("a document"))
            };
            generation.make(&(0..=MANY_RECORDS as i64).map(put).collect::<Vec<_>>()).expect("changes");
            let copy = Copy::new(None);
            copy.serve(Ok(generation));
            let mut list = copy.list(ListRequest::default(), false).await.expect("an answer").expect("a list");
            assert!(list.rows.next().await.is_some_and(|first| first.is_ok()));
            copy.serve(Err(Off::Incomplete));
            // While the only thread for it has other things to do.
            let (go_on, wait) = mpsc::channel();
            let busy = tokio::task::spawn_blocking(move || wait.recv());
            drop(list);
            assert!(left.upgrade().is_some(), "it was freed in place");
            go_on.send(()).expect("a thread");
            busy.await.expect("no panic").expect("a word");
            tokio::task::spawn_blocking(|| ()).await.expect("no panic");
            assert!(left.upgrade().is_none());
        });
    }

    /// A store whose disk says the same of every call.
    #[derive(Debug)]
    struct Full;

    fn full<T>() -> Result<T> {
        Err(Error::unavailable("the disk is full"))
    }

    impl Store for Full {
        fn get<'a>(&'a self, _: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
            Box::pin(ready(full()))
        }

        fn try_get(&self, _: &RecordId) -> Option<Result<GetResult>> {
            Some(full())
        }

        fn list(&self, _: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
            Box::pin(ready(full()))
        }

        fn upsert(&self, _: Vec<Document>) -> BoxFuture<'_, Result<()>> {
            Box::pin(ready(full()))
        }

        fn ping(&self) -> BoxFuture<'_, Result<()>> {
            Box::pin(ready(full()))
        }
    }

    impl EmbeddedStore for Full {
        fn put(&self, _: Document) -> Result<Option<usize>> {
            full()
        }

        fn remove(&self, _: &Key) -> Result<Option<usize>> {
            full()
        }

        fn flush(&self) -> BoxFuture<'_, Result<()>> {
            Box::pin(ready(full()))
        }

        fn is_empty(&self) -> Result<bool> {
            full()
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_no_answer_and_is_known_to_have_failed() {
        for list in [true, false] {
            let copy = Copy::new(None);
            let generation = Generation::new(Arc::new(Full), None);
            copy.serve(Ok(generation.clone()));
            assert!(!generation.has_failed());
            match list {
                true => assert!(copy.list(ListRequest::default(), true).await.is_none()),
                false => assert!(copy.get(&"1".into(), true).is_none()),
            }
            assert!(generation.has_failed());
        }
    }

    #[tokio::test]
    async fn what_has_failed_is_asked_only_where_nobody_else_answers() {
        let copy = Copy::new(None);
        let generation = Generation::new(memory().await, None);
        copy.serve(Ok(generation.clone()));
        for (failed, well, answers) in [(false, true, true), (true, true, false), (true, false, true)] {
            if failed {
                generation.fail();
            }
            assert_eq!(copy.get(&"1".into(), well).is_some(), answers);
            assert_eq!(copy.list(ListRequest::default(), well).await.is_some(), answers);
        }
    }
}
