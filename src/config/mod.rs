//! The settings, and the only place that reads them: from flags, variables and files.

mod file;
mod flags;
mod memory;
mod secret;
mod sources;
mod store_file;
mod values;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use clap_complete::Shell;

use crate::healthcheck::Scheme;
use crate::jwt;
use crate::query::Exposure;
use crate::store::{self, BackendKind, fallback};
use crate::tls;
pub use file::valid_type;
use flags::{ApiArgs, KeysCommand, ServerArgs, StoreArgs, Subcommands};
pub use flags::{LogArgs, ServeArgs};
use memory::MemoryLimit;
pub use secret::Secret;
use sources::{Source, Sources, invalid};
pub use sources::{documented, settings};
pub use store_file::StoreFile;
pub use values::{ListenAddress, processors};

/// A command, with its settings.
#[derive(Debug)]
pub enum Command {
    /// Boxed: it has many more settings than the others.
    Serve(Box<Serve>),
    Import(Import),
    Healthcheck(Healthcheck),
    Completions(Shell),
    Man,
    /// A new API key with this name.
    NewKey(String),
    /// The settings of `serve`.
    Config(Box<Serve>),
}

#[derive(Debug)]
pub struct Serve {
    pub args: ServeArgs,
    pub store: Store,
    pub fallback: Option<Box<fallback::Settings>>,
    pub seed: Seed,
    pub tls: Option<tls::Files>,
    pub jwt: Option<jwt::Settings>,
    /// The settings as text, without secrets.
    pub description: String,
}

#[derive(Debug)]
pub struct Import {
    pub store: Store,
    /// `None` is standard input.
    pub file: Option<PathBuf>,
    pub skip_invalid: bool,
    pub require_id: bool,
    pub log: LogArgs,
}

#[derive(Debug)]
pub struct Healthcheck {
    pub address: ListenAddress,
    pub scheme: Scheme,
    pub live: bool,
    pub timeout: Duration,
}

/// A store, and how to use it.
#[derive(Debug)]
pub struct Store {
    pub url: Secret,
    /// The file that `url` was read from.
    pub file: Option<StoreFile>,
    pub options: store::Options,
}

/// The data that an empty embedded store is filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seed {
    /// The sample data compiled into the binary, if there is any.
    BuiltIn,
    File(PathBuf),
    None,
}

/// Reads the command and its settings. On a wrong one, on `--help` and on `--version` it prints and exits.
pub fn read() -> Command {
    let command = sources::read().and_then(|(parsed, sources)| command(parsed, &sources));
    command.unwrap_or_else(|error| error.exit())
}

/// Returns the completion script for `shell`.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut documented(), "records", &mut script);
    script
}

/// Returns the manual page, as roff.
pub fn manual() -> io::Result<Vec<u8>> {
    // clap_mangen leaves out the help of what `-h` does not show.
    let command = documented().mut_args(|arg| arg.hide_short_help(false));
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

/// Returns the memory that the process may use, in bytes, where the system tells it.
pub fn process_memory_limit() -> Option<u64> {
    MemoryLimit::read().map(|limit| limit.bytes)
}

fn command(parsed: Subcommands, sources: &Sources) -> Result<Command, clap::Error> {
    Ok(match parsed {
        Subcommands::Serve(args) => Command::Serve(Box::new(serve(args, sources)?)),
        Subcommands::Config(args) => Command::Config(Box::new(serve(args, sources)?)),
        Subcommands::Import(args) => Command::Import(Import {
            store: store(&args.store, sources)?,
            file: (args.file.as_os_str() != "-").then_some(args.file),
            skip_invalid: args.skip_invalid,
            require_id: args.require_id,
            log: args.log,
        }),
        Subcommands::Healthcheck(args) => {
            let is_flag = |id| sources.source(id) == Source::Flag;
            let admin = args.admin_listen.filter(|_| is_flag("admin_listen") || !is_flag("listen"));
            // Health on an address of its own has no TLS.
            let is_https = admin.is_none() && args.tls_cert.is_some();
            Command::Healthcheck(Healthcheck {
                scheme: if is_https { Scheme::Https } else { Scheme::Http },
                address: admin.unwrap_or(args.listen),
                live: args.live,
                timeout: args.timeout,
            })
        }
        Subcommands::Keys(KeysCommand::New { name }) => Command::NewKey(name),
        Subcommands::Completions { shell } => Command::Completions(shell),
        Subcommands::Man => Command::Man,
    })
}

fn serve(args: ServeArgs, sources: &Sources) -> Result<Serve, clap::Error> {
    let name = |id| sources.name(id);
    let listen = &args.server.listen;
    if let Some(address) = args.server.admin_listen.as_ref().filter(|address| address.overlaps(listen)) {
        let (admin, api) = (name("admin_listen"), name("listen"));
        return Err(invalid(match address == listen {
            true => format!("{admin} and {api} are both {listen}: leave {admin} out to have one port"),
            false => format!("{admin} {address} and {api} {listen} overlap: give one of them another port"),
        }));
    }
    if let (Some(default), Some(max)) = (args.api.default_limit, args.api.max_limit)
        && default > max
    {
        let (default_name, max_name) = (name("default_limit"), name("max_limit"));
        return Err(invalid(format!("{default_name} is {default}, and {max_name} is {max}: it must not be less")));
    }
    if args.api.rate_limit.is_none() && sources.source("rate_burst") == Source::Flag {
        return Err(invalid(format!("{} has no effect without --rate-limit <RATE>", name("rate_burst"))));
    }
    if !crate::telemetry::trace::CAN_EXPORT && sources.source("otlp_endpoint") == Source::Flag {
        return Err(invalid("this build cannot export traces: rebuild with --features otlp".into()));
    }
    let mut store = store(&args.store, sources)?;
    let is_remote = store::kind(store.url.expose()) == Some(BackendKind::Remote);
    // A deployment may set the seed by a variable or a file for whatever store it has.
    if is_remote && sources.source("seed") == Source::Flag && args.seed.as_deref() != Some("none") {
        return Err(invalid(format!(
            "{} has no effect with {}: only embedded stores are filled",
            name("seed"),
            store.url
        )));
    }
    store.options.exposure = Arc::new(exposure(&args.api, sources)?);
    let mut serve = Serve {
        tls: tls(&args.server, sources)?,
        jwt: jwt(&args.api, sources)?,
        fallback: fallback(&args, &store, sources)?.map(Box::new),
        seed: match args.seed.as_deref() {
            None => Seed::BuiltIn,
            Some("none") => Seed::None,
            Some(file) => Seed::File(file.into()),
        },
        store,
        args,
        description: String::new(),
    };
    serve.description = describe(&serve, sources);
    Ok(serve)
}

fn store(args: &StoreArgs, sources: &Sources) -> Result<Store, clap::Error> {
    let (by_url, by_file) = (sources.source("store"), sources.source("store_file"));
    let (url, file) = match (&args.store, &args.store_file) {
        (Some(_), Some(_)) if by_url == by_file => {
            return Err(invalid("the store is named twice: by a URL and by a file. Set only one of the two".into()));
        }
        (Some(url), file) if file.is_none() || by_url > by_file => (Secret::new(url.clone()), None),
        (_, Some(path)) => {
            let file = StoreFile::open(path.clone());
            let file = file.map_err(|error| invalid(format!("{}: {error}", sources.name("store_file"))))?;
            (file.used().clone(), Some(file))
        }
        _ => {
            let sample =
                "this build serves no sample data: name the store by --store, RECORDS_STORE or RECORDS_STORE_FILE";
            (Secret::new(store::DEFAULT_URL.ok_or_else(|| invalid(sample.into()))?.to_owned()), None)
        }
    };
    let options =
        store::Options { collection: args.collection.clone(), timeout: args.store_timeout, ..Default::default() };
    Ok(Store { url, file, options })
}

/// Half of the settings of TLS would be HTTP without it, wherever that half was set.
fn tls(args: &ServerArgs, sources: &Sources) -> Result<Option<tls::Files>, clap::Error> {
    match (&args.tls_cert, &args.tls_key, &args.tls_client_ca) {
        (Some(cert), Some(key), client_ca) => {
            Ok(Some(tls::Files { cert: cert.clone(), key: key.clone(), client_ca: client_ca.clone() }))
        }
        (None, None, None) => Ok(None),
        (cert, key, _) => {
            let id = if cert.is_some() {
                "tls_cert"
            } else if key.is_some() {
                "tls_key"
            } else {
                "tls_client_ca"
            };
            let name = sources.name(id);
            Err(invalid(format!("{name} is set alone: TLS needs both --tls-cert <FILE> and --tls-key <FILE>")))
        }
    }
}

/// Tokens without one of these settings would be those of everyone, or for everyone.
fn jwt(args: &ApiArgs, sources: &Sources) -> Result<Option<jwt::Settings>, clap::Error> {
    match (&args.jwt_jwks, &args.jwt_issuer, &args.jwt_audience) {
        (Some(jwks), Some(issuer), Some(audience)) => Ok(Some(jwt::Settings {
            jwks: jwks.clone(),
            issuer: issuer.clone(),
            audience: audience.clone(),
            ca: args.jwt_ca.clone(),
        })),
        (None, None, None) if args.jwt_ca.is_none() => Ok(None),
        _ => {
            let set = ["jwt_jwks", "jwt_issuer", "jwt_audience", "jwt_ca"].map(|id| (id, sources.source(id)));
            let id = set.iter().find(|(_, source)| *source != Source::Default).map_or("jwt_jwks", |(id, _)| id);
            let name = sources.name(id);
            Err(invalid(format!(
                "{name} is not enough: tokens need --jwt-jwks <FILE|URL>, --jwt-issuer <TEXT> and --jwt-audience <TEXT>"
            )))
        }
    }
}

/// Spreads the first snapshots of instances that start together.
const FIRST_SNAPSHOT_WITHIN: Duration = Duration::from_secs(1);

fn exposure(args: &ApiArgs, sources: &Sources) -> Result<Exposure, clap::Error> {
    Exposure::parse(&args.expose, &args.hide, args.condition.as_deref())
        .map_err(|(setting, wrong)| invalid(format!("{}: {wrong}", sources.name(setting))))
}

fn fallback(args: &ServeArgs, store: &Store, sources: &Sources) -> Result<Option<fallback::Settings>, clap::Error> {
    let flags = &args.fallback;
    let responses = args.api.response_memory_limit.as_u64();
    let memory = MemoryLimit::read();
    let fits = |replica| memory.map_or(Ok(()), |memory| memory.check(responses, replica)).map_err(invalid);
    let Some(url) = flags.fallback.clone() else {
        let parts = [
            "mode",
            "timeout",
            "max_age",
            "snapshot_interval",
            "audit_interval",
            "size_limit",
            "from",
            "save",
            "save_interval",
        ];
        let parts = parts.map(|part| format!("fallback_{part}"));
        // A deployment may set the others by variables or a file, and turn the fallback off by an empty RECORDS_FALLBACK.
        if let Some(part) = parts.iter().find(|part| sources.source(part) == Source::Flag) {
            return Err(invalid(format!("{} has no effect without --fallback <URL>", sources.name(part))));
        }
        return fits(0).map(|()| None);
    };
    let name = |id| sources.name(id);
    if matches!(store::kind(store.url.expose()), Some(BackendKind::InMemory | BackendKind::Local)) {
        let fallback = name("fallback");
        let text =
            format!("a fallback is for a store that can be away, which {} cannot: leave {fallback} out", store.url);
        return Err(invalid(text));
    }
    let kind = store::kind(&url);
    if kind == Some(BackendKind::Remote) {
        let text = format!("{}: the fallback must be in this process: memory: or sled:DIRECTORY", name("fallback"));
        return Err(invalid(text));
    }
    if flags.fallback_timeout * 2 > args.server.request_timeout {
        let (timeout, whole) = (name("fallback_timeout"), name("request_timeout"));
        return Err(invalid(format!(
            "{timeout} must be at most half of {whole}: the replica needs time to answer too"
        )));
    }
    let size_limit = flags.fallback_size_limit.map(|size| size.as_u64());
    let size_limit = match memory.filter(|_| kind == Some(BackendKind::InMemory)) {
        Some(memory) => size_limit.unwrap_or_else(|| memory.replica_default(responses)),
        None => size_limit.unwrap_or(memory::REPLICA_BYTES),
    };
    let from = flags.fallback_from.iter().filter(|from| !from.is_empty()).map(|from| {
        let wrong = |error| invalid(format!("{}: {}: {error}", name("fallback_from"), Secret::new(from.clone())));
        from.parse::<fallback::Source>().map_err(wrong)
    });
    let from = from.collect::<Result<Vec<_>, _>>()?;
    fits(if kind == Some(BackendKind::InMemory) { size_limit } else { 0 })?;
    Ok(Some(fallback::Settings {
        url,
        source: format!("{}, collection {}", store.url, store.options.collection),
        scope: store.options.exposure.scope().to_owned(),
        mode: flags.fallback_mode,
        timeout: flags.fallback_timeout,
        max_age: flags.fallback_max_age,
        first_snapshot_within: FIRST_SNAPSHOT_WITHIN,
        snapshot_interval: flags.fallback_snapshot_interval,
        audit_interval: flags.fallback_audit_interval,
        size_limit,
        from,
        save: flags.fallback_save.clone().map(|file| (file, flags.fallback_save_interval)),
        options: store::Options::default(),
    }))
}

/// Describes the settings of `serve`, without secrets.
fn describe(serve: &Serve, sources: &Sources) -> String {
    let redact = |url: &Option<String>| url.clone().map(|url| Secret::new(url).to_string()).unwrap_or_default();
    let file = serve.store.file.as_ref().map(|file| format!("file {file}"));
    let size = serve.fallback.as_ref().map(|fallback| bytesize::ByteSize(fallback.size_limit).to_string());
    sources.describe(&[
        ("store", serve.store.url.to_string(), file),
        ("fallback", redact(&serve.args.fallback.fallback), None),
        ("fallback_size_limit", size.unwrap_or_default(), None),
        ("jwt_jwks", redact(&serve.args.api.jwt_jwks), None),
        ("otlp_endpoint", redact(&serve.args.otlp_endpoint), None),
    ])
}
