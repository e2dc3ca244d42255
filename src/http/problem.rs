//! Failures as clients see them: `application/problem+json` (RFC 9457) with a short text and a request id. The cause is logged
//! once, and not sent.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelValue;
use serde::Serialize;

use crate::{query, store};

/// When to try again, in seconds. Every request tries to reach a store that is away, so there is no better guess than soon.
const RETRY_AFTER_SECONDS: u32 = 1;

pub const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// A failure on its way to the client. As a response it has no body yet: [`super::middleware`] writes it, because only there the
/// request's id is known, and logs the cause.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    /// The part of the request that is wrong.
    parameter: Option<Cow<'static, str>>,
    cause: Option<Arc<str>>,
    rejection: Option<Rejection>,
    /// The operator or the client wanted this, so it is no failure of the server.
    intended: bool,
}

/// The resource that was used up when a request was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)]
pub enum Rejection {
    max_requests,
    max_streams,
    response_memory,
    rate_limit,
}

#[derive(Serialize)]
struct Body9457<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a str>,
    request_id: &'a str,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), parameter: None, cause: None, rejection: None, intended: false }
    }

    /// 400. `detail` says what would be right.
    pub fn bad(parameter: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { parameter: Some(parameter.into()), ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// 406. `header` is what refuses, `detail` says what there is.
    pub fn not_acceptable(header: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { parameter: Some(header.into()), ..Self::new(StatusCode::NOT_ACCEPTABLE, detail) }
    }

    /// 412, for an `If-Match` that is not met.
    pub fn precondition_failed() -> Self {
        let detail =
            "The record's current ETag does not match `If-Match`. Leave `If-Match` out to read the current state.";
        Self { parameter: Some("If-Match".into()), ..Self::new(StatusCode::PRECONDITION_FAILED, detail) }
    }

    /// 500, for a panic.
    pub fn panicked() -> Self {
        store::Error::broken("a handler panicked").into()
    }

    /// 504, for an `only-if-cached` that the replica cannot meet ([RFC 9111, section
    /// 5.2.1.7](https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.7)).
    fn not_cached(cause: impl Into<Arc<str>>) -> Self {
        let detail = "The replica has no response that the request accepts. Leave `only-if-cached` out to ask MongoDB.";
        let problem = Self::new(StatusCode::GATEWAY_TIMEOUT, detail);
        Self { parameter: Some("Cache-Control".into()), cause: Some(cause.into()), intended: true, ..problem }
    }

    fn unavailable(detail: &'static str, cause: impl Into<Arc<str>>) -> Self {
        Self { cause: Some(cause.into()), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// 503, at the request's deadline.
    pub fn timeout() -> Self {
        Self::unavailable("The records could not be read in time. Try again.", "the request's deadline passed")
    }

    /// 503, because too many other requests are being answered.
    pub fn too_many_requests() -> Self {
        let detail = "The server is at its limit of concurrent requests. Try again.";
        let problem = Self::unavailable(detail, "--max-requests reached");
        Self { rejection: Some(Rejection::max_requests), ..problem }
    }

    /// 503, because too many other lists are being streamed.
    pub fn too_many_streams() -> Self {
        let detail = "The server is at its limit of streamed lists. Try again, or read pages by `limit`.";
        let problem = Self::unavailable(detail, "--max-streams reached");
        Self { rejection: Some(Rejection::max_streams), ..problem }
    }

    /// 429, for a client that may send its next request after `wait` seconds.
    pub fn rate_limited(wait: u64) -> Self {
        let detail = format!("This client has sent more requests than it may. Try again after {wait} s.");
        Self { rejection: Some(Rejection::rate_limit), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// 503, because tokens cannot be verified yet.
    pub fn no_token_keys() -> Self {
        let detail = "Tokens cannot be verified at the moment. Try again.";
        Self { intended: true, ..Self::unavailable(detail, "the issuer's keys could not be fetched yet") }
    }

    /// 503 of `/replica`, which siblings ask for until there is one.
    pub fn no_replica(error: &store::Error) -> Self {
        let detail = "This instance has no complete fallback replica, or sends it to many others already. Try again.";
        Self { intended: true, ..Self::unavailable(detail, error.report().to_string()) }
    }

    /// 503 of `/readyz`, because the server is about to stop and load balancers should send clients elsewhere.
    pub fn draining() -> Self {
        Self { intended: true, ..Self::unavailable("The server is about to stop.", "the server is stopping") }
    }

    /// The cause, for the log alone.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    pub fn rejection(&self) -> Option<Rejection> {
        self.rejection
    }

    pub fn is_intended(&self) -> bool {
        self.intended
    }

    /// The body of the response.
    pub fn to_json(&self, request_id: &str) -> Vec<u8> {
        let body = Body9457 {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            parameter: self.parameter.as_deref(),
            request_id,
        };
        // Strings and a number: nothing in here can fail to serialise.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl From<query::QueryError> for Problem {
    fn from(error: query::QueryError) -> Self {
        Self::bad(error.parameter, error.detail)
    }
}

/// The one table from a store's failures to answers.
impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        if let Some((parameter, detail)) = error.rejection() {
            return Self::bad(parameter, detail.to_owned());
        }
        let cause = error.report().to_string();
        match error.refusal() {
            None => {}
            Some(store::Refusal::OutOfMemory) => {
                let detail =
                    "The server has no memory left for this response. Try again, or ask for fewer records by `limit`.";
                return Self { rejection: Some(Rejection::response_memory), ..Self::unavailable(detail, cause) };
            }
            Some(store::Refusal::TooStale) => {
                let detail =
                    "The records cannot be read as fresh as the request asks. Try again, or accept an older response.";
                return Self::unavailable(detail, cause);
            }
            Some(store::Refusal::NotInReplica) => return Self::not_cached(cause),
        }
        match error.kind() {
            store::Kind::Unavailable => Self::unavailable(
                error.reason().unwrap_or("The records cannot be read at the moment. Try again."),
                cause,
            ),
            // A client's input was checked before the store saw it; input that the store still refuses is our mistake.
            store::Kind::Invalid | store::Kind::Broken => {
                let detail = "The server failed. The operator can find the cause by the request id.";
                Self { cause: Some(cause.into()), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail) }
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, ALLOWED_METHODS);
        }
        response.extensions_mut().insert(self);
        response
    }
}
