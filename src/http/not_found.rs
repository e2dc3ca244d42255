//! Responses to paths and methods that the service does not have.

use axum::http::header::ALLOW;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::path::{LIVEZ, METRICS, READYZ, REPLICA, STATUS};
use super::problem::{ALLOWED_METHODS, Problem};

pub async fn not_found(method: Method, uri: Uri) -> Response {
    // `OPTIONS *` asks what the server can do in general (RFC 9110, section 9.3.7).
    if method == Method::OPTIONS && uri.path() == "*" {
        return [(ALLOW, ALLOWED_METHODS)].into_response();
    }
    let detail = "No such path. The records are at /api/v1/records.";
    Problem::new(StatusCode::NOT_FOUND, detail).into_response()
}

/// The same, for a listener that has health and metrics too.
pub async fn not_found_with_admin(method: Method, uri: Uri) -> Response {
    match uri.path().strip_suffix('/') {
        Some(path @ (LIVEZ | READYZ | METRICS)) => without_slash(path),
        _ => not_found(method, uri).await,
    }
}

/// The same, for a listener that has health and metrics alone.
pub async fn not_found_in_admin(method: Method, uri: Uri) -> Response {
    if let Some(path @ (LIVEZ | READYZ | METRICS | REPLICA | STATUS)) = uri.path().strip_suffix('/') {
        return without_slash(path);
    }
    let response = not_found(method, uri).await;
    if response.status() != StatusCode::NOT_FOUND {
        return response;
    }
    let detail = "No such path. Health and metrics are at /livez, /readyz and /metrics, a page of both is at /status, and the replica at /replica.";
    Problem::new(StatusCode::NOT_FOUND, detail).into_response()
}

fn without_slash(path: &str) -> Response {
    let detail = format!("No such path. Leave the last slash out: {path}");
    Problem::new(StatusCode::NOT_FOUND, detail).into_response()
}

pub async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "This service only reads: use GET or HEAD.")
}
