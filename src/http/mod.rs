//! The HTTP contract: what is asked at which path, and how it is answered.
//!
//! [`list`], [`records`], [`health`] and [`metrics`] are the handlers; [`problem`] is the one table from failures to answers; [`finish`] is what
//! happens to every request. No file in here knows which backend the store is.

mod accept;
mod age;
mod answer;
mod body;
mod compress;
mod cors;
mod etag;
mod finish;
mod guard;
mod health;
mod hex;
mod line;
mod list;
mod metrics;
mod pages;
mod path;
mod problem;
mod records;
mod request_id;
mod settings;
mod shed;
mod timing;

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::Request;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use axum::{BoxError, Router};
use bytes::Bytes;
use hyper::body::Body as HttpBody;
use tokio::sync::Semaphore;
use tower::util::option_layer;
use tower::{Layer, Service};

pub use settings::Settings;

use crate::store::{MemoryPool, Store};
use finish::Finish;
use guard::Guard;
use metrics::Metrics;

/// What the handlers share. Every request clones it.
#[derive(Clone)]
struct App(Arc<Shared>);

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

struct Shared {
    store: Arc<dyn Store>,
    draining: Draining,
    metrics: Arc<Metrics>,
    settings: Settings,
    /// Whether health and metrics are on a service of their own.
    apart: bool,
    /// For requests under way; who gets none is told to come back.
    places: Semaphore,
    /// For lists that are streamed, until they are sent.
    streams: Arc<Semaphore>,
    /// For all that responses hold until they are sent.
    memory: MemoryPool,
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

/// The whole service over `store`, health and metrics included. An answer begins within the deadline of `settings`, which may be all there is of them,
/// or is a 503; how long its body then takes is the client's matter.
pub fn service<B>(
    store: Arc<dyn Store>,
    settings: impl Into<Settings>,
    draining: Draining,
) -> impl Service<Request<B>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let app = App::new(store, settings.into(), draining, false);
    public(app, with_operations(with_records(Router::new())).fallback(problem::not_found_with_operations))
}

/// As [`service`], in two: the first has the records and the pages, the second health and metrics, for an address that not
/// everybody can reach. They share all that is counted.
pub fn services<B>(
    store: Arc<dyn Store>,
    settings: impl Into<Settings>,
    draining: Draining,
) -> (
    impl Service<Request<B>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
    impl Service<Request<B>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
)
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let app = App::new(store, settings.into(), draining, true);
    let admin = with_operations(Router::new()).fallback(problem::not_found_among_operations).with_state(app.clone());
    let admin = Guard { inner: admin, deadline: app.settings.deadline };
    let admin = Finish { inner: admin, app: app.clone(), records: false, operations: true, past_inner: false };
    (public(app, with_records(Router::new()).fallback(problem::not_found)), admin)
}

impl App {
    fn new(store: Arc<dyn Store>, settings: Settings, draining: Draining, apart: bool) -> Self {
        let places = Semaphore::new(settings.max_requests.min(Semaphore::MAX_PERMITS));
        let streams = Arc::new(Semaphore::new(settings.max_streams.min(Semaphore::MAX_PERMITS)));
        let memory = MemoryPool::new(settings.response_memory_limit);
        let metrics = Metrics::of(Arc::clone(&store), &settings, &memory);
        Self(Arc::new(Shared { store, draining, metrics, settings, apart, places, streams, memory }))
    }
}

/// What everybody may reach: `router`, and who may read it from where.
fn public<B>(
    app: App,
    router: Router<App>,
) -> impl Service<Request<B>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let origins = &app.settings.cors_origins;
    let cors = Some(origins).filter(|origins| !origins.is_empty()).map(|origins| cors::layer(origins));
    let router = Guard { inner: router.with_state(app.clone()), deadline: app.settings.deadline };
    let past_inner = cors.is_none();
    // Around the router and not its own `layer`: that would give every answer to a HEAD a length once more, also those that
    // must have none.
    Finish { inner: option_layer(cors).layer(router), records: true, operations: !app.apart, past_inner, app }
}

fn with_records(router: Router<App>) -> Router<App> {
    let router = router
        .route("/api/v1/records", reads(get(list::list)))
        // With and without something behind the slash, and whatever that is: the handler says what an id looks like.
        .route(path::RECORD_PREFIX, reads(get(records::routed)))
        .route("/api/v1/records/{*id}", reads(get(records::routed)));
    pages::add(router)
}

fn with_operations(router: Router<App>) -> Router<App> {
    router
        .route("/livez", reads(get(health::live)))
        .route("/readyz", reads(get(health::ready)))
        .route("/metrics", reads(get(metrics::metrics)))
}

/// `HEAD` comes with `get`; any other method is told which ones there are.
fn reads(routes: MethodRouter<App>) -> MethodRouter<App> {
    routes.fallback(problem::method_not_allowed)
}
