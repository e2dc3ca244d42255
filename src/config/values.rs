//! The values of settings: which texts they accept.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::num::{NonZero, NonZeroU32};
use std::path::PathBuf;
use std::str::FromStr;
use std::thread::available_parallelism;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{PathBufValueParser, TypedValueParser};

use super::secret::without_secrets;
use crate::http::RATE_MAX;

/// A port, and the host name or the IP address of the interface to listen on. An empty host is every interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    host: String,
    pub port: u16,
}

impl ListenAddress {
    /// Returns true if two sockets cannot listen on both, as far as that is known without DNS.
    pub fn overlaps(&self, other: &Self) -> bool {
        let every = |mine: &Self, other: &Self| match (mine.ip(), other.ip()) {
            // A socket of IPv6 takes IPv4 too.
            (Some(IpAddr::V6(mine)), Some(_)) => mine.is_unspecified(),
            (Some(IpAddr::V4(mine)), Some(IpAddr::V4(_))) => mine.is_unspecified(),
            _ => false,
        };
        self.port == other.port
            && self.port != 0
            && (self.host == other.host || every(self, other) || every(other, self))
    }

    fn ip(&self) -> Option<IpAddr> {
        match self.host.as_str() {
            "" => Some(Ipv6Addr::UNSPECIFIED.into()),
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            host => host.parse().ok(),
        }
    }

    /// Returns the socket addresses to try, in order. If a name has several, IPv4 comes first.
    ///
    /// # Errors
    ///
    /// When the name has no address.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if self.host.is_empty() {
            // A socket of IPv6 takes IPv4 too, where the system has IPv6.
            return Ok(vec![(Ipv6Addr::UNSPECIFIED, self.port).into(), (Ipv4Addr::UNSPECIFIED, self.port).into()]);
        }
        let mut addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        Ok(addresses)
    }
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |host: &str| host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c));
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
                Some(address) => address.parse::<Ipv6Addr>().ok()?.to_string(),
                None => Some(host).filter(|host| is_name(host))?.to_owned(),
            };
            Some(Self { host, port: port.parse().ok()? })
        });
        parsed.ok_or("it must be a host and a port, as in 127.0.0.1:8080, localhost:8080, [::1]:8080 or :8080")
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Accepts the path of a file. A URL or an API key that was meant for another setting may be a secret, so no later error quotes it.
pub fn file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match without_secrets(&path.to_string_lossy()) {
        Some(_) => Err("it must be the path of a file"),
        None => Ok(path),
    })
}

/// The longest time that a setting accepts. Far below the limits of `Duration` and `Instant`, so that sums cannot overflow.
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

pub fn size(text: &str) -> Result<ByteSize, &'static str> {
    let is_addressable = |size: &ByteSize| (1..=isize::MAX as u64).contains(&size.as_u64());
    text.parse().ok().filter(is_addressable).ok_or("it must be a size, 1 byte or more, as in 67108864, 64MiB or 1GiB")
}

/// Accepts whole numbers from 1 to `max`.
pub fn up_to(max: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| (1..=max).contains(number));
        number.ok_or_else(|| format!("it must be a whole number from 1 to {max}"))
    }
}

/// Accepts `on` and `off`.
pub fn on_or_off(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it must be on or off"),
    }
}

/// Accepts what clap takes for a boolean.
pub fn switch(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("it must be true or false"),
    }
}

pub fn burst(text: &str) -> Result<NonZeroU32, String> {
    let number = text.parse().ok().filter(|number: &NonZeroU32| number.get() <= RATE_MAX);
    number.ok_or_else(|| format!("it must be a whole number from 1 to {RATE_MAX}"))
}

/// Counts the processors that the process may use, by its affinity and the quota of its cgroup.
pub fn processors() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}
