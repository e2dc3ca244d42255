//! The heads of answers that are records.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::App;
use super::accept::Form;
use super::compress;

pub fn records(app: &App, form: Form, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, form.content_type());
    headers.insert(VARY, HeaderValue::from_static(compress::VARY));
    if let Some(value) = &app.settings.cache_control {
        headers.insert(CACHE_CONTROL, value.clone());
    }
    response
}

/// 304, in the place of `response`: the client has it. What is about the body goes with it; the rest, its tag above all, is
/// what the 200 would have had ([RFC 9110, section 15.4.5](https://www.rfc-editor.org/rfc/rfc9110#section-15.4.5)).
pub fn not_modified(mut response: Response) -> Response {
    for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH] {
        response.headers_mut().remove(name);
    }
    *response.body_mut() = Body::empty();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}
