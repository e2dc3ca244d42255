//! Lookups over a server that does what each case says, under a clock that advances only when all tasks wait.

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

/// Called with the number of a batch and its keys, in their order.
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
    let others = (1..BATCH_QUEUED as i64).map(|id| get(&batcher, id)).collect();
    assert_found(first.await, 0);
    assert_all_found(others, 1).await;
    assert_eq!(server.batches(), [vec![0], (1..BATCH_QUEUED as i64).collect()]);
    assert_eq!(begun.elapsed(), MILLISECOND * 2);
}
