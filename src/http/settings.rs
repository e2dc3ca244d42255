//! What the operator decides about answers.

use std::time::Duration;

use axum::http::HeaderValue;

use crate::telemetry::spans::Tracer;
use crate::telemetry::{Connections, Lost};

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
    /// The origins whose pages may read the answers; `*` is all of them.
    pub cors_origins: Vec<HeaderValue>,
    /// How many requests for records are answered at once.
    pub max_requests: usize,
    /// How many lists are streamed at once.
    pub max_streams: usize,
    /// The memory that all responses together may hold until they are sent, in bytes. Small ones do not count.
    pub response_memory_limit: usize,
    /// Whether answers have a `Server-Timing`. It tells everybody what only the operator needs to know: how busy the store
    /// is, and whether it had a record at hand.
    pub server_timing: bool,
    /// Where the spans of requests begin.
    pub tracer: Tracer,
    /// Of the log, to be counted among the metrics.
    pub lost_lines: Option<Lost>,
    /// Of the server, to be counted among them too.
    pub connections: Option<Connections>,
}

/// Far more than a store answers at once, and what waits for it still takes little memory.
const MAX_REQUESTS: usize = 1_024;

/// Half of the memory for responses, if none is compressed: the other half is left for pages and large records.
const MAX_STREAMS: usize = 48;

/// Eight of the largest pages, or two hundred of a thousand records of 250 bytes.
const RESPONSE_MEMORY_LIMIT: usize = 64 * 1024 * 1024;

impl Settings {
    /// Takes the text of a `Cache-Control`; an empty one is none.
    ///
    /// # Errors
    ///
    /// When it cannot stand in a header.
    pub fn cache_control(mut self, text: &str) -> Result<Self, String> {
        let value = HeaderValue::from_str(text).map_err(|_| format!("{text:?} cannot stand in a Cache-Control"))?;
        self.cache_control = Some(value).filter(|value| !value.is_empty());
        Ok(self)
    }

    /// Takes origins, as browsers write them.
    ///
    /// # Errors
    ///
    /// When one is no origin.
    pub fn cors_origins<'a>(mut self, origins: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        for origin in origins {
            let origin = origin.trim();
            // What a browser sends is compared byte for byte, and has no capitals.
            let strange = |c: char| c.is_whitespace() || c.is_uppercase() || "/?#@*,".contains(c);
            let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
                [scheme, host].iter().all(|part| !part.is_empty() && !part.contains(strange))
            });
            if !is_origin && origin != "*" && origin != "null" {
                return Err(format!("{origin:?} is not an origin: write it as in https://example.com, or * for all"));
            }
            let value = HeaderValue::from_str(origin).map_err(|_| format!("{origin:?} is not an origin"))?;
            self.cors_origins.push(value);
        }
        Ok(self)
    }

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
        Self {
            deadline,
            default_limit: None,
            max_limit: None,
            cache_control,
            cors_origins: Vec::new(),
            max_requests: MAX_REQUESTS,
            max_streams: MAX_STREAMS,
            response_memory_limit: RESPONSE_MEMORY_LIMIT,
            server_timing: false,
            tracer: Tracer::default(),
            lost_lines: None,
            connections: None,
        }
    }
}
