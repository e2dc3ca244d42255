//! The HTTP contract: the routes, and the response to each request.
//!
//! [`list`], [`record`], [`health`] and [`metrics`] are the handlers. [`middleware`] is around every handler. [`problem`] is
//! the one table from failures to responses. No file in here knows which backend the store is.

mod accept;
mod access_log;
mod authorize;
mod body;
mod compress;
mod conditional;
mod cors;
mod count;
mod csv;
mod forwarded;
mod freshness;
mod health;
mod layered;
mod limits;
mod list;
mod metrics;
mod middleware;
mod not_found;
mod pages;
mod path;
mod problem;
mod rate_limit;
mod record;
mod replica;
mod request_id;
mod response;
mod settings;
mod status;
mod timing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::HeaderValue;
use tokio::sync::Semaphore;

pub use pages::COMPILED as HAS_PAGES;
pub use settings::{AccessLog, RATE_MAX, RateLimit, Settings};

use crate::auth::Scope;
use crate::store::{MemoryPool, Store};
use metrics::Metrics;
pub use middleware::HttpService;
use middleware::Routes;
use rate_limit::RateLimiter;

/// State that all handlers share.
struct AppState {
    store: Arc<dyn Store>,
    draining: Draining,
    metrics: Metrics,
    settings: Settings,
    /// Health and metrics are served by a listener of their own.
    // Builds without pages do not read it.
    #[allow(dead_code)]
    separate_admin: bool,
    /// Held by each request for records, until its response begins.
    request_permits: Semaphore,
    /// Held by each streamed list, until it is sent.
    stream_permits: Arc<Semaphore>,
    /// Memory that responses hold until they are sent.
    memory: MemoryPool,
    rate_limiter: Option<Arc<RateLimiter>>,
}

type App = Arc<AppState>;

/// A flag that the server raises once, before it stops.
#[derive(Clone, Debug, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// From now on `/readyz` fails, and every response asks its client to open a new connection, which a load balancer sends
    /// elsewhere.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The whole service over `store`, health and metrics included.
///
/// A response begins within the deadline of `settings` (a `Duration` alone will do), or is a 503. The time that its body
/// takes depends on the client.
pub fn service(store: Arc<dyn Store>, settings: impl Into<Settings>, draining: Draining) -> HttpService {
    let app = AppState::new(store, settings.into(), draining, false);
    let routes = with_admin(with_records(Routes::new(&app)), Some(Scope::MetricsRead));
    routes.fallback(not_found::not_found_with_admin).into_service()
}

/// Returns two services: the first has the records and the pages; the second has health and metrics, for an address that only
/// operators can reach. Both are counted in the same metrics.
pub fn services(
    store: Arc<dyn Store>,
    settings: impl Into<Settings>,
    draining: Draining,
) -> (HttpService, HttpService) {
    let app = AppState::new(store, settings.into(), draining, true);
    let records = with_records(Routes::new(&app)).fallback(not_found::not_found);
    let admin = with_admin(Routes::for_operators(&app), None);
    let admin = admin
        .add(path::STATUS, &[path::STATUS, "/status/{file}"], None, status::status)
        .add(path::REPLICA, &[path::REPLICA], None, replica::replica)
        .add(path::AUDITS, &[path::AUDITS], None, health::audits)
        .fallback(not_found::not_found_in_admin);
    (records.into_service(), admin.into_service())
}

impl AppState {
    fn new(store: Arc<dyn Store>, mut settings: Settings, draining: Draining, separate_admin: bool) -> App {
        // A shared cache must not give one client's response to a client without credentials.
        if settings.needs_credentials() && settings.cache_control.as_ref().is_some_and(|value| value == "no-cache") {
            settings.cache_control = Some(HeaderValue::from_static("private, no-cache"));
        }
        let request_permits = Semaphore::new(settings.max_requests.min(Semaphore::MAX_PERMITS));
        let stream_permits = Arc::new(Semaphore::new(settings.max_streams.min(Semaphore::MAX_PERMITS)));
        let memory = MemoryPool::new(settings.response_memory_limit);
        let metrics = Metrics::new(Arc::clone(&store), &settings, &memory);
        let rate_limiter = RateLimiter::new(&settings);
        Arc::new(Self {
            store,
            draining,
            metrics,
            settings,
            separate_admin,
            request_permits,
            stream_permits,
            memory,
            rate_limiter,
        })
    }
}

fn with_records(routes: Routes) -> Routes {
    let routes = routes
        .add(path::LIST, &[path::LIST], Some(Scope::RecordsRead), list::list)
        // A catch-all, and the path without an id: the handler tells the client how an id is written.
        .add(path::RECORD, &["/api/v1/records/{*id}", path::RECORD_PREFIX], Some(Scope::RecordsRead), record::record);
    pages::add(routes)
}

/// Health stays open. `/metrics` needs a key unless it has a port of its own.
fn with_admin(routes: Routes, metrics_scope: Option<Scope>) -> Routes {
    routes
        .add(path::LIVEZ, &[path::LIVEZ], None, health::live)
        .add(path::READYZ, &[path::READYZ], None, health::ready)
        .add(path::METRICS, &[path::METRICS], metrics_scope, metrics::metrics)
}
