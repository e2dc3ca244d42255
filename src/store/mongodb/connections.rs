//! The connections of the driver's pool, as it tells of them: how many there are, and how many are at work.
//!
//! Over all servers of the deployment. Those by which the driver watches the servers are not of the pool, and not counted.

use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Default)]
pub struct Connections {
    open: Gauge,
    in_use: Gauge,
    failed: Counter,
}

impl Connections {
    pub fn register(&self, registry: &mut Registry) {
        let Self { open, in_use, failed } = self.clone();
        registry.register("store_connections_open", "Connections to MongoDB, those being made included", open);
        registry.register("store_connections_in_use", "Connections to MongoDB that a call has", in_use);
        registry.register(
            "store_connection_failures",
            "Calls that waited in vain for a connection to the MongoDB that was found",
            failed,
        );
    }

    /// What the driver is to tell it to.
    pub fn handler(&self) -> EventHandler<CmapEvent> {
        let connections = self.clone();
        EventHandler::callback(move |event| connections.tell(&event))
    }

    fn tell(&self, event: &CmapEvent) {
        // Each that is created is closed in the end, also one that never came to be ready; each that is checked out is
        // checked in, also one that is closed for it.
        match event {
            CmapEvent::ConnectionCreated(_) => drop(self.open.inc()),
            CmapEvent::ConnectionClosed(_) => drop(self.open.dec()),
            CmapEvent::ConnectionCheckedOut(_) => drop(self.in_use.inc()),
            CmapEvent::ConnectionCheckedIn(_) => drop(self.in_use.dec()),
            CmapEvent::ConnectionCheckoutFailed(_) => drop(self.failed.inc()),
            // The rest is about pools as a whole, or said again by one of these.
            _ => {}
        }
    }
}
