//! Updates the replica, in a task that ends with the store.
//!
//! The order leaves no gap: the change stream is opened first, then every record is copied into a new snapshot, then the
//! changes since are applied to it. Some of the copied records are older and some newer than the first changes, so the snapshot
//! is not read before the stream has proven it to be current as of the moment when the last record was copied, or later. The
//! snapshot before answers until then.
//!
//! - A change is applied at once, so that memory does not grow with the changes in progress.
//! - A snapshot that was interrupted goes on after its last key, and the stream goes on from where it was opened.
//! - A stream that proves nothing is not waited for: the snapshot is published as of the moment when it was begun, as where
//!   there is no stream, and the next one is taken after the interval.
//! - Where there are sources, an empty replica is filled from one of them first, and one of many instances scans for all.
//! - Attempts back off exponentially with full jitter, so that many instances do not read the primary at the same time.

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::StreamExt;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::{Change, ChangeBatch, ChangeStreamError, Error, Result, ResumeToken, Store};
use super::Settings;
use super::backoff::Backoff;
use super::bootstrap::{self, ANOTHER_COLLECTION, Bootstrap, Taken};
use super::replica::{Replica, Snapshot, SyncState, Unusable};
use super::replica_dir::{ReplicaDir, StoredReplica};
use super::scan_turn::TurnGuard;
use super::writes::{CHUNK, WriteError, write};
use crate::record::{Document, Key};

/// The longest pause between two attempts that read the primary, and between two that only open the change stream. The latter
/// cost one command, and also make the driver look for its server.
const SCAN_PAUSE: Duration = Duration::from_secs(30);
const RECONNECT_PAUSE: Duration = Duration::from_secs(2);

/// The time for which a replica must follow the stream before its earlier failures no longer count.
const STABLE: Duration = Duration::from_secs(30);

/// The time in which an open change stream must prove the replica to be current: without changes, and with changes that keep
/// coming, as after a long outage.
const PROOF_TIMEOUT: Duration = Duration::from_secs(8);
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// The pause between two attempts to drop a replica that has outgrown its limit, while the primary is away.
const PAUSE: Duration = Duration::from_millis(250);

/// The time that a failed snapshot may take to free its space, and the time between two checks.
const REMOVED_WITHIN: Duration = Duration::from_secs(5);
const REMOVED_CHECK: Duration = Duration::from_millis(20);

/// The time between two writes of the state that a restart needs: changes soon, since a restart would have to apply them again;
/// the mere passing of time less often.
const REMEMBER_CHANGES: Duration = Duration::from_secs(1);
const REMEMBER_TIME: Duration = Duration::from_secs(10);

/// The time after which a warning is repeated while its cause lasts.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// The time that MongoDB may take to tell the identity of the collection when it has just answered.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(5);

/// The store that keeps the replica from being updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Primary,
    Replica,
}

/// The reason why an attempt to follow the primary ended.
enum End {
    Stream(ChangeStreamError),
    /// A snapshot was interrupted.
    Scan(Error),
    /// The stream is open, and has not proven the replica to be current for this long.
    Unproven(Duration),
    Replica(Error),
    /// No replica can hold the records that the primary has now.
    Impossible(&'static str),
    TooLarge,
    /// The replica of a sibling was taken instead of a scan.
    Taken,
}

impl From<ChangeStreamError> for End {
    fn from(error: ChangeStreamError) -> Self {
        Self::Stream(error)
    }
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Failed(error) => Self::Replica(error),
            WriteError::TooLarge => Self::TooLarge,
        }
    }
}

/// A snapshot that is not read yet.
struct PendingSnapshot {
    snapshot: Arc<Snapshot>,
    number: u64,
    begun: Instant,
    /// The key after which the scan can go on.
    last: Option<Key>,
    /// The time at which the last record was copied. The snapshot is complete once it is known to be current as of that time.
    copied: Option<Instant>,
    /// The source that it was taken from. `None`: a scan of the primary.
    from: Option<String>,
    _turn: Option<TurnGuard>,
}

/// Marks the replica as no longer updated when the replicator ends.
struct SyncGuard(Arc<Replica>);

impl Drop for SyncGuard {
    fn drop(&mut self) {
        self.0.set_sync_state(SyncState::Interrupted);
    }
}

pub struct Replicator {
    primary: Arc<dyn Store>,
    replica: Arc<Replica>,
    directory: ReplicaDir,
    first_snapshot_within: Duration,
    snapshot_interval: Duration,
    size_limit: u64,
    bootstrap: Bootstrap,
    /// The served replica came from a source while MongoDB could not tell if it is of the collection that is there.
    is_unverified: bool,
    /// The position at which the changes resume, in the pending snapshot if there is one, else in the served one.
    token: Option<ResumeToken>,
    pending: Option<PendingSnapshot>,
    /// The number of the served snapshot.
    number: u64,
    remembered: Instant,
    /// True if changes were applied since `remembered`.
    has_changed: bool,
    /// The fault that was logged last, with the time of the log line.
    fault: Option<(Fault, Instant)>,
    /// True once the log says that the size is close to the limit.
    is_nearly_full: bool,
    /// The time at which the served snapshot was published; `None` once it has been stable.
    published: Option<Instant>,
    reconnects: Backoff,
    scans: Backoff,
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
        let bootstrap = Bootstrap::new(primary.clone(), replica.clone(), settings);
        Self {
            primary,
            replica,
            directory,
            first_snapshot_within: settings.first_snapshot_within,
            snapshot_interval: settings.snapshot_interval,
            size_limit: settings.size_limit,
            bootstrap,
            is_unverified: false,
            token,
            pending: None,
            number,
            remembered: Instant::now(),
            has_changed: false,
            fault: None,
            is_nearly_full: false,
            published: None,
            reconnects: Backoff::default(),
            scans: Backoff::default(),
        }
    }

    pub async fn run(mut self) {
        let _guard = SyncGuard(self.replica.clone());
        loop {
            let began = Instant::now();
            let until = match AssertUnwindSafe(self.attempt(began)).catch_unwind().await {
                Ok(until) => until,
                Err(_) => {
                    tracing::error!("fallback replication panicked; it starts again");
                    // The panic may have left the snapshot half updated.
                    self.start_over();
                    self.interrupted(Fault::Primary, "a panic");
                    Instant::now() + self.scans.next(SCAN_PAUSE)
                }
            };
            sleep_until(until).await;
        }
    }

    /// Follows the primary as long as possible. Returns the time of the next attempt.
    async fn attempt(&mut self, began: Instant) -> Instant {
        let end = self.follow().await;
        self.verify().await;
        let end = match end {
            Err(End::Stream(ChangeStreamError::Unsupported(cause))) => self.refresh(began, &cause).await,
            Err(End::Unproven(after)) => {
                self.replica.interruptions.fetch_add(1, Ordering::Relaxed);
                let cause =
                    format!("the change stream has not proven for {} s that the replica is current", after.as_secs());
                self.refresh(began, &cause).await
            }
            Err(end) => Err(end),
            Ok(()) => {
                Err(ChangeStreamError::Unavailable(Error::broken("a change stream ended without an error")).into())
            }
        };
        let pause = match end {
            Ok(until) => return until,
            Err(End::Taken) => return Instant::now(),
            Err(End::Stream(ChangeStreamError::HistoryLost(cause))) => {
                self.interrupted(Fault::Primary, &format!("changes were lost: {cause}"));
                self.start_over();
                self.scans.next(SCAN_PAUSE)
            }
            Err(End::Stream(ChangeStreamError::Unavailable(error))) => {
                self.interrupted(Fault::Primary, &error.report().to_string());
                self.reconnects.next(RECONNECT_PAUSE)
            }
            Err(End::Scan(error)) => {
                self.interrupted(Fault::Primary, &error.report().to_string());
                self.scans.next(SCAN_PAUSE)
            }
            Err(End::Replica(error)) => self.replica_failed(&error),
            Err(End::Impossible(why)) => {
                // A replica that was made before is of a collection that is no more.
                self.directory.forget();
                self.replica.serve(Err(Unusable::Incomplete));
                self.replica_failed(&Error::invalid(why))
            }
            Err(End::TooLarge) => {
                self.give_up().await;
                self.snapshot_interval
            }
            // These were handled above.
            Err(End::Unproven(_) | End::Stream(ChangeStreamError::Unsupported(_))) => self.scans.next(SCAN_PAUSE),
        };
        Instant::now() + pause
    }

    fn start_over(&mut self) {
        self.token = None;
        if let Some(pending) = self.pending.take() {
            pending.snapshot.retire();
        }
    }

    /// Follows the change stream until it ends.
    async fn follow(&mut self) -> std::result::Result<(), End> {
        if self.replica.served().is_err()
            && let ControlFlow::Break(taken) = self.bootstrap.take(&mut self.directory, None).await
        {
            return Err(self.adopt(taken).await);
        }
        let mut stream = self.primary.changes(self.token.clone());
        let Some(opened) = stream.next().await else { return Ok(()) };
        let mut batch = opened?;
        if self.token.is_none() {
            self.start_over();
        }
        let needs_scan = match &self.pending {
            Some(pending) => pending.copied.is_none(),
            None => self.token.is_none() || self.replica.served().is_err(),
        };
        if needs_scan {
            // Its changes come before the scan, which reads a state that is at least as new.
            self.begin_snapshot().await?;
            self.apply(std::mem::take(&mut batch)).await?;
            self.scan().await?;
        }
        let opened = Instant::now();
        let (mut proven, mut progressed) = (opened, opened);
        loop {
            let has_changes = !batch.changes.is_empty() || batch.is_catching_up;
            if self.apply(batch).await? {
                (proven, progressed) = (Instant::now(), Instant::now());
            } else if has_changes {
                progressed = Instant::now();
            }
            if progressed.elapsed() >= PROOF_TIMEOUT || proven.elapsed() >= CATCH_UP_TIMEOUT {
                return Err(End::Unproven(proven.elapsed()));
            }
            batch = match stream.next().await {
                Some(next) => next?,
                None => return Ok(()),
            };
        }
    }

    /// Applies a batch, and publishes the pending snapshot once it is complete. Returns true if the batch proves that the
    /// replica is current.
    async fn apply(&mut self, batch: ChangeBatch) -> std::result::Result<bool, End> {
        let snapshot = match &self.pending {
            Some(pending) => pending.snapshot.clone(),
            None => match self.replica.served() {
                // A reader has met an error.
                Ok(served) if served.has_failed() => {
                    return Err(End::Replica(Error::unavailable("the fallback replica could not be read")));
                }
                Ok(served) if served.differences() > 0 => {
                    return Err(ChangeStreamError::HistoryLost("an audit found differences".to_owned()).into());
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
        write(&snapshot, batch.changes, self.size_limit).await?;
        self.check_room(&snapshot);
        if let Some(token) = batch.token {
            snapshot.set_token(Some(token.clone()));
            self.token = Some(token);
        }
        if self.pending.is_none() {
            // A reader that waits for either finds both.
            if let Some(current) = batch.current {
                self.replica.mark_current(&snapshot, current);
            }
            if let Some(time) = batch.as_of {
                self.replica.mark_as_of(&snapshot, time);
            }
        }
        let Some(current) = batch.current else { return Ok(false) };
        // The collection is the one that the token is of.
        self.is_unverified = false;
        if let Some(pending) = self.pending.take_if(|pending| pending.copied.is_some_and(|copied| current >= copied)) {
            self.replica.mark_current(&snapshot, current);
            if let Some(time) = batch.as_of {
                self.replica.mark_as_of(&snapshot, time);
            }
            self.publish(pending).await.map_err(End::Replica)?;
        } else if self.pending.is_some() {
            return Ok(false);
        }
        if self.set_sync_state(SyncState::Following) {
            tracing::info!("fallback replica follows every change");
        }
        self.reconnects.reset();
        if self.published.is_some_and(|published| published.elapsed() >= STABLE) {
            self.published = None;
            self.scans.reset();
        }
        self.remember_if_due().await.map_err(End::Replica)?;
        Ok(true)
    }

    /// Warns before the replica reaches its limit.
    fn check_room(&mut self, snapshot: &Snapshot) {
        let (size, limit) = (snapshot.size(), self.size_limit);
        let is_nearly_full = size > limit - limit / 10;
        if is_nearly_full && !self.is_nearly_full {
            tracing::warn!(
                bytes = size,
                limit_bytes = limit,
                "fallback replica has nearly reached its size limit; raise --fallback-size-limit"
            );
        }
        // The warning is armed again only well below the limit, or each change near the limit would log it again.
        self.is_nearly_full = is_nearly_full || (self.is_nearly_full && size > limit - limit / 5);
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

    /// Creates a snapshot to copy the records into, unless there is one that was interrupted.
    async fn begin_snapshot(&mut self) -> std::result::Result<(), End> {
        if self.pending.as_ref().is_some_and(|pending| pending.last.is_some()) {
            return Ok(());
        }
        let token = self.token.clone();
        self.start_over();
        self.token = token;
        self.remove_failed().await?;
        // Instances that start together read the primary one after the other.
        let within = std::mem::take(&mut self.first_snapshot_within);
        if self.replica.served().is_err() {
            sleep(within.mul_f64(fastrand::f64())).await;
        }
        let turn = match self.bootstrap.take_turn(&mut self.directory).await {
            ControlFlow::Continue(turn) => turn,
            ControlFlow::Break(taken) => return Err(self.adopt(taken).await),
        };
        let identity = bootstrap::identity(&self.primary, IDENTITY_TIMEOUT).await;
        let begun = Instant::now();
        let (snapshot, number) = self.directory.create_snapshot().await.map_err(End::Replica)?;
        snapshot.set_identity(identity);
        snapshot.set_token(self.token.clone());
        self.pending =
            Some(PendingSnapshot { snapshot, number, begun, last: None, copied: None, from: None, _turn: Some(turn) });
        Ok(())
    }

    /// Makes the replica of a source the one that is served. Returns the end of the attempt.
    async fn adopt(&mut self, taken: Taken) -> End {
        let Taken { snapshot, number, begun, from, token, is_unverified } = taken;
        self.start_over();
        self.token = token;
        let pending =
            PendingSnapshot { snapshot, number, begun, last: None, copied: None, from: Some(from), _turn: None };
        match self.publish(pending).await {
            Ok(()) => {
                self.is_unverified = is_unverified;
                End::Taken
            }
            Err(error) => End::Replica(error),
        }
    }

    /// Drops a replica that came from a source while MongoDB was away, if it turns out to be of another collection.
    async fn verify(&mut self) {
        if !self.is_unverified {
            return;
        }
        let Some(known) = bootstrap::identity(&self.primary, bootstrap::VERIFY_TIMEOUT).await else { return };
        self.is_unverified = false;
        let taken = self.replica.served().ok().and_then(|served| served.origin().identity);
        if taken.is_some_and(|taken| taken != known) {
            tracing::warn!("the fallback replica from another instance or a file is dropped: {ANOTHER_COLLECTION}");
            self.start_over();
            self.directory.forget();
            self.replica.serve(Err(Unusable::Incomplete));
        }
    }

    /// Copies every record of the primary into the pending snapshot, from where it was interrupted.
    async fn scan(&mut self) -> std::result::Result<(), End> {
        let Some(mut pending) = self.pending.take() else { return Ok(()) };
        let copied = self.copy_into(&mut pending).await;
        match copied {
            Ok(()) => pending.copied = Some(Instant::now()),
            Err(End::Scan(_)) if pending.last.is_some() => {}
            Err(_) => {
                pending.snapshot.retire();
                self.token = None;
                return copied;
            }
        }
        self.pending = Some(pending);
        copied
    }

    async fn copy_into(&self, pending: &mut PendingSnapshot) -> std::result::Result<(), End> {
        let scan = self.primary.snapshot(pending.last.clone()).await;
        // A primary that is away may let it go on later.
        let scan = scan.inspect_err(|error| pending.last = pending.last.take().filter(|_| error.is_unavailable()));
        let scan = scan.map_err(End::Scan)?;
        let mut rows = scan.rows.ready_chunks(CHUNK);
        let mut read = 0;
        while let Some(chunk) = rows.next().await {
            // The rows before an error are kept.
            let mut failure = None;
            let mut documents = Vec::with_capacity(chunk.len());
            for row in chunk {
                match row {
                    Ok(row) => documents.push(row.document),
                    Err(error) => failure = Some(error),
                }
            }
            // A replica holds one record for each `_id`: its lists would lack the others.
            if documents.iter().any(|document| document.key().is_missing()) {
                return Err(End::Impossible("a record has no `_id`, so that no replica can hold all records"));
            }
            // A view that has taken the name since would repeat ids, and each would count as one record.
            let keys = pending.last.iter().chain(documents.iter().map(Document::key));
            if scan.is_in_order && !keys.is_sorted_by(|one, next| one < next) {
                let why = "the collection was replaced while it was read".to_owned();
                return Err(ChangeStreamError::HistoryLost(why).into());
            }
            read += documents.len() as u64;
            let last = documents.last().map(|document| document.key().clone());
            let changes = documents.into_iter().map(Change::Put).collect();
            write(&pending.snapshot, changes, self.size_limit).await?;
            self.replica.scan_turn.set_records(pending.snapshot.records());
            if scan.is_in_order {
                pending.last = last.or(pending.last.take());
            } else if pending.snapshot.records() < read {
                return Err(End::Impossible("several records have one `_id`, so that no replica can hold all records"));
            }
            if let Some(error) = failure {
                return Err(End::Scan(error));
            }
        }
        Ok(())
    }

    /// Makes `pending` the replica.
    async fn publish(&mut self, pending: PendingSnapshot) -> Result<()> {
        let PendingSnapshot { snapshot, number, begun, from, _turn, .. } = pending;
        let age = self.replica.age_of(&snapshot);
        if let Err(error) = self.directory.remember(&snapshot, number, self.token.as_ref(), age).await {
            snapshot.mark_failed();
            snapshot.retire();
            self.token = None;
            return Err(error);
        }
        (self.remembered, self.has_changed) = (Instant::now(), false);
        (self.number, self.published) = (number, Some(Instant::now()));
        let (records, bytes) = (snapshot.records(), snapshot.size());
        let first = self.replica.served().is_err();
        self.replica.serve(Ok(snapshot));
        let duration_ms = begun.elapsed().as_micros() as f64 / 1000.0;
        let count = if from.is_some() { &self.replica.bootstraps } else { &self.replica.snapshots };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(from) = from {
            let age_s = age.as_secs();
            tracing::info!(records, bytes, age_s, duration_ms, "fallback replica was taken from {from}");
        } else if first || self.token.is_some() {
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
        let age = self.replica.age_of(&served);
        let remembered = self.directory.remember(&served, self.number, self.token.as_ref(), age).await;
        if remembered.is_err() {
            served.mark_failed();
        }
        remembered?;
        (self.remembered, self.has_changed) = (Instant::now(), false);
        Ok(())
    }

    /// Publishes a snapshot without the proof of a change stream. Returns the time of the next one.
    async fn refresh(&mut self, began: Instant, cause: &str) -> std::result::Result<Instant, End> {
        self.token = None;
        if self.pending.as_ref().is_none_or(|pending| pending.copied.is_none()) {
            match self.begin_snapshot().await {
                // It is not older than one that would be made now.
                Err(End::Taken) => {}
                begun => {
                    begun?;
                    self.scan().await?;
                }
            }
        }
        if let Some(pending) = self.pending.take() {
            // Every record was read after this moment.
            self.replica.mark_current(&pending.snapshot, pending.begun);
            self.publish(pending).await.map_err(End::Replica)?;
        }
        if self.set_sync_state(SyncState::Refreshing) {
            let every_s = self.snapshot_interval.as_secs_f64();
            tracing::warn!(cause, every_s, "no change stream can be used; fallback replica is refreshed by snapshots");
        }
        self.reconnects.reset();
        self.scans.reset();
        Ok(began + self.snapshot_interval)
    }

    /// Drops the replica until the primary holds less. While the primary is away, the replica still answers.
    async fn give_up(&mut self) {
        self.start_over();
        if self.set_sync_state(SyncState::TooLarge) {
            let limit_bytes = self.size_limit;
            tracing::error!(
                limit_bytes,
                "fallback replica exceeds its size limit and is dropped once MongoDB answers; raise --fallback-size-limit"
            );
        }
        while self.replica.served().is_ok() && self.primary.ping().await.is_err() {
            sleep(PAUSE).await;
        }
        self.directory.forget();
        self.replica.serve(Err(Unusable::TooLarge));
    }

    /// Returns the pause before the next attempt, which is made in a new snapshot: a store on disk may fail every write after
    /// its first failure. The served snapshot still answers; one that has failed itself answers only where the primary does
    /// not, and is removed before the next attempt.
    ///
    /// A full disk stays full for a while, and every attempt reads the whole primary, so attempts become as rare as snapshots
    /// where there is no change stream.
    fn replica_failed(&mut self, error: &Error) -> Duration {
        self.start_over();
        self.interrupted(Fault::Replica, &error.report().to_string());
        self.scans.next(self.snapshot_interval.max(PAUSE))
    }

    fn interrupted(&mut self, fault: Fault, cause: &str) {
        self.replica.interruptions.fetch_add(1, Ordering::Relaxed);
        if self.replica.sync_state() == SyncState::TooLarge {
            // The log has said so already, and it stays true until a snapshot is complete.
            return;
        }
        self.replica.set_sync_state(SyncState::Interrupted);
        let is_known = self.fault.is_some_and(|(known, at)| known == fault && at.elapsed() < WARN_AGAIN);
        if is_known {
            tracing::debug!(cause, "fallback replica cannot be updated");
            return;
        }
        self.fault = Some((fault, Instant::now()));
        match self.replica.served() {
            Ok(served) => {
                let age_s = self.replica.age_of(&served).as_secs();
                tracing::warn!(cause, age_s, "fallback replica is no longer updated");
            }
            Err(_) => tracing::warn!(cause, "fallback replica cannot be made yet"),
        }
    }

    /// Returns true if the state is another than before.
    fn set_sync_state(&mut self, state: SyncState) -> bool {
        self.fault = None;
        self.replica.set_sync_state(state) != state
    }
}
