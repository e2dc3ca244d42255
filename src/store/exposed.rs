//! A store that shows only a part of its records.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{CountResult, GetResult, Health, ListRequest, ListResult, Metric, Precision, Result, Store};
use crate::query::Exposure;
use crate::record::{Document, RecordId};

#[derive(Debug)]
struct Exposed {
    store: Arc<dyn Store>,
    exposure: Arc<Exposure>,
}

/// Returns the part of an embedded `store` that `exposure` shows.
pub fn exposed(store: Arc<dyn Store>, exposure: Arc<Exposure>) -> Arc<dyn Store> {
    if exposure.is_whole() { store } else { Arc::new(Exposed { store, exposure }) }
}

impl Exposed {
    fn show(&self, found: Result<GetResult>) -> Result<GetResult> {
        let found = found?;
        let document = found.document.map(|document| self.exposure.show(document)).transpose();
        Ok(GetResult { document: document?.flatten(), ..found })
    }
}

impl Store for Exposed {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        self.store.get(id).map(|found| self.show(found)).boxed()
    }

    fn try_get(&self, id: &RecordId) -> Option<Result<GetResult>> {
        self.store.try_get(id).map(|found| self.show(found))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        self.store.list(request.within(&self.exposure))
    }

    fn count(&self, request: ListRequest, precision: Precision) -> BoxFuture<'_, Result<Option<CountResult>>> {
        self.store.count(request.within(&self.exposure), precision)
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        self.store.upsert(documents)
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.store.ping()
    }

    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        self.store.health()
    }

    fn metrics(&self) -> Vec<Metric> {
        self.store.metrics()
    }
}
