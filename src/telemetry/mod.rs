//! Where logs go: to standard error, a line an event, written by a thread of their own. And [`spans`], where traces are
//! collected.
//!
//! Whoever logs only formats the line and puts it into a queue. A reader of standard error that is too slow, or stuck, costs
//! lines, which are counted, and never holds up a request.

mod connections;
mod json;
mod queue;
pub mod spans;
mod text;
mod time;
pub mod traceparent;

use std::any::Any;
use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

pub use connections::Connections;
pub use json::error as error_as_json;
use queue::{Queue, Writing};

/// Which version this is: as who built it has called it, such as a release's image, or else the package's own. What cargo keeps
/// of dependencies does not depend on the name.
pub const VERSION: &str = match option_env!("RECORDS_VERSION") {
    Some(version) if !version.is_empty() => version,
    _ => env!("CARGO_PKG_VERSION"),
};

/// What most lines need.
const LINE_BYTES: usize = 512;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For collectors: see [`json`].
    Json,
}

/// Logging, for as long as this lives: dropping it writes what is still in the queue, for at most a second.
#[must_use = "logging ends when it is dropped"]
pub struct Logs {
    lost: Lost,
    writing: Option<Writing>,
}

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error("the log filter {0:?} is wrong: {1}")]
    Filter(String, #[source] ParseError),
    #[error("there is no thread for the log: {0}")]
    Thread(#[source] io::Error),
}

/// How many lines were lost because they came faster than they could be written.
#[derive(Clone, Debug)]
pub struct Lost(Queue);

impl Lost {
    pub fn lines(&self) -> u64 {
        self.0.lost()
    }
}

impl Logs {
    pub fn lost(&self) -> Lost {
        self.lost.clone()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let lines = self.lost.lines();
        if lines > 0 {
            // By way of the queue too: if standard error is stuck, writing to it here would be for ever.
            tracing::warn!(lines, "lines of the log were lost: they came faster than they could be written");
        }
        drop(self.writing.take());
    }
}

/// What a text in the syntax of
/// [`Targets`](https://docs.rs/tracing-subscriber/0.3/tracing_subscriber/filter/targets/struct.Targets.html) (levels by
/// module) lets through.
///
/// # Errors
///
/// When it is no filter.
pub fn filter(text: &str) -> Result<Targets, Failed> {
    // Between two commas, nothing would mean: errors alone, from everywhere.
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    parts.join(",").parse().map_err(|error| Failed::Filter(text.to_owned(), error))
}

/// Starts logging what [`filter`] lets through, and logs panics like any other event.
///
/// # Errors
///
/// When `filter` is no filter, or there is no thread for the log.
pub fn start(text: &str, format: Format) -> Result<Logs, Failed> {
    let filter = filter(text)?;
    let (queue, writing) = Queue::before(io::stderr()).map_err(Failed::Thread)?;
    let lost = Lost(queue.clone());
    let lines = fmt::layer().with_writer(move || queue.clone());
    let lines = match format {
        // In colours.
        Format::Text if io::stderr().is_terminal() => lines.boxed(),
        Format::Text => lines.with_ansi(false).event_format(text::Text).boxed(),
        Format::Json => lines.with_ansi(false).event_format(json::Json).boxed(),
    };
    // One filter for all, since there is one layer: a filter of the layer's own would be asked again at every line.
    tracing_subscriber::registry().with(filter).with(lines).init();
    std::panic::set_hook(Box::new(|panic| {
        // The payload is written by whoever panicked: a message of a library may quote data, but says where to look.
        tracing::error!(location = panic.location().map(tracing::field::display), "{}", panic_message(panic.payload()));
    }));
    Ok(Logs { lost, writing: Some(writing) })
}

/// What `panic!` was called with: a literal, or a formatted text.
fn panic_message(payload: &dyn Any) -> &str {
    let literal = payload.downcast_ref::<&str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}
