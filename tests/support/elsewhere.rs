//! A primary that is away for readers, for tests of a fallback.

use std::sync::Arc;

use futures::future::{BoxFuture, ready};
use records::record::{Document, Key, RecordId};
use records::store::{
    ChangeStream, Error, Freshness, GetResult, ListRequest, ListResult, Result, ResumeToken, SnapshotRows, Store,
};

/// A store that answers no lookup, list or ping. Writes, snapshots and changes go through, so that a replica stays current.
#[derive(Debug)]
pub struct Unreadable(pub Arc<dyn Store>);

fn away<T: Send + 'static>() -> BoxFuture<'static, Result<T>> {
    Box::pin(ready(Err(Error::unavailable("the store is away"))))
}

impl Store for Unreadable {
    fn get<'a>(&'a self, _: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        away()
    }

    fn get_fresh<'a>(&'a self, _: &'a RecordId, _: &'a Freshness) -> BoxFuture<'a, Result<GetResult>> {
        away()
    }

    fn list(&self, _: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        away()
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        self.0.upsert(documents)
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        away()
    }

    fn snapshot(&self, after: Option<Key>) -> BoxFuture<'_, Result<SnapshotRows>> {
        self.0.snapshot(after)
    }

    fn changes(&self, after: Option<ResumeToken>) -> ChangeStream {
        self.0.changes(after)
    }
}
