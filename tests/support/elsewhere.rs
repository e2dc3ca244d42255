//! A store in this process that does not say so.

use std::sync::Arc;

use futures::future::BoxFuture;
use records::document::Document;
use records::record::RecordId;
use records::store::{Found, Listing, Query, Reply, Result, Store};

/// A memory store that does not say that it is one, so that it may have a fallback.
#[derive(Debug)]
pub struct Elsewhere(pub Arc<dyn Store>);

impl Store for Elsewhere {
    fn get<'a>(&'a self, id: &'a RecordId) -> Reply<'a, Found> {
        self.0.get(id)
    }

    fn list(&self, query: Query) -> Listing {
        self.0.list(query)
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        self.0.upsert(documents)
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.0.ping()
    }
}
