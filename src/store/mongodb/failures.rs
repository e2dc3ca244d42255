//! Calls to MongoDB that failed, counted by reason.
//!
//! A call counts when it ends, whether or not somebody still waits for it; one that was not waited for any longer counts as
//! late, and once more should it fail after that. Lookups that share a round trip share its failure.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::error::is_late;
use crate::store::{Error, Kind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)]
enum Reason {
    unavailable,
    /// Of the kind `unavailable`, but a server that hangs is another trouble than one that is away.
    timeout,
    invalid,
    broken,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: Reason,
}

#[derive(Clone, Debug)]
pub struct Failures(Family<ByReason, Counter>);

impl Default for Failures {
    fn default() -> Self {
        let family = Family::default();
        for reason in [Reason::unavailable, Reason::timeout, Reason::invalid, Reason::broken] {
            // There from the beginning: the rise from nothing to one would be no rise to Prometheus.
            drop(family.get_or_create(&ByReason { reason }));
        }
        Self(family)
    }
}

impl Failures {
    pub fn register(&self, registry: &mut Registry) {
        let help = "Calls to MongoDB that failed, or were not waited for any longer, by reason";
        registry.register("store_failures", help, self.0.clone());
    }

    pub fn count(&self, error: &Error) {
        let reason = match error.kind() {
            _ if is_late(error) => Reason::timeout,
            Kind::Unavailable => Reason::unavailable,
            Kind::Invalid => Reason::invalid,
            Kind::Broken => Reason::broken,
        };
        self.0.get_or_create(&ByReason { reason }).inc();
    }
}
