//! The executor of lists over a scan: filter, projection and top-k, the same code for every store that cannot push a request
//! down to a database.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::page::PAGE_BYTES;
use super::{Error, ListRequest, ListResult, Result, Row, RowStream};
use crate::query::{Cursor, Filter, Position, Projection, Sort, SortError};
use crate::record::{Document, Key};

/// The size of a chunk of a scan: the work on one is some hundred microseconds to a few milliseconds, after which other tasks
/// run.
pub const CHUNK_DOCUMENTS: usize = 256;
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Documents of a scan, some at a time.
pub type ChunkStream = BoxStream<'static, Result<Vec<Document>>>;

/// A scan: every document whose key is greater than the given one, in any order if the list is sorted, else in that of the
/// keys. `usize` is the number of documents that the reader takes, if it is known.
pub type Chunks = Arc<dyn Fn(Option<Key>, Option<usize>) -> ChunkStream + Send + Sync>;

/// Executes `request` over `chunks`, which are in the order of the keys unless there is a sort. Returns once the first row
/// is known.
///
/// # Errors
///
/// Those of the scan, and `Invalid` where two sort fields are arrays in one document, or where the request names a cluster time.
pub async fn execute(chunks: Chunks, request: ListRequest) -> Result<ListResult> {
    request.freshness.without_cluster_time()?;
    if !request.sort.is_empty() {
        return execute_unordered(chunks, request).await;
    }
    let ListRequest { filter, sort, after, projection, limit, .. } = request;
    let rows = {
        let key = match &after {
            Some(after) => Some(after.position.split(&sort)?.1),
            None => None,
        };
        let expected = limit.filter(|_| filter.is_empty());
        let rows = filtered(chunks(key, expected), filter).map_ok(|chunk| stream::iter(chunk.into_iter().map(Ok)));
        let rows =
            rows.try_flatten().map(move |document: Result<Document>| project(document?, None, projection.as_ref()));
        match limit {
            Some(limit) => rows.take(limit).boxed(),
            None => rows.boxed(),
        }
    };
    peek(rows).await
}

/// Executes `request` over chunks in any order: even a list in `_id` order is sorted here, page by page.
///
/// # Errors
///
/// Those of [`execute`].
pub async fn execute_unordered(chunks: Chunks, request: ListRequest) -> Result<ListResult> {
    let ListRequest { filter, sort, after, projection, limit, .. } = request;
    peek(top_k(chunks, filter, Arc::new(sort), after, projection, limit.unwrap_or(usize::MAX))).await
}

/// Waits for the first row.
pub async fn peek(mut rows: RowStream) -> Result<ListResult> {
    Ok(match rows.next().await.transpose()? {
        Some(first) => stream::iter([Ok(first)]).chain(rows).boxed().into(),
        // A stream that has ended is not polled again.
        None => ListResult::empty(),
    })
}

fn project(document: Document, position: Option<Position>, projection: Option<&Projection>) -> Result<Row> {
    let document = match projection {
        Some(projection) => projection.apply(&document)?,
        None => document,
    };
    Ok(Row { document, position })
}

/// The documents of each chunk that match. Other tasks run between two chunks, also where nothing matches.
fn filtered(chunks: ChunkStream, filter: Filter) -> ChunkStream {
    chunks
        .and_then(move |mut chunk| {
            let filter = filter.clone();
            async move {
                if !filter.is_empty() {
                    chunk = matching(chunk, &filter).await?;
                }
                // Unlike a task that wakes itself, this lets the runtime poll its sockets and timers first.
                tokio::task::yield_now().await;
                Ok(chunk)
            }
        })
        .boxed()
}

async fn matching(chunk: Vec<Document>, filter: &Filter) -> Result<Vec<Document>> {
    let mut matching = Vec::new();
    let mut bytes = 0;
    for document in chunk {
        // Each predicate walks through the document by itself.
        bytes += document.bson().len() * filter.predicates().count();
        if bytes >= CHUNK_BYTES {
            bytes = 0;
            tokio::task::yield_now().await;
        }
        if filter.matches(document.bson())? {
            matching.push(document);
        }
    }
    Ok(matching)
}

/// The first `limit` documents after `after` in the order of `sort`, in the memory of one page: where they do not fit, the
/// scan is repeated once the consumer has read the first of them.
fn top_k(
    chunks: Chunks,
    filter: Filter,
    sort: Arc<Sort>,
    after: Option<Cursor>,
    projection: Option<Projection>,
    limit: usize,
) -> RowStream {
    let start = Some((after.map(|after| after.position), limit));
    let passes = stream::try_unfold(start, move |state| {
        let (chunks, filter, sort) = (chunks.clone(), filter.clone(), sort.clone());
        async move {
            let Some((after, limit)) = state else { return Ok(None) };
            let top = TopK::scan(chunks(None, None), &filter, &sort, after, limit).await?;
            let taken = top.documents;
            let last = top.rows.keys().next_back().cloned();
            let next = last.filter(|_| top.cutoff.is_some() && taken < limit).map(|last| (Some(last), limit - taken));
            Ok::<_, Error>(Some((top.rows, next)))
        }
    });
    let rows = passes.map_ok(|rows| {
        let each = rows.into_iter().flat_map(|(position, documents)| {
            documents.into_iter().map(move |document| Ok((position.clone(), document)))
        });
        stream::iter(each)
    });
    let rows = rows.try_flatten();
    rows.map(move |row: Result<(Position, Document)>| {
        let (position, document) = row?;
        project(document, Some(position), projection.as_ref())
    })
    .boxed()
}

/// The documents with the least positions, no more than a limit and [`PAGE_BYTES`] of them. Documents with one position (an
/// `_id` that repeats) are kept or left out together, unless there are no others.
struct TopK {
    rows: BTreeMap<Position, Vec<Document>>,
    documents: usize,
    bytes: usize,
    /// The least position that was left out: later ones need not be looked at.
    cutoff: Option<Position>,
}

impl TopK {
    async fn scan(
        mut chunks: ChunkStream,
        filter: &Filter,
        sort: &Sort,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Self> {
        let mut top = Self { rows: BTreeMap::new(), documents: 0, bytes: 0, cutoff: None };
        while let Some(chunk) = chunks.next().await.transpose()? {
            for document in matching(chunk, filter).await? {
                let position = sort.position(&document).map_err(sort_error)?;
                if after.as_ref().is_none_or(|after| position > *after) {
                    top.offer(position, &document, limit);
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(top)
    }

    fn offer(&mut self, position: Position, document: &Document, limit: usize) {
        if self.cutoff.as_ref().is_some_and(|cutoff| position >= *cutoff) {
            return;
        }
        self.bytes += document.bson().len();
        self.documents += 1;
        // A copy: a store may have cut the document out of a batch, and the slice would keep the whole batch in memory.
        self.rows.entry(position).or_default().push(document.detached());
        while self.documents > limit || self.bytes > PAGE_BYTES {
            let Some(mut last) = self.rows.last_entry() else { return };
            let (count, bytes) =
                (last.get().len(), last.get().iter().map(|document| document.bson().len()).sum::<usize>());
            let is_alone = self.documents == count;
            if is_alone && (count == 1 || self.documents <= limit) {
                return;
            }
            if self.documents > limit && self.documents - count < limit {
                // The limit falls between documents with equal positions.
                if let Some(document) = last.get_mut().pop() {
                    (self.documents, self.bytes) = (self.documents - 1, self.bytes - document.bson().len());
                }
                if last.get().is_empty() {
                    self.cutoff = Some(last.remove_entry().0);
                }
                continue;
            }
            (self.documents, self.bytes) = (self.documents - count, self.bytes - bytes);
            self.cutoff = Some(last.remove_entry().0);
        }
    }
}

/// Converts the error: a client can change its `sort`, while malformed BSON is the store's fault.
pub fn sort_error(error: SortError) -> Error {
    match error {
        SortError::Malformed(error) => error.into(),
        SortError::ParallelArrays(..) | SortError::Ambiguous(_) => Error::rejected(
            "sort",
            format!("The records cannot be sorted: {error}. Sort by one of them, or filter such records out."),
        ),
    }
}
