//! `/status`: a page for operators, drawn from `/readyz` and `/metrics`, and the settings that are in effect.
//!
//! On an address of its own alone: settings are not for clients of the records.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};

use super::{App, not_found};

/// The page loads its own files, asks its own server, and is shown in no frame. Its icon is empty, without a request.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

pub async fn status(State(app): State<App>, method: Method, uri: Uri) -> Response {
    let (kind, text) = match uri.path() {
        "/status" => ("text/html", Cow::Borrowed(include_str!("status/page.html"))),
        "/status/page.css" => ("text/css", Cow::Borrowed(include_str!("status/page.css"))),
        "/status/page.js" => ("text/javascript", Cow::Borrowed(include_str!("status/page.js"))),
        "/status/settings" => ("text/plain", Cow::Owned(app.settings.description.clone())),
        _ => return not_found::not_found_in_admin(method, uri).await,
    };
    let headers = [
        (CONTENT_TYPE, format!("{kind}; charset=utf-8")),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_SECURITY_POLICY, POLICY.to_owned()),
        (REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (headers, text).into_response()
}
