//! A stream that gives up on a peer which no longer takes what is written to it, and that does not end a part as if it were
//! the whole.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Fails a write that has made no progress for `within`. Reads are not its matter: the time for a request's head bounds
/// those.
///
/// A client that asks for a large list and never reads it would otherwise hold its connection, the chunk that waits to be
/// sent and the store's cursor for as long as it likes.
///
/// To a client that [`Ends`] tells of, the connection's end is that of the answer. So when it is dropped before it was shut
/// down, which hyper does when an answer is whole and sent, it is reset.
pub struct Progress {
    stream: TcpStream,
    within: Duration,
    ends: Ends,
    is_shut_down: bool,
    /// Runs while a write waits. Boxed: most connections never need it.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// Whether on this connection an answer may have been begun that ends where the connection does: HTTP/1.0 has no chunks
/// ([RFC 9112, section 6.3](https://www.rfc-editor.org/rfc/rfc9112#section-6.3)).
#[derive(Clone, Default)]
pub struct Ends(Arc<AtomicBool>);

impl Ends {
    pub fn with_the_connection(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.ends.0.load(Ordering::Relaxed) && !self.is_shut_down {
            // Where this fails the connection is gone already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl Progress {
    pub fn new(stream: TcpStream, within: Duration, ends: Ends) -> Self {
        Self { stream, within, ends, is_shut_down: false, stalled: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let within = self.within;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(within)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Progress {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Progress {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut_down = true;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
