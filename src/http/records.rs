//! `GET /api/v1/records/{id}`.

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::accept::{self, Form};
use super::etag::{self, ETag};
use super::problem::Problem;
use super::timing::StoreTime;
use super::{App, age, answer, compress, path};
use crate::query::{Fields, Selection};
use crate::record::RecordId;
use crate::store::{Found, Reply};

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
    let asked = Asked::of(&head)?;
    let found = StoreTime::of(&head.extensions, app.store.get(&asked.id)).await?;
    asked.answer(&app, &head.headers, found)
}

/// As [`one`], if the store has what it takes at hand; `None` if it must be waited for.
pub fn at_once(app: &App, head: &Parts) -> Option<Result<Response, Problem>> {
    let found = |id: &RecordId| match app.store.get(id) {
        Reply::Ready(found) => found,
        Reply::Pending(_) => None,
    };
    let answer = || {
        let _place = app.place()?;
        let asked = Asked::of(head)?;
        found(&asked.id).map(|found| asked.answer(app, &head.headers, found?)).transpose()
    };
    answer().transpose()
}

/// What is asked of a record.
struct Asked {
    id: RecordId,
    fields: Option<Fields>,
    form: Form,
}

impl Asked {
    fn of(head: &Parts) -> Result<Self, Problem> {
        Ok(Self {
            id: path::record_id(head.uri.path().strip_prefix(PREFIX).unwrap_or_default())?,
            fields: Selection::fields_alone(&path::parameters(&head.uri)?)?,
            form: accept::choose(&head.headers, Form::RECORD)?,
        })
    }

    fn answer(self, app: &App, headers: &HeaderMap, found: Found) -> Result<Response, Problem> {
        let Some(record) = found.record else {
            etag::pass_absent(headers)?;
            // A 204 may be kept by a cache for as long as it sees fit (RFC 9110, section 15.3.5), and the record be put in
            // the meantime.
            let nothing = (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response();
            return Ok(age::told(nothing, found.age));
        };
        let body = match self.fields {
            None => record.json().clone(),
            Some(fields) => Bytes::from(fields.kept(record.json())),
        };
        let tag = ETag::of(&body, &[]);
        let mut response = answer::records(app, self.form, body.into());
        response.headers_mut().insert(ETAG, tag.to_value());
        let response = compress::compressed(headers, age::told(response, found.age))?;
        tag.asked_for(headers, response)
    }
}
