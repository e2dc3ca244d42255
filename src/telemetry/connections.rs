//! The number of connections, which the server counts and the metrics show.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counts the connections of clients. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    open: Gauge,
    limit: Gauge,
    write_timeouts: Counter,
    failed_handshakes: Counter,
    rejected: Counter,
}

/// An open connection, counted until this is dropped.
#[derive(Debug)]
pub struct Open(Gauge);

impl Connections {
    pub fn register(&self, registry: &mut Registry) {
        let Self { open, limit, write_timeouts, failed_handshakes, rejected } = self.clone();
        registry.register("http_connections_open", "Connections of clients, idle ones included", open);
        registry.register("http_connections_limit", "Connections of clients that are served at once; more wait", limit);
        let help = "Connections, and streams of HTTP/2, closed because the client read nothing for --write-timeout";
        registry.register("http_write_timeouts", help, write_timeouts);
        registry.register(
            "http_tls_handshakes_failed",
            "Connections closed before TLS began on them",
            failed_handshakes,
        );
        let help = "Connections closed at once because their address had reached --max-connections-per-address";
        registry.register("http_connections_rejected", help, rejected);
    }

    /// Sets the limit that the metrics show.
    pub fn bounded_by(&self, limit: usize) {
        self.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// Counts a client that read nothing for too long.
    pub fn count_write_timeout(&self) {
        self.write_timeouts.inc();
    }

    /// Counts a client that did not come to speak TLS.
    pub fn count_failed_handshake(&self) {
        self.failed_handshakes.inc();
    }

    /// Counts a connection that was closed at once.
    pub fn count_rejection(&self) {
        self.rejected.inc();
    }

    /// Counts a connection.
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
