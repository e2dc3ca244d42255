//! The changes of a store, from which a replica of it is kept.

use futures::stream::BoxStream;
use tokio::time::Instant;

use super::{ClusterTime, Error};
use crate::record::{Document, Key};

/// A place in a store's history, to resume from. Only the store that made it can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeToken(pub Box<[u8]>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Document),
    Remove(Key),
}

impl Change {
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(document) => document.key(),
            Self::Remove(key) => key,
        }
    }
}

/// Some changes, in their order, and what is known once they are applied.
#[derive(Clone, Debug, Default)]
pub struct ChangeBatch {
    pub changes: Vec<Change>,
    /// A later [`ChangeStream`] resumes after this batch with it. `None` leaves the one before in force.
    pub token: Option<ResumeToken>,
    /// A replica with all changes up to here is as the store was at this moment, or newer. `None` when this batch proves
    /// nothing.
    pub current: Option<Instant>,
    /// A replica with all changes up to here has every write up to this time. `None` when this batch does not tell.
    pub as_of: Option<ClusterTime>,
    /// The stream has read changes that it holds back until it has caught up.
    pub is_catching_up: bool,
}

/// Why a change stream ended.
#[derive(Debug)]
pub enum ChangeStreamError {
    /// The store has no change stream, for this reason: take a snapshot from time to time.
    Unsupported(String),
    /// The changes from here on, or from the token on, are no longer available: take a snapshot.
    HistoryLost(String),
    /// The store is away or failed: resume from the last token, later.
    Unavailable(Error),
}

/// The changes of a store as they come.
///
/// - The first batch, which may be empty, comes when the stream is open. Writes after that moment are in the stream, and
///   [`Store::snapshot`](super::Store::snapshot) shows those before it.
/// - While nothing happens, empty batches say so: their [`ChangeBatch::current`] advances, several times a second.
/// - A batch may show a document as it became later than the changes around it, but never goes back: a replica that applies
///   the changes in their order, also after a resume, sees each document only become newer.
/// - It ends after its first `Err`, and never without one. It reads as fast as it is read.
pub type ChangeStream = BoxStream<'static, Result<ChangeBatch, ChangeStreamError>>;
