//! The sources of settings: a flag overrides its variable, and both override the file that `--config` names.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStr, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches};

use super::file::ConfigFile;
use super::flags::{Cli, ESSENTIAL, ServeArgs, Subcommands};
use super::secret::without_secrets;

/// The source of a value. Later variants override earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Default,
    File,
    Variable,
    Flag,
}

/// The values of a command's settings, and their sources.
pub struct Sources {
    matches: ArgMatches,
    file: ConfigFile,
}

/// Returns the settings of `serve`, which are those that a file may hold.
pub fn settings() -> Command {
    ServeArgs::augment_args(Command::new("serve"))
}

/// Returns the command line for help and completions: it accepts the settings of `serve` without a command, too.
pub fn documented() -> Command {
    ServeArgs::augment_args(command()).mut_args(hide_details).subcommand_required(false)
}

fn command() -> Command {
    Cli::command().mut_subcommands(|command| command.mut_args(hide_details))
}

/// Fits `-h` on a screen: the essential settings in one list, without their variables. Values of variables may be secrets.
fn hide_details(arg: Arg) -> Arg {
    let is_hidden = arg.get_env().is_some() && !ESSENTIAL.contains(&arg.get_id().as_str());
    let arg = arg.hide_short_help(is_hidden).hide_env_values(true);
    let is_short = env::args_os().any(|typed| typed == "-h");
    if is_short { arg.hide_env(true).help_heading(None) } else { arg }
}

/// Reads the command line, then the environment and the file of settings for the values that it leaves out.
///
/// # Errors
///
/// When one of them is wrong, and for `--help` and `--version`.
pub fn read() -> Result<(Subcommands, Sources), clap::Error> {
    let mut typed: Vec<OsString> = env::args_os().collect();
    let first = typed.get(1).map_or("--".into(), |first| first.to_string_lossy().into_owned());
    let command = match first.as_str() {
        "-h" | "--help" | "help" => documented(),
        "-V" | "--version" => command(),
        _ => {
            if first.starts_with('-') {
                typed.insert(typed.len().min(1), "serve".into());
            }
            // An empty variable counts as unset: compose files and manifests pass on variables that are not set.
            command().mut_subcommands(|command| command.mut_args(unless_empty))
        }
    };
    let parse = |command: &Command| {
        let matches = command.clone().try_get_matches_from(&typed);
        matches.map_err(|error| hide_secrets(name_variable(error, &typed)))
    };
    let path = parse(&command)?.remove_subcommand().and_then(|(_, matches)| {
        let path = matches.try_get_one::<PathBuf>("config").ok().flatten();
        path.cloned()
    });
    let file = match path {
        None => ConfigFile::default(),
        Some(path) => ConfigFile::read(&path, &settings()).map_err(invalid)?,
    };
    let with_default = |arg: Arg| match file.values(arg.get_id().as_str()) {
        Some(values) => arg.default_values(values.iter().cloned().map(OsStr::from)),
        None => arg,
    };
    let mut matches = parse(&command.mut_subcommands(|command| command.mut_args(with_default)))?;
    let parsed = Cli::from_arg_matches(&matches)?.command;
    let matches = matches.remove_subcommand().map(|(_, matches)| matches).unwrap_or_default();
    Ok((parsed, Sources { matches, file }))
}

/// Returns an error about the settings with this text.
pub fn invalid(text: String) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, text + "\n")
}

fn unless_empty(arg: Arg) -> Arg {
    let is_empty = arg.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
    if is_empty { arg.env(Resettable::Reset) } else { arg }
}

/// Hides passwords and API keys in an error that quotes a value: it may have been meant for another setting.
fn hide_secrets(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidSubcommand, ContextKind::InvalidValue] {
        if let Some(ContextValue::String(value)) = error.get(kind)
            && let Some(shown) = without_secrets(value)
        {
            error.insert(kind, ContextValue::String(shown));
        }
    }
    error
}

/// Adds the variable to the error of a flag that was not typed: clap names only the flag.
fn name_variable(mut error: clap::Error, typed: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let Some(long) = flag.split_whitespace().next() else { return error };
    let is_typed = typed.iter().any(|typed| typed.to_string_lossy().split('=').next() == Some(long));
    let settings = settings();
    let setting = settings.get_arguments().find(|arg| arg.get_long() == long.strip_prefix("--"));
    if let Some(variable) = setting.and_then(Arg::get_env).filter(|_| !is_typed) {
        let named = format!("{} ({flag})", variable.display());
        error.insert(ContextKind::InvalidArg, ContextValue::String(named));
    }
    error
}

fn flag(id: &str) -> String {
    format!("--{}", id.replace('_', "-"))
}

fn variable(id: &str) -> String {
    let settings = settings();
    let variable = settings.get_arguments().find(|arg| arg.get_id() == id).and_then(Arg::get_env);
    variable.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Sources {
    pub fn source(&self, id: &str) -> Source {
        match self.matches.value_source(id) {
            Some(ValueSource::CommandLine) => Source::Flag,
            Some(ValueSource::EnvVariable) => Source::Variable,
            _ if self.file.values(id).is_some() => Source::File,
            _ => Source::Default,
        }
    }

    /// Names a setting by its flag, and by the variable or the line that has set it.
    pub fn name(&self, id: &str) -> String {
        match (self.source(id), self.file.place(id)) {
            (Source::Variable, _) => format!("{} ({})", variable(id), flag(id)),
            (Source::File, Some(place)) => format!("{place} ({})", flag(id)),
            _ => flag(id),
        }
    }

    /// Returns a line for each setting: its flag, its value, and its source. `replaced` overrides the value, and perhaps the
    /// source, of some settings.
    pub fn describe(&self, replaced: &[(&str, String, Option<String>)]) -> String {
        let line = |arg: &Arg| {
            let id = arg.get_id().as_str();
            let values = self.matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy());
            let value = values.collect::<Vec<_>>().join(",");
            let source = match (self.source(id), self.file.place(id)) {
                (Source::Flag, _) => format!("flag {}", flag(id)),
                (Source::Variable, _) => format!("environment {}", variable(id)),
                (Source::File, Some(place)) => place,
                _ => "default".to_owned(),
            };
            let (value, source) = match replaced.iter().find(|(replaced, ..)| *replaced == id) {
                Some((_, value, other)) => (value.clone(), other.clone().unwrap_or(source)),
                None => (value, source),
            };
            [flag(id), if value.is_empty() { "-".to_owned() } else { value }, source]
        };
        let lines: Vec<_> = settings().get_arguments().map(line).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
        let (first, second) = (width(0), width(1));
        lines.iter().map(|[flag, value, source]| format!("{flag:first$}  {value:second$}  {source}\n")).collect()
    }
}
