//! The middleware around every handler.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::{any_service, get_service};
use futures::TryFutureExt;
use futures::future::{Either, ready};
use tower::layer::layer_fn;
use tower::util::MapResponse;
use tower::{ServiceBuilder, service_fn};
use tower_http::cors::CorsLayer;

use super::access_log::RequestContext;
use super::authorize::{Credentials, require_scope};
use super::cors::AllowLayer;
use super::layered::Layered;
use super::metrics::RouteMetrics;
use super::problem::Problem;
use super::rate_limit::{RateLimiter, limit_by_address};
use super::request_id::{REQUEST_ID, RequestId};
use super::timing::{self, SERVER_TIMING, StoreTime};
use super::{App, cors, limits, not_found, path};
use crate::auth::{Caller, Scope};

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The service for a connection: a `tower::Service` of requests with any body.
pub type HttpService = MapResponse<Router, fn(Response) -> Response>;

/// A router whose handlers all have the middleware.
pub struct Routes {
    app: App,
    router: Router<App>,
    cors: Option<(AllowLayer, CorsLayer)>,
    rate_limiter: Option<Arc<RateLimiter>>,
}

impl Routes {
    pub fn new(app: &App) -> Self {
        let (cors, rate_limiter) = (cors::layer(&app.settings), app.rate_limiter.clone());
        Self { cors, rate_limiter, ..Self::for_operators(app) }
    }

    /// Routes without CORS and without a rate limit.
    pub fn for_operators(app: &App) -> Self {
        Self { app: app.clone(), router: Router::new(), cors: None, rate_limiter: None }
    }

    /// Serves `GET` and `HEAD` of `paths` by `handler`, and tells other methods that there is nothing else. Metrics, log and
    /// spans name the route by its `pattern`. Where the service asks for credentials, a request needs some with
    /// `scope`.
    pub fn add<T: 'static>(
        mut self,
        pattern: &'static str,
        paths: &[&str],
        scope: Option<Scope>,
        handler: impl Handler<T, App>,
    ) -> Self {
        let not_allowed = self.layered(pattern, None, not_found::method_not_allowed);
        let methods = get_service(self.layered(pattern, scope, handler)).fallback_service(not_allowed);
        for path in paths {
            self.router = self.router.route(path, methods.clone());
        }
        self
    }

    /// Serves every other path.
    pub fn fallback<T: 'static>(mut self, handler: impl Handler<T, App>) -> Self {
        let fallback = self.layered(path::NONE, None, handler);
        // A method router leaves the body out of a response to `HEAD`, which the router does not do for its fallback, nor hyper
        // over HTTP/2.
        self.router = self.router.fallback_service(any_service(fallback));
        self
    }

    pub fn into_service(self) -> HttpService {
        // Around the router, which gives every response a length after its layers.
        let layer = ServiceBuilder::new().map_response(without_length_of_nothing as fn(_) -> _);
        layer.service(self.router.with_state(self.app))
    }

    /// `handler` within the layers, the outermost first.
    ///
    /// Around the handler rather than by `Router::layer`, which would box the handler, and not by `MatchedPath`, which would cost
    /// an extension and a look-up by name for each request: the layers of a route know its pattern and have its counters.
    fn layered<T: 'static>(
        &self,
        pattern: &'static str,
        scope: Option<Scope>,
        handler: impl Handler<T, App>,
    ) -> impl Layered {
        let (app, deadline) = (self.app.clone(), self.app.settings.deadline);
        let route = Arc::new(app.metrics.route(pattern));
        // Health is asked by few, and must answer when others ask too much.
        let limiter = self.rate_limiter.clone().filter(|_| ![path::LIVEZ, path::READYZ].contains(&pattern));
        let authorization = scope.zip(Credentials::new(&app.settings));
        let by_address = limiter.clone().filter(|_| authorization.is_none());
        let by_address = by_address.map(|limiter| layer_fn(move |inner| limit_by_address(limiter.clone(), inner)));
        let authorization = authorization.map(|(scope, credentials)| {
            layer_fn(move |inner| require_scope(credentials.clone(), scope, limiter.clone(), inner))
        });
        ServiceBuilder::new()
            .layer(layer_fn(move |inner| observe(app.clone(), route.clone(), inner)))
            .option_layer(self.cors.clone())
            .option_layer(by_address)
            .option_layer(authorization)
            .layer(layer_fn(require_host))
            .map_future(move |response| limits::bounded(deadline, response))
            .service(handler.with_state(self.app.clone()))
    }
}

/// Gives the request its id, writes the body of a problem, which has that id, and counts and logs how the request ended.
///
/// tower-http's `TraceLayer` would wrap each body, and does not see a client that leaves before the response.
fn observe(app: App, route: Arc<RouteMetrics>, mut inner: impl Layered) -> impl Layered {
    service_fn(move |mut request: Request| {
        let in_flight = route.begin();
        let id = RequestId::from_headers(request.headers());
        let context = RequestContext::new(&request, id, route.pattern, in_flight, app.settings.access_log);
        if route.pattern == path::LIST {
            // For the log line of a list that fails after the head of its response.
            request.extensions_mut().insert(context.id().clone());
        }
        let is_timed = app.settings.server_timing || !context.span().is_disabled();
        let store_time = is_timed.then(|| StoreTime::new(context.span().clone()));
        if let Some(time) = &store_time {
            request.extensions_mut().insert(time.clone());
        }
        let app = app.clone();
        // Mapped rather than awaited: an `async` block would have room for the inner future twice.
        inner.call(request).map_ok(move |response| finish(&app, context, store_time, response))
    })
}

fn finish(app: &App, mut context: RequestContext, store_time: Option<StoreTime>, mut response: Response) -> Response {
    let problem = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = &problem {
        *response.body_mut() = problem.to_json(context.id().as_str()).into();
        if let Some(reason) = problem.rejection() {
            app.metrics.count_rejection(reason);
        }
    }
    if let Some(caller) = response.extensions_mut().remove::<Arc<Caller>>() {
        app.metrics.count_caller(&caller);
        context.set_caller(caller);
    }
    response.headers_mut().insert(REQUEST_ID, context.id().value().clone());
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    if app.draining.has_begun() {
        // A client that keeps its connection would lose it at the end of the drain, perhaps with a request on it.
        response.headers_mut().insert(CONNECTION, CLOSE);
    }
    if app.settings.server_timing {
        let spent = store_time.and_then(|time| time.spent());
        response.headers_mut().insert(SERVER_TIMING, timing::header(spent, context.elapsed()));
    }
    context.finish(response.status(), problem.as_ref());
    response
}

/// Refuses a request that does not name one host, or names something that cannot be a host, which hyper lets pass
/// ([RFC 9112, section 3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2), and
/// [RFC 9113, section 8.3.1](https://www.rfc-editor.org/rfc/rfc9113#section-8.3.1)).
fn require_host(mut inner: impl Layered) -> impl Layered {
    service_fn(move |request: Request| {
        if has_valid_host(&request) {
            return Either::Left(inner.call(request));
        }
        let detail =
            "Send one `Host` header, or `:authority` over HTTP/2, with the name of this server as the client knows it.";
        Either::Right(ready(Ok(Problem::bad("Host", detail).into_response())))
    })
}

fn has_valid_host(request: &Request) -> bool {
    let (version, uri) = (request.version(), request.uri());
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (host, None) => host.map(HeaderValue::as_bytes),
        (_, Some(_)) => return false,
    };
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let is_named = match (authority, host) {
        // A target of HTTP/1.1 with an authority overrides `Host`, which is still required.
        (Some(authority), Some(host)) => version < Version::HTTP_2 || authority.eq_ignore_ascii_case(host),
        (Some(_), None) => version != Version::HTTP_11,
        (None, Some(_)) => true,
        (None, None) => version < Version::HTTP_11,
    };
    is_named
        && matches!(uri.scheme_str(), None | Some("http" | "https"))
        && authority.is_none_or(is_host)
        && host.is_none_or(is_host)
}

/// Returns true if all bytes may stand in a host with its port
/// ([RFC 3986, section 3.2.2](https://www.rfc-editor.org/rfc/rfc3986#section-3.2.2)).
fn is_host(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%:[]!$&'()*+,;=".contains(byte))
}

/// A 204 must not have a `Content-Length`, and that of a 304 would be the length of a body that is not sent
/// ([RFC 9110, section 8.6](https://www.rfc-editor.org/rfc/rfc9110#section-8.6)).
fn without_length_of_nothing(mut response: Response) -> Response {
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}
