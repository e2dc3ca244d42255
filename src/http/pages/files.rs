//! The files of the pages, compiled in. The policy lets a browser load nothing from elsewhere.

use std::io::Read;
use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LOCATION, REFERRER_POLICY, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::read::GzDecoder;
use utoipa_swagger_ui::Config;

use crate::http::compress::{Coding, compressed};
use crate::http::conditional::{Current, Outcome, entity_tag, evaluate_preconditions};
use crate::http::problem::Problem;
use crate::http::response::not_modified;
use crate::http::{App, not_found};
use crate::store;

/// No inline scripts or styles, no other host, no frame. Images may be part of a style sheet, as those of the docs are.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The records on a page unless the visitor chooses another number, and the most that can be chosen.
const PAGE: usize = 50;
const LARGEST_PAGE: usize = 1_000;

pub async fn index(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let most = app.settings.largest_limit().min(LARGEST_PAGE);
    let page = include_str!("index.html").replace("{MOST}", &most.to_string());
    let page = page.replace("{PAGE}", &most.min(PAGE).to_string());
    file(&app, &headers, "text/html; charset=utf-8", page.into(), None)
}

pub async fn script(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    file(&app, &headers, "text/javascript; charset=utf-8", Bytes::from_static(include_bytes!("browse.js")), None)
}

pub async fn style(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    file(&app, &headers, "text/css; charset=utf-8", Bytes::from_static(include_bytes!("browse.css")), None)
}

/// The files of the docs have relative names, so the path of the page ends with a slash. The redirect is relative too: a proxy
/// may serve it under a prefix.
pub async fn redirect_to_docs() -> impl IntoResponse {
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, "docs/")])
}

/// Swagger UI, on our description.
pub async fn docs(State(app): State<App>, method: Method, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    // Without a `validatorUrl` the page would send the description to another host.
    static CONFIG: LazyLock<Arc<Config<'static>>> =
        LazyLock::new(|| Arc::new(Config::from("../openapi.json").validator_url("none").use_base_layout()));
    let name = uri.path().strip_prefix("/docs/").unwrap_or_default();
    let Ok(Some(found)) = utoipa_swagger_ui::serve(name, CONFIG.clone()) else {
        return Ok(not_found::not_found(method, uri).await);
    };
    let bytes = match found.bytes {
        std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        std::borrow::Cow::Owned(bytes) => bytes.into(),
    };
    match found.gzpipped {
        false => file(&app, &headers, &found.content_type, bytes, None),
        true if Coding::Gzip.weight(&headers) > 0 => {
            file(&app, &headers, &found.content_type, bytes, Some(Coding::Gzip))
        }
        true => {
            let mut plain = Vec::new();
            GzDecoder::new(&*bytes)
                .read_to_end(&mut plain)
                .map_err(|error| store::Error::broken("a page cannot be unpacked").with_source(error))?;
            file(&app, &headers, &found.content_type, plain.into(), None)
        }
    }
}

/// `coding` is the one that `bytes` already have.
fn file(
    app: &App,
    headers: &HeaderMap,
    content_type: &str,
    bytes: Bytes,
    coding: Option<Coding>,
) -> Result<Response, Problem> {
    let tag = entity_tag(&bytes, &[]);
    let outcome = evaluate_preconditions(headers, Current::Tagged(&tag))?;
    let fixed: [(HeaderName, &'static str); 4] = [
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (VARY, "accept-encoding"),
    ];
    let mut response = ([(CONTENT_TYPE, content_type)], fixed, [(ETAG, tag)], bytes).into_response();
    if let Some(coding) = coding {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    let response = compressed(&app.memory, headers, response)?;
    Ok(if outcome == Outcome::NotModified { not_modified(response) } else { response })
}
