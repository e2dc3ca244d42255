//! Asks a running server how it is: the health check of an image that has no shell and no curl.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::tls;

/// What more of an answer than this could say is not read.
const ANSWER_MAX_BYTES: u64 = 16 * 1024;

/// Why the server is not well.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    #[error("no answer from {0}: {1}")]
    NoAnswer(SocketAddr, #[source] io::Error),
    #[error("no answer from {0} within {time}", time = humantime::format_duration(*.1))]
    Late(SocketAddr, Duration),
    #[error("{0} answers {1}")]
    Answer(SocketAddr, String),
}

/// The protocol that the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// Asks for `path` at the server that listens on `listen`.
///
/// # Errors
///
/// Unless the answer is 200, and comes within `within`.
pub fn ask(listen: SocketAddr, scheme: Scheme, path: &str, within: Duration) -> Result<(), Unhealthy> {
    let server = reachable(listen);
    let answer = request(server, scheme, path, within).map_err(|error| match error.kind() {
        // What the system calls it when a socket's time is up depends on the system.
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Unhealthy::Late(server, within),
        _ => Unhealthy::NoAnswer(server, error),
    })?;
    let mut words = answer.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some("HTTP/1.1"), Some("200")) => Ok(()),
        _ => Err(Unhealthy::Answer(server, answer.lines().next().unwrap_or("nothing").to_owned())),
    }
}

/// A server that listens on every address answers on the loopback one.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listen.port())
}

fn request(server: SocketAddr, scheme: Scheme, path: &str, within: Duration) -> io::Result<String> {
    let end = Instant::now() + within;
    let stream = Deadline { stream: TcpStream::connect_timeout(&server, within)?, end };
    match scheme {
        Scheme::Http => exchange(stream, server, path),
        Scheme::Https => exchange(tls::connect_unverified(stream)?, server, path),
    }
}

fn exchange(mut stream: impl Read + Write, server: SocketAddr, path: &str) -> io::Result<String> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: records-healthcheck\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A stream of which all reads and writes together have an end: a server that sends a byte now and then is as late as one that
/// sends none.
struct Deadline {
    stream: TcpStream,
    end: Instant,
}

impl Deadline {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Deadline {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Deadline {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
