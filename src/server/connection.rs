//! A connection that speaks HTTP/1.0, HTTP/1.1 or HTTP/2, and its limits and time-outs.

use std::convert::Infallible;
use std::error::Error;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

use super::client_stream::ClientStream;
use super::http2::{ResponseBody, StreamExecutor};
use super::small_frames::SmallFrames;
use super::usage::Usage;
use super::{DRAIN_GRACE, Limits};
use crate::client::PeerAddress;
use crate::tls::{Acceptor, Stream};

/// The longest head of a request (request line and headers), in bytes; a longer one is a 431. Enough for an id of several
/// kilobytes and for the cookies of other services on the same host.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// Concurrent streams of one HTTP/2 connection: the fewest that
/// [RFC 9113, section 6.5.2](https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2) recommends.
const MAX_CONCURRENT_STREAMS: u32 = 100;

/// The HTTP/2 flow-control windows for request bodies, of a stream and of the connection. The minimum, since the API reads no
/// request body.
const RECEIVE_WINDOW_BYTES: u32 = 65_535;

/// The bytes of a response that HTTP/2 buffers for each stream whose client reads slowly.
const STREAM_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Streams that a client may reset before they were served, or make the server reset, before its connection is closed.
const MAX_PENDING_RESETS: usize = 20;
const MAX_ERROR_RESETS: usize = 100;

/// The response to a request without TLS on a port with TLS.
const USE_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n\
    Connection: close\r\n\r\n{\"status\":400,\"title\":\"Bad Request\",\"detail\":\"This port speaks HTTPS: use https://.\"}";

/// Serves `stream` until the client or a time-out ends it, or, once `draining`, until no request is left on it.
pub async fn serve<S, B>(
    stream: TcpStream,
    peer: Option<PeerAddress>,
    service: S,
    limits: Arc<Limits>,
    draining: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let usage = Arc::new(Usage::default());
    // hyper would at once close a connection on which it has read nothing yet, and lose a request that has arrived.
    let grace_over = || draining.clone().cancelled_owned().then(|()| sleep(DRAIN_GRACE));
    let stream = ClientStream::new(stream, limits.write_timeout, usage.clone(), limits.connections.clone());
    // A single type for both, so that hyper's generic code is compiled only once.
    let stream = match &limits.tls {
        None => Either::Left(stream),
        Some(acceptor) => {
            let handshake = timeout(limits.header_timeout, handshake(acceptor, stream));
            let result = tokio::select! {
                result = handshake => result.unwrap_or_else(|elapsed| Err(elapsed.into())),
                () = grace_over() => return,
            };
            match result {
                Ok(stream) => Either::Right(stream),
                Err(error) => {
                    limits.connections.count_failed_handshake();
                    tracing::debug!(%error, "TLS handshake failed");
                    return;
                }
            }
        }
    };
    let service = service
        .map_request({
            let usage = usage.clone();
            move |mut request: Request<Incoming>| {
                usage.record(request.version());
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                request
            }
        })
        .map_response(|response: Response<B>| response.map(ResponseBody::new));
    let streams = TaskTracker::new();
    // `TaskTracker::wait` returns only if the tracker is closed.
    streams.close();
    let http = builder(&limits, streams.clone(), usage.clone());
    let mut connection =
        pin!(http.serve_connection(TokioIo::new(SmallFrames::new(stream)), TowerToHyperService::new(service)));
    // Lets the streams that are ready run first, so that one write carries their responses.
    let mut has_yielded = false;
    let after_streams = poll_fn(|context| {
        has_yielded = !has_yielded && !streams.is_empty();
        if has_yielded {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        connection.as_mut().poll(context)
    });
    let result = tokio::select! {
        biased;
        result = after_streams => result,
        () = grace_over() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = idle(&usage, &streams, limits.header_timeout) => {
            connection.as_mut().graceful_shutdown();
            // A client that has had a request may still be reading the response.
            let lingering = async {
                if usage.requests() > 0 {
                    idle(&usage, &streams, limits.write_timeout).await;
                }
            };
            tokio::select! {
                result = connection => result,
                () = lingering => Ok(()),
            }
        }
    };
    if let Err(error) = result {
        // Nearly always the client's doing: it closed the connection, was too slow, or does not speak HTTP. A list that the
        // store aborted was logged where it happened.
        tracing::debug!(%error, "connection ended early");
    }
}

/// Begins TLS on `stream`. A client that speaks HTTP without TLS is told so: every method begins with an upper-case letter, and no
/// TLS record does.
async fn handshake(acceptor: &Acceptor, mut stream: ClientStream) -> io::Result<Box<dyn Stream>> {
    if stream.peek().await?.is_some_and(|byte| byte.is_ascii_uppercase()) {
        stream.write_all(USE_HTTPS).await?;
        stream.shutdown().await?;
        // The system would reset a connection with unread bytes, and the client lose the response.
        io::copy(&mut stream.take(HEAD_MAX_BYTES as u64), &mut io::sink()).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the client speaks HTTP without TLS"));
    }
    acceptor.accept(stream).await
}

fn builder(limits: &Limits, streams: TaskTracker, usage: Arc<Usage>) -> auto::Builder<StreamExecutor> {
    let (write_timeout, connections) = (limits.write_timeout, limits.connections.clone());
    let executor = StreamExecutor { streams, write_timeout, connections, usage };
    let mut builder = auto::Builder::new(executor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_MAX_BYTES)
        // RFC 9112, section 9.6: a client may close its sending half and wait for the response.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_MAX_BYTES as u32)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .initial_stream_window_size(RECEIVE_WINDOW_BYTES)
        .initial_connection_window_size(RECEIVE_WINDOW_BYTES)
        .max_send_buf_size(STREAM_SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS);
    builder
}

/// Returns once the connection had no request, and wrote nothing of a response, for `duration`. Only for connections without any
/// request yet, and for HTTP/2: hyper itself ends idle connections of HTTP/1.
async fn idle(usage: &Usage, streams: &TaskTracker, duration: Duration) {
    loop {
        // The end of a response stays buffered after its stream has ended.
        streams.wait().await;
        let before = (usage.requests(), usage.sent());
        sleep(duration).await;
        if usage.is_http1() {
            return pending().await;
        }
        if (usage.requests(), usage.sent()) == before && !usage.is_write_blocked() {
            return;
        }
    }
}
