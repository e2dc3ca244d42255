//! Ports for servers that a test starts.

use std::io::{Error, Result};
use std::net::{Ipv4Addr, TcpListener};

/// The number of ports to try.
const ATTEMPTS: usize = 100;

/// Returns a port that was free a moment ago. It is below the range of ephemeral ports, which a client may take before the server
/// starts.
pub fn free_port() -> Result<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_ascii_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    let ports = 1_024.max(first / 3)..first;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut tried = std::iter::repeat_with(|| fastrand::u16(ports.clone())).take(ATTEMPTS);
    tried.find(is_free).ok_or_else(|| Error::other(format!("no port is free among {ports:?}")))
}
