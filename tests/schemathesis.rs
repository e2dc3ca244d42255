//! [Schemathesis](https://schemathesis.io) compares the served description of the API with the service, by all of its checks, over
//! every store of this build.
//!
//! Ignored unless `TEST_SCHEMATHESIS` names the executable. For `TEST_REQUIRE` and the servers see `support/servers.rs`.

#[path = "cli/support.rs"]
#[allow(dead_code)]
mod process;
#[path = "support/servers.rs"]
mod servers;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use process::{Serving, code, run, stderr};
use records::auth;
use records::store::{BACKENDS, Backend, BackendKind};

/// The number of generated requests for each check of each operation. More requests find more, and take longer.
const EXAMPLES: &str = "30";

fn main() -> ExitCode {
    // A single thread, because each trial keeps a processor busy.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let program = std::env::var_os("TEST_SCHEMATHESIS").filter(|path| !path.is_empty()).map(PathBuf::from);
    let mut trials = Vec::new();
    // Only builds with the feature `pages` serve the description.
    for backend in BACKENDS.iter().filter(|_| cfg!(feature = "pages")) {
        let testable = backend.kind != BackendKind::Remote || servers::is_configured(backend.name);
        let required = servers::required().iter().any(|name| name == backend.name);
        let ignored = program.is_none() || !(testable || required);
        let program = program.clone().unwrap_or_default();
        // Whom a request is from is decided before any store is asked.
        let modes: &[bool] = if backend.kind == BackendKind::InMemory { &[false, true] } else { &[false] };
        for &with_key in modes {
            let program = program.clone();
            let trial = move || check(&program, backend, with_key).map_err(Into::into);
            let suffix = if with_key { "_with_a_key" } else { "" };
            trials.push(
                Trial::test(format!("{}::the_service_is_as_it_describes_itself{suffix}", backend.name), trial)
                    .with_ignored_flag(ignored),
            );
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    servers::stop_all();
    conclusion.exit_code()
}

fn check(program: &PathBuf, backend: &Backend, with_key: bool) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let store = match backend.kind {
        BackendKind::InMemory => format!("{}:", backend.name),
        BackendKind::Local => format!("{}:data", backend.name),
        BackendKind::Remote => servers::url(backend.name, &servers::unused_name("schemathesis"))?,
    };
    let seed = concat!(env!("CARGO_MANIFEST_DIR"), "/seed/elements.jsonl");
    if backend.kind == BackendKind::Remote {
        let imported = run(&directory, &["import", "--store", &store, seed], "");
        if code(&imported) != 0 {
            return Err(stderr(&imported));
        }
    }
    // The test does not read the access log.
    let mut arguments = vec!["serve", "--store", &store, "--log", "info,records::http=off"];
    let key = auth::new_key("schemathesis")?;
    if with_key {
        let path = directory.path().join("keys");
        std::fs::write(path, format!("{},metrics:read", key.line)).map_err(|error| error.to_string())?;
        arguments.extend(["--api-keys", "keys"]);
    }
    let serving = Serving::start(&directory, &arguments);
    let mut command = Command::new(program);
    command.args(["--config-file", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis.toml"), "run"]);
    command.arg(format!("http://{}/openapi.json", serving.address));
    command.args(["--checks", "all", "--max-examples", EXAMPLES, "--seed", "1", "--no-color"]);
    if with_key {
        command.args(["--header", &format!("Authorization: Bearer {}", key.secret)]);
    }
    // The example database stays with the run.
    let output = command.current_dir(directory.path()).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    }
    // A run that tried nothing must not count as a pass.
    let summary = said.lines().find(|line| line.contains(" generated, ")).ok_or_else(|| said.to_string())?;
    let tried = summary.split_whitespace().find_map(|word| word.replace(',', "").parse::<u32>().ok());
    if tried.is_none_or(|tried| tried < 100) {
        return Err(said.into_owned());
    }
    println!("{}: {}", backend.name, summary.trim());
    serving.signal("TERM");
    Ok(())
}
