//! Lookups that are in flight together share a round trip.
//!
//! A server's cost for a lookup is mostly the cost of a command; another key in it is cheap. So while as many batches are
//! under way as [`window`] finds best, new lookups gather; the next batch takes all that have gathered, up to
//! [`BATCH_KEYS`]. There is no timer in front of a lookup: one that comes alone leaves at once, alone. Where batches have more
//! than one key, at once means after what the runtime has at hand: requests that have arrived already come along.
//!
//! - Lookups of one key that are waiting together are one key of one batch. A lookup never joins a batch that has left:
//!   it must see every write that returned before it began.
//! - A batch that takes much longer than batches do no longer holds up the others: it keeps its own lookups waiting, and
//!   the next one leaves without it. At most [`FLIGHTS`] are under way, slow ones included.
//! - A failure is that of the lookups in its batch that were not answered yet. Those who wait hold their own deadlines;
//!   one who has gone leaves the others as they are, and his key is not even asked for if nobody else wants it.
//! - First come, first served: a batch takes the keys that have waited longest.
//!
//! Knows neither the driver nor BSON: see [`Fetch`].

mod window;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::super::{Error, Result};
use crate::record::{Key, Record};
use window::Window;

/// The most keys of one batch. At this size the command's own cost is a quarter of the whole; a larger batch would keep
/// its first lookups waiting for its last.
const BATCH_KEYS: usize = 128;

/// The most batches under way, unless there are fewer connections.
const FLIGHTS: usize = 16;

/// After so many lookups at least, what nobody waits for any more is thrown away: while no batch leaves, which may be as long
/// as MongoDB hangs, nothing else would.
const SWEEP: usize = 1_024;

/// Upper bounds of the histogram of batch sizes, in keys.
const SIZES: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// Upper bounds of the histogram of round trips, in seconds.
const SECONDS: [f64; 10] = [0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// One round trip.
pub trait Fetch: Send + Sync + 'static {
    /// Calls `found` with every record that has one of `keys`, as it comes. Runs to its end; it must end some time.
    fn fetch(&self, keys: Vec<Key>, found: impl FnMut(Record) + Send) -> impl Future<Output = Result<()>> + Send;
}

type Answer = Result<Option<Record>>;

/// Those who wait for one key. Nearly always one.
type Waiters = Vec<oneshot::Sender<Answer>>;

/// Keys, since when each is waited for, and by whom.
type Batch = HashMap<Key, (Instant, Waiters)>;

pub struct Lookups<F> {
    shared: Arc<Shared<F>>,
}

struct Shared<F> {
    fetch: F,
    state: Mutex<State>,
    flights: usize,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    waiting: Batch,
    /// The keys of `waiting`, the oldest first.
    order: VecDeque<Key>,
    /// How many lookups may still come before the next sweep.
    until_sweep: usize,
    /// Batches that will leave as soon as the runtime has nothing else at hand.
    boarding: usize,
    /// Batches under way, but for those that have stalled.
    flying: usize,
    stalled: usize,
    /// Whether the last batch had more than one key.
    company: bool,
    window: Window,
}

#[derive(Clone)]
struct Metrics {
    keys: Histogram,
    seconds: Histogram,
    lookups: Counter,
    in_flight: Gauge,
    window: Gauge,
}

impl<F: Fetch> Lookups<F> {
    /// At most `connections` batches at once.
    pub fn new(fetch: F, connections: usize) -> Self {
        let metrics = Metrics {
            keys: Histogram::new(SIZES),
            seconds: Histogram::new(SECONDS),
            lookups: Counter::default(),
            in_flight: Gauge::default(),
            window: Gauge::default(),
        };
        metrics.window.set(1);
        let flights = FLIGHTS.min(connections).max(1);
        let state = Mutex::new(State { window: Window::new(flights), ..State::default() });
        Self { shared: Arc::new(Shared { fetch, state, flights, metrics }) }
    }

    /// The records with these keys, each as it is known. All of them are in one batch, as far as it has room.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn get<const N: usize>(&self, keys: [Key; N]) -> [Lookup; N] {
        let mut state = self.shared.lock();
        match state.until_sweep.checked_sub(N) {
            Some(left) => state.until_sweep = left,
            None => state.sweep(),
        }
        let now = Instant::now();
        let lookups = keys.map(|key| {
            let (sender, receiver) = oneshot::channel();
            if let Some((_, waiters)) = state.waiting.get_mut(&key) {
                waiters.push(sender);
            } else {
                state.order.push_back(key.clone());
                state.waiting.insert(key, (now, vec![sender]));
            }
            Lookup(receiver)
        });
        self.shared.metrics.lookups.inc_by(N as u64);
        Shared::depart(&self.shared, state);
        lookups
    }

    pub fn register(&self, registry: &mut Registry) {
        let metrics = self.shared.metrics.clone();
        registry.register(
            "store_lookup_keys",
            "Keys looked up, before those that are equal are joined",
            metrics.lookups,
        );
        registry.register("store_batch_keys", "Keys of one round trip", metrics.keys);
        registry.register_with_unit("store_batch_duration", "Time of one round trip", Unit::Seconds, metrics.seconds);
        registry.register("store_batches_in_flight", "Round trips under way", metrics.in_flight);
        registry.register(
            "store_batches_window",
            "Round trips that may be under way before lookups gather",
            metrics.window,
        );
    }
}

/// A lookup under way. Dropping it cancels nothing but the wait.
pub struct Lookup(oneshot::Receiver<Answer>);

impl Lookup {
    pub async fn answer(self) -> Answer {
        self.0.await.unwrap_or_else(|_| Err(Error::broken("a batch of lookups gave up")))
    }
}

impl<F: Fetch> Shared<F> {
    // A panic while the lock was held cannot have left half of a change that matters: at worst a lookup gets no answer,
    // and says so.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls for as many batches as there is something for, and room.
    fn depart(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let mut called = 0;
        while state.order.len() > state.boarding * BATCH_KEYS
            && state.boarding + state.flying < state.window.size()
            && state.boarding + state.flying + state.stalled < self.flights
        {
            state.boarding += 1;
            called += 1;
        }
        drop(state);
        for _ in 0..called {
            tokio::spawn(Flight::new(self.clone()).fly());
        }
    }
}

impl State {
    /// Forgets those who have gone. As many lookups as are left must come before the next time, so that it costs each of them
    /// little, however many wait.
    fn sweep(&mut self) {
        self.waiting.retain(|_, (_, waiters)| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        self.order.retain(|key| self.waiting.contains_key(key));
        self.until_sweep = self.waiting.values().map(|(_, waiters)| waiters.len()).sum::<usize>().max(SWEEP);
    }

    /// The next batch: the keys that have waited longest, without those that nobody waits for any more.
    fn gather(&mut self) -> Option<Batch> {
        let mut batch = HashMap::new();
        while batch.len() < BATCH_KEYS
            && let Some(key) = self.order.pop_front()
        {
            if let Some((since, mut waiters)) = self.waiting.remove(&key) {
                waiters.retain(|waiter| !waiter.is_closed());
                if !waiters.is_empty() {
                    batch.insert(key, (since, waiters));
                }
            }
        }
        (!batch.is_empty()).then_some(batch)
    }
}

/// How long the keys of a batch took, from the first who asked for each to its answer.
#[derive(Default)]
struct Waited {
    total: Duration,
    keys: u32,
}

/// Where a flight is, and by that which place it holds.
enum Stage {
    Boarding,
    /// There was nothing to take on.
    Stayed,
    Flying {
        departed: Instant,
        arm: window::Arm,
    },
    Stalled {
        departed: Instant,
        arm: window::Arm,
    },
}

/// A batch under way. When it is dropped, however that comes, its place is free.
struct Flight<F: Fetch> {
    shared: Arc<Shared<F>>,
    stage: Stage,
    waited: Waited,
}

impl<F: Fetch> Flight<F> {
    fn new(shared: Arc<Shared<F>>) -> Self {
        Self { shared, stage: Stage::Boarding, waited: Waited::default() }
    }

    async fn fly(mut self) {
        if self.shared.lock().company {
            // Whoever has something to ask already, asks now. Not where lookups come one by one: it wakes another thread, which
            // costs such a lookup more than the rest of the way.
            tokio::task::yield_now().await;
        }
        let Some((mut batch, patience)) = self.take_off() else { return };
        let shared = self.shared.clone();
        let keys: Vec<Key> = batch.keys().cloned().collect();
        let mut waited = Waited::default();
        let found = |record: Record| {
            // The server may answer `5` to a question for `5.0`, which is the same key; never what nobody asked for.
            if let Some((since, waiters)) = batch.remove(record.key()) {
                waited.total += since.elapsed();
                waited.keys += 1;
                deliver(waiters, || Ok(Some(record.clone())));
            }
        };
        let result = {
            let mut fetch = std::pin::pin!(shared.fetch.fetch(keys, found));
            match timeout(patience, fetch.as_mut()).await {
                Ok(result) => result,
                Err(_) => {
                    self.stall();
                    fetch.await
                }
            }
        };
        for (_, (since, waiters)) in batch {
            waited.total += since.elapsed();
            waited.keys += 1;
            deliver(waiters, || result.clone().map(|()| None));
        }
        if result.is_ok() {
            // What failed says nothing of how long it would have taken.
            self.waited = waited;
        }
    }

    /// Takes on what has gathered, and how long to wait for it before the next one leaves. Nothing is left when others
    /// took it along, or nobody waits any more.
    fn take_off(&mut self) -> Option<(Batch, Duration)> {
        let mut state = self.shared.lock();
        // In one step with the gathering: whoever asks while this still boards counts on being taken along.
        state.boarding -= 1;
        let Some(batch) = state.gather() else {
            self.stage = Stage::Stayed;
            return None;
        };
        state.flying += 1;
        state.company = batch.len() > 1;
        self.stage = Stage::Flying { departed: Instant::now(), arm: state.window.arm() };
        let patience = state.window.patience();
        // There may be more than this one takes.
        Shared::depart(&self.shared, state);
        self.shared.metrics.keys.observe(batch.len() as f64);
        self.shared.metrics.in_flight.inc();
        Some((batch, patience))
    }

    /// Leaves the place to another batch, and flies on.
    fn stall(&mut self) {
        let Stage::Flying { departed, arm } = self.stage else { return };
        self.stage = Stage::Stalled { departed, arm };
        let mut state = self.shared.lock();
        state.flying -= 1;
        state.stalled += 1;
        Shared::depart(&self.shared, state);
    }
}

/// One who has gone gets nothing, and misses nothing.
fn deliver(waiters: Waiters, answer: impl Fn() -> Answer) {
    for waiter in waiters {
        let _ = waiter.send(answer());
    }
}

impl<F: Fetch> Drop for Flight<F> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let (departed, arm) = match self.stage {
            // The runtime has gone and takes no tasks, so another would fare alike.
            Stage::Boarding => {
                state.boarding -= 1;
                return;
            }
            Stage::Stayed => return,
            Stage::Flying { departed, arm } => {
                state.flying -= 1;
                (departed, arm)
            }
            Stage::Stalled { departed, arm } => {
                state.stalled -= 1;
                (departed, arm)
            }
        };
        let took = departed.elapsed();
        if self.waited.keys > 0 {
            let gathering = !state.order.is_empty();
            state.window.landed(arm, took, self.waited.total, self.waited.keys, gathering);
            self.shared.metrics.window.set(state.window.size() as i64);
        }
        self.shared.metrics.seconds.observe(took.as_secs_f64());
        self.shared.metrics.in_flight.dec();
        Shared::depart(&self.shared, state);
    }
}

#[cfg(test)]
mod tests;
