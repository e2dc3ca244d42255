//! The bounds that a reader sets on the staleness of an answer.

use std::time::Duration;

/// The bounds that a reader sets on the staleness of an answer. The default accepts any answer that the operator allows. A store
/// without a replica is never stale, and meets every bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// The greatest staleness of an answer while the primary may answer instead. `Some(ZERO)`: the primary answers. `None`: any.
    pub max_staleness: Option<Duration>,
    /// The greatest staleness of an answer once the primary has failed.
    pub max_staleness_on_error: Option<Duration>,
    /// The primary is not asked.
    pub only_replica: bool,
}

impl Freshness {
    /// Returns true if the reader sets a bound.
    pub fn is_bounded(&self) -> bool {
        *self != Self::default()
    }
}
