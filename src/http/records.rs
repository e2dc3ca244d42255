//! `GET /api/v1/records/{id}`.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::accept::{self, Form};
use super::etag::ETag;
use super::problem::Problem;
use super::timing::StoreTime;
use super::{App, age, answer, compress, path};
use crate::query::Selection;

/// What an id stands behind.
pub const PREFIX: &str = "/api/v1/records/";

/// [`one`] by way of the router.
// The whole request, and not its parts by extractors of their own, which would copy them.
pub async fn routed(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    one(app, request.into_parts().0).await
}

/// One object, or 204 when there is none.
pub async fn one(app: App, head: Parts) -> Result<Response, Problem> {
    let _place = app.place()?;
    let Parts { uri, headers, extensions, .. } = &head;
    let id = path::record_id(uri.path().strip_prefix(PREFIX).unwrap_or_default())?;
    let fields = Selection::fields_alone(&path::parameters(uri)?)?;
    let form = accept::choose(headers, Form::RECORD)?;
    let found = StoreTime::of(extensions, app.store.get(&id)).await?;
    let Some(record) = found.record else {
        // A 204 may be kept by a cache for as long as it sees fit (RFC 9110, section 15.3.5), and the record be put in
        // the meantime.
        let nothing = (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response();
        return Ok(age::told(nothing, found.age));
    };
    let body = match fields {
        None => record.json().clone(),
        Some(fields) => Bytes::from(fields.kept(record.json())),
    };
    let tag = ETag::of(&body, &[]);
    let mut response = match tag.is_known(headers) {
        true => answer::not_modified(&app),
        false => answer::records(&app, form, body.into()),
    };
    response.headers_mut().insert(ETAG, tag.to_value());
    compress::compressed(headers, age::told(response, found.age)).await
}
