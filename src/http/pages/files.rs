//! The files of the pages, out of the binary: nothing is fetched from elsewhere, and nothing but these files may run.

use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use crate::http::App;
use crate::http::compress::compressed;
use crate::http::etag::ETag;
use crate::http::problem::{self, Problem};

/// No inline scripts or styles, no other host, no frame. Images may be part of a style sheet, as those of the docs are.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub async fn index(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    file(&app, &headers, "text/html; charset=utf-8", include_bytes!("index.html"))
}

/// What the page consists of besides.
pub async fn own(State(app): State<App>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    match uri.path() {
        "/pages/browse.js" => file(&app, &headers, "text/javascript; charset=utf-8", include_bytes!("browse.js")),
        "/pages/browse.css" => file(&app, &headers, "text/css; charset=utf-8", include_bytes!("browse.css")),
        _ => Err(problem::not_found().await),
    }
}

fn file(app: &App, headers: &HeaderMap, content_type: &'static str, bytes: &'static [u8]) -> Result<Response, Problem> {
    let (tag, response) = answer(HeaderValue::from_static(content_type), Bytes::from_static(bytes));
    tag.asked_for(headers, compressed(&app.memory, headers, response)?)
}

fn answer(content_type: HeaderValue, bytes: Bytes) -> (ETag, Response) {
    let tag = ETag::of(&bytes, &[]);
    let mut response = ([(CONTENT_TYPE, content_type)], bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(ETAG, tag.to_value());
    for (name, value) in [
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (VARY, "accept-encoding"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    (tag, response)
}

/// The page's files have relative names, so its own name ends with a slash.
pub async fn to_docs() -> Redirect {
    Redirect::permanent("/docs/")
}

/// Swagger UI, on our description.
pub async fn docs(uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    // `validatorUrl` none: the page would ask another host what it thinks of the description.
    static CONFIG: LazyLock<Arc<Config<'static>>> =
        LazyLock::new(|| Arc::new(Config::from("/openapi.json").validator_url("none").use_base_layout()));
    let name = uri.path().strip_prefix("/docs/").unwrap_or_default();
    let Ok(Some(found)) = utoipa_swagger_ui::serve(name, CONFIG.clone()) else {
        return Err(problem::not_found().await);
    };
    let content_type = HeaderValue::from_str(&found.content_type).unwrap_or(HeaderValue::from_static("text/plain"));
    let (tag, mut response) = answer(content_type, Bytes::from(found.bytes.into_owned()));
    if found.gzpipped {
        // Kept so in the binary. There is no browser that does not take it.
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    tag.asked_for(&headers, response)
}
