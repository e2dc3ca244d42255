//! The contract of `records::store::Store`, clause by clause, against every backend that is compiled in.
//!
//! Each backend has a trial for each case, named `BACKEND::CASE`. The memory store and MongoDB are also the primary of a fallback,
//! in trials named `BACKEND-standby::CASE` and `BACKEND-replica::CASE`: there the replica answers all reads, in standby mode
//! because the primary refuses them. A backend in a server needs one: see `tests/support/servers.rs` for the environment
//! variables that name it. Without them its trials are shown as ignored; with its name in `TEST_REQUIRE` that is a failure.
//!
//! After the trials, the log is searched for the ids and the operands that they asked for.

mod addresses;
mod concurrency;
mod content;
mod counts;
mod embedded;
mod exposure;
mod filters;
mod harness;
mod lists;
mod model;
#[cfg(feature = "mongodb")]
mod namespaces;
mod operation;
mod pages;
mod properties;
mod shapes;
mod sorts;
mod writes;

// Shared with the other test binaries.
#[path = "../support/documents.rs"]
mod documents;
#[path = "../support/elsewhere.rs"]
mod elsewhere;
#[path = "../support/log.rs"]
mod log;
#[path = "../support/servers.rs"]
mod servers;

#[cfg(feature = "mongodb")]
use std::process::Command;
use std::process::ExitCode;

use harness::{Case, Context, Needs};
use libtest_mimic::{Arguments, Failed, Trial};
use records::store::fallback::Mode;
use records::store::{BACKENDS, Backend, BackendKind};
use tokio::runtime::{Handle, Runtime};

const CASES: &[&[Case]] = &[
    addresses::CASES,
    concurrency::CASES,
    content::CASES,
    counts::CASES,
    embedded::CASES,
    exposure::CASES,
    filters::CASES,
    lists::CASES,
    model::CASES,
    #[cfg(feature = "mongodb")]
    namespaces::CASES,
    operation::CASES,
    pages::CASES,
    properties::CASES,
    shapes::CASES,
    sorts::CASES,
    writes::CASES,
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Most cases wait for I/O, so more of them run at once than there are processors, unless the variable of libtest says
    // otherwise.
    let threads = std::env::var("RUST_TEST_THREADS").ok().and_then(|threads| threads.parse().ok());
    let arguments = Arguments { test_threads: arguments.test_threads.or(threads), ..arguments };
    let runtime = Runtime::new().expect("a runtime");
    let mut trials: Vec<Trial> = servers::required().iter().filter_map(|name| missing(name)).collect();
    for backend in BACKENDS {
        let modes: &[_] = match backend.kind {
            BackendKind::Local => &[None],
            _ => &[None, Some(Mode::Standby), Some(Mode::Replica)],
        };
        let exposed = modes.iter().filter(|mode| **mode != Some(Mode::Standby)).map(|mode| (*mode, true));
        for (mode, is_exposed) in modes.iter().map(|mode| (*mode, false)).chain(exposed) {
            let is_plain = mode.is_none() && !is_exposed;
            let cases = CASES.iter().copied().flatten().filter(|case| case.needs.are_met_by(backend, is_plain));
            let runtime = runtime.handle();
            trials.extend(cases.map(|case| trial(&arguments, backend, mode, is_exposed, case, runtime.clone())));
        }
    }
    let mut requests = log::Requests::new();
    let conclusion = libtest_mimic::run(&arguments, trials);
    servers::stop_all();
    requests.push(&harness::requests());
    drop(requests);
    // `Conclusion::exit` would end the process without removing the temporary directories.
    conclusion.exit_code()
}

fn trial(
    arguments: &Arguments,
    backend: &'static Backend,
    mode: Option<Mode>,
    is_exposed: bool,
    case: &'static Case,
    runtime: Handle,
) -> Trial {
    let prefix = match mode {
        None => backend.name.to_owned(),
        Some(Mode::Standby) => format!("{}-standby", backend.name),
        Some(Mode::Replica) => format!("{}-replica", backend.name),
    };
    let part = if is_exposed { "-exposed" } else { "" };
    let name = format!("{prefix}{part}::{}", case.name);
    let has_no_server = backend.kind == BackendKind::Remote && !servers::is_configured(backend.name);
    let is_too_old = case.needs == Needs::Undefined
        && backend.name == "mongodb"
        && mode.is_none()
        && is_asked_for(arguments, &name)
        && is_before_8(&runtime);
    let run = move || {
        let context = Context::new(backend, mode, is_exposed, runtime).map_err(Failed::from)?;
        (case.run)(&context);
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(has_no_server || is_too_old)
}

/// Returns true if the arguments select the trial. cargo-nextest starts a process for each one, and only some of them need to know
/// the server's version.
fn is_asked_for(arguments: &Arguments, name: &str) -> bool {
    match &arguments.filter {
        None => true,
        Some(filter) if arguments.exact => name == filter,
        Some(filter) => name.contains(filter),
    }
}

/// Returns true if the MongoDB of the environment matches undefined by null.
#[cfg(feature = "mongodb")]
fn is_before_8(runtime: &Handle) -> bool {
    let version = match std::env::var("TEST_MONGODB_URL").ok().filter(|url| !url.is_empty()) {
        Some(url) => runtime.block_on(namespaces::version(&url)),
        None => servers::mongod::program().and_then(|program| {
            let output = Command::new(program).arg("--version").output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).split_once("db version v")?.1.to_owned())
        }),
    };
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major < 8)
}

#[cfg(not(feature = "mongodb"))]
fn is_before_8(_: &Handle) -> bool {
    false
}

/// Returns a trial that fails if a required backend cannot be tested.
fn missing(name: &str) -> Option<Trial> {
    let reason = match BACKENDS.iter().find(|backend| backend.name == name) {
        None => format!("TEST_REQUIRE names {name}, which is not compiled in"),
        Some(backend) if backend.kind == BackendKind::Remote && !servers::is_configured(name) => {
            format!("TEST_REQUIRE names {name}: {}", servers::how_to_configure(name))
        }
        Some(_) => return None,
    };
    Some(Trial::test(format!("{name}::can_be_tested"), move || Err(reason.into())))
}
