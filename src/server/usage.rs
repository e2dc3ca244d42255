//! What a connection was used for, which decides how it ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hyper::Version;

/// What a connection was used for so far.
#[derive(Default)]
pub struct Usage {
    requests: AtomicUsize,
    is_http2: AtomicBool,
    is_close_delimited: AtomicBool,
}

impl Usage {
    /// Whether a response may end where its connection does: HTTP/1.0 has no chunks
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

    /// Whether hyper's own time-outs apply. They do not before the first request, nor to HTTP/2.
    pub fn is_http1(&self) -> bool {
        self.requests() > 0 && !self.is_http2.load(Ordering::Relaxed)
    }
}
