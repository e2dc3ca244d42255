//! Flags and environment: the only place that reads them. Each setting is a flag and a variable, and the flag wins.

mod effective;
mod values;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::store::{self, Place, fallback};
use crate::telemetry::Format;
use values::{admin_of, connections, count, format, mode, otlp_of, positive};

const ABOUT: &str = "Serves JSON records over HTTP, out of MongoDB or out of a store in this process";

const AFTER_HELP: &str = "\
Without a verb it serves: `records` is `records serve`.

Stores, by URL:
  memory:                          in this process, gone with it
  sled:DIRECTORY                   in a directory, for one process at a time
  mongodb://USER:PASS@HOST/DB      in a MongoDB (also mongodb+srv://); DB is `records` unless named
Which of them a build has is decided when it is built.

Examples:
  records                                              serve the sample data on 127.0.0.1:8080
  records --store mongodb://127.0.0.1/records          serve a MongoDB
  records --store mongodb://… --fallback memory:       the same, and go on while it is away
  RECORDS_STORE_FILE=/run/secrets/uri records          the same, the URI out of a file
  mongoexport … | records import - --store sled:data   fill a store";

const IMPORT_HELP: &str = "\
FILE holds MongoDB Extended JSON, canonical or relaxed: one document per line, which is what mongoexport writes, or one
JSON array. Every document needs an `_id`, and replaces the one that has it: importing twice is as good as once.

The whole file is checked first, and nothing of it is stored if anything in it is wrong. With --skip-invalid what is
wrong is reported and left out, and the rest is stored.

Exit status: 0 everything was stored; 1 it failed; 2 the command line is wrong; 3 stored, but for what was skipped.";

const LISTEN: &str = "127.0.0.1:8080";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Boxed: it has many more settings than the others.
    Serve(Box<Serve>),
    Import(Import),
    Healthcheck(Healthcheck),
    Completions(Shell),
    /// The text that `records config` prints.
    Config(String),
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
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    pub log: Log,
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
    pub max_requests: usize,
    pub server_timing: bool,
}

#[derive(Debug)]
pub struct Import {
    pub store: Store,
    /// `None` is standard input.
    pub file: Option<PathBuf>,
    pub skip_invalid: bool,
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
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str(&self.0) };
        // A password with an unescaped `/` or `?` is wrong, and is hidden all the same: up to the last `@`.
        let (secret, place) = rest.rsplit_once('@').map_or(("", rest), |(_, place)| ("***@", place));
        let place = place.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{secret}{place}")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Parser)]
#[command(name = "records", version, about = ABOUT, after_help = AFTER_HELP, max_term_width = 120)]
#[command(propagate_version = true)]
struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(flatten)]
    serve: ServeFlags,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Flags that more than one verb knows.
#[derive(Args)]
#[command(next_help_heading = "Store")]
struct Shared {
    /// The store, by URL: memory:, sled:DIRECTORY, mongodb://… or mongodb+srv://…
    #[arg(long, env = "RECORDS_STORE", hide_env_values = true, value_name = "URL", global = true)]
    store: Option<String>,
    /// A file with the store's URL, which then shows in no process list
    #[arg(long, env = "RECORDS_STORE_FILE", value_name = "FILE", global = true)]
    store_file: Option<PathBuf>,
    /// The collection, in a store that has collections
    #[arg(long, env = "RECORDS_COLLECTION", value_name = "NAME", default_value = "records", global = true)]
    collection: String,
    /// How long one call to a store in another process may take
    #[arg(long, env = "RECORDS_STORE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = positive, global = true)]
    store_timeout: Duration,
    /// What to log, as in `info` or `records=debug,mongodb=warn`
    #[arg(long, env = "RECORDS_LOG", value_name = "FILTER", default_value = "info", global = true)]
    log: String,
    /// How the log looks: `text`, or `json`, an object a line
    #[arg(long, env = "RECORDS_LOG_FORMAT", value_name = "FORMAT", default_value = "text", value_parser = format, global = true)]
    log_format: Format,
}

#[derive(Args)]
#[command(next_help_heading = "Serving")]
struct ServeFlags {
    /// Where to listen
    #[arg(long, env = "RECORDS_LISTEN", value_name = "ADDRESS:PORT", default_value = LISTEN)]
    listen: SocketAddr,
    /// Where to serve health and metrics, and nowhere else [default: with the records]
    #[arg(long, env = "RECORDS_ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
    admin_listen: Option<String>,
    /// What fills an embedded store that is empty at start: a file of Extended JSON, or `none`; the sample data when unset
    #[arg(long, env = "RECORDS_SEED", value_name = "FILE")]
    seed: Option<String>,
    /// How long a request may wait for its answer to begin
    #[arg(long, env = "RECORDS_REQUEST_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = positive)]
    request_timeout: Duration,
    /// How long a client may take for the head of a request, and keep an idle connection
    #[arg(long, env = "RECORDS_HEADER_TIMEOUT", value_name = "TIME", default_value = "15s", value_parser = positive)]
    header_timeout: Duration,
    /// How long a client may take no byte of its answer, before its connection is cut
    #[arg(long, env = "RECORDS_WRITE_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = positive)]
    write_timeout: Duration,
    /// How many connections are served at once; more wait
    #[arg(long, env = "RECORDS_MAX_CONNECTIONS", value_name = "NUMBER", default_value = "10000", value_parser = connections)]
    max_connections: usize,
    /// How long to go on serving, but not ready, after SIGTERM
    #[arg(long, env = "RECORDS_DRAIN_DELAY", value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    drain_delay: Duration,
    /// How long requests under way may take after that, before they are cut
    #[arg(long, env = "RECORDS_DRAIN_TIMEOUT", value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    /// Where traces are collected, by OTLP over HTTP; OpenTelemetry's other variables hold too [default: nowhere]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL")]
    otlp_endpoint: Option<String>,
    #[command(flatten)]
    api: ApiFlags,
    #[command(flatten)]
    fallback: FallbackFlags,
}

#[derive(Args)]
#[command(next_help_heading = "Fallback")]
struct FallbackFlags {
    /// Where to keep a copy of a MongoDB that answers when MongoDB does not: memory: or sled:DIRECTORY
    #[arg(long, env = "RECORDS_FALLBACK", value_name = "URL")]
    fallback: Option<String>,
    /// Who answers: MongoDB, and the copy when MongoDB does not (standby); or always the copy, as soon as there is one (replica)
    #[arg(long, env = "RECORDS_FALLBACK_MODE", requires = "fallback", value_name = "MODE", default_value = "standby", value_parser = mode)]
    fallback_mode: fallback::Mode,
    /// How long MongoDB may take for a lookup before the copy answers; a list may take four times that to begin
    #[arg(long, env = "RECORDS_FALLBACK_AFTER", requires = "fallback", value_name = "TIME", default_value = "250ms", value_parser = positive)]
    fallback_after: Duration,
    /// How old the copy may become before it no longer answers [default: any age]
    #[arg(long, env = "RECORDS_FALLBACK_MAX_AGE", requires = "fallback", value_name = "TIME", value_parser = positive)]
    fallback_max_age: Option<Duration>,
    /// How often to copy all records, where MongoDB is no replica set and tells no changes
    #[arg(long, env = "RECORDS_FALLBACK_REFRESH", requires = "fallback", value_name = "TIME", default_value = "1m", value_parser = positive)]
    fallback_refresh: Duration,
    /// How large the copy may become, in bytes: the records' JSON and 150 for each. A larger one is given up
    #[arg(long, env = "RECORDS_FALLBACK_MAX_BYTES", requires = "fallback", value_name = "BYTES", default_value = "1073741824", value_parser = clap::value_parser!(u64).range(1..))]
    fallback_max_bytes: u64,
}

#[derive(Args)]
#[command(next_help_heading = "Answers")]
struct ApiFlags {
    /// How many records a list without `limit` has [default: all]
    #[arg(long, env = "RECORDS_DEFAULT_LIMIT", value_name = "NUMBER", value_parser = count)]
    default_limit: Option<usize>,
    /// How many records any list has at most [default: all; 10000 for a list with `limit`]
    #[arg(long, env = "RECORDS_MAX_LIMIT", value_name = "NUMBER", value_parser = count)]
    max_limit: Option<usize>,
    /// The Cache-Control of answers that are records; empty for none
    #[arg(long, env = "RECORDS_CACHE_CONTROL", value_name = "VALUE", default_value = "no-cache")]
    cache_control: String,
    /// The origins whose pages may read the answers, with commas between them; * for all [default: none]
    #[arg(long, env = "RECORDS_CORS_ORIGIN", value_name = "ORIGINS", value_delimiter = ',')]
    cors_origin: Vec<String>,
    /// How many requests for records are answered at once; more are told to come back
    #[arg(long, env = "RECORDS_MAX_REQUESTS", value_name = "NUMBER", default_value = "1024", value_parser = count)]
    max_requests: usize,
    /// Tell every client how long its request took, and the store for it, in Server-Timing
    #[arg(long, env = "RECORDS_SERVER_TIMING")]
    server_timing: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve the records (what happens without a verb)
    Serve(ServeFlags),
    /// Put the documents of a file into the store
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// The file, or - for standard input
        file: PathBuf,
        /// Leave out what is wrong, and store the rest
        #[arg(long)]
        skip_invalid: bool,
    },
    /// Ask the server that listens on --listen, or --admin-listen, whether it is ready: exit status 0 if so, 1 if not
    Healthcheck {
        /// Where the server listens. Typed, it is asked even if RECORDS_ADMIN_LISTEN is set
        #[arg(long, env = "RECORDS_LISTEN", value_name = "ADDRESS:PORT", default_value = LISTEN)]
        listen: SocketAddr,
        /// Where the server has health and metrics, if that is elsewhere
        #[arg(long, env = "RECORDS_ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
        admin_listen: Option<String>,
        /// Ask whether it is alive, not whether it is ready
        #[arg(long)]
        live: bool,
        /// How long to wait for the answer
        #[arg(long, value_name = "TIME", default_value = "3s", value_parser = positive)]
        timeout: Duration,
    },
    /// Print the settings that `serve` would have, and where each comes from
    Config(ServeFlags),
    /// Print a completion script for a shell
    Completions { shell: Shell },
}

/// Reads the command line and the environment. On a wrong one, on `--help` and on `--version` it prints and exits, as
/// command lines do.
pub fn read() -> Command {
    let matches = Cli::command().get_matches();
    Cli::from_arg_matches(&matches).and_then(|cli| command(cli, &matches)).unwrap_or_else(|error| error.exit())
}

/// Writes the completion script for `shell` to standard output.
pub fn completions(shell: Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "records", &mut std::io::stdout());
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
        Verb::Serve(serve) => {
            let log = log_of(&shared);
            let store = store_of(shared, matches)?;
            Command::Serve(Box::new(Serve {
                admin_listen: admin_of(serve.admin_listen, Some(serve.listen))?,
                otlp_endpoint: otlp_of(serve.otlp_endpoint, matches)?,
                fallback: fallback_of(serve.fallback, &store, serve.request_timeout)?,
                seed: match serve.seed.as_deref() {
                    None | Some("") => Seed::BuiltIn,
                    Some("none") => Seed::None,
                    Some(file) => Seed::File(file.into()),
                },
                api: api_of(serve.api)?,
                log,
                store,
                listen: serve.listen,
                request_timeout: serve.request_timeout,
                header_timeout: serve.header_timeout,
                write_timeout: serve.write_timeout,
                max_connections: serve.max_connections,
                drain_delay: serve.drain_delay,
                drain_timeout: serve.drain_timeout,
            }))
        }
        Verb::Import { file, skip_invalid } => Command::Import(Import {
            log: log_of(&shared),
            store: store_of(shared, matches)?,
            file: (file.as_os_str() != "-").then_some(file),
            skip_invalid,
        }),
        Verb::Healthcheck { listen, admin_listen, live, timeout } => {
            let matches = matches.subcommand_matches("healthcheck").unwrap_or(matches);
            let typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
            let admin = admin_of(admin_listen, None)?.filter(|_| typed("admin_listen") || !typed("listen"));
            Command::Healthcheck(Healthcheck { listen: admin.unwrap_or(listen), live, timeout })
        }
        Verb::Config(serve) => {
            let store = store_of(shared, matches)?;
            admin_of(serve.admin_listen, Some(serve.listen))?;
            otlp_of(serve.otlp_endpoint, matches)?;
            api_of(serve.api)?;
            let matches = matches.subcommand_matches("config").unwrap_or(matches);
            Command::Config(effective::describe(&Cli::command(), matches, &store.url))
        }
        Verb::Completions { shell } => Command::Completions(shell),
    })
}

fn log_of(shared: &Shared) -> Log {
    Log { filter: shared.log.clone(), format: shared.log_format }
}

fn api_of(flags: ApiFlags) -> Result<Api, clap::Error> {
    if let (Some(usual), Some(most)) = (flags.default_limit, flags.max_limit)
        && usual > most
    {
        return Err(wrong(format!("--default-limit is {usual}, and --max-limit {most}: it must not be less")));
    }
    Ok(Api {
        default_limit: flags.default_limit,
        max_limit: flags.max_limit,
        cache_control: flags.cache_control,
        cors_origins: flags.cors_origin.into_iter().filter(|origin| !origin.is_empty()).collect(),
        max_requests: flags.max_requests,
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
    // Set to nothing is not set: compose files and manifests pass variables on that way.
    let url = shared.store.filter(|url| !url.is_empty());
    let file = shared.store_file.filter(|file| !file.as_os_str().is_empty());
    let typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    let url = match (url, file) {
        (Some(_), Some(_)) if typed("store") == typed("store_file") => {
            return Err(wrong("the store is named twice: by a URL and by a file. Set only one of the two".into()));
        }
        (Some(url), file) if file.is_none() || typed("store") => url,
        (_, Some(file)) => {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| wrong(format!("cannot read the store's URL out of {}: {error}", file.display())))?;
            match text.trim() {
                "" => return Err(wrong(format!("{} is empty: it must hold the store's URL", file.display()))),
                url => url.to_owned(),
            }
        }
        _ => store::DEFAULT_URL.map(str::to_owned).ok_or_else(|| {
            wrong(
                "this build serves no sample data: name the store by --store, RECORDS_STORE or RECORDS_STORE_FILE"
                    .into(),
            )
        })?,
    };
    let options = store::Options { collection: shared.collection, timeout: shared.store_timeout, ..Default::default() };
    Ok(Store { url: Secret(url), options })
}

fn fallback_of(
    flags: FallbackFlags,
    store: &Store,
    request_timeout: Duration,
) -> Result<Option<Box<fallback::Settings>>, clap::Error> {
    // Set to nothing is not set.
    let Some(copy) = flags.fallback.filter(|url| !url.is_empty()) else { return Ok(None) };
    if matches!(store::place(store.url.expose()), Some(Place::Memory | Place::Directory)) {
        let text =
            format!("a fallback is for a store that can be away, which {} cannot: leave --fallback out", store.url);
        return Err(wrong(text));
    }
    if store::place(&copy) == Some(Place::Server) {
        return Err(wrong("the fallback must be in this process: memory: or sled:DIRECTORY".into()));
    }
    if flags.fallback_after * 2 > request_timeout {
        let text = "--fallback-after must be at most half of --request-timeout: the copy needs time to answer too";
        return Err(wrong(text.into()));
    }
    Ok(Some(Box::new(fallback::Settings {
        copy,
        source: format!("{}, collection {}", store.url, store.options.collection),
        mode: flags.fallback_mode,
        after: flags.fallback_after,
        max_age: flags.fallback_max_age,
        refresh: flags.fallback_refresh,
        max_bytes: flags.fallback_max_bytes,
        options: store::Options::default(),
    })))
}
