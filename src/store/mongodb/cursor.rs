//! The server's cursors: read batch by batch, and ended where they are when nobody reads on.
//!
//! The driver ends a cursor that is dropped by a command to the primary, whichever server has it: on a secondary it would stay
//! for ten minutes, after which a server gives up what nobody asks for. Which server has it the driver does not say; so all
//! secondaries are asked in turn, where a secondary may have been read from. To the others an id means nothing.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use mongodb::bson::{RawDocumentBuf, doc};
use mongodb::options::{ReadPreference, SelectionCriteria, ServerAddress};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor, SessionRawBatchCursor};
use mongodb::{ClientSession, Collection, ServerInfo, ServerType};
use tokio::runtime::Handle;

pub struct Cursor {
    batches: Batches,
    /// What the server calls it. 0: there is nothing left, or nothing was read yet.
    id: i64,
    /// What it reads, if that may be on a secondary.
    elsewhere: Option<Collection<RawDocumentBuf>>,
}

enum Batches {
    Plain(RawBatchCursor),
    InSession(SessionRawBatchCursor, Box<ClientSession>),
}

impl Cursor {
    /// One that `collection` has opened.
    pub fn of(collection: &Collection<RawDocumentBuf>, batches: RawBatchCursor) -> Self {
        let primary = SelectionCriteria::from(ReadPreference::Primary);
        let elsewhere = collection.selection_criteria().is_some_and(|criteria| *criteria != primary);
        Self { batches: Batches::Plain(batches), id: 0, elsewhere: elsewhere.then(|| collection.clone()) }
    }

    /// One of the primary's.
    pub fn of_primary(batches: RawBatchCursor) -> Self {
        Self { batches: Batches::Plain(batches), id: 0, elsewhere: None }
    }

    /// One of the primary's, with the session that it was opened in.
    pub fn in_session(batches: SessionRawBatchCursor, session: ClientSession) -> Self {
        Self { batches: Batches::InSession(batches, Box::new(session)), id: 0, elsewhere: None }
    }

    pub async fn next(&mut self) -> mongodb::error::Result<Option<RawBatch>> {
        let batch = match &mut self.batches {
            Batches::Plain(cursor) => cursor.next().await.transpose(),
            Batches::InSession(cursor, session) => cursor.stream(session).next().await.transpose(),
        };
        if let Ok(batch) = &batch {
            self.id = batch.as_ref().and_then(left_under).unwrap_or(0);
        }
        batch
    }
}

/// Under which id the server keeps what is left behind a batch; 0 where there is nothing. `None` when it does not say.
pub fn left_under(batch: &RawBatch) -> Option<i64> {
    batch.as_raw_document().get_document("cursor").ok()?.get_i64("id").ok()
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if self.id != 0
            && let Some(collection) = self.elsewhere.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(end(collection, self.id));
        }
    }
}

/// Ends the cursor on whichever secondary has it. If that fails, it ends in a while by itself.
async fn end(collection: Collection<RawDocumentBuf>, id: i64) {
    let run = async |choice: SelectionCriteria| {
        let namespace = collection.namespace();
        let command = doc! { "killCursors": namespace.coll, "cursors": [id] };
        let database = collection.client().database(&namespace.db);
        let reply = database.run_command(command).selection_criteria(choice).await;
        // Whether that was the one.
        reply.is_ok_and(|reply| reply.get_array("cursorsKilled").is_ok_and(|killed| !killed.is_empty()))
    };
    // Which ones there are the driver tells only who chooses among them: the first choice is left to it.
    let secondaries: Arc<Mutex<Vec<ServerAddress>>> = Arc::default();
    let seen = secondaries.clone();
    let any = move |server: &ServerInfo<'_>| {
        let is_one = server.server_type() == ServerType::RsSecondary;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if is_one && !seen.contains(server.address()) {
            seen.push(server.address().clone());
        }
        is_one
    };
    if run(SelectionCriteria::Predicate(Arc::new(any))).await {
        return;
    }
    let secondaries = std::mem::take(&mut *secondaries.lock().unwrap_or_else(PoisonError::into_inner));
    for address in secondaries {
        let that = move |server: &ServerInfo<'_>| *server.address() == address;
        if run(SelectionCriteria::Predicate(Arc::new(that))).await {
            return;
        }
    }
}
