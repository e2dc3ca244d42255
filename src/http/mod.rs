//! The HTTP contract: what is asked at which path, and how it is answered.
//!
//! [`list`], [`records`], [`health`] and [`metrics`] are the handlers; [`problem`] is the one table from failures to answers; [`finish`] is what
//! happens to every request. No file in here knows which backend the store is.

mod accept;
mod age;
mod answer;
mod array;
mod compress;
mod cors;
mod etag;
mod finish;
mod health;
mod list;
mod metrics;
mod pages;
mod path;
mod problem;
mod records;
mod settings;
mod shed;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::http::Request;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use axum::{BoxError, Router, middleware};
use bytes::Bytes;
use hyper::body::Body as HttpBody;
use tokio::sync::Semaphore;
use tower::timeout::TimeoutLayer;
use tower::util::option_layer;
use tower::{Service, ServiceBuilder};
use tower_http::catch_panic::CatchPanicLayer;

pub use settings::Settings;

use crate::store::Store;
use metrics::Metrics;
use problem::Problem;

/// What the handlers share.
#[derive(Clone)]
struct App {
    store: Arc<dyn Store>,
    draining: Draining,
    metrics: Arc<Metrics>,
    settings: Arc<Settings>,
    /// For requests under way; who gets none is told to come back.
    places: Arc<Semaphore>,
}

/// Whether the server is about to stop. Raised once, by whoever stops it.
#[derive(Clone, Debug, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// From now on `/readyz` says no, and every answer asks its client to open a new connection, elsewhere.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The whole service over `store`. An answer begins within the deadline of `settings`, which may be all there is of them,
/// or is a 503; how long its body then takes is the client's matter.
pub fn service<B>(
    store: Arc<dyn Store>,
    settings: impl Into<Settings>,
    draining: Draining,
) -> impl Service<Request<B>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let metrics = Metrics::of(&*store);
    let settings = settings.into();
    let deadline = settings.deadline;
    let cors = Some(&settings.cors_origins).filter(|origins| !origins.is_empty()).map(|origins| cors::layer(origins));
    let places = Arc::new(Semaphore::new(settings.max_requests.min(Semaphore::MAX_PERMITS)));
    let app = App { store, draining, metrics, settings: Arc::new(settings), places };
    let router = Router::new()
        .route("/api/v1/records", reads(get(list::list)))
        // With and without something behind the slash, and whatever that is: the handler says what an id looks like.
        .route(records::PREFIX, reads(get(records::one)))
        .route("/api/v1/records/{*id}", reads(get(records::one)))
        .route("/livez", reads(get(health::live)))
        .route("/readyz", reads(get(health::ready)))
        .route("/metrics", reads(get(metrics::metrics)));
    let router = pages::add(router).fallback(problem::not_found).with_state(app.clone());
    // From the outside in. The outermost sees every answer, also those of the layers below it; a panic is caught inside
    // the deadline, so that it is an answer like any other. Around the router and not its own `layer`: that would give
    // every answer to a HEAD a length once more, also those that must have none.
    ServiceBuilder::new()
        .map_request(|request: Request<B>| request.map(Body::new))
        .layer(middleware::from_fn_with_state(app, finish::finish))
        .layer(option_layer(cors))
        .layer(HandleErrorLayer::new(async |_: BoxError| Problem::late()))
        .layer(TimeoutLayer::new(deadline))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .service(router)
}

/// `HEAD` comes with `get`; any other method is told which ones there are.
fn reads(routes: MethodRouter<App>) -> MethodRouter<App> {
    routes.fallback(problem::method_not_allowed)
}
