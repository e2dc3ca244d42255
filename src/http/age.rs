//! How an answer says that it is not the store's own, but a copy's.

use std::time::Duration;

use axum::http::header::AGE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// [RFC 9211](https://www.rfc-editor.org/rfc/rfc9211): what is sent is what the copy had (`hit`), not what a store that was
/// asked on the way said (`fwd`), whether one was asked or not.
const FROM_COPY: HeaderValue = HeaderValue::from_static("records; hit; detail=copy");

/// Adds what a client must know of an answer of this age: in whole seconds, rounded up, since less would be a promise.
pub fn told(mut response: Response, age: Option<Duration>) -> Response {
    if let Some(age) = age {
        let seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
        response.headers_mut().insert(AGE, seconds.into());
        response.headers_mut().insert(CACHE_STATUS, FROM_COPY);
    }
    response
}
