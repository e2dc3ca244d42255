//! Exponential back-off with full jitter: many instances that fail at the same time do not try again at the same time.

use std::time::Duration;

/// The longest pause after the first failure.
const BASE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Returns a random pause, up to a bound that doubles with each failure and is never above `max`.
    pub fn next(&mut self, max: Duration) -> Duration {
        let bound = BASE.saturating_mul(1 << self.failures.min(16)).min(max);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(fastrand::f64())
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}
