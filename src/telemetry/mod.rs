//! Set-up of the libraries for logging, metrics and tracing.
//!
//! Logs go to standard error, one line per event. tracing-subscriber formats a line on the thread that logs; a thread of
//! tracing-appender writes it. If standard error is slow or stuck, lines are dropped and counted, and no request waits.

mod connections;
#[cfg(feature = "otlp")]
mod otlp;
pub mod trace;

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::panic;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

pub use connections::Connections;
pub use tracing_appender::non_blocking::ErrorCounter;

/// The version of this build: `RECORDS_VERSION` when it was compiled, as for the image of a release, or the package's version.
pub const VERSION: &str = match option_env!("RECORDS_VERSION") {
    Some(version) if !version.is_empty() => version,
    _ => env!("CARGO_PKG_VERSION"),
};

/// Lines that may wait to be written: about 4 MB, logged by two busy cores in a tenth of a second.
const BUFFERED_LINES: usize = 8 * 1024;

/// The format of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    /// A JSON object on each line, with the fields of the event at its top level.
    Json,
}

/// Logging and the export of traces, until it is dropped: then it exports the last spans, for at most two seconds, and writes
/// the last lines, for about one.
#[must_use = "logging ends when it is dropped"]
pub struct Telemetry {
    dropped_lines: ErrorCounter,
    // Dropped before the log, which then has the failure of the last export.
    #[cfg(feature = "otlp")]
    _exporter: Option<otlp::Exporter>,
    _writer: WorkerGuard,
}

#[derive(Debug, thiserror::Error)]
#[error("the log filter {text:?} is wrong: {reason}")]
pub struct InvalidFilter {
    text: String,
    reason: String,
}

impl Telemetry {
    /// Counts the lines that were dropped because standard error was too slow.
    pub fn dropped_lines(&self) -> ErrorCounter {
        self.dropped_lines.clone()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let lines = self.dropped_lines.dropped_lines();
        if lines > 0 {
            tracing::warn!(lines, "lines of the log were dropped: standard error was too slow");
        }
    }
}

/// Returns the memory of this process that is in RAM, in bytes, where the system tells it.
pub fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Parses levels by module, as in `info,records=debug`
/// ([`Targets`](https://docs.rs/tracing-subscriber/0.3/tracing_subscriber/filter/targets/struct.Targets.html)).
///
/// # Errors
///
/// When the text is no filter.
pub fn parse_filter(text: &str) -> Result<Targets, InvalidFilter> {
    // `Targets` reads an empty part as `error`.
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let invalid = |reason: String| InvalidFilter { text: text.to_owned(), reason };
    // `Targets` reads a level that is mistyped as a module, and switches everything else off.
    if let Some(part) = parts.iter().find(|part| !part.contains('=') && part.parse::<LevelFilter>().is_err()) {
        return Err(invalid(format!(
            "{part:?} is no level: use off, error, warn, info, debug or trace, or for a module {part}=debug"
        )));
    }
    let filter: Targets = parts.join(",").parse().map_err(|error: ParseError| invalid(error.to_string()))?;
    Ok(filter.with_target(trace::TARGET, LevelFilter::OFF))
}

/// Starts logging what `filter` lets through, panics included, and exporting traces to the OTLP collector at `otlp_endpoint`.
///
/// Warns in the log about an endpoint that cannot be used.
///
/// # Errors
///
/// When `filter` is no filter.
pub fn start(filter: &str, format: Format, otlp_endpoint: Option<&str>) -> Result<Telemetry, InvalidFilter> {
    let filter = parse_filter(filter)?;
    let (writer, guard) = stderr_writer();
    let dropped_lines = writer.error_counter();
    let lines = fmt::layer().with_writer(writer);
    let lines = match format {
        Format::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).with_ansi(false).boxed()
        }
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    let exporter = otlp_endpoint.map(otlp::Exporter::start);
    #[cfg(feature = "otlp")]
    let subscriber =
        subscriber.with(exporter.as_ref().and_then(|exporter| Some(exporter.as_ref().ok()?.layer(trace::TARGET))));
    subscriber.init();
    panic::set_hook(Box::new(log_panic));
    #[cfg(not(feature = "otlp"))]
    if otlp_endpoint.is_some() {
        tracing::warn!("OTEL_EXPORTER_OTLP_ENDPOINT has no effect: this build cannot export traces");
    }
    #[cfg(feature = "otlp")]
    if let Some(Err(reason)) = &exporter {
        tracing::warn!("traces are not exported: {reason}");
    }
    Ok(Telemetry {
        dropped_lines,
        #[cfg(feature = "otlp")]
        _exporter: exporter.and_then(Result::ok),
        _writer: guard,
    })
}

/// Writes the error that ends the program to standard error, as the last line in the log's format.
///
/// Bypasses the log, which may not have started, or may filter errors out.
pub fn report_error(format: Format, message: &str) {
    // Another thread writes the line, since standard error may be stuck. Dropping the guard waits about a second for it.
    let (mut writer, _guard) = stderr_writer();
    match format {
        // If standard error is closed, the failure cannot be reported anywhere.
        Format::Text => drop(writeln!(writer, "{}: {message}", env!("CARGO_PKG_NAME"))),
        Format::Json => {
            let subscriber = fmt().json().flatten_event(true).with_writer(writer).finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(target: env!("CARGO_PKG_NAME"), "{message}");
            });
        }
    }
}

fn stderr_writer() -> (NonBlocking, WorkerGuard) {
    // The worker flushes when no line is waiting, so that a burst of lines takes few system calls.
    let stderr = BufWriter::new(io::stderr());
    NonBlockingBuilder::default().buffered_lines_limit(BUFFERED_LINES).lossy(true).thread_name("log").finish(stderr)
}

/// Logs a panic, with a backtrace if `RUST_BACKTRACE` asks for one.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    tracing::error!(
        location = panic.location().map(tracing::field::display),
        backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(&backtrace)),
        "panic: {}",
        panic_message(panic.payload())
    );
}

fn panic_message(payload: &dyn Any) -> &str {
    let literal = payload.downcast_ref::<&str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
}
