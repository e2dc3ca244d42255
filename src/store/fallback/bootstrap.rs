//! Takes a replica from another instance or a file, in place of a scan of the primary, and waits for the turn to scan.
//!
//! What arrives is refused whole if it is truncated, damaged, of another collection, or has another scope.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::Stream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::Settings;
use super::replica::{Replica, Snapshot};
use super::replica_dir::ReplicaDir;
use super::replica_stream::{Item, Origin, Reader, Reason, Trailer};
use super::scan_turn::{Phase, ScanState, Step, TurnGuard};
use super::source::{self, Arriving, Source};
use super::writes::{CHUNK, WriteError, write};
use crate::store::{self, CHUNK_BYTES, Change, Error, ResumeToken, Store};

/// The time that MongoDB may take to tell the identity of the collection while a replica is available.
pub const VERIFY_TIMEOUT: Duration = Duration::from_millis(500);

pub const ANOTHER_COLLECTION: &str = "the collection was created, dropped or replaced since";

/// The time between two questions to siblings that scan, and the time without progress after which they are not waited for.
const SIBLING_POLL: Duration = Duration::from_millis(250);
const SIBLING_TIMEOUT: Duration = Duration::from_secs(20);

/// The age of a sibling's replica below which it is about to become current.
const SIBLING_RECENT: Duration = Duration::from_secs(2);

/// A complete replica from a source, which is not served yet.
pub struct Taken {
    pub snapshot: Arc<Snapshot>,
    pub number: u64,
    pub begun: Instant,
    /// The place that it was taken from, for the log.
    pub from: String,
    pub token: Option<ResumeToken>,
    /// MongoDB could not tell whether it is of the collection that is there.
    pub is_unverified: bool,
}

/// The siblings' answers.
#[derive(Default)]
pub struct Siblings {
    /// The states of the siblings that need a scan.
    scans: Vec<ScanState>,
    /// True if a sibling has a replica that is about to become current.
    is_recent: bool,
}

/// The outcome of a replica that is not refused.
enum Received {
    Complete(Taken),
    /// With its age.
    TooOld(Duration),
}

pub struct Bootstrap {
    primary: Arc<dyn Store>,
    replica: Arc<Replica>,
    size_limit: u64,
    origin: Origin,
    sources: Vec<Source>,
    /// The causes that were logged since a replica was taken, by the source: each is logged once.
    logged: HashSet<(usize, Reason)>,
    /// The modification times of the files that were refused.
    refused: Vec<Option<SystemTime>>,
}

impl Bootstrap {
    pub fn new(primary: Arc<dyn Store>, replica: Arc<Replica>, settings: &Settings) -> Self {
        Self {
            primary,
            replica,
            size_limit: settings.size_limit,
            origin: settings.origin(),
            sources: settings.from.clone(),
            logged: HashSet::new(),
            refused: vec![None; settings.from.len()],
        }
    }

    /// Waits until no sibling scans the primary or is about to, and breaks if one of them had a replica.
    pub async fn take_turn(&mut self, directory: &mut ReplicaDir) -> ControlFlow<Taken, TurnGuard> {
        let turn = self.replica.scan_turn.wait();
        // Reads would go back in time if a replica was replaced by one that may be older.
        let not_before = self.replica.served().is_ok().then(Instant::now);
        let own = &self.replica.scan_turn.clone();
        let (mut records, mut progressed) = (0, Instant::now());
        loop {
            let Siblings { scans, is_recent } = self.take(directory, not_before).await?;
            let copied = scans.iter().map(|scan| scan.records).sum();
            if std::mem::replace(&mut records, copied) != copied {
                progressed = Instant::now();
            }
            if progressed.elapsed() > SIBLING_TIMEOUT {
                own.set(Some(Phase::Scanning));
                return ControlFlow::Continue(turn);
            }
            if is_recent {
                own.set(Some(Phase::Waiting));
            } else {
                match own.step(&scans) {
                    Step::Scan => return ControlFlow::Continue(turn),
                    Step::Confirm => continue,
                    Step::Wait => {}
                }
            }
            sleep(SIBLING_POLL).await;
        }
    }

    /// Breaks with the first replica that a source has and that can be used. Returns the state of the siblings otherwise.
    ///
    /// A replica that is not current as of `not_before` cannot be used.
    pub async fn take(
        &mut self,
        directory: &mut ReplicaDir,
        not_before: Option<Instant>,
    ) -> ControlFlow<Taken, Siblings> {
        // After an audit with differences, the primary alone is trusted: a source may have the same ones.
        if self.replica.served().is_ok_and(|served| served.differences() > 0) {
            return ControlFlow::Continue(Siblings::default());
        }
        let mut siblings = Siblings::default();
        for (index, source) in self.sources.clone().into_iter().enumerate() {
            match source {
                Source::File(path) => match source::open(&path).await {
                    Ok(file) => drop(self.accept(index, file, directory, not_before).await?),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.absent(index, &path.display(), &error)
                    }
                    Err(error) => self.refuse(index, &path.display(), format!("it cannot be read: {error}")),
                },
                Source::Siblings { ref host, port } => {
                    let addresses = source::addresses(host, port).await.unwrap_or_else(|error| {
                        self.absent(index, &source, &error);
                        Vec::new()
                    });
                    for address in addresses {
                        let sibling = match source::ask(address).await {
                            Ok(sibling) => sibling,
                            Err(error) => {
                                self.absent(index, &format_args!("http://{address}"), &error);
                                continue;
                            }
                        };
                        let is_self = sibling.scan.as_ref().is_some_and(|scan| self.replica.scan_turn.is_self(scan));
                        siblings.scans.extend(sibling.scan);
                        match sibling.replica {
                            _ if is_self => {}
                            Ok(arriving) => {
                                let accepted = self.accept(index, arriving, directory, not_before).await?;
                                siblings.is_recent |= accepted;
                            }
                            Err(status) => self.wrong_status(index, address, status),
                        }
                    }
                }
            }
        }
        ControlFlow::Continue(siblings)
    }

    /// Breaks with the replica that arrives, or logs why it is refused. Returns true if it is not current as of `not_before`, and
    /// soon will be.
    async fn accept(
        &mut self,
        index: usize,
        arriving: Arriving,
        directory: &mut ReplicaDir,
        not_before: Option<Instant>,
    ) -> ControlFlow<Taken, bool> {
        let (from, modified) = (arriving.from.clone(), arriving.modified);
        if modified.is_some() && self.refused[index] == modified {
            return ControlFlow::Continue(false);
        }
        match self.receive(arriving, directory, not_before).await {
            Ok(Received::Complete(taken)) => {
                self.logged.clear();
                ControlFlow::Break(taken)
            }
            Ok(Received::TooOld(age)) => ControlFlow::Continue(age < SIBLING_RECENT),
            Err(why) => {
                self.refuse(index, &from, why);
                self.refused[index] = modified;
                ControlFlow::Continue(false)
            }
        }
    }

    fn refuse(&mut self, index: usize, from: &dyn fmt::Display, why: Reason) {
        if self.logged.insert((index, why.clone())) {
            tracing::warn!("the replica from {from} is refused: {why}");
        }
    }

    /// Logs that a source is not there, which is normal for the first instance that starts.
    fn absent(&mut self, index: usize, from: &dyn fmt::Display, why: &io::Error) {
        if self.logged.insert((index, why.to_string())) {
            tracing::info!("no replica was found at {from}: {why}");
        }
    }

    /// Logs an answer without a replica.
    fn wrong_status(&mut self, index: usize, address: SocketAddr, status: u16) {
        if !self.logged.insert((index, status.to_string())) {
            return;
        }
        match status {
            503 => tracing::debug!("the sibling at {address} has no replica to give yet"),
            404 => tracing::warn!(
                "http://{address} answers {status} and gives no replica: check that it is the --admin-listen address of an \
                 instance that has a --fallback"
            ),
            _ => tracing::warn!("http://{address} answers {status} and gives no replica"),
        }
    }

    /// Receives a replica, unless it is older than `not_before`.
    async fn receive(
        &self,
        arriving: Arriving,
        directory: &mut ReplicaDir,
        not_before: Option<Instant>,
    ) -> Result<Received, Reason> {
        let Arriving { from, chunks, asked, modified } = arriving;
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
        // Asked while the records arrive, and not for a replica that is refused at each poll.
        let identity = ask_identity(&self.primary);
        let cannot_be_written = |error: Error| format!("it cannot be written: {}", error.report());
        let begun = Instant::now();
        let (snapshot, number) = directory.create_snapshot().await.map_err(cannot_be_written)?;
        let received = self.receive_records(&snapshot, &mut reader).await;
        let Trailer { token, as_of, .. } = match received {
            Ok(trailer) => trailer,
            Err(why) => {
                snapshot.retire();
                return Err(why);
            }
        };
        let remaining = VERIFY_TIMEOUT.saturating_sub(asked.elapsed());
        let known = timeout(remaining, identity).await.ok().and_then(|joined| joined.ok()?.ok());
        if let (Some(Some(known)), Some(identity)) = (&known, &header.identity)
            && known != identity
        {
            snapshot.retire();
            return Err(ANOTHER_COLLECTION.to_owned());
        }
        snapshot.set_identity(header.identity);
        snapshot.set_token(token.clone());
        self.replica.mark_current_since(&snapshot, age + asked.elapsed());
        if let Some(time) = as_of {
            self.replica.mark_as_of(&snapshot, time);
        }
        Ok(Received::Complete(Taken { snapshot, number, begun, from, token, is_unverified: known.is_none() }))
    }

    async fn receive_records<S>(&self, snapshot: &Arc<Snapshot>, reader: &mut Reader<S>) -> Result<Trailer, Reason>
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
                let written = write(snapshot, std::mem::take(&mut changes), self.size_limit).await;
                written.map_err(|error| match error {
                    WriteError::Failed(error) => format!("it cannot be written: {}", error.report()),
                    WriteError::TooLarge => "it is larger than --fallback-size-limit".to_owned(),
                })?;
            }
            if let Some(trailer) = end {
                return Ok(trailer);
            }
        }
    }
}

/// Asks the primary which collection there is. A future of the driver must not be dropped, so it has a task of its own.
fn ask_identity(primary: &Arc<dyn Store>) -> JoinHandle<store::Result<Option<String>>> {
    let primary = primary.clone();
    tokio::spawn(async move { primary.identity().await })
}

/// Returns the identity of the primary's collection, if the primary tells it in time.
pub async fn identity(primary: &Arc<dyn Store>, within: Duration) -> Option<String> {
    timeout(within, ask_identity(primary)).await.ok()?.ok()?.ok()?
}
