//! What the text of a setting means, and which texts mean nothing.

use std::net::SocketAddr;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory};

use super::flags::Cli;
use super::wrong;
use crate::store::fallback;
use crate::telemetry::{Format, trace};

/// Where health and metrics are, if not at `listen` too.
pub fn admin_of(
    admin: Option<SocketAddr>,
    listen: SocketAddr,
    matches: &ArgMatches,
) -> Result<Option<SocketAddr>, clap::Error> {
    if admin == Some(listen) && listen.port() != 0 {
        let (admin, both) = (named("admin_listen", matches), named("listen", matches));
        return Err(wrong(format!("{admin} and {both} are both {listen}: leave {admin} out to have one port")));
    }
    Ok(admin)
}

/// A setting, as whoever has set it knows it.
pub fn named(id: &str, matches: &ArgMatches) -> String {
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    let flag = format!("--{}", id.replace('_', "-"));
    let command = Cli::command();
    let variable = command.get_arguments().find(|arg| arg.get_id() == id).and_then(Arg::get_env);
    match variable {
        Some(variable) if matches.value_source(id) == Some(ValueSource::EnvVariable) => {
            format!("{} ({flag})", variable.display())
        }
        _ => flag,
    }
}

/// The collector of traces. The URL is checked when the export starts: a wrong one is a warning.
pub fn otlp_of(url: Option<String>, matches: &ArgMatches) -> Result<Option<String>, clap::Error> {
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    if !trace::CAN_EXPORT && matches.value_source("otlp_endpoint") == Some(ValueSource::CommandLine) {
        return Err(wrong("this build cannot export traces: rebuild with --features otlp".into()));
    }
    Ok(url)
}

pub fn mode(text: &str) -> Result<fallback::Mode, String> {
    match text {
        "standby" => Ok(fallback::Mode::Standby),
        "replica" => Ok(fallback::Mode::Replica),
        _ => Err("it is standby or replica".into()),
    }
}

pub fn format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("it is text or json".into()),
    }
}

/// No name: it may have several addresses, of which the first may not be the one that clients use.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it must be an IP address and a port, as in 127.0.0.1:8080 or [::1]:8080".into())
}

/// As long as any setting is. What is added to it, and to the time of day, has room behind it.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

pub fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > TIME_MAX => Err("it must be a year at most".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}: write it as in 500ms, 5s or 2m")),
    }
}

pub fn positive(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("it must be longer than nothing".into()),
        duration => Ok(duration),
    }
}

pub fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        // A list of one more is asked for, to see whether there is more.
        Ok(limit @ 1..=1_000_000_000) => Ok(limit),
        _ => Err("it must be a whole number from 1 to 1000000000".into()),
    }
}

pub fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "it must be a whole number, 1 or more".into())
}

/// Bytes, also in units of 1024: `65536`, `64KiB`, `64 MiB`, `1GiB`.
pub fn size(text: &str) -> Result<usize, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: Option<usize> = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<usize>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "it must be a size in bytes, 1 or more, as in 67108864 or 64MiB".into())
}

pub fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        // More than any machine has processors.
        Ok(count @ 1..=1_024) => Ok(count),
        _ => Err("it must be a whole number from 1 to 1024".into()),
    }
}

pub fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        // More would be refused by the semaphore that counts them, and by any system.
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("it must be a whole number from 1 to 1000000".into()),
    }
}
