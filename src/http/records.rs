//! `GET /api/v1/records/{id}`.

use super::accept::{self, Form};
use super::etag::{self, ETag};
use super::problem::Problem;
use super::timing::StoreTime;
use super::{App, age, answer, body, compress, path};
use crate::query::{Projection, Selection};
use crate::record::RecordId;
use crate::store::GetResult;
use crate::wire;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

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
    let answer = || {
        let _place = app.place()?;
        let asked = Asked::of(head)?;
        app.store.try_get(&asked.id).map(|found| asked.answer(app, &head.headers, found?)).transpose()
    };
    answer().transpose()
}

/// What is asked of a record.
struct Asked {
    id: RecordId,
    projection: Option<Projection>,
    form: Form,
}

impl Asked {
    fn of(head: &Parts) -> Result<Self, Problem> {
        Ok(Self {
            id: path::record_id(head.uri.path().strip_prefix(path::RECORD_PREFIX).unwrap_or_default())?,
            projection: Selection::parse_projection(&path::parameters(&head.uri)?)?,
            form: accept::choose(&head.headers, Form::RECORD)?,
        })
    }

    fn answer(self, app: &App, headers: &HeaderMap, found: GetResult) -> Result<Response, Problem> {
        let Some(mut document) = found.document else {
            etag::pass_absent(headers)?;
            // A 204 may be kept by a cache for as long as it sees fit (RFC 9110, section 15.3.5), and the record be put in
            // the meantime.
            let nothing = (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response();
            return Ok(age::told(nothing, found.staleness));
        };
        if let Some(projection) = &self.projection {
            document = projection.apply(&document).map_err(body::malformed)?;
        }
        let bson = document.bson();
        let json = body::encode(app.memory.reservation(), bson.len(), |json| wire::document(json, bson))?;
        // A tag names one record's state, and the next answer may be another record with this id.
        let tag = (!found.is_ambiguous).then(|| ETag::of(&json, &[]));
        let mut response = age::told(answer::records(app, self.form, json.into()), found.staleness);
        match tag {
            None => {
                etag::pass_without(headers)?;
                if etag::anything_is_known(headers) {
                    return Ok(answer::not_modified(response));
                }
                compress::compressed(&app.memory, headers, response)
            }
            Some(tag) => {
                response.headers_mut().insert(ETAG, tag.to_value());
                tag.asked_for(headers, compress::compressed(&app.memory, headers, response)?)
            }
        }
    }
}
