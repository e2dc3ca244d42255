//! What clients are told when something is wrong: `application/problem+json` (RFC 9457), a short text and a request id.
//! The cause stays here, and is logged once.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::{query, store};

/// When to try again, in seconds. A store that is away is looked for anew at every request, so there is no better guess
/// than soon.
const RETRY_AFTER_SECONDS: u32 = 1;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// A failure on its way to the client. As a response it has no body yet: [`super::finish`] writes it, because only there
/// the request's id is known, and logs the cause.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    /// Which part of the request is wrong.
    parameter: Option<Cow<'static, str>>,
    cause: Option<Arc<str>>,
    /// Whether it is as it should be, for the operator.
    intended: bool,
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
    fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), parameter: None, cause: None, intended: false }
    }

    /// 400. `detail` says what would be right.
    pub fn bad(parameter: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { parameter: Some(parameter.into()), ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// 406. `header` is what refuses, `detail` says what there is.
    pub fn not_acceptable(header: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { parameter: Some(header.into()), ..Self::new(StatusCode::NOT_ACCEPTABLE, detail) }
    }

    /// 412. What the client wants by `If-Match` is not what is here.
    pub fn other_than_asked() -> Self {
        let detail = "What is here has another tag than `If-Match` names: leave it out to have what is here.";
        Self { parameter: Some("If-Match".into()), ..Self::new(StatusCode::PRECONDITION_FAILED, detail) }
    }

    /// 503, because the request's deadline has passed.
    pub fn late() -> Self {
        let mut problem = Self::unavailable("The records could not be read in time. Try again.");
        problem.cause = Some("the request's deadline passed".into());
        problem
    }

    /// 503.
    fn unavailable(detail: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// 503, because enough others are being answered.
    pub fn overloaded() -> Self {
        let mut problem = Self::unavailable("The server has as many requests as it takes. Try again.");
        problem.cause = Some("--max-requests reached".into());
        problem
    }

    /// 503, because enough other lists are being streamed.
    pub fn too_many_streams() -> Self {
        let detail = "The server streams as many lists as it can. Try again, or ask for pages by `limit`.";
        let mut problem = Self::unavailable(detail);
        problem.cause = Some("--max-streams reached".into());
        problem
    }

    /// 503, because the server was told to stop, and whoever asks whether it is ready is to go elsewhere.
    pub fn stopping() -> Self {
        let mut problem = Self::unavailable("The server is about to stop.");
        problem.cause = Some("the server is stopping".into());
        problem.intended = true;
        problem
    }

    /// What the log is told and the client is not.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Whether it is what the operator wanted, and no failure of the server.
    pub fn is_intended(&self) -> bool {
        self.intended
    }

    /// The body of the answer.
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
        let mut problem = match error.kind() {
            store::Kind::Unavailable => Self::unavailable("The records cannot be read at the moment. Try again."),
            // A client's input was checked before the store saw it; any other that the store will not take is our mistake.
            store::Kind::Invalid | store::Kind::Broken => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The server failed. The operator can find the cause by the request id.",
            ),
        };
        problem.cause = Some(error.report().to_string().into());
        problem
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
            headers.insert(ALLOW, METHODS);
        }
        response.extensions_mut().insert(self);
        response
    }
}

const NOTHING: &str = "There is nothing here. The records are at /api/v1/records.";

pub async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, NOTHING)
}

/// Where health and metrics are too.
pub async fn not_found_with_operations(uri: Uri) -> Problem {
    match uri.path().strip_suffix('/') {
        Some(path @ ("/livez" | "/readyz")) => {
            let detail = format!("There is nothing here. Leave the last slash out: {path}");
            Problem::new(StatusCode::NOT_FOUND, detail)
        }
        _ => not_found().await,
    }
}

/// Where health and metrics are, and no records.
pub async fn not_found_among_operations() -> Problem {
    let detail = "There is nothing here. Health and metrics are at /livez, /readyz and /metrics.";
    Problem::new(StatusCode::NOT_FOUND, detail)
}

pub async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "What is here can be read, by GET or HEAD, and nothing else.")
}

/// The panic's own text is in the log already, by the panic hook.
pub fn panicked(_: Box<dyn Any + Send>) -> Response {
    let mut problem = Problem::from(store::Error::broken("a handler panicked"));
    problem.status = StatusCode::INTERNAL_SERVER_ERROR;
    problem.into_response()
}
