//! `GET /api/v1/records`: all of it as a stream, or a page.
//!
//! A page is gathered before it is sent, so that its head can say where the next one begins and what its bytes are; what
//! bounds it is [`store::PAGE_BYTES`], and all of them together [`store::Budget`]. Without a limit nothing is gathered, and nothing is said beforehand.

use std::fmt::Write;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::LINK;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use futures::TryStreamExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::accept::{self, Form};
use super::array::Records;
use super::etag::{self, ETag};
use super::finish::RequestId;
use super::problem::Problem;
use super::settings::Settings;
use super::timing::StoreTime;
use super::{App, age, answer, path};
use crate::query::{After, Cursor, Selection};
use crate::record::{Key, RecordId};
use crate::store::{self, Query, Share};

/// A `Link` that the server would take again as a request, whose head may have 16 KiB.
const LINK_MAX: usize = 8 * 1024;

/// What stands in a query as it is: enough that a link can be read.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':').remove(b',');

pub async fn list(
    State(app): State<App>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    let _place = app.place()?;
    let (parts, _) = request.into_parts();
    let parameters = path::parameters(&parts.uri)?;
    let selection = Selection::parse(&parameters)?;
    let limit = limit(&app.settings, &selection)?;
    let form = accept::choose(&parts.headers, Form::LIST)?;
    match limit {
        Some(limit) => page(&app, &parts, &parameters, selection, form, limit).await,
        None => stream(&app, &parts, selection, form, request_id).await,
    }
}

/// How many records to send, if not all.
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
        None if settings.implied_limit().is_none() && selection.sort.is_some() => {
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
    selection: Selection,
    form: Form,
    limit: usize,
) -> Result<Response, Problem> {
    let sort = selection.sort.as_ref();
    let after = match selection.after {
        Some(After::Cursor(cursor)) => Some(cursor),
        Some(After::Id(id)) => Some(Cursor { key: key_of(app, parts, &id).await?, value: None }),
        None => None,
    };
    let query = Query { filters: selection.filters, fields: selection.fields, ..Query::all() };
    let mut share = app.pages.share();
    let page = store::page(&*app.store, query, sort, after, limit, &mut share);
    let page = StoreTime::of(&parts.extensions, page).await?;
    StoreTime::leave_out(&parts.extensions, share.waited());
    let next = page.next.map(|next| link(parts.uri.path(), parameters, &next.encode(sort))).transpose()?;
    let mut body = Records::writer(form, None);
    body.reserve(page.records.iter().map(|record| record.json().len() + 1).sum());
    // One goes as the other grows.
    page.records.into_iter().for_each(|record| body.push(&record));
    let body = body.end();
    let tag = ETag::of(&body, next.as_ref().map(HeaderValue::as_bytes).unwrap_or_default());
    share.keep(body.len());
    let body = Bytes::from_owner(Sent { body, _share: share });
    let mut response = answer::records(app, form, body.into());
    response.headers_mut().insert(axum::http::header::ETAG, tag.to_value());
    if let Some(next) = next {
        response.headers_mut().insert(LINK, next);
    }
    let response = super::compress::compressed(&parts.headers, age::told(response, page.age))?;
    tag.asked_for(&parts.headers, response)
}

/// A page until it is sent, or given up.
struct Sent {
    body: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

async fn stream(
    app: &App,
    parts: &Parts,
    selection: Selection,
    form: Form,
    request_id: RequestId,
) -> Result<Response, Problem> {
    etag::pass_without(&parts.headers)?;
    let after = match selection.after {
        Some(After::Cursor(cursor)) => Some(cursor.key),
        Some(After::Id(id)) => Some(key_of(app, parts, &id).await?),
        None => None,
    };
    let query = Query { after, filters: selection.filters, fields: selection.fields.clone(), ..Query::all() };
    let records = store::selected(&*app.store, query);
    let known = records.known_age();
    let body = Records::begin(records, Records::writer(form, selection.fields), request_id, app.metrics.stream());
    let body = StoreTime::of(&parts.extensions, body).await?;
    let age = known.get().copied();
    if etag::anything_is_known(&parts.headers) {
        return Ok(age::told(answer::not_modified(answer::records(app, form, Body::empty())), age));
    }
    let response = age::told(answer::records(app, form, Body::from_stream(body)), age);
    super::compress::compressed(&parts.headers, response)
}

/// The key of the record with this id; of one that is gone, what it was, as far as its text tells. Where that may have been
/// one of two keys, a list behind the first of them leaves out nothing, and one behind the second repeats nothing: the second
/// it is only where the store has nothing of the first's type, which a collection of ObjectIds does not.
async fn key_of(app: &App, parts: &Parts, id: &RecordId) -> Result<Key, Problem> {
    if let Some(record) = StoreTime::of(&parts.extensions, app.store.get(id)).await?.record {
        return Ok(record.key().clone());
    }
    let (first, last) = (id.keys().min(), id.keys().max());
    let (first, last) = first.zip(last).ok_or_else(|| Problem::bad("after_id", "`after_id` is the id of a record."))?;
    if first == last || !matches!(first, Key::String(_)) {
        return Ok(first);
    }
    let strings = Query { after: Some(Key::String("".into())), limit: Some(1), ..Query::all() };
    let strings = async { app.store.list(strings).try_next().await };
    let string = StoreTime::of(&parts.extensions, strings).await?;
    let has_strings = string.is_some_and(|record| record.key().rank() == first.rank());
    Ok(if has_strings { first } else { last })
}

/// `<…>; rel="next"` ([RFC 8288](https://www.rfc-editor.org/rfc/rfc8288)): the same request, from `cursor` on.
fn link(path: &str, parameters: &[(String, String)], cursor: &str) -> Result<HeaderValue, Problem> {
    let mut text = format!("<{path}?");
    for (name, value) in parameters.iter().filter(|(name, _)| name != "after" && name != "after_id") {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}={}&", utf8_percent_encode(name, PLAIN), utf8_percent_encode(value, PLAIN));
    }
    let _ = write!(text, "after={cursor}>; rel=\"next\"");
    HeaderValue::try_from(text).ok().filter(|link| link.len() <= LINK_MAX).ok_or_else(|| {
        let detail = "The link to the next page would be too long: the `_id` of the last record is, or the filters are. Ask \
                      for another `limit`, or for less.";
        Problem::bad("limit", detail)
    })
}
