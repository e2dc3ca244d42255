//! The driver's client, which a new URI replaces while the service runs.
//!
//! A call keeps the client that it began with, so a replacement interrupts nothing: MongoDB does not end a connection when its
//! user's password changes. The driver closes the old client's connections when the last call with it ends.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mongodb::Client;
use mongodb::options::{ClientOptions, ConnectionString};
use tokio::sync::OnceCell;

use super::connections::Connections;

/// A client that is created when it is first needed.
pub struct LazyClient {
    uri: ConnectionString,
    client: OnceCell<Client>,
}

impl LazyClient {
    pub fn new(uri: ConnectionString, client: OnceCell<Client>) -> Self {
        Self { uri, client }
    }

    pub fn uri(&self) -> &ConnectionString {
        &self.uri
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

    pub fn set(&self, client: LazyClient) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(client);
    }
}
