//! The heads of answers that are records.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::App;
use super::accept::Form;
use super::compress;

pub fn records(app: &App, form: Form, body: Body) -> Response {
    let mut response = of(app, body);
    response.headers_mut().insert(CONTENT_TYPE, form.content_type());
    response
}

/// 304: the client has it.
pub fn not_modified(app: &App) -> Response {
    let mut response = of(app, Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

fn of(app: &App, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static(compress::VARY));
    if let Some(value) = &app.settings.cache_control {
        headers.insert(CACHE_CONTROL, value.clone());
    }
    response
}
