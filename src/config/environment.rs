//! Which variables are read: those of the verb's own settings, and of these only where no flag was typed, and only what is not
//! empty: compose files and manifests pass a variable on that way which nobody has set.
//!
//! clap reads and checks the variables of all that stands before a verb too, where `records` alone has the flags of `serve`. It
//! does not see there what was typed behind the verb. So a variable that does not matter could refuse a command that is right.

use std::env;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches};

use super::flags::{Cli, Verb};

/// The command line, and what the environment adds to it. On a wrong one, on `--help` and on `--version` it prints and exits.
pub fn matches() -> ArgMatches {
    // First the command line alone. If that is wrong it is wrong with the environment too.
    let alone = Cli::command().mut_args(typed_only).mut_subcommands(|verb| verb.mut_args(typed_only)).try_get_matches();
    let typed = match alone {
        Ok(typed) => typed,
        Err(error) if error.use_stderr() => error.exit(),
        // Help shows the variables besides.
        Err(_) => return Cli::command().get_matches(),
    };
    let command = Cli::command().mut_args(unless_empty).mut_subcommands(|verb| verb.mut_args(unless_empty));
    let command = match Cli::from_arg_matches(&typed).ok().and_then(|cli| cli.verb) {
        None => command,
        Some(verb) => {
            let shared = match verb {
                Verb::Serve(_) | Verb::Import { .. } | Verb::Config(_) => true,
                Verb::Healthcheck { .. } | Verb::Completions { .. } => false,
            };
            let matters = |flag: &Arg| {
                let is_typed = typed.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine);
                shared && flag.is_global_set() && !is_typed
            };
            // Only before the verb: what stands behind it is right as it is declared.
            command.mut_args(|flag| if matters(&flag) { flag } else { typed_only(flag) })
        }
    };
    command.try_get_matches().unwrap_or_else(|error| naming_the_variable(error).exit())
}

/// The flag without its variable, and without those that it needs, which a variable may give.
fn typed_only(flag: Arg) -> Arg {
    flag.env(Resettable::Reset).requires(Resettable::Reset)
}

/// The flag without its variable, if that is set to nothing.
fn unless_empty(flag: Arg) -> Arg {
    let is_empty = flag.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
    if is_empty { flag.env(Resettable::Reset) } else { flag }
}

/// What is typed was right by itself, so a value that is wrong is a variable's. clap names the flag alone.
fn naming_the_variable(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let Some(long) = flag.split_whitespace().next().and_then(|flag| flag.strip_prefix("--")) else { return error };
    let command = Cli::command();
    // No verb has a variable that the command without a verb has not.
    let variable = command.get_arguments().find(|arg| arg.get_long() == Some(long)).and_then(Arg::get_env);
    if let Some(variable) = variable {
        let named = format!("{} ({flag})", variable.display());
        error.insert(ContextKind::InvalidArg, ContextValue::String(named));
    }
    error
}
