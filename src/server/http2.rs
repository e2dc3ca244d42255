//! Streams of HTTP/2: the tasks that serve them, and the write timeout of each.
//!
//! A client can stop reading one stream by its flow control while it reads others, which the connection does not show.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::TaskTracker;

use crate::telemetry::Connections;

/// The largest part of a body that is passed on at once. A request for the next part shows that the client reads.
const PART_BYTES: usize = 16 * 1024;

tokio::task_local! {
    static PROGRESS: Progress;
}

/// The number of body parts that were passed on to be sent. It is 0 while the stream waits for the handler and not for the
/// client.
#[derive(Clone, Default)]
struct Progress(Arc<AtomicUsize>);

/// Runs the streams of one connection. A clone runs streams of the same connection.
#[derive(Clone)]
pub struct StreamExecutor {
    pub streams: TaskTracker,
    pub write_timeout: Duration,
    pub connections: Connections,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let (write_timeout, connections) = (self.write_timeout, self.connections.clone());
        let progress = Progress::default();
        let stream = PROGRESS.scope(progress.clone(), stream);
        self.streams.spawn(async move {
            let mut stream = pin!(stream);
            let mut seen = 0;
            let mut timer: Option<Pin<Box<Sleep>>> = None;
            poll_fn(|context| {
                if stream.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                let parts = progress.0.load(Ordering::Relaxed);
                if parts == 0 {
                    timer = None;
                    return Poll::Pending;
                }
                let timer = timer.get_or_insert_with(|| Box::pin(sleep(write_timeout)));
                if std::mem::replace(&mut seen, parts) != parts {
                    timer.as_mut().reset(Instant::now() + write_timeout);
                }
                ready!(timer.as_mut().poll(context));
                // Dropping the stream resets it.
                connections.count_write_timeout();
                Poll::Ready(())
            })
            .await;
        });
    }
}

/// A response's body. On HTTP/2 it records its progress.
pub struct ResponseBody<B> {
    body: B,
    progress: Option<Progress>,
    /// The unsent rest of a frame.
    rest: Bytes,
    parts: usize,
}

impl<B> ResponseBody<B> {
    /// Must be called in the task that sends `body`, whose progress it records.
    pub fn new(body: B) -> Self {
        let progress = PROGRESS.try_with(Progress::clone).ok();
        let body = Self { body, progress, rest: Bytes::new(), parts: 0 };
        body.record(1);
        body
    }

    fn record(&self, parts: usize) {
        if let Some(progress) = &self.progress {
            progress.0.store(parts, Ordering::Relaxed);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.progress.is_none() {
            return Pin::new(&mut self.body).poll_frame(context);
        }
        if self.rest.is_empty() {
            self.record(0);
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        self.parts += 1;
        self.record(1 + self.parts);
        let length = self.rest.len().min(PART_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
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
