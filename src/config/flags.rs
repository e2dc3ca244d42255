//! The flags: each with its variable, its default and its help.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::NonEmptyStringValueParser as Text;
use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;

use super::memory;
use super::values::{ListenAddress, burst, file, on_or_off, positive, processors, size, switch, time, up_to};
use crate::client::Network;
use crate::http::{AccessLog, RateLimit};
use crate::store::fallback;
use crate::telemetry::{Format, VERSION};

/// The settings that `-h` shows. `--help` shows all.
pub const ESSENTIAL: [&str; 10] =
    ["store", "store_file", "collection", "seed", "fallback", "listen", "max_limit", "api_keys", "log", "config"];

const AFTER_SHORT_HELP: &str = "\
`records --help` shows all settings. Each is also a variable, as RECORDS_STORE,
and a key of the file that --config names.";

const AFTER_HELP: &str = "\
A flag overrides its variable, and both override the file that --config names. That file is TOML, with the names of the
flags as keys (store = \"memory:\"). An empty variable counts as unset.

TIME is 500ms, 5s, 2m or 1h. SIZE is in bytes, or has a unit: 64KiB, 64MiB, 1GiB.

Stores, if this build has them:
  memory:                          in this process; its records end with it
  sled:DIRECTORY                   in a directory, for one process at a time
  mongodb://USER:PASS@HOST/DB      in MongoDB (also mongodb+srv://); DB is `records` unless named

Examples:
  records                                              serve the sample data on 127.0.0.1:8080
  records --store mongodb://127.0.0.1/records          serve a MongoDB
  records --store mongodb://… --fallback memory:       go on answering while MongoDB is away
  RECORDS_STORE_FILE=/run/secrets/uri records          read the URL of the store from a file
  mongoexport … | records import - --store sled:data   fill a store";

const IMPORT_HELP: &str = "\
FILE holds documents in MongoDB Extended JSON (v1 or v2, canonical or relaxed), one after another or in arrays, as
mongoexport writes them; or in BSON, as mongodump and --fallback-save write them. It may be compressed by gzip or
Zstandard, where this build reads that, and text may be UTF-16. A document replaces the one that has its `_id`, so
importing twice changes nothing. A document without an `_id` gets a new ObjectId each time.

The whole file is checked first, and nothing of it is stored if anything in it is invalid. With --skip-invalid, invalid
documents are reported and left out, and the rest is stored.

Exit status: 0 everything was stored; 1 it failed; 2 the command line is wrong; 3 stored, except for what was skipped.";

const LISTEN: &str = "127.0.0.1:8080";

/// Serves JSON records over HTTP, from MongoDB or from a store in this process
#[derive(Parser)]
#[command(name = "records", version = VERSION, max_term_width = 120, propagate_version = true)]
#[command(after_help = AFTER_SHORT_HELP, after_long_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Subcommands,
}

#[derive(Subcommand)]
pub enum Subcommands {
    /// Serve the records; without a command, `records` does this
    Serve(ServeArgs),
    /// Store the documents of a file
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArgs),
    /// Ask a running server if it is ready
    ///
    /// The exit status is 0 if it is, and 1 if not.
    Healthcheck(HealthcheckArgs),
    /// Check the settings of `serve`, and print each with its source
    Config(ServeArgs),
    /// Make API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Print a completion script for a shell
    Completions { shell: Shell },
    /// Print the manual page
    Man,
}

#[derive(Subcommand)]
pub enum KeysCommand {
    /// Print a new key, and its line for the file of --api-keys
    New {
        /// The name of the key in the access log and in metrics
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// The store: memory:, sled:DIR or mongodb://… [default: that of the build]
    #[arg(long, env = "RECORDS_STORE", value_name = "URL", value_parser = Text::new())]
    pub store: Option<String>,
    /// Read the store's URL from this file
    ///
    /// The service follows the file: a new password in it needs no restart.
    #[arg(long, env = "RECORDS_STORE_FILE", value_name = "FILE", value_parser = file())]
    pub store_file: Option<PathBuf>,
    /// The collection, in a store that has collections
    #[arg(long, env = "RECORDS_COLLECTION", value_name = "NAME", default_value = "records", value_parser = Text::new())]
    pub collection: String,
    /// Give up a call to MongoDB after this long
    #[arg(long, env = "RECORDS_STORE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = positive)]
    pub store_timeout: Duration,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// Log these levels, as in warn,records=debug
    #[arg(long, env = "RECORDS_LOG", value_name = "FILTER", default_value = "info", value_parser = Text::new())]
    pub log: String,
    /// Log in this format
    #[arg(long, env = "RECORDS_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: Format,
}

#[derive(Debug, Args)]
pub struct ConfigFileArgs {
    /// Read settings from this TOML file
    #[arg(long, env = "RECORDS_CONFIG", value_name = "FILE", value_parser = file())]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub config: ConfigFileArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Fill an empty store from this file [default: the sample data]
    ///
    /// `none` leaves it empty. Only embedded stores are filled. `records import --help` says what the file may hold.
    #[arg(long, env = "RECORDS_SEED", value_name = "FILE", value_parser = Text::new(), help_heading = "Store")]
    pub seed: Option<String>,
    #[command(flatten)]
    pub fallback: FallbackArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(flatten)]
    pub log: LogArgs,
    /// Log these requests
    #[arg(long, env = "RECORDS_ACCESS_LOG", value_name = "WHICH", default_value = "errors", help_heading = "Log")]
    pub access_log: AccessLog,
    /// Send traces to this OTLP collector, by HTTP; other variables of OpenTelemetry apply too [default: no traces]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = Text::new(), help_heading = "Log")]
    pub otlp_endpoint: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Fallback")]
pub struct FallbackArgs {
    /// Keep a replica for when MongoDB is away: memory: or sled:DIR
    ///
    /// The replica follows MongoDB, and answers when MongoDB is unreachable or too slow. In a directory it survives restarts.
    #[arg(long, env = "RECORDS_FALLBACK", value_name = "URL", value_parser = Text::new())]
    pub fallback: Option<String>,
    /// Prefer answers from MongoDB, or from the replica
    #[arg(long, env = "RECORDS_FALLBACK_MODE", value_name = "MODE", default_value = "standby")]
    pub fallback_mode: fallback::Mode,
    /// Answer a lookup from the replica when MongoDB takes longer than this; a list may take four times as long to begin
    #[arg(long, env = "RECORDS_FALLBACK_TIMEOUT", value_name = "TIME", default_value = "250ms", value_parser = positive)]
    pub fallback_timeout: Duration,
    /// Stop answering from a replica that is older than this [default: any age]
    #[arg(long, env = "RECORDS_FALLBACK_MAX_AGE", value_name = "TIME", value_parser = positive)]
    pub fallback_max_age: Option<Duration>,
    /// Copy all records this often, where MongoDB is not a replica set and has no change stream
    #[arg(long, env = "RECORDS_FALLBACK_SNAPSHOT_INTERVAL", value_name = "TIME", default_value = "1m", value_parser = positive)]
    pub fallback_snapshot_interval: Duration,
    /// Compare a range of the replica with MongoDB this often; 0s for never
    ///
    /// Every record is compared once an hour, as long as that is no more than 20000 records or 8MiB at a time.
    #[arg(long, env = "RECORDS_FALLBACK_AUDIT_INTERVAL", value_name = "TIME", default_value = "1m", value_parser = time)]
    pub fallback_audit_interval: Duration,
    /// Drop a replica that grows beyond this size: the BSON of its records, and 150 bytes for each [default: 1GiB in a
    /// directory; in memory, what fits into the memory limit of the process]
    #[arg(long, env = "RECORDS_FALLBACK_SIZE_LIMIT", value_name = "SIZE", value_parser = size)]
    pub fallback_size_limit: Option<ByteSize>,
    /// Fill an empty replica from here, before MongoDB is asked: http://HOST:PORT or a file; several, separated by commas
    ///
    /// The URL is the admin address of other instances of this service, under one name or under several; a file is what
    /// --fallback-save writes. A replica of another collection, or one that is damaged, is refused.
    #[arg(long, env = "RECORDS_FALLBACK_FROM", value_name = "URL|FILE", value_delimiter = ',', value_parser = Text::new())]
    pub fallback_from: Vec<String>,
    /// Save the replica in this file, for --fallback-from
    ///
    /// The file is new, empty, or was saved before; any other is refused and left as it is.
    #[arg(long, env = "RECORDS_FALLBACK_SAVE", value_name = "FILE", value_parser = file())]
    pub fallback_save: Option<PathBuf>,
    /// Save the replica this often
    #[arg(long, env = "RECORDS_FALLBACK_SAVE_INTERVAL", value_name = "TIME", default_value = "5m", value_parser = positive)]
    pub fallback_save_interval: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Listen on this address
    ///
    /// Without HOST, as in :8080, on all addresses of this machine. HOST is an IP address, as in 0.0.0.0:80 or [::1]:80, or the
    /// name of an address of this machine.
    // The help shows an address of IPv6 in its brackets, which is no link.
    #[allow(rustdoc::broken_intra_doc_links)]
    #[arg(long, env = "RECORDS_LISTEN", value_name = "HOST:PORT", default_value = LISTEN)]
    pub listen: ListenAddress,
    /// Serve health and metrics on this address [default: with the API]
    ///
    /// They are then on this address alone, with a page for operators at /status.
    #[arg(long, env = "RECORDS_ADMIN_LISTEN", value_name = "HOST:PORT")]
    pub admin_listen: Option<ListenAddress>,
    /// Serve HTTPS with the certificate in this PEM file, followed by those of intermediate authorities [default: HTTP]
    ///
    /// It is read again when it changes, and so are --tls-key and --tls-client-ca.
    #[arg(long, env = "RECORDS_TLS_CERT", value_name = "FILE", value_parser = file())]
    pub tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert, as PEM without a password
    #[arg(long, env = "RECORDS_TLS_KEY", value_name = "FILE", value_parser = file())]
    pub tls_key: Option<PathBuf>,
    /// Serve only clients with a certificate of an authority in this PEM file [default: clients need none]
    #[arg(long, env = "RECORDS_TLS_CLIENT_CA", value_name = "FILE", value_parser = file())]
    pub tls_client_ca: Option<PathBuf>,
    /// Answer 503 when a response has not begun after this long
    #[arg(long, env = "RECORDS_REQUEST_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = positive)]
    pub request_timeout: Duration,
    /// Close a connection that takes this long for the handshake of TLS or for the head of a request, or is idle for this long
    #[arg(long, env = "RECORDS_HEADER_TIMEOUT", value_name = "TIME", default_value = "15s", value_parser = positive)]
    pub header_timeout: Duration,
    /// Close a connection whose client reads nothing for this long
    #[arg(long, env = "RECORDS_WRITE_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = positive)]
    pub write_timeout: Duration,
    /// Serve at most this many connections at once; others wait to be accepted
    #[arg(long, env = "RECORDS_MAX_CONNECTIONS", value_name = "NUMBER", default_value = "10000", value_parser = up_to(1_000_000))]
    pub max_connections: usize,
    /// Serve at most this many connections of one address at once, and close others [default: any number]
    ///
    /// An IPv6 address counts with the others of its /64 network. Trusted proxies may have any number.
    #[arg(long, env = "RECORDS_MAX_CONNECTIONS_PER_ADDRESS", value_name = "NUMBER", value_parser = up_to(1_000_000))]
    pub max_connections_per_address: Option<usize>,
    /// Trust Forwarded and X-Forwarded-For of proxies in these networks [default: none]
    #[arg(long, env = "RECORDS_TRUSTED_PROXIES", value_name = "NETWORK,…", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,
    /// Serve with this many threads [default: one for each processor that the process may use]
    #[arg(long, env = "RECORDS_WORKER_THREADS", value_name = "NUMBER", default_value_t = processors(), hide_default_value = true, value_parser = up_to(1_024))]
    pub worker_threads: usize,
    /// After SIGTERM, SIGINT or SIGHUP, keep serving for this long while /readyz fails, so that load balancers notice
    #[arg(long, env = "RECORDS_DRAIN_DELAY", value_name = "TIME", default_value = "0s", value_parser = time)]
    pub drain_delay: Duration,
    /// After that, close connections whose requests take longer than this to finish
    #[arg(long, env = "RECORDS_DRAIN_TIMEOUT", value_name = "TIME", default_value = "20s", value_parser = time)]
    pub drain_timeout: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Responses")]
pub struct ApiArgs {
    /// The limit of a list without a `limit` [default: all records]
    #[arg(long, env = "RECORDS_DEFAULT_LIMIT", value_name = "NUMBER", value_parser = up_to(1_000_000_000))]
    pub default_limit: Option<usize>,
    /// The most records in a list [default: 10000 with `limit`]
    ///
    /// Without it, a list without `limit` has all records.
    #[arg(long, env = "RECORDS_MAX_LIMIT", value_name = "NUMBER", value_parser = up_to(1_000_000_000))]
    pub max_limit: Option<usize>,
    /// The Cache-Control header of responses with records; `none` for no header
    #[arg(long, env = "RECORDS_CACHE_CONTROL", value_name = "VALUE", default_value = "no-cache")]
    pub cache_control: String,
    /// Let the Cache-Control of a request bound how old a response from the replica may be
    ///
    /// With `off` the header is ignored, and the operator alone decides. A browser that reloads a page sends such a bound,
    /// which makes MongoDB answer.
    #[arg(long, env = "RECORDS_REQUEST_DIRECTIVES", value_name = "on|off", default_value = "on", value_parser = on_or_off, action = ArgAction::Set)]
    pub request_directives: bool,
    /// Let pages of these origins read responses; * is all
    #[arg(long, env = "RECORDS_CORS_ORIGIN", value_name = "ORIGIN,…", value_delimiter = ',')]
    pub cors_origin: Vec<String>,
    /// Let pages of other origins send these request headers; * for any [default: those that the API reads]
    #[arg(long, env = "RECORDS_CORS_HEADERS", value_name = "NAME,…", value_delimiter = ',')]
    pub cors_headers: Vec<String>,
    /// Begin links in responses with this URL, by which clients know the service [default: relative links]
    #[arg(long, env = "RECORDS_PUBLIC_URL", value_name = "URL", value_parser = Text::new())]
    pub public_url: Option<String>,
    /// Describe records in the OpenAPI description by the JSON Schema in this file
    #[arg(long, env = "RECORDS_SCHEMA", value_name = "FILE", value_parser = file())]
    pub schema: Option<PathBuf>,
    /// Ask clients for an API key from this file [default: open to all]
    ///
    /// `records keys new NAME` makes a key and its line for the file, which is read again when it changes.
    #[arg(long, env = "RECORDS_API_KEYS", value_name = "FILE", value_parser = file())]
    pub api_keys: Option<PathBuf>,
    /// Accept tokens (JWT) whose issuer's public keys are in this JWK Set: a file, or an https URL [default: no tokens]
    ///
    /// They are signed by RS256, ES256 or EdDSA. Keys of a URL are fetched every 5 minutes; a file is read again when it changes.
    #[arg(long, env = "RECORDS_JWT_JWKS", value_name = "FILE|URL", value_parser = Text::new())]
    pub jwt_jwks: Option<String>,
    /// The issuer of those tokens, their `iss`
    #[arg(long, env = "RECORDS_JWT_ISSUER", value_name = "TEXT", value_parser = Text::new())]
    pub jwt_issuer: Option<String>,
    /// The audience of those tokens, one of their `aud`
    #[arg(long, env = "RECORDS_JWT_AUDIENCE", value_name = "TEXT", value_parser = Text::new())]
    pub jwt_audience: Option<String>,
    /// Trust the certificate authorities in this PEM file for the URL of --jwt-jwks [default: the public ones]
    #[arg(long, env = "RECORDS_JWT_CA", value_name = "FILE", value_parser = file())]
    pub jwt_ca: Option<PathBuf>,
    /// Show these fields alone, and `_id` [default: all]
    #[arg(long, env = "RECORDS_EXPOSE", value_name = "FIELD,…", value_delimiter = ',')]
    pub expose: Vec<String>,
    /// Show all fields but these [default: none]
    #[arg(long, env = "RECORDS_HIDE", value_name = "FIELD,…", value_delimiter = ',')]
    pub hide: Vec<String>,
    /// Show only the records that match these filters, as in public.eq=true&rating.gte=4 [default: all]
    #[arg(id = "where", long = "where", env = "RECORDS_WHERE", value_name = "FILTERS", value_parser = Text::new())]
    pub condition: Option<String>,
    /// Answer at most this many requests of each client, as in 100/s, 600/min or 1000/h; others get a 429 [default: any number]
    ///
    /// A client is an API key, the subject of a token, or else an address. An IPv6 address counts with the others of its /64 network.
    #[arg(long, env = "RECORDS_RATE_LIMIT", value_name = "RATE")]
    pub rate_limit: Option<RateLimit>,
    /// The requests that a client may send at once within its rate limit [default: the number in --rate-limit]
    #[arg(long, env = "RECORDS_RATE_BURST", value_name = "NUMBER", value_parser = burst)]
    pub rate_burst: Option<NonZeroU32>,
    /// Answer at most this many requests for records at once; others get a 503
    #[arg(long, env = "RECORDS_MAX_REQUESTS", value_name = "NUMBER", default_value = "1024", value_parser = up_to(1_000_000))]
    pub max_requests: usize,
    /// Stream at most this many lists without a limit at once; others get a 503
    #[arg(long, env = "RECORDS_MAX_STREAMS", value_name = "NUMBER", default_value = "48", value_parser = up_to(1_000_000))]
    pub max_streams: usize,
    /// Hold at most this much of responses that are not sent yet; requests that need more get a 503 [default: 64MiB, or a
    /// quarter of the memory limit of the process if that is less]
    #[arg(long, env = "RECORDS_RESPONSE_MEMORY_LIMIT", value_name = "SIZE", default_value_t = memory::response_default(), hide_default_value = true, value_parser = size)]
    pub response_memory_limit: ByteSize,
    /// Tell clients in a Server-Timing header how long a request took
    #[arg(long, env = "RECORDS_SERVER_TIMING", action = ArgAction::SetTrue, value_parser = switch)]
    pub server_timing: bool,
}

#[derive(Args)]
pub struct ImportArgs {
    #[command(flatten)]
    pub config: ConfigFileArgs,
    /// The file, or - for standard input
    #[arg(value_parser = file())]
    pub file: PathBuf,
    /// Leave out invalid documents, and store the rest
    #[arg(long)]
    pub skip_invalid: bool,
    /// Refuse documents without an `_id`
    #[arg(long)]
    pub require_id: bool,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Args)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    pub config: ConfigFileArgs,
    /// The address of the server. As a flag, it is asked even if RECORDS_ADMIN_LISTEN is set
    #[arg(long, env = "RECORDS_LISTEN", value_name = "HOST:PORT", default_value = LISTEN)]
    pub listen: ListenAddress,
    /// The address of health and metrics, if it is another one
    #[arg(long, env = "RECORDS_ADMIN_LISTEN", value_name = "HOST:PORT")]
    pub admin_listen: Option<ListenAddress>,
    /// The server's certificate, if --listen speaks HTTPS; it is not verified
    #[arg(long, env = "RECORDS_TLS_CERT", value_name = "FILE", value_parser = file())]
    pub tls_cert: Option<PathBuf>,
    /// Ask if the server is alive, not if it is ready
    #[arg(long)]
    pub live: bool,
    /// Wait this long for the answer
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = positive)]
    pub timeout: Duration,
}
