//! Streams of HTTP/2: the tasks that serve them, and the write timeout of each.
//!
//! A client can stop reading one stream by its flow control while it reads others, which the connection does not show.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::TaskTracker;

use super::usage::Usage;
use crate::telemetry::Connections;

/// The largest part of a body that is passed on at once. h2 buffers all that it gets, and the rest of a body stays limited.
const PART_BYTES: usize = 16 * 1024;

/// The write timeouts that a stream may wait while its client reads other streams: many streams share a slow connection, and a
/// stream whose window stays closed must not hold its memory for ever.
const MAX_TIMEOUTS: u32 = 10;

tokio::task_local! {
    static PROGRESS: Arc<Progress>;
}

/// The progress of a response.
struct Progress {
    /// The bytes of the body that were written.
    sent: AtomicUsize,
    /// False while the stream waits for the handler.
    waits_for_client: AtomicBool,
    usage: Arc<Usage>,
}

/// Runs the streams of one connection. A clone runs streams of the same connection.
#[derive(Clone)]
pub struct StreamExecutor {
    pub streams: TaskTracker,
    pub write_timeout: Duration,
    pub connections: Connections,
    pub usage: Arc<Usage>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let (write_timeout, connections) = (self.write_timeout, self.connections.clone());
        let usage = self.usage.clone();
        let progress =
            Arc::new(Progress { sent: AtomicUsize::new(0), waits_for_client: AtomicBool::new(false), usage });
        let stream = PROGRESS.scope(progress.clone(), stream);
        self.streams.spawn(async move {
            let mut stream = pin!(stream);
            let mut stall: Option<Stall> = None;
            poll_fn(|context| {
                if stream.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                if !progress.waits_for_client.load(Ordering::Relaxed) {
                    stall = None;
                    return Poll::Pending;
                }
                let stall = stall.get_or_insert_with(|| Stall::new(write_timeout, &progress));
                ready!(stall.poll_timed_out(write_timeout, &progress, context));
                // Dropping the stream resets it.
                connections.count_write_timeout();
                Poll::Ready(())
            })
            .await;
        });
    }
}

/// A stream that waits for the client.
struct Stall {
    timer: Pin<Box<Sleep>>,
    timeouts: u32,
    /// The bytes that the stream had sent when it was last polled, and the connection when the timer last fired.
    stream_sent: usize,
    connection_sent: usize,
}

impl Stall {
    fn new(write_timeout: Duration, progress: &Progress) -> Self {
        let (stream_sent, connection_sent) = (progress.sent.load(Ordering::Relaxed), progress.usage.sent());
        Self { timer: Box::pin(sleep(write_timeout)), timeouts: 0, stream_sent, connection_sent }
    }

    fn poll_timed_out(&mut self, write_timeout: Duration, progress: &Progress, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let sent = progress.sent.load(Ordering::Relaxed);
            if std::mem::replace(&mut self.stream_sent, sent) != sent {
                self.timeouts = 0;
                self.timer.as_mut().reset(Instant::now() + write_timeout);
            }
            ready!(self.timer.as_mut().poll(context));
            let sent = progress.usage.sent();
            // A client that reads slowly from its socket may show no progress for long: the connection limits that time.
            let is_reading =
                std::mem::replace(&mut self.connection_sent, sent) != sent || progress.usage.is_write_blocked();
            self.timeouts += 1;
            if !is_reading || self.timeouts >= MAX_TIMEOUTS {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(Instant::now() + write_timeout);
        }
    }
}

/// A response's body. On HTTP/2 it records its progress.
pub struct ResponseBody<B> {
    body: B,
    progress: Option<Arc<Progress>>,
    /// The unsent rest of a frame.
    rest: Bytes,
}

impl<B> ResponseBody<B> {
    /// Must be called in the task that sends `body`, whose progress it records.
    pub fn new(body: B) -> Self {
        let progress = PROGRESS.try_with(Arc::clone).ok();
        let body = Self { body, progress, rest: Bytes::new() };
        body.set_waits_for_client(true);
        body
    }

    fn set_waits_for_client(&self, waits: bool) {
        if let Some(progress) = &self.progress {
            progress.waits_for_client.store(waits, Ordering::Relaxed);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ResponseBody<B> {
    type Data = Part;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Part>, B::Error>>> {
        if self.rest.is_empty() {
            self.set_waits_for_client(false);
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            self.set_waits_for_client(true);
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => {
                        return Poll::Ready(Some(Ok(trailers.map_data(|bytes| Part { bytes, progress: None }))));
                    }
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let length = if self.progress.is_some() { self.rest.len().min(PART_BYTES) } else { self.rest.len() };
        let bytes = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(Part { bytes, progress: self.progress.clone() }))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// A part of a body. On HTTP/2 it records how much of it is written.
pub struct Part {
    bytes: Bytes,
    progress: Option<Arc<Progress>>,
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(progress) = &self.progress {
            progress.sent.fetch_add(count, Ordering::Relaxed);
            progress.usage.add_sent(count);
        }
    }
}
