//! Counts the failed calls to MongoDB by reason.
//!
//! A call is counted when it ends, even if its caller has given up. A call that exceeds our time-out is counted as a time-out,
//! and again if it fails later. A batch of lookups counts once.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::is_timeout;
use crate::store::{Error, Kind, Metric, MetricValue};

/// Time-outs are counted separately although their kind is `Unavailable`: a server that hangs needs other measures than one that
/// is down.
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
