//! A minimal HTTP client that distinguishes a complete response from a cut one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::ports;

pub fn free_port() -> Result<u16, String> {
    ports::free_port().map_err(|error| error.to_string())
}

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// True if the response has an `Age`, so that it comes from the replica.
    pub is_stale: bool,
    /// True if the server closes the connection after the response.
    pub last: bool,
}

pub struct Connection(BufReader<TcpStream>);

pub enum Failure {
    /// No byte of the response came.
    Unanswered,
    /// The response began and did not end.
    Cut(String),
}

impl Connection {
    pub fn open(port: u16) -> io::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        self.get_with(path, "")
    }

    /// Sends a request with further header lines, each with its end.
    fn get_with(&mut self, path: &str, headers: &str) -> Result<Answer, Failure> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: records\r\n{headers}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).map_err(|_| Failure::Unanswered)?;
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(1..) => {}
            _ => return Err(Failure::Unanswered),
        }
        self.rest(&line).map_err(|error| Failure::Cut(format!("after {line:?}: {error}")))
    }

    fn rest(&mut self, line: &str) -> io::Result<Answer> {
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let (mut length, mut chunked, mut last, mut is_stale) = (0, false, false, false);
        loop {
            let header = self.line()?.to_ascii_lowercase();
            match header.split_once(':').map(|(name, value)| (name, value.trim())) {
                None => break,
                Some(("content-length", value)) => length = value.parse().map_err(|_| io::ErrorKind::InvalidData)?,
                Some(("transfer-encoding", value)) => chunked = value == "chunked",
                Some(("age", _)) => is_stale = true,
                Some(("connection", value)) => last = value == "close",
                Some(_) => {}
            }
        }
        let mut body = Vec::new();
        if !chunked {
            self.part(&mut body, length)?;
            return Ok(Answer { status, body, is_stale, last });
        }
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            self.part(&mut body, size)?;
            self.line()?;
            if size == 0 {
                return Ok(Answer { status, body, is_stale, last });
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn part(&mut self, body: &mut Vec<u8>, size: usize) -> io::Result<()> {
        let start = body.len();
        body.resize(start + size, 0);
        self.0.read_exact(&mut body[start..])
    }
}

/// Sends a request on a new connection.
pub fn get(port: u16, path: &str) -> Result<Answer, String> {
    let mut connection = Connection::open(port).map_err(|error| format!("port {port}: {error}"))?;
    connection.get(path).map_err(|failure| match failure {
        Failure::Unanswered => format!("GET {path}: no answer"),
        Failure::Cut(how) => format!("GET {path}: cut {how}"),
    })
}

/// Returns true if the replica has a record at `path`.
pub fn is_in_replica(port: u16, path: &str) -> bool {
    let answer = Connection::open(port)
        .ok()
        .and_then(|mut connection| connection.get_with(path, "cache-control: only-if-cached\r\n").ok());
    answer.is_some_and(|answer| answer.status == 200 && answer.is_stale)
}

/// Returns the status of a response, or 0 without a response.
pub fn status(port: u16, path: &str) -> u16 {
    get(port, path).map_or(0, |answer| answer.status)
}
