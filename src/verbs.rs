//! One function per verb of the command line. Belongs to the binary: it prints, and decides the exit status.

use std::fmt::Display;
use std::io::{self, Cursor, Write};
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use records::config::{self, Healthcheck, Import, Log, Seed, Serve, Shell, Store as StoreSettings, StoreFile};
use records::document::reader::InvalidDocument;
use records::import::{self, ImportOptions, Input, Progress};
use records::store::{self, BackendKind, EmbeddedStore, Opened, Store};
use records::telemetry::{Connections, ErrorCounter, Format, Telemetry, VERSION};
use records::{healthcheck, http, server, telemetry};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{self, Runtime};
use tokio::task::spawn_blocking;

/// Stored, but for what was skipped.
const SKIPPED: u8 = 3;

/// What an import leaves to a store on the disk for its cache.
const IMPORT_CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// The time between two looks at the file with the store's URL. It is polled because a mounted secret changes by the swap of a
/// symbolic link in a directory above, which a watch on the file does not see.
const STORE_FILE_INTERVAL: Duration = Duration::from_secs(2);

/// How long a server that stops waits for threads that wait for the disk, or for a pipe.
const BLOCKED: Duration = Duration::from_secs(3);

/// What went wrong, said to whoever started the program.
struct Failure(String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

type Outcome = Result<ExitCode, Failure>;

pub fn serve(settings: Serve) -> ExitCode {
    let threads = settings.worker_threads.unwrap_or_else(processors);
    let format = settings.log.format;
    let outcome = start(&settings.log, settings.otlp_endpoint.as_deref(), threads).and_then(|(telemetry, runtime)| {
        let outcome = runtime.block_on(serving(settings, telemetry.dropped_lines()));
        // What is being written is let through. A seed that is read from a pipe might be waited for to the end of days.
        runtime.shutdown_timeout(BLOCKED);
        outcome
    });
    finish(format, outcome)
}

pub fn import(settings: Import) -> ExitCode {
    let started = start(&settings.log, None, processors());
    let format = settings.log.format;
    let outcome = started.and_then(|(_telemetry, runtime)| {
        let outcome = runtime.block_on(importing(settings));
        // As above: the reason is told now, and not when whoever writes into the pipe has ended.
        runtime.shutdown_timeout(BLOCKED);
        outcome
    });
    finish(format, outcome)
}

pub fn healthcheck(settings: Healthcheck) -> ExitCode {
    let path = if settings.live { "/livez" } else { "/readyz" };
    let asked = healthcheck::ask(settings.listen, path, settings.timeout);
    finish(Format::Text, asked.map(|()| ExitCode::SUCCESS).map_err(Failure::from))
}

/// Prints `text`, if `serve` would not refuse what it says.
pub fn config(settings: &Serve, text: &str) -> ExitCode {
    let checked = || {
        telemetry::parse_filter(&settings.log.filter)?;
        answers(settings)?;
        // The driver's parser wants one.
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(check(settings))?;
        print(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    };
    finish(Format::Text, checked())
}

/// What is wrong with the settings, as far as that shows without making or connecting to anything.
async fn check(settings: &Serve) -> Result<(), Failure> {
    let reported = |error: store::Error| Failure(error.report().to_string());
    let url = settings.store.url.expose();
    store::check(url).await.map_err(reported)?;
    if let Some(fallback) = &settings.fallback {
        store::fallback::check(&fallback.url).await.map_err(reported)?;
    }
    match &settings.seed {
        // Opening a pipe would wait for whoever writes to it, and take from `serve` what is written.
        Seed::File(path) if std::fs::metadata(path).is_ok_and(|file| !file.is_file() && !file.is_dir()) => Ok(()),
        // Nobody fills a store that is elsewhere.
        Seed::File(path) if store::kind(url) != Some(BackendKind::Remote) => open_seed(path).map(drop),
        _ => Ok(()),
    }
}

fn open_seed(path: &Path) -> Result<Input, Failure> {
    let cannot = |error| Failure(format!("cannot read the seed {}: {error}", path.display()));
    Input::open(Some(path)).map_err(cannot)
}

pub fn completions(shell: Shell) -> ExitCode {
    finish(Format::Text, print(&config::completions(shell)).map(|()| ExitCode::SUCCESS))
}

/// To standard output. A reader that has closed its end, as `head` does, has read enough.
fn print(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn start(log: &Log, otlp_endpoint: Option<&str>, threads: usize) -> Result<(Telemetry, Runtime), Failure> {
    let telemetry = telemetry::start(&log.filter, log.format, otlp_endpoint)?;
    // In this order, of which the last is dropped first: what the runtime's threads say when it ends is logged too.
    Ok((telemetry, runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?))
}

fn finish(format: Format, outcome: Outcome) -> ExitCode {
    outcome.unwrap_or_else(|Failure(text)| {
        telemetry::report_error(format, &text);
        ExitCode::FAILURE
    })
}

async fn open(settings: &StoreSettings) -> Result<Opened, Failure> {
    store::open(settings.url.expose(), settings.options.clone())
        .await
        .map_err(|error| Failure(error.report().to_string()))
}

/// Connects `store` by each URL that `file` comes to hold, and tries one that does not work again until it does or is replaced.
async fn follow(mut file: StoreFile, store: Arc<dyn Store>) {
    let mut reported = String::new();
    loop {
        tokio::time::sleep(STORE_FILE_INTERVAL).await;
        let read = spawn_blocking(move || (file.changed(), file)).await;
        let Ok((changed, returned)) = read else { return };
        file = returned;
        let failure = match changed {
            Ok(None) => {
                reported.clear();
                continue;
            }
            Ok(Some(url)) => match store.reconnect(url.expose().to_owned()).await {
                Ok(()) => {
                    tracing::info!("the URL in {file} has changed, and is in use");
                    file.set_used(url);
                    continue;
                }
                // Without its causes, the text stays the same for as long as the reason does.
                Err(error) => (error.to_string(), error.report().to_string()),
            },
            Err(text) => (text.clone(), text),
        };
        if reported != failure.0 {
            tracing::warn!("the URL in {file} has changed, and cannot be used; keeping the last one: {}", failure.1);
            reported = failure.0;
        }
    }
}

async fn serving(mut settings: Serve, dropped_lines: ErrorCounter) -> Outcome {
    // Heard from the beginning: a stop while the seed is loaded is a stop, and the next start loads it again.
    let mut stops = server::signals()?;
    let mut answers = answers(&settings)?;
    answers.dropped_lines = Some(dropped_lines);
    let connections = Connections::default();
    answers.connections = Some(connections.clone());
    check(&settings).await?;
    // Before the store, which takes long and leaves files, and would for nothing. Until there is an answer clients are refused.
    let taken = take("listen", settings.listen)?;
    let admin = settings.admin_listen.map(|admin| take("admin-listen", admin)).transpose()?;
    let store_file = settings.store.file.take();
    let prepared = async {
        let opened = open(&settings.store).await?;
        if let (Opened::Remote(store), Some(file)) = (&opened, store_file) {
            tokio::spawn(follow(file, store.clone()));
        }
        match (opened, settings.fallback) {
            (Opened::Embedded(store), _) => {
                fill(&*store, &settings.seed).await?;
                Ok(Opened::Embedded(store).into_store())
            }
            (Opened::Remote(store), None) => Ok(store),
            (Opened::Remote(store), Some(fallback)) => {
                let over = store::fallback::over(store, *fallback).await;
                over.map_err(|error| Failure(error.report().to_string()))
            }
        }
    };
    let store = tokio::select! {
        biased;
        store = prepared => store?,
        Some(()) = stops.next() => {
            tracing::info!("stopped before the store was ready");
            return Ok(ExitCode::SUCCESS);
        }
    };
    // The store logs what it finds, such as a collection that does not exist.
    tokio::spawn({
        let store = store.clone();
        async move { store.health().await.map(drop) }
    });
    let listener = taken.listen()?;
    let admin = admin.map(Taken::listen).transpose()?;
    let draining = http::Draining::default();
    let limits = server::Limits {
        header_timeout: settings.header_timeout,
        write_timeout: settings.write_timeout,
        max_connections: server::connections_within(settings.max_connections),
        connections,
        drain_delay: settings.drain_delay,
        drain_timeout: settings.drain_timeout,
    };
    let address = listener.local_addr()?;
    let listening = || tracing::info!(version = VERSION, store = %settings.store.url, "listening on http://{address}");
    let begin_drain = || {
        tracing::info!("stopping: no longer ready");
        draining.begin();
    };
    let cut = match admin {
        None => {
            let service = http::service(store, answers, draining.clone());
            listening();
            server::run(listener, service, limits, stops, begin_drain).await
        }
        Some(admin) => {
            tracing::info!("health and metrics on http://{}", admin.local_addr()?);
            let (service, operations) = http::services(store, answers, draining.clone());
            let admin_server = server::AdminServer::start(admin, operations, limits.clone());
            listening();
            let cut = server::run(listener, service, limits, stops, begin_drain).await;
            // Last, so that a probe can see that it is not ready until there is nothing left to see.
            cut + admin_server.stop().await
        }
    };
    tracing::info!(cut, "stopped");
    Ok(ExitCode::SUCCESS)
}

/// An address that is bound, and not listened on yet.
struct Taken {
    setting: &'static str,
    address: SocketAddr,
    socket: TcpSocket,
}

fn take(setting: &'static str, address: SocketAddr) -> Result<Taken, Failure> {
    let socket = server::bind(address).map_err(|error| cannot_listen(setting, address, &error))?;
    Ok(Taken { setting, address, socket })
}

impl Taken {
    fn listen(self) -> Result<TcpListener, Failure> {
        server::listen(self.socket).map_err(|error| cannot_listen(self.setting, self.address, &error))
    }
}

fn cannot_listen(setting: &str, address: SocketAddr, error: &io::Error) -> Failure {
    Failure(format!("cannot listen on {address} (--{setting}): {error}"))
}

/// What the HTTP room is told of the settings.
fn answers(settings: &Serve) -> Result<http::Settings, Failure> {
    let api = &settings.api;
    let mut answers = http::Settings::from(settings.request_timeout)
        .cache_control(&api.cache_control)
        .map_err(|wrong| Failure(format!("--cache-control (RECORDS_CACHE_CONTROL): {wrong}")))?
        .cors_origins(api.cors_origins.iter().map(String::as_str))
        .map_err(|wrong| Failure(format!("--cors-origin (RECORDS_CORS_ORIGIN): {wrong}")))?;
    if !api.cors_headers.is_empty() {
        answers = answers
            .cors_headers(api.cors_headers.iter().map(String::as_str))
            .map_err(|wrong| Failure(format!("--cors-headers (RECORDS_CORS_HEADERS): {wrong}")))?;
    }
    if let Some(url) = &api.public_url {
        answers =
            answers.public_url(url).map_err(|wrong| Failure(format!("--public-url (RECORDS_PUBLIC_URL): {wrong}")))?;
    }
    if let Some(file) = &api.schema {
        let schema = std::fs::read(file).map_err(|error| error.to_string());
        answers = schema
            .and_then(|schema| answers.record_schema(&schema))
            .map_err(|wrong| Failure(format!("--schema (RECORDS_SCHEMA): {}: {wrong}", file.display())))?;
    }
    answers.access_log = settings.access_log;
    answers.default_limit = api.default_limit;
    answers.max_limit = api.max_limit;
    answers.max_requests = api.max_requests;
    answers.max_streams = api.max_streams;
    answers.response_memory_limit = api.response_memory_limit;
    answers.server_timing = api.server_timing;
    Ok(answers)
}

async fn fill(store: &dyn EmbeddedStore, seed: &Seed) -> Result<(), Failure> {
    let (shown, seed) = match (seed, store::SEED) {
        (Seed::None, _) | (Seed::BuiltIn, None) => ("none".to_owned(), None),
        (Seed::BuiltIn, Some(seed)) => {
            let name = "the sample data".to_owned();
            (name.clone(), Some(import::Seed { name, input: Input::Stream(Box::new(Cursor::new(seed))) }))
        }
        (Seed::File(path), _) => {
            let shown = path.display().to_string();
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            // On another thread: opening a named pipe waits for whoever writes to it.
            let input = spawn_blocking({
                let path = path.clone();
                move || open_seed(&path)
            });
            let input = input.await??;
            (shown, Some(import::Seed { name: whole.display().to_string(), input }))
        }
    };
    match import::seed(store, seed).await {
        Ok(0) => Ok(()),
        Ok(records) => {
            tracing::info!(records, "filled the store with {shown}");
            Ok(())
        }
        Err(part @ import::Error::Part(_)) => Err(part.into()),
        Err(error) => Err(Failure(format!("the seed {shown}: {error}"))),
    }
}

async fn importing(settings: Import) -> Outcome {
    let name = settings.file.as_ref().map_or("standard input".into(), |file| file.display().to_string());
    let input =
        Input::open(settings.file.as_deref()).map_err(|error| Failure(format!("cannot read {name}: {error}")))?;
    let mut place = settings.store;
    // Nothing is read again.
    place.options.cache_bytes = IMPORT_CACHE_BYTES;
    let store = open(&place).await?;
    if let Opened::Embedded(store) = &store {
        match import::seed(&**store, None).await {
            // Imported beside it, or over it: still nobody knows what of the seed is missing.
            Err(part @ import::Error::Part(_)) => tracing::warn!("{part}"),
            seeded => drop(seeded?),
        }
    }
    let store = store.into_store();
    let options = ImportOptions { skip_invalid: settings.skip_invalid, require_id: settings.require_id };
    let report = import::run(&*store, input, options, Bar::default()).await.map_err(|error| match error {
        // Of a seed nothing can be left out.
        import::Error::Invalid(..) => Failure(format!("{name}: {error}, or leave them out by --skip-invalid")),
        error => Failure(format!("{name}: {error}")),
    })?;
    let said = format!("{} documents stored in {}, {} skipped", report.stored, place.url, report.skipped);
    print(format!("{said}\n").as_bytes()).map_err(|Failure(error)| Failure(format!("{said}; but {error}")))?;
    Ok(if report.skipped > 0 { ExitCode::from(SKIPPED) } else { ExitCode::SUCCESS })
}

/// A bar on a terminal; elsewhere only what is wrong.
struct Bar(ProgressBar);

impl Default for Bar {
    fn default() -> Self {
        Self(ProgressBar::hidden())
    }
}

impl Progress for Bar {
    fn bad(&mut self, bad: &InvalidDocument) {
        self.0.suspend(|| eprintln!("{bad}"));
    }

    fn begin(&mut self, doing: &'static str, bytes: Option<u64>) {
        self.0 = ProgressBar::new(0);
        self.0.set_message(doing);
        let template = match bytes {
            Some(bytes) => {
                self.0.set_length(bytes);
                "{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left"
            }
            None => "{msg} {spinner} {bytes}, {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
    }

    fn at(&mut self, bytes: u64) {
        self.0.set_position(bytes);
    }

    fn end(&mut self) {
        self.0.finish_and_clear();
    }
}
