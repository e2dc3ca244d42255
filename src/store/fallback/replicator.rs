//! Updates the replica, in a task that ends with the store.
//!
//! The order leaves no gap: the change stream is opened first, then every record is copied into a new snapshot, then the
//! changes since are applied to it. Some of the copied records are older and some newer than the first changes, so the snapshot
//! is not read before the stream has proven it to be current as of the moment when the last record was copied, or later. The
//! snapshot before answers until then.
//!
//! A change is applied at once, so that memory does not grow with the changes in progress.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::StreamExt;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::{CHUNK_BYTES, Change, ChangeBatch, ChangeStreamError, Error, Result, ResumeToken, Store};
use super::Settings;
use super::replica::{Replica, Snapshot, SyncState, Unusable};
use super::replica_dir::{ReplicaDir, StoredReplica};

/// The pause after a failure. An attempt to open the stream also makes the driver look for its server.
const PAUSE: Duration = Duration::from_millis(250);

/// The time that a failed snapshot may take to free its space, and the time between two checks.
const REMOVED_WITHIN: Duration = Duration::from_secs(5);
const REMOVED_CHECK: Duration = Duration::from_millis(20);

/// The most records that are written between two checks of the size.
const CHUNK: usize = 1_000;

/// The time between two writes of the state that a restart needs: changes soon, since a restart would have to apply them again;
/// the mere passing of time less often.
const REMEMBER_CHANGES: Duration = Duration::from_secs(1);
const REMEMBER_TIME: Duration = Duration::from_secs(10);

/// The half that keeps the replica from being updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Primary,
    Replica,
}

/// Why an attempt to follow the primary ended.
enum End {
    Stream(ChangeStreamError),
    Replica(Error),
    TooLarge,
}

impl From<ChangeStreamError> for End {
    fn from(error: ChangeStreamError) -> Self {
        Self::Stream(error)
    }
}

/// A snapshot that is not read yet.
struct PendingSnapshot {
    snapshot: Arc<Snapshot>,
    number: u64,
    begun: Instant,
    /// When the last record was copied. The snapshot is complete once it is known to be current as of then.
    copied: Instant,
}

/// Marks the replica as no longer updated when the replicator ends, also by a panic.
struct SyncGuard(Arc<Replica>);

impl Drop for SyncGuard {
    fn drop(&mut self) {
        self.0.set_sync_state(SyncState::Interrupted);
    }
}

/// Splits `changes` into parts of about `bytes` bytes and at most [`CHUNK`] changes.
fn chunks(changes: &[Change], bytes: usize) -> impl Iterator<Item = &[Change]> {
    let mut left = changes;
    std::iter::from_fn(move || {
        let mut taken = 0;
        let few = left.iter().take(CHUNK).take_while(|change| {
            let is_room = taken < bytes;
            if let Change::Put(record) = change {
                taken += record.bson().len();
            }
            is_room
        });
        let (chunk, rest) = left.split_at(few.count());
        left = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

pub struct Replicator {
    primary: Arc<dyn Store>,
    replica: Arc<Replica>,
    directory: ReplicaDir,
    snapshot_interval: Duration,
    size_limit: u64,
    /// Where the changes resume, in the pending snapshot if there is one, else in the served one.
    token: Option<ResumeToken>,
    pending: Option<PendingSnapshot>,
    /// The number of the served snapshot.
    number: u64,
    remembered: Instant,
    /// There were changes since.
    has_changed: bool,
    /// The fault that was logged last.
    fault: Option<Fault>,
    /// Failures of the replica since its last complete snapshot.
    failures: u32,
}

impl Replicator {
    pub fn new(
        primary: Arc<dyn Store>,
        replica: Arc<Replica>,
        directory: ReplicaDir,
        stored: Option<StoredReplica>,
        settings: &Settings,
    ) -> Self {
        let (mut token, mut number) = (None, 0);
        if let Some(stored) = stored {
            tracing::info!(
                records = stored.snapshot.records(),
                age_s = replica.age_of(&stored.snapshot).as_secs(),
                "found the fallback replica of an earlier run"
            );
            (token, number) = (stored.token, stored.number);
            replica.serve(Ok(stored.snapshot));
        }
        let remembered = Instant::now();
        Self {
            primary,
            replica,
            directory,
            snapshot_interval: settings.snapshot_interval,
            size_limit: settings.size_limit,
            token,
            pending: None,
            number,
            remembered,
            has_changed: false,
            fault: None,
            failures: 0,
        }
    }

    pub async fn run(mut self) {
        let _guard = SyncGuard(self.replica.clone());
        loop {
            let began = Instant::now();
            match self.follow().await {
                End::Stream(ChangeStreamError::Unsupported) => self.snapshot_at_intervals(began).await,
                End::Stream(ChangeStreamError::HistoryLost(why)) => {
                    self.interrupted(Fault::Primary, &format!("changes were lost: {why}"));
                    self.start_over();
                    // A stream that loses its history at once must not cause a busy loop.
                    sleep_until(began + PAUSE).await;
                }
                End::Stream(ChangeStreamError::Unavailable(error)) => {
                    self.interrupted(Fault::Primary, &error.report().to_string());
                    sleep(PAUSE).await;
                }
                End::Replica(error) => self.replica_failed(&error).await,
                End::TooLarge => self.give_up().await,
            }
        }
    }

    fn start_over(&mut self) {
        self.token = None;
        if let Some(pending) = self.pending.take() {
            pending.snapshot.retire();
        }
    }

    /// Follows the change stream until it ends.
    async fn follow(&mut self) -> End {
        match self.try_follow().await {
            Ok(()) => ChangeStreamError::Unavailable(Error::broken("a change stream ended without an error")).into(),
            Err(end) => end,
        }
    }

    async fn try_follow(&mut self) -> std::result::Result<(), End> {
        let mut stream = self.primary.changes(self.token.clone());
        let Some(opened) = stream.next().await else { return Ok(()) };
        let mut batch = opened?;
        if self.token.is_none() {
            self.start_over();
            self.pending = Some(self.take_snapshot().await?);
        }
        loop {
            self.apply(batch).await?;
            batch = match stream.next().await {
                Some(next) => next?,
                None => return Ok(()),
            };
        }
    }

    /// Applies a batch, and publishes the pending snapshot once it is complete.
    async fn apply(&mut self, batch: ChangeBatch) -> std::result::Result<(), End> {
        let snapshot = match &self.pending {
            Some(pending) => pending.snapshot.clone(),
            None => match self.replica.served() {
                // A reader has noticed.
                Ok(served) if served.has_failed() => {
                    return Err(End::Replica(Error::unavailable("the fallback replica could not be read")));
                }
                Ok(served) => served,
                Err(_) => {
                    self.start_over();
                    return Err(
                        ChangeStreamError::HistoryLost("there is no snapshot to apply changes to".to_owned()).into()
                    );
                }
            },
        };
        self.has_changed |= !batch.changes.is_empty();
        let written = self.write(&snapshot, batch.changes).await;
        if let Err(End::Replica(_)) = written {
            snapshot.mark_failed();
        }
        written?;
        if let Some(token) = batch.token {
            self.token = Some(token);
        }
        let Some(current) = batch.current else { return Ok(()) };
        self.replica.mark_current(&snapshot, current);
        match self.pending.take() {
            Some(pending) if current >= pending.copied => self.publish(pending).await.map_err(End::Replica)?,
            pending => self.pending = pending,
        }
        if self.pending.is_none() {
            self.set_sync_state(SyncState::Following);
            self.remember_if_due().await.map_err(End::Replica)?;
        }
        Ok(())
    }

    /// Writes a little at a time, or where blocking is allowed if the writes may wait for a disk.
    async fn write(&self, snapshot: &Arc<Snapshot>, changes: Vec<Change>) -> std::result::Result<(), End> {
        if changes.is_empty() {
            return Ok(());
        }
        let max = self.size_limit;
        let write = move |snapshot: &Snapshot, changes: &[Change]| {
            snapshot.apply(changes).map_err(End::Replica)?;
            if snapshot.size() > max { Err(End::TooLarge) } else { Ok(()) }
        };
        if !self.directory.is_persistent() {
            for changes in chunks(&changes, CHUNK_BYTES) {
                write(snapshot, changes)?;
                // A catch-up may have very many changes, and other tasks share the thread.
                tokio::task::yield_now().await;
            }
            return Ok(());
        }
        let snapshot = snapshot.clone();
        tokio::task::spawn_blocking(move || chunks(&changes, usize::MAX).try_for_each(|some| write(&snapshot, some)))
            .await
            .unwrap_or_else(|panic| {
                Err(End::Replica(Error::broken("the fallback replica could not be written").with_source(panic)))
            })
    }

    /// Removes a snapshot that has failed, to make room for a new one, as soon as the primary answers instead.
    async fn remove_failed(&mut self) -> std::result::Result<(), End> {
        let failed = self.replica.served().ok().filter(|served| served.has_failed());
        if failed.is_none() && !self.directory.has_unopened() {
            return Ok(());
        }
        self.primary.ping().await.map_err(ChangeStreamError::Unavailable)?;
        self.directory.remove_unopened();
        let Some(failed) = failed else { return Ok(()) };
        let directory = failed.directory();
        drop(failed);
        self.replica.serve(Err(Unusable::Incomplete));
        tracing::warn!("fallback replica has failed and is removed; a new one will be made");
        // Another thread removes it, after its last reader.
        let begun = Instant::now();
        while directory.as_ref().is_some_and(|directory| directory.exists()) && begun.elapsed() < REMOVED_WITHIN {
            sleep(REMOVED_CHECK).await;
        }
        Ok(())
    }

    /// Copies every record of the primary into a new snapshot.
    async fn take_snapshot(&mut self) -> std::result::Result<PendingSnapshot, End> {
        self.remove_failed().await?;
        let begun = Instant::now();
        let (snapshot, number) = self.directory.create_snapshot().await.map_err(End::Replica)?;
        if let Err(end) = self.fill(&snapshot).await {
            if matches!(end, End::Replica(_)) {
                snapshot.mark_failed();
            }
            snapshot.retire();
            return Err(end);
        }
        Ok(PendingSnapshot { snapshot, number, begun, copied: Instant::now() })
    }

    async fn fill(&self, snapshot: &Arc<Snapshot>) -> std::result::Result<(), End> {
        let failed = |error| End::Stream(ChangeStreamError::Unavailable(error));
        let mut rows = self.primary.snapshot().await.map_err(failed)?.rows.ready_chunks(CHUNK);
        let mut read = 0;
        while let Some(chunk) = rows.next().await {
            let chunk: Result<Vec<_>> = chunk.into_iter().map(|row| row.map(|row| row.document)).collect();
            let chunk = chunk.map_err(failed)?;
            // A replica holds one record for each `_id`: its lists would lack the others.
            if chunk.iter().any(|document| document.key().is_missing()) {
                return Err(End::Replica(Error::invalid(
                    "a record has no `_id`, so that no replica can hold all records",
                )));
            }
            read += chunk.len() as u64;
            self.write(snapshot, chunk.into_iter().map(Change::Put).collect()).await?;
            if snapshot.records() < read {
                let repeated = "several records have one `_id`, so that no replica can hold all records";
                return Err(End::Replica(Error::invalid(repeated)));
            }
        }
        Ok(())
    }

    /// Makes `pending` the replica.
    async fn publish(&mut self, pending: PendingSnapshot) -> Result<()> {
        let PendingSnapshot { snapshot, number, begun, .. } = pending;
        let age = self.replica.age_of(&snapshot);
        if let Err(error) = self.directory.remember(&snapshot, number, self.token.as_ref(), age).await {
            snapshot.mark_failed();
            snapshot.retire();
            self.token = None;
            return Err(error);
        }
        (self.remembered, self.has_changed) = (Instant::now(), false);
        (self.number, self.failures) = (number, 0);
        let (records, bytes) = (snapshot.records(), snapshot.size());
        let first = self.replica.served().is_err();
        self.replica.snapshots.fetch_add(1, Ordering::Relaxed);
        self.replica.serve(Ok(snapshot));
        let duration_ms = begun.elapsed().as_micros() as f64 / 1000.0;
        if first || self.token.is_some() {
            tracing::info!(records, bytes, duration_ms, "fallback replica is complete");
        } else {
            tracing::debug!(records, bytes, duration_ms, "fallback replica is complete again");
        }
        Ok(())
    }

    async fn remember_if_due(&mut self) -> Result<()> {
        let due = if self.has_changed { REMEMBER_CHANGES } else { REMEMBER_TIME };
        if !self.directory.is_persistent() || self.remembered.elapsed() < due {
            return Ok(());
        }
        let Ok(served) = self.replica.served() else { return Ok(()) };
        let remembered =
            self.directory.remember(&served, self.number, self.token.as_ref(), self.replica.age_of(&served)).await;
        if remembered.is_err() {
            served.mark_failed();
        }
        remembered?;
        (self.remembered, self.has_changed) = (Instant::now(), false);
        Ok(())
    }

    /// Takes one snapshot and waits for the next, where there is no change stream.
    async fn snapshot_at_intervals(&mut self, began: Instant) {
        self.start_over();
        match self.take_snapshot().await {
            Ok(pending) => {
                // Every record was read after this moment.
                self.replica.mark_current(&pending.snapshot, pending.begun);
                match self.publish(pending).await {
                    Ok(()) => {
                        self.set_sync_state(SyncState::Refreshing);
                        sleep_until(began + self.snapshot_interval).await;
                    }
                    Err(error) => self.replica_failed(&error).await,
                }
            }
            Err(End::TooLarge) => self.give_up().await,
            Err(End::Replica(error)) => self.replica_failed(&error).await,
            Err(End::Stream(ChangeStreamError::Unavailable(error))) => {
                self.interrupted(Fault::Primary, &error.report().to_string());
                sleep(PAUSE).await;
            }
            Err(End::Stream(_)) => sleep(PAUSE).await,
        }
    }

    /// Drops the replica, until the primary holds less.
    async fn give_up(&mut self) {
        self.start_over();
        self.directory.forget();
        self.replica.serve(Err(Unusable::TooLarge));
        self.set_sync_state(SyncState::TooLarge);
        sleep(self.snapshot_interval).await;
    }

    /// Waits before the next attempt, which is made in a new snapshot: a store on disk may fail every write after its first
    /// failure. The served snapshot still answers; one that has failed itself answers only where the primary does not, and is
    /// removed before the next attempt.
    ///
    /// A full disk stays full for a while, and every attempt reads the whole primary, so attempts become as rare as snapshots
    /// where there is no change stream.
    async fn replica_failed(&mut self, error: &Error) {
        self.start_over();
        self.interrupted(Fault::Replica, &error.report().to_string());
        let pause = PAUSE.saturating_mul(4 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        sleep(pause.min(self.snapshot_interval.max(PAUSE))).await;
    }

    fn interrupted(&mut self, fault: Fault, cause: &str) {
        self.replica.interruptions.fetch_add(1, Ordering::Relaxed);
        if self.replica.sync_state() == SyncState::TooLarge {
            // Logged once; it stays true until a snapshot is complete.
            return;
        }
        self.replica.set_sync_state(SyncState::Interrupted);
        let served = self.replica.served().is_ok();
        let new = self.fault.replace(fault) != Some(fault);
        match (new, served) {
            (true, true) => tracing::warn!(cause, served, "fallback replica is no longer updated"),
            (true, false) => tracing::warn!(cause, served, "fallback replica cannot be made yet"),
            (false, _) => tracing::debug!(cause, served, "fallback replica cannot be updated"),
        }
    }

    fn set_sync_state(&mut self, state: SyncState) {
        self.fault = None;
        if self.replica.set_sync_state(state) == state {
            return;
        }
        let (every_s, limit_bytes) = (self.snapshot_interval.as_secs_f64(), self.size_limit);
        match state {
            SyncState::Following => tracing::info!("fallback replica follows every change"),
            SyncState::Refreshing => tracing::info!(
                every_s,
                "MongoDB offers no change stream; the fallback replica is refreshed by snapshots"
            ),
            SyncState::TooLarge => {
                tracing::error!(limit_bytes, "fallback replica would be larger than allowed and is dropped")
            }
            SyncState::Interrupted => {}
        }
    }
}
