//! A span for each request, for whoever collects traces. A build may do without: it has no use for a second protocol unless
//! somebody collects.

#[cfg(feature = "otlp")]
mod client;
#[cfg(feature = "otlp")]
#[path = "otlp.rs"]
mod made;
#[cfg(not(feature = "otlp"))]
#[path = "none.rs"]
mod made;

use std::time::{Duration, Instant};

pub use made::{COMPILED, Exporting, Span, Tracer, start};

/// What the store took of a request.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// When it was asked first.
    pub begun: Instant,
    /// How long all calls took together.
    pub took: Duration,
}
