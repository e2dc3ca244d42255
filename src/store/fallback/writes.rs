//! Writes changes into a snapshot, within the limit of its size.

use std::sync::Arc;

use super::super::{CHUNK_BYTES, Change, Error};
use super::replica::Snapshot;

/// The most changes that are written between two checks of the size.
pub const CHUNK: usize = 1_000;

pub enum WriteError {
    /// The snapshot is marked as failed.
    Failed(Error),
    TooLarge,
}

/// Writes in small steps, and on a blocking thread if the store is on disk.
pub async fn write(snapshot: &Arc<Snapshot>, changes: Vec<Change>, size_limit: u64) -> Result<(), WriteError> {
    let written = write_chunks(snapshot, changes, size_limit).await;
    if let Err(WriteError::Failed(_)) = written {
        snapshot.mark_failed();
    }
    written
}

async fn write_chunks(snapshot: &Arc<Snapshot>, changes: Vec<Change>, size_limit: u64) -> Result<(), WriteError> {
    let check_size =
        move |snapshot: &Snapshot| if snapshot.size() > size_limit { Err(WriteError::TooLarge) } else { Ok(()) };
    if changes.is_empty() {
        // A stored replica may be larger than a limit that was lowered since.
        return check_size(snapshot);
    }
    let write = move |snapshot: &Snapshot, changes: &[Change]| {
        snapshot.apply(changes).map_err(WriteError::Failed)?;
        check_size(snapshot)
    };
    if snapshot.directory().is_none() {
        for changes in chunks(&changes, CHUNK_BYTES) {
            write(snapshot, changes)?;
            // A catch-up may have very many changes, and other tasks share the thread.
            tokio::task::yield_now().await;
        }
        return Ok(());
    }
    let snapshot = snapshot.clone();
    tokio::task::spawn_blocking(move || chunks(&changes, usize::MAX).try_for_each(|some| write(&snapshot, some)))
        .await
        .unwrap_or_else(|panic| {
            let error = Error::broken("the fallback replica could not be written").with_source(panic);
            Err(WriteError::Failed(error))
        })
}

/// Splits `changes` into parts of about `bytes` bytes and at most [`CHUNK`] changes.
fn chunks(changes: &[Change], bytes: usize) -> impl Iterator<Item = &[Change]> {
    let mut left = changes;
    std::iter::from_fn(move || {
        let mut taken = 0;
        let few = left.iter().take(CHUNK).take_while(|change| {
            let is_room = taken < bytes;
            if let Change::Put(record) = change {
                taken += record.bson().len();
            }
            is_room
        });
        let (chunk, rest) = left.split_at(few.count());
        left = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}
