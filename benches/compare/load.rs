//! The load generator: each client sends a request on its connection, reads the whole response, and sends the next.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The measurements of the clients in one round.
#[derive(Clone, Debug)]
pub struct Seen {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// Requests `paths` in turn over `connections`, spread over `ports`, for `time`. Every response must be a 200; another one ends
/// the comparison.
pub fn run(ports: &[u16], paths: &Arc<Vec<String>>, connections: usize, time: Duration) -> Seen {
    // A single thread: the load generator shares the processors with the service.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // The requests are built before the clock starts, since that would take processor time from the contestants.
    let request = |path: &String| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let requests: Arc<[String]> = paths.iter().map(request).collect();
    let (took, seconds) = runtime.block_on(async {
        let begun = Instant::now();
        let end = begun + time;
        let clients: Vec<_> = (0..connections)
            .map(|client| {
                let (requests, port) = (requests.clone(), ports[client % ports.len()]);
                tokio::spawn(async move { one(port, &requests, client * requests.len() / connections, end).await })
            })
            .collect();
        let mut took = Vec::new();
        for client in clients {
            took.extend(client.await.expect("a client"));
        }
        (took, begun.elapsed().as_secs_f64())
    });
    seen(took, seconds)
}

pub fn seen(mut took: Vec<Duration>, seconds: f64) -> Seen {
    assert!(!took.is_empty(), "nothing was answered");
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    Seen { per_second: took.len() as f64 / seconds, p50: at(0.5), p99: at(0.99) }
}

async fn one(port: u16, requests: &[String], start: usize, end: Instant) -> Vec<Duration> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let mut buffer = vec![0; 256 * 1024];
    let mut took = Vec::new();
    for request in requests.iter().cycle().skip(start) {
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        stream.write_all(request.as_bytes()).await.expect("a request");
        answer(&mut stream, &mut buffer).await;
        took.push(begun.elapsed());
    }
    took
}

/// Reads a response to its end.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    let (head, length) = loop {
        let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert_ne!(read, 0, "the server closed the connection");
        filled += read;
        // Parses only the headers that hyper needs to be understood: a slow client would hide the differences.
        if let Some(end) = memmem::find(&buffer[..filled], b"\r\n\r\n") {
            let head = &buffer[..end + 2];
            assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(head));
            let length = memmem::find(head, b"\r\ncontent-length: ").map(|at| {
                let digits = head[at + 18..].iter().take_while(|byte| byte.is_ascii_digit());
                digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
            });
            break (end + 4, length);
        }
    };
    match length {
        Some(length) => {
            let mut rest: usize = head + length - filled;
            while rest > 0 {
                let upto = rest.min(buffer.len());
                let read = stream.read(&mut buffer[..upto]).await.expect("a body");
                assert_ne!(read, 0, "a body is cut");
                rest -= read;
            }
        }
        // A chunked body ends with an empty chunk.
        None => {
            let mut tail: Vec<u8> = buffer[head..filled].iter().rev().take(5).rev().copied().collect();
            while tail != b"0\r\n\r\n" {
                let read = stream.read(buffer).await.expect("a body");
                assert_ne!(read, 0, "a body is cut");
                tail.extend_from_slice(&buffer[read.saturating_sub(5)..read]);
                tail.drain(..tail.len().saturating_sub(5));
            }
        }
    }
}
