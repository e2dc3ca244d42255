//! The command line: reads the settings, connects the modules, reports the outcome by the exit status.

#![forbid(unsafe_code)]

mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::run(records::config::read())
}
