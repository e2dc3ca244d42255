//! The contract of `records::store::Store`, clause by clause, against every backend that is compiled in.
//!
//! One trial for each backend and case, named `BACKEND::CASE`, and for a memory store with a fallback beside it, named
//! `fallback::CASE`. A backend in a server needs one: see `tests/support/servers.rs` for the environment variables that name
//! it. Without them its trials are shown as ignored; with its name in `TEST_REQUIRE` that is a failure.

mod addresses;
mod concurrency;
mod content;
mod embedded;
mod harness;
mod lists;
mod model;
mod pages;
mod properties;
mod queries;
mod writes;

// Shared with the other test binaries.
#[path = "../support/documents.rs"]
mod documents;
#[path = "../support/elsewhere.rs"]
mod elsewhere;
#[path = "../support/servers.rs"]
mod servers;

use std::process::ExitCode;

use harness::{Case, Context};
use libtest_mimic::{Arguments, Failed, Trial};
use records::store::{BACKENDS, Backend, Place};
use tokio::runtime::{Handle, Runtime};

const CASES: &[&[Case]] = &[
    addresses::CASES,
    concurrency::CASES,
    content::CASES,
    embedded::CASES,
    lists::CASES,
    model::CASES,
    pages::CASES,
    properties::CASES,
    queries::CASES,
    writes::CASES,
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let runtime = Runtime::new().expect("a runtime");
    let mut trials: Vec<Trial> = servers::required().iter().filter_map(|name| missing(name)).collect();
    for backend in BACKENDS {
        let cases = CASES.iter().copied().flatten().filter(|case| case.needs.are_met_by(backend.place));
        trials.extend(cases.map(|case| trial(backend, case, runtime.handle().clone())));
    }
    if let Some(memory) = BACKENDS.iter().find(|backend| backend.place == Place::Memory) {
        let cases = CASES.iter().copied().flatten().filter(|case| case.needs.are_met_by(Place::Server));
        trials.extend(cases.map(|case| {
            let runtime = runtime.handle().clone();
            Trial::test(format!("fallback::{}", case.name), move || {
                (case.run)(&Context::fallback(memory, runtime));
                Ok(())
            })
        }));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    servers::stop_all();
    // Not `Conclusion::exit`, which would end the process with the temporary directories still there.
    conclusion.exit_code()
}

fn trial(backend: &'static Backend, case: &'static Case, runtime: Handle) -> Trial {
    let ignored = backend.place == Place::Server && !servers::is_configured(backend.name);
    let run = move || {
        let context = Context::new(backend, runtime).map_err(Failed::from)?;
        (case.run)(&context);
        Ok(())
    };
    Trial::test(format!("{}::{}", backend.name, case.name), run).with_ignored_flag(ignored)
}

/// A trial that fails, where a backend is required and cannot be tested.
fn missing(name: &str) -> Option<Trial> {
    let reason = match BACKENDS.iter().find(|backend| backend.name == name) {
        None => format!("TEST_REQUIRE names {name}, which is not compiled in"),
        Some(backend) if backend.place == Place::Server && !servers::is_configured(name) => {
            format!("TEST_REQUIRE names {name}: {}", servers::how_to_configure(name))
        }
        Some(_) => return None,
    };
    Some(Trial::test(format!("{name}::can_be_tested"), move || Err(reason.into())))
}
