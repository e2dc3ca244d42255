//! How long the store took for a request, and `Server-Timing`, which tells the client
//! ([W3C](https://www.w3.org/TR/server-timing/)).

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Extensions, HeaderName, HeaderValue};

use crate::telemetry::spans::Spent;

pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What a request's handler tells of its calls to the store, for whoever wants to know; where nobody does, there is none
/// among the request's extensions, and nothing is measured.
#[derive(Clone, Debug, Default)]
pub struct StoreTime(Arc<Mutex<Option<Spent>>>);

impl StoreTime {
    /// `None` when the store was not asked.
    pub fn spent(&self) -> Option<Spent> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Awaits a call to the store. It counts too if it is given up half way.
    pub async fn of<F: Future>(extensions: &Extensions, call: F) -> F::Output {
        let _call = extensions.get::<Self>().map(|time| Call { time, begun: Instant::now() });
        call.await
    }
}

struct Call<'a> {
    time: &'a StoreTime,
    begun: Instant,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut spent = self.time.0.lock().unwrap_or_else(PoisonError::into_inner);
        spent.get_or_insert(Spent { begun: self.begun, took: Duration::ZERO }).took += self.begun.elapsed();
    }
}

/// `store;dur=0.123, total;dur=0.456`, in milliseconds; without `store` when that was not asked.
pub fn header(store: Option<Spent>, total: Duration) -> HeaderValue {
    let milliseconds = |time: Duration| time.as_micros() as f64 / 1000.0;
    let total = milliseconds(total);
    let text = match store {
        Some(store) => format!("store;dur={}, total;dur={total}", milliseconds(store.took)),
        None => format!("total;dur={total}"),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("total"))
}
