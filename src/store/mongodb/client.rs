//! The driver's client, which a new URI replaces while the service runs.
//!
//! A call keeps the client that it began with, so a replacement interrupts nothing: MongoDB does not end a connection when its
//! user's password changes. The driver closes the old client's connections when the last call with it ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mongodb::Client;
use mongodb::options::{ClientOptions, ConnectionString, ReadConcernLevel, ReadPreference};
use tokio::sync::OnceCell;

use super::connections::Connections;
use crate::store::ClusterTime;

/// A client that is created when it is first needed.
pub struct LazyClient {
    uri: ConnectionString,
    client: OnceCell<Client>,
    /// The bits of a time that a majority of the members has reached, as the primary said; 0 if it did not.
    majority: AtomicU64,
}

impl LazyClient {
    pub fn new(uri: ConnectionString, client: OnceCell<Client>) -> Self {
        Self { uri, client, majority: AtomicU64::new(0) }
    }

    pub fn uri(&self) -> &ConnectionString {
        &self.uri
    }

    pub fn note_majority(&self, time: u64) {
        self.majority.fetch_max(time, Ordering::Relaxed);
    }

    /// The time up to which a read that begins now sees every write. A later primary has what a majority had. Other members may
    /// be behind, and so may the majority that a new primary knows.
    fn as_of(&self) -> Option<ClusterTime> {
        let from_primary = matches!(self.uri.read_preference, None | Some(ReadPreference::Primary));
        let is_local = self.uri.read_concern.as_ref().is_none_or(|concern| concern.level == ReadConcernLevel::Local);
        ClusterTime::new(self.majority.load(Ordering::Relaxed)).filter(|_| from_primary && is_local)
    }

    /// Returns the client if it was created before.
    pub fn created(&self) -> Option<Client> {
        self.client.get().cloned()
    }

    /// `timeout` is that of a call.
    pub async fn connected(&self, timeout: Duration, connections: &Connections) -> mongodb::error::Result<Client> {
        let client = self.client.get_or_try_init(|| async {
            let mut options = ClientOptions::parse(self.uri.clone()).await?;
            // The URI overrides these. A connection attempt ends after half of a call's time, which leaves the other half for
            // another server or a second attempt.
            options.app_name.get_or_insert_with(|| "records".to_owned());
            options.connect_timeout.get_or_insert(timeout / 2);
            options.server_selection_timeout.get_or_insert(timeout / 2);
            options.cmap_event_handler = Some(connections.handler());
            Client::with_options(options)
        });
        client.await.cloned()
    }
}

/// The client that new calls use.
pub struct Current(RwLock<Arc<LazyClient>>);

impl Current {
    pub fn new(client: LazyClient) -> Self {
        Self(RwLock::new(Arc::new(client)))
    }

    pub fn get(&self) -> Arc<LazyClient> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// See [`GetResult::as_of`](crate::store::GetResult::as_of), of a read that begins now.
    pub fn as_of(&self) -> Option<ClusterTime> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_of()
    }

    pub fn set(&self, client: LazyClient) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(client);
    }
}
