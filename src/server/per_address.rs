//! The limit of connections of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::client::ClientNetwork;

/// The interval between log lines about the limit.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Counts the open connections of each address. It has at most one entry for each open connection.
pub struct PerAddress {
    max: usize,
    open: Arc<Mutex<HashMap<ClientNetwork, usize>>>,
    warned: Option<Instant>,
}

/// Permits one connection of an address. Released when it is dropped.
pub struct AddressPermit {
    client: ClientNetwork,
    open: Arc<Mutex<HashMap<ClientNetwork, usize>>>,
}

impl PerAddress {
    pub fn new(max: usize) -> Self {
        Self { max, open: Arc::default(), warned: None }
    }

    /// Returns `None` if the address has as many connections as it may have.
    pub fn try_acquire(&mut self, address: IpAddr) -> Option<AddressPermit> {
        let client = ClientNetwork::from(address);
        let mut open = lock(&self.open);
        let count = open.entry(client).or_default();
        if *count >= self.max {
            drop(open);
            self.warn();
            return None;
        }
        *count += 1;
        drop(open);
        Some(AddressPermit { client, open: Arc::clone(&self.open) })
    }

    fn warn(&mut self) {
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARNING_INTERVAL) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                connections = self.max,
                "--max-connections-per-address reached: more of one address are closed"
            );
        }
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

fn lock(open: &Mutex<HashMap<ClientNetwork, usize>>) -> MutexGuard<'_, HashMap<ClientNetwork, usize>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
