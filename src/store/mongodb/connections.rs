//! The connections of the driver's pool, counted by its events: all, and those in use.
//!
//! They count over all servers of the deployment. The driver's monitoring connections are not in the pool, and not counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;

use crate::store::{Metric, MetricValue};

#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicI64,
    in_use: AtomicI64,
    failed_checkouts: AtomicU64,
}

impl Connections {
    pub fn metrics(&self) -> [Metric; 3] {
        let gauge = |count: &AtomicI64| MetricValue::Gauge(count.load(Ordering::Relaxed) as f64);
        [
            Metric {
                name: "store_connections_open",
                help: "Connections to MongoDB, including those being made",
                unit: None,
                value: gauge(&self.0.open),
            },
            Metric {
                name: "store_connections_in_use",
                help: "Connections to MongoDB that a call uses",
                unit: None,
                value: gauge(&self.0.in_use),
            },
            Metric {
                name: "store_connection_failures",
                help: "Connection checkouts from the pool that failed",
                unit: None,
                value: MetricValue::Counter(self.0.failed_checkouts.load(Ordering::Relaxed)),
            },
        ]
    }

    /// The handler of the driver's events.
    pub fn handler(&self) -> EventHandler<CmapEvent> {
        let connections = self.clone();
        EventHandler::callback(move |event| connections.0.count(&event))
    }
}

impl Counts {
    fn count(&self, event: &CmapEvent) {
        // Each connection that is created is closed in the end, also one that never became ready; each one that is checked
        // out is checked in, also one that is closed for it. The other events are about pools as a whole.
        match event {
            CmapEvent::ConnectionCreated(_) => self.open.fetch_add(1, Ordering::Relaxed),
            CmapEvent::ConnectionClosed(_) => self.open.fetch_sub(1, Ordering::Relaxed),
            CmapEvent::ConnectionCheckedOut(_) => self.in_use.fetch_add(1, Ordering::Relaxed),
            CmapEvent::ConnectionCheckedIn(_) => self.in_use.fetch_sub(1, Ordering::Relaxed),
            CmapEvent::ConnectionCheckoutFailed(_) => {
                return drop(self.failed_checkouts.fetch_add(1, Ordering::Relaxed));
            }
            _ => return,
        };
    }
}
