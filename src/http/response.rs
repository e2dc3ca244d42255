//! The heads of responses that carry records.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

use super::accept::MediaType;
use super::settings::Settings;
use crate::store::ClusterTime;

/// The response has every write up to this cluster time. A client knows the times of its own writes.
pub const RECORDS_AS_OF: HeaderName = HeaderName::from_static("records-as-of");

pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// [RFC 9211](https://www.rfc-editor.org/rfc/rfc9211): the response comes from the replica (`hit`) and not from MongoDB
/// (`fwd`), even if MongoDB was asked first.
const FROM_REPLICA: HeaderValue = HeaderValue::from_static("records; hit; detail=replica");

/// The request headers that the media type, the coding and the state of a response depend on. A response without a bound is not
/// as new as a token asks for, so a cache must not answer with it.
const VARY_BY: HeaderValue = HeaderValue::from_static("accept, accept-encoding, records-not-before");

/// [`VARY_BY`] where requests need credentials: in one value, since a second one costs each request an allocation.
pub const VARY_BY_CALLER: HeaderValue =
    HeaderValue::from_static("accept, accept-encoding, records-not-before, authorization");

/// Room for the headers of a response with records, so that the map need not grow.
const HEADERS: usize = 11;

pub fn record_response(settings: &Settings, media_type: MediaType, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(CONTENT_TYPE, media_type.header_value());
    headers.insert(VARY, if settings.needs_credentials() { VARY_BY_CALLER } else { VARY_BY });
    if let Some(value) = &settings.cache_control {
        headers.insert(CACHE_CONTROL, value.clone());
    }
    response
}

/// Adds `Records-As-Of`, and `Age` and `Cache-Status` to a response from the replica. Whole seconds, rounded up: less would
/// promise too much.
pub fn set_staleness_headers(response: &mut Response, staleness: Option<Duration>, as_of: Option<ClusterTime>) {
    if let Some(value) = as_of.and_then(|time| HeaderValue::try_from(time.to_text()).ok()) {
        response.headers_mut().insert(RECORDS_AS_OF, value);
    }
    let Some(staleness) = staleness else { return };
    let seconds = staleness.as_secs() + u64::from(staleness.subsec_nanos() > 0);
    response.headers_mut().extend(HeaderValue::from_str(itoa::Buffer::new().format(seconds)).map(|value| (AGE, value)));
    response.headers_mut().insert(CACHE_STATUS, FROM_REPLICA);
}

/// `response` as a 304: without what describes its body, and otherwise with the headers of the 200, above all its tag
/// ([RFC 9110, section 15.4.5](https://www.rfc-editor.org/rfc/rfc9110#section-15.4.5)).
pub fn not_modified(mut response: Response) -> Response {
    for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH] {
        response.headers_mut().remove(name);
    }
    *response.body_mut() = Body::empty();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}
