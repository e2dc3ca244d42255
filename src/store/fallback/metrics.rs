//! The replica and the circuit breaker as metrics.

use std::sync::atomic::Ordering;

use super::super::{Metric, MetricValue};
use super::circuit_breaker::{CircuitBreaker, State};
use super::replica::Replica;

pub fn metrics(replica: &Replica, breaker: &CircuitBreaker) -> Vec<Metric> {
    let gauge = |name, help, unit, value| Metric { name, help, unit, value: MetricValue::Gauge(value) };
    let is = |yes: bool| f64::from(u8::from(yes));
    let state = breaker.state();
    let states = [("closed", State::Closed), ("half_open", State::HalfOpen), ("open", State::Open)];
    let mut metrics = vec![
        Metric {
            name: "circuit_breaker_state",
            help: "1 for the state of the circuit breaker of MongoDB, 0 for the others",
            unit: None,
            value: MetricValue::Gauges {
                label: "state",
                values: states.map(|(name, value)| (name, is(state == value))).into(),
            },
        },
        gauge("fallback_replica_usable", "1 if the replica could answer now", None, is(replica.age().is_ok())),
        gauge(
            "fallback_replica_in_sync",
            "1 while the replica follows the changes of MongoDB, or is refreshed by snapshots",
            None,
            is(replica.is_in_sync()),
        ),
    ];
    if let Ok(served) = replica.served() {
        let age = replica.age_of(&served).as_secs_f64();
        let (records, size) = (served.records() as f64, served.size() as f64);
        metrics.extend([
            gauge("fallback_replica_age", "Time since the replica was last known to be current", Some("seconds"), age),
            gauge("fallback_replica_records", "Records in the replica", None, records),
            gauge("fallback_replica_size", "Size of the replica, as its limit counts", Some("bytes"), size),
        ]);
    }
    metrics.extend(
        [
            ("fallback_replica_answers", "Lookups and lists answered by the replica", &replica.answers),
            ("fallback_replica_snapshots", "Snapshots of MongoDB that became the replica", &replica.snapshots),
            ("fallback_replica_interruptions", "Failures to make or update the replica", &replica.interruptions),
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
