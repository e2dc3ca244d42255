//! `GET /api/v1/records` and `GET /api/v1/records/{id}`.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::array::JsonArray;
use super::finish::RequestId;
use super::problem::Problem;
use super::{App, age, path};
use crate::store::Query;

/// What an id stands behind.
pub const PREFIX: &str = "/api/v1/records/";

/// One object, or 204 when there is none.
pub async fn one(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    path::no_parameters(&uri)?;
    let id = path::record_id(uri.path().strip_prefix(PREFIX).unwrap_or_default())?;
    let found = app.store.get(&id).await?;
    let response = match found.record {
        Some(record) => json(record.json().clone().into()),
        // A 204 may be kept by a cache for as long as it sees fit (RFC 9110, section 15.3.5), and the record be put in
        // the meantime.
        None => (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response(),
    };
    Ok(age::told(response, found.age))
}

/// All records, as an array that is written while it is read.
pub async fn list(
    State(app): State<App>,
    Extension(request_id): Extension<RequestId>,
    uri: Uri,
) -> Result<Response, Problem> {
    path::no_parameters(&uri)?;
    let listing = app.store.list(Query::all());
    let known = listing.known_age();
    let body = Body::from_stream(JsonArray::begin(listing, request_id).await?);
    Ok(age::told(json(body), known.get().copied()))
}

fn json(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
