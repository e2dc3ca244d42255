//! The time that calls to the store take, for `Server-Timing` ([W3C](https://www.w3.org/TR/server-timing/)) and for spans.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Extensions, HeaderName, HeaderValue};
use tracing::Span;

use crate::telemetry::trace::store_span;

pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The time that the calls to the store for one request take. An extension of requests whose time is wanted: other requests
/// are not measured.
#[derive(Clone, Debug)]
pub struct StoreTime {
    request: Span,
    spent: Arc<Mutex<Option<Duration>>>,
}

impl StoreTime {
    /// Each call is a span within the span of the request.
    pub fn new(request: Span) -> Self {
        Self { request, spent: Arc::default() }
    }

    /// The time of all calls together. `None` if there was none.
    pub fn spent(&self) -> Option<Duration> {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures a call to the store, until it returns or is cancelled.
    pub async fn of<F: Future>(extensions: &Extensions, call: F) -> F::Output {
        let _call =
            extensions.get::<Self>().map(|time| Call { time, begun: Instant::now(), _span: store_span(&time.request) });
        call.await
    }
}

struct Call<'a> {
    time: &'a StoreTime,
    begun: Instant,
    _span: Span,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut spent = self.time.spent.lock().unwrap_or_else(PoisonError::into_inner);
        *spent.get_or_insert_default() += self.begun.elapsed();
    }
}

/// `store;dur=0.123, total;dur=0.456`, in milliseconds; without `store` if there was no call to it.
pub fn header(store: Option<Duration>, total: Duration) -> HeaderValue {
    let milliseconds = |time: Duration| time.as_micros() as f64 / 1000.0;
    let store = store.map(|store| format!("store;dur={}, ", milliseconds(store))).unwrap_or_default();
    let text = format!("{store}total;dur={}", milliseconds(total));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("total"))
}
