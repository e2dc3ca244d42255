//! The command line as it is declared: every flag with its variable, its default and its line of help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser as Filled};
use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;

use super::values::{address, connections, count, format, limit, mode, positive, size, threads, time};
use crate::http::AccessLog;
use crate::store::fallback;
use crate::telemetry::{Format, VERSION};

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
FILE holds documents in MongoDB Extended JSON (v1 or v2, canonical or relaxed), one after another or in arrays, as
mongoexport writes them; or in BSON, as mongodump writes them. It may be compressed by gzip or Zstandard, where this
build reads that, and text may be UTF-16. A document replaces the one that has its `_id`, so importing twice is as good
as once. A document without an `_id` gets a new ObjectId each time.

The whole file is checked first, and nothing of it is stored if anything in it is invalid. With --skip-invalid, invalid
documents are reported and left out, and the rest is stored.

Exit status: 0 everything was stored; 1 it failed; 2 the command line is wrong; 3 stored, but for what was skipped.";

const LISTEN: &str = "127.0.0.1:8080";

#[derive(Parser)]
#[command(name = "records", version = VERSION, about = ABOUT, after_help = AFTER_HELP, max_term_width = 120)]
#[command(propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub shared: Shared,
    #[command(flatten)]
    pub serve: ServeFlags,
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// Flags that more than one verb knows.
#[derive(Args)]
#[command(next_help_heading = "Store")]
pub struct Shared {
    /// The store, by URL: memory:, sled:DIRECTORY, mongodb://… or mongodb+srv://…
    #[arg(long, env = "RECORDS_STORE", hide_env_values = true, value_name = "URL", value_parser = Filled::new(), global = true)]
    pub store: Option<String>,
    /// A file with the store's URL, which then shows in no process list
    #[arg(long, env = "RECORDS_STORE_FILE", value_name = "FILE", global = true)]
    pub store_file: Option<PathBuf>,
    /// The collection, in a store that has collections
    #[arg(long, env = "RECORDS_COLLECTION", value_name = "NAME", default_value = "records", value_parser = Filled::new(), global = true)]
    pub collection: String,
    /// How long one call to a store in another process may take
    #[arg(long, env = "RECORDS_STORE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = positive, global = true)]
    pub store_timeout: Duration,
    /// What to log, as in `info` or `records=debug,mongodb=warn`
    #[arg(long, env = "RECORDS_LOG", value_name = "FILTER", default_value = "info", value_parser = Filled::new(), global = true)]
    pub log: String,
    /// How the log looks: `text`, or `json`, an object a line
    #[arg(long, env = "RECORDS_LOG_FORMAT", value_name = "FORMAT", default_value = "text", value_parser = format, global = true)]
    pub log_format: Format,
}

#[derive(Args)]
#[command(next_help_heading = "Serving")]
pub struct ServeFlags {
    /// Where to listen
    #[arg(long, env = "RECORDS_LISTEN", value_name = "ADDRESS:PORT", default_value = LISTEN, value_parser = address)]
    pub listen: SocketAddr,
    /// Where to serve health and metrics, and nowhere else [default: with the records]
    #[arg(long, env = "RECORDS_ADMIN_LISTEN", value_name = "ADDRESS:PORT", value_parser = address)]
    pub admin_listen: Option<SocketAddr>,
    /// What fills an embedded store that is empty at start: a file of Extended JSON, or `none`; the sample data when unset
    #[arg(long, env = "RECORDS_SEED", value_name = "FILE", value_parser = Filled::new())]
    pub seed: Option<String>,
    /// How long a request may wait for its answer to begin
    #[arg(long, env = "RECORDS_REQUEST_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = positive)]
    pub request_timeout: Duration,
    /// How long a client may take for the head of a request, and keep an idle connection
    #[arg(long, env = "RECORDS_HEADER_TIMEOUT", value_name = "TIME", default_value = "15s", value_parser = positive)]
    pub header_timeout: Duration,
    /// How long a client may take no byte of its answer, before its connection is cut
    #[arg(long, env = "RECORDS_WRITE_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = positive)]
    pub write_timeout: Duration,
    /// How many connections are served at once; more wait
    #[arg(long, env = "RECORDS_MAX_CONNECTIONS", value_name = "NUMBER", default_value = "10000", value_parser = connections)]
    pub max_connections: usize,
    /// How many threads serve [default: one less than there are processors, one at least]
    #[arg(long, env = "RECORDS_WORKER_THREADS", value_name = "NUMBER", value_parser = threads)]
    pub worker_threads: Option<usize>,
    /// How long to go on serving, but not ready, after SIGTERM, SIGINT or SIGHUP
    #[arg(long, env = "RECORDS_DRAIN_DELAY", value_name = "TIME", default_value = "0s", value_parser = time)]
    pub drain_delay: Duration,
    /// How long requests under way may take after that, before they are cut
    #[arg(long, env = "RECORDS_DRAIN_TIMEOUT", value_name = "TIME", default_value = "20s", value_parser = time)]
    pub drain_timeout: Duration,
    /// Log requests: all; errors, which are responses with status 500 and more, and slow ones; or off
    #[arg(long, env = "RECORDS_ACCESS_LOG", value_name = "WHICH", default_value = "all")]
    pub access_log: AccessLog,
    /// Where traces are collected, by OTLP over HTTP; OpenTelemetry's other variables hold too [default: nowhere]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL", value_parser = Filled::new())]
    pub otlp_endpoint: Option<String>,
    #[command(flatten)]
    pub api: ApiFlags,
    #[command(flatten)]
    pub fallback: FallbackFlags,
}

#[derive(Args)]
#[command(next_help_heading = "Fallback")]
pub struct FallbackFlags {
    /// Where to keep a copy of a MongoDB that answers when MongoDB does not: memory: or sled:DIRECTORY
    #[arg(long, env = "RECORDS_FALLBACK", hide_env_values = true, value_name = "URL", value_parser = Filled::new())]
    pub fallback: Option<String>,
    /// Who answers: MongoDB, and the copy when MongoDB does not (standby); or always the copy, as soon as there is one (replica)
    #[arg(long, env = "RECORDS_FALLBACK_MODE", requires = "fallback", value_name = "MODE", default_value = "standby", value_parser = mode)]
    pub fallback_mode: fallback::Mode,
    /// How long MongoDB may take for a lookup before the copy answers; a list may take four times that to begin
    #[arg(long, env = "RECORDS_FALLBACK_TIMEOUT", requires = "fallback", value_name = "TIME", default_value = "250ms", value_parser = positive)]
    pub fallback_timeout: Duration,
    /// How old the copy may become before it no longer answers [default: any age]
    #[arg(long, env = "RECORDS_FALLBACK_MAX_AGE", requires = "fallback", value_name = "TIME", value_parser = positive)]
    pub fallback_max_age: Option<Duration>,
    /// How often to copy all records, where MongoDB is no replica set and tells no changes
    #[arg(long, env = "RECORDS_FALLBACK_SNAPSHOT_INTERVAL", requires = "fallback", value_name = "TIME", default_value = "1m", value_parser = positive)]
    pub fallback_snapshot_interval: Duration,
    /// Give the replica up when it grows beyond this size: the BSON of its records, and 150 bytes for each
    #[arg(long, env = "RECORDS_FALLBACK_SIZE_LIMIT", requires = "fallback", value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub fallback_size_limit: usize,
}

#[derive(Args)]
#[command(next_help_heading = "Answers")]
pub struct ApiFlags {
    /// How many records a list without `limit` has [default: all]
    #[arg(long, env = "RECORDS_DEFAULT_LIMIT", value_name = "NUMBER", value_parser = limit)]
    pub default_limit: Option<usize>,
    /// How many records any list has at most [default: all; 10000 for a list with `limit`]
    #[arg(long, env = "RECORDS_MAX_LIMIT", value_name = "NUMBER", value_parser = limit)]
    pub max_limit: Option<usize>,
    /// The Cache-Control of answers that are records; `none` for none
    #[arg(long, env = "RECORDS_CACHE_CONTROL", value_name = "VALUE", default_value = "no-cache")]
    pub cache_control: String,
    /// The origins whose pages may read the answers, with commas between them; * for all [default: none]
    #[arg(long, env = "RECORDS_CORS_ORIGIN", value_name = "ORIGINS", value_delimiter = ',')]
    pub cors_origin: Vec<String>,
    /// Let the pages of other origins send these request headers; * for any [default: those that the API reads]
    #[arg(long, env = "RECORDS_CORS_HEADERS", value_name = "NAMES", value_delimiter = ',')]
    pub cors_headers: Vec<String>,
    /// Write links in responses with this base URL, as clients behind a proxy need them [default: relative links]
    #[arg(long, env = "RECORDS_PUBLIC_URL", value_name = "URL", value_parser = Filled::new())]
    pub public_url: Option<String>,
    /// Describe records in the OpenAPI description by the JSON Schema in this file
    #[arg(long, env = "RECORDS_SCHEMA", value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// How many requests for records are answered at once; more are told to come back
    #[arg(long, env = "RECORDS_MAX_REQUESTS", value_name = "NUMBER", default_value = "1024", value_parser = count)]
    pub max_requests: usize,
    /// How many lists without a limit are streamed at once; more are told to come back
    #[arg(long, env = "RECORDS_MAX_STREAMS", value_name = "NUMBER", default_value = "48", value_parser = count)]
    pub max_streams: usize,
    /// Memory for responses until they are sent: pages, streams, compression and large records. More are told to come back
    #[arg(long, env = "RECORDS_RESPONSE_MEMORY_LIMIT", value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    pub response_memory_limit: usize,
    /// Tell every client how long its request took, and the store for it, in Server-Timing
    #[arg(long, env = "RECORDS_SERVER_TIMING", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub server_timing: bool,
}

#[derive(Subcommand)]
pub enum Verb {
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
        /// Refuse documents without an `_id`
        #[arg(long)]
        require_id: bool,
    },
    /// Ask the server that listens on --listen, or --admin-listen, whether it is ready: exit status 0 if so, 1 if not
    Healthcheck {
        /// Where the server listens. Typed, it is asked even if RECORDS_ADMIN_LISTEN is set
        #[arg(long, env = "RECORDS_LISTEN", value_name = "ADDRESS:PORT", default_value = LISTEN, value_parser = address)]
        listen: SocketAddr,
        /// Where the server has health and metrics, if that is elsewhere
        #[arg(long, env = "RECORDS_ADMIN_LISTEN", value_name = "ADDRESS:PORT", value_parser = address)]
        admin_listen: Option<SocketAddr>,
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
