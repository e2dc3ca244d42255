//! Where logs go: to standard error, a line an event.

use std::any::Any;
use std::io::IsTerminal;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

/// Starts logging what `filter` lets through, in the syntax of
/// [`Targets`](https://docs.rs/tracing-subscriber/0.3/tracing_subscriber/filter/targets/struct.Targets.html) (levels by
/// module), and logs panics like any other event.
///
/// # Errors
///
/// When `filter` is no filter.
pub fn start(filter: &str) -> Result<(), ParseError> {
    let filter: Targets = filter.parse()?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    std::panic::set_hook(Box::new(|panic| {
        // The payload is written by whoever panicked: a message of a library may quote data, but says where to look.
        tracing::error!(location = panic.location().map(tracing::field::display), "{}", panic_message(panic.payload()));
    }));
    Ok(())
}

/// What `panic!` was called with: a literal, or a formatted text.
fn panic_message(payload: &dyn Any) -> &str {
    let literal = payload.downcast_ref::<&str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}
