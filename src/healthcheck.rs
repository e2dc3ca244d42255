//! A client for `/livez` and `/readyz`: the health check of an image that has no shell and no curl.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::tls;

/// Bounds the memory for a response. The status line is all that matters.
const RESPONSE_MAX_BYTES: u64 = 16 * 1024;

/// The reason why the health check failed.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    #[error("no answer from {0}: {1}")]
    Io(SocketAddr, #[source] io::Error),
    #[error("no answer from {0} within {time}", time = humantime::format_duration(*.1))]
    TimedOut(SocketAddr, Duration),
    #[error("{0} answers {1}")]
    Status(SocketAddr, String),
}

/// The protocol that the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// Requests `path` from the server that listens on `listen`, and checks that the status is 200.
///
/// # Errors
///
/// When there is no response within `timeout`, or it has another status.
pub fn check(listen: SocketAddr, scheme: Scheme, path: &str, timeout: Duration) -> Result<(), HealthcheckError> {
    let server = connectable(listen);
    let response = get(server, scheme, path, timeout).map_err(|error| match error.kind() {
        // The name of a socket's time-out depends on the system.
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HealthcheckError::TimedOut(server, timeout),
        _ => HealthcheckError::Io(server, error),
    })?;
    let mut words = response.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some("HTTP/1.1"), Some("200")) => Ok(()),
        _ => Err(HealthcheckError::Status(server, response.lines().next().unwrap_or("nothing").to_owned())),
    }
}

/// Returns an address that a client can connect to: a server that listens on every address answers on the loopback address.
fn connectable(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listen.port())
}

fn get(server: SocketAddr, scheme: Scheme, path: &str, timeout: Duration) -> io::Result<String> {
    let end = Instant::now() + timeout;
    let stream = DeadlineStream { stream: TcpStream::connect_timeout(&server, timeout)?, end };
    match scheme {
        Scheme::Http => exchange(stream, server, path),
        Scheme::Https => exchange(tls::connect_unverified(stream)?, server, path),
    }
}

/// Sends the request, and returns the response or the first part of a long one.
fn exchange(mut stream: impl Read + Write, server: SocketAddr, path: &str) -> io::Result<String> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: records-healthcheck\r\nConnection: close\r\n\r\n"
    )?;
    let mut response = Vec::new();
    stream.take(RESPONSE_MAX_BYTES).read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// A stream with one deadline for all reads and writes, which a server that sends one byte at a time cannot prolong.
struct DeadlineStream {
    stream: TcpStream,
    end: Instant,
}

impl DeadlineStream {
    fn remaining(&self) -> io::Result<Option<Duration>> {
        match self.end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            remaining => Ok(Some(remaining)),
        }
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.remaining()?)?;
        self.stream.read(buffer)
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.remaining()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
