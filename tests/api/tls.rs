//! HTTPS: the versions and protocols of TLS, certificates that change, and the ends of connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use records::http::Settings;
use records::reload::Reload;
use records::server::Limits;
use records::tls::{Acceptor, Files};
use rstest::rstest;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, SupportedProtocolVersion};

use crate::support::log::Requests;
use crate::support::{LIMIT, PATIENCE, Server, limits, memory};
use crate::tls_support::{Authority, write};

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

const LOOKUP: &str = "GET /api/v1/records/Au HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

struct Https {
    server: Server,
    authority: Authority,
    files: Arc<dyn Reload>,
    directory: TempDir,
}

impl Https {
    async fn start() -> Self {
        Self::with(limits(), &[r#"{"_id":"Au","z":79}"#], |_, _| {}).await
    }

    async fn with(limits: Limits, lines: &[&str], set: impl FnOnce(&mut Files, &Authority)) -> Self {
        let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
        let mut files = write(&directory, &authority.issue("localhost"));
        set(&mut files, &authority);
        let acceptor = Acceptor::open(files).unwrap();
        let files = acceptor.files();
        let mut settings = Settings::from(LIMIT);
        settings.reloaded.push(files.clone());
        let limits = Limits { tls: Some(acceptor), ..limits };
        Self { server: Server::start(memory(lines).await, settings, limits).await, authority, files, directory }
    }

    async fn connect(&self, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(16 * 1024)?;
        let stream = socket.connect(self.server.address).await?;
        TlsConnector::from(config).connect("localhost".try_into().unwrap(), stream).await
    }

    async fn ask(&self, config: Arc<ClientConfig>, request: &str) -> io::Result<String> {
        let mut sent = Requests::new();
        sent.push(request);
        let mut stream = self.connect(config).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer")?;
        Ok(answer)
    }

    async fn readiness(&self) -> String {
        let request = "GET /readyz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        self.ask(self.authority.client(BOTH, &[], None), request).await.unwrap()
    }
}

#[rstest]
#[case(&TLS12, ProtocolVersion::TLSv1_2)]
#[case(&TLS13, ProtocolVersion::TLSv1_3)]
#[tokio::test]
async fn both_versions_of_tls_and_both_of_http_are_spoken(
    #[case] version: &'static SupportedProtocolVersion,
    #[case] name: ProtocolVersion,
) {
    let https = Https::start().await;
    let stream = https.connect(https.authority.client(&[version], &["h2", "http/1.1"], None)).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(name));
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get("https://localhost/api/v1/records/Au").body(()).unwrap();
    let (response, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), r#"{"_id":"Au","z":79}"#);
    connection.abort();

    for protocols in [&["http/1.1"][..], &[]] {
        let answer = https.ask(https.authority.client(&[version], protocols, None), LOOKUP).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"_id":"Au","z":79}"#), "{answer}");
    }
    assert!(https.connect(https.authority.client(&[version], &["smtp"], None)).await.is_err());
}

#[tokio::test]
async fn a_client_needs_a_certificate_where_clients_have_an_authority() {
    let clients = Authority::new();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), &clients.pem).unwrap();
    let set = |files: &mut Files, _: &Authority| files.client_ca = Some(ca.path().to_owned());
    let https = Https::with(limits(), &[r#"{"_id":"Au"}"#], set).await;
    let (known, foreign) = (clients.issue("client"), https.authority.issue("client"));
    for version in BOTH {
        let ask = async |identity| https.ask(https.authority.client(&[version], &[], identity), LOOKUP).await;
        assert!(ask(Some(&known)).await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(ask(None).await.is_err(), "served without a certificate");
        assert!(ask(Some(&foreign)).await.is_err(), "served with a foreign certificate");
    }
}

#[tokio::test]
async fn new_files_take_effect_and_broken_ones_degrade() {
    let https = Https::start().await;
    let path = |name: &str| https.directory.path().join(name);
    assert!(https.readiness().await.contains("\"ready\""));

    let chain = std::fs::read_to_string(path("tls.crt")).unwrap();
    let damaged = format!("{chain}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let other = https.authority.issue("other").key;
    for (name, content) in [("tls.crt", "nonsense"), ("tls.crt", &damaged), ("tls.key", ""), ("tls.key", &other)] {
        let before = std::fs::read(path(name)).unwrap();
        std::fs::write(path(name), content).unwrap();
        https.files.reload();
        let readiness = https.readiness().await;
        assert!(readiness.contains("degraded") && readiness.contains("TLS certificates"), "{readiness}");
        std::fs::write(path(name), before).unwrap();
        https.files.reload();
        assert!(https.readiness().await.contains("\"ready\""));
    }

    let next = Authority::new();
    let mut kept = https.connect(https.authority.client(BOTH, &[], None)).await.unwrap();
    write(&https.directory, &next.issue("localhost"));
    https.files.reload();
    assert!(https.connect(https.authority.client(BOTH, &[], None)).await.is_err(), "the old certificate is used");
    assert!(https.ask(next.client(BOTH, &[], None), LOOKUP).await.unwrap().starts_with("HTTP/1.1 200"));
    // A connection outlives the certificate that it began with.
    kept.write_all(LOOKUP.as_bytes()).await.unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_refused_by_name() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let (identity, other) = (authority.issue("localhost"), authority.issue("localhost"));
    for (cert, key, reasons) in [
        ("", identity.key.as_str(), &["tls.crt", "no certificate"][..]),
        (&identity.key, &identity.key, &["tls.crt", "no certificate"]),
        (&identity.cert, &identity.cert, &["tls.key", "no private key"]),
        (&identity.cert, "-----BEGIN PRIVATE KEY-----\nAAAA\n", &["tls.key"]),
        (&identity.cert, &other.key, &["tls.crt", "tls.key", "cannot be used together"]),
    ] {
        let mut files = write(&directory, &identity);
        std::fs::write(&files.cert, cert).unwrap();
        std::fs::write(&files.key, key).unwrap();
        let error = Acceptor::open(files.clone()).unwrap_err();
        assert!(reasons.iter().all(|reason| error.contains(reason)), "{error}");
        files.client_ca = Some(directory.path().join("missing"));
        assert!(Acceptor::open(files).unwrap_err().contains("missing"));
    }
}

#[rstest]
#[case(&TLS12)]
#[case(&TLS13)]
#[tokio::test]
async fn a_client_that_closes_its_sending_half_gets_its_whole_answer(
    #[case] version: &'static SupportedProtocolVersion,
) {
    let large = format!(r#"{{"_id":"Au","text":"{}"}}"#, "x".repeat(4_000_000));
    let https = Https::with(limits(), &[&large], |_, _| {}).await;
    for is_closed_by_tls in [true, false] {
        let mut stream = https.connect(https.authority.client(&[version], &[], None)).await.unwrap();
        stream.write_all(b"GET /api/v1/records/Au HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        match is_closed_by_tls {
            true => stream.shutdown().await.unwrap(),
            // Closes TCP without the alert of TLS, which counts as a truncation.
            false => stream.get_mut().0.shutdown().await.unwrap(),
        }
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer").unwrap();
        assert!(answer.ends_with(b"x\"}"), "{} bytes, closed by TLS: {is_closed_by_tls}", answer.len());
    }
}

/// The end of the connection ends a body of HTTP/1.0, so a client must be able to tell a cut from an end.
#[tokio::test]
async fn a_body_that_is_cut_does_not_end_as_tls_does() {
    let lines: Vec<String> = (0..400).map(|id| format!(r#"{{"_id":{id},"text":"{}"}}"#, "x".repeat(20_000))).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let limits = Limits { write_timeout: Duration::from_millis(400), ..limits() };
    let connections = limits.connections.clone();
    let https = Https::with(limits, &lines, |_, _| {}).await;
    let mut stream = https.connect(https.authority.client(BOTH, &[], None)).await.unwrap();
    stream.write_all(b"GET /api/v1/records HTTP/1.0\r\n\r\n").await.unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    connections.register(&mut registry);
    let was_cut = async || loop {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        if text.contains("http_write_timeouts_total 1") {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    };
    timeout(PATIENCE, was_cut()).await.expect("a client that reads nothing is cut");
    let mut answer = Vec::new();
    let error = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end").unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{error:?}");
}
