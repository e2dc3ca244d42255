//! The id that a request goes by in its answer, in the log and in problems.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::hex;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over from a client, in bytes: a UUID, a trace id and then some.
const REQUEST_ID_MAX: usize = 128;

/// The id that a request goes by in its answer and in the log. Handlers find it among the request's extensions.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The client's own, if it is one that a log can show; else a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        let usable = |value: &&HeaderValue| {
            (1..=REQUEST_ID_MAX).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        Self(headers.get(REQUEST_ID).filter(usable).cloned().unwrap_or_else(new_id))
    }

    pub fn value(&self) -> &HeaderValue {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        // Visible ASCII, both the client's and ours.
        self.0.to_str().unwrap_or_default()
    }
}

/// Unique within a process by counting, and among processes by a random number drawn once: ids are for finding a line in
/// a log, not for keeping secrets.
fn new_id() -> HeaderValue {
    static PROCESS: LazyLock<[u8; 16]> = LazyLock::new(|| hex::digits(RandomState::new().hash_one(std::process::id())));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = hex::digits(COUNT.fetch_add(1, Ordering::Relaxed));
    // Eight digits, and more when they are needed.
    let begin = count.iter().take_while(|digit| **digit == b'0').count().min(8);
    let id = [PROCESS.as_slice(), b"-", &count[begin..]].concat();
    HeaderValue::from_maybe_shared(Bytes::from(id)).unwrap_or(HeaderValue::from_static("-"))
}
