//! Records as one JSON array, or one a line, in constant memory.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::accept::Form;
use super::finish::RequestId;
use super::metrics::Streaming;
use crate::query::Fields;
use crate::record::Record;
use crate::store::{self, Listing, Turn};

/// How many bytes are gathered before they are sent, if that many are at hand: enough that the cost of a chunk does not
/// count, and little beside what a socket buffers. A record larger than this goes out in one piece.
const CHUNK_BYTES: usize = 64 * 1024;

/// The bytes of many records.
///
/// A failure on the way ends the stream with an error: the server then cuts the connection, without the chunk that would
/// end the body, so that no client takes what it got for the whole.
pub struct Records {
    /// `None` when there is nothing more to read.
    records: Option<Listing>,
    writer: Writer,
    failure: Option<store::Error>,
    request_id: RequestId,
    streaming: Streaming,
    turn: Turn,
}

/// Writes records one after the other, in a form.
pub struct Writer {
    form: Form,
    fields: Option<Fields>,
    chunk: Vec<u8>,
    /// Whether a record was written, so that the next one needs a comma before it.
    begun: bool,
}

impl Writer {
    /// Makes room for as many bytes at once.
    pub fn reserve(&mut self, bytes: usize) {
        self.chunk.reserve_exact(bytes + 1);
    }

    pub fn push(&mut self, record: &Record) {
        if std::mem::replace(&mut self.begun, true) && self.form == Form::Json {
            self.chunk.push(b',');
        }
        match &self.fields {
            None => self.chunk.extend_from_slice(record.json()),
            Some(fields) => fields.project(&mut self.chunk, record.json()),
        }
        if self.form == Form::Lines {
            self.chunk.push(b'\n');
        }
    }

    /// What was written, whole.
    pub fn end(mut self) -> Vec<u8> {
        self.close();
        self.chunk
    }

    fn close(&mut self) {
        if self.form == Form::Json {
            self.chunk.push(b']');
        }
    }
}

impl Records {
    /// `fields` is what to keep of each record, if not all.
    pub fn writer(form: Form, fields: Option<Fields>) -> Writer {
        let chunk = if form == Form::Json { vec![b'['] } else { Vec::new() };
        Writer { form, fields, chunk, begun: false }
    }

    /// Gathers the first chunk: until it is sent, a failure can still be told by the status.
    pub async fn begin(
        records: Listing,
        writer: Writer,
        request_id: RequestId,
        streaming: Streaming,
    ) -> store::Result<impl Stream<Item = store::Result<Bytes>>> {
        let mut records =
            Self { records: Some(records), writer, failure: None, request_id, streaming, turn: Turn::default() };
        std::future::poll_fn(|context| records.poll_gather(context)).await;
        match records.failure.take() {
            Some(error) => Err(error),
            None => Ok(records),
        }
    }

    /// Ready when there is something to send, or nothing more to gather.
    fn poll_gather(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(records) = &mut self.records {
            if self.writer.chunk.len() >= CHUNK_BYTES {
                // The client's turn.
                self.turn = Turn::default();
                break;
            }
            ready!(self.turn.poll_pause(context));
            match records.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(record))) => {
                    self.writer.push(&record);
                    // Where little is kept of each, a chunk takes long to fill.
                    if self.turn.is_over(record.json().len()) {
                        self.turn.pause();
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.records = None;
                    self.failure = Some(error);
                }
                Poll::Ready(None) => {
                    self.records = None;
                    self.writer.close();
                }
                // What is there goes out, but for a lone bracket; the store has promised to wake us for the rest.
                Poll::Pending if self.writer.begun && !self.writer.chunk.is_empty() => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

impl Stream for Records {
    type Item = store::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        ready!(self.poll_gather(context));
        if !self.writer.chunk.is_empty() {
            // The next chunk will be about as large.
            let next = Vec::with_capacity(if self.records.is_some() { CHUNK_BYTES * 2 } else { 0 });
            return Poll::Ready(Some(Ok(std::mem::replace(&mut self.writer.chunk, next).into())));
        }
        let Some(error) = self.failure.take() else { return Poll::Ready(None) };
        self.streaming.cut();
        tracing::error!(request_id = self.request_id.as_str(), cause = %error.report(), "list cut short");
        Poll::Ready(Some(Err(error)))
    }
}
