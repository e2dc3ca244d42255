//! Clients that never complete a TLS handshake, or misuse TLS.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::process::{Serving, directory, records};
use crate::support::{LOOKUP, PROMPT, read_to_end};
use crate::tls_support::{Authority, write};

/// A server of HTTPS, and of metrics without TLS.
struct Victim {
    serving: Serving,
    client: Arc<ClientConfig>,
    _directory: TempDir,
}

impl Victim {
    fn with(records_of: (usize, usize), arguments: &[&str]) -> Self {
        let (directory, authority) = (directory(), Authority::new());
        write(&directory, &authority.issue("localhost"));
        let (count, size) = records_of;
        let line = |id| format!("{{\"_id\":{id},\"text\":\"{}\"}}\n", "x".repeat(size));
        std::fs::write(directory.path().join("seed"), (1..=count).map(line).collect::<String>()).unwrap();
        let fixed =
            ["--store", "memory:", "--seed", "seed", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let tls = ["--tls-cert", "tls.crt", "--tls-key", "tls.key"];
        let serving = Serving::spawn(records(&directory, &[&fixed[..], &tls, arguments].concat()));
        Self { serving, client: authority.client(&[&TLS13, &TLS12], &["http/1.1"], None), _directory: directory }
    }

    fn start(arguments: &[&str]) -> Self {
        Self::with((1, 10), arguments)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.serving.address).await.unwrap()
    }

    async fn shake_hands(&self) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(self.client.clone());
        let handshake = connector.connect("localhost".try_into().unwrap(), self.connect().await);
        timeout(PROMPT, handshake).await.expect("a handshake").unwrap()
    }

    async fn assert_serves(&self) {
        let mut stream = self.shake_hands().await;
        stream.write_all(LOOKUP.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PROMPT, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }

    fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.serving.get_at(self.serving.admin(), "/metrics");
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_else(|| panic!("{text}"))
    }

    async fn wait_for(&self, name: &str, value: f64) {
        let reached = async {
            while self.metric(name) != value {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let reached = timeout(PROMPT, reached).await;
        assert!(reached.is_ok(), "{name} is {}, and not {value}", self.metric(name));
    }

    /// Checks that the server still serves, holds no connection, and stops gracefully.
    async fn assert_survives(self) {
        self.assert_serves().await;
        self.wait_for("records_http_connections_open", 0.0).await;
        self.serving.signal("TERM");
        let (status, log) = self.serving.wait();
        assert!(status.success() && !log.contains("panicked"), "{log}");
    }
}

pub async fn http_without_tls_is_told_to_use_it() {
    let victim = Victim::start(&[]);
    let long = LOOKUP.replace("\r\n\r\n", &format!("\r\nX-Long: {}\r\n\r\n", "x".repeat(10_000)));
    for request in [LOOKUP, &long, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = victim.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("HTTPS"), "{answer:?}");
    }
    victim.assert_survives().await;
}

pub async fn half_a_handshake_is_cut_in_time_and_counted() {
    let victim = Victim::start(&["--header-timeout", "3s", "--max-connections", "20"]);
    let hello = client_hello(&victim.client);
    let mut stalled = Vec::new();
    // These reach the connection limit: the next client waits until they are cut.
    for length in (0..20).map(|part| part * hello.len() / 20) {
        let mut stream = victim.connect().await;
        stream.write_all(&hello[..length]).await.unwrap();
        stalled.push(stream);
    }
    victim.assert_serves().await;
    for stream in &mut stalled {
        assert_eq!(read_to_end(stream).await, "");
    }
    victim.wait_for("records_http_tls_handshakes_failed_total", 20.0).await;
    victim.assert_survives().await;
}

pub async fn garbage_in_place_of_tls_is_closed() {
    let victim = Victim::start(&[]);
    let hello = client_hello(&victim.client);
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..200 {
        let length = random.usize(1..2_000);
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        match round % 4 {
            // A handshake record with random content; a `ClientHello` with one byte changed; one that never ends.
            0 => bytes = [&[22, 3, 1, (bytes.len() >> 8) as u8, bytes.len() as u8][..], &bytes].concat(),
            1 => {
                bytes.clone_from(&hello);
                bytes[random.usize(..hello.len())] ^= 1 << random.u8(..8);
            }
            2 => bytes = [&[22, 3, 1, 0x40, 0][..], &[1, 0xff, 0xff, 0xff], &vec![0; 0x3ffc]].concat(),
            _ => {}
        }
        let mut stream = victim.connect().await;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        // The server answers 400 to bytes that look like a method, else with an alert or parts of a handshake. It always closes
        // the connection.
        read_to_end(&mut stream).await;
    }
    victim.assert_survives().await;
}

pub async fn a_stop_amid_half_a_handshake_is_a_stop() {
    let victim = Victim::start(&["--header-timeout", "1h", "--drain-timeout", "1h"]);
    let hello = client_hello(&victim.client);
    let _half = join_all((0..100).map(|index| {
        let (victim, hello) = (&victim, &hello);
        async move {
            let mut stream = victim.connect().await;
            stream.write_all(&hello[..index]).await.unwrap();
            stream
        }
    }))
    .await;
    let _idle = join_all((0..20).map(|_| victim.shake_hands())).await;
    victim.serving.signal("TERM");
    let (status, log) = victim.serving.wait();
    assert!(status.success() && log.contains("cut=0"), "{log}");
}

pub async fn a_reader_of_nothing_is_cut_in_time_and_counted() {
    let victim = Victim::with((1_000, 8_000), &["--write-timeout", "1s"]);
    let mut stream = victim.shake_hands().await;
    stream.write_all(b"GET /api/v1/records HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
    victim.wait_for("records_http_write_timeouts_total", 1.0).await;
    let mut answer = Vec::new();
    assert!(timeout(PROMPT, stream.read_to_end(&mut answer)).await.expect("an end").is_err(), "a cut list looks whole");
    victim.assert_survives().await;
}

/// Renegotiation would let a client cause work repeatedly. The test uses the program `openssl`, which can still request it.
pub async fn renegotiation_is_refused() {
    let victim = Victim::start(&[]);
    let address = victim.serving.address.to_string();
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-tls1_2", "-crlf"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    let mut output = client.stdout.take().unwrap();
    // `R` at the beginning of what it reads at once asks for a renegotiation: after a response, so not together with the request.
    std::thread::spawn(move || {
        let _ = input.write_all(LOOKUP.replace('\r', "").as_bytes());
        let mut answer = Vec::new();
        while !answer.ends_with(b"xx\"}") {
            answer.push(0);
            let last = answer.len() - 1;
            if output.read_exact(&mut answer[last..]).is_err() {
                return;
            }
        }
        let _ = input.write_all(b"R\n");
        // Reads until the server closes the connection.
        let _ = output.read_to_end(&mut answer);
    });
    let mut text = String::new();
    client.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    let _ = client.kill();
    client.wait().unwrap();
    assert!(text.contains("no renegotiation"), "{text}");
    victim.assert_survives().await;
}

/// Returns the first message of a TLS client.
fn client_hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = "localhost".try_into().unwrap();
    let mut session = tokio_rustls::rustls::ClientConnection::new(config.clone(), name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    hello
}
