//! Load shedding: a request that would have to wait for others is refused at once, so that those that are let in stay fast.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};

use super::App;
use super::metrics::Streaming;
use super::problem::Problem;
use crate::store::MemoryReservation;

/// The memory of a stream of small records: the chunk that is being sent, the next one, and what the store has read ahead.
/// By the resident memory of dozens of them: some 200 KiB each over an embedded store, 1.5 MiB over MongoDB.
const STREAM_BYTES: usize = 1024 * 1024;

/// The right to stream a list, and the memory for it. Released when it is dropped.
pub struct StreamPermit {
    pub streaming: Streaming,
    _permit: OwnedSemaphorePermit,
    _reservation: MemoryReservation,
}

impl App {
    /// A place for a request for records, until its answer begins. Health and metrics need none: they are what an operator
    /// looks at when there is none left.
    // Called by the handlers, since a layer costs every lookup a box more.
    pub fn place(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.places.try_acquire().map_err(|_| {
            self.metrics.shed();
            Problem::overloaded()
        })
    }

    /// A permit for a list that is streamed, until it is sent.
    pub fn stream_permit(&self) -> Result<StreamPermit, Problem> {
        let shed = |problem| {
            self.metrics.shed();
            problem
        };
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        let permit = permit.map_err(|_| shed(Problem::too_many_streams()))?;
        let mut reservation = self.memory.reservation();
        reservation.try_grow(STREAM_BYTES).map_err(|error| shed(error.into()))?;
        Ok(StreamPermit { streaming: self.metrics.stream(), _permit: permit, _reservation: reservation })
    }
}
