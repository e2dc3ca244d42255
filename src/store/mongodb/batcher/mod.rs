//! Batches lookups, as a [DataLoader](https://github.com/graphql/dataloader) does: lookups that wait at the same time
//! become one command.
//!
//! A command costs MongoDB as much processor time as 15 further keys in it. So while a batch is in flight, lookups queue, and
//! the next batch claims them all, up to [`BATCH_KEYS`], the oldest first. A lookup that comes alone is sent at once.
//!
//! - The queue waits for a batch in flight only while it is shorter than [`ENOUGH_KEYS`], and only for [`PATIENCE`]. So a slow
//!   link has several batches in flight, and a batch that hangs delays only its own lookups.
//! - Equal keys in one batch are sent once. A lookup never joins a batch in flight, since it must see every write that
//!   returned before it began.
//! - A failed batch fails those of its lookups that were not answered yet. Callers have deadlines of their own; the key of a
//!   caller that has given up is not sent.
//!
//! The batcher knows neither the driver nor BSON: see [`BatchLoader`].

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::record::{Document, Key};
use crate::store::{Error, GetResult, Histogram, Metric, MetricValue, Result};

/// The most keys in one batch. MongoDB's first reply to a `find` has up to 101 documents, so that one reply answers a batch.
const BATCH_KEYS: usize = 100;

/// The length at which the queue does not wait for batches in flight. With a round trip of 2 ms, this answers 1.5 times as many
/// lookups as one batch at a time, and the cost of a command is less than half of that of its keys.
const ENOUGH_KEYS: usize = 32;

/// The time that a shorter queue waits for a batch in flight.
const PATIENCE: Duration = Duration::from_millis(5);

/// The most batches in flight, unless there are fewer connections.
const MAX_IN_FLIGHT: usize = 16;

/// The length of the queue at which lookups without a caller are removed. Without this, the queue would grow for as long as
/// MongoDB hangs.
const SWEEP_LENGTH: usize = 1_024;

/// Upper bounds of the histograms: keys in a batch, and seconds that it takes.
const KEYS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
const SECONDS: &[f64] = &[0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// Executes batches.
pub trait BatchLoader: Send + Sync + 'static {
    /// Loads every document that has one of `keys`. Calls `deliver` with the documents of each reply; it returns true as long as
    /// a key has no document. Runs to its end even if all callers have given up, so it must be bounded in time.
    fn load(
        &self,
        keys: Vec<Key>,
        deliver: impl FnMut(Vec<Document>) -> bool + Send,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// See the [module](self).
pub struct LookupBatcher<L>(Arc<Shared<L>>);

struct Shared<L> {
    loader: L,
    max_in_flight: usize,
    state: Mutex<State>,
}

struct State {
    /// The oldest first.
    queue: VecDeque<QueuedLookup>,
    sweep_at: usize,
    /// True while a batch is about to claim the queue.
    is_claimed: bool,
    in_flight: usize,
    /// The batches in flight for which a short queue waits.
    awaited: usize,
    /// True if the last batch had several keys.
    coalescing: bool,
    lookups: u64,
    batch_keys: Histogram,
    batch_seconds: Histogram,
}

struct QueuedLookup {
    key: Key,
    caller: oneshot::Sender<Result<GetResult>>,
}

/// A lookup in progress. Dropping it ends the wait, and does not cancel the batch.
pub struct Lookup(oneshot::Receiver<Result<GetResult>>);

impl Lookup {
    pub async fn result(self) -> Result<GetResult> {
        self.0.await.unwrap_or_else(|_| Err(Error::broken("a batch of lookups gave up")))
    }
}

impl<L: BatchLoader> LookupBatcher<L> {
    /// At most `connections` batches are in flight at once.
    pub fn new(loader: L, connections: usize) -> Self {
        let state = State {
            queue: VecDeque::new(),
            sweep_at: SWEEP_LENGTH,
            is_claimed: false,
            in_flight: 0,
            awaited: 0,
            coalescing: false,
            lookups: 0,
            batch_keys: Histogram::new(KEYS),
            batch_seconds: Histogram::new(SECONDS),
        };
        let max_in_flight = connections.clamp(1, MAX_IN_FLIGHT);
        Self(Arc::new(Shared { loader, max_in_flight, state: Mutex::new(state) }))
    }

    /// Queues a lookup for each key, next to one another.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn get(&self, keys: &[Key]) -> SmallVec<[Lookup; 2]> {
        let mut state = self.0.lock();
        let lookups = keys.iter().map(|key| {
            let (caller, result) = oneshot::channel();
            state.queue.push_back(QueuedLookup { key: key.clone(), caller });
            Lookup(result)
        });
        let lookups = lookups.collect();
        state.lookups += keys.len() as u64;
        if state.queue.len() >= state.sweep_at {
            state.queue.retain(|lookup| !lookup.caller.is_closed());
            state.sweep_at = (state.queue.len() * 2).max(SWEEP_LENGTH);
        }
        Shared::dispatch(&self.0, state);
        lookups
    }

    pub fn metrics(&self) -> Vec<Metric> {
        let state = self.0.lock();
        let metric = |name, help, unit, value| Metric { name, help, unit, value };
        vec![
            metric(
                "store_lookup_keys",
                "Keys looked up, before equal ones are joined",
                None,
                MetricValue::Counter(state.lookups),
            ),
            metric(
                "store_batch_keys",
                "Keys in one batch of lookups",
                None,
                MetricValue::Histogram(state.batch_keys.clone()),
            ),
            metric(
                "store_batch_duration",
                "Time that one batch of lookups takes",
                Some("seconds"),
                MetricValue::Histogram(state.batch_seconds.clone()),
            ),
            metric(
                "store_batches_in_flight",
                "Batches of lookups in flight",
                None,
                MetricValue::Gauge(state.in_flight as f64),
            ),
        ]
    }
}

impl<L: BatchLoader> Shared<L> {
    // A poisoned lock is safe to use: no change of the state can panic half way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a batch, if the queue has lookups for one that should not wait.
    fn dispatch(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let enough = if state.awaited == 0 { 1 } else { ENOUGH_KEYS };
        if state.is_claimed || state.queue.len() < enough || state.in_flight >= self.max_in_flight {
            return;
        }
        state.is_claimed = true;
        let coalescing = state.coalescing;
        // A runtime that shuts down drops the task at once, and its destructor takes the lock.
        drop(state);
        let task = BatchTask { shared: self.clone(), stage: Stage::Claiming };
        tokio::spawn(task.run(coalescing));
    }
}

impl State {
    /// Takes the oldest lookups out of the queue, up to a batch.
    fn claim(&mut self) -> HashMap<Key, Claimed> {
        let mut batch: HashMap<Key, Claimed> = HashMap::new();
        while let Some(QueuedLookup { key, caller }) = self.queue.pop_front() {
            if caller.is_closed() {
                continue;
            }
            if batch.len() == BATCH_KEYS && !batch.contains_key(&key) {
                self.queue.push_front(QueuedLookup { key, caller });
                break;
            }
            batch.entry(key).or_default().callers.push(caller);
        }
        batch
    }
}

/// A key of a batch in flight.
#[derive(Default)]
struct Claimed {
    /// The callers that wait for this key, nearly always one.
    callers: Vec<oneshot::Sender<Result<GetResult>>>,
    result: GetResult,
}

impl Claimed {
    fn answer(self, result: Result<GetResult>) {
        for caller in self.callers {
            // A caller that has given up takes no result.
            let _ = caller.send(result.clone());
        }
    }
}

/// A batch, from its dispatch to its end. Dropping it makes room for the next one, also after a panic.
struct BatchTask<L: BatchLoader> {
    shared: Arc<Shared<L>>,
    stage: Stage,
}

enum Stage {
    Claiming,
    InFlight {
        since: Instant,
        awaited: bool,
    },
    /// No caller waits any more.
    Unneeded,
}

impl<L: BatchLoader> BatchTask<L> {
    async fn run(mut self, coalescing: bool) {
        if coalescing {
            // Lets requests that have arrived already queue their lookups. Skipped while lookups come alone, which it would only
            // delay.
            tokio::task::yield_now().await;
        }
        let Some(mut batch) = self.claim() else { return };
        let keys = batch.keys().cloned().collect();
        let deliver = |documents: Vec<Document>| {
            for document in documents {
                // A collection with a collation may return other keys as well.
                if let Some(Claimed { result, .. }) = batch.get_mut(document.key()) {
                    result.is_ambiguous = result.document.replace(document).is_some();
                }
            }
            for (_, mut claimed) in batch.extract_if(|_, claimed| claimed.result.document.is_some()) {
                let result = std::mem::take(&mut claimed.result);
                claimed.answer(Ok(result));
            }
            !batch.is_empty()
        };
        let shared = self.shared.clone();
        let result = {
            let mut load = pin!(shared.loader.load(keys, deliver));
            match timeout(PATIENCE, load.as_mut()).await {
                Ok(result) => result,
                Err(_) => {
                    self.release_queue();
                    load.await
                }
            }
        };
        for claimed in batch.into_values() {
            claimed.answer(result.clone().map(|()| GetResult::default()));
        }
    }

    /// Claims lookups from the queue. Returns `None` if no caller waits any more.
    fn claim(&mut self) -> Option<HashMap<Key, Claimed>> {
        let mut state = self.shared.lock();
        let batch = state.claim();
        // Reset under the same lock as the claim: a lookup that is queued from now on needs another batch.
        state.is_claimed = false;
        if batch.is_empty() {
            self.stage = Stage::Unneeded;
            return None;
        }
        self.stage = Stage::InFlight { since: Instant::now(), awaited: true };
        state.in_flight += 1;
        state.awaited += 1;
        state.coalescing = batch.len() > 1;
        state.batch_keys.observe(batch.len() as f64);
        Shared::dispatch(&self.shared, state);
        Some(batch)
    }

    /// Ends the queue's wait for this batch.
    fn release_queue(&mut self) {
        if let Stage::InFlight { awaited, .. } = &mut self.stage
            && std::mem::take(awaited)
        {
            let mut state = self.shared.lock();
            state.awaited -= 1;
            Shared::dispatch(&self.shared, state);
        }
    }
}

impl<L: BatchLoader> Drop for BatchTask<L> {
    fn drop(&mut self) {
        match self.stage {
            // The runtime shuts down: another task would not run either.
            Stage::Claiming => self.shared.lock().is_claimed = false,
            Stage::InFlight { since, awaited } => {
                let mut state = self.shared.lock();
                state.in_flight -= 1;
                state.awaited -= usize::from(awaited);
                state.batch_seconds.observe(since.elapsed().as_secs_f64());
                Shared::dispatch(&self.shared, state);
            }
            Stage::Unneeded => {}
        }
    }
}

#[cfg(test)]
mod tests;
