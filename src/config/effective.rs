//! `records config`: what each setting is, and who says so.

use std::fmt::Write;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::Secret;

/// One line for each setting of `serve`: its flag, its value, where that comes from. `store` is the URL that was settled
/// on; it shows no more than the log does.
pub fn describe(command: &Command, matches: &ArgMatches, store: &Secret) -> String {
    let settings = command.get_arguments().filter(|arg| arg.get_env().is_some());
    let lines: Vec<[String; 3]> = settings.map(|arg| line(arg, matches, store)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let (first, second) = (width(0), width(1));
    let mut text = String::new();
    for [flag, value, source] in &lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{flag:first$}  {value:second$}  {source}");
    }
    text
}

fn line(arg: &Arg, matches: &ArgMatches, store: &Secret) -> [String; 3] {
    let id = arg.get_id().as_str();
    let flag = format!("--{}", arg.get_long().unwrap_or(id));
    let raw =
        matches.get_raw(id).map(|values| values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(","));
    let raw = raw.filter(|value| !value.is_empty());
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let source = match matches.value_source(id) {
        Some(ValueSource::CommandLine) => format!("flag {flag}"),
        Some(ValueSource::EnvVariable) => format!("environment {variable}"),
        _ => "default".to_owned(),
    };
    if ["otlp_endpoint", "fallback"].contains(&id) {
        // What this build has not looked at may hold a password by mistake.
        return [flag, raw.map_or_else(|| "-".to_owned(), |url| Secret(url).to_string()), source];
    }
    if id != "store" {
        return [flag, raw.unwrap_or_else(|| "-".to_owned()), source];
    }
    // The only one that may be meant to hold a secret. Where it was not given as such, a file has it, or nobody.
    let file = matches.get_raw("store_file").and_then(|mut files| files.next());
    let from_file = || file.map(|file| format!("file {}", file.to_string_lossy()));
    let typed = matches.value_source("store") == Some(ValueSource::CommandLine);
    let source = match raw {
        Some(_) if file.is_none() || typed => source,
        _ => from_file().unwrap_or_else(|| "default".to_owned()),
    };
    [flag, store.to_string(), source]
}
