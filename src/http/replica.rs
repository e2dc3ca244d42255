//! `/replica`: the replica, for another instance or a file.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::App;
use super::problem::Problem;
use crate::store::fallback::SCAN_HEADER;

pub async fn replica(State(app): State<App>) -> Response {
    let Some(export) = app.store.replica() else {
        return Problem::new(StatusCode::NOT_FOUND, "This instance has no fallback replica.").into_response();
    };
    let mut response = match export.body {
        Ok(chunks) => {
            let kind = (CONTENT_TYPE, HeaderValue::from_static("application/bson"));
            let no_store = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
            ([kind, no_store], Body::from_stream(chunks)).into_response()
        }
        Err(error) => Problem::no_replica(&error).into_response(),
    };
    if let Some(scan) = export.scan.and_then(|scan| HeaderValue::try_from(scan).ok()) {
        response.headers_mut().insert(HeaderName::from_static(SCAN_HEADER), scan);
    }
    response
}
