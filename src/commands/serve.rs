//! `records serve`.

use std::io::{self, Cursor, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use records::auth::KeyFile;
use records::client::TrustedProxies;
use records::config::{self, ListenAddress, Seed, Serve, StoreFile};
use records::http::RateLimit;
use records::import::{self, Input};
use records::jwt::Tokens;
use records::reload::Reload;
use records::store::{self, BackendKind, EmbeddedStore, Opened, Store};
use records::telemetry::{Connections, ErrorCounter, VERSION};
use records::{http, server, tls};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::spawn_blocking;

use super::{CliError, Outcome, open, print, run_logged};

/// The time between two looks at the file with the store's URL. It is polled because a mounted secret changes by the swap of a
/// symbolic link in a directory above, which a watch on the file does not see.
const STORE_FILE_INTERVAL: Duration = Duration::from_secs(2);

/// The time between two looks at the files of API keys, tokens and TLS.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

pub fn run(settings: Serve) -> Outcome {
    let (log, endpoint) = (settings.args.log.clone(), settings.args.otlp_endpoint.clone());
    run_logged(&log, endpoint.as_deref(), settings.args.server.worker_threads, |runtime, telemetry| {
        runtime.block_on(serve(settings, telemetry.dropped_lines()))
    })
}

/// Checks the settings, as far as that needs neither a connection nor new files.
///
/// Returns what is ignored in them, and why.
pub async fn check(settings: &Serve) -> Result<Vec<String>, CliError> {
    let report = |error: store::Error| CliError::opening(&error);
    let url = settings.store.url.expose();
    let warnings = store::check(url, &settings.store.options).await.map_err(report)?;
    if let Some(fallback) = &settings.fallback {
        store::fallback::check(fallback).await.map_err(report)?;
    }
    match &settings.seed {
        // Opening a pipe would wait for its writer, and take from `serve` the data that it writes.
        Seed::File(path) if std::fs::metadata(path).is_ok_and(|file| !file.is_file() && !file.is_dir()) => {}
        // The service fills embedded stores only.
        Seed::File(path) if store::kind(url) != Some(BackendKind::Remote) => drop(open_seed(path)?),
        _ => {}
    }
    Ok(warnings)
}

fn open_seed(path: &Path) -> Result<Input, CliError> {
    let cannot = |error| CliError::new(format!("cannot read the seed {}: {error}", path.display()));
    Input::open(Some(path)).map_err(cannot)
}

/// Reconnects `store` whenever the URL in `file` changes. Retries a URL that does not work until it works or is replaced.
async fn follow(mut file: StoreFile, store: Arc<dyn Store>, failure: Arc<StoreFileFailure>) {
    loop {
        tokio::time::sleep(STORE_FILE_INTERVAL).await;
        let read = spawn_blocking(move || (file.changed(), file)).await;
        let Ok((changed, returned)) = read else { return };
        file = returned;
        let (text, report) = match changed {
            Ok(None) => {
                failure.set(None);
                continue;
            }
            Ok(Some(url)) => match store.reconnect(url.expose().to_owned()).await {
                Ok(()) => {
                    tracing::info!("the URL in {file} has changed, and is in use");
                    file.set_used(url);
                    failure.set(None);
                    continue;
                }
                // A failure is logged again when its text changes. The causes change with each attempt, so they do not count.
                Err(error) => (error.to_string(), error.report().to_string()),
            },
            Err(text) => (text.clone(), text),
        };
        if failure.set(Some(text)) {
            tracing::warn!("the URL in {file} has changed, and cannot be used; keeping the last one: {report}");
        }
    }
}

/// The reason why the URL in the store's file cannot be used. The store follows that file itself, since it has to connect.
#[derive(Debug, Default)]
struct StoreFileFailure(Mutex<Option<String>>);

impl StoreFileFailure {
    /// Returns true if the reason is another than before.
    fn set(&self, reason: Option<String>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = *known != reason;
        *known = reason;
        is_other
    }
}

impl Reload for StoreFileFailure {
    fn reload(&self) {}

    fn degraded(&self) -> Option<String> {
        let failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failure
            .as_ref()
            .map(|_| "the URL of the store has changed and cannot be used; the previous one stays valid".to_owned())
    }
}

async fn serve(mut settings: Serve, dropped_lines: ErrorCounter) -> Outcome {
    // Signals also stop the service while the seed is loaded; the next start loads it again.
    let mut stops = server::signals()?;
    let mut http_settings = http_settings(&settings)?;
    http_settings.dropped_lines = Some(dropped_lines);
    http_settings.process_memory_limit = config::process_memory_limit();
    let connections = Connections::default();
    http_settings.connections = Some(connections.clone());
    check(&settings).await?;
    let tls = open_tls(&settings)?;
    http_settings.reloaded.extend(tls.as_ref().map(tls::Acceptor::files));
    if !http_settings.reloaded.is_empty() {
        tokio::spawn(reload(http_settings.reloaded.clone()));
    }
    let store_file = settings.store.file.take().map(|file| (file, Arc::<StoreFileFailure>::default()));
    http_settings.reloaded.extend(store_file.iter().map(|(_, failure)| failure.clone() as Arc<dyn Reload>));
    if let Some(tokens) = http_settings.tokens.clone() {
        tokens.refresh().await;
        tokio::spawn(async move { tokens.follow().await });
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    // A taken address is reported before the store is opened, which takes long and creates files. Clients are refused until
    // the service listens.
    let args = &settings.args.server;
    let bound = bind("listen", &args.listen)?;
    let admin = args.admin_listen.as_ref().map(|admin| bind("admin-listen", admin)).transpose()?;
    let limits = server::Limits {
        tls,
        header_timeout: args.header_timeout,
        write_timeout: args.write_timeout,
        max_connections: server::connections_within(args.max_connections),
        max_connections_per_address: args.max_connections_per_address,
        trusted_proxies: http_settings.trusted_proxies.clone(),
        with_peer_address: http_settings.rate_limit.is_some(),
        connections,
        drain_delay: args.drain_delay,
        drain_timeout: args.drain_timeout,
    };
    let exposure = Arc::clone(&settings.store.options.exposure);
    let prepared = async {
        let opened = open(&settings.store).await?;
        if let (Opened::Remote(store), Some((file, failure))) = (&opened, store_file) {
            tokio::spawn(follow(file, store.clone(), failure));
        }
        match (opened, settings.fallback) {
            (Opened::Embedded(store), _) => {
                fill(&*store, &settings.seed).await?;
                Ok(store::exposed(Opened::Embedded(store).into_store(), exposure))
            }
            (Opened::Remote(store), None) => Ok(store),
            (Opened::Remote(store), Some(fallback)) => {
                let over = store::fallback::over(store, *fallback).await;
                over.map_err(|error| CliError::opening(&error))
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
    let listener = bound.listen()?;
    let admin = admin.map(Bound::listen).transpose()?;
    let draining = http::Draining::default();
    let address = listener.local_addr()?;
    let public_url = settings.args.api.public_url;
    let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let report_listening = || {
        tracing::info!(version = VERSION, store = %settings.store.url, "listening on {scheme}://{address}");
        if io::stdout().is_terminal() {
            // Serving does not depend on the terminal.
            let _ = print(addresses(scheme, address, public_url.as_deref(), admin_address).as_bytes());
        }
    };
    let begin_drain = || {
        tracing::info!("stopping: no longer ready");
        draining.begin();
    };
    let cut = match admin {
        None => {
            let service = http::service(store, http_settings, draining.clone());
            report_listening();
            server::run(listener, service, limits, stops, begin_drain).await
        }
        Some(admin) => {
            tracing::info!("health and metrics on http://{}", admin.local_addr()?);
            let (service, operations) = http::services(store, http_settings, draining.clone());
            let admin_server = server::AdminServer::start(admin, operations, limits.clone());
            report_listening();
            let cut = server::run(listener, service, limits, stops, begin_drain).await;
            // The admin server stops last, so that probes see "not ready" for the whole drain.
            cut + admin_server.stop().await
        }
    };
    tracing::info!(cut, "stopped");
    Ok(ExitCode::SUCCESS)
}

/// The URLs of the service, for the person who started it on a terminal.
fn addresses(scheme: &str, address: SocketAddr, public_url: Option<&str>, admin: Option<SocketAddr>) -> String {
    let reachable = |address: SocketAddr| match address.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        false => address,
    };
    let base = public_url.map_or_else(|| format!("{scheme}://{}", reachable(address)), str::to_owned);
    let mut text = format!("\n  API     {base}/api/v1/records\n");
    if http::HAS_PAGES {
        text += &format!("  Page    {base}/\n  Docs    {base}/docs/\n");
    }
    if let Some(admin) = admin {
        text += &format!("  Status  http://{}/status\n", reachable(admin));
    }
    text + "\n  Ctrl-C stops it.\n\n"
}

/// An address that is bound, and not listened on yet.
struct Bound {
    name: String,
    socket: TcpSocket,
}

fn bind(setting: &str, address: &ListenAddress) -> Result<Bound, CliError> {
    let name = format!("{address} (--{setting})");
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "this name has no address");
    for address in address.resolve().map_err(|error| cannot_listen(&name, &error))? {
        match server::bind(address) {
            Ok(socket) => return Ok(Bound { name, socket }),
            // Clients would reach the other program by the first address.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(cannot_listen(&name, &error)),
            Err(error) => failure = error,
        }
    }
    Err(cannot_listen(&name, &failure))
}

impl Bound {
    fn listen(self) -> Result<TcpListener, CliError> {
        server::listen(self.socket).map_err(|error| cannot_listen(&self.name, &error))
    }
}

fn cannot_listen(name: &str, error: &io::Error) -> CliError {
    CliError::new(format!("cannot listen on {name}: {error}"))
}

/// Returns the settings of the HTTP service.
pub fn http_settings(settings: &Serve) -> Result<http::Settings, CliError> {
    let api = &settings.args.api;
    let names = |texts: &[String]| texts.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>();
    let text = |flag, variable, error| format!("--{flag} ({variable}): {error}");
    let named = |flag, variable| move |error: String| CliError::setting(text(flag, variable, error));
    // The value may be right: the file is missing, or wrong.
    let in_file = |flag, variable| move |error: String| CliError::new(text(flag, variable, error));
    let cache_control = if api.cache_control == "none" { "" } else { &api.cache_control };
    let mut http = http::Settings::from(settings.args.server.request_timeout)
        .cache_control(cache_control)
        .map_err(named("cache-control", "RECORDS_CACHE_CONTROL"))?
        .cors_origins(names(&api.cors_origin).iter().map(String::as_str))
        .map_err(named("cors-origin", "RECORDS_CORS_ORIGIN"))?;
    let headers = names(&api.cors_headers);
    if !headers.is_empty() {
        let headers = headers.iter().map(String::as_str);
        http = http.cors_headers(headers).map_err(named("cors-headers", "RECORDS_CORS_HEADERS"))?;
    }
    if let Some(url) = &api.public_url {
        http = http.public_url(url).map_err(named("public-url", "RECORDS_PUBLIC_URL"))?;
    }
    if let Some(file) = &api.schema {
        let schema = std::fs::read(file).map_err(|error| error.to_string());
        let http_with = schema.and_then(|schema| http.record_schema(&schema));
        let with_path = |error| format!("{}: {error}", file.display());
        http = http_with.map_err(with_path).map_err(in_file("schema", "RECORDS_SCHEMA"))?;
    }
    if let Some(file) = &api.api_keys {
        let keys = KeyFile::open(file.clone());
        let keys = Arc::new(keys.map_err(in_file("api-keys", "RECORDS_API_KEYS"))?);
        http.reloaded.push(keys.clone());
        http.api_keys = Some(keys);
    }
    if let Some(jwt) = &settings.jwt {
        let tokens = Tokens::open(jwt.clone()).map_err(in_file("jwt-jwks", "RECORDS_JWT_JWKS"))?;
        http.reloaded.push(tokens.keys());
        http.tokens = Some(Arc::new(tokens));
    }
    http.description.clone_from(&settings.description);
    http.access_log = settings.args.access_log;
    http.default_limit = api.default_limit;
    http.max_limit = api.max_limit;
    http.exposure = Arc::clone(&settings.store.options.exposure);
    http.rate_limit = api.rate_limit.map(|limit| RateLimit { burst: api.rate_burst, ..limit });
    http.trusted_proxies = TrustedProxies(settings.args.server.trusted_proxies.clone());
    http.max_requests = api.max_requests;
    http.max_streams = api.max_streams;
    http.response_memory_limit = usize::try_from(api.response_memory_limit.as_u64())?;
    http.server_timing = api.server_timing;
    // Without a replica there is no staleness to bound.
    http.request_directives = api.request_directives && settings.fallback.is_some();
    Ok(http)
}

/// Returns what begins TLS on connections, if they have it.
pub fn open_tls(settings: &Serve) -> Result<Option<tls::Acceptor>, CliError> {
    let open = |files| {
        tls::Acceptor::open(files).map_err(|error| CliError::new(format!("TLS (--tls-cert, --tls-key): {error}")))
    };
    settings.tls.clone().map(open).transpose()
}

/// Follows the files of `values`.
async fn reload(values: Vec<Arc<dyn Reload>>) {
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        let values = values.clone();
        if spawn_blocking(move || values.iter().for_each(|value| value.reload())).await.is_err() {
            return;
        }
    }
}

async fn fill(store: &dyn EmbeddedStore, seed: &Seed) -> Result<(), CliError> {
    // The seed of a full store is not opened: it may be a pipe without a writer.
    if store.loading()?.is_none() && !store.is_empty()? {
        return Ok(());
    }
    let (shown, seed) = match (seed, store::SEED) {
        (Seed::None, _) | (Seed::BuiltIn, None) => ("none".to_owned(), None),
        (Seed::BuiltIn, Some(seed)) => {
            let name = "the sample data".to_owned();
            (name.clone(), Some(import::Seed { name, input: Input::Stream(Box::new(Cursor::new(seed))) }))
        }
        (Seed::File(path), _) => {
            let shown = path.display().to_string();
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            // On another thread: opening a named pipe waits for its writer.
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
        Err(error) => Err(CliError::new(format!("the seed {shown}: {error}"))),
    }
}
