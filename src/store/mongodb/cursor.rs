//! The server's cursors, read batch by batch, and closed when they are dropped.
//!
//! The driver closes a dropped cursor by a command to the primary, even if the cursor is on a secondary, where it would stay open
//! for the ten minutes after which servers close idle cursors. The driver does not tell which server has a cursor. So if it may
//! be on a secondary, the command is sent to all of them in turn: servers without the cursor ignore its id.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use mongodb::bson::{RawDocumentBuf, doc};
use mongodb::options::{ReadPreference, SelectionCriteria, ServerAddress};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor, SessionRawBatchCursor};
use mongodb::{ClientSession, Collection, ServerInfo, ServerType};
use tokio::runtime::Handle;

pub struct Cursor {
    batches: Batches,
    /// The server's id for it. 0 at its end, and before the first batch.
    id: i64,
    /// The collection, if the cursor may be on a secondary.
    on_secondary: Option<Collection<RawDocumentBuf>>,
}

enum Batches {
    Plain(RawBatchCursor),
    InSession(SessionRawBatchCursor, Box<ClientSession>),
}

impl Cursor {
    /// Wraps a cursor that was opened by the read preference of `collection`.
    pub fn of(collection: &Collection<RawDocumentBuf>, batches: RawBatchCursor) -> Self {
        Self { batches: Batches::Plain(batches), id: 0, on_secondary: unless_on_primary(collection) }
    }

    /// Wraps a cursor on the primary.
    pub fn of_primary(batches: RawBatchCursor) -> Self {
        Self { batches: Batches::Plain(batches), id: 0, on_secondary: None }
    }

    /// Wraps a cursor that was opened in `session`. `may_be_on_secondary` overrides the read preference of `collection`.
    pub fn in_session(
        collection: &Collection<RawDocumentBuf>,
        batches: SessionRawBatchCursor,
        session: ClientSession,
        may_be_on_secondary: bool,
    ) -> Self {
        let on_secondary = may_be_on_secondary.then(|| collection.clone()).or_else(|| unless_on_primary(collection));
        Self { batches: Batches::InSession(batches, Box::new(session)), id: 0, on_secondary }
    }

    pub async fn next(&mut self) -> mongodb::error::Result<Option<RawBatch>> {
        let batch = match &mut self.batches {
            Batches::Plain(cursor) => cursor.next().await.transpose(),
            Batches::InSession(cursor, session) => cursor.stream(session).next().await.transpose(),
        };
        if let Ok(batch) = &batch {
            self.id = batch.as_ref().and_then(cursor_id).unwrap_or(0);
        }
        batch
    }
}

/// The collection, if its read preference may choose a secondary.
fn unless_on_primary(collection: &Collection<RawDocumentBuf>) -> Option<Collection<RawDocumentBuf>> {
    let primary = SelectionCriteria::from(ReadPreference::Primary);
    let may_be_on_secondary = collection.selection_criteria().is_some_and(|criteria| *criteria != primary);
    may_be_on_secondary.then(|| collection.clone())
}

fn cursor_id(batch: &RawBatch) -> Option<i64> {
    batch.as_raw_document().get_document("cursor").ok()?.get_i64("id").ok()
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if self.id != 0
            && let Some(collection) = self.on_secondary.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(close(collection, self.id));
        }
    }
}

/// Closes the cursor on the secondary that has it. If that fails, the server closes it later by itself.
async fn close(collection: Collection<RawDocumentBuf>, id: i64) {
    let try_close = async |server: SelectionCriteria| {
        let namespace = collection.namespace();
        let command = doc! { "killCursors": namespace.coll, "cursors": [id] };
        let database = collection.client().database(&namespace.db);
        let reply = database.run_command(command).selection_criteria(server).await;
        reply.is_ok_and(|reply| reply.get_array("cursorsKilled").is_ok_and(|killed| !killed.is_empty()))
    };
    // The driver names the servers only to a predicate that selects one. The first command goes to the server that the driver
    // selects, and its predicate collects the names of the others.
    let secondaries: Arc<Mutex<Vec<ServerAddress>>> = Arc::default();
    let seen = secondaries.clone();
    let is_secondary = move |server: &ServerInfo<'_>| {
        let is_secondary = server.server_type() == ServerType::RsSecondary;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if is_secondary && !seen.contains(server.address()) {
            seen.push(server.address().clone());
        }
        is_secondary
    };
    if try_close(SelectionCriteria::Predicate(Arc::new(is_secondary))).await {
        return;
    }
    let secondaries = std::mem::take(&mut *secondaries.lock().unwrap_or_else(PoisonError::into_inner));
    for address in secondaries {
        let has_address = move |server: &ServerInfo<'_>| *server.address() == address;
        if try_close(SelectionCriteria::Predicate(Arc::new(has_address))).await {
            return;
        }
    }
}
