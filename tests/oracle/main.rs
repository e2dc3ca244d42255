//! Comparison, matching, sorting and projection, and the lists of every store, compared with a real server through its driver.
//!
//! The documents and requests are random, in batches. `tests/support/servers.rs` describes the server: without one the trials are
//! ignored, or fail if `TEST_REQUIRE` names `mongodb`. `PROPTEST_CASES=5000` runs twenty times as many batches.

mod matching;
mod order;
mod projection;
mod server;
mod sorting;
mod stores;
mod values;

// Shared with the other test binaries.
#[path = "../support/documents.rs"]
mod documents;
#[path = "../support/servers.rs"]
mod servers;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use records::store::BACKENDS;
use server::Server;
use tokio::runtime::{Handle, Runtime};

type Property = (&'static str, fn(&Server));

const PROPERTIES: &[Property] = &[
    ("keys_compare_as_values_do", order::keys_compare_as_values_do),
    ("keys_compare_as_ids_do", order::keys_compare_as_ids_do),
    ("keys_compare_as_the_ids_of_a_view_do", order::keys_compare_as_the_ids_of_a_view_do),
    ("filters_match_as_a_find_does", matching::filters_match_as_a_find_does),
    ("documents_are_sorted_as_a_find_sorts_them", sorting::documents_are_sorted_as_a_find_sorts_them),
    ("fields_are_kept_as_a_find_keeps_them", projection::fields_are_kept_as_a_find_keeps_them),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let runtime = Runtime::new().expect("a runtime");
    let mut trials: Vec<Trial> = missing().into_iter().collect();
    trials.extend(PROPERTIES.iter().map(|(name, run)| trial(runtime.handle(), (*name).to_owned(), run)));
    trials.extend(BACKENDS.iter().map(|backend| {
        let name = format!("{}::lists_are_those_of_a_find", backend.name);
        trial(runtime.handle(), name, |server| stores::lists_are_those_of_a_find(server, backend))
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    servers::stop_all();
    // `Conclusion::exit` would end the process and leave the temporary directories.
    conclusion.exit_code()
}

fn trial(runtime: &Handle, name: String, property: impl FnOnce(&Server) + Send + 'static) -> Trial {
    let runtime = runtime.clone();
    let database = servers::unused_name("oracle");
    let run = move || {
        let url = servers::url("mongodb", &database)?;
        let server = Server::connect(runtime, url).map_err(|error| Failed::from(format!("no server: {error}")))?;
        property(&server);
        server.clear();
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(!servers::is_configured("mongodb"))
}

/// A trial that fails because a required server is missing.
fn missing() -> Option<Trial> {
    let is_required = servers::required().iter().any(|name| name == "mongodb");
    let is_missing = is_required && !servers::is_configured("mongodb");
    let run = || Err(format!("TEST_REQUIRE names mongodb: {}", servers::how_to_configure("mongodb")).into());
    is_missing.then(|| Trial::test("a_server_is_configured", run))
}
