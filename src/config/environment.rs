//! Which variables are read: those of the verb's own settings, and of these only where no flag was typed.
//!
//! clap reads and checks the variables of all that stands before a verb too, where `records` alone has the flags of `serve`. It
//! does not see there what was typed behind the verb. So a variable that does not matter could refuse a command that is right.

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches};

use super::flags::{Cli, Verb};

/// The command line, and what the environment adds to it. On a wrong one, on `--help` and on `--version` it prints and exits.
pub fn matches() -> ArgMatches {
    // First the command line alone. If that is wrong it is wrong with the environment too, which help shows besides.
    let alone = Cli::command().mut_args(typed_only).mut_subcommands(|verb| verb.mut_args(typed_only)).try_get_matches();
    let typed = alone.ok();
    let verb = typed.as_ref().and_then(|typed| Cli::from_arg_matches(typed).ok()?.verb);
    let (Some(typed), Some(verb)) = (typed, verb) else { return Cli::command().get_matches() };
    let shared = match verb {
        Verb::Serve(_) | Verb::Import { .. } | Verb::Config(_) => true,
        Verb::Healthcheck { .. } | Verb::Completions { .. } => false,
    };
    let matters = |flag: &Arg| {
        let is_typed = typed.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine);
        shared && flag.is_global_set() && !is_typed
    };
    // Only before the verb: what stands behind it is right as it is declared.
    Cli::command().mut_args(|flag| if matters(&flag) { flag } else { typed_only(flag) }).get_matches()
}

/// The flag without its variable, and without those that it needs, which a variable may give.
fn typed_only(flag: Arg) -> Arg {
    flag.env(Resettable::Reset).requires(Resettable::Reset)
}
