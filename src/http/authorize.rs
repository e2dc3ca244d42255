//! Bearer authorization by API keys and by tokens of an issuer ([RFC 6750](https://www.rfc-editor.org/rfc/rfc6750)).

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, VARY, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::TryFutureExt;
use futures::future::{Either, ready};
use tower::service_fn;

use super::layered::Layered;
use super::problem::Problem;
use super::rate_limit::{Client, RateLimiter};
use super::response::VARY_BY_CALLER;
use super::settings::Settings;
use crate::auth::{Caller, KEY_PREFIX, KeyFile, Scope};
use crate::jwt::{Rejection, Tokens};

/// The credentials that the service accepts.
#[derive(Clone)]
pub struct Credentials {
    keys: Option<Arc<KeyFile>>,
    tokens: Option<Arc<Tokens>>,
}

impl Credentials {
    /// Returns `None` if requests need no credentials.
    pub fn new(settings: &Settings) -> Option<Self> {
        let (keys, tokens) = (settings.api_keys.clone(), settings.tokens.clone());
        settings.needs_credentials().then_some(Self { keys, tokens })
    }

    /// Returns the caller that `bearer` is the key or the token of. Where both are accepted, a key is known by its prefix.
    fn find(&self, bearer: &str) -> Result<Arc<Caller>, Refusal> {
        match (&self.keys, &self.tokens) {
            (keys, Some(tokens)) if keys.is_none() || !bearer.starts_with(KEY_PREFIX) => {
                tokens.verify(bearer).map_err(Refusal::Token)
            }
            (Some(keys), _) => keys.get().find(bearer).cloned().ok_or(Refusal::UnknownKey),
            _ => Err(Refusal::UnknownKey),
        }
    }
}

/// Calls `inner` if the request has a key or a token with `scope`, and responds with 401 or 403 otherwise. The response carries
/// the caller in its extensions, for the access log and the metrics, also if the caller lacks the scope. Each request is counted by
/// `limiter`: for its caller, or without a valid key or token for its address.
///
/// tower-http's `AsyncRequireAuthorizationLayer` would clone the service for each request, and adds nothing else.
pub fn require_scope(
    credentials: Credentials,
    scope: Scope,
    limiter: Option<Arc<RateLimiter>>,
    mut inner: impl Layered,
) -> impl Layered {
    service_fn(move |request: Request| {
        let caller = authenticate(&credentials, request.headers());
        let counted = limiter.as_ref().map(|limiter| match &caller {
            Ok(caller) => limiter.count(Client::Caller(&caller.id)),
            Err(_) => limiter.count(Client::Address(limiter.address(&request))),
        });
        let (caller, refused, remaining) = match (caller, counted.transpose()) {
            (caller, Err(refused)) => (caller.ok(), Some(refused.into_response()), None),
            (Err(refusal), Ok(remaining)) => (None, Some(refusal.into_response()), remaining),
            (Ok(caller), Ok(remaining)) => {
                let refused = (!caller.scopes.contains(scope)).then(|| Refusal::Scope(scope).into_response());
                (Some(caller), refused, remaining)
            }
        };
        let response = match refused {
            Some(response) => Either::Left(ready(Ok(response))),
            None => Either::Right(inner.call(request).map_ok(vary_by_caller)),
        };
        response.map_ok(move |mut response| {
            if let Some(caller) = caller {
                response.extensions_mut().insert(caller);
            }
            if let Some(remaining) = remaining {
                remaining.add_to(response.headers_mut());
            }
            response
        })
    })
}

fn vary_by_caller(mut response: Response) -> Response {
    if response.headers().get(VARY) != Some(&VARY_BY_CALLER) {
        response.headers_mut().append(VARY, HeaderValue::from_static("authorization"));
    }
    response
}

fn authenticate(credentials: &Credentials, headers: &HeaderMap) -> Result<Arc<Caller>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Missing)?;
    let bearer = bearer(value).filter(|_| values.next().is_none()).ok_or(Refusal::Malformed)?;
    credentials.find(bearer)
}

/// The token of `Bearer TOKEN`. The name of a scheme is case-insensitive (RFC 9110, section 11.1).
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ')).then_some(token)
}

/// The reason why a request is refused.
#[derive(Clone, Debug)]
enum Refusal {
    Missing,
    Malformed,
    UnknownKey,
    Token(Rejection),
    Scope(Scope),
}

impl IntoResponse for Refusal {
    /// The error codes of RFC 6750, section 3.1. A request without credentials gets none.
    fn into_response(self) -> Response {
        let (status, detail, challenge) = match self {
            Self::Token(Rejection::NoKeys) => return Problem::no_token_keys().into_response(),
            Self::Missing => (
                StatusCode::UNAUTHORIZED,
                "Send an API key or a token in the header `Authorization: Bearer KEY`.".to_owned(),
                r#"Bearer realm="records""#.to_owned(),
            ),
            Self::Malformed => (
                StatusCode::BAD_REQUEST,
                "Send one `Authorization` header, in the form `Bearer KEY`.".to_owned(),
                r#"Bearer realm="records", error="invalid_request""#.to_owned(),
            ),
            Self::UnknownKey | Self::Token(_) => (
                StatusCode::UNAUTHORIZED,
                match self {
                    Self::Token(Rejection::Invalid(detail)) => detail.to_owned(),
                    _ => "The API key is not valid.".to_owned(),
                },
                r#"Bearer realm="records", error="invalid_token""#.to_owned(),
            ),
            Self::Scope(scope) => (
                StatusCode::FORBIDDEN,
                format!("The key or token has no scope `{}`.", scope.name()),
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
