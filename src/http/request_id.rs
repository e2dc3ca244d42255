//! The id of a request: in its response, in its line of the log, and in problem details.
//!
//! tower-http's `SetRequestIdLayer` would take any text from a client, and cost two more allocations for each request.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken from a client, in bytes: enough for a UUID or a `traceparent`.
const MAX_BYTES: usize = 128;

/// The id of a request. Handlers find it among the request's extensions.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Takes the client's `x-request-id`, if that is visible ASCII of at most 128 bytes, or makes a new id.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let is_valid = |value: &&HeaderValue| {
            (1..=MAX_BYTES).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        Self(headers.get(REQUEST_ID).filter(is_valid).cloned().unwrap_or_else(new_id))
    }

    pub fn value(&self) -> &HeaderValue {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        // Visible ASCII always is a string.
        self.0.to_str().unwrap_or_default()
    }
}

/// A count, after a random number for the process: unique, and cheaper than a UUID. It is no secret.
fn new_id() -> HeaderValue {
    static PROCESS: LazyLock<String> =
        LazyLock::new(|| format!("{:016x}-", RandomState::new().hash_one(std::process::id())));
    static COUNT: AtomicU64 = AtomicU64::new(1);
    // Without a formatter, which would take longer than the lookup of a record in memory.
    let id = [PROCESS.as_str(), itoa::Buffer::new().format(COUNT.fetch_add(1, Ordering::Relaxed))].concat();
    // Digits are a valid value.
    HeaderValue::from_maybe_shared(Bytes::from(id)).unwrap_or(HeaderValue::from_static("-"))
}
