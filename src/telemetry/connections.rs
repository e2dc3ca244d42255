//! How many connections clients have: the server counts them, the metrics show them, and neither knows the other.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A clone is the same count.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    open: Gauge,
    limit: Gauge,
}

/// Counts until it is dropped.
#[derive(Debug)]
pub struct Open(Gauge);

impl Connections {
    pub fn register(&self, registry: &mut Registry) {
        let Self { open, limit } = self.clone();
        registry.register("http_connections_open", "Connections of clients, idle ones included", open);
        registry.register("http_connections_limit", "Connections of clients that are served at once; more wait", limit);
    }

    /// Says how many there may be.
    pub fn bounded_by(&self, limit: usize) {
        self.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// Counts one more.
    pub fn open(&self) -> Open {
        self.open.inc();
        Open(self.open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
