//! The copy and the breaker as metrics.

use std::sync::atomic::Ordering;

use super::super::{Metric, MetricValue};
use super::breaker::{Breaker, State};
use super::copy::Copy;

pub fn metrics(copy: &Copy, breaker: &Breaker) -> Vec<Metric> {
    let gauge = |name, help, unit, value| Metric { name, help, unit, value: MetricValue::Gauge(value) };
    let is = |yes: bool| f64::from(u8::from(yes));
    let open = match breaker.state() {
        State::Closed => 0.0,
        State::HalfOpen => 0.5,
        State::Open => 1.0,
    };
    let mut metrics = vec![
        gauge(
            "store_breaker_open",
            "1: the store is not asked; 0.5: it has answered once again; 0: it is asked",
            None,
            open,
        ),
        gauge("store_copy_usable", "Whether the copy of the store could answer", None, is(copy.age().is_ok())),
        gauge(
            "store_copy_kept",
            "Whether the copy follows the store, or is refreshed from time to time",
            None,
            is(copy.is_kept()),
        ),
    ];
    if let Ok(served) = copy.served() {
        let age = copy.age_of(&served).as_secs_f64();
        metrics.extend([
            gauge("store_copy_age", "Since the copy was last known to be current", Some("seconds"), age),
            gauge("store_copy_records", "Records in the copy", None, served.records() as f64),
            gauge("store_copy_size", "The size of the copy, as its limit counts", Some("bytes"), served.size() as f64),
        ]);
    }
    metrics.extend(
        [
            ("store_copy_answers", "Lookups and lists that the copy answered", &copy.answers),
            ("store_copy_snapshots", "Snapshots that became the copy", &copy.snapshots),
            ("store_copy_interruptions", "Failures to keep the copy, or to make one", &copy.interruptions),
        ]
        .map(|(name, help, value)| Metric {
            name,
            help,
            unit: None,
            value: MetricValue::Counter(value.load(Ordering::Relaxed)),
        }),
    );
    metrics
}
