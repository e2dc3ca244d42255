//! A store made of two: a primary, and an embedded replica that answers when the primary does not.
//!
//! The primary may be any store, and the replica any embedded store.
//!
//! - [`replica`] is the replica as readers see it: complete or unusable, and how old.
//! - [`replicator`] updates the replica in a task of its own: by a snapshot and the changes since, or by one snapshot after
//!   the other.
//! - [`bootstrap`] takes a replica from another instance or a file instead, and [`writes`] writes what comes from either.
//! - [`auditor`] compares the replica with the primary, a range at a time.
//! - [`backoff`] is the pause between its attempts.
//! - [`replica_dir`] holds the snapshots and the state that survives a restart; [`snapshot_dir`] is the directory of one,
//!   and [`moment`] a time that a later process understands.
//! - [`replica_stream`] is a replica as bytes, for another instance or a file; [`source`] is where such bytes come from,
//!   [`save`] writes the file, and [`scan_turn`] leaves the scan to one of many instances.
//! - [`circuit_breaker`] decides if requests go to the primary.
//! - [`metrics`] reports the state.
//!
//! # Guarantees
//!
//! - An answer comes from the primary, or from a replica that was complete once. The latter carries its age: the time since
//!   the replica was last known to be current. Its record is what the primary held at that moment or later.
//! - A replica that never was complete, is larger than allowed or older than allowed does not answer.
//! - A replica that failed to be written or read, perhaps since the disk is full, answers only while the primary does not. It
//!   is removed before the next snapshot, which may need its space.
//! - Reads of one replica never go back in time, record by record. Between the primary and the replica they may: in standby
//!   mode the two take turns.
//! - An audit that finds a difference from the primary distrusts the replica: it answers only while the primary does not, and is
//!   replaced.
//! - A reader may bound the staleness of its answer ([`Freshness`]). The replica never answers beyond the bound: the primary
//!   does, or the read fails.
//! - Writes go to the primary alone.

mod auditor;
mod backoff;
mod bootstrap;
mod circuit_breaker;
mod metrics;
mod moment;
mod replica;
mod replica_dir;
mod replica_stream;
mod replicator;
mod save;
mod scan_turn;
mod snapshot_dir;
mod source;
mod writes;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use futures::stream::BoxStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{
    AuditReport, CountResult, Error, Freshness, GetResult, Health, ListRequest, ListResult, Metric, Options, Precision,
    Refusal, Result, Store,
};
use crate::record::{Document, RecordId};
use circuit_breaker::CircuitBreaker;
use metrics::BoundedReads;
use replica::{Conditions, Replica, Unusable};
use replica_dir::ReplicaDir;
use replica_stream::Origin;
use replicator::Replicator;
pub use scan_turn::SCAN_HEADER;
pub use source::Source;

/// The time that a list may take to begin, and a ping to be answered, in units of the time of a lookup.
const PATIENCE: u32 = 4;

/// The bounded reads in progress at once that the replica did not answer first; in standby mode, these are all bounded reads
/// while MongoDB is healthy. More are refused, so that other requests have permits while the primary is slow.
const MAX_BOUNDED_READS: usize = 256;

const UNBOUNDED: Freshness =
    Freshness { max_staleness: None, max_staleness_on_error: None, only_replica: false, not_before: None };

const TOO_SLOW: &str = "MongoDB is too slow";

/// The half that answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// The primary, and the replica when the primary does not answer.
    #[default]
    Standby,
    /// The replica, and the primary as long as there is no replica.
    Replica,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// The URL of an embedded store, which holds nothing else. A directory gets a store for each snapshot.
    pub url: String,
    /// Identifies the primary, without secrets. A replica in a directory is used again for the same source only.
    pub source: String,
    /// The part of the primary's records that is shown, as a stable text; empty for all of it. A replica in a directory is used
    /// again for the same scope only, since it would show what is hidden now, or lack what is not.
    pub scope: String,
    pub mode: Mode,
    /// The time that the primary may take for a lookup before the replica answers, in standby mode; a list may take four
    /// times that to begin.
    pub timeout: Duration,
    /// The greatest age at which the replica still answers. `None`: any.
    pub max_age: Option<Duration>,
    /// The time within which the first snapshot starts, at random: many instances may start together.
    pub first_snapshot_within: Duration,
    /// The time from one snapshot to the next, where the primary has no change stream.
    pub snapshot_interval: Duration,
    /// The time from one audit of a range of the replica to the next. Zero turns audits off.
    pub audit_interval: Duration,
    /// The largest size of the replica: the bytes of the records' BSON, and [`replica::RECORD_BYTES`] for each.
    pub size_limit: u64,
    /// The places from which a replica is taken instead of a scan of the primary, in this order.
    pub from: Vec<Source>,
    /// The file to which the replica is written, and how often.
    pub save: Option<(PathBuf, Duration)>,
    /// Options for opening the replica.
    pub options: Options,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "memory:".to_owned(),
            source: String::new(),
            scope: String::new(),
            mode: Mode::default(),
            timeout: Duration::from_millis(250),
            max_age: None,
            first_snapshot_within: Duration::ZERO,
            snapshot_interval: Duration::from_secs(60),
            audit_interval: Duration::ZERO,
            size_limit: u64::MAX,
            from: Vec::new(),
            save: None,
            options: Options::default(),
        }
    }
}

/// A replica for another instance.
pub struct ReplicaExport {
    /// The value of [`SCAN_HEADER`], while this instance needs a scan of the primary.
    pub scan: Option<String>,
    /// The bytes of the replica; `Unavailable` if there is no complete one.
    pub body: Result<BoxStream<'static, Result<Bytes>>>,
}

impl Settings {
    fn origin(&self) -> Origin {
        Origin { source: self.source.clone(), scope: self.scope.clone() }
    }
}

#[derive(Clone)]
pub struct Fallback {
    inner: Arc<Inner>,
}

struct Inner {
    primary: Arc<dyn Store>,
    replica: Arc<Replica>,
    breaker: Arc<CircuitBreaker>,
    mode: Mode,
    timeout: Duration,
    bounded_read_permits: Semaphore,
    bounded: BoundedReads,
    /// For the metrics.
    size_limit: u64,
    origin: Origin,
    /// Aborted with the store.
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// Checks that the replica can be where `settings` say, and be saved, as far as that needs no new files.
///
/// # Errors
///
/// `Invalid`, with the reason.
pub async fn check(settings: &Settings) -> Result<()> {
    replica_dir::check(&settings.url).await?;
    let Some((path, _)) = &settings.save else { return Ok(()) };
    replica_dir::check_outside(&settings.url, path)?;
    save::check(path).await
}

/// Adds a replica to `primary`, and starts to replicate. Does not wait for the primary.
///
/// # Errors
///
/// When the replica's store is not an embedded one or cannot be opened, or the replica cannot be saved. A damaged replica of an
/// earlier run is replaced instead.
pub async fn over(primary: Arc<dyn Store>, settings: Settings) -> Result<Arc<dyn Store>> {
    check(&settings).await?;
    if let Some((path, _)) = &settings.save {
        save::check_directory(path).await?;
    }
    let replica = Arc::new(Replica::new(settings.max_age));
    let (directory, stored) = ReplicaDir::open(&settings, &replica).await?;
    let breaker = Arc::new(CircuitBreaker::default());
    let replicator = Replicator::new(primary.clone(), replica.clone(), directory, stored, &settings);
    let mut tasks = vec![
        tokio::spawn(replicator.run()),
        tokio::spawn(circuit_breaker::probe(breaker.clone(), primary.clone(), settings.timeout)),
    ];
    let origin = settings.origin();
    if let Some((path, interval)) = settings.save {
        tasks.push(tokio::spawn(save::save(replica.clone(), origin.clone(), path, interval)));
    }
    if !settings.audit_interval.is_zero() {
        tasks.push(tokio::spawn(auditor::run(primary.clone(), replica.clone(), settings.audit_interval)));
    }
    let _tasks = tasks.into_iter().map(AbortOnDropHandle::new).collect();
    let Settings { mode, timeout, size_limit, .. } = settings;
    let (bounded_read_permits, bounded) = (Semaphore::new(MAX_BOUNDED_READS), BoundedReads::default());
    let inner =
        Inner { primary, replica, breaker, mode, timeout, bounded_read_permits, bounded, size_limit, origin, _tasks };
    Ok(Arc::new(Fallback { inner: Arc::new(inner) }))
}

/// The outcome of waiting for the primary.
enum Raced<T> {
    Answered(T),
    /// The time is up, or other calls have opened the breaker. The primary may still answer.
    StillPending,
}

impl Inner {
    fn prefers_replica(&self) -> bool {
        self.mode == Mode::Replica || !self.breaker.is_closed()
    }

    /// Waits for the primary while that is useful, and records the outcome. `on_timeout` decides if a slow call is a failure.
    async fn race_primary<T>(
        &self,
        call: &mut (impl Future<Output = Result<T>> + Unpin),
        within: Duration,
        on_timeout: impl FnOnce(Instant),
    ) -> Raced<Result<T>> {
        let began = Instant::now();
        let give_up = async {
            tokio::select! {
                biased;
                () = self.breaker.wait_until_open() => {}
                () = tokio::time::sleep(within) => on_timeout(began),
            }
        };
        tokio::select! {
            biased;
            answer = call => {
                match &answer {
                    Err(error) if error.is_unavailable() && error.refusal().is_none() => match error.remedy() {
                        None => self.breaker.record_failure(began, &error.report().to_string()),
                        // The primary refuses this call for good, and perhaps no other.
                        Some(_) => self.probe_primary(),
                    },
                    // Any other error is an answer too. So is a refusal: the primary refuses a cluster time that it has not
                    // reached only after it has answered.
                    _ => self.breaker.record_success(),
                }
                Raced::Answered(answer)
            }
            () = give_up => Raced::StillPending,
        }
    }

    /// Pings the primary after a slow list, or a call that it refuses. These alone are no failure: clients can ask for what takes
    /// long, or cannot be carried out, of a primary that works.
    fn probe_primary(&self) {
        let (primary, breaker, within) = (self.primary.clone(), self.breaker.clone(), self.timeout * PATIENCE);
        tokio::spawn(async move {
            let began = Instant::now();
            match timeout(within, primary.ping()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => breaker.record_failure(began, &error.report().to_string()),
                Err(_) => breaker.record_failure(began, TOO_SLOW),
            }
        });
    }

    /// The conditions under which the replica answers before the primary is asked.
    fn conditions(&self, freshness: &Freshness) -> Conditions {
        match self.breaker.is_closed() {
            // A replica that has failed is not read first where the primary may answer.
            true => Conditions {
                only_healthy: true,
                max_staleness: freshness.max_staleness,
                not_before: freshness.not_before,
            },
            false => conditions_on_error(freshness),
        }
    }

    /// Reads from the half that answers, in the order of the mode. `within` is the time that the primary may take before the
    /// replica answers.
    ///
    /// A bounded read that the replica cannot answer waits for the replica to reach its cluster time, and is refused at once where
    /// the primary is known to be away, or where too many such reads wait.
    async fn read<'a, T, R: Future<Output = Option<Result<T>>>>(
        &self,
        freshness: &Freshness,
        within: Duration,
        on_timeout: impl FnOnce(Instant),
        ask_replica: impl Fn(Conditions) -> R,
        ask_primary: impl FnOnce() -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let is_for_replica = || self.prefers_replica() || freshness.only_replica;
        let ask_first = || ask_replica(self.conditions(freshness));
        if is_for_replica()
            && let Some(answer) = ask_first().await
        {
            return answer;
        }
        let is_bounded = freshness.is_bounded();
        let too_stale = |why| Error::refused(Refusal::TooStale, why);
        let permit = is_bounded.then(|| self.bounded_read_permits.try_acquire()).transpose();
        let _permit = permit.map_err(|_| too_stale("too many reads with bounds wait"))?;
        if let Some(time) = freshness.not_before
            && is_for_replica()
            && self.replica.served().is_ok_and(|served| served.as_of().is_some())
            && timeout(self.timeout, self.replica.wait_for(time)).await.is_ok()
            && let Some(answer) = ask_first().await
        {
            return answer;
        }
        if freshness.only_replica {
            return Err(Error::refused(Refusal::NotInReplica, "the replica has no answer that the request accepts"));
        }
        if is_bounded && !self.breaker.is_closed() {
            return Err(too_stale("MongoDB is unreachable; the replica is too stale for the request"));
        }
        let on_error = conditions_on_error(freshness);
        let mut call = ask_primary();
        let answer = match self.race_primary(&mut call, within, on_timeout).await {
            Raced::Answered(answer) => answer,
            Raced::StillPending => loop {
                let progressed = self.replica.progressed();
                if let Some(answer) = ask_replica(on_error).await {
                    break answer;
                }
                tokio::select! {
                    biased;
                    answer = &mut call => break answer,
                    // A replica that was not usable, or too stale, may be usable now.
                    () = progressed => {}
                }
            },
        };
        let answer = match answer {
            Err(error) if error.is_unavailable() => ask_replica(on_error).await.unwrap_or(Err(error)),
            answer => answer,
        };
        answer.map_err(|error| match is_bounded && error.is_unavailable() && error.refusal().is_none() {
            true => too_stale("MongoDB did not answer; the replica is too stale for the request").with_source(error),
            false => error,
        })
    }

    async fn get(&self, id: &RecordId, freshness: &Freshness) -> Result<GetResult> {
        let for_primary = Freshness { not_before: freshness.not_before, ..UNBOUNDED };
        let read = self.read(
            freshness,
            self.timeout,
            |began| match freshness.not_before {
                None => self.breaker.record_failure(began, TOO_SLOW),
                // A reader may name a time that the primary does not reach.
                Some(_) => self.probe_primary(),
            },
            |conditions| ready(self.replica.get(id, conditions).map(Ok)),
            || match for_primary.not_before {
                None => self.primary.get(id),
                Some(_) => self.primary.get_fresh(id, &for_primary),
            },
        );
        let answer = read.await;
        self.count(freshness, &answer, |found| found.staleness);
        answer
    }

    /// The first row decides which half answers: from then on a list comes from that half, to its end.
    async fn list(&self, request: ListRequest) -> Result<ListResult> {
        let freshness = request.freshness;
        let for_primary = Freshness { not_before: freshness.not_before, ..UNBOUNDED };
        let read = self.read(
            &freshness,
            self.timeout * PATIENCE,
            |_| self.probe_primary(),
            |conditions| self.replica.list(request.clone(), conditions),
            || self.primary.list(ListRequest { freshness: for_primary, ..request.clone() }),
        );
        let answer = read.await;
        self.count(&freshness, &answer, |list| list.staleness);
        answer
    }

    /// Counts a bounded read by what became of it.
    fn count<T>(&self, freshness: &Freshness, answer: &Result<T>, staleness: impl FnOnce(&T) -> Option<Duration>) {
        if !freshness.is_bounded() {
            return;
        }
        let counter = match answer {
            Ok(answer) if staleness(answer).is_some() => &self.bounded.replica,
            Ok(_) => &self.bounded.primary,
            Err(error) if error.is_unavailable() => &self.bounded.refused,
            Err(_) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts in the half that would answer a list.
    async fn count_documents(&self, request: ListRequest, precision: Precision) -> Result<Option<CountResult>> {
        let for_primary = Freshness { not_before: request.freshness.not_before, ..UNBOUNDED };
        let read = self.read(
            &request.freshness,
            self.timeout * PATIENCE,
            |_| self.probe_primary(),
            |conditions| self.replica.count(request.clone(), precision, conditions),
            || self.primary.count(ListRequest { freshness: for_primary, ..request.clone() }, precision),
        );
        read.await
    }

    /// Returns `Ok` if a lookup would be answered now, as [`get`](Self::get) does it: by the replica if it can answer, else by
    /// the primary, which is waited for however slow it is and whatever the breaker says.
    async fn health(&self) -> Result<Health> {
        let age = match self.replica.age() {
            Ok(age) => age.as_secs(),
            Err(unusable) => {
                let health = self.primary.health().await.map_err(|error| {
                    let reason = error.reason();
                    let unusable = Error::unavailable(format!("MongoDB does not answer, and {unusable}"));
                    let unusable = unusable.with_source(error);
                    reason.into_iter().fold(unusable, Error::with_reason)
                })?;
                let warning = format!("MongoDB answers, but {unusable}");
                return Ok(Health { degraded: join([health.degraded, Some(warning)]), is_from_replica: false });
            }
        };
        let primary = match self.breaker.is_closed() {
            true => timeout(self.timeout * PATIENCE, self.primary.health()).await.ok().and_then(Result::ok),
            false => None,
        };
        let Some(health) = primary else {
            let degraded = format!("MongoDB is unreachable; the fallback replica from {age} s ago answers");
            return Ok(Health { degraded: Some(degraded), is_from_replica: true });
        };
        let is_stale = !self.replica.is_in_sync();
        let warning = is_stale.then(|| format!("the fallback replica is from {age} s ago and is not updated"));
        let differences = self.replica.served().map_or(0, |served| served.differences());
        let differs = (differences > 0).then(|| {
            format!(
                "{differences} records of the fallback replica differ from MongoDB, and a new replica is being made"
            )
        });
        Ok(Health { degraded: join([health.degraded, differs.or(warning)]), is_from_replica: false })
    }
}

/// The conditions under which the replica answers once the primary has failed to.
fn conditions_on_error(freshness: &Freshness) -> Conditions {
    let Freshness { max_staleness_on_error: max_staleness, not_before, .. } = *freshness;
    Conditions { only_healthy: false, max_staleness, not_before }
}

fn join(warnings: [Option<String>; 2]) -> Option<String> {
    let warnings: Vec<_> = warnings.into_iter().flatten().collect();
    (!warnings.is_empty()).then(|| warnings.join("; "))
}

impl Store for Fallback {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        match self.try_get(id) {
            Some(answer) => Box::pin(std::future::ready(answer)),
            None => Box::pin(self.inner.get(id, &UNBOUNDED)),
        }
    }

    fn get_fresh<'a>(&'a self, id: &'a RecordId, freshness: &'a Freshness) -> BoxFuture<'a, Result<GetResult>> {
        Box::pin(self.inner.get(id, freshness))
    }

    fn try_get(&self, id: &RecordId) -> Option<Result<GetResult>> {
        let inner = &self.inner;
        if inner.prefers_replica() { inner.replica.get(id, inner.conditions(&UNBOUNDED)).map(Ok) } else { None }
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        Box::pin(self.inner.list(request))
    }

    fn count(&self, request: ListRequest, precision: Precision) -> BoxFuture<'_, Result<Option<CountResult>>> {
        Box::pin(self.inner.count_documents(request, precision))
    }

    fn audits(&self) -> [Option<AuditReport>; 2] {
        self.inner.replica.audits()
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        self.inner.primary.upsert(documents)
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health().map(|health| health.map(drop)).boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        self.inner.health().boxed()
    }

    fn replica(&self) -> Option<ReplicaExport> {
        let Inner { replica, origin, .. } = &*self.inner;
        let scan = replica.scan_turn.state().map(|state| state.to_string());
        Some(ReplicaExport { scan, body: replica_stream::write(replica, origin) })
    }

    fn metrics(&self) -> Vec<Metric> {
        let mut metrics = self.inner.primary.metrics();
        let Inner { replica, breaker, bounded, size_limit, .. } = &*self.inner;
        metrics.extend(metrics::metrics(replica, breaker, bounded, *size_limit));
        metrics
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with a fallback replica", self.inner.primary)
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "there is no complete fallback replica yet",
            Self::TooLarge => "the fallback replica would be larger than allowed",
            Self::TooOld => "the fallback replica is older than allowed",
        })
    }
}
