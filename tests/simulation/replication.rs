//! Replication from a primary that is slow, away, cut off or silent.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, join_all, pending};
use futures::stream::{self, StreamExt, TryStreamExt};
use records::document::extended_json;
use records::record::{Document, Key, RecordId};
use records::store::fallback::{self, Mode, Settings, Source};
use records::store::{
    Change, ChangeBatch, ChangeStream, ChangeStreamError, Error, GetResult, ListRequest, ListResult, MetricValue,
    Options, Result, ResumeToken, SnapshotRows, Store,
};
use rstest::rstest;
use tempfile::{NamedTempFile, TempDir};
use tokio::time::{Instant, sleep, timeout};

const AFTER: Duration = Duration::from_millis(250);
const RECORDS: i64 = 5_000;

/// The faults of the primary, which a test sets as it goes on.
#[derive(Default)]
struct Faults {
    is_away: AtomicBool,
    /// Lookups and pings take longer than the fallback waits.
    is_slow: AtomicBool,
    /// Lookups are never answered.
    stalls: AtomicBool,
    /// Every second lookup fails.
    fails_half: AtomicBool,
    /// The change stream panics.
    panics: AtomicBool,
    /// The change stream is silent: it proves nothing.
    is_silent: AtomicBool,
    /// A resumed change stream still reads what has happened meanwhile.
    is_catching_up: AtomicBool,
    /// The change stream loses its history at once.
    loses_history: AtomicBool,
    /// The number of rows after which a snapshot fails; 0 for never.
    cut_after: AtomicU64,
    /// A snapshot that goes on fails before its first row, the first time.
    fails_to_go_on: AtomicBool,
}

#[derive(Default)]
struct World {
    faults: Faults,
    changes: Mutex<Vec<Change>>,
    scans: Mutex<Vec<Instant>>,
    rows: AtomicU64,
    lookups: AtomicU64,
    identities: AtomicU64,
}

#[derive(Clone, Default)]
struct Primary(Arc<World>);

fn record(id: i64) -> Document {
    extended_json::parse(format!(r#"{{"_id":{id},"text":"some text"}}"#).as_bytes()).expect("a document")
}

fn on(fault: &AtomicBool) -> bool {
    fault.load(Ordering::Relaxed)
}

fn set(fault: &AtomicBool, is_on: bool) {
    fault.store(is_on, Ordering::Relaxed);
}

fn settings(mode: Mode, size_limit: u64) -> Settings {
    Settings {
        url: "memory:".to_owned(),
        source: "simulation".to_owned(),
        scope: String::new(),
        mode,
        timeout: AFTER,
        max_age: None,
        first_snapshot_within: Duration::ZERO,
        snapshot_interval: Duration::from_secs(60),
        audit_interval: Duration::ZERO,
        size_limit,
        from: Vec::new(),
        save: None,
        options: Options::default(),
    }
}

impl Primary {
    async fn over(&self, mode: Mode, size_limit: u64) -> Arc<dyn Store> {
        self.over_with(settings(mode, size_limit)).await
    }

    async fn over_with(&self, settings: Settings) -> Arc<dyn Store> {
        fastrand::seed(7);
        fallback::over(Arc::new(self.clone()), settings).await.expect("a fallback")
    }

    fn faults(&self) -> &Faults {
        &self.0.faults
    }

    async fn call(&self) -> Result<()> {
        sleep(Duration::from_millis(if on(&self.faults().is_slow) { 300 } else { 1 })).await;
        if on(&self.faults().is_away) { Err(Error::unavailable("away")) } else { Ok(()) }
    }

    fn scans_within(&self, time: Duration) -> usize {
        let scans = self.0.scans.lock().unwrap();
        scans.iter().filter(|at| at.duration_since(scans[0]) < time).count()
    }
}

impl Store for Primary {
    fn get<'a>(&'a self, _: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        Box::pin(async {
            let number = self.0.lookups.fetch_add(1, Ordering::Relaxed);
            if on(&self.faults().stalls) {
                pending::<()>().await;
            }
            self.call().await?;
            match on(&self.faults().fails_half) && number.is_multiple_of(2) {
                true => Err(Error::unavailable("half")),
                false => Ok(Some(record(1)).into()),
            }
        })
    }

    fn list(&self, _: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        Box::pin(async { Err(Error::unavailable("no list is asked for")) })
    }

    fn upsert(&self, _: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Error::broken("the test does not write")) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.call())
    }

    fn identity(&self) -> BoxFuture<'_, Result<Option<String>>> {
        self.0.identities.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(Some("the collection".to_owned())) })
    }

    fn snapshot(&self, after: Option<Key>) -> BoxFuture<'_, Result<SnapshotRows>> {
        Box::pin(async move {
            self.call().await?;
            if after.is_some() && self.faults().fails_to_go_on.swap(false, Ordering::Relaxed) {
                return Err(Error::unavailable("too slow"));
            }
            self.0.scans.lock().unwrap().push(Instant::now());
            let from = after.map_or(0, |after| (0..RECORDS).find(|id| Key::int64(*id) > after).unwrap_or(RECORDS));
            let (primary, cut) = (self.clone(), self.faults().cut_after.load(Ordering::Relaxed) as i64);
            let row = move |id: i64| {
                primary.0.rows.fetch_add(1, Ordering::Relaxed);
                match cut > 0 && id >= from + cut {
                    true => Err(Error::unavailable("cut off")),
                    false => Ok(record(id).into()),
                }
            };
            // The stream ends with the error.
            let end = if cut > 0 { RECORDS.min(from + cut + 1) } else { RECORDS };
            let rows = stream::iter(from..end).map(row);
            Ok(SnapshotRows { rows: rows.boxed(), is_in_order: true })
        })
    }

    fn changes(&self, after: Option<ResumeToken>) -> ChangeStream {
        let begin = (self.clone(), false, after.is_some());
        let batches = stream::unfold(Some(begin), |state| async move {
            let (primary, is_open, resumes) = state?;
            sleep(Duration::from_millis(if is_open { 100 } else { 5 })).await;
            let faults = primary.faults();
            assert!(!on(&faults.panics), "a bug");
            if on(&faults.is_away) {
                return Some((Err(ChangeStreamError::Unavailable(Error::unavailable("away"))), None));
            }
            if on(&faults.loses_history) && (is_open || resumes) {
                return Some((Err(ChangeStreamError::HistoryLost("a test".to_owned())), None));
            }
            let changes = if is_open { std::mem::take(&mut *primary.0.changes.lock().unwrap()) } else { Vec::new() };
            let is_catching_up = resumes && is_open && on(&faults.is_catching_up);
            let is_silent = !is_open || is_catching_up || on(&faults.is_silent);
            let (token, current) = (Some(ResumeToken([1].into())), (!is_silent).then(Instant::now));
            let batch = ChangeBatch { changes, token, current, is_catching_up, ..ChangeBatch::default() };
            Some((Ok(batch), Some((primary, true, resumes))))
        });
        batches.boxed()
    }
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a primary")
    }
}

async fn degraded(store: &dyn Store) -> Option<String> {
    store.health().await.expect("health").degraded
}

async fn until_ready(store: &dyn Store) -> Duration {
    let begin = Instant::now();
    while degraded(store).await.is_some() {
        assert!(begin.elapsed() < Duration::from_secs(300), "{:?}", degraded(store).await);
        sleep(Duration::from_millis(50)).await;
    }
    begin.elapsed()
}

/// The state whose series is 1.
fn state_of(store: &dyn Store, name: &str) -> &'static str {
    let metric = store.metrics().into_iter().find(|metric| metric.name == name).expect("a metric");
    let MetricValue::Gauges { values, .. } = metric.value else { panic!("{metric:?}") };
    let current: Vec<_> = values.iter().filter(|(_, value)| *value == 1.0).map(|(name, _)| *name).collect();
    assert_eq!(current.len(), 1, "{values:?}");
    current[0]
}

async fn get(store: &dyn Store) -> Result<GetResult> {
    store.get(&"1".into()).await
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_slow_is_ready_as_long_as_lookups_are_answered() {
    let primary = Primary::default();
    // The replica is larger than allowed.
    let store = primary.over(Mode::Standby, 1_000).await;
    set(&primary.faults().is_slow, true);
    sleep(Duration::from_secs(5)).await;
    for _ in 0..40 {
        assert!(get(&*store).await.is_ok());
        let degraded = degraded(&*store).await;
        assert!(degraded.is_some_and(|degraded| degraded.contains("MongoDB answers, but")));
    }
    set(&primary.faults().is_away, true);
    assert!(get(&*store).await.is_err());
    assert!(store.health().await.is_err());
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn a_lookup_that_waits_for_the_primary_is_answered_by_a_replica_that_is_made_meanwhile(
    #[values(Mode::Standby, Mode::Replica)] mode: Mode,
) {
    let primary = Primary::default();
    set(&primary.faults().stalls, true);
    set(&primary.faults().is_away, true);
    let store = primary.over(mode, u64::MAX).await;
    let id = RecordId::from("1");
    let mut lookup = store.get(&id);
    assert!(timeout(Duration::from_secs(5), &mut lookup).await.is_err());
    set(&primary.faults().is_away, false);
    let answer = timeout(Duration::from_secs(60), lookup).await.expect("an answer in time").expect("an answer");
    assert!(answer.document.is_some() && answer.staleness.is_some(), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_waits_is_answered_by_a_replica_that_is_no_longer_too_old() {
    let primary = Primary::default();
    let max_age = Some(Duration::from_secs(5));
    let store = primary.over_with(Settings { max_age, ..settings(Mode::Standby, u64::MAX) }).await;
    until_ready(&*store).await;
    set(&primary.faults().stalls, true);
    set(&primary.faults().is_away, true);
    sleep(Duration::from_secs(60)).await;
    let id = RecordId::from("1");
    let mut lookup = store.get(&id);
    assert!(timeout(Duration::from_secs(5), &mut lookup).await.is_err());
    // The link is back, and nothing was written meanwhile.
    set(&primary.faults().is_away, false);
    let answer = timeout(Duration::from_secs(5), lookup).await.expect("an answer in time").expect("an answer");
    assert!(answer.staleness.is_some(), "{answer:?}");
}

/// A file with the replica of a primary that `settings` name.
async fn file_of(settings: Settings) -> NamedTempFile {
    let store = Primary::default().over_with(settings).await;
    until_ready(&*store).await;
    let stream = store.replica().expect("a fallback").body.expect("a replica");
    let bytes: Vec<_> = stream.try_collect().await.expect("a whole stream");
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), bytes.concat()).expect("a file");
    file
}

/// Otherwise each of many instances would cost the primary a question at every poll, and for every sibling.
#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_used_costs_the_primary_nothing() {
    let primary = Primary::default();
    let settings = settings(Mode::Replica, u64::MAX);
    let file = file_of(settings.clone()).await;
    let from = vec![Source::File(file.path().to_owned())];
    let identities = || primary.0.identities.swap(0, Ordering::Relaxed);
    let others = Settings { source: "another".to_owned(), from: from.clone(), ..settings.clone() };
    let store = primary.over_with(others).await;
    until_ready(&*store).await;
    assert_eq!((identities(), primary.scans_within(Duration::from_secs(60))), (1, 1));
    drop(store);
    let store = primary.over_with(Settings { from, ..settings }).await;
    until_ready(&*store).await;
    assert_eq!((identities(), primary.scans_within(Duration::from_secs(60))), (1, 1));
    // A scan is needed, and the file is too old.
    set(&primary.faults().loses_history, true);
    sleep(Duration::from_millis(200)).await;
    set(&primary.faults().loses_history, false);
    until_ready(&*store).await;
    assert_eq!((identities(), primary.scans_within(Duration::from_secs(60))), (1, 2));
}

/// Waits until no store uses the directory of a replica.
async fn until_free(directory: &Path) {
    let lock = fs::File::open(directory.join("LOCK")).expect("a lock");
    while lock.try_lock().is_err() {
        sleep(Duration::from_millis(5)).await;
    }
}

#[rstest]
#[case::damaged(|snapshot: &Path| fs::write(snapshot.join("FORMAT"), "damaged"))]
#[case::missing(|snapshot: &Path| fs::remove_dir_all(snapshot))]
#[tokio::test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
async fn a_replica_that_has_replaced_an_unreadable_one_outlives_a_scan_that_fails(
    #[case] damage: fn(&Path) -> io::Result<()>,
) {
    let (primary, directory) = (Primary::default(), TempDir::new().expect("a directory"));
    let file = file_of(settings(Mode::Replica, u64::MAX)).await;
    let stored = Settings { url: format!("sled:{}", directory.path().display()), ..settings(Mode::Replica, u64::MAX) };
    let store = primary.over_with(stored.clone()).await;
    until_ready(&*store).await;
    drop(store);
    until_free(directory.path()).await;
    damage(&directory.path().join("1")).expect("a snapshot");
    let from = vec![Source::File(file.path().to_owned())];
    let store = primary.over_with(Settings { from, ..stored.clone() }).await;
    until_ready(&*store).await;
    assert!(!directory.path().join("1").exists());
    // A scan becomes necessary, and fails.
    let scans = || primary.0.scans.lock().unwrap().len();
    assert_eq!(scans(), 1);
    primary.faults().cut_after.store(1, Ordering::Relaxed);
    set(&primary.faults().loses_history, true);
    while scans() == 1 {
        sleep(Duration::from_millis(5)).await;
    }
    drop(store);
    until_free(directory.path()).await;
    set(&primary.faults().is_away, true);
    let store = primary.over_with(stored).await;
    assert!(get(&*store).await.expect("the replica's answer").staleness.is_some());
}

#[tokio::test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
async fn a_stored_replica_above_a_lowered_limit_is_dropped_without_a_write() {
    let (primary, directory) = (Primary::default(), TempDir::new().expect("a directory"));
    let stored = Settings { url: format!("sled:{}", directory.path().display()), ..settings(Mode::Replica, u64::MAX) };
    let store = primary.over_with(stored.clone()).await;
    until_ready(&*store).await;
    drop(store);
    until_free(directory.path()).await;
    let store = primary.over_with(Settings { size_limit: 1_000, ..stored }).await;
    assert!(get(&*store).await.expect("the replica's answer").staleness.is_some());
    let state = || state_of(&*store, "fallback_replica_sync_state");
    while state() == "interrupted" {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(state(), "too_large");
    while get(&*store).await.expect("an answer").staleness.is_some() {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_round_trip_that_stalls_is_one_failure_however_many_lookups_wait_for_it() {
    let primary = Primary::default();
    let store = primary.over(Mode::Standby, u64::MAX).await;
    until_ready(&*store).await;
    set(&primary.faults().stalls, true);
    let batch = join_all((0..128).map(|_| get(&*store)));
    for found in batch.await {
        assert!(found.expect("an answer").staleness.is_some());
    }
    assert_eq!(state_of(&*store, "circuit_breaker_state"), "closed");
    set(&primary.faults().stalls, false);
    assert_eq!(get(&*store).await.expect("an answer").staleness, None);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_if_half_of_the_round_trips_fail_and_closes_after_two_probes() {
    let primary = Primary::default();
    let store = primary.over(Mode::Standby, u64::MAX).await;
    until_ready(&*store).await;
    set(&primary.faults().fails_half, true);
    for _ in 0..20 {
        assert!(get(&*store).await.is_ok());
        sleep(Duration::from_millis(50)).await;
        if state_of(&*store, "circuit_breaker_state") != "closed" {
            break;
        }
    }
    assert_ne!(state_of(&*store, "circuit_breaker_state"), "closed");
    set(&primary.faults().fails_half, false);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(state_of(&*store, "circuit_breaker_state"), "half_open");
    sleep(Duration::from_millis(300)).await;
    assert_eq!(state_of(&*store, "circuit_breaker_state"), "closed");
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_cut_off_goes_on_after_its_last_key(#[values(false, true)] fails_to_go_on: bool) {
    let primary = Primary::default();
    set(&primary.faults().fails_to_go_on, fails_to_go_on);
    primary.faults().cut_after.store(1_500, Ordering::Relaxed);
    let store = primary.over(Mode::Replica, u64::MAX).await;
    until_ready(&*store).await;
    assert_eq!(store.list(ListRequest::default()).await.expect("a list").rows.count().await, RECORDS as usize);
    // Each record is sent once, and an error for each cut.
    assert_eq!(primary.0.rows.load(Ordering::Relaxed), RECORDS as u64 + 3);
}

#[tokio::test(start_paused = true)]
async fn snapshots_that_keep_failing_become_rare() {
    let primary = Primary::default();
    primary.faults().cut_after.store(RECORDS as u64 / 2, Ordering::Relaxed);
    // A snapshot cannot go on.
    set(&primary.faults().loses_history, true);
    let _store = primary.over(Mode::Standby, u64::MAX).await;
    sleep(Duration::from_secs(600)).await;
    let (first, all) = (primary.scans_within(Duration::from_secs(10)), primary.scans_within(Duration::from_secs(600)));
    let sent = primary.0.rows.load(Ordering::Relaxed) as f64 / RECORDS as f64;
    eprintln!("{first} scans in the first 10 s, {all} in 10 minutes, which send {sent:.1} times the collection");
    assert!((2..=10).contains(&first), "{first} scans in the first 10 s");
    assert!((20..=80).contains(&all), "{all} scans in 10 minutes");
}

#[tokio::test(start_paused = true)]
async fn a_history_that_is_lost_again_and_again_does_not_cause_a_scan_each_time() {
    let primary = Primary::default();
    set(&primary.faults().loses_history, true);
    let store = primary.over(Mode::Standby, u64::MAX).await;
    sleep(Duration::from_secs(10)).await;
    let scans = primary.scans_within(Duration::from_secs(10));
    assert!((2..=10).contains(&scans), "{scans} scans in 10 s");
    set(&primary.faults().loses_history, false);
    assert!(until_ready(&*store).await < Duration::from_secs(31));
}

#[tokio::test(start_paused = true)]
async fn a_change_stream_that_proves_nothing_leaves_a_replica_that_is_refreshed() {
    let primary = Primary::default();
    set(&primary.faults().is_silent, true);
    let store = primary.over(Mode::Replica, u64::MAX).await;
    assert!(until_ready(&*store).await < Duration::from_secs(10));
    assert_eq!(state_of(&*store, "fallback_replica_sync_state"), "refreshing");
    let age = async || get(&*store).await.expect("an answer").staleness.expect("an age").as_secs();
    assert!((8..=10).contains(&age().await), "{}", age().await);
    sleep(Duration::from_secs(300)).await;
    // The age is bounded by the interval and the time-out for a proof.
    assert!(age().await <= 75, "{}", age().await);
    assert!((4..=7).contains(&primary.scans_within(Duration::from_secs(300))));
    set(&primary.faults().is_silent, false);
    sleep(Duration::from_secs(75)).await;
    assert_eq!(state_of(&*store, "fallback_replica_sync_state"), "following");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_catches_up_for_half_a_minute_needs_no_snapshot() {
    let primary = Primary::default();
    let store = primary.over(Mode::Replica, u64::MAX).await;
    until_ready(&*store).await;
    set(&primary.faults().is_away, true);
    sleep(Duration::from_secs(60)).await;
    set(&primary.faults().is_catching_up, true);
    set(&primary.faults().is_away, false);
    sleep(Duration::from_secs(30)).await;
    set(&primary.faults().is_catching_up, false);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(state_of(&*store, "fallback_replica_sync_state"), "following");
    assert_eq!(primary.0.scans.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_replicator_that_panicked_starts_again() {
    let primary = Primary::default();
    let store = primary.over(Mode::Standby, u64::MAX).await;
    until_ready(&*store).await;
    set(&primary.faults().panics, true);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(state_of(&*store, "fallback_replica_sync_state"), "interrupted");
    set(&primary.faults().panics, false);
    assert!(until_ready(&*store).await < Duration::from_secs(31));
    assert_eq!(state_of(&*store, "fallback_replica_sync_state"), "following");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_outgrows_its_limit_answers_until_the_primary_does() {
    let primary = Primary::default();
    let store = primary.over(Mode::Replica, 2_000_000).await;
    until_ready(&*store).await;
    set(&primary.faults().is_slow, true);
    // The last changes before the primary is away.
    let grown = (RECORDS..4 * RECORDS).map(|id| Change::Put(record(id))).collect();
    *primary.0.changes.lock().unwrap() = grown;
    sleep(Duration::from_millis(150)).await;
    set(&primary.faults().is_away, true);
    for _ in 0..60 {
        sleep(Duration::from_secs(1)).await;
        assert!(get(&*store).await.expect("the replica's answer").staleness.is_some());
    }
    assert_eq!(state_of(&*store, "fallback_replica_sync_state"), "too_large");
    set(&primary.faults().is_away, false);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(get(&*store).await.expect("the primary's answer").staleness, None);
    assert!(degraded(&*store).await.is_some_and(|degraded| degraded.contains("larger than allowed")));
}
