//! Whether it is worth asking the primary.
//!
//! - *closed*: requests go to it.
//! - *open*: so many in a row were not answered that no more are sent; the copy answers at once. A task asks instead, so
//!   that no request is spent on finding out.
//! - *half open*: it has answered the task once. The next answer closes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::store::Store;

/// How many calls in a row must fail. One alone may be an accident; a few more is little to wait for, and calls that wait
/// at the same time all count. A list that is slow does not, unless a ping fails that is sent then.
const FAILURES: u32 = 5;

/// How long between two questions of the task. Reads return to the primary after two answers.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Closed,
    HalfOpen,
    Open,
}

pub struct Breaker {
    state: AtomicU8,
    /// In a row.
    failures: AtomicU32,
    opened: Notify,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: AtomicU8::new(State::Closed as u8), failures: AtomicU32::new(0), opened: Notify::new() }
    }
}

impl Breaker {
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

    /// Returns when the breaker is not closed. Those who wait for the primary need not wait longer then.
    pub async fn opened(&self) {
        loop {
            let opened = self.opened.notified();
            if !self.is_closed() {
                return;
            }
            opened.await;
        }
    }

    pub fn succeeded(&self) {
        // Mostly it is 0 already, and a line of memory that many read is better not written.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub fn failed(&self, cause: &str) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= FAILURES && self.set(State::Closed, State::Open) {
            tracing::warn!(cause, "the store does not answer: it is not waited for where its copy can");
            self.opened.notify_waiters();
        }
    }

    fn set(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Asks `primary` while the breaker is not closed, and closes it. An answer that takes longer than `within` is none: reads
/// that came back to a store so slow would leave it again.
pub async fn probe(breaker: Arc<Breaker>, primary: Arc<dyn Store>, within: Duration) {
    loop {
        breaker.opened().await;
        sleep(PAUSE).await;
        if !matches!(timeout(within, primary.ping()).await, Ok(Ok(()))) {
            breaker.set(State::HalfOpen, State::Open);
        } else if !breaker.set(State::Open, State::HalfOpen) {
            // Those of before say nothing of now.
            breaker.failures.store(0, Ordering::Relaxed);
            if breaker.set(State::HalfOpen, State::Closed) {
                tracing::info!("the store answers again, and is asked again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_so_many_failures_in_a_row_and_not_before() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            (1..FAILURES).for_each(|_| breaker.failed("test"));
            breaker.succeeded();
        }
        assert!(breaker.is_closed());
        (0..FAILURES).for_each(|_| breaker.failed("test"));
        assert_eq!(breaker.state(), State::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn wakes_everybody_who_waits_when_it_opens() {
        let breaker = Arc::new(Breaker::default());
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let breaker = breaker.clone();
                tokio::spawn(async move { breaker.opened().await })
            })
            .collect();
        tokio::task::yield_now().await;
        (0..FAILURES).for_each(|_| breaker.failed("test"));
        for waiting in waiting {
            timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
        }
    }
}
