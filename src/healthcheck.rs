//! Asks a running server how it is: the health check of an image that has no shell and no curl.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What more of an answer than this could say is not read.
const ANSWER_MAX_BYTES: usize = 16 * 1024;

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

/// Asks for `path` at the server that listens on `listen`.
///
/// # Errors
///
/// Unless the answer is 200, and comes within `within`.
pub fn ask(listen: SocketAddr, path: &str, within: Duration) -> Result<(), Unhealthy> {
    let server = reachable(listen);
    let answer = request(server, path, within).map_err(|error| match error.kind() {
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

/// `within` bounds all of it: a server that sends a byte now and then is as late as one that sends none.
fn request(server: SocketAddr, path: &str, within: Duration) -> io::Result<String> {
    let begun = Instant::now();
    let left = || match within.saturating_sub(begun.elapsed()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(Some(left)),
    };
    let mut stream = TcpStream::connect_timeout(&server, within)?;
    stream.set_write_timeout(left()?)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: records-healthcheck\r\nConnection: close\r\n\r\n"
    )?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    while answer.len() < ANSWER_MAX_BYTES {
        stream.set_read_timeout(left()?)?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
