//! The TCP stream of a client, with the write timeout.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::unacknowledged::unacknowledged_bytes;
use super::usage::Usage;
use crate::telemetry::Connections;

/// Checks for progress within one write timeout.
const CHECKS: u32 = 8;

/// A client's TCP stream. A write fails once the client has read nothing for the write timeout.
///
/// A client that requests a large list and never reads it would otherwise keep its connection, the next chunk and the store's
/// cursor for ever.
///
/// The stream is reset, rather than closed, after such a failure and in the middle of a close-delimited response: the client
/// would take a close for the end of the body.
pub struct ClientStream {
    stream: TcpStream,
    write_timeout: Duration,
    usage: Arc<Usage>,
    connections: Connections,
    is_shut_down: bool,
    has_timed_out: bool,
    /// Present while a write waits. Boxed: most connections never need it.
    stall: Option<Box<Stall>>,
}

impl ClientStream {
    pub fn new(stream: TcpStream, write_timeout: Duration, usage: Arc<Usage>, connections: Connections) -> Self {
        Self { stream, write_timeout, usage, connections, is_shut_down: false, has_timed_out: false, stall: None }
    }

    /// Returns the next byte without reading it; `None` at the end.
    pub async fn peek(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        Ok((self.stream.peek(&mut byte).await? == 1).then_some(byte[0]))
    }

    /// Returns the result of a write, or a time-out if the write has waited too long.
    fn bound<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stall.take().is_some() {
                self.usage.set_write_blocked(false);
            }
            return written;
        }
        self.usage.set_write_blocked(true);
        let stall = self.stall.get_or_insert_with(|| Box::new(Stall::new(self.write_timeout)));
        ready!(stall.poll_timed_out(&self.stream, context));
        if !std::mem::replace(&mut self.has_timed_out, true) {
            self.connections.count_write_timeout();
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.has_timed_out || (self.usage.is_close_delimited() && !self.is_shut_down) {
            // If this fails, the connection is gone already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// A write that waits for the client.
///
/// A wait alone does not prove that the client has stopped reading: the kernel accepts the next bytes only once a large part of
/// its send buffer is free. The client's acknowledgements show progress earlier, but in steps, since its system frees whole
/// segments of 64 KiB: at 4,000 bytes a second, up to 33 s pass between two. Hence the time-out is 1.5 times the setting.
struct Stall {
    check_interval: Duration,
    timeout: Duration,
    unacknowledged: Option<u32>,
    last_progress: Instant,
    next_check: Pin<Box<Sleep>>,
}

impl Stall {
    fn new(write_timeout: Duration) -> Self {
        let (check_interval, timeout) = (write_timeout / CHECKS, write_timeout + write_timeout / 2);
        // The first check sets `unacknowledged`, which counts as progress: the client then has the whole time-out from there.
        let next_check = Box::pin(sleep(check_interval));
        Self { check_interval, timeout, unacknowledged: None, last_progress: Instant::now(), next_check }
    }

    fn poll_timed_out(&mut self, stream: &TcpStream, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.next_check.as_mut().poll(context));
            let (now, unacknowledged) = (Instant::now(), unacknowledged_bytes(stream));
            if std::mem::replace(&mut self.unacknowledged, unacknowledged) != unacknowledged {
                self.last_progress = now;
            }
            let deadline = self.last_progress + self.timeout;
            if now >= deadline {
                return Poll::Ready(());
            }
            self.next_check.as_mut().reset(deadline.min(now + self.check_interval));
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bound(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bound(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Fails if the client has reset the connection. hyper flushes whenever it polls a connection, and does not read while a
    /// response is pending: a client may have closed its sending half.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stream.poll_read_ready(context).is_ready()
            && let Some(error) = self.stream.take_error()?
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut_down = true;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
