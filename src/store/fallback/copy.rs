//! The copy as readers see it: one generation, whole, or none.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use tokio::time::Instant;

use super::super::{Change, EmbeddedStore, Error, Found, Query, RecordStream, Result, Store};
use crate::record::{Key, Record, RecordId};

/// What a record takes beside its JSON, in bytes, as far as the limit of the copy is concerned: its key, and its places in
/// the indexes.
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
    store: Option<Arc<dyn Store>>,
    /// Where it lives, if that is on a disk.
    directory: Option<PathBuf>,
    retired: AtomicBool,
    /// Milliseconds from the copy's epoch.
    current: AtomicI64,
    records: AtomicU64,
    bytes: AtomicU64,
    /// It could not be written or read: from then on a store on disk may say the same of every call.
    failed: AtomicBool,
    /// It holds, or has held, an id that the primary has in another order.
    opaque: AtomicBool,
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
    /// `store` must be an embedded one; what it holds is counted from here. `directory` is where it lives.
    pub fn new(store: Arc<dyn Store>, directory: Option<PathBuf>) -> Result<Arc<Self>> {
        if store.as_embedded().is_none() {
            return Err(Error::invalid("a copy must be in this process: memory:, or sled:DIRECTORY"));
        }
        let (records, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let current = AtomicI64::new(i64::MIN);
        let (failed, opaque, retired) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        Ok(Arc::new(Self { store: Some(store), directory, retired, current, records, bytes, failed, opaque }))
    }

    fn store(&self) -> Result<&dyn Store> {
        self.store.as_deref().ok_or_else(|| Error::broken("a copy is gone"))
    }

    pub fn embedded(&self) -> Result<&dyn EmbeddedStore> {
        self.store()?.as_embedded().ok_or_else(|| Error::broken("a copy is not embedded"))
    }

    /// Makes changes, in their order.
    pub fn make(&self, changes: &[Change]) -> Result<()> {
        // All JSON before all records, so that these lie close to each other, as the memory store has it.
        let own: Vec<_> = changes.iter().map(|change| self.own(change)).collect();
        for (change, own) in changes.iter().zip(own) {
            match (change, own) {
                (Change::Put(record), Some(json)) => self.put(Record::new(record.key().clone(), json))?,
                (Change::Put(record), None) => self.put(record.clone())?,
                (Change::Remove(key), _) => self.remove(key)?,
            }
        }
        Ok(())
    }

    /// The JSON of what is put, if it is kept in memory as it is: a store may have cut it out of a batch, all of which it would
    /// keep there with it, and the size of the copy would be that of the batches.
    fn own(&self, change: &Change) -> Option<Bytes> {
        match change {
            Change::Put(record) if self.directory.is_none() => Some(Bytes::copy_from_slice(record.json())),
            _ => None,
        }
    }

    fn put(&self, record: Record) -> Result<()> {
        let length = record.json().len() as u64;
        // Before it can be read.
        self.saw(record.key());
        let before = self.embedded()?.put(record)?;
        self.bytes.fetch_add(length, Ordering::Relaxed);
        match before {
            Some(before) => self.bytes.fetch_sub(before as u64, Ordering::Relaxed),
            None => self.records.fetch_add(1, Ordering::Relaxed),
        };
        Ok(())
    }

    fn remove(&self, key: &Key) -> Result<()> {
        if let Some(before) = self.embedded()?.remove(key)? {
            self.bytes.fetch_sub(before as u64, Ordering::Relaxed);
            self.records.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    pub fn saw(&self, key: &Key) {
        if matches!(key, Key::Opaque { .. }) {
            self.opaque.store(true, Ordering::Relaxed);
        }
    }

    /// Whether this can give the list, or the part of it: the next part may be asked of the primary, or this one may begin behind
    /// what the primary gave. Where the two orders are not the same, that would leave records out.
    fn is_in_order_for(&self, query: &Query) -> bool {
        let part = query.after.is_some() || query.limit.is_some();
        !(part && query.order.is_none() && self.opaque.load(Ordering::Relaxed))
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
    pub fn get(&self, id: &RecordId, well: bool) -> Option<Found> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        let generation = served.as_ref().ok().filter(|generation| !(well && generation.has_failed()))?;
        // Before the record is read: it may become younger meanwhile, and then this says too much, not too little.
        let age = self.allowed(self.age_of(generation)).ok()?;
        // An embedded store answers at once.
        match generation.store().ok()?.get(id).now_or_never()? {
            Ok(found) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                Some(Found { age: Some(age), ..found })
            }
            Err(error) => {
                generation.cannot_be_read(&error);
                None
            }
        }
    }

    /// `None` when the copy cannot answer, by its first record. `well`: nor when it has failed before.
    pub async fn list(&self, query: Query, well: bool) -> Option<(RecordStream, Duration)> {
        let generation = self.served().ok().filter(|generation| !(well && generation.has_failed()))?;
        let age = self.allowed(self.age_of(&generation)).ok()?;
        if !generation.is_in_order_for(&query) {
            return None;
        }
        // Held as long as it is read: its directory stays. Behind the list it is dropped, and so the last to have the store.
        let mut records = generation.store().ok()?.list(query).inspect(move |record| {
            if let Err(error) = record {
                generation.cannot_be_read(error);
            }
        });
        let first = records.next().await.transpose().ok()?;
        self.answers.fetch_add(1, Ordering::Relaxed);
        let records = match first {
            Some(first) => stream::iter([Ok(first)]).chain(records).boxed(),
            // A stream that has ended is not asked again.
            None => stream::empty().boxed(),
        };
        Some((records, age))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::future::{BoxFuture, ready};

    use super::super::super::{Listing, Reply};
    use super::*;
    use crate::document::Document;

    #[test]
    fn what_a_list_was_the_last_to_read_is_not_freed_by_the_task_that_reads() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            let store = crate::store::open("memory:", Default::default()).await.expect("a store");
            let left = Arc::downgrade(&store);
            let generation = Generation::new(store, None).expect("an embedded store");
            let put = |id| Change::Put(Record::new(Key::Integer(id), format!(r#"{{"_id":{id}}}"#).into_bytes()));
            generation.make(&(0..=MANY_RECORDS as i64).map(put).collect::<Vec<_>>()).expect("changes");
            let copy = Copy::new(None);
            copy.serve(Ok(generation));
            let (mut list, _) = copy.list(Query::all(), false).await.expect("a list");
            assert!(list.next().await.is_some_and(|first| first.is_ok()));
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
        fn get<'a>(&'a self, _: &'a RecordId) -> Reply<'a, Found> {
            Reply::ready(full())
        }

        fn list(&self, _: Query) -> Listing {
            stream::iter([full()]).boxed().into()
        }

        fn upsert(&self, _: Vec<Document>) -> BoxFuture<'_, Result<()>> {
            Box::pin(ready(full()))
        }

        fn ping(&self) -> BoxFuture<'_, Result<()>> {
            Box::pin(ready(full()))
        }

        fn as_embedded(&self) -> Option<&dyn EmbeddedStore> {
            Some(self)
        }
    }

    impl EmbeddedStore for Full {
        fn put(&self, _: Record) -> Result<Option<usize>> {
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
            let generation = Generation::new(Arc::new(Full), None).expect("an embedded store");
            copy.serve(Ok(generation.clone()));
            assert!(!generation.has_failed());
            match list {
                true => assert!(copy.list(Query::all(), true).await.is_none()),
                false => assert!(copy.get(&"1".into(), true).is_none()),
            }
            assert!(generation.has_failed());
        }
    }

    #[tokio::test]
    async fn what_has_failed_is_asked_only_where_nobody_else_answers() {
        let copy = Copy::new(None);
        let store = super::super::super::open("memory:", Default::default()).await.expect("a store");
        let generation = Generation::new(store, None).expect("an embedded store");
        copy.serve(Ok(generation.clone()));
        for (failed, well, answers) in [(false, true, true), (true, true, false), (true, false, true)] {
            if failed {
                generation.fail();
            }
            assert_eq!(copy.get(&"1".into(), well).is_some(), answers);
            assert_eq!(copy.list(Query::all(), well).await.is_some(), answers);
        }
    }
}
