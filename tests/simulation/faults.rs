//! A primary with a single fault.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, pending};
use futures::stream;
use records::document::extended_json;
use records::record::{Document, RecordId};
use records::store::fallback::{self, Mode, Settings};
use records::store::{
    Change, ChangeBatch, ChangeStream, ChangeStreamError, Error, GetResult, Health, ListRequest, ListResult, Options,
    Result, ResumeToken, Store,
};
use rstest::rstest;
use tokio::time::{Instant, sleep, timeout};

const AFTER: Duration = Duration::from_millis(250);

/// The number and the size of records that change at once: about as much as the limit of a catch-up.
const MANY: i64 = 3_000;
const LENGTH: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A list that has a limit never begins.
    SlowLists,
    /// No other call is answered either.
    Stuck,
    /// The change stream panics.
    Panic,
    /// Very many records change at once.
    CatchUp,
    /// Two records have one `_id`, as those of a view may.
    RepeatedId,
    /// A record has no `_id`, as those of a view may.
    NoId,
}

/// A store that works until its fault is switched on.
#[derive(Clone)]
struct Primary {
    fault: Fault,
    faulty: Arc<AtomicBool>,
}

impl Primary {
    async fn over(fault: Fault, mode: Mode) -> (Arc<AtomicBool>, Arc<dyn Store>) {
        let faulty = Arc::new(AtomicBool::new(false));
        let settings = Settings {
            url: "memory:".to_owned(),
            source: "simulation".to_owned(),
            scope: String::new(),
            mode,
            timeout: AFTER,
            max_age: None,
            first_snapshot_within: Duration::ZERO,
            snapshot_interval: Duration::from_secs(3_600),
            audit_interval: Duration::ZERO,
            size_limit: u64::MAX,
            from: Vec::new(),
            save: None,
            options: Options::default(),
        };
        let store = fallback::over(Arc::new(Self { fault, faulty: faulty.clone() }), settings).await.unwrap();
        (faulty, store)
    }

    async fn with_a_copy(fault: Fault, mode: Mode) -> (Arc<AtomicBool>, Arc<dyn Store>) {
        let (faulty, store) = Self::over(fault, mode).await;
        while health(&*store).await.degraded.is_some() {
            sleep(Duration::from_millis(5)).await;
        }
        faulty.store(true, Ordering::Relaxed);
        (faulty, store)
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault && self.faulty.load(Ordering::Relaxed)
    }

    async fn answers(&self) {
        if self.has(Fault::Stuck) {
            pending().await
        }
    }
}

async fn health(store: &dyn Store) -> Health {
    store.health().await.unwrap()
}

fn record(id: i64, length: usize) -> Document {
    let text = format!(r#"{{"_id":{id},"text":"{}"}}"#, "x".repeat(length));
    extended_json::parse(text.as_bytes()).expect("a document")
}

impl Store for Primary {
    fn get<'a>(&'a self, _: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        Box::pin(async {
            self.answers().await;
            Ok(Some(record(-1, 1)).into())
        })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        let slow = request.limit.is_some() && (self.has(Fault::SlowLists) || self.has(Fault::Stuck));
        Box::pin(async move {
            if slow {
                pending::<()>().await;
            }
            let records = match self.fault {
                Fault::RepeatedId => vec![record(-1, 1), record(-1, 2)],
                Fault::NoId => vec![record(-1, 1), Document::new([5, 0, 0, 0, 0].to_vec()).expect("an empty document")],
                _ => vec![record(-1, 1)],
            };
            Ok(stream::iter(records).map(|record| Ok(record.into())).boxed().into())
        })
    }

    fn upsert(&self, _: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Error::broken("the test does not write")) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.answers().await;
            Ok(())
        })
    }

    fn changes(&self, _: Option<ResumeToken>) -> ChangeStream {
        if !matches!(self.fault, Fault::Panic | Fault::CatchUp) {
            return stream::once(async { Err(ChangeStreamError::Unsupported("none".to_owned())) }).boxed();
        }
        let feed = stream::unfold((self.clone(), false), |(primary, told)| async move {
            sleep(Duration::from_millis(5)).await;
            assert!(!primary.has(Fault::Panic), "as it must");
            let tells = !told && primary.has(Fault::CatchUp);
            let changes =
                if tells { (0..MANY).map(|id| Change::Put(record(id, LENGTH))).collect() } else { Vec::new() };
            let batch = ChangeBatch { changes, current: Some(Instant::now()), ..ChangeBatch::default() };
            Some((Ok(batch), (primary, told || tells)))
        });
        feed.boxed()
    }
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a primary")
    }
}

/// Requests lists that never begin on the primary, and checks that the replica answers each.
async fn slow_lists(store: &dyn Store) {
    for _ in 0..20 {
        let list = store.list(ListRequest { limit: Some(1), ..ListRequest::default() }).await.expect("a list");
        assert!(list.staleness.is_some(), "it is not the copy's");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_that_are_slow_leave_lookups_to_a_primary_that_answers() {
    let (_, store) = Primary::with_a_copy(Fault::SlowLists, Mode::Standby).await;
    slow_lists(&*store).await;
    sleep(AFTER * 10).await;
    assert_eq!(store.get(&"-1".into()).await.unwrap().staleness, None);
    assert_eq!(health(&*store).await.degraded, None);
}

#[tokio::test(start_paused = true)]
async fn lists_that_are_slow_find_out_that_the_primary_does_not_answer() {
    let (faulty, store) = Primary::with_a_copy(Fault::Stuck, Mode::Standby).await;
    slow_lists(&*store).await;
    sleep(AFTER * 10).await;
    let at_once = timeout(Duration::from_millis(1), store.get(&"-1".into())).await;
    assert!(at_once.expect("an answer").unwrap().staleness.is_some());
    faulty.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(store.get(&"-1".into()).await.unwrap().staleness, None);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_no_longer_kept_because_of_a_panic_says_so() {
    let (_, store) = Primary::with_a_copy(Fault::Panic, Mode::Standby).await;
    sleep(Duration::from_secs(1)).await;
    let degraded = health(&*store).await.degraded;
    assert!(degraded.as_ref().is_some_and(|degraded| degraded.contains("is not updated")), "{degraded:?}");
}

/// A replica with only one of two records would return lists that look complete.
#[rstest]
#[case::one_id_twice(Fault::RepeatedId)]
#[case::no_id(Fault::NoId)]
#[tokio::test(start_paused = true)]
async fn records_that_no_copy_can_hold_are_listed_by_the_primary(#[case] fault: Fault) {
    let (_, store) = Primary::over(fault, Mode::Replica).await;
    sleep(Duration::from_secs(10)).await;
    let degraded = health(&*store).await.degraded;
    assert!(
        degraded.as_ref().is_some_and(|degraded| degraded.contains("no complete fallback replica")),
        "{degraded:?}"
    );
    let list = store.list(ListRequest::default()).await.expect("a list");
    assert_eq!((list.staleness, list.rows.count().await), (None, 2));
}

#[tokio::test]
async fn a_catch_up_lets_others_have_their_turn() {
    let (_, store) = Primary::with_a_copy(Fault::CatchUp, Mode::Replica).await;
    let is_there = async |id: i64| store.get(&id.to_string().as_str().into()).await.unwrap().document.is_some();
    let (mut seen, mut looks) = (0, 0);
    while seen < MANY {
        let before = seen;
        while seen < MANY && is_there(seen).await {
            seen += 1;
        }
        if seen > before {
            looks += 1;
            tokio::task::yield_now().await;
        } else {
            sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(looks > 50, "{looks} looks while 48 MB were written");
}
