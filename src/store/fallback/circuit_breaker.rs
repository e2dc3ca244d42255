//! A circuit breaker for the primary.
//!
//! - *closed*: requests go to the primary.
//! - *open*: several calls in a row have failed, and the replica answers at once. A task probes the primary, so that no request
//!   is spent on that.
//! - *half open*: one probe was answered. The next answer closes the breaker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::store::Store;

/// The number of failures in a row that open the breaker. A slow list is no failure unless a ping fails too.
const FAILURES: u32 = 5;

/// The time between two probes. Reads return to the primary after two answers.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Closed,
    HalfOpen,
    Open,
}

pub struct CircuitBreaker {
    state: AtomicU8,
    /// In a row.
    failures: AtomicU32,
    opened: Notify,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { state: AtomicU8::new(State::Closed as u8), failures: AtomicU32::new(0), opened: Notify::new() }
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
        // The count is nearly always 0 already, and threads share the cache line as long as it is not written.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub fn record_failure(&self, cause: &str) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= FAILURES && self.set(State::Closed, State::Open) {
            tracing::warn!(cause, "MongoDB is unreachable; serving from the replica");
            self.opened.notify_waiters();
        }
    }

    fn set(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Probes `primary` while the breaker is not closed, and closes it. An answer that takes longer than `within` is a failure:
/// reads from a primary so slow would open the breaker again.
pub async fn probe(breaker: Arc<CircuitBreaker>, primary: Arc<dyn Store>, within: Duration) {
    loop {
        breaker.wait_until_open().await;
        sleep(PAUSE).await;
        if !matches!(timeout(within, primary.ping()).await, Ok(Ok(()))) {
            breaker.set(State::HalfOpen, State::Open);
        } else if !breaker.set(State::Open, State::HalfOpen) {
            breaker.failures.store(0, Ordering::Relaxed);
            if breaker.set(State::HalfOpen, State::Closed) {
                tracing::info!("MongoDB answers again; serving from MongoDB");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_so_many_failures_in_a_row_and_not_before() {
        let breaker = CircuitBreaker::default();
        for _ in 0..3 {
            (1..FAILURES).for_each(|_| breaker.record_failure("test"));
            breaker.record_success();
        }
        assert!(breaker.is_closed());
        (0..FAILURES).for_each(|_| breaker.record_failure("test"));
        assert_eq!(breaker.state(), State::Open);
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
        (0..FAILURES).for_each(|_| breaker.record_failure("test"));
        for waiting in waiting {
            timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
        }
    }
}
