//! The table of promises in `docs/explanation/consistency-and-staleness.md`: each row is carried out as it stands there.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use http_body_util::BodyExt;
use records::document::extended_json;
use records::http::{self, Draining, HttpService};
use records::record::{Document, RecordId};
use records::store::fallback::{self, Mode, Settings};
use records::store::{
    ChangeBatch, ChangeStream, ChangeStreamError, ClusterTime, Error, Freshness, GetResult, ListRequest, ListResult,
    MetricValue, Refusal, Result, ResumeToken, SnapshotRows, Store,
};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

const TIMEOUT: Duration = Duration::from_millis(250);
const ANY: Freshness =
    Freshness { max_staleness: None, max_staleness_on_error: None, only_replica: false, not_before: None };

const SLOW: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Answers,
    Slow,
    Away,
    /// It answers, its change stream says nothing, and no further snapshot succeeds.
    Silent,
    /// It answers, and no snapshot of it succeeds.
    NoSnapshot,
    /// The same, and nothing else is answered.
    AwayWithoutSnapshot,
    /// It answers, and has no cluster time.
    Timeless,
}

const STATES: [State; 7] = [
    State::Answers,
    State::Slow,
    State::Away,
    State::Silent,
    State::NoSnapshot,
    State::AwayWithoutSnapshot,
    State::Timeless,
];

/// The state, and the number of writes, which is the cluster time.
#[derive(Clone)]
struct Primary(Arc<(AtomicU8, AtomicU64)>);

fn record() -> Document {
    extended_json::parse(br#"{"_id":1}"#).expect("a document")
}

impl Primary {
    fn state(&self) -> State {
        STATES[self.0.0.load(Ordering::Relaxed) as usize]
    }

    fn set(&self, state: State) {
        self.0.0.store(state as u8, Ordering::Relaxed);
    }

    fn time(&self) -> ClusterTime {
        ClusterTime::new(self.0.1.load(Ordering::Relaxed)).expect("a write")
    }

    fn write(&self) {
        self.0.1.fetch_add(1, Ordering::Relaxed);
    }

    async fn reach(&self, not_before: Option<ClusterTime>) -> Result<Option<ClusterTime>> {
        self.call().await?;
        match self.state() {
            State::Timeless if not_before.is_some() => Err(Error::no_cluster_time()),
            State::Timeless => Ok(None),
            _ if not_before > Some(self.time()) => Err(Error::refused(Refusal::TooStale, "ahead")),
            _ => Ok(Some(self.time())),
        }
    }

    async fn call(&self) -> Result<()> {
        match self.state() {
            State::Away | State::AwayWithoutSnapshot => Err(Error::unavailable("away")),
            State::Slow => {
                sleep(SLOW).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Store for Primary {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        self.get_fresh(id, &ANY)
    }

    fn get_fresh<'a>(&'a self, id: &'a RecordId, freshness: &'a Freshness) -> BoxFuture<'a, Result<GetResult>> {
        Box::pin(async {
            let as_of = self.reach(freshness.not_before).await?;
            Ok(GetResult { as_of, ..(id.as_str() == "1").then(record).into() })
        })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        Box::pin(async move {
            let as_of = self.reach(request.freshness.not_before).await?;
            let rows = stream::iter([Ok(record().into())]).boxed();
            Ok(ListResult { as_of, ..rows.into() })
        })
    }

    fn upsert(&self, _: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Error::broken("the test does not write")) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.call())
    }

    fn snapshot(&self, _: Option<records::record::Key>) -> BoxFuture<'_, Result<SnapshotRows>> {
        Box::pin(async {
            match self.state() {
                State::Silent | State::NoSnapshot | State::AwayWithoutSnapshot => {
                    Err(Error::unavailable("no snapshot"))
                }
                _ => Ok(SnapshotRows { rows: stream::iter([Ok(record().into())]).boxed(), is_in_order: true }),
            }
        })
    }

    fn changes(&self, _: Option<ResumeToken>) -> ChangeStream {
        let batches = stream::unfold(Some(self.clone()), |primary| async move {
            let primary = primary?;
            sleep(Duration::from_millis(100)).await;
            let current = match primary.state() {
                State::Away | State::AwayWithoutSnapshot => {
                    return Some((Err(ChangeStreamError::Unavailable(Error::unavailable("away"))), None));
                }
                State::Silent => None,
                _ => Some(Instant::now()),
            };
            let token = Some(ResumeToken([1].into()));
            let as_of = current.filter(|_| primary.state() != State::Timeless).map(|_| primary.time());
            Some((Ok(ChangeBatch { token, current, as_of, ..ChangeBatch::default() }), Some(primary)))
        });
        batches.boxed()
    }
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a primary")
    }
}

/// A row of the table.
#[derive(Debug)]
struct Row {
    mode: Mode,
    state: State,
    /// The time for which the primary has been in that state.
    since: Duration,
    /// The header of the request, and the writes from the last one on whose cluster time is the token in it.
    header: Option<(String, String)>,
    ahead: u64,
    response: String,
}

fn rows() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/explanation/consistency-and-staleness.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let head = "| mode | MongoDB | request | response |\n|---|---|---|---|\n";
    let (_, table) = text.split_once(head).expect("the table of promises");
    let mut rows = Vec::new();
    for line in table.lines().take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [modes, state, header, response] = cells[..] else { panic!("a row has four cells: {line}") };
        let modes = match modes {
            "standby" => vec![Mode::Standby],
            "replica" => vec![Mode::Replica],
            "both" => vec![Mode::Standby, Mode::Replica],
            _ => panic!("{line}"),
        };
        let minute = Duration::from_secs(60);
        let (state, since) = match state {
            "answers" => (State::Answers, Duration::ZERO),
            "is slow" => (State::Slow, Duration::ZERO),
            "has been away for 60 s" => (State::Away, minute),
            "answers, its changes have stopped for 60 s" => (State::Silent, minute),
            "answers, no replica yet" => (State::NoSnapshot, Duration::ZERO),
            "answers, is no replica set" => (State::Timeless, Duration::ZERO),
            "is away, no replica yet" => (State::AwayWithoutSnapshot, Duration::ZERO),
            _ => panic!("{line}"),
        };
        let (header, ahead) = match header {
            "no bound" => (None, 0),
            text => {
                let (header, token) = text.trim_start_matches('`').split_once('`').expect("code");
                let ahead = match token.trim() {
                    "" | "of the last write" => 0,
                    "of a later write" => 1,
                    "ahead of the cluster" => 1_000,
                    _ => panic!("{line}"),
                };
                let header = header.split_once(": ").expect("a header");
                (Some((header.0.to_owned(), header.1.to_owned())), ahead)
            }
        };
        rows.extend(modes.into_iter().map(|mode| {
            let (header, response) = (header.clone(), response.to_owned());
            Row { mode, state, since, header, ahead, response }
        }));
    }
    rows
}

async fn over(row: &Row) -> (Primary, Arc<dyn Store>) {
    let lacks_snapshot = matches!(row.state, State::NoSnapshot | State::AwayWithoutSnapshot);
    let first = if lacks_snapshot || row.state == State::Timeless { row.state } else { State::Answers };
    let primary = Primary(Arc::new((AtomicU8::new(first as u8), AtomicU64::new(1 << 32))));
    let interval = Duration::from_secs(3_600);
    let settings = Settings { mode: row.mode, timeout: TIMEOUT, snapshot_interval: interval, ..Settings::default() };
    let store = fallback::over(Arc::new(primary.clone()), settings).await.expect("a fallback");
    while !lacks_snapshot && store.health().await.expect("health").degraded.is_some() {
        sleep(Duration::from_millis(5)).await;
    }
    primary.set(row.state);
    (primary, store)
}

async fn request(service: &HttpService, path: &str, header: Option<&(String, String)>) -> (StatusCode, HeaderMap) {
    let mut request = Request::get(path).header("host", "records");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let (parts, body) = service.clone().oneshot(request).await.expect("a response").into_parts();
    body.collect().await.expect("a body");
    (parts.status, parts.headers)
}

fn check(row: &Row, path: &str, status: StatusCode, headers: &HeaderMap) {
    let (expected, from_replica) = match row.response.as_str() {
        "MongoDB's" | "MongoDB's, when it comes" => (StatusCode::OK, false),
        "the replica's" => (StatusCode::OK, true),
        "503" => (StatusCode::SERVICE_UNAVAILABLE, false),
        "504" => (StatusCode::GATEWAY_TIMEOUT, false),
        "400" => (StatusCode::BAD_REQUEST, false),
        _ => panic!("{row:?}"),
    };
    let is_absent = path.ends_with("/absent") && expected == StatusCode::OK;
    let expected = if is_absent { StatusCode::NO_CONTENT } else { expected };
    assert_eq!((status, headers.contains_key("cache-status")), (expected, from_replica), "{path} {row:?}");
    if from_replica {
        let age: u64 = headers["age"].to_str().unwrap().parse().unwrap();
        assert!((row.since.as_secs()..=row.since.as_secs() + 10).contains(&age), "{path} {row:?}: {age}");
    }
    if !status.is_success() {
        assert_eq!(headers["content-type"], "application/problem+json", "{path} {row:?}");
    }
    assert_eq!(headers.contains_key("retry-after"), status == StatusCode::SERVICE_UNAVAILABLE, "{path} {row:?}");
}

const PATHS: [&str; 4] = ["/api/v1/records/1", "/api/v1/records/absent", "/api/v1/records?limit=1", "/api/v1/records"];

#[tokio::test(start_paused = true)]
async fn each_row_of_the_table_of_promises_is_kept() {
    let rows = rows();
    assert!(rows.len() >= 20, "{rows:?}");
    for row in &rows {
        let (primary, store) = over(row).await;
        let service = http::service(store, Duration::from_secs(10), Draining::default());
        sleep(row.since).await;
        // The first answers open the circuit breaker of a primary that is away, and the later ones find it open.
        let rounds = if row.state == State::Slow { 1 } else { 4 };
        for path in PATHS.iter().cycle().take(PATHS.len() * rounds) {
            // The replica has not heard of this write yet.
            if row.state != State::Away {
                primary.write();
            }
            let token = ClusterTime::new(primary.time().bits() + row.ahead).expect("a time").to_string();
            let header = row.header.clone().map(|(name, value)| (name, value.replace("TOKEN", &token)));
            let (status, headers) = request(&service, path, header.as_ref()).await;
            check(row, path, status, &headers);
            let as_of = headers.get("records-as-of").map(|value| value.to_str().unwrap().parse().unwrap());
            assert_eq!(as_of.is_some(), status.is_success() && row.state != State::Timeless, "{path} {row:?}");
            let not_before = header.filter(|(_, value)| *value == token).map(|_| token.parse::<ClusterTime>().unwrap());
            assert!(!status.is_success() || as_of >= not_before, "{path} {row:?}: {as_of:?}");
        }
    }
}

/// The value of the counter `fallback_bounded_reads` for `outcome`.
fn bounded(store: &dyn Store, outcome: &str) -> u64 {
    let metric = store.metrics().into_iter().find(|metric| metric.name == "fallback_bounded_reads").expect("a metric");
    let MetricValue::Counters { values, .. } = metric.value else { panic!("{metric:?}") };
    values.into_iter().find(|(name, _)| *name == outcome).expect("an outcome").1
}

fn row(mode: Mode, state: State) -> Row {
    Row { mode, state, since: Duration::ZERO, header: None, ahead: 0, response: String::new() }
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_keep_requests_from_going_past_the_replica() {
    let (_primary, store) = over(&row(Mode::Replica, State::Answers)).await;
    let mut settings = http::Settings::from(Duration::from_secs(10));
    settings.request_directives = false;
    let service = http::service(store.clone(), settings, Draining::default());
    for value in ["no-cache", "max-age=0", "max-age=x"] {
        let header = ("cache-control".to_owned(), value.to_owned());
        for path in PATHS {
            let (status, headers) = request(&service, path, Some(&header)).await;
            assert!(status.is_success() && headers.contains_key("cache-status"), "{path} {value} {status}");
        }
    }
    assert_eq!(["mongodb", "refused", "replica"].map(|outcome| bounded(&*store, outcome)), [0; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_bound_that_is_no_number_is_a_400_that_says_what_is_right() {
    let (_primary, store) = over(&row(Mode::Replica, State::Answers)).await;
    let service = http::service(store, Duration::from_secs(10), Draining::default());
    for value in ["max-age", "max-age=", "max-age=-1", "max-stale=1.5", "stale-if-error=\"x", "max-age=+1"] {
        let (status, _) = request(&service, PATHS[0], Some(&("cache-control".to_owned(), value.to_owned()))).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{value}");
    }
}

/// Otherwise clients that insist on MongoDB would use up the permits of all requests while it is slow.
#[tokio::test(start_paused = true)]
async fn requests_that_go_past_the_replica_are_shed_while_mongodb_is_slow() {
    let (_primary, store) = over(&row(Mode::Replica, State::Slow)).await;
    let service = http::service(store.clone(), Duration::from_secs(10), Draining::default());
    let header = ("cache-control".to_owned(), "no-cache".to_owned());
    let all = (0..1_000).map(|_| request(&service, PATHS[0], Some(&header)));
    let begun = Instant::now();
    let plain = async {
        sleep(Duration::from_millis(1)).await;
        let (status, headers) = request(&service, PATHS[0], None).await;
        assert!(status.is_success() && headers.contains_key("cache-status"));
        begun.elapsed()
    };
    let (answers, took) = futures::join!(futures::future::join_all(all), plain);
    assert!(took < TIMEOUT, "{took:?}");
    let shed = answers.iter().filter(|(status, _)| *status == StatusCode::SERVICE_UNAVAILABLE).count();
    assert!((700..800).contains(&shed), "{shed}");
    assert_eq!(bounded(&*store, "refused"), shed as u64);
    assert_eq!(bounded(&*store, "mongodb"), 1_000 - shed as u64);
}
