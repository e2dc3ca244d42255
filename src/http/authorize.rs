//! Bearer authorization by API keys ([RFC 6750](https://www.rfc-editor.org/rfc/rfc6750)).

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, VARY, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::future::{Either, ready};
use tower::service_fn;

use super::layered::Layered;
use super::problem::Problem;
use super::rate_limit::{Client, RateLimiter, Remaining};
use crate::auth::{ApiKey, KeyFile, Scope};

/// Calls `inner` if the request has a key with `scope`, and responds with 401 or 403 otherwise. The response carries the key in
/// its extensions, for the access log. Each request is counted by `limiter`: for its key, or without a valid one for its address.
///
/// tower-http's `AsyncRequireAuthorizationLayer` would clone the service for each request, and adds nothing else.
pub fn require_scope(
    keys: Arc<KeyFile>,
    scope: Scope,
    limiter: Option<Arc<RateLimiter>>,
    mut inner: impl Layered,
) -> impl Layered {
    service_fn(move |request: Request| {
        let authorized = authorize(&keys, scope, request.headers());
        let counted = limiter.as_ref().map(|limiter| match &authorized {
            Ok(key) => limiter.count(Client::Key(&key.name)),
            Err(_) => limiter.count(Client::Address(limiter.address(&request))),
        });
        let (authorized, remaining) = match (authorized, counted.transpose()) {
            (authorized, Ok(remaining)) => (authorized.map_err(Refusal::into_response), remaining),
            (_, Err(refused)) => (Err(refused.into_response()), None),
        };
        match authorized {
            Ok(key) => {
                let response = inner.call(request);
                Either::Left(async move {
                    let mut response = response.await?;
                    response.headers_mut().append(VARY, HeaderValue::from_static("authorization"));
                    response.extensions_mut().insert(key);
                    add(remaining, &mut response);
                    Ok(response)
                })
            }
            Err(mut response) => {
                add(remaining, &mut response);
                Either::Right(ready(Ok(response)))
            }
        }
    })
}

fn add(remaining: Option<Remaining>, response: &mut Response) {
    if let Some(remaining) = remaining {
        remaining.add_to(response.headers_mut());
    }
}

fn authorize(keys: &KeyFile, scope: Scope, headers: &HeaderMap) -> Result<Arc<ApiKey>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Missing)?;
    let secret = bearer(value).filter(|_| values.next().is_none()).ok_or(Refusal::Malformed)?;
    let keys = keys.get();
    let key = keys.find(secret).ok_or(Refusal::Unknown)?;
    if key.scopes.contains(scope) { Ok(Arc::clone(key)) } else { Err(Refusal::Scope(scope)) }
}

/// The token of `Bearer TOKEN`. The name of a scheme is case-insensitive (RFC 9110, section 11.1).
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ')).then_some(token)
}

/// The reason why a request is refused.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Missing,
    Malformed,
    Unknown,
    Scope(Scope),
}

impl IntoResponse for Refusal {
    /// The error codes of RFC 6750, section 3.1. A request without credentials gets none.
    fn into_response(self) -> Response {
        let (status, detail, challenge) = match self {
            Self::Missing => (
                StatusCode::UNAUTHORIZED,
                "Send an API key in the header `Authorization: Bearer KEY`.".to_owned(),
                r#"Bearer realm="records""#.to_owned(),
            ),
            Self::Malformed => (
                StatusCode::BAD_REQUEST,
                "Send one `Authorization` header, in the form `Bearer KEY`.".to_owned(),
                r#"Bearer realm="records", error="invalid_request""#.to_owned(),
            ),
            Self::Unknown => (
                StatusCode::UNAUTHORIZED,
                "The API key is not valid.".to_owned(),
                r#"Bearer realm="records", error="invalid_token""#.to_owned(),
            ),
            Self::Scope(scope) => (
                StatusCode::FORBIDDEN,
                format!("The API key has no scope `{}`.", scope.name()),
                format!(r#"Bearer realm="records", error="insufficient_scope", scope="{}""#, scope.name()),
            ),
        };
        let mut response = Problem::new(status, detail).into_response();
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
