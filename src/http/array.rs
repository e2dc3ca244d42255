//! Records as one JSON array, in constant memory.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::finish::RequestId;
use crate::record::Record;
use crate::store::{self, RecordStream};

/// How many bytes are gathered before they are sent, if that many are at hand: enough that the cost of a chunk does not
/// count, and little beside what a socket buffers. A record larger than this goes out in one piece.
const CHUNK_BYTES: usize = 64 * 1024;

/// The bytes of an array of records.
///
/// A failure on the way ends the stream with an error: the server then cuts the connection, without the chunk that would
/// end the body, so that no client takes what it got for the whole.
pub struct JsonArray {
    first: Option<Record>,
    /// `None` when there is nothing more to read.
    records: Option<RecordStream>,
    chunk: Vec<u8>,
    empty: bool,
    failure: Option<store::Error>,
    request_id: RequestId,
}

impl JsonArray {
    /// `first` was taken off `records` already, and is `None` if there was none.
    pub fn new(first: Option<Record>, records: RecordStream, request_id: RequestId) -> Self {
        // A stream that has ended must not be asked again.
        let (chunk, records) = if first.is_some() { (b"[".to_vec(), Some(records)) } else { (b"[]".to_vec(), None) };
        Self { first, records, chunk, empty: true, failure: None, request_id }
    }

    fn push(&mut self, record: &Record) {
        if !std::mem::replace(&mut self.empty, false) {
            self.chunk.push(b',');
        }
        self.chunk.extend_from_slice(record.json());
    }

    fn take_chunk(&mut self) -> Bytes {
        // The next one will be about as large.
        let next = Vec::with_capacity(self.chunk.len().min(CHUNK_BYTES * 2));
        std::mem::replace(&mut self.chunk, next).into()
    }
}

impl Stream for JsonArray {
    type Item = store::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            this.push(&first);
        }
        while let Some(records) = &mut this.records {
            if this.chunk.len() >= CHUNK_BYTES {
                break;
            }
            match records.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(record))) => this.push(&record),
                Poll::Ready(Some(Err(error))) => {
                    this.records = None;
                    this.failure = Some(error);
                }
                Poll::Ready(None) => {
                    this.records = None;
                    this.chunk.push(b']');
                }
                Poll::Pending if this.chunk.is_empty() => return Poll::Pending,
                // What is there goes out; the store has promised to wake us for the rest.
                Poll::Pending => break,
            }
        }
        if !this.chunk.is_empty() {
            return Poll::Ready(Some(Ok(this.take_chunk())));
        }
        let Some(error) = this.failure.take() else { return Poll::Ready(None) };
        tracing::error!(request_id = this.request_id.as_str(), cause = %error.report(), "list cut short");
        Poll::Ready(Some(Err(error)))
    }
}
