//! The replica and the circuit breaker as metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::{Metric, MetricValue};
use super::circuit_breaker::{CircuitBreaker, State};
use super::replica::{Replica, SyncState};

/// Counts of reads whose reader bounds the staleness, by their result.
#[derive(Default)]
pub struct BoundedReads {
    pub primary: AtomicU64,
    pub refused: AtomicU64,
    pub replica: AtomicU64,
}

/// Returns a gauge for each state: 1 for the current one, else 0.
fn enumeration<S: PartialEq, const N: usize>(
    name: &'static str,
    help: &'static str,
    states: [(&'static str, S); N],
    current: S,
) -> Metric {
    let values = states.into_iter().map(|(name, state)| (name, f64::from(u8::from(state == current)))).collect();
    Metric { name, help, unit: None, value: MetricValue::Gauges { label: "state", values } }
}

pub fn metrics(replica: &Replica, breaker: &CircuitBreaker, bounded: &BoundedReads, size_limit: u64) -> Vec<Metric> {
    let gauge = |name, help, unit, value| Metric { name, help, unit, value: MetricValue::Gauge(value) };
    let is = |yes: bool| f64::from(u8::from(yes));
    let breaker_states = [("closed", State::Closed), ("half_open", State::HalfOpen), ("open", State::Open)];
    let sync_states = [
        ("following", SyncState::Following),
        ("refreshing", SyncState::Refreshing),
        ("interrupted", SyncState::Interrupted),
        ("too_large", SyncState::TooLarge),
    ];
    let mut metrics = vec![
        enumeration(
            "circuit_breaker_state",
            "1 for the state of the circuit breaker of MongoDB, 0 for the others",
            breaker_states,
            breaker.state(),
        ),
        enumeration(
            "fallback_replica_sync_state",
            "1 for the state of the replica, 0 for the others: it follows the changes of MongoDB, is refreshed by snapshots, \
             is not updated, or exceeds its size limit",
            sync_states,
            replica.sync_state(),
        ),
        gauge("fallback_replica_usable", "1 if the replica could answer now", None, is(replica.age().is_ok())),
        gauge("fallback_replica_size_limit", "The largest size of the replica", Some("bytes"), size_limit as f64),
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
            ("fallback_replica_bootstraps", "Replicas taken from a sibling or a file", &replica.bootstraps),
            ("fallback_replica_saves", "Writes of the replica to the file of --fallback-save", &replica.saves),
            ("fallback_replica_interruptions", "Failures to make or update the replica", &replica.interruptions),
        ]
        .map(|(name, help, value)| Metric {
            name,
            help,
            unit: None,
            value: MetricValue::Counter(value.load(Ordering::Relaxed)),
        }),
    );
    let audits = [
        ("abandoned", &replica.audits_abandoned),
        ("different", &replica.audits_different),
        ("equal", &replica.audits_equal),
    ];
    metrics.push(Metric {
        name: "fallback_audits",
        help: "Audits, which compare a range of the replica with MongoDB, by outcome; abandoned: MongoDB or the replica lagged",
        unit: None,
        value: MetricValue::Counters {
            label: "outcome",
            values: audits.map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed))).to_vec(),
        },
    });
    metrics.push(Metric {
        name: "fallback_audited_records",
        help: "Records of the replica that audits have compared with MongoDB",
        unit: None,
        value: MetricValue::Counter(replica.audited_records.load(Ordering::Relaxed)),
    });
    let outcomes = [("mongodb", &bounded.primary), ("refused", &bounded.refused), ("replica", &bounded.replica)];
    metrics.push(Metric {
        name: "fallback_bounded_reads",
        help: "Lookups and lists whose request bounds the staleness, by which side answered; refused: neither could",
        unit: None,
        value: MetricValue::Counters {
            label: "outcome",
            values: outcomes.map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed))).to_vec(),
        },
    });
    metrics
}
