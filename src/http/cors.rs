//! Which pages of other origins may read the answers ([CORS](https://fetch.spec.whatwg.org/#http-cors-protocol)).

use std::time::Duration;

use axum::http::header::{ACCEPT, AGE, ETAG, IF_MATCH, IF_NONE_MATCH, LINK, ORIGIN, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::age::CACHE_STATUS;
use super::line::TRACEPARENT;
use super::request_id::REQUEST_ID;

/// How long a browser may remember what it was told, which is as long as any of them does.
const REMEMBERED: Duration = Duration::from_secs(2 * 60 * 60);

/// Answers preflights, and tells browsers which of `origins` may read the rest; `*` is all of them. No credentials: there
/// are none.
pub fn layer(origins: &[HeaderValue]) -> CorsLayer {
    let any = origins.iter().any(|origin| origin == "*");
    let origin = if any { AllowOrigin::any() } else { AllowOrigin::list(origins.iter().cloned()) };
    let vary: &[HeaderName] = if any { &[] } else { &[ORIGIN] };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([ACCEPT, IF_MATCH, IF_NONE_MATCH, REQUEST_ID, TRACEPARENT])
        .expose_headers([AGE, CACHE_STATUS, ETAG, LINK, RETRY_AFTER, REQUEST_ID, TRACEPARENT])
        .max_age(REMEMBERED)
        .vary(vary.to_vec())
}
