//! Bodies of records: encoded as JSON here, and counted in the memory for responses until they are sent.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, poll, stream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::accept::MediaType;
use super::csv;
use super::limits::StreamPermit;
use super::request_id::RequestId;
use crate::query::Path;
use crate::record::{Document, Malformed};
use crate::store::{self, MemoryPool, MemoryReservation, RowStream, UNCOUNTED_BYTES};
use crate::wire;

/// The size of a chunk, if the store has enough records ready: large enough that the cost per chunk does not matter, and small
/// compared with the buffer of a socket. A larger record is sent as one chunk.
const CHUNK_BYTES: usize = 64 * 1024;

/// The time that a stream may wait for the memory of a large record once its status was sent.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);

const MEMORY_POLL: Duration = Duration::from_millis(50);

/// The streams that may wait for memory at once: each of them holds a large record.
static MEMORY_WAITERS: Semaphore = Semaphore::const_new(4);

/// Encodes a sequence of records.
pub struct RecordEncoder {
    media_type: MediaType,
    /// The columns of CSV; empty for JSON.
    columns: Vec<Path>,
    has_written: bool,
}

impl RecordEncoder {
    pub fn new(media_type: MediaType, columns: Vec<Path>) -> Self {
        Self { media_type, columns, has_written: false }
    }

    pub fn begin(&self, out: &mut Vec<u8>) {
        match self.media_type {
            MediaType::Json => out.push(b'['),
            MediaType::Csv { has_header: true } => csv::write_header(out, &self.columns),
            MediaType::Csv { has_header: false } | MediaType::Ndjson => {}
        }
    }

    pub fn push(&mut self, out: &mut Vec<u8>, document: &Document) -> Result<(), Malformed> {
        if std::mem::replace(&mut self.has_written, true) && self.media_type == MediaType::Json {
            out.push(b',');
        }
        match self.media_type {
            MediaType::Csv { .. } => csv::write_row(out, &self.columns, document)?,
            _ => wire::document(out, document.bson())?,
        }
        if self.media_type == MediaType::Ndjson {
            out.push(b'\n');
        }
        Ok(())
    }

    pub fn finish(&self, out: &mut Vec<u8>) {
        if self.media_type == MediaType::Json {
            out.push(b']');
        }
    }
}

/// The JSON that `write` makes of `bson_bytes` bytes of BSON. `reservation` counts both while it is written, and the JSON
/// until it is dropped.
///
/// # Errors
///
/// `Unavailable` when the memory for responses is used up.
pub fn encode(
    mut reservation: MemoryReservation,
    bson_bytes: usize,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Malformed>,
) -> store::Result<Bytes> {
    // JSON is about as long as BSON; small documents of numbers and dates take half as much again.
    reservation.try_grow(2 * bson_bytes)?;
    let mut json = Vec::with_capacity(bson_bytes + bson_bytes / 2);
    write(&mut json)?;
    if json.capacity() > UNCOUNTED_BYTES {
        json.shrink_to_fit();
        reservation.try_grow(json.len())?;
    }
    reservation.shrink_to(json.len());
    Ok(Bytes::from_owner(Reserved { bytes: json, _reservation: reservation }))
}

/// Bytes until they are sent, or given up.
struct Reserved {
    bytes: Vec<u8>,
    _reservation: MemoryReservation,
}

impl AsRef<[u8]> for Reserved {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes of many records, in constant memory.
///
/// A failure on the way ends the stream with an error: the server then aborts the connection, without the chunk that would
/// end the body, so that no client takes a part for the whole.
pub struct RecordBody {
    /// `None` when there is nothing more to read.
    rows: Option<RowStream>,
    encoder: RecordEncoder,
    chunk: Vec<u8>,
    memory: MemoryPool,
    permit: StreamPermit,
    request_id: RequestId,
}

impl RecordBody {
    /// Encodes the first chunk: until it is sent, the status can still report a failure.
    pub async fn begin(
        rows: RowStream,
        encoder: RecordEncoder,
        memory: MemoryPool,
        permit: StreamPermit,
        request_id: RequestId,
    ) -> store::Result<impl Stream<Item = store::Result<Bytes>>> {
        let mut chunk = Vec::new();
        encoder.begin(&mut chunk);
        let mut body = Self { rows: Some(rows), encoder, chunk, memory, permit, request_id };
        let first = body.next_chunk(Duration::ZERO).await?;
        let rest = stream::unfold(Some(body), |body: Option<Self>| async move {
            let mut body = body?;
            match body.next_chunk(MEMORY_TIMEOUT).await.transpose()? {
                Ok(chunk) => Some((Ok(chunk), Some(body))),
                Err(error) => {
                    body.permit.streaming.abort();
                    let request_id = body.request_id.as_str();
                    tracing::error!(request_id, cause = %error.report(), "list aborted");
                    Some((Err(error), None))
                }
            }
        });
        Ok(stream::iter(first.map(Ok)).chain(rest))
    }

    /// Returns the next bytes to send, or `None` at the end. Waits for memory for at most `patience`.
    async fn next_chunk(&mut self, patience: Duration) -> store::Result<Option<Bytes>> {
        // A large record counts apart from what every stream has, until the chunk with it is sent.
        let mut reservation = self.memory.reservation();
        while let Some(rows) = &mut self.rows
            && self.chunk.len() < CHUNK_BYTES
        {
            let row = match poll!(rows.next()) {
                Poll::Ready(row) => row,
                // Whatever is there goes out, but for a lone bracket; the next call polls again.
                Poll::Pending if self.encoder.has_written && !self.chunk.is_empty() => break,
                Poll::Pending => rows.next().await,
            };
            let Some(row) = row.transpose()? else {
                self.rows = None;
                self.encoder.finish(&mut self.chunk);
                break;
            };
            let bytes = row.document.bson().len();
            if bytes > CHUNK_BYTES {
                grow(&mut reservation, 2 * bytes, patience).await?;
                self.chunk.reserve(bytes + bytes / 2);
            }
            if self.chunk.capacity() == 0 {
                self.chunk.reserve(CHUNK_BYTES + CHUNK_BYTES / 4);
            }
            self.encoder.push(&mut self.chunk, &row.document)?;
            if self.chunk.len() > 2 * CHUNK_BYTES {
                self.chunk.shrink_to_fit();
                // The document stays counted: what the store has read ahead may be as large.
                grow(&mut reservation, bytes + self.chunk.len(), patience).await?;
            }
        }
        let bytes = std::mem::take(&mut self.chunk);
        Ok((!bytes.is_empty()).then(|| Bytes::from_owner(Reserved { bytes, _reservation: reservation })))
    }
}

/// Waits for memory, but no longer than `patience`: clients that read slowly may hold it for as long as they like.
async fn grow(reservation: &mut MemoryReservation, bytes: usize, patience: Duration) -> store::Result<()> {
    let Err(error) = reservation.try_grow(bytes) else { return Ok(()) };
    let deadline = Instant::now() + patience;
    let Ok(_waiter) = MEMORY_WAITERS.try_acquire() else { return Err(error) };
    while Instant::now() < deadline {
        sleep(MEMORY_POLL).await;
        if reservation.try_grow(bytes).is_ok() {
            return Ok(());
        }
    }
    Err(error)
}
