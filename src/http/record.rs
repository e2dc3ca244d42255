//! `GET /api/v1/records/{id}`.

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::accept::MediaType;
use super::conditional::{Current, Outcome, entity_tag, evaluate_preconditions};
use super::freshness::parse_freshness;
use super::problem::Problem;
use super::response::{not_modified, record_response, set_staleness_headers};
use super::timing::StoreTime;
use super::{App, AppState, body, compress, path};
use crate::query::Selection;
use crate::record::RecordId;
use crate::store::{self, Freshness, GetResult};
use crate::wire;

/// Responds with the object, or with 204 if there is no such record.
// The whole request rather than its parts by extractors, which would copy them.
pub async fn record(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let id = path::record_id(head.uri.path())?;
    let projection = Selection::parse_projection(&path::parameters(&head.uri)?)?;
    if let Some(projection) = &projection {
        app.settings.exposure.check_projection(projection)?;
    }
    let media_type = MediaType::negotiate(&head.headers, MediaType::RECORD)?;
    let freshness = parse_freshness(&app.settings, &head.headers)?;

    let _permit = app.acquire_permit()?;
    let found = StoreTime::of(&head.extensions, app.get(&id, freshness.as_ref())).await?;
    let Some(mut document) = found.document else { return absent(&head.headers, &found) };
    if let Some(projection) = &projection {
        document = projection.apply(&document).map_err(store::Error::from)?;
    }

    let bson = document.bson();
    let json = body::encode(app.memory.reservation(), bson.len(), |json| wire::document(json, bson))?;
    // A tag names one state of one record, and the next response may have another record with this id.
    let tag = (!found.is_ambiguous).then(|| entity_tag(&json, &[]));
    let outcome = evaluate_preconditions(&head.headers, tag.as_ref().map_or(Current::Untagged, Current::Tagged))?;

    let mut response = record_response(&app.settings, media_type, json);
    response.headers_mut().extend(tag.map(|tag| (ETAG, tag)));
    set_staleness_headers(&mut response, found.staleness, found.as_of);
    let response = compress::compressed(&app.memory, &head.headers, response)?;
    Ok(if outcome == Outcome::NotModified { not_modified(response) } else { response })
}

fn absent(headers: &HeaderMap, found: &GetResult) -> Result<Response, Problem> {
    evaluate_preconditions(headers, Current::Absent)?;
    // A cache may keep a 204 for as long as it likes (RFC 9110, section 15.3.5), and the record may be added meanwhile.
    let mut response = (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response();
    set_staleness_headers(&mut response, found.staleness, found.as_of);
    Ok(response)
}

impl AppState {
    /// A lookup, without a boxed future where the store can answer at once.
    pub async fn get(&self, id: &RecordId, freshness: Option<&Freshness>) -> store::Result<GetResult> {
        if let Some(freshness) = freshness {
            return self.store.get_fresh(id, freshness).await;
        }
        match self.store.try_get(id) {
            Some(found) => found,
            None => self.store.get(id).await,
        }
    }
}
