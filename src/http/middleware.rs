//! The middleware around every handler.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use axum::{BoxError, Router};
use bytes::Bytes;
use futures::future::{Either, ready};
use hyper::body::Body as HttpBody;
use tower::layer::layer_fn;
use tower::{Service, ServiceBuilder, service_fn};
use tower_http::cors::CorsLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use super::access_log::RequestContext;
use super::metrics::RouteMetrics;
use super::problem::Problem;
use super::request_id::{REQUEST_ID, RequestId};
use super::timing::{self, SERVER_TIMING, StoreTime};
use super::{App, cors, limits, not_found, path};

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// A router whose handlers all have the middleware.
pub struct Routes {
    app: App,
    router: Router<App>,
    cors: Option<CorsLayer>,
}

impl Routes {
    pub fn new(app: &App) -> Self {
        Self { cors: cors::layer(&app.settings), ..Self::without_cors(app) }
    }

    pub fn without_cors(app: &App) -> Self {
        Self { app: app.clone(), router: Router::new(), cors: None }
    }

    /// Serves `handlers` at `paths`. Metrics, log and spans name the route by its `pattern`.
    ///
    /// `HEAD` comes with `get`; the response to any other method names the ones that there are.
    pub fn add(mut self, pattern: &'static str, paths: &[&str], handlers: MethodRouter<App>) -> Self {
        let handlers = self.layered(pattern, handlers.fallback(not_found::method_not_allowed));
        for path in paths {
            self.router = self.router.route(path, handlers.clone());
        }
        self
    }

    /// Serves `handlers` at every other path.
    pub fn fallback(mut self, handlers: MethodRouter<App>) -> Self {
        let handlers = self.layered(path::NONE, handlers);
        self.router = self.router.fallback(handlers);
        self
    }

    pub fn into_service<B>(
        self,
    ) -> impl Service<Request<B>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        // Around the router, which gives every response a length after its layers.
        let router: Router = self.router.with_state(self.app);
        ServiceBuilder::new().map_response(without_length_of_nothing).service(router)
    }

    /// `handlers` within the layers, the outermost first.
    ///
    /// Layered here rather than by `Router::layer`: a layer that belongs to one route knows its pattern and has its counters at
    /// hand. `MatchedPath` would cost an extension and a look-up by name for each request.
    fn layered(&self, pattern: &'static str, handlers: MethodRouter<App>) -> MethodRouter<App> {
        let (app, draining, deadline) = (self.app.clone(), self.app.draining.clone(), self.app.settings.deadline);
        let route = Arc::new(app.metrics.route(pattern));
        let layers = ServiceBuilder::new()
            .layer(SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, NOSNIFF))
            // A client that keeps its connection would lose it at the end of the drain, perhaps with a request on it.
            .layer(SetResponseHeaderLayer::overriding(CONNECTION, move |_: &Response| {
                draining.has_begun().then_some(CLOSE)
            }))
            .layer(layer_fn(move |inner| observe(app.clone(), route.clone(), inner)))
            .option_layer(self.cors.clone())
            .layer(layer_fn(require_host))
            .map_future(move |response| limits::bounded(deadline, response));
        handlers.layer(layers)
    }
}

/// Gives the request its id, writes the body of a problem, which has that id, and counts and logs how the request ended.
///
/// tower-http's `SetRequestIdLayer` and `PropagateRequestIdLayer` would take any id from a client, and cost four allocations
/// for each request. Its `TraceLayer` would enter a span for each request and wrap each body, and it does not see a client that
/// leaves before the response.
fn observe<S>(
    app: App,
    route: Arc<RouteMetrics>,
    mut inner: S,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
{
    service_fn(move |request: Request| {
        let (mut head, body) = request.into_parts();
        let in_flight = route.begin();
        let id = RequestId::from_headers(&head.headers);
        let context = RequestContext::new(&head, id, route.pattern, in_flight, app.settings.access_log);
        head.extensions.insert(context.id().clone());
        let is_timed = app.settings.server_timing || !context.span().is_disabled();
        let store_time = is_timed.then(|| StoreTime::new(context.span().clone()));
        if let Some(time) = &store_time {
            head.extensions.insert(time.clone());
        }
        let response = inner.call(Request::from_parts(head, body));
        let app = app.clone();
        async move { response.await.map(|response| finish(&app, context, store_time, response)) }
    })
}

fn finish(app: &App, context: RequestContext, store_time: Option<StoreTime>, mut response: Response) -> Response {
    let problem = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = &problem {
        *response.body_mut() = problem.to_json(context.id().as_str()).into();
        if let Some(reason) = problem.rejection() {
            app.metrics.count_rejection(reason);
        }
    }
    response.headers_mut().insert(REQUEST_ID, context.id().value().clone());
    if app.settings.server_timing {
        let spent = store_time.and_then(|time| time.spent());
        response.headers_mut().insert(SERVER_TIMING, timing::header(spent, context.elapsed()));
    }
    context.finish(response.status(), problem.as_ref());
    response
}

/// Refuses a request of HTTP/1.1 without a `Host`, with two, or with one that cannot be a host, which hyper lets pass
/// ([RFC 9112, section 3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2)).
fn require_host<S>(
    mut inner: S,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
{
    service_fn(move |request: Request| {
        let (head, body) = request.into_parts();
        if has_valid_host(&head) {
            return Either::Left(inner.call(Request::from_parts(head, body)));
        }
        let problem =
            Problem::bad("Host", "Send one `Host` header, with the name of this server as the client knows it.");
        Either::Right(ready(Ok(problem.into_response())))
    })
}

fn has_valid_host(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.as_bytes().iter().all(is_host_byte),
        (None, _) => head.version != Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

/// Whether the byte may stand in a host with its port ([RFC 3986, section 3.2.2](https://www.rfc-editor.org/rfc/rfc3986#section-3.2.2)).
fn is_host_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%:[]!$&'()*+,;=".contains(byte)
}

/// A 204 must not have a `Content-Length`, and that of a 304 would be the length of a body that is not sent
/// ([RFC 9110, section 8.6](https://www.rfc-editor.org/rfc/rfc9110#section-8.6)).
fn without_length_of_nothing(mut response: Response) -> Response {
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}
