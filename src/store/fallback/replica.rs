//! The replica as readers see it: one complete snapshot with the changes since, or none.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::super::{
    AuditReport, Change, ClusterTime, CountResult, EmbeddedStore, Error, Freshness, GetResult, Kind, ListRequest,
    ListResult, Precision, Result, ResumeToken,
};
use super::scan_turn::ScanTurn;
use super::snapshot_dir::SnapshotDir;
use crate::record::{Document, Key, RecordId};

/// The bytes that are counted for each record in addition to its BSON: its key and its index entries.
pub const RECORD_BYTES: u64 = 150;

/// A snapshot with more records than this is freed on a blocking thread, since that takes a while.
const MANY_RECORDS: u64 = 10_000;

/// The most keys that are recorded during an audit.
const MAX_TOUCHED: usize = 100_000;

/// The reason why the replica does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    Incomplete,
    TooLarge,
    TooOld,
}

/// The conditions under which the replica answers a read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// Excludes a replica that has failed.
    pub only_healthy: bool,
    /// The greatest staleness. `Some(ZERO)` excludes the replica; `None` accepts any age that the operator allows.
    pub max_staleness: Option<Duration>,
    pub not_before: Option<ClusterTime>,
}

/// The state of the replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SyncState {
    /// The replication has not started yet, or is failing.
    Interrupted,
    /// Follows the change stream.
    Following,
    /// Takes a new snapshot from time to time.
    Refreshing,
    /// The replication is stopped until the primary holds less.
    TooLarge,
}

/// The store of one snapshot, complete or being filled, and its counts.
pub struct Snapshot {
    /// `Some` until it is dropped.
    store: Option<Arc<dyn EmbeddedStore>>,
    /// The directory of a store on a disk.
    directory: Option<SnapshotDir>,
    is_retired: AtomicBool,
    /// Milliseconds from the replica's epoch.
    current: AtomicI64,
    /// The bits of the [`ClusterTime`] up to which it has every write; 0 if that is unknown.
    as_of: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    /// True once a write or a read has failed: a store on disk may then fail every call.
    has_failed: AtomicBool,
    origin: Mutex<SnapshotOrigin>,
    /// The records that an audit has found to differ from the primary.
    differences: AtomicU64,
    /// The keys of the changes since an audit has begun.
    touched: Mutex<Option<HashSet<Key>>>,
}

/// Records the changes of a snapshot until it is dropped.
pub struct TouchedKeys(Arc<Snapshot>);

impl TouchedKeys {
    /// Returns `None` if there were too many.
    pub fn keys(&self) -> Option<HashSet<Key>> {
        self.0.touched().clone()
    }
}

impl Drop for TouchedKeys {
    fn drop(&mut self) {
        *self.0.touched() = None;
    }
}

/// The collection that a snapshot is a copy of, and the position of the copy.
#[derive(Clone, Debug, Default)]
pub struct SnapshotOrigin {
    /// The identity of the collection, if it is known.
    pub identity: Option<String>,
    /// The snapshot has all changes before this position.
    pub token: Option<ResumeToken>,
}

pub struct Replica {
    /// Times are counted from here, in milliseconds.
    epoch: Instant,
    max_age: Option<Duration>,
    served: RwLock<std::result::Result<Arc<Snapshot>, Unusable>>,
    sync_state: AtomicU8,
    is_too_old: AtomicBool,
    /// The served snapshot is current as of a later time, or has writes up to a later one, than before.
    progressed: Notify,
    pub answers: AtomicU64,
    pub snapshots: AtomicU64,
    pub interruptions: AtomicU64,
    pub bootstraps: AtomicU64,
    pub saves: AtomicU64,
    pub scan_turn: Arc<ScanTurn>,
    pub audits_equal: AtomicU64,
    pub audits_different: AtomicU64,
    pub audits_abandoned: AtomicU64,
    pub audited_records: AtomicU64,
    /// The last report, and the last one with differences.
    audits: Mutex<[Option<AuditReport>; 2]>,
}

impl Snapshot {
    /// Counts what `store` holds from now on.
    pub fn new(store: Arc<dyn EmbeddedStore>, directory: Option<SnapshotDir>) -> Arc<Self> {
        Arc::new(Self {
            store: Some(store),
            directory,
            is_retired: AtomicBool::new(false),
            current: AtomicI64::new(i64::MIN),
            as_of: AtomicU64::new(0),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            origin: Mutex::default(),
            differences: AtomicU64::new(0),
            touched: Mutex::new(None),
        })
    }

    pub fn store(&self) -> Result<&dyn EmbeddedStore> {
        self.store.as_deref().ok_or_else(|| Error::broken("the snapshot of the fallback replica was closed"))
    }

    /// Applies changes, in their order.
    pub fn apply(&self, changes: &[Change]) -> Result<()> {
        let mut touched = self.touched();
        if let Some(keys) = &mut *touched {
            keys.extend(changes.iter().map(|change| change.key().clone()));
        }
        // The audit is given up.
        drop(touched.take_if(|keys| keys.len() > MAX_TOUCHED));
        drop(touched);
        // All bytes before all documents, so that these lie close to each other, as the memory store has it.
        let own: Vec<_> = changes.iter().map(|change| self.own_bytes(change)).collect();
        for (change, own) in changes.iter().zip(own) {
            match (change, own) {
                (Change::Put(document), Some(bson)) => self.put(Document::with_key(document.key().clone(), bson))?,
                (Change::Put(document), None) => self.put(document.clone())?,
                (Change::Remove(key), _) => self.remove(key)?,
            }
        }
        Ok(())
    }

    /// Copies the bytes of a document that stays in memory. A slice of the primary's batch would keep the whole batch.
    fn own_bytes(&self, change: &Change) -> Option<Bytes> {
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

    /// Sets the counts of a store that was opened with records in it.
    pub fn set_counts(&self, records: u64, bytes: u64) {
        self.records.store(records, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// The size as the limit counts it.
    pub fn size(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) + self.records() * RECORD_BYTES
    }

    /// The time up to which the snapshot has every write.
    pub fn as_of(&self) -> Option<ClusterTime> {
        ClusterTime::new(self.as_of.load(Ordering::Relaxed))
    }

    fn touched(&self) -> MutexGuard<'_, Option<HashSet<Key>>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the keys of all changes from now on, each before it is applied.
    pub fn record_touched(self: &Arc<Self>) -> TouchedKeys {
        *self.touched() = Some(HashSet::new());
        TouchedKeys(self.clone())
    }

    /// The records that are known to differ from the primary.
    pub fn differences(&self) -> u64 {
        self.differences.load(Ordering::Relaxed)
    }

    /// Returns false if the snapshot is only read where the primary does not answer.
    pub fn is_healthy(&self) -> bool {
        !self.has_failed() && self.differences() == 0
    }

    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Restricts the snapshot to requests that the primary does not answer.
    pub fn mark_failed(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }

    pub fn origin(&self) -> SnapshotOrigin {
        self.origin.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_identity(&self, identity: Option<String>) {
        self.origin.lock().unwrap_or_else(PoisonError::into_inner).identity = identity;
    }

    pub fn set_token(&self, token: Option<ResumeToken>) {
        self.origin.lock().unwrap_or_else(PoisonError::into_inner).token = token;
    }

    /// Lists records. An error of the store, then or among the rows, marks the snapshot as failed.
    pub async fn list(self: &Arc<Self>, request: ListRequest) -> Result<ListResult> {
        let list = self.store()?.list(request).await;
        let list = list.inspect_err(|error| match error.kind() {
            Kind::Invalid => {}
            _ => self.record_read_error(error),
        })?;
        // The rows hold the snapshot, and so its directory. They drop the list first, so that the snapshot closes the store.
        let snapshot = self.clone();
        let rows = list.rows.inspect_err(move |error| snapshot.record_read_error(error));
        Ok(ListResult { rows: rows.boxed(), ..list })
    }

    /// Logs the first failure.
    pub fn record_read_error(&self, error: &Error) {
        if !self.has_failed.swap(true, Ordering::Relaxed) {
            tracing::error!(cause = %error.report(), "cannot read the fallback replica");
        }
    }

    /// The directory of a snapshot that outlives the process.
    pub fn directory(&self) -> Option<SnapshotDir> {
        self.directory.clone()
    }

    /// Removes the snapshot once its last reader is done.
    pub fn retire(self: Arc<Self>) {
        self.is_retired.store(true, Ordering::Relaxed);
        if self.has_failed() && self.directory.is_some() {
            // Closing a store whose writes fail may wait forever, so its files are removed first.
            tokio::task::spawn_blocking(move || self.directory.as_ref().map(SnapshotDir::remove_open));
        }
    }
}

impl Drop for Snapshot {
    /// Frees the snapshot on a blocking thread: the last reader may be a connection that shares its thread with others.
    fn drop(&mut self) {
        // A snapshot that is still served is dropped only when the process ends or the store is opened again.
        if !self.is_retired.load(Ordering::Relaxed) {
            return;
        }
        let (store, directory) = (self.store.take(), self.directory.take());
        if directory.is_none() && self.records() <= MANY_RECORDS {
            return;
        }
        let end = move || {
            // Closing a store waits for the disk, and freeing a large one takes a while.
            drop(store);
            if let Some(directory) = directory {
                directory.remove();
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}

impl Replica {
    pub fn new(max_age: Option<Duration>) -> Self {
        Self {
            epoch: Instant::now(),
            max_age,
            served: RwLock::new(Err(Unusable::Incomplete)),
            sync_state: AtomicU8::new(SyncState::Interrupted as u8),
            is_too_old: AtomicBool::new(false),
            progressed: Notify::new(),
            answers: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
            interruptions: AtomicU64::new(0),
            bootstraps: AtomicU64::new(0),
            saves: AtomicU64::new(0),
            scan_turn: Arc::default(),
            audits_equal: AtomicU64::new(0),
            audits_different: AtomicU64::new(0),
            audits_abandoned: AtomicU64::new(0),
            audited_records: AtomicU64::new(0),
            audits: Mutex::default(),
        }
    }

    fn millis(&self, at: Instant) -> i64 {
        match at.checked_duration_since(self.epoch) {
            Some(since) => since.as_millis() as i64,
            // Times before the epoch are also rounded down.
            None => -(self.epoch.duration_since(at).as_millis() as i64) - 1,
        }
    }

    /// Notes that `snapshot` is at least as new as the primary was at `current`.
    pub fn mark_current(&self, snapshot: &Snapshot, current: Instant) {
        let current = self.millis(current);
        if snapshot.current.fetch_max(current, Ordering::Relaxed) < current {
            self.progressed.notify_waiters();
        }
    }

    /// Notes that `snapshot` has every write up to `time`.
    pub fn mark_as_of(&self, snapshot: &Snapshot, time: ClusterTime) {
        if snapshot.as_of.fetch_max(time.bits(), Ordering::Relaxed) < time.bits() {
            self.progressed.notify_waiters();
        }
    }

    /// Returns a future that ends when another snapshot is served, or the served one is younger or has newer writes, after this
    /// call.
    pub fn progressed(&self) -> Notified<'_> {
        self.progressed.notified()
    }

    /// Waits until the served snapshot has every write up to `time`.
    pub async fn wait_for(&self, time: ClusterTime) {
        loop {
            let progressed = self.progressed();
            if self.served().is_ok_and(|served| served.as_of() >= Some(time)) {
                return;
            }
            progressed.await;
        }
    }

    /// Notes that `snapshot` is at least as new as the primary was `age` ago, which may be before the process started.
    pub fn mark_current_since(&self, snapshot: &Snapshot, age: Duration) {
        let current = self.millis(Instant::now()) - age.as_millis() as i64 - 1;
        snapshot.current.fetch_max(current, Ordering::Relaxed);
    }

    /// Returns true if `snapshot` is at least as new as the primary was at `moment`.
    pub fn is_current_since(&self, snapshot: &Snapshot, moment: Instant) -> bool {
        snapshot.current.load(Ordering::Relaxed) > self.millis(moment)
    }

    /// Notes the outcome of an audit of `snapshot`. One with differences is replaced, and is only read meanwhile where the
    /// primary does not answer.
    pub fn record_audit(&self, snapshot: &Snapshot, report: AuditReport) {
        self.audited_records.fetch_add(report.records, Ordering::Relaxed);
        let counter = if report.differences == 0 { &self.audits_equal } else { &self.audits_different };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut audits = self.audits.lock().unwrap_or_else(PoisonError::into_inner);
        if report.differences > 0 {
            snapshot.differences.store(report.differences, Ordering::Relaxed);
            let AuditReport { records, differences, .. } = report;
            tracing::error!(
                differences,
                records,
                "an audit found that the fallback replica differs from MongoDB; a new one will be made"
            );
            audits[1] = Some(report.clone());
        }
        audits[0] = Some(report);
    }

    pub fn audits(&self) -> [Option<AuditReport>; 2] {
        self.audits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The age of `snapshot`, never too low.
    pub fn age_of(&self, snapshot: &Snapshot) -> Duration {
        let current = snapshot.current.load(Ordering::Relaxed);
        let age = u64::try_from(self.millis(Instant::now()).saturating_sub(current)).unwrap_or_default();
        // Both times are rounded down.
        Duration::from_millis(age + 1)
    }

    /// Replaces the snapshot that is read.
    pub fn serve(&self, snapshot: std::result::Result<Arc<Snapshot>, Unusable>) {
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *served, snapshot);
        drop(served);
        self.progressed.notify_waiters();
        if let Ok(before) = before {
            before.retire();
        }
    }

    pub fn served(&self) -> std::result::Result<Arc<Snapshot>, Unusable> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn sync_state(&self) -> SyncState {
        match self.sync_state.load(Ordering::Relaxed) {
            1 => SyncState::Following,
            2 => SyncState::Refreshing,
            3 => SyncState::TooLarge,
            _ => SyncState::Interrupted,
        }
    }

    /// Returns the state before.
    pub fn set_sync_state(&self, state: SyncState) -> SyncState {
        let before = self.sync_state();
        self.sync_state.store(state as u8, Ordering::Relaxed);
        before
    }

    pub fn is_in_sync(&self) -> bool {
        matches!(self.sync_state(), SyncState::Following | SyncState::Refreshing)
    }

    /// Returns the age of an answer that would be given now.
    pub fn age(&self) -> std::result::Result<Duration, Unusable> {
        self.check_age(self.age_of(&*self.served()?))
    }

    /// Returns the age of an answer from `snapshot`, if it may answer.
    fn age_under(&self, snapshot: &Snapshot, conditions: Conditions) -> Option<Duration> {
        if conditions.only_healthy && !snapshot.is_healthy() {
            return None;
        }
        let age = self.check_age(self.age_of(snapshot)).ok()?;
        let is_young = conditions.max_staleness.is_none_or(|max| age <= max && !max.is_zero());
        let has_writes = conditions.not_before.is_none_or(|time| snapshot.as_of() >= Some(time));
        (is_young && has_writes).then_some(age)
    }

    fn check_age(&self, age: Duration) -> std::result::Result<Duration, Unusable> {
        let too_old = self.max_age.is_some_and(|max| age > max);
        if too_old != self.is_too_old.load(Ordering::Relaxed)
            && too_old != self.is_too_old.swap(too_old, Ordering::Relaxed)
        {
            let age_s = age.as_secs();
            match too_old {
                true => tracing::warn!(age_s, "fallback replica is older than allowed and does not answer"),
                false => tracing::info!(age_s, "fallback replica is up to date again"),
            }
        }
        if too_old { Err(Unusable::TooOld) } else { Ok(age) }
    }

    /// Returns `None` if the replica cannot answer under `conditions`.
    pub fn get(&self, id: &RecordId, conditions: Conditions) -> Option<GetResult> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        let snapshot = served.as_ref().ok()?;
        // Taken before the record is read: the replica may become younger meanwhile, and an age may be too great but never too
        // small.
        let age = self.age_under(snapshot, conditions)?;
        let as_of = snapshot.as_of();
        // An embedded store answers at once.
        match snapshot.store().ok()?.try_get(id)? {
            Ok(found) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                Some(GetResult { staleness: Some(age), as_of, ..found })
            }
            Err(error) => {
                snapshot.record_read_error(&error);
                None
            }
        }
    }

    /// Returns `None` if the replica cannot give the first row under `conditions`.
    ///
    /// # Errors
    ///
    /// When the request is invalid, as the primary would say too.
    pub async fn list(&self, request: ListRequest, conditions: Conditions) -> Option<Result<ListResult>> {
        let snapshot = self.served().ok()?;
        let age = self.age_under(&snapshot, conditions)?;
        let as_of = snapshot.as_of();
        let list = match snapshot.list(ListRequest { freshness: Freshness::default(), ..request }).await {
            Ok(list) => list,
            Err(error) if error.kind() == Kind::Invalid => return Some(Err(error)),
            Err(_) => return None,
        };
        self.answers.fetch_add(1, Ordering::Relaxed);
        Some(Ok(ListResult { staleness: Some(age), as_of, no_arrays: false, ..list }))
    }

    /// Counts where [`list`](Self::list) would answer, and returns `None` where it does.
    ///
    /// # Errors
    ///
    /// Those of [`list`](Self::list).
    pub async fn count(
        &self,
        request: ListRequest,
        precision: Precision,
        conditions: Conditions,
    ) -> Option<Result<Option<CountResult>>> {
        let snapshot = self.served().ok()?;
        let age = self.age_under(&snapshot, conditions)?;
        match snapshot.store().ok()?.count(ListRequest { freshness: Freshness::default(), ..request }, precision).await
        {
            Ok(count) => Some(Ok(count.map(|count| CountResult { staleness: Some(age), ..count }))),
            Err(error) if error.kind() == Kind::Invalid => Some(Err(error)),
            Err(error) => {
                snapshot.record_read_error(&error);
                None
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::sync::mpsc;

    use futures::future::{BoxFuture, ready};

    use super::super::super::{Opened, Store};
    use super::*;
    use crate::document::extended_json;

    pub async fn memory() -> Arc<dyn EmbeddedStore> {
        match crate::store::open("memory:", Default::default()).await.expect("a store") {
            Opened::Embedded(store) => store,
            Opened::Remote(_) => panic!("it is in this process"),
        }
    }

    #[test]
    fn a_retired_snapshot_is_not_freed_by_the_list_that_reads_it_last() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            let store = memory().await;
            let left = Arc::downgrade(&store);
            let snapshot = Snapshot::new(store, None);
            let put = |id| {
                let text = format!(r#"{{"_id":{id}}}"#);
                Change::Put(extended_json::parse(text.as_bytes()).expect("a document"))
            };
            snapshot.apply(&(0..=MANY_RECORDS as i64).map(put).collect::<Vec<_>>()).expect("changes");
            let replica = Replica::new(None);
            replica.serve(Ok(snapshot));
            let mut list =
                replica.list(ListRequest::default(), Conditions::default()).await.expect("an answer").expect("a list");
            assert!(list.rows.next().await.is_some_and(|first| first.is_ok()));
            replica.serve(Err(Unusable::Incomplete));
            // The only blocking thread is busy, so that the snapshot cannot be freed yet.
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

    /// A store whose disk fails every call.
    #[derive(Debug)]
    pub struct Full;

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

    #[tokio::test(start_paused = true)]
    async fn an_age_is_never_too_low() {
        let replica = Replica::new(None);
        let snapshot = Snapshot::new(memory().await, None);
        let current = Instant::now();
        replica.mark_current(&snapshot, current);
        for _ in 0..10 {
            tokio::time::advance(Duration::from_micros(1_900)).await;
            assert!(replica.age_of(&snapshot) >= current.elapsed(), "{:?}", current.elapsed());
        }
    }

    #[tokio::test]
    async fn a_replica_that_cannot_be_read_does_not_answer_and_is_marked_as_failed() {
        for list in [true, false] {
            let replica = Replica::new(None);
            let snapshot = Snapshot::new(Arc::new(Full), None);
            replica.serve(Ok(snapshot.clone()));
            assert!(!snapshot.has_failed());
            match list {
                true => assert!(replica.list(ListRequest::default(), Conditions::default()).await.is_none()),
                false => assert!(replica.get(&"1".into(), Conditions::default()).is_none()),
            }
            assert!(snapshot.has_failed());
        }
    }

    #[tokio::test]
    async fn a_failed_replica_answers_only_where_the_primary_does_not() {
        let replica = Replica::new(None);
        let snapshot = Snapshot::new(memory().await, None);
        replica.serve(Ok(snapshot.clone()));
        for (failed, only_healthy, answers) in [(false, true, true), (true, true, false), (true, false, true)] {
            if failed {
                snapshot.mark_failed();
            }
            let conditions = Conditions { only_healthy, ..Conditions::default() };
            assert_eq!(replica.get(&"1".into(), conditions).is_some(), answers);
            assert_eq!(replica.list(ListRequest::default(), conditions).await.is_some(), answers);
        }
    }
}
