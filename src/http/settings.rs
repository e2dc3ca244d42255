//! What the operator decides about answers.

use std::time::Duration;

use axum::http::HeaderValue;

/// Without a maximum of the operator's own, a page has one all the same: what it takes is gathered before it is sent. More
/// than this is a list, which is streamed.
pub const PAGE_MAX: usize = 10_000;

#[derive(Clone, Debug)]
pub struct Settings {
    /// An answer begins within this time, or is a 503.
    pub deadline: Duration,
    /// How many records a list without a `limit` has. `None` is all of them.
    pub default_limit: Option<usize>,
    /// How many records any list has at most. `None` is no maximum for a list without a `limit`, and [`PAGE_MAX`] for one
    /// that has one.
    pub max_limit: Option<usize>,
    /// The `Cache-Control` of answers that are records.
    pub cache_control: Option<HeaderValue>,
}

impl Settings {
    /// The limit of a list without one.
    pub fn implied_limit(&self) -> Option<usize> {
        self.default_limit.or(self.max_limit)
    }

    /// The largest limit that may be asked for.
    pub fn largest_limit(&self) -> usize {
        self.max_limit.unwrap_or(PAGE_MAX)
    }
}

impl From<Duration> for Settings {
    fn from(deadline: Duration) -> Self {
        let cache_control = Some(HeaderValue::from_static("no-cache"));
        Self { deadline, default_limit: None, max_limit: None, cache_control }
    }
}
