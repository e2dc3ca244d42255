//! The audits of a replica, over a primary whose change stream can forget a change.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use records::document::extended_json;
use records::query::{Cursor, Position, Sort};
use records::record::{Document, Key, RecordId};
use records::store::fallback::{self, Mode, Settings};
use records::store::{
    Change, ChangeBatch, ChangeStream, Error, GetResult, ListRequest, ListResult, MetricValue, Result, ResumeToken,
    SnapshotRows, Store,
};
use tokio::time::{Instant, sleep};

/// The audits with this outcome.
pub fn count(store: &dyn Store, outcome: &str) -> u64 {
    let metric = store.metrics().into_iter().find(|metric| metric.name == "fallback_audits").expect("a metric");
    let MetricValue::Counters { values, .. } = metric.value else { panic!("{metric:?}") };
    values.into_iter().find(|(name, _)| *name == outcome).expect("an outcome").1
}

#[derive(Default)]
struct World {
    records: BTreeMap<Key, Document>,
    changes: Vec<Change>,
    /// The time between two batches of changes.
    lag: Duration,
    /// The largest number of records that one list has read.
    longest: usize,
    scans: usize,
}

#[derive(Clone, Default)]
struct Primary(Arc<Mutex<World>>);

fn record(id: i64, n: i64) -> Document {
    extended_json::parse(format!(r#"{{"_id":{id},"n":{n}}}"#).as_bytes()).expect("a document")
}

impl Primary {
    fn with_records(count: i64, lag: Duration) -> Self {
        let primary = Self::default();
        primary.0.lock().unwrap().lag = lag;
        (0..count).for_each(|id| primary.put(id, 0, Feed::Told));
        primary.0.lock().unwrap().changes.clear();
        primary
    }

    fn put(&self, id: i64, n: i64, feed: Feed) {
        let document = record(id, n);
        let mut world = self.0.lock().unwrap();
        if feed == Feed::Told {
            world.changes.push(Change::Put(document.clone()));
        }
        world.records.insert(Key::int64(id), document);
    }

    fn remove(&self, id: i64, feed: Feed) {
        let mut world = self.0.lock().unwrap();
        world.records.remove(&Key::int64(id));
        if feed == Feed::Told {
            world.changes.push(Change::Remove(Key::int64(id)));
        }
    }

    async fn over(&self, mode: Mode, interval: Duration) -> Arc<dyn Store> {
        let settings = Settings { mode, audit_interval: interval, ..Settings::default() };
        let store = fallback::over(Arc::new(self.clone()), settings).await.expect("a fallback");
        while degraded(&*store).await.is_some() {
            sleep(Duration::from_millis(5)).await;
        }
        store
    }
}

/// The fate of a change in the change stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feed {
    Told,
    Forgotten,
}

impl Store for Primary {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        let found = id.keys().iter().find_map(|key| self.0.lock().unwrap().records.get(key).cloned());
        Box::pin(async { Ok(found.into()) })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        Box::pin(async move {
            // Each record is read at its own moment.
            let primary = self.clone();
            let rows = stream::unfold((request, 0), move |(mut request, read)| {
                let primary = primary.clone();
                async move {
                    if read % 10 == 0 {
                        sleep(Duration::from_millis(1)).await;
                    }
                    if request.limit == Some(read) {
                        return None;
                    }
                    let mut world = primary.0.lock().unwrap();
                    let after = request.after.as_ref().map(|after| after.position.split(&Sort::default()).unwrap().1);
                    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
                    let next = world.records.range((start, Bound::Unbounded)).next();
                    let (key, document) = next.map(|(key, document)| (key.clone(), document.clone()))?;
                    request.after = Some(Cursor { position: Position::of_key(&key), no_arrays: false });
                    world.longest = world.longest.max(read + 1);
                    Some((Ok(document.into()), (request, read + 1)))
                }
            });
            Ok(rows.boxed().into())
        })
    }

    fn upsert(&self, _: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Error::broken("the test does not write by the store")) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn snapshot(&self, _: Option<Key>) -> BoxFuture<'_, Result<SnapshotRows>> {
        let mut world = self.0.lock().unwrap();
        world.scans += 1;
        let rows: Vec<_> = world.records.values().cloned().map(|document| Ok(document.into())).collect();
        Box::pin(async { Ok(SnapshotRows { rows: stream::iter(rows).boxed(), is_in_order: true }) })
    }

    fn changes(&self, _: Option<ResumeToken>) -> ChangeStream {
        let batches = stream::unfold(self.clone(), |primary| async move {
            let lag = primary.0.lock().unwrap().lag;
            sleep(lag).await;
            let changes = std::mem::take(&mut primary.0.lock().unwrap().changes);
            let token = Some(ResumeToken([1].into()));
            Some((Ok(ChangeBatch { changes, token, current: Some(Instant::now()), ..ChangeBatch::default() }), primary))
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

/// Short, so that audits and changes overtake each other.
const SHORT_LAG: Duration = Duration::from_millis(20);
/// Long, so that hours without changes take few batches.
const LONG_LAG: Duration = Duration::from_secs(1);

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

#[tokio::test(start_paused = true)]
async fn a_planted_difference_is_found_within_the_hour_and_the_replica_is_replaced() {
    type Plant = fn(&Primary);
    let plants: [Plant; 3] = [
        |primary| primary.put(4_321, 1, Feed::Forgotten),
        |primary| primary.put(1_000_000, 1, Feed::Forgotten),
        |primary| primary.remove(0, Feed::Forgotten),
    ];
    for plant in plants {
        let primary = Primary::with_records(7_000, LONG_LAG);
        let store = primary.over(Mode::Replica, MINUTE).await;
        plant(&primary);
        let begun = Instant::now();
        let mut warning = None;
        while count(&*store, "different") == 0 {
            assert!(begun.elapsed() < HOUR + HOUR / 10, "it was not found");
            sleep(Duration::from_secs(1)).await;
        }
        while let Some(text) = degraded(&*store).await {
            warning.get_or_insert(text);
            sleep(Duration::from_millis(1)).await;
        }
        assert!(warning.is_some_and(|text| text.contains("differ")), "readiness does not tell of the difference");
        let [_, different] = store.audits();
        let different = different.expect("a report");
        assert_eq!((different.differences, different.ids.len()), (1, 1), "{different:?}");
        assert_eq!(primary.0.lock().unwrap().scans, 2);
        for id in ["0", "4321", "1000000"] {
            let found = store.get(&id.into()).await.expect("an answer");
            assert!(found.staleness.is_some());
            assert_eq!(found.document, primary.get(&id.into()).await.unwrap().document);
        }
    }
}

/// It would go on giving wrong answers otherwise, while the new replica is made.
#[tokio::test(start_paused = true)]
async fn a_replica_that_differs_does_not_answer_where_the_primary_does() {
    let primary = Primary::with_records(50, SHORT_LAG);
    let store = primary.over(Mode::Replica, Duration::from_secs(1)).await;
    primary.put(7, 1, Feed::Forgotten);
    assert_eq!(store.get(&"7".into()).await.unwrap().document, Some(record(7, 0)));
    while count(&*store, "different") == 0 {
        sleep(Duration::from_micros(100)).await;
    }
    assert_eq!(store.get(&"7".into()).await.unwrap().document, Some(record(7, 1)));
    let warning = degraded(&*store).await.expect("a warning");
    assert!(warning.contains("1 records of the fallback replica differ") && !warning.contains('7'), "{warning}");
}

#[tokio::test(start_paused = true)]
async fn what_changes_during_an_audit_is_no_difference() {
    let primary = Primary::with_records(500, SHORT_LAG);
    let store = primary.over(Mode::Replica, Duration::from_millis(200)).await;
    let end = Instant::now() + MINUTE / 2;
    let mut random = fastrand::Rng::with_seed(7);
    while Instant::now() < end {
        sleep(Duration::from_millis(random.u64(0..3))).await;
        match random.u8(0..4) {
            0 => primary.remove(random.i64(0..600), Feed::Told),
            _ => primary.put(random.i64(0..600), random.i64(1..1_000), Feed::Told),
        }
    }
    assert!(count(&*store, "equal") > 75, "{}", count(&*store, "equal"));
    assert_eq!(count(&*store, "different"), 0);
    assert_eq!(primary.0.lock().unwrap().scans, 1);
}

#[tokio::test(start_paused = true)]
async fn an_audit_reads_a_sixtieth_of_the_records_a_minute() {
    let primary = Primary::with_records(12_000, LONG_LAG);
    let store = primary.over(Mode::Standby, MINUTE).await;
    sleep(HOUR).await;
    let equal = count(&*store, "equal");
    assert!((50..=70).contains(&equal), "{equal} audits in an hour");
    assert!((200..=201).contains(&primary.0.lock().unwrap().longest));
}

#[tokio::test(start_paused = true)]
async fn audits_can_be_switched_off() {
    let primary = Primary::with_records(100, LONG_LAG);
    let store = primary.over(Mode::Standby, Duration::ZERO).await;
    primary.put(1, 1, Feed::Forgotten);
    sleep(HOUR * 3).await;
    assert_eq!(["equal", "different", "abandoned"].map(|outcome| count(&*store, outcome)), [0; 3]);
    assert!(store.audits()[0].is_none());
}
