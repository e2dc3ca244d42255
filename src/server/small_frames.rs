//! The stream of a connection, on which HTTP/2 sends the small responses of many requests by one write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The first bytes that a client of HTTP/2 sends ([RFC 9113, section 3.4](https://www.rfc-editor.org/rfc/rfc9113#section-3.4)).
const PREFACE_START: &[u8] = b"PRI";

/// A stream that says to h2 at first that it has no vectored writes.
///
/// h2 asks before its first write, and then joins frames with up to 1 KiB of data, instead of 256 bytes. Otherwise nearly every
/// record would be a write of its own, which costs more than all else that h2 does for it. Later writes are vectored, so that a
/// large frame needs one write and no copy.
pub struct SmallFrames<S> {
    stream: S,
    has_read: bool,
    hides_vectored: bool,
}

impl<S> SmallFrames<S> {
    pub const fn new(stream: S) -> Self {
        Self { stream, has_read: false, hides_vectored: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SmallFrames<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() && !std::mem::replace(&mut self.has_read, true) {
            self.hides_vectored = buffer.filled().starts_with(PREFACE_START);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SmallFrames<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.hides_vectored = false;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        !self.hides_vectored && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures::future::join_all;
    use http_body_util::Full;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;
    use rstest::rstest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::Barrier;

    use super::*;

    const REQUESTS: usize = 20;

    /// A stream with vectored writes that counts its writes of both kinds.
    struct Counted {
        stream: DuplexStream,
        writes: Arc<AtomicUsize>,
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(context, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.stream).poll_write_vectored(context, slices)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn counted(stream: DuplexStream) -> (SmallFrames<Counted>, Arc<AtomicUsize>) {
        let writes = Arc::new(AtomicUsize::new(0));
        (SmallFrames::new(Counted { stream, writes: writes.clone() }), writes)
    }

    /// Returns the writes that send [`REQUESTS`] responses of `bytes` bytes over HTTP/2.
    async fn writes_of_responses(bytes: usize) -> usize {
        let (client, server) = duplex(1 << 20);
        let (server, writes) = counted(server);
        let client = tokio::spawn(async move {
            let (mut requests, connection) = h2::client::handshake(client).await.unwrap();
            tokio::spawn(connection);
            let responses = (0..REQUESTS).map(|_| requests.send_request(Request::default(), true).unwrap().0);
            for response in join_all(responses).await {
                let mut body = response.unwrap().into_body();
                while let Some(part) = body.data().await {
                    body.flow_control().release_capacity(part.unwrap().len()).unwrap();
                }
            }
        });
        // All responses become ready at once.
        let all_sent = Arc::new(Barrier::new(REQUESTS));
        let service = service_fn(move |_: Request<Incoming>| {
            let all_sent = all_sent.clone();
            async move {
                all_sent.wait().await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; bytes]))))
            }
        });
        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service).await.unwrap();
        client.await.unwrap();
        writes.load(Ordering::Relaxed)
    }

    #[rstest]
    #[case::a_small_record(200)]
    #[case::an_ordinary_record(900)]
    #[tokio::test]
    async fn http_2_sends_responses_that_are_ready_at_once_in_a_few_writes(#[case] bytes: usize) {
        let writes = writes_of_responses(bytes).await;
        assert!(writes <= REQUESTS / 4, "{writes} writes for {REQUESTS} responses of {bytes} bytes");
    }

    #[tokio::test]
    async fn http_2_sends_a_large_frame_by_one_vectored_write() {
        let writes = writes_of_responses(3_000).await;
        assert!(writes <= REQUESTS + 5, "{writes} writes for {REQUESTS} responses");
    }

    #[rstest]
    #[case::http_1(b"GET / HTTP/1.1\r\n", true)]
    #[case::http_2(b"PRI * HTTP/2.0\r\n", false)]
    #[tokio::test]
    async fn writes_are_vectored_from_the_start_over_http_1_and_after_the_first_write_over_http_2(
        #[case] request: &[u8],
        #[case] at_first: bool,
    ) {
        let (mut client, server) = duplex(1 << 10);
        let (mut server, _) = counted(server);
        client.write_all(request).await.unwrap();
        server.read_u8().await.unwrap();
        server.read_u8().await.unwrap();
        assert!(server.is_write_vectored(), "two bytes are no preface");
        let (mut client, server) = duplex(1 << 10);
        let (mut server, _) = counted(server);
        client.write_all(request).await.unwrap();
        server.read_exact(&mut [0; 16]).await.unwrap();
        assert_eq!(server.is_write_vectored(), at_first);
        server.write_u8(b' ').await.unwrap();
        assert!(server.is_write_vectored());
    }
}
