//! Pages of a list, with the position where the next page begins.

use std::time::Duration;

use futures::StreamExt;

use super::{ClusterTime, Error, ListRequest, MemoryReservation, Result, Store};
use crate::query::{Cursor, Position};
use crate::record::Document;
use crate::wire;

/// The most bytes of a page, which may still hold a single larger record. It bounds the memory of one page, whatever its
/// limit; [`MemoryPool`](super::MemoryPool) bounds that of all.
pub const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// The rows of a page, and the position where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub documents: Vec<Document>,
    /// `None` on the last page.
    pub next: Option<Cursor>,
    /// See [`GetResult::staleness`](super::GetResult::staleness).
    pub staleness: Option<Duration>,
    /// See [`GetResult::as_of`](super::GetResult::as_of).
    pub as_of: Option<ClusterTime>,
}

/// Returns the first `limit` rows of `request`: fewer, but at least one, if they would exceed [`PAGE_BYTES`]; more, if the last
/// `_id` repeats. `reservation` counts the documents.
///
/// # Errors
///
/// Those of the store. `Unavailable` when the memory for responses is used up. `Invalid` when a record has no `_id`, or when the
/// records with one `_id` do not fit into a page.
pub async fn page(
    store: &dyn Store,
    request: &ListRequest,
    limit: usize,
    reservation: &mut MemoryReservation,
) -> Result<Page> {
    // An additional row shows if another page follows.
    let mut ask = limit.saturating_add(1);
    loop {
        let list = store.list(ListRequest { limit: Some(ask), ..request.clone() }).await?;
        let (staleness, as_of, no_arrays) = (list.staleness, list.as_of, list.no_arrays);
        let mut rows = list.rows;
        let (mut documents, mut positions) = (Vec::<Document>::new(), Vec::<Position>::new());
        let mut bytes = 0;
        let mut is_full = false;
        while let Some(row) = rows.next().await.transpose()? {
            if row.document.key().is_missing() {
                let detail = "Records without an `_id` have no pages: leave `limit`, `sort` and `after` out.";
                return Err(Error::rejected("limit", detail));
            }
            positions.push(row.position());
            bytes += row.document.bson().len();
            is_full = bytes > PAGE_BYTES && !documents.is_empty();
            if is_full {
                break;
            }
            reservation.try_grow(bytes)?;
            documents.push(row.document);
        }
        drop(rows);
        let read = positions.len();
        // The page ends before the first row beyond it, and never between two rows with equal positions.
        let is_boundary = |at: usize| positions[at] != positions[at - 1];
        let end = if read <= limit && !is_full {
            documents.len()
        } else if is_full {
            let end = (limit..read).find(|at| is_boundary(*at));
            let end = end.or_else(|| (1..read.min(limit)).rev().find(|at| is_boundary(*at)));
            end.ok_or_else(|| too_many_alike(&documents))?
        } else {
            match (limit..read).find(|at| is_boundary(*at)) {
                Some(end) => end,
                None if read < ask => read,
                None => {
                    ask = ask.saturating_mul(2);
                    reservation.shrink_to(0);
                    continue;
                }
            }
        };
        documents.truncate(end);
        let next = (end < read).then(|| Cursor { position: positions.swap_remove(end - 1), no_arrays });
        return Ok(Page { documents, next, staleness, as_of });
    }
}

fn too_many_alike(documents: &[Document]) -> Error {
    let id = documents.last().and_then(|document| wire::id(document.bson())).unwrap_or_default();
    Error::rejected(
        "limit",
        format!(
            "So many records have the `_id` {id} that they do not fit into one page of {} MiB: leave `limit` out.",
            PAGE_BYTES / 1024 / 1024
        ),
    )
}
