//! The one request that an export is: over HTTP/1.1, without TLS, on a connection of its own, every few seconds.
//!
//! It blocks, which is what the SDK's exporting thread is for. The clients that the SDK knows bring eighty crates, or need a
//! runtime on that thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use futures::future::BoxFuture;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

/// How long connecting, and each step after it, may take.
const STEP: Duration = Duration::from_secs(5);

/// What more of an answer than this could say is not read.
const ANSWER_MAX_BYTES: u64 = 16 * 1024;

#[derive(Debug)]
pub struct Client;

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> BoxFuture<'b, Result<Response<Bytes>, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let status = send(&request)?;
            // What else a collector says is of no use to anybody: the status decides.
            Ok(Response::builder().status(status).body(Bytes::new())?)
        })
    }
}

/// To the first address that takes it: `localhost` may be `::1` before it is 127.0.0.1, where the collector listens.
fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the collector's host has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, STEP) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The status of the answer.
fn send(request: &Request<Bytes>) -> io::Result<u16> {
    let (uri, body) = (request.uri(), request.body());
    let no_host = || io::Error::new(io::ErrorKind::InvalidInput, "the collector's URL has no host");
    let authority = uri.authority().ok_or_else(no_host)?;
    // As an address has it: an IPv6 one without its brackets.
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<_> = (host, authority.port_u16().unwrap_or(80)).to_socket_addrs()?.collect();
    let mut stream = connect(&addresses)?;
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;

    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n").into_bytes();
    for (name, value) in request.headers() {
        head.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    stream.write_all(&head)?;
    stream.write_all(body)?;

    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer)?;
    let status = std::str::from_utf8(answer.get(9..12).unwrap_or_default()).ok().and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the collector does not speak HTTP"))
}
