//! Lookups over a scripted server, under a clock that advances only when all tasks wait.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use mongodb::bson::doc;
use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::*;
use crate::record::raw;
use crate::store::Kind;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// The script of the server: called with the number of a batch and its keys, in their order.
type Step = dyn Fn(usize, Vec<i64>) -> BoxFuture<'static, Result<()>> + Send + Sync;

struct Server {
    documents: Mutex<BTreeMap<i64, Vec<Document>>>,
    batches: Mutex<Vec<Vec<i64>>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    step: Box<Step>,
}

impl BatchLoader for Arc<Server> {
    async fn load(&self, keys: Vec<Key>, mut deliver: impl FnMut(Vec<Document>) -> bool + Send) -> Result<()> {
        let mut ids: Vec<i64> = keys.iter().map(id_of).collect();
        ids.sort_unstable();
        let number = {
            let mut batches = self.batches.lock().unwrap();
            batches.push(ids.clone());
            batches.len()
        };
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
        // Read at the beginning: the earliest moment at which a server may read.
        let documents: Vec<Document> =
            ids.iter().filter_map(|id| self.documents.lock().unwrap().get(id).cloned()).flatten().collect();
        let result = (self.step)(number, ids).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        // A failure comes after the first of two replies.
        let arrived = if result.is_ok() { documents.len() } else { documents.len() / 2 };
        deliver(documents[..arrived].to_vec());
        result
    }
}

fn id_of(key: &Key) -> i64 {
    let (_, bytes) = key.to_value().unwrap();
    i64::from_le_bytes(bytes.try_into().unwrap())
}

fn document(id: i64, version: i64) -> Document {
    Document::new(doc! { "_id": id, "version": version }.to_vec().unwrap()).unwrap()
}

fn version_of(document: &Document) -> i64 {
    let value = raw::find(document.bson(), b"version").unwrap().unwrap();
    i64::from_le_bytes(value.fixed().unwrap())
}

fn server<F>(step: impl Fn(usize, Vec<i64>) -> F + Send + Sync + 'static) -> Arc<Server>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    Arc::new(Server {
        documents: Mutex::new((0..1_000).map(|id| (id, vec![document(id, 0)])).collect()),
        batches: Mutex::default(),
        in_flight: AtomicUsize::new(0),
        most_in_flight: AtomicUsize::new(0),
        step: Box::new(move |number, ids| step(number, ids).boxed()),
    })
}

/// A server whose batches take `time`.
fn slow_server(time: Duration) -> Arc<Server> {
    server(move |_, _| sleep(time).map(Ok))
}

impl Server {
    fn batcher(self: &Arc<Self>) -> Arc<LookupBatcher<Arc<Server>>> {
        Arc::new(LookupBatcher::new(self.clone(), 10))
    }

    fn batches(&self) -> Vec<Vec<i64>> {
        self.batches.lock().unwrap().clone()
    }
}

/// Queues a lookup now; its result comes when it is awaited.
fn get(batcher: &LookupBatcher<Arc<Server>>, id: i64) -> impl Future<Output = Result<GetResult>> + use<> {
    batcher.get(&[Key::int64(id)]).remove(0).result()
}

fn assert_found(result: Result<GetResult>, id: i64) {
    assert_eq!(result.unwrap().document.unwrap().key(), &Key::int64(id));
}

async fn assert_all_found<F: Future<Output = Result<GetResult>>>(lookups: Vec<F>, first: i64) {
    join_all(lookups).await.into_iter().zip(first..).for_each(|(result, id)| assert_found(result, id));
}

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_comes_alone_is_sent_at_once() {
    let server = slow_server(MILLISECOND);
    let batcher = server.batcher();
    for id in [3, 1, 4] {
        let begun = Instant::now();
        let lookup = get(&batcher, id);
        settle().await;
        assert_eq!(server.batches().last(), Some(&vec![id]));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_found(lookup.await, id);
        assert_eq!(begun.elapsed(), MILLISECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn lookups_queue_while_a_batch_is_in_flight_and_share_the_next_one() {
    let server = slow_server(MILLISECOND);
    let batcher = server.batcher();
    let begun = Instant::now();
    let first = get(&batcher, 0);
    settle().await;
    let others = (1..ENOUGH_KEYS as i64).map(|id| get(&batcher, id)).collect();
    settle().await;
    assert_eq!(server.batches(), [[0]]);
    assert_found(first.await, 0);
    assert_all_found(others, 1).await;
    assert_eq!(server.batches(), [vec![0], (1..ENOUGH_KEYS as i64).collect()]);
    assert_eq!(begun.elapsed(), MILLISECOND * 2);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_worth_a_command_waits_for_no_batch() {
    let server = slow_server(MILLISECOND);
    let batcher = server.batcher();
    let begun = Instant::now();
    let first = get(&batcher, 0);
    settle().await;
    let others = (1..=ENOUGH_KEYS as i64).map(|id| get(&batcher, id)).collect();
    assert_found(first.await, 0);
    assert_all_found(others, 1).await;
    assert_eq!(server.batches(), [vec![0], (1..=ENOUGH_KEYS as i64).collect()]);
    assert_eq!(begun.elapsed(), MILLISECOND);
}

#[tokio::test(start_paused = true)]
async fn lookups_that_are_queued_at_the_same_moment_share_a_batch() {
    let server = slow_server(MILLISECOND);
    let batcher = server.batcher();
    let lookups = (1..=50).map(|id| get(&batcher, id)).collect();
    assert_all_found(lookups, 1).await;
    assert_eq!(server.batches(), [(1..=50).collect::<Vec<_>>()]);
}

#[tokio::test(start_paused = true)]
async fn equal_keys_are_sent_once_and_all_callers_get_the_result() {
    let server = slow_server(MILLISECOND);
    let batcher = server.batcher();
    let first = get(&batcher, 1);
    settle().await;
    let ids = [2, 3, 2, 2, 3];
    let lookups: Vec<_> = ids.iter().map(|id| get(&batcher, *id)).collect();
    assert_found(first.await, 1);
    join_all(lookups).await.into_iter().zip(ids).for_each(|(result, id)| assert_found(result, id));
    assert_eq!(server.batches(), [vec![1], vec![2, 3]]);
}

#[tokio::test(start_paused = true)]
async fn an_absent_key_finds_nothing_in_a_batch_with_others() {
    let server = slow_server(MILLISECOND);
    let batcher = server.batcher();
    let (present, absent) = (get(&batcher, 2), get(&batcher, -5));
    assert_found(present.await, 2);
    assert_eq!(absent.await.unwrap(), GetResult::default());
}

#[tokio::test(start_paused = true)]
async fn a_key_with_several_documents_is_ambiguous_and_others_in_the_batch_are_not() {
    let server = slow_server(MILLISECOND);
    server.documents.lock().unwrap().insert(2, vec![document(2, 1), document(2, 2)]);
    let batcher = server.batcher();
    let (one, two) = (get(&batcher, 1), get(&batcher, 2));
    assert!(!one.await.unwrap().is_ambiguous);
    let two = two.await.unwrap();
    assert!(two.is_ambiguous);
    assert!((1..=2).contains(&version_of(&two.document.unwrap())));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_does_not_join_a_batch_in_flight() {
    let server = slow_server(MILLISECOND);
    let batcher = server.batcher();
    let before = get(&batcher, 7);
    settle().await;
    server.documents.lock().unwrap().insert(7, vec![document(7, 1)]);
    let after = get(&batcher, 7);
    assert_eq!(before.await.unwrap().document, Some(document(7, 0)));
    assert_eq!(after.await.unwrap().document, Some(document(7, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_and_claims_the_oldest_first() {
    let server = slow_server(MILLISECOND);
    let batcher = server.batcher();
    let lookups = (0..250).map(|id| get(&batcher, id)).collect();
    assert_all_found(lookups, 0).await;
    assert_eq!(server.batches(), [(0..100).collect::<Vec<_>>(), (100..200).collect(), (200..250).collect()]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_fails_the_lookups_that_it_has_not_answered_and_no_others() {
    let server = server(|number, _| async move {
        sleep(MILLISECOND).await;
        if number == 2 { Err(Error::unavailable("the primary is away").with_source("cut")) } else { Ok(()) }
    });
    let batcher = server.batcher();
    let first = get(&batcher, 1);
    settle().await;
    let second: Vec<_> = (2..=5).map(|id| get(&batcher, id)).collect();
    assert_found(first.await, 1);
    let mut second = join_all(second).await;
    for failed in second.split_off(2) {
        let error = failed.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert_eq!(error.report().to_string(), "the primary is away: cut");
    }
    second.into_iter().zip(2..).for_each(|(result, id)| assert_found(result, id));
    assert_found(get(&batcher, 4).await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_hangs_delays_only_its_own_lookups() {
    let server = server(|number, _| sleep(if number == 5 { HOUR } else { MILLISECOND }).map(Ok));
    let batcher = server.batcher();
    for id in 1..=4 {
        assert_found(get(&batcher, id).await, id);
    }
    let hanging = get(&batcher, 5);
    settle().await;
    let begun = Instant::now();
    for id in 6..=50 {
        assert_found(get(&batcher, id).await, id);
    }
    assert!(begun.elapsed() <= PATIENCE + MILLISECOND * 46, "{:?}", begun.elapsed());
    assert!(timeout(MILLISECOND, hanging).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_short_queue_waits_no_longer_than_a_few_milliseconds_on_a_slow_link() {
    let trip = MILLISECOND * 50;
    let server = slow_server(trip);
    let batcher = server.batcher();
    let lookups = (0..8).map(|id| {
        let batcher = batcher.clone();
        async move {
            sleep(MILLISECOND * 3 * id as u32).await;
            let begun = Instant::now();
            assert_found(get(&batcher, id).await, id);
            assert!(begun.elapsed() <= trip + PATIENCE + MILLISECOND, "{:?}", begun.elapsed());
        }
    });
    join_all(lookups).await;
    assert!(server.batches().len() < 8, "{:?}", server.batches());
}

#[tokio::test(start_paused = true)]
async fn no_more_batches_are_in_flight_than_there_are_connections_even_when_all_hang() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let server = server(move |_, _| {
        let gate = opened.clone();
        async move {
            let _open = gate.acquire().await.unwrap();
            Ok(())
        }
    });
    let batcher = server.batcher();
    let lookups: Vec<_> = (0..500)
        .map(|id| {
            let batcher = batcher.clone();
            tokio::spawn(async move {
                sleep(MILLISECOND * id as u32).await;
                assert_found(get(&batcher, id).await, id);
            })
        })
        .collect();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(server.in_flight.load(Ordering::SeqCst), 10);
    gate.add_permits(10);
    for lookup in lookups {
        lookup.await.unwrap();
    }
    assert_eq!(server.most_in_flight.load(Ordering::SeqCst), 10);
}

#[tokio::test(start_paused = true)]
async fn cancelled_lookups_leave_the_queue_while_all_batches_hang() {
    let server = slow_server(HOUR * 24);
    let batcher = server.batcher();
    for id in 0..20_000 {
        // The key -1 is queued repeatedly, the other keys once.
        drop((get(&batcher, -1), get(&batcher, id)));
        sleep(MILLISECOND).await;
    }
    let length = batcher.0.lock().queue.len();
    assert!(length <= 2 * SWEEP_LENGTH, "{length} lookups are queued");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_lookup_is_not_sent_and_cancels_no_other() {
    let server = slow_server(MILLISECOND);
    let batcher = server.batcher();
    let in_flight = get(&batcher, 1);
    settle().await;
    let (cancelled, shared, kept) = (get(&batcher, 2), get(&batcher, 3), get(&batcher, 3));
    drop((in_flight, cancelled, shared));
    assert_found(kept.await, 3);
    assert_eq!(server.batches(), [vec![1], vec![3]]);
}

/// Runs on two threads, since the lookup must be queued at the moment at which a batch finds only cancelled ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_right_after_a_cancelled_one_is_answered() {
    let server = server(|_, _| async { Ok(()) });
    let batcher = server.batcher();
    for round in 0..20_000 {
        drop(get(&batcher, 1));
        for _ in 0..round % 500 {
            std::hint::spin_loop();
        }
        let result = timeout(Duration::from_secs(20), get(&batcher, 2)).await;
        assert_found(result.unwrap_or_else(|_| panic!("lookup {round} was forgotten")), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_its_own_batch_and_the_queue_goes_on() {
    let server = server(|number, _| async move {
        sleep(MILLISECOND).await;
        assert_ne!(number, 1, "a planted panic");
        Ok(())
    });
    let batcher = server.batcher();
    let panicking = get(&batcher, 1);
    settle().await;
    let queued = get(&batcher, 2);
    assert_eq!(panicking.await.unwrap_err().kind(), Kind::Broken);
    assert_found(queued.await, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Checks that every lookup returns a state that the document had since the call, or the failure of its batch.
    #[test]
    fn every_lookup_is_answered_and_none_with_the_past(
        steps in prop::collection::vec((0..40_u64, 0..10_u8), 1..40),
        calls in prop::collection::vec((0..30_i64, 0..60_u64, 0..8_u8), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let server = server(move |number, _| {
                let (time, fate) = steps[number % steps.len()];
                async move {
                    sleep(MILLISECOND * time as u32).await;
                    match fate {
                        0 => Err(Error::unavailable("away")),
                        1 => {
                            sleep(Duration::from_secs(5)).await;
                            Err(Error::unavailable("hung"))
                        }
                        _ => Ok(()),
                    }
                }
            });
            let batcher = server.batcher();
            let clients = calls.into_iter().map(|(id, after, kind)| {
                let (server, batcher) = (server.clone(), batcher.clone());
                async move {
                    sleep(MILLISECOND * after as u32).await;
                    let current = || version_of(&server.documents.lock().unwrap()[&id][0]);
                    match kind {
                        0 => {
                            let next = vec![document(id, current() + 1)];
                            server.documents.lock().unwrap().insert(id, next);
                        }
                        1 => drop(timeout(MILLISECOND * 3, get(&batcher, id)).await),
                        _ => {
                            let before = current();
                            match timeout(HOUR, get(&batcher, id)).await.expect("a result") {
                                Ok(result) => {
                                    let found = version_of(&result.document.expect("the document was always there"));
                                    assert!((before..=current()).contains(&found), "{before} then {found}");
                                }
                                Err(error) => assert_eq!(error.kind(), Kind::Unavailable),
                            }
                        }
                    }
                }
            });
            join_all(clients).await;
            sleep(Duration::from_secs(600)).await;
            let state = batcher.0.lock();
            assert!(state.queue.is_empty() && !state.is_claimed);
            assert_eq!((state.in_flight, state.awaited), (0, 0));
        });
    }
}
