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

use crate::store::Store;
use finish::Finish;
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
    /// For requests under way; who gets none is told to come back.
    places: Semaphore,
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
    let places = Semaphore::new(settings.max_requests.min(Semaphore::MAX_PERMITS));
    let app = App(Arc::new(Shared { store, draining, metrics, settings, places }));
    let router = Router::new()
        .route("/api/v1/records", reads(get(list::list)))
        // With and without something behind the slash, and whatever that is: the handler says what an id looks like.
        .route(records::PREFIX, reads(get(records::one)))
        .route("/api/v1/records/{*id}", reads(get(records::one)))
        .route("/livez", reads(get(health::live)))
        .route("/readyz", reads(get(health::ready)))
        .route("/metrics", reads(get(metrics::metrics)));
    let router = pages::add(router).fallback(problem::not_found).with_state(app.clone());
    // Around the router and not its own `layer`: that would give every answer to a HEAD a length once more, also those that
    // must have none.
    Finish { inner: option_layer(cors).layer(router), app, deadline }
}

/// `HEAD` comes with `get`; any other method is told which ones there are.
fn reads(routes: MethodRouter<App>) -> MethodRouter<App> {
    routes.fallback(problem::method_not_allowed)
}
