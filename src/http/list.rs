//! `GET /api/v1/records`: all of it as a stream, or a page.
//!
//! A page is gathered before it is sent, so that its head can say where the next one begins and what its bytes are;
//! [`store::PAGE_BYTES`] bounds it. A list without a limit is streamed. [`store::MemoryPool`] bounds the memory of both.

use std::fmt::Write;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{ETAG, LINK};
use axum::http::request::Parts;
use axum::response::Response;
use bson::Bson;
use bson::spec::ElementType;
use futures::TryStreamExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::accept::MediaType;
use super::body::{self, RecordBody, RecordEncoder};
use super::conditional::{Current, Outcome, entity_tag, evaluate_preconditions};
use super::count::{count, preferred, set_count_headers};
use super::freshness::parse_freshness;
use super::problem::Problem;
use super::request_id::RequestId;
use super::response::{not_modified, record_response, set_staleness_headers};
use super::settings::Settings;
use super::timing::StoreTime;
use super::{App, compress, path};
use crate::query::{After, Cursor, Position, Selection};
use crate::record::{Key, RecordId, rank, text};
use crate::store::{self, ListRequest};

/// A `Link` that the server would take again as a request, whose head may have 16 KiB.
const LINK_MAX: usize = 8 * 1024;

/// The characters that a query needs to encode. The others keep a link readable.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':').remove(b',');

pub async fn list(
    State(app): State<App>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    let _permit = app.acquire_permit()?;
    let (parts, _) = request.into_parts();
    let parameters = path::parameters(&parts.uri)?;
    let selection = Selection::parse(&parameters)?;
    app.settings.exposure.check(&selection)?;
    let limit = limit(&app.settings, &selection)?;
    let media_type = MediaType::negotiate(&parts.headers, MediaType::LIST)?;
    if matches!(media_type, MediaType::Csv { .. }) && selection.columns.is_empty() {
        let detail = "A list as CSV needs `fields`: its columns, in their order, as in `fields=_id,name,address.city`.";
        return Err(Problem::bad("fields", detail));
    }
    match limit {
        Some(limit) => page(&app, &parts, &parameters, selection, media_type, limit).await,
        None => stream(&app, &parts, selection, media_type, request_id).await,
    }
}

/// Returns the number of records to send, or `None` for all.
fn limit(settings: &Settings, selection: &Selection) -> Result<Option<usize>, Problem> {
    let largest = settings.largest_limit();
    match selection.limit {
        Some(limit) if limit > largest => {
            let whole =
                if settings.implied_limit().is_none() { " Without a limit the whole list is streamed." } else { "" };
            let detail =
                format!("`limit` may be {largest} at most: follow the `Link` with rel=\"next\" for more.{whole}");
            Err(Problem::bad("limit", detail))
        }
        None if settings.implied_limit().is_none() && !selection.sort.is_empty() => {
            let detail = format!("A sorted list needs a `limit`, of {largest} at most: it is sorted page by page.");
            Err(Problem::bad("limit", detail))
        }
        limit => Ok(limit.or(settings.implied_limit())),
    }
}

async fn page(
    app: &App,
    parts: &Parts,
    parameters: &[(String, String)],
    mut selection: Selection,
    media_type: MediaType,
    limit: usize,
) -> Result<Response, Problem> {
    let mut encoder = RecordEncoder::new(media_type, std::mem::take(&mut selection.columns));
    let request = request(app, parts, selection).await?;
    let mut reservation = app.memory.reservation();
    let page = store::page(&*app.store, &request, limit, &mut reservation);
    let page = async { tokio::join!(page, count(app, preferred(&parts.headers, &request))) };
    let (page, count) = StoreTime::of(&parts.extensions, page).await;
    let page = page?;
    let next = page.next.map(|next| link(&app.settings, parameters, &next.encode(&request.sort))).transpose()?;
    let bytes = page.documents.iter().map(|document| document.bson().len()).sum();
    let json = body::encode(reservation, bytes, |json| {
        encoder.begin(json);
        // Each document goes once it is encoded.
        page.documents.into_iter().try_for_each(|document| encoder.push(json, &document))?;
        encoder.finish(json);
        Ok(())
    })?;
    let tag = entity_tag(&json, next.as_ref().map(HeaderValue::as_bytes).unwrap_or_default());
    let outcome = evaluate_preconditions(&parts.headers, Current::Tagged(&tag))?;
    let mut response = record_response(&app.settings, media_type, json);
    response.headers_mut().insert(ETAG, tag);
    response.headers_mut().extend(next.map(|next| (LINK, next)));
    set_count_headers(&mut response, count);
    let staleness = page.staleness.max(count.and_then(|count| count.staleness));
    set_staleness_headers(&mut response, staleness, page.as_of);
    let response = compress::compressed(&app.memory, &parts.headers, response)?;
    Ok(if outcome == Outcome::NotModified { not_modified(response) } else { response })
}

async fn stream(
    app: &App,
    parts: &Parts,
    mut selection: Selection,
    media_type: MediaType,
    request_id: RequestId,
) -> Result<Response, Problem> {
    let encoder = RecordEncoder::new(media_type, std::mem::take(&mut selection.columns));
    let outcome = evaluate_preconditions(&parts.headers, Current::Untagged)?;
    let request = request(app, parts, selection).await?;
    let permit = app.acquire_stream_permit()?;
    let preferred = preferred(&parts.headers, &request);
    let opened = async {
        let list = app.store.list(request).await?;
        let body = RecordBody::begin(list.rows, encoder, app.memory.clone(), permit, request_id).await?;
        Ok::<_, store::Error>((body, list.staleness, list.as_of))
    };
    let opened = async { tokio::join!(opened, count(app, preferred)) };
    let (opened, count) = StoreTime::of(&parts.extensions, opened).await;
    let (body, staleness, as_of) = opened?;
    let body = if outcome == Outcome::NotModified { Body::empty() } else { Body::from_stream(body) };
    let mut response = record_response(&app.settings, media_type, body);
    set_count_headers(&mut response, count);
    set_staleness_headers(&mut response, staleness.max(count.and_then(|count| count.staleness)), as_of);
    match outcome {
        Outcome::NotModified => Ok(not_modified(response)),
        Outcome::Perform => compress::compressed(&app.memory, &parts.headers, response),
    }
}

async fn request(app: &App, parts: &Parts, selection: Selection) -> Result<ListRequest, Problem> {
    let freshness = parse_freshness(&app.settings, &parts.headers)?.unwrap_or_default();
    let Selection { filter, sort, projection, after, .. } = selection;
    let after = match after {
        Some(After::Cursor(cursor)) => Some(cursor),
        Some(After::Id(id)) => {
            let key = StoreTime::of(&parts.extensions, key_of(app, &id)).await?;
            Some(Cursor { position: Position::of_key(&key), no_arrays: false })
        }
        None => None,
    };
    Ok(ListRequest { filter, sort, after, projection, limit: None, freshness })
}

/// The key of the record with this id, the least where several are shown by this text; of one that is gone, the key that it had,
/// as far as its text tells: the least that the text denotes and that is of a type which the store's ids have. A list after it
/// leaves nothing out, and repeats nothing where all ids are of one type.
async fn key_of(app: &App, id: &RecordId) -> store::Result<Key> {
    for (key, before) in lesser_keys(id) {
        let after = before.map(|before| Cursor { position: Position::of_key(&before), no_arrays: false });
        let mut first = app.store.list(ListRequest { after, limit: Some(1), ..ListRequest::default() }).await?.rows;
        if first.try_next().await?.is_some_and(|row| *row.document.key() == key) {
            return Ok(key);
        }
    }
    if let Some(document) = app.store.get(id).await?.document {
        return Ok(document.key().clone());
    }
    let mut keys = id.keys();
    keys.sort_unstable();
    let last = keys.pop().unwrap_or_default();
    for key in keys {
        let after = Some(Cursor { position: Position::of_key(&before_type_of(&key)), no_arrays: false });
        let mut first = app.store.list(ListRequest { after, limit: Some(1), ..ListRequest::default() }).await?.rows;
        let first = first.try_next().await?;
        if first.is_some_and(|row| row.document.key().rank() == key.rank()) {
            return Ok(key);
        }
    }
    Ok(last)
}

/// The keys that a record shows by this text, and that come before the one that a lookup finds, in their order; each with a key
/// before it and, but for unlikely ids, after all others. `None`: there is no other before it.
fn lesser_keys(id: &RecordId) -> Vec<(Key, Option<Key>)> {
    let double = |value| text::key(&Bson::Double(value));
    match id.as_str() {
        "MinKey" => vec![(Key::min(), None)],
        "null" => vec![
            (Key::null(), Some(Key::min())),
            (double(f64::NAN), Some(Key::null())),
            (double(f64::NEG_INFINITY), Some(double(f64::NAN))),
            (double(f64::INFINITY), Some(double(f64::MAX))),
        ],
        // The string comes before the others that the text denotes, except for numbers.
        shown if id.keys().iter().any(|key| *key > Key::string(shown)) => {
            let mut before = shown.to_owned();
            if let Some(last) = before.pop().and_then(|last| ('\0'..last).next_back()) {
                before.extend([last, char::MAX]);
            }
            vec![(Key::string(shown), Some(Key::string(&before)))]
        }
        _ => Vec::new(),
    }
}

/// A key before nearly all others of the same type.
fn before_type_of(key: &Key) -> Key {
    if key.rank() == rank(ElementType::String) { Key::string("") } else { text::key(&Bson::Double(f64::NEG_INFINITY)) }
}

/// `<…>; rel="next"` ([RFC 8288](https://www.rfc-editor.org/rfc/rfc8288)): the same request, from `cursor` on.
///
/// Without a public URL the reference is only a query, which resolves to the URL that the client has asked, under whatever
/// prefix a proxy serves it.
fn link(settings: &Settings, parameters: &[(String, String)], cursor: &str) -> Result<HeaderValue, Problem> {
    let mut text = match &settings.public_url {
        Some(url) => format!("<{url}{}?", path::LIST),
        None => "<?".to_owned(),
    };
    for (name, value) in parameters.iter().filter(|(name, _)| name != "after" && name != "after_id") {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}={}&", utf8_percent_encode(name, ENCODED), utf8_percent_encode(value, ENCODED));
    }
    let _ = write!(text, "after={cursor}>; rel=\"next\"");
    HeaderValue::try_from(text).ok().filter(|link| link.len() <= LINK_MAX).ok_or_else(|| {
        let detail = match cursor.len() > LINK_MAX / 2 {
            true => {
                "The link to the next page would exceed 8 KiB, because of the last record's `_id` or the values that it is sorted \
                 by. Leave `limit` out, continue with `after_id`, or sort by another field."
            }
            false => {
                "The link to the next page, which repeats the parameters, would exceed 8 KiB. Name fewer or shorter values and \
                 fields."
            }
        };
        Problem::bad("limit", detail)
    })
}
