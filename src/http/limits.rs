//! Limits of a request: its deadline, what becomes of a panic, and permits. A request that would have to wait for a permit is
//! refused at once (load shedding), so that the others stay fast.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};
use tokio::time::timeout;

use super::AppState;
use super::metrics::Streaming;
use super::problem::Problem;
use crate::store::MemoryReservation;

/// The memory of a stream of small records: the chunk that is being sent, the next one, and what the store has read ahead.
/// Measured as resident memory of dozens of streams: some 200 KiB each over an embedded store, 1.5 MiB over MongoDB.
const STREAM_BYTES: usize = 1024 * 1024;

/// The response, or a 503 after `deadline`, or a 500 when the handler panics.
///
/// tower-http's `TimeoutLayer` would register a timer for each request, since it polls its timer first; its `CatchPanicLayer`
/// would box the body of each response.
pub fn bounded<F>(deadline: Duration, response: F) -> impl Future<Output = F::Output>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    timeout(deadline, AssertUnwindSafe(response).catch_unwind()).map(|result| match result {
        Ok(Ok(response)) => response,
        // The panic hook has logged its text.
        Ok(Err(_)) => Ok(Problem::panicked().into_response()),
        Err(_) => Ok(Problem::timeout().into_response()),
    })
}

/// The right to stream a list, and the memory for it. Released when it is dropped.
pub struct StreamPermit {
    pub streaming: Streaming,
    _permit: OwnedSemaphorePermit,
    _reservation: MemoryReservation,
}

impl AppState {
    /// A permit for a request for records, until its response begins. Health and metrics need none: operators look at them
    /// when there is no permit left.
    pub fn acquire_permit(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.request_permits.try_acquire().map_err(|_| Problem::too_many_requests())
    }

    /// A permit for a streamed list, until it is sent.
    pub fn acquire_stream_permit(&self) -> Result<StreamPermit, Problem> {
        let permit = Arc::clone(&self.stream_permits).try_acquire_owned();
        let permit = permit.map_err(|_| Problem::too_many_streams())?;
        let mut reservation = self.memory.reservation();
        reservation.try_grow(STREAM_BYTES)?;
        Ok(StreamPermit { streaming: self.metrics.stream(), _permit: permit, _reservation: reservation })
    }
}
