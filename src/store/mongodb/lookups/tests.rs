//! Lookups over a server that does what each case says, under a clock that moves only when everybody waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::super::super::Kind;
use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A batch as the server sees it: its number, and its keys in order.
type Step = dyn Fn(usize, Vec<Key>) -> BoxFuture<'static, Result<()>> + Send + Sync;

struct Server {
    records: Arc<Mutex<BTreeMap<Key, Record>>>,
    batches: Arc<Mutex<Vec<Vec<Key>>>>,
    flying: AtomicUsize,
    most_flying: AtomicUsize,
    step: Box<Step>,
}

impl Fetch for Arc<Server> {
    async fn fetch(&self, mut keys: Vec<Key>, mut found: impl FnMut(Record) + Send) -> Result<()> {
        keys.sort();
        let number = {
            let mut batches = self.batches.lock().unwrap();
            batches.push(keys.clone());
            batches.len()
        };
        let flying = self.flying.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_flying.fetch_max(flying, Ordering::SeqCst);
        // Read at the beginning: the earliest that a server may have read.
        let records: Vec<Record> =
            keys.iter().filter_map(|key| self.records.lock().unwrap().get(key).cloned()).collect();
        let result = (self.step)(number, keys).await;
        self.flying.fetch_sub(1, Ordering::SeqCst);
        // What was sent before a failure has arrived.
        let sent = if result.is_ok() { records.len() } else { records.len() / 2 };
        records.into_iter().take(sent).for_each(&mut found);
        result
    }
}

fn record(id: i64, version: u64) -> Record {
    Record::new(Key::Integer(id), format!("{{\"_id\":{id},\"version\":{version}}}").into_bytes())
}

fn server<F>(step: impl Fn(usize, Vec<Key>) -> F + Send + Sync + 'static) -> Arc<Server>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    Arc::new(Server {
        records: Arc::new(Mutex::new((0..1_000).map(|id| (Key::Integer(id), record(id, 0))).collect())),
        batches: Arc::default(),
        flying: AtomicUsize::new(0),
        most_flying: AtomicUsize::new(0),
        step: Box::new(move |number, keys| step(number, keys).boxed()),
    })
}

fn takes(time: Duration) -> Arc<Server> {
    server(move |_, _| async move {
        sleep(time).await;
        Ok(())
    })
}

impl Server {
    fn lookups(self: &Arc<Self>) -> Arc<Lookups<Arc<Server>>> {
        Arc::new(Lookups::new(self.clone(), 10))
    }

    fn batches(&self) -> Vec<Vec<i64>> {
        let number = |key: &Key| match key {
            Key::Integer(id) => *id,
            other => panic!("{other:?}"),
        };
        self.batches.lock().unwrap().iter().map(|keys| keys.iter().map(number).collect()).collect()
    }
}

/// Asks now; the answer comes when it is awaited.
fn ask(lookups: &Lookups<Arc<Server>>, id: i64) -> impl Future<Output = Answer> + use<> {
    let [lookup] = lookups.get([Key::Integer(id)]);
    lookup.answer()
}

fn is_found(answer: Answer, id: i64) {
    assert_eq!(answer.unwrap().unwrap().key(), &Key::Integer(id));
}

/// Lets every task go as far as it can without the clock.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_comes_alone_leaves_at_once() {
    let server = takes(MILLISECOND);
    let lookups = server.lookups();
    for id in [3, 1, 4] {
        let begun = Instant::now();
        let answer = ask(&lookups, id);
        settle().await;
        assert_eq!(server.batches().last(), Some(&vec![id]));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        is_found(answer.await, id);
        assert_eq!(begun.elapsed(), MILLISECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn lookups_gather_behind_the_one_under_way_and_share_the_next_round_trip() {
    let server = takes(MILLISECOND);
    let lookups = server.lookups();
    let begun = Instant::now();
    let first = ask(&lookups, 1);
    settle().await;
    let answers: Vec<_> = (2..=50).map(|id| ask(&lookups, id)).collect();
    is_found(first.await, 1);
    join_all(answers).await.into_iter().zip(2..).for_each(|(answer, id)| is_found(answer, id));
    assert_eq!(server.batches(), [vec![1], (2..=50).collect()]);
    assert_eq!(begun.elapsed(), MILLISECOND * 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_at_hand_already_comes_along() {
    let server = takes(MILLISECOND);
    let lookups = server.lookups();
    let answers: Vec<_> = (1..=50).map(|id| ask(&lookups, id)).collect();
    join_all(answers).await.into_iter().zip(1..).for_each(|(answer, id)| is_found(answer, id));
    assert_eq!(server.batches(), [(1..=50).collect::<Vec<_>>()]);
}

#[tokio::test(start_paused = true)]
async fn equal_ids_are_one_key_and_everybody_gets_the_answer() {
    let server = takes(MILLISECOND);
    let lookups = server.lookups();
    let first = ask(&lookups, 1);
    settle().await;
    let same: Vec<_> = [2, 3, 2, 2, 3].iter().map(|id| ask(&lookups, *id)).collect();
    is_found(first.await, 1);
    for (answer, id) in join_all(same).await.into_iter().zip([2, 3, 2, 2, 3]) {
        is_found(answer, id);
    }
    assert_eq!(server.batches(), [vec![1], vec![2, 3]]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_none_beside_what_is() {
    let server = takes(MILLISECOND);
    let lookups = server.lookups();
    let (first, there, nowhere) = (ask(&lookups, 1), ask(&lookups, 2), ask(&lookups, -5));
    is_found(first.await, 1);
    is_found(there.await, 2);
    assert_eq!(nowhere.await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_does_not_join_a_batch_that_has_left() {
    let server = takes(MILLISECOND);
    let lookups = server.lookups();
    let before = ask(&lookups, 7);
    settle().await;
    server.records.lock().unwrap().insert(Key::Integer(7), record(7, 1));
    let after = ask(&lookups, 7);
    assert_eq!(before.await.unwrap(), Some(record(7, 0)));
    assert_eq!(after.await.unwrap(), Some(record(7, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_and_takes_the_oldest_first() {
    let server = takes(MILLISECOND);
    let lookups = server.lookups();
    let first = ask(&lookups, 0);
    settle().await;
    let answers: Vec<_> = (1..300).map(|id| ask(&lookups, id)).collect();
    is_found(first.await, 0);
    join_all(answers).await.into_iter().zip(1..).for_each(|(answer, id)| is_found(answer, id));
    assert_eq!(server.batches(), [vec![0], (1..=128).collect(), (129..=256).collect(), (257..300).collect()]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_fails_those_it_has_not_answered_and_nobody_else() {
    let server = server(|number, _| async move {
        sleep(MILLISECOND).await;
        if number == 2 { Err(Error::unavailable("the primary is away").with_source("cut")) } else { Ok(()) }
    });
    let lookups = server.lookups();
    let first = ask(&lookups, 1);
    settle().await;
    let second: Vec<_> = (2..=5).map(|id| ask(&lookups, id)).collect();
    is_found(first.await, 1);
    let mut second = join_all(second).await;
    // Half of it had arrived.
    for (failed, id) in second.split_off(2).into_iter().zip(4..) {
        let error = failed.expect_err(&format!("{id} was not answered"));
        assert_eq!(error.kind(), Kind::Unavailable);
        assert_eq!(error.report().to_string(), "the primary is away: cut");
    }
    second.into_iter().zip(2..).for_each(|(answer, id)| is_found(answer, id));
    is_found(ask(&lookups, 4).await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_hangs_keeps_its_own_lookups_waiting_and_nobody_else() {
    let server = server(|number, _| async move {
        sleep(if number == 5 { Duration::from_secs(3_600) } else { MILLISECOND }).await;
        Ok(())
    });
    let lookups = server.lookups();
    for id in 1..=4 {
        is_found(ask(&lookups, id).await, id);
    }
    let hung = ask(&lookups, 5);
    settle().await;
    let begun = Instant::now();
    for id in 6..=50 {
        is_found(ask(&lookups, id).await, id);
    }
    assert!(begun.elapsed() < MILLISECOND * 60, "{:?}", begun.elapsed());
    assert!(timeout(MILLISECOND, hung).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn no_more_batches_fly_than_there_are_connections_even_when_all_hang() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let server = server(move |_, _| {
        let gate = opened.clone();
        async move {
            let _open = gate.acquire().await.unwrap();
            Ok(())
        }
    });
    let lookups = server.lookups();
    let answers: Vec<_> = (0..500)
        .map(|id| {
            let lookups = lookups.clone();
            tokio::spawn(async move {
                sleep(MILLISECOND * id as u32).await;
                is_found(ask(&lookups, id).await, id);
            })
        })
        .collect();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(server.flying.load(Ordering::SeqCst), 10);
    gate.add_permits(10);
    for answer in answers {
        answer.await.unwrap();
    }
    assert_eq!(server.most_flying.load(Ordering::SeqCst), 10);
}

#[tokio::test(start_paused = true)]
async fn callers_who_have_gone_are_forgotten_while_every_batch_hangs() {
    let server = takes(Duration::from_secs(1_000_000));
    let lookups = server.lookups();
    for id in 0..20_000 {
        // One that is asked for again and again, and one that is not.
        drop((ask(&lookups, -1), ask(&lookups, id)));
        sleep(MILLISECOND).await;
    }
    let state = lookups.shared.lock();
    let waiting: usize = state.waiting.values().map(|(_, waiters)| waiters.len()).sum();
    assert!(waiting <= 2 * SWEEP && state.order.len() <= 2 * SWEEP, "{waiting} wait, {} keys", state.order.len());
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_cancels_nobody_and_is_not_asked_for() {
    let server = takes(MILLISECOND);
    let lookups = server.lookups();
    let under_way = ask(&lookups, 1);
    settle().await;
    let (gone, shared, stays) = (ask(&lookups, 2), ask(&lookups, 3), ask(&lookups, 3));
    drop((under_way, gone, shared));
    is_found(stays.await, 3);
    assert_eq!(server.batches(), [vec![1], vec![3]]);
}

/// In threads, since it takes one to ask at the very moment when another finds nothing to take along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_right_behind_a_caller_who_has_gone_is_answered() {
    let server = server(|_, _| async { Ok(()) });
    let lookups = server.lookups();
    for round in 0..20_000 {
        drop(ask(&lookups, 1));
        for _ in 0..round % 500 {
            std::hint::spin_loop();
        }
        let answer = timeout(Duration::from_secs(20), ask(&lookups, 2)).await;
        is_found(answer.unwrap_or_else(|_| panic!("lookup {round} was left behind")), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_batch_is_an_error_to_its_own_lookups_and_the_next_ones_are_answered() {
    let server = server(|number, _| async move {
        assert_ne!(number, 1, "a planted panic");
        Ok(())
    });
    let lookups = server.lookups();
    let error = ask(&lookups, 1).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Broken);
    is_found(ask(&lookups, 1).await, 1);
}

/// Clients that ask one thing after the other for `time`, with a pause of up to `pause` milliseconds in between.
async fn load(lookups: &Arc<Lookups<Arc<Server>>>, pause: i64, time: Duration) {
    let end = Instant::now() + time;
    let clients = (0..64).map(|client| {
        let lookups = lookups.clone();
        async move {
            let mut id = client;
            while Instant::now() < end {
                is_found(ask(&lookups, id).await, id);
                id = (id * 31 + 7 + client) % 1_000;
                sleep(MILLISECOND * (id % pause) as u32).await;
            }
        }
    });
    join_all(clients).await;
}

fn window(lookups: &Lookups<Arc<Server>>) -> usize {
    lookups.shared.lock().window.size()
}

#[tokio::test(start_paused = true)]
async fn where_distance_counts_more_batches_fly() {
    let server = takes(Duration::from_millis(20));
    let lookups = server.lookups();
    load(&lookups, 10, Duration::from_secs(120)).await;
    assert!(window(&lookups) >= 3, "{}", window(&lookups));
}

#[tokio::test(start_paused = true)]
async fn where_the_servers_work_counts_few_batches_fly() {
    // One core: a command costs 230 µs and each of its keys 5 µs, one after the other. The clock counts milliseconds, so
    // that a thousandth stands for a microsecond.
    let core = Arc::new(Semaphore::new(1));
    let server = server(move |_, keys| {
        let core = core.clone();
        async move {
            let _turn = core.acquire().await.unwrap();
            sleep(MILLISECOND * (230 + 5 * keys.len() as u32)).await;
            Ok(())
        }
    });
    let lookups = server.lookups();
    load(&lookups, 100, Duration::from_secs(600)).await;
    let mut sizes = Vec::new();
    for _ in 0..40 {
        load(&lookups, 100, Duration::from_secs(30)).await;
        sizes.push(window(&lookups));
    }
    // A trial of two may be under way.
    assert!(sizes.iter().filter(|size| **size == 1).count() > 30, "{sizes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the server does: an answer is what was there at some moment after the question, or the batch's own
    /// failure; and nobody is left without one.
    #[test]
    fn every_lookup_is_answered_and_none_with_the_past(
        steps in prop::collection::vec((0..40_u64, 0..10_u8), 1..40),
        asks in prop::collection::vec((0..30_i64, 0..60_u64, 0..8_u8), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let server = server(move |number, _| {
                let (time, fate) = steps[number % steps.len()];
                async move {
                    sleep(MILLISECOND * time as u32).await;
                    match fate {
                        0 => Err(Error::unavailable("away")),
                        1 => { sleep(Duration::from_secs(5)).await; Err(Error::unavailable("hung")) }
                        _ => Ok(()),
                    }
                }
            });
            let lookups = server.lookups();
            let clients = asks.into_iter().map(|(id, after, kind)| {
                let (server, lookups) = (server.clone(), lookups.clone());
                async move {
                    sleep(MILLISECOND * after as u32).await;
                    let version = |record: &Record| {
                        let json: serde_json::Value = serde_json::from_slice(record.json()).unwrap();
                        json["version"].as_u64().unwrap()
                    };
                    let now = |server: &Server| server.records.lock().unwrap().get(&Key::Integer(id)).map(version).unwrap();
                    match kind {
                        0 => {
                            let next = now(&server) + 1;
                            server.records.lock().unwrap().insert(Key::Integer(id), record(id, next));
                        }
                        1 => drop(timeout(MILLISECOND * 3, ask(&lookups, id)).await),
                        _ => {
                            let before = now(&server);
                            match timeout(Duration::from_secs(3_600), ask(&lookups, id)).await.expect("an answer") {
                                Ok(found) => {
                                    let found = version(&found.expect("a record that was there all the while"));
                                    assert!((before..=now(&server)).contains(&found), "{before} then {found}");
                                }
                                Err(error) => assert_eq!(error.kind(), Kind::Unavailable),
                            }
                        }
                    }
                }
            });
            join_all(clients).await;
            sleep(Duration::from_secs(600)).await;
            let state = lookups.shared.lock();
            assert!(state.order.is_empty() && state.waiting.is_empty());
            assert_eq!((state.boarding, state.flying, state.stalled), (0, 0, 0));
        });
    }
}
