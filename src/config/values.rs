//! What the text of a setting means, and which texts mean nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::wrong;
use crate::store::fallback;
use crate::telemetry::{Format, spans};

/// Where health and metrics are, if not at `listen` too.
pub fn admin_of(text: Option<String>, listen: Option<SocketAddr>) -> Result<Option<SocketAddr>, clap::Error> {
    // Set to nothing is not set: compose files and manifests pass variables on that way.
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let address: SocketAddr =
        text.parse().map_err(|_| wrong(format!("--admin-listen is {text:?}: write it as in 127.0.0.1:9090")))?;
    if Some(address) == listen && address.port() != 0 {
        let text = format!("--admin-listen and --listen are both {address}: leave --admin-listen out to have one port");
        return Err(wrong(text));
    }
    Ok(Some(address))
}

/// Where traces are collected.
pub fn otlp_of(url: Option<String>, matches: &ArgMatches) -> Result<Option<String>, clap::Error> {
    let Some(url) = url.filter(|url| !url.is_empty()) else { return Ok(None) };
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    if !spans::COMPILED && matches.value_source("otlp_endpoint") == Some(ValueSource::CommandLine) {
        return Err(wrong("this build cannot export traces: rebuild with --features otlp".into()));
    }
    // Not shown: it may hold what should not be.
    match url.strip_prefix("http://") {
        // Set for all services of a machine, perhaps: then the log says that it has no effect.
        _ if !spans::COMPILED => Ok(Some(url)),
        Some(place) if !place.is_empty() && !place.contains(['@', '?', '#', ' ']) => Ok(Some(url)),
        _ => Err(wrong(
            "--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) must be the URL of a collector nearby, as in \
             http://127.0.0.1:4318, without a password; there is no TLS"
                .into(),
        )),
    }
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
        // Set to nothing is not set.
        "text" | "" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("it is text or json".into()),
    }
}

/// A collection. Set to nothing is not set.
pub fn or_records(text: &str) -> Result<String, Infallible> {
    Ok(if text.is_empty() { "records" } else { text }.to_owned())
}

/// A filter of the log. Set to nothing is not set.
pub fn or_info(text: &str) -> Result<String, Infallible> {
    Ok(if text.is_empty() { "info" } else { text }.to_owned())
}

pub fn positive(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it must be longer than nothing".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}: write it as in 500ms, 5s or 2m")),
    }
}

pub fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "it must be a whole number, 1 or more".into())
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
