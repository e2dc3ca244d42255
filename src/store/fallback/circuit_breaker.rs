//! A circuit breaker for the primary.
//!
//! - *closed*: requests go to the primary.
//! - *open*: too many round trips have failed, and the replica answers at once. A task probes the primary, so that no request
//!   is spent on that.
//! - *half open*: one probe was answered. The next answer closes the breaker.
//!
//! The breaker counts round trips. Many calls may wait for one round trip, as lookups in a batch do, so calls that began
//! together count once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::store::Store;

/// The consecutive failures that open the breaker. A single failure may be an accident.
const CONSECUTIVE_FAILURES: usize = 5;

/// The number of round trips in the window, and the age beyond which they no longer count.
const WINDOW: usize = 20;
const WINDOW_TIME: Duration = Duration::from_secs(10);

/// The breaker opens if at least half of the window failed, and the window has at least this many round trips.
const RATED_FROM: usize = 10;

/// Calls that began within this time share a round trip. The primary sends a batch of lookups within a few milliseconds.
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// The time between two probes. Reads return to the primary after two answers.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Closed,
    HalfOpen,
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    Failure,
}

pub struct CircuitBreaker {
    state: AtomicU8,
    opened: Notify,
    epoch: Instant,
    /// The number of the last round trip that succeeded, in units of [`ROUND_TRIP`] since the epoch.
    last_success: AtomicU64,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    /// The oldest first, with the time at which it ended.
    outcomes: VecDeque<(Instant, Outcome)>,
    /// The start of the last failed round trip.
    last_failure: Option<Instant>,
}

impl Window {
    fn push(&mut self, outcome: Outcome) {
        let now = Instant::now();
        self.outcomes.push_back((now, outcome));
        while self.outcomes.len() > WINDOW
            || self.outcomes.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW_TIME)
        {
            self.outcomes.pop_front();
        }
    }

    fn is_failing(&self) -> bool {
        let has_failed = |(_, outcome): &&(Instant, Outcome)| *outcome == Outcome::Failure;
        let consecutive = self.outcomes.iter().rev().take_while(has_failed).count();
        let failed = self.outcomes.iter().filter(has_failed).count();
        consecutive >= CONSECUTIVE_FAILURES || (self.outcomes.len() >= RATED_FROM && failed * 2 >= self.outcomes.len())
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(State::Closed as u8),
            opened: Notify::new(),
            epoch: Instant::now(),
            last_success: AtomicU64::new(u64::MAX),
            window: Mutex::default(),
        }
    }
}

impl CircuitBreaker {
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Closed,
            1 => State::HalfOpen,
            _ => State::Open,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.state() == State::Closed
    }

    /// Waits until the breaker is not closed.
    pub async fn wait_until_open(&self) {
        loop {
            let opened = self.opened.notified();
            if !self.is_closed() {
                return;
            }
            opened.await;
        }
    }

    pub fn record_success(&self) {
        let round_trip = (self.epoch.elapsed().as_millis() / ROUND_TRIP.as_millis()) as u64;
        // Nearly all calls stop at this read: as long as the cache line is not written, threads share it.
        if self.last_success.load(Ordering::Relaxed) != round_trip
            && self.last_success.swap(round_trip, Ordering::Relaxed) != round_trip
        {
            self.window().push(Outcome::Success);
        }
    }

    /// Records the failure of a call that began at `began`.
    pub fn record_failure(&self, began: Instant, cause: &str) {
        let mut window = self.window();
        if window.last_failure.is_some_and(|last| began < last + ROUND_TRIP) {
            return;
        }
        window.last_failure = Some(began);
        window.push(Outcome::Failure);
        let is_failing = window.is_failing();
        drop(window);
        if is_failing && self.set(State::Closed, State::Open) {
            tracing::warn!(cause, "MongoDB is unreachable; serving from the replica");
            self.opened.notify_waiters();
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Probes `primary` while the breaker is not closed, and closes it. An answer that takes longer than `within` counts as a
/// failure: reads from such a slow primary would open the breaker again.
pub async fn probe(breaker: Arc<CircuitBreaker>, primary: Arc<dyn Store>, within: Duration) {
    loop {
        breaker.wait_until_open().await;
        sleep(PAUSE).await;
        if !matches!(timeout(within, primary.ping()).await, Ok(Ok(()))) {
            breaker.set(State::HalfOpen, State::Open);
        } else if !breaker.set(State::Open, State::HalfOpen) {
            breaker.window().outcomes.clear();
            if breaker.set(State::HalfOpen, State::Closed) {
                tracing::info!("MongoDB answers again; serving from MongoDB");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Records failures of consecutive round trips.
    async fn fail(breaker: &CircuitBreaker, times: usize) {
        for _ in 0..times {
            let began = Instant::now();
            advance(ROUND_TRIP).await;
            breaker.record_failure(began, "test");
        }
    }

    async fn succeed(breaker: &CircuitBreaker, times: usize) {
        for _ in 0..times {
            advance(ROUND_TRIP).await;
            breaker.record_success();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_so_many_failures_in_a_row_and_not_before() {
        let breaker = CircuitBreaker::default();
        for _ in 0..3 {
            fail(&breaker, CONSECUTIVE_FAILURES - 1).await;
            succeed(&breaker, 10).await;
        }
        assert!(breaker.is_closed());
        fail(&breaker, CONSECUTIVE_FAILURES).await;
        assert_eq!(breaker.state(), State::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn opens_if_half_of_the_round_trips_fail() {
        let breaker = CircuitBreaker::default();
        for _ in 0..RATED_FROM / 2 {
            assert!(breaker.is_closed());
            succeed(&breaker, 1).await;
            fail(&breaker, 1).await;
        }
        assert_eq!(breaker.state(), State::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_began_together_are_one_failure() {
        let breaker = CircuitBreaker::default();
        let began = Instant::now();
        advance(Duration::from_millis(250)).await;
        (0..128).for_each(|call| breaker.record_failure(began + Duration::from_micros(call * 40), "test"));
        assert!(breaker.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_long_ago_do_not_count() {
        let breaker = CircuitBreaker::default();
        for _ in 0..CONSECUTIVE_FAILURES * 2 {
            fail(&breaker, 1).await;
            advance(WINDOW_TIME / 2).await;
        }
        assert!(breaker.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn wakes_all_waiting_calls_when_it_opens() {
        let breaker = Arc::new(CircuitBreaker::default());
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let breaker = breaker.clone();
                tokio::spawn(async move { breaker.wait_until_open().await })
            })
            .collect();
        tokio::task::yield_now().await;
        fail(&breaker, CONSECUTIVE_FAILURES).await;
        for waiting in waiting {
            timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
        }
    }
}
