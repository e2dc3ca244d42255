//! Malformed bytes, and bytes that two servers could read as different requests.

use std::iter::repeat_with;

use tokio::io::AsyncWriteExt;

use crate::support::{Victim, read_to_end};

/// Checks that the response is a single 4xx, or nothing.
fn assert_refused(answer: &str, what: &[u8]) {
    let what = String::from_utf8_lossy(&what[..what.len().min(80)]);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?} to {what:?}");
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "more than one answer to {what:?}");
}

/// Returns a valid request head with these additional lines.
fn head(lines: &str) -> Vec<u8> {
    format!("GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n{lines}\r\n").into_bytes()
}

pub async fn what_is_not_http_is_refused_or_closed() {
    let victim = Victim::with_records(1, 10, &[]);
    let shapes: Vec<Vec<u8>> = vec![
        b"\0\0\0\0\r\n\r\n".into(),
        b"\r\n\r\n\r\n\r\nfoo\r\n\r\n".into(),
        b"GET\r\n\r\n".into(),
        // HTTP/0.9, and versions that do not exist.
        b"GET /api/v1/records/1\r\n\r\n".into(),
        b"GET /api/v1/records/1 HTTP/9.9\r\n\r\n".into(),
        b"GET /api/v1/records/1 HTTP/1.1 extra\r\nHost: test\r\n\r\n".into(),
        b"GET /api/v1/records/1 http/1.1\r\nHost: test\r\n\r\n".into(),
        // Almost HTTP/2; a TLS client; SSH, Redis and MongoDB clients.
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n\0\0\0\x04\0\0\0\0\0".into(),
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 507]].concat(),
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n".into(),
        b"*1\r\n$4\r\nPING\r\n\r\n".into(),
        [&b"\x3a\0\0\0\x01\0\0\0\0\0\0\0\xd4\x07\0\0"[..], &[0; 42]].concat(),
        // Request lines.
        b"GET /\0 HTTP/1.1\r\nHost: test\r\n\r\n".into(),
        b"GET /a b HTTP/1.1\r\nHost: test\r\n\r\n".into(),
        b"G\xc3\x89T / HTTP/1.1\r\nHost: test\r\n\r\n".into(),
        [b"GET /".as_slice(), &[b'a'; 100_000], b" HTTP/1.1\r\nHost: test\r\n\r\n"].concat(),
        vec![b'A'; 100_000],
        // Header lines.
        head("X-Nul: a\0b\r\n"),
        head("X-Control: a\x01b\r\n"),
        head("X-Return: a\rb\r\n"),
        head("No colon\r\n"),
        head(": no name\r\n"),
        head("Space before : colon\r\n"),
        head("X-Folded: a\r\n b\r\n"),
        head(&format!("X-Long: {}\r\n", "x".repeat(100_000))),
        head(&"X-Many: x\r\n".repeat(10_000)),
        // Framing.
        head("Content-Length: 5\r\nContent-Length: 6\r\n"),
        head("Content-Length: 5, 6\r\n"),
        head("Content-Length: -1\r\n"),
        head("Content-Length: +5\r\n"),
        head("Content-Length: 0x5\r\n"),
        head("Content-Length: 99999999999999999999999\r\n"),
        head("Transfer-Encoding: gzip\r\n"),
        head("Transfer-Encoding: chunked, identity\r\n"),
        head("Transfer-Encoding: xchunked\r\n"),
        head("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
    ];
    for shape in shapes {
        let mut stream = victim.send(&shape).await;
        // A server that waits for more bytes gets the end of the stream instead.
        let _ = stream.shutdown().await;
        assert_refused(&read_to_end(&mut stream).await, &shape);
        victim.assert_serves().await;
    }
    victim.assert_survives().await;
}

pub async fn random_bytes_are_refused_or_closed() {
    let victim = Victim::with_records(1, 10, &[]);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        let length = random.usize(1..2_000);
        let mut bytes: Vec<u8> = repeat_with(|| random.u8(..)).take(length).collect();
        if random.bool() {
            // A valid request line, followed by garbage.
            bytes = [b"GET /api/v1/records/1 HTTP/1.1\r\n", bytes.as_slice(), b"\r\n\r\n"].concat();
        }
        let mut stream = victim.send(&bytes).await;
        let _ = stream.shutdown().await;
        assert_refused(&read_to_end(&mut stream).await, &bytes);
    }
    victim.assert_survives().await;
}

/// Request smuggling: one server reads the bytes as a body, another one as a second request that the first has not checked. The
/// record that only the second request asks for must never be sent.
pub async fn a_request_that_two_servers_would_frame_differently_is_the_last_on_its_connection() {
    let victim = Victim::with_records(2, 10, &[]);
    let hidden = "GET /api/v1/records/2 HTTP/1.1\r\nHost: test\r\n\r\n";
    let length = format!("Content-Length: {}\r\n", hidden.len());
    for lines in [
        format!("Transfer-Encoding: chunked\r\n{length}"),
        format!("{length}Transfer-Encoding: chunked\r\n"),
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n{length}"),
        format!("Transfer-Encoding : chunked\r\n{length}"),
        format!("Transfer-Encoding:\x0bchunked\r\n{length}"),
    ] {
        for body in [format!("0\r\n\r\n{hidden}"), hidden.to_owned(), format!("5\r\nhello\r\n0\r\n\r\n{hidden}")] {
            let answer = victim.ask([head(&lines).as_slice(), body.as_bytes()].concat()).await;
            assert!(!answer.contains(r#""_id":2"#), "{lines:?} and {body:?} got {answer}");
            assert!(answer.starts_with("HTTP/1.1 4") || answer.contains(r#""_id":1"#), "{lines:?} got {answer:?}");
        }
        victim.assert_serves().await;
    }
    victim.assert_survives().await;
}

pub async fn a_body_that_never_comes_holds_nobody() {
    let victim = Victim::with_records(1, 10, &["--header-timeout", "1s"]);
    for lines in ["Content-Length: 1000000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        for begun in [&b""[..], b"5\r\nhel", b"fffffffffffffff\r\n"] {
            let answer = victim.ask([head(lines).as_slice(), begun].concat()).await;
            assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
    }
    victim.assert_survives().await;
}
