//! Flags and environment: the only place that reads them. Each setting is a flag and a variable, and the flag wins.

mod effective;
mod environment;
mod flags;
mod store_file;
mod values;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches};
pub use clap_complete::Shell;

use crate::http::AccessLog;
use crate::store::{self, BackendKind, fallback};
use crate::telemetry::Format;
use flags::{ApiFlags, Cli, FallbackFlags, ServeFlags, Shared, Verb};
pub use store_file::StoreFile;
use values::{admin_of, named, otlp_of};

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Boxed: it has many more settings than the others.
    Serve(Box<Serve>),
    Import(Import),
    Healthcheck(Healthcheck),
    Completions(Shell),
    /// What `serve` would be given, and the text that says so.
    Config(Box<Serve>, String),
}

#[derive(Debug)]
pub struct Serve {
    pub store: Store,
    pub fallback: Option<Box<fallback::Settings>>,
    pub api: Api,
    pub seed: Seed,
    pub listen: SocketAddr,
    /// Where health and metrics are, if not with everything else.
    pub admin_listen: Option<SocketAddr>,
    pub request_timeout: Duration,
    pub header_timeout: Duration,
    pub write_timeout: Duration,
    pub max_connections: usize,
    /// How many threads serve, if somebody has said so.
    pub worker_threads: Option<usize>,
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    pub log: Log,
    pub access_log: AccessLog,
    /// Where traces are collected.
    pub otlp_endpoint: Option<String>,
}

/// What is logged, and how it looks.
#[derive(Clone, Debug)]
pub struct Log {
    pub filter: String,
    pub format: Format,
}

/// What the operator decides about answers.
#[derive(Debug)]
pub struct Api {
    pub default_limit: Option<usize>,
    pub max_limit: Option<usize>,
    pub cache_control: String,
    pub cors_origins: Vec<String>,
    /// Empty: those that the API reads.
    pub cors_headers: Vec<String>,
    /// The base of absolute links.
    pub public_url: Option<String>,
    /// The file with the JSON Schema of a record.
    pub schema: Option<PathBuf>,
    pub max_requests: usize,
    pub max_streams: usize,
    pub response_memory_limit: usize,
    pub server_timing: bool,
}

#[derive(Debug)]
pub struct Import {
    pub store: Store,
    /// `None` is standard input.
    pub file: Option<PathBuf>,
    pub skip_invalid: bool,
    pub require_id: bool,
    pub log: Log,
}

#[derive(Debug)]
pub struct Healthcheck {
    pub listen: SocketAddr,
    pub live: bool,
    pub timeout: Duration,
}

/// Which store, and how to use it.
#[derive(Debug)]
pub struct Store {
    pub url: Secret,
    /// The file that `url` was read from.
    pub file: Option<StoreFile>,
    pub options: store::Options,
}

/// What an empty embedded store is filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seed {
    /// The data compiled into the binary, if there is any.
    BuiltIn,
    File(PathBuf),
    None,
}

/// A text that may hold a password: only [`Secret::expose`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    /// The store's URL without user, password and options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            if let Some(BackendKind::InMemory | BackendKind::Local) = store::kind(&self.0) {
                return f.write_str(&self.0);
            }
            // Whatever it is, it may have been meant as a server's.
            let place = self.0.split('?').next().unwrap_or_default();
            return match place.rsplit_once('@') {
                Some((_, place)) => write!(f, "***@{place}"),
                None => f.write_str(place),
            };
        };
        let (user_info, place) = rest.split_at(store::url::user_info_len(rest));
        let secret = if user_info.is_empty() { "" } else { "***@" };
        let place = place.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{secret}{place}")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads the command line and the environment. On a wrong one, on `--help` and on `--version` it prints and exits, as
/// command lines do.
pub fn read() -> Command {
    let matches = environment::matches();
    Cli::from_arg_matches(&matches).and_then(|cli| command(cli, &matches)).unwrap_or_else(|error| error.exit())
}

/// The completion script for `shell`.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "records", &mut script);
    script
}

fn command(cli: Cli, matches: &clap::ArgMatches) -> Result<Command, clap::Error> {
    let Cli { shared, serve, verb } = cli;
    let verb = match verb {
        None => Verb::Serve(serve),
        Some(verb) => {
            refuse_before_the_verb(matches)?;
            verb
        }
    };
    Ok(match verb {
        Verb::Serve(serve) => Command::Serve(Box::new(serve_of(shared, serve, matches)?)),
        Verb::Import { file, skip_invalid, require_id } => Command::Import(Import {
            log: log_of(&shared),
            store: store_of(shared, matches)?,
            file: (file.as_os_str() != "-").then_some(file),
            skip_invalid,
            require_id,
        }),
        Verb::Healthcheck { listen, admin_listen, live, timeout } => {
            let matches = matches.subcommand_matches("healthcheck").unwrap_or(matches);
            let typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
            let admin = admin_listen.filter(|_| typed("admin_listen") || !typed("listen"));
            Command::Healthcheck(Healthcheck { listen: admin.unwrap_or(listen), live, timeout })
        }
        Verb::Config(serve) => {
            let serve = serve_of(shared, serve, matches)?;
            let matches = matches.subcommand_matches("config").unwrap_or(matches);
            let text = effective::describe(&Cli::command(), matches, &serve.store.url);
            Command::Config(Box::new(serve), text)
        }
        Verb::Completions { shell } => Command::Completions(shell),
    })
}

fn serve_of(shared: Shared, flags: ServeFlags, matches: &clap::ArgMatches) -> Result<Serve, clap::Error> {
    let log = log_of(&shared);
    let store = store_of(shared, matches)?;
    Ok(Serve {
        admin_listen: admin_of(flags.admin_listen, flags.listen, matches)?,
        otlp_endpoint: otlp_of(flags.otlp_endpoint, matches)?,
        fallback: fallback_of(flags.fallback, &store, flags.request_timeout, matches)?,
        seed: match flags.seed.as_deref() {
            None => Seed::BuiltIn,
            Some("none") => Seed::None,
            Some(file) => Seed::File(file.into()),
        },
        api: api_of(flags.api, matches)?,
        log,
        store,
        listen: flags.listen,
        request_timeout: flags.request_timeout,
        header_timeout: flags.header_timeout,
        write_timeout: flags.write_timeout,
        max_connections: flags.max_connections,
        worker_threads: flags.worker_threads,
        access_log: flags.access_log,
        drain_delay: flags.drain_delay,
        drain_timeout: flags.drain_timeout,
    })
}

fn log_of(shared: &Shared) -> Log {
    Log { filter: shared.log.clone(), format: shared.log_format }
}

fn api_of(flags: ApiFlags, matches: &clap::ArgMatches) -> Result<Api, clap::Error> {
    if let (Some(usual), Some(most)) = (flags.default_limit, flags.max_limit)
        && usual > most
    {
        let (default, max) = (named("default_limit", matches), named("max_limit", matches));
        return Err(wrong(format!("{default} is {usual}, and {max} is {most}: it must not be less")));
    }
    Ok(Api {
        default_limit: flags.default_limit,
        max_limit: flags.max_limit,
        cache_control: if flags.cache_control == "none" { String::new() } else { flags.cache_control },
        cors_origins: flags.cors_origin.into_iter().filter(|origin| !origin.is_empty()).collect(),
        cors_headers: flags.cors_headers.into_iter().filter(|name| !name.is_empty()).collect(),
        public_url: flags.public_url,
        schema: flags.schema,
        max_requests: flags.max_requests,
        max_streams: flags.max_streams,
        response_memory_limit: flags.response_memory_limit,
        server_timing: flags.server_timing,
    })
}

/// A flag of `serve` that stands before a verb would be read and then ignored.
fn refuse_before_the_verb(matches: &clap::ArgMatches) -> Result<(), clap::Error> {
    let flags = ServeFlags::augment_args(clap::Command::new(""));
    let before = |flag: &&clap::Arg| matches.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine);
    match flags.get_arguments().find(before).and_then(clap::Arg::get_long) {
        None => Ok(()),
        Some(flag) => Err(wrong(format!("--{flag} stands before the verb: it goes behind the verb, if that knows it"))),
    }
}

fn wrong(text: String) -> clap::Error {
    Cli::command().error(clap::error::ErrorKind::ValueValidation, text)
}

fn store_of(shared: Shared, matches: &clap::ArgMatches) -> Result<Store, clap::Error> {
    let typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    let (url, file) = match (shared.store, shared.store_file) {
        (Some(_), Some(_)) if typed("store") == typed("store_file") => {
            return Err(wrong("the store is named twice: by a URL and by a file. Set only one of the two".into()));
        }
        (Some(url), file) if file.is_none() || typed("store") => (Secret(url), None),
        (_, Some(path)) => {
            let file =
                StoreFile::open(path).map_err(|error| wrong(format!("{}: {error}", named("store_file", matches))))?;
            (file.used().clone(), Some(file))
        }
        _ => {
            let url = store::DEFAULT_URL.ok_or_else(|| {
                wrong(
                    "this build serves no sample data: name the store by --store, RECORDS_STORE or RECORDS_STORE_FILE"
                        .into(),
                )
            })?;
            (Secret(url.to_owned()), None)
        }
    };
    let options = store::Options { collection: shared.collection, timeout: shared.store_timeout, ..Default::default() };
    Ok(Store { url, file, options })
}

/// Spreads the first snapshots of instances that start together.
const FIRST_SNAPSHOT_WITHIN: Duration = Duration::from_secs(1);

fn fallback_of(
    flags: FallbackFlags,
    store: &Store,
    request_timeout: Duration,
    matches: &clap::ArgMatches,
) -> Result<Option<Box<fallback::Settings>>, clap::Error> {
    let Some(copy) = flags.fallback else { return Ok(None) };
    let name = named("fallback", matches);
    if matches!(store::kind(store.url.expose()), Some(BackendKind::InMemory | BackendKind::Local)) {
        let text = format!("a fallback is for a store that can be away, which {} cannot: leave {name} out", store.url);
        return Err(wrong(text));
    }
    if store::kind(&copy) == Some(BackendKind::Remote) {
        return Err(wrong(format!("{name}: the fallback must be in this process: memory: or sled:DIRECTORY")));
    }
    if flags.fallback_timeout * 2 > request_timeout {
        let (after, timeout) = (named("fallback_timeout", matches), named("request_timeout", matches));
        return Err(wrong(format!("{after} must be at most half of {timeout}: the copy needs time to answer too")));
    }
    Ok(Some(Box::new(fallback::Settings {
        url: copy,
        source: format!("{}, collection {}", store.url, store.options.collection),
        mode: flags.fallback_mode,
        timeout: flags.fallback_timeout,
        max_age: flags.fallback_max_age,
        first_snapshot_within: FIRST_SNAPSHOT_WITHIN,
        snapshot_interval: flags.fallback_snapshot_interval,
        size_limit: flags.fallback_size_limit as u64,
        options: store::Options::default(),
    })))
}
