//! Requests to a store, and their results.

use std::fmt;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use tokio::time::{Instant, timeout};

use super::{ClusterTime, Error, Freshness, Result, Store};
use crate::query::{Cursor, Exposure, Filter, Position, Projection, Sort};
use crate::record::Document;

/// The time that counting may take. What was counted until then is an estimate.
pub const COUNT_TIME: Duration = Duration::from_secs(2);

/// The result of a lookup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetResult {
    pub document: Option<Document>,
    /// Several documents have this `_id`. Another call may return another of them.
    pub is_ambiguous: bool,
    /// The time since the replica that answered was known to be current; `None` if the store itself answered.
    pub staleness: Option<Duration>,
    /// The answer contains every write up to this time, as far as a majority of the members has it, and perhaps later ones.
    /// `None` if the store does not know.
    pub as_of: Option<ClusterTime>,
}

impl From<Option<Document>> for GetResult {
    fn from(document: Option<Document>) -> Self {
        Self { document, ..Self::default() }
    }
}

/// The documents that a list consists of. The default is all of them, in `_id` order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListRequest {
    pub filter: Filter,
    pub sort: Sort,
    /// Only documents after this position.
    pub after: Option<Cursor>,
    /// Only these fields. `None`: all of them.
    pub projection: Option<Projection>,
    /// The maximum number of documents. A request with a `sort` always has a limit.
    pub limit: Option<usize>,
    pub freshness: Freshness,
}

impl ListRequest {
    /// The same request of the part of the records that is shown.
    pub fn within(self, exposure: &Exposure) -> Self {
        if exposure.is_whole() {
            return self;
        }
        let (filter, projection) = exposure.restrict(self.filter, self.projection);
        Self { filter, projection, ..self }
    }
}

/// A document in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub document: Document,
    /// The sort position; `None` in `_id` order, where the key is the position.
    pub position: Option<Position>,
}

impl Row {
    pub fn position(&self) -> Position {
        self.position.clone().unwrap_or_else(|| Position::of_key(self.document.key()))
    }
}

impl From<Document> for Row {
    fn from(document: Document) -> Self {
        Self { document, position: None }
    }
}

/// A stream of rows, which may outlive the call that returned it.
pub type RowStream = BoxStream<'static, Result<Row>>;

/// The rows of a list.
pub struct ListResult {
    pub rows: RowStream,
    /// See [`GetResult::staleness`].
    pub staleness: Option<Duration>,
    /// See [`GetResult::as_of`].
    pub as_of: Option<ClusterTime>,
    /// See [`Cursor::no_arrays`].
    pub no_arrays: bool,
}

/// The wanted precision of a number of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Exact,
    /// The number that the store keeps, where it keeps one.
    Estimated,
}

/// A number of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountResult {
    pub number: u64,
    pub is_exact: bool,
    /// See [`GetResult::staleness`].
    pub staleness: Option<Duration>,
}

impl CountResult {
    pub fn exact(number: u64) -> Self {
        Self { number, is_exact: true, staleness: None }
    }

    pub fn estimated(number: u64) -> Self {
        Self { is_exact: false, ..Self::exact(number) }
    }
}

/// Counts by a list: see [`Store::count`].
pub async fn count_listed<S: Store + ?Sized>(store: &S, request: ListRequest) -> Result<Option<CountResult>> {
    let limit = request.limit.map_or(u64::MAX, |limit| limit as u64);
    let (mut number, mut staleness) = (0, None);
    let count = async {
        let mut list = store.list(ListRequest { sort: Sort::default(), after: None, limit: None, ..request }).await?;
        staleness = list.staleness;
        while number <= limit && list.rows.next().await.transpose()?.is_some() {
            number += 1;
        }
        Ok::<_, Error>(())
    };
    let is_complete = timeout(COUNT_TIME, count).await.ok().transpose()?.is_some();
    Ok(Some(CountResult { number: number.min(limit), is_exact: is_complete && number <= limit, staleness }))
}

/// The outcome of an audit, which compares a range of a replica with the primary.
#[derive(Clone, Debug)]
pub struct AuditReport {
    pub finished: Instant,
    /// The records of the range.
    pub records: u64,
    /// The records that differ, are missing in the replica, or exist only there.
    pub differences: u64,
    /// The JSON of the ids of some of them.
    pub ids: Vec<String>,
}

/// The rows of a snapshot.
pub struct SnapshotRows {
    pub rows: RowStream,
    /// The rows are in the order of their keys, so that another snapshot can go on after any of them.
    pub is_in_order: bool,
}

impl ListResult {
    pub fn empty() -> Self {
        futures::stream::empty().boxed().into()
    }
}

impl From<RowStream> for ListResult {
    fn from(rows: RowStream) -> Self {
        Self { rows, staleness: None, as_of: None, no_arrays: false }
    }
}

impl fmt::Debug for SnapshotRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotRows").field("is_in_order", &self.is_in_order).finish_non_exhaustive()
    }
}

impl fmt::Debug for ListResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListResult").field("staleness", &self.staleness).finish_non_exhaustive()
    }
}
