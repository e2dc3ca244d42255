//! Records as one JSON array, in constant memory.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::finish::RequestId;
use crate::record::Record;
use crate::store::{self, Listing};

/// How many bytes are gathered before they are sent, if that many are at hand: enough that the cost of a chunk does not
/// count, and little beside what a socket buffers. A record larger than this goes out in one piece.
const CHUNK_BYTES: usize = 64 * 1024;

/// The bytes of an array of records.
///
/// A failure on the way ends the stream with an error: the server then cuts the connection, without the chunk that would
/// end the body, so that no client takes what it got for the whole.
pub struct JsonArray {
    /// `None` when there is nothing more to read.
    records: Option<Listing>,
    chunk: Vec<u8>,
    /// Whether a record was written, so that the next one needs a comma before it.
    begun: bool,
    failure: Option<store::Error>,
    request_id: RequestId,
}

impl JsonArray {
    /// Gathers the first chunk: until it is sent, a failure can still be told by the status.
    pub async fn begin(
        records: Listing,
        request_id: RequestId,
    ) -> store::Result<impl Stream<Item = store::Result<Bytes>>> {
        let mut array = Self { records: Some(records), chunk: vec![b'['], begun: false, failure: None, request_id };
        std::future::poll_fn(|context| array.poll_gather(context)).await;
        match array.failure.take() {
            Some(error) => Err(error),
            None => Ok(array),
        }
    }

    /// Ready when there is something to send, or nothing more to gather.
    fn poll_gather(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(records) = &mut self.records {
            if self.chunk.len() >= CHUNK_BYTES {
                break;
            }
            match records.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(record))) => self.push(&record),
                Poll::Ready(Some(Err(error))) => {
                    self.records = None;
                    self.failure = Some(error);
                }
                Poll::Ready(None) => {
                    self.records = None;
                    self.chunk.push(b']');
                }
                // What is there goes out, but for a lone bracket; the store has promised to wake us for the rest.
                Poll::Pending if self.begun && !self.chunk.is_empty() => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    fn push(&mut self, record: &Record) {
        if std::mem::replace(&mut self.begun, true) {
            self.chunk.push(b',');
        }
        self.chunk.extend_from_slice(record.json());
    }
}

impl Stream for JsonArray {
    type Item = store::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        std::task::ready!(self.poll_gather(context));
        if !self.chunk.is_empty() {
            // The next chunk will be about as large.
            let next = Vec::with_capacity(if self.records.is_some() { CHUNK_BYTES * 2 } else { 0 });
            return Poll::Ready(Some(Ok(std::mem::replace(&mut self.chunk, next).into())));
        }
        let Some(error) = self.failure.take() else { return Poll::Ready(None) };
        tracing::error!(request_id = self.request_id.as_str(), cause = %error.report(), "list cut short");
        Poll::Ready(Some(Err(error)))
    }
}
