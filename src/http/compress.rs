//! Content codings, as clients ask for them: gzip, Brotli, Zstandard, as far as they are compiled in.
//!
//! Here rather than in a layer around the router: only here a HEAD still has the body whose headers it is to show.

use axum::http::HeaderMap;
use axum::response::Response;

use super::problem::Problem;

#[cfg(feature = "gzip")]
mod pieces;

/// What is smaller gains nothing: it fits into one packet with its head, and the codings have heads of their own.
#[cfg(feature = "gzip")]
const MIN_BYTES: u64 = 1024;

/// The response in the coding that the client prefers.
///
/// # Errors
///
/// When the client refuses every coding there is, and the plain form too.
#[cfg(feature = "gzip")]
pub fn compressed(headers: &HeaderMap, response: Response) -> Result<Response, Problem> {
    use axum::body::Body;
    use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG};
    use axum::http::{HeaderValue, Request, StatusCode};
    use futures::FutureExt;
    use tower::ServiceExt;
    use tower_http::compression::Compression;
    use tower_http::compression::predicate::SizeAbove;

    if !headers.contains_key(ACCEPT_ENCODING) {
        return Ok(response);
    }
    let mut request = Request::new(());
    for value in headers.get_all(ACCEPT_ENCODING) {
        request.headers_mut().append(ACCEPT_ENCODING, value.clone());
    }
    let refused = || {
        let detail =
            "`Accept-Encoding` refuses every coding there is, and the plain form too: leave out `identity;q=0`.";
        Problem::not_acceptable("Accept-Encoding", detail)
    };
    let status = response.status();
    let mut response = Some(response.map(pieces::Pieces::of));
    let ready = tower::service_fn(move |_: Request<()>| {
        std::future::ready(response.take().ok_or_else(|| std::io::Error::other("one request has one response")))
    });
    let compression = Compression::new(ready).compress_when(SizeAbove::new(MIN_BYTES));
    // What it is around has its response already, so it has too.
    let response = compression.oneshot(request).now_or_never().and_then(Result::ok).ok_or_else(refused)?;
    if response.status() == StatusCode::NOT_ACCEPTABLE && status != StatusCode::NOT_ACCEPTABLE {
        return Err(refused());
    }
    let response = response.map(Body::new);
    if !response.headers().contains_key(CONTENT_ENCODING) {
        return Ok(response);
    }
    let mut response = response.map(|body| Body::new(pieces::Paced::of(body)));
    if let Some(tag) = response.headers().get(ETAG)
        // No longer byte for byte what it was.
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        response.headers_mut().insert(ETAG, weak);
    }
    Ok(response)
}

/// The response as it is.
#[cfg(not(feature = "gzip"))]
pub fn compressed(_: &HeaderMap, response: Response) -> Result<Response, Problem> {
    Ok(response)
}

/// What the choice of a coding depends on.
pub const VARY: &str = if cfg!(feature = "gzip") { "accept, accept-encoding" } else { "accept" };
