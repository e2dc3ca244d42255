//! Access by pages of other origins ([CORS](https://fetch.spec.whatwg.org/#http-cors-protocol)).

use std::time::Duration;

use axum::http::header::{ACCESS_CONTROL_ALLOW_METHODS, AGE, ALLOW, ETAG, LINK, ORIGIN, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;

use super::count::{PREFERENCE_APPLIED, RECORDS_COUNT};
use super::problem::ALLOWED_METHODS;
use super::rate_limit::{RATE_LIMIT, RATE_LIMIT_POLICY};
use super::request_id::REQUEST_ID;
use super::response::{CACHE_STATUS, RECORDS_AS_OF};
use super::settings::Settings;
use super::timing::SERVER_TIMING;

/// The time that a browser may keep the answer to a preflight: the longest that any browser does.
const MAX_AGE: Duration = Duration::from_secs(2 * 60 * 60);

pub type AllowLayer = SetResponseHeaderLayer<fn(&Response) -> Option<HeaderValue>>;

/// Answers preflights, and tells browsers which origins may read the responses. `None` when no origin may.
///
/// Without `Access-Control-Allow-Credentials`: the service has no cookies, and pages send `Authorization` themselves.
pub fn layer(settings: &Settings) -> Option<(AllowLayer, CorsLayer)> {
    let origins = &settings.cors_origins;
    if origins.is_empty() {
        return None;
    }
    let any = origins.iter().any(|origin| origin == "*");
    let origin = if any { AllowOrigin::any() } else { AllowOrigin::list(origins.iter().cloned()) };
    let vary: &[HeaderName] = if any { &[] } else { &[ORIGIN] };
    let headers = match &settings.cors_headers {
        Some(headers) => AllowHeaders::list(headers.iter().cloned()),
        // A `*` would leave `Authorization` out.
        None => AllowHeaders::mirror_request(),
    };
    let layer = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers(headers)
        .expose_headers([
            AGE,
            ALLOW,
            CACHE_STATUS,
            ETAG,
            LINK,
            PREFERENCE_APPLIED,
            RECORDS_AS_OF,
            RECORDS_COUNT,
            RATE_LIMIT,
            RATE_LIMIT_POLICY,
            RETRY_AFTER,
            REQUEST_ID,
            SERVER_TIMING,
        ])
        .max_age(MAX_AGE)
        .vary(vary.to_vec());
    Some((SetResponseHeaderLayer::if_not_present(ALLOW, allowed_methods), layer))
}

/// tower-http answers every `OPTIONS` as a preflight. Others than browsers read `Allow`.
fn allowed_methods(response: &Response) -> Option<HeaderValue> {
    response.headers().contains_key(ACCESS_CONTROL_ALLOW_METHODS).then_some(ALLOWED_METHODS)
}
