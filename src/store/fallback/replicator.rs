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

use std::fmt;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{Stream, StreamExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::{CHUNK_BYTES, Change, ChangeBatch, ChangeStreamError, Error, Result, ResumeToken, Store};
use super::Settings;
use super::backoff::Backoff;
use super::replica::{Replica, Snapshot, SyncState, Unusable};
use super::replica_dir::{ReplicaDir, StoredReplica};
use super::replica_stream::{Item, Origin, Reader, Reason, Trailer};
use super::scan_turn::{Phase, ScanState};
use super::source::{self, Arriving, Source};
use crate::record::Key;

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

/// The most records that are written between two checks of the size.
const CHUNK: usize = 1_000;

/// The time between two writes of the state that a restart needs: changes soon, since a restart would have to apply them again;
/// the mere passing of time less often.
const REMEMBER_CHANGES: Duration = Duration::from_secs(1);
const REMEMBER_TIME: Duration = Duration::from_secs(10);

/// The time after which a warning is repeated while its cause lasts.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// The time that MongoDB may take to tell the identity of the collection: when it has just answered, and when it may be away
/// while a replica is available.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(5);
const IDENTITY_TIMEOUT_AWAY: Duration = Duration::from_millis(500);

const ANOTHER_COLLECTION: &str = "the collection was created, dropped or replaced since";

/// The time between two questions to siblings that scan, and the time without progress after which they are not waited for.
const SIBLING_POLL: Duration = Duration::from_millis(250);
const SIBLING_TIMEOUT: Duration = Duration::from_secs(20);

/// The age of a sibling's replica below which it is about to become current.
const SIBLING_RECENT: Duration = Duration::from_secs(2);

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
    TooLarge,
    /// The replica of a sibling was taken instead of a scan.
    Taken,
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
    /// The key after which the scan can go on.
    last: Option<Key>,
    /// The time at which the last record was copied. The snapshot is complete once it is known to be current as of that time.
    copied: Option<Instant>,
    /// The source that it was taken from. `None`: a scan of the primary.
    from: Option<String>,
    _turn: Option<TurnGuard>,
}

/// The turn of this instance to scan, or its wait for it.
struct TurnGuard(Arc<Replica>);

impl TurnGuard {
    fn wait(replica: &Arc<Replica>) -> Self {
        replica.scan_turn.set(Some(Phase::Waiting));
        Self(replica.clone())
    }
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        self.0.scan_turn.set(None);
    }
}

/// The siblings' answers.
#[derive(Default)]
struct Siblings {
    /// The states of the siblings that need a scan.
    scans: Vec<ScanState>,
    /// True if a sibling has a replica that is about to become current.
    is_recent: bool,
}

/// The outcome of a replica that is not refused.
enum Received {
    Published,
    /// With its age.
    TooOld(Duration),
}

/// Marks the replica as no longer updated when the replicator ends.
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
    first_snapshot_within: Duration,
    snapshot_interval: Duration,
    size_limit: u64,
    origin: Origin,
    sources: Vec<Source>,
    /// The last refusal of each source, so that it is logged once; for a file, with its modification time.
    refusals: Vec<(Reason, Option<SystemTime>)>,
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
        Self {
            primary,
            replica,
            directory,
            first_snapshot_within: settings.first_snapshot_within,
            snapshot_interval: settings.snapshot_interval,
            size_limit: settings.size_limit,
            origin: settings.origin(),
            sources: settings.from.clone(),
            refusals: vec![Default::default(); settings.from.len()],
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
        if self.replica.served().is_err() && self.take_from_sources(None).await.is_err() {
            return Instant::now();
        }
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
            let has_changes = !batch.changes.is_empty();
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
        let written = self.write(&snapshot, batch.changes).await;
        if let Err(End::Replica(_)) = written {
            snapshot.mark_failed();
        }
        written?;
        self.check_room(&snapshot);
        if let Some(token) = batch.token {
            snapshot.set_token(Some(token.clone()));
            self.token = Some(token);
        }
        if let Some(time) = batch.as_of.filter(|_| self.pending.is_none()) {
            self.replica.mark_as_of(&snapshot, time);
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
        self.replica.mark_current(&snapshot, current);
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

    /// Writes in small steps, and on a blocking thread if the store is on disk.
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
        let turn = self.take_turn().await?;
        let identity = self.primary_identity(IDENTITY_TIMEOUT).await;
        let begun = Instant::now();
        let (snapshot, number) = self.directory.create_snapshot().await.map_err(End::Replica)?;
        snapshot.set_identity(identity);
        snapshot.set_token(self.token.clone());
        self.pending =
            Some(PendingSnapshot { snapshot, number, begun, last: None, copied: None, from: None, _turn: Some(turn) });
        Ok(())
    }

    /// Waits until no sibling scans the primary or is about to. Ends with [`End::Taken`] if one of them had a replica.
    async fn take_turn(&mut self) -> std::result::Result<TurnGuard, End> {
        let turn = TurnGuard::wait(&self.replica);
        // Reads would go back in time if a replica was replaced by one that may be older.
        let not_before = self.replica.served().is_ok().then(Instant::now);
        let (mut records, mut progressed) = (0, Instant::now());
        loop {
            let Siblings { mut scans, is_recent } = self.take_from_sources(not_before).await?;
            let own = &turn.0.scan_turn;
            scans.retain(|scan| own.belongs_to(scan));
            let copied = scans.iter().map(|scan| scan.records).sum();
            if std::mem::replace(&mut records, copied) != copied {
                progressed = Instant::now();
            }
            let is_stuck = progressed.elapsed() > SIBLING_TIMEOUT;
            if (is_recent || !scans.is_empty()) && !is_stuck {
                own.set(Some(Phase::Waiting));
                sleep(SIBLING_POLL).await;
            } else if own.set(Some(Phase::Scanning)) == Some(Phase::Scanning) || is_stuck {
                // The siblings were asked once more after they could see it: two do not begin at the same time.
                return Ok(turn);
            }
        }
    }

    /// Takes the first replica that a source has and that can be used, which ends with [`End::Taken`]. Returns the state of the
    /// siblings otherwise.
    ///
    /// A replica that is not current as of `not_before` cannot be used.
    async fn take_from_sources(&mut self, not_before: Option<Instant>) -> std::result::Result<Siblings, End> {
        // After an audit with differences, the primary alone is trusted: a source may have the same ones.
        if self.replica.served().is_ok_and(|served| served.differences() > 0) {
            return Ok(Siblings::default());
        }
        let mut siblings = Siblings::default();
        for (index, source) in self.sources.clone().into_iter().enumerate() {
            match source {
                Source::File(path) => match source::open(&path).await {
                    Ok(file) => drop(self.take(index, file, not_before).await?),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => self.refuse(index, &path.display(), format!("it cannot be read: {error}"), None),
                },
                Source::Siblings { host, port } => {
                    let addresses = source::addresses(&host, port).await.unwrap_or_else(|error| {
                        tracing::debug!(%error, "cannot find the siblings at {host}");
                        Vec::new()
                    });
                    for address in addresses {
                        let sibling = match source::ask(address).await {
                            Ok(sibling) => sibling,
                            Err(error) => {
                                tracing::debug!(%error, "the sibling at {address} does not answer");
                                continue;
                            }
                        };
                        let is_self = sibling.scan.as_ref().is_some_and(|scan| self.replica.scan_turn.is_self(scan));
                        siblings.scans.extend(sibling.scan);
                        if let Some(arriving) = sibling.replica.filter(|_| !is_self) {
                            siblings.is_recent |= self.take(index, arriving, not_before).await?;
                        }
                    }
                }
            }
        }
        Ok(siblings)
    }

    /// Makes what arrives the replica, which ends with [`End::Taken`]. What cannot be used is refused whole. Returns true if it is
    /// not current as of `not_before`, and soon will be.
    async fn take(
        &mut self,
        index: usize,
        arriving: Arriving,
        not_before: Option<Instant>,
    ) -> std::result::Result<bool, End> {
        let (from, modified) = (arriving.from.clone(), arriving.modified);
        if modified.is_some() && self.refusals[index].1 == modified {
            return Ok(false);
        }
        match self.receive(arriving, not_before).await {
            Ok(Received::Published) => Err(End::Taken),
            Ok(Received::TooOld(age)) => Ok(age < SIBLING_RECENT),
            Err(why) => {
                self.refuse(index, &from, why, modified);
                Ok(false)
            }
        }
    }

    fn refuse(&mut self, index: usize, from: &dyn fmt::Display, why: Reason, modified: Option<SystemTime>) {
        if self.refusals[index].0 != why {
            tracing::warn!("the replica from {from} is refused: {why}");
        }
        self.refusals[index] = (why, modified);
    }

    /// Receives a replica, and publishes it unless it is older than `not_before`.
    async fn receive(
        &mut self,
        arriving: Arriving,
        not_before: Option<Instant>,
    ) -> std::result::Result<Received, Reason> {
        let Arriving { from, chunks, asked, modified } = arriving;
        let identity = tokio::spawn({
            let primary = self.primary.clone();
            async move { primary.identity().await }
        });
        let (mut reader, header) = Reader::open(chunks).await?;
        if header.origin.source != self.origin.source {
            return Err(format!("it is of another store or collection: {}", header.origin.source));
        }
        if header.origin.scope != self.origin.scope {
            return Err("it has another scope: what is hidden or left out differs".to_owned());
        }
        let age = header.age(modified);
        if not_before.is_some_and(|moment| age >= asked.saturating_duration_since(moment)) {
            return Ok(Received::TooOld(age));
        }
        let cannot_be_written = |error: Error| format!("it cannot be written: {}", error.report());
        let begun = Instant::now();
        let (snapshot, number) = self.directory.create_snapshot().await.map_err(cannot_be_written)?;
        let received = self.receive_records(&snapshot, &mut reader).await;
        let Trailer { token, as_of, .. } = match received {
            Ok(trailer) => trailer,
            Err(why) => {
                snapshot.retire();
                return Err(why);
            }
        };
        let remaining = IDENTITY_TIMEOUT_AWAY.saturating_sub(asked.elapsed());
        let known = timeout(remaining, identity).await.ok().and_then(|joined| joined.ok()?.ok());
        if let (Some(Some(known)), Some(identity)) = (&known, &header.identity)
            && known != identity
        {
            snapshot.retire();
            return Err(ANOTHER_COLLECTION.to_owned());
        }
        self.start_over();
        self.token = token.clone();
        snapshot.set_identity(header.identity);
        snapshot.set_token(token);
        self.replica.mark_current_since(&snapshot, age + asked.elapsed());
        if let Some(time) = as_of {
            self.replica.mark_as_of(&snapshot, time);
        }
        let pending =
            PendingSnapshot { snapshot, number, begun, last: None, copied: None, from: Some(from), _turn: None };
        self.publish(pending).await.map_err(cannot_be_written)?;
        self.is_unverified = known.is_none();
        Ok(Received::Published)
    }

    async fn receive_records<S>(
        &self,
        snapshot: &Arc<Snapshot>,
        reader: &mut Reader<S>,
    ) -> std::result::Result<Trailer, Reason>
    where
        S: Stream<Item = io::Result<Bytes>> + Unpin,
    {
        let mut changes = Vec::with_capacity(CHUNK);
        let mut bytes = 0;
        loop {
            let item = reader.next().await?;
            let (is_full, end) = match item {
                Item::Record(record) => {
                    bytes += record.bson().len();
                    changes.push(Change::Put(record));
                    (changes.len() >= CHUNK || bytes >= CHUNK_BYTES, None)
                }
                Item::End(trailer) => (true, Some(trailer)),
            };
            if is_full {
                bytes = 0;
                self.write(snapshot, std::mem::take(&mut changes)).await.map_err(|end| match end {
                    End::Replica(error) => {
                        snapshot.mark_failed();
                        format!("it cannot be written: {}", error.report())
                    }
                    _ => "it is larger than --fallback-size-limit".to_owned(),
                })?;
            }
            if let Some(trailer) = end {
                return Ok(trailer);
            }
        }
    }

    /// Asks the primary which collection there is. A future of the driver must not be dropped, so it has a task of its own.
    async fn primary_identity(&self, within: Duration) -> Option<String> {
        let primary = self.primary.clone();
        let identity = tokio::spawn(async move { primary.identity().await });
        timeout(within, identity).await.ok()?.ok()?.ok()?
    }

    /// Drops a replica that came from a source while MongoDB was away, if it turns out to be of another collection.
    async fn verify(&mut self) {
        if !self.is_unverified {
            return;
        }
        let Some(known) = self.primary_identity(IDENTITY_TIMEOUT_AWAY).await else { return };
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
            Err(ref end) => {
                if matches!(end, End::Replica(_)) {
                    pending.snapshot.mark_failed();
                }
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
        let scan = scan.inspect_err(|_| pending.last = None).map_err(End::Scan)?;
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
                return Err(End::Replica(Error::invalid(
                    "a record has no `_id`, so that no replica can hold all records",
                )));
            }
            read += documents.len() as u64;
            let last = documents.last().map(|document| document.key().clone());
            self.write(&pending.snapshot, documents.into_iter().map(Change::Put).collect()).await?;
            self.replica.scan_turn.set_records(pending.snapshot.records());
            if scan.is_in_order {
                pending.last = last.or(pending.last.take());
            } else if pending.snapshot.records() < read {
                let repeated = "several records have one `_id`, so that no replica can hold all records";
                return Err(End::Replica(Error::invalid(repeated)));
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
