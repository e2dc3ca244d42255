//! What a store tells of its changes, so that a copy of it can be kept. No word of any backend.

use futures::stream::BoxStream;
use tokio::time::Instant;

use super::Error;
use crate::record::{Key, Record};

/// A place in a store's history, to go on from. Only the store that made it can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(pub Box<[u8]>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Record),
    Remove(Key),
}

/// Some changes, in their order, and what is known when they are made.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub changes: Vec<Change>,
    /// From where a later [`Feed`] goes on behind this batch. `None` leaves the one before in force.
    pub token: Option<Token>,
    /// A copy that has all changes up to here is what the store was at this moment, or newer. `None` when this batch
    /// proves nothing.
    pub current: Option<Instant>,
}

/// Why a feed ended.
#[derive(Debug)]
pub enum Interruption {
    /// The store has no feed of changes: copy it anew from time to time.
    Unsupported,
    /// The changes from here on, or from the token on, cannot be had any more: copy it anew.
    Lost(String),
    /// The store is away or failed: go on from the last token, later.
    Failed(Error),
}

/// The changes of a store as they come.
///
/// - The first batch, which may be empty, comes when the feed is open. What is written after that moment is in the feed,
///   and [`Store::snapshot`](super::Store::snapshot) shows what was written before.
/// - When nothing happens, empty batches say so: their [`Batch::current`] goes on, several times a second.
/// - A batch may show a record as it became later than the changes around it, but never goes back: whoever makes the
///   changes in their order, also those of a feed that goes on from a token, sees each record only become newer.
/// - It ends after its first `Err`, and never without one. Memory is bounded: it reads as fast as it is read.
pub type Feed = BoxStream<'static, Result<Batch, Interruption>>;
