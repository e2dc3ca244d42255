//! The connections of the driver's pool, counted by its events: all, and those in use.
//!
//! They count over all servers of the deployment. The driver's monitoring connections are not in the pool, and not counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;

use crate::store::{Metric, MetricValue};

#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicI64,
    in_use: AtomicI64,
    failed_checkouts: AtomicI64,
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
                value: MetricValue::Counter(self.0.failed_checkouts.load(Ordering::Relaxed).unsigned_abs()),
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
        let (counter, by): (_, i64) = match event {
            CmapEvent::ConnectionCreated(_) => (&self.open, 1),
            CmapEvent::ConnectionClosed(_) => (&self.open, -1),
            CmapEvent::ConnectionCheckedOut(_) => (&self.in_use, 1),
            CmapEvent::ConnectionCheckedIn(_) => (&self.in_use, -1),
            CmapEvent::ConnectionCheckoutFailed(_) => (&self.failed_checkouts, 1),
            _ => return,
        };
        counter.fetch_add(by, Ordering::Relaxed);
    }
}
