//! The protocol, the requests and the progress of a connection, which decide when and how it is ended.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hyper::Version;

/// The protocol, the requests and the progress of a connection.
#[derive(Default)]
pub struct Usage {
    requests: AtomicUsize,
    is_http2: AtomicBool,
    is_close_delimited: AtomicBool,
    /// The bytes of bodies that HTTP/2 has written.
    sent: AtomicUsize,
    is_write_blocked: AtomicBool,
}

impl Usage {
    /// Returns true if the end of the connection may mark the end of a response, since HTTP/1.0 has no chunks
    /// ([RFC 9112, section 6.3](https://www.rfc-editor.org/rfc/rfc9112#section-6.3)).
    pub fn is_close_delimited(&self) -> bool {
        self.is_close_delimited.load(Ordering::Relaxed)
    }

    pub fn record(&self, version: Version) {
        self.is_close_delimited.fetch_or(version < Version::HTTP_11, Ordering::Relaxed);
        self.is_http2.fetch_or(version == Version::HTTP_2, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    pub fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn set_write_blocked(&self, is_blocked: bool) {
        self.is_write_blocked.store(is_blocked, Ordering::Relaxed);
    }

    /// Returns true while a write waits for the socket. [`ClientStream`](super::client_stream::ClientStream) limits that time.
    pub fn is_write_blocked(&self) -> bool {
        self.is_write_blocked.load(Ordering::Relaxed)
    }

    /// Returns true for a connection of HTTP/1 that has had a request. hyper's own time-outs apply only to those.
    pub fn is_http1(&self) -> bool {
        self.requests() > 0 && !self.is_http2.load(Ordering::Relaxed)
    }
}
