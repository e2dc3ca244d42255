//! The command line: reads the settings, wires the rooms together, says how it went by the exit status.

#![forbid(unsafe_code)]

mod verbs;

use std::process::ExitCode;

use records::config::{self, Command};

fn main() -> ExitCode {
    match config::read() {
        Command::Serve(serve) => verbs::serve(*serve),
        Command::Import(import) => verbs::import(import),
        Command::Healthcheck(healthcheck) => verbs::healthcheck(healthcheck),
        Command::Config(serve, text) => verbs::config(&serve, &text),
        Command::Completions(shell) => verbs::completions(shell),
    }
}
