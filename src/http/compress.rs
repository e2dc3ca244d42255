//! Content codings that clients ask for: gzip, Brotli, Zstandard, as far as they are compiled in.
//!
//! Here rather than in a layer around the router: only here a HEAD still has the body whose headers it is to show.

use axum::http::HeaderMap;
use axum::response::Response;

use super::problem::Problem;
use crate::store::MemoryPool;

#[cfg(feature = "gzip")]
mod encoder;

/// A smaller body gains nothing: it fits into one packet with its head, and the codings have heads of their own.
#[cfg(feature = "gzip")]
const MIN_BYTES: u64 = 1024;

/// The bytes that are compressed at a time: some milliseconds of work. Other tasks run between two pieces.
#[cfg(feature = "gzip")]
const PIECE_BYTES: usize = 64 * 1024;

/// The response in the coding that the client prefers.
///
/// A body of one piece is compressed at once. A larger one is compressed while it is sent; `memory` then counts what the
/// encoder needs.
///
/// # Errors
///
/// When the client refuses every coding there is, and the plain form too; when the memory for responses is used up.
#[cfg(feature = "gzip")]
pub fn compressed(memory: &MemoryPool, headers: &HeaderMap, response: Response) -> Result<Response, Problem> {
    use axum::body::{Body, HttpBody};
    use axum::http::HeaderValue;
    use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, ETAG};
    use encoder::Coding;
    use futures::{FutureExt, StreamExt};

    use crate::store;

    if !headers.contains_key(ACCEPT_ENCODING) {
        return Ok(response);
    }
    let coding = encoder::choose(headers).ok_or_else(|| {
        let detail =
            "`Accept-Encoding` refuses every coding there is, and the plain form too: leave out `identity;q=0`.";
        Problem::not_acceptable("Accept-Encoding", detail)
    })?;
    let size = response.body().size_hint().exact();
    let is_small = size.is_some_and(|size| size < MIN_BYTES);
    if coding == Coding::Identity || is_small || response.headers().contains_key(CONTENT_ENCODING) {
        return Ok(response);
    }
    let failed = |error: std::io::Error| store::Error::broken("a response cannot be compressed").with_source(error);
    let (mut head, body) = response.into_parts();
    let mut body = body.into_data_stream();
    let body = if size.is_some_and(|size| size <= PIECE_BYTES as u64) {
        // A body whose size is known is at hand.
        let whole = body.next().now_or_never().flatten().and_then(Result::ok).unwrap_or_default();
        Body::from(coding.encode(&whole).map_err(failed)?)
    } else {
        let mut reservation = memory.reservation();
        reservation.try_grow(coding.memory_bytes())?;
        Body::from_stream(encoder::encoded(body, coding.encoder().map_err(failed)?, reservation))
    };
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    if let Some(tag) = head.headers.get(ETAG)
        // The body is no longer the same byte for byte.
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        head.headers.insert(ETAG, weak);
    }
    Ok(Response::from_parts(head, body))
}

/// The response as it is.
#[cfg(not(feature = "gzip"))]
pub fn compressed(_: &MemoryPool, _: &HeaderMap, response: Response) -> Result<Response, Problem> {
    Ok(response)
}

/// The request headers that the choice of a form and a coding depends on.
pub const VARY: &str = if cfg!(feature = "gzip") { "accept, accept-encoding" } else { "accept" };
