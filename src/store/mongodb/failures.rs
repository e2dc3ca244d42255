//! Calls to MongoDB that failed, counted by reason.
//!
//! A call counts when it ends, also if its caller has given up; a call that ran out of time here counts as a time-out, and
//! again if it fails later. Lookups that share a batch share its failure.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::is_timeout;
use crate::store::{Error, Kind, Metric, MetricValue};

/// A time-out is of the kind `Unavailable`, but a server that hangs is another trouble than one that is away.
const REASONS: [&str; 4] = ["unavailable", "timeout", "invalid", "broken"];

#[derive(Debug, Default)]
pub struct Failures([AtomicU64; REASONS.len()]);

impl Failures {
    pub fn metric(&self) -> Metric {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Metric {
            name: "store_failures",
            help: "Calls to MongoDB that failed or ran out of time, by reason",
            unit: None,
            value: MetricValue::Counters { label: "reason", values: REASONS.into_iter().zip(counts).collect() },
        }
    }

    pub fn count(&self, error: &Error) {
        let reason = match error.kind() {
            _ if is_timeout(error) => 1,
            Kind::Unavailable => 0,
            Kind::Invalid => 2,
            Kind::Broken => 3,
        };
        self.0[reason].fetch_add(1, Ordering::Relaxed);
    }
}
