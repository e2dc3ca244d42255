//! The commands. Belongs to the binary: it prints, and decides the exit status.

mod import;
mod serve;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use records::config::{self, Command, Healthcheck, LogArgs, Serve, Store};
use records::store::{self, Opened};
use records::telemetry::{self, Format, Telemetry};
use records::{auth, healthcheck};
use tokio::runtime::{self, Runtime};

/// The time that the process waits at its end for threads that are blocked by the disk or by a pipe.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(3);

/// The exit status when a setting must be changed, which is also that of clap.
const WRONG_SETTING: u8 = 2;

/// The reason why a command failed, for the person who ran it.
struct CliError {
    text: String,
    status: u8,
}

impl CliError {
    fn new(text: String) -> Self {
        Self { text, status: 1 }
    }

    /// An error of a setting, which no second try accepts.
    fn setting(error: impl Display) -> Self {
        Self { text: error.to_string(), status: WRONG_SETTING }
    }

    /// An error of the store while it is opened, when invalid input can only be a setting.
    fn opening(error: &store::Error) -> Self {
        let text = error.report().to_string();
        if error.kind() == store::Kind::Invalid { Self::setting(text) } else { Self::new(text) }
    }
}

impl<E: Display> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

type Outcome = Result<ExitCode, CliError>;

/// Runs `command` to its end.
pub fn run(command: Command) -> ExitCode {
    let format = match &command {
        Command::Serve(settings) => settings.args.log.log_format,
        Command::Import(settings) => settings.log.log_format,
        _ => Format::Text,
    };
    let outcome = match command {
        Command::Serve(settings) => serve::run(*settings),
        Command::Import(settings) => import::run(settings),
        Command::Healthcheck(settings) => check_health(&settings),
        Command::Config(settings) => print_config(&settings),
        Command::NewKey(name) => print_new_key(&name),
        Command::Completions(shell) => print(&config::completions(shell)),
        Command::Man => config::manual().map_err(CliError::from).and_then(|page| print(&page)),
    };
    outcome.unwrap_or_else(|CliError { text, status }| {
        telemetry::report_error(format, &text);
        ExitCode::from(status)
    })
}

fn check_health(settings: &Healthcheck) -> Outcome {
    let path = if settings.live { "/livez" } else { "/readyz" };
    let cannot = |error| CliError::new(format!("cannot find {}: {error}", settings.address));
    // A server that listens on all addresses of IPv6 also answers over IPv4.
    let address = settings.address.resolve().map_err(cannot)?.into_iter().min_by_key(|address| address.is_ipv6());
    let address = address.ok_or_else(|| CliError::new(format!("{} has no address", settings.address)))?;
    healthcheck::check(address, settings.scheme, path, settings.timeout)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the settings, unless `serve` would refuse them.
fn print_config(settings: &Serve) -> Outcome {
    telemetry::parse_filter(&settings.args.log.log).map_err(CliError::setting)?;
    serve::http_settings(settings)?;
    serve::open_tls(settings)?;
    // The MongoDB driver needs a runtime to parse URLs.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    for warning in runtime.block_on(serve::check(settings))? {
        // Logging is not initialised, and standard output is for the settings.
        let _ = writeln!(io::stderr(), "records: {warning}");
    }
    print(settings.description.as_bytes())
}

fn print_new_key(name: &str) -> Outcome {
    let auth::NewKey { secret, line } = auth::new_key(name).map_err(CliError::setting)?;
    print(format!("key:  {secret}\nline: {line}\n").as_bytes())
}

/// Prints to standard output. A closed pipe is no error: readers such as `head` stop early.
fn print(text: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Starts the log, the export of traces, and a runtime for `command`, and runs that.
fn run_logged(
    log: &LogArgs,
    otlp_endpoint: Option<&str>,
    threads: usize,
    command: impl FnOnce(&Runtime, &Telemetry) -> Outcome,
) -> Outcome {
    let telemetry = telemetry::start(&log.log, log.log_format, otlp_endpoint).map_err(CliError::setting)?;
    let runtime = runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let outcome = command(&runtime, &telemetry);
    // Bounded, because a thread may wait for ever for a pipe that it reads. The log ends after this, so that it has the last
    // lines of those threads.
    runtime.shutdown_timeout(BLOCKED_TIMEOUT);
    outcome
}

async fn open(settings: &Store) -> Result<Opened, CliError> {
    let opened = store::open(settings.url.expose(), settings.options.clone()).await;
    opened.map_err(|error| CliError::opening(&error))
}
