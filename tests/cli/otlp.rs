//! The traces that a collector receives, and the warnings when they cannot be exported.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use records::telemetry::trace::CAN_EXPORT;
use rstest::rstest;

use crate::support::{PATIENCE, Serving, code, directory, records, run, stderr};

const TRACE: [u8; 16] = *b"\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36";
const CALLER: [u8; 8] = *b"\x00\xf0\x67\xaa\x0b\xa9\x02\xb7";
const TRACEPARENT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

/// The head and the body of each request.
type Exports = Receiver<(String, Vec<u8>)>;

/// Starts a collector that wraps each connection by `accept`. Returns its port and the exports that it receives.
fn collector<S: Read + Write>(accept: impl Fn(TcpStream) -> S + Send + 'static) -> (u16, Exports) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = accept(stream.unwrap());
            // A client that does not trust the collector closes the connection.
            if let Ok(export) = receive(&mut stream) {
                // The export is in the channel before the process learns of its success, and ends.
                let _ = sender.send(export);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.flush();
            }
        }
    });
    (port, received)
}

fn receive(stream: &mut impl Read) -> std::io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Returns the id of each span of [`TRACE`] with the id of its parent: fields 1, 2 and 4 of a `Span`.
fn spans(body: &[u8]) -> Vec<([u8; 8], [u8; 8])> {
    let id = |bytes: &[u8]| <[u8; 8]>::try_from(bytes).unwrap();
    let spans = body.windows(38).filter(|window| window[..2] == [0x0a, 16] && window[2..18] == TRACE);
    spans
        .map(|span| {
            assert!(span[18..20] == [0x12, 8] && span[28..30] == [0x22, 8], "{span:x?}");
            (id(&span[20..28]), id(&span[30..38]))
        })
        .collect()
}

fn ask(serving: &Serving, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(serving.address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn exporting(endpoint: &str, variables: &[(&str, &str)]) -> Serving {
    let directory = directory();
    let arguments = ["--store", "memory:", "--seed", "none", "--listen", "127.0.0.1:0"];
    let mut command = records(&directory, &[&arguments[..], &["--log-format", "json", "--access-log", "all"]].concat());
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).envs(variables.iter().copied());
    Serving::spawn(command)
}

/// Stops the server, and returns its log.
fn stop(serving: Serving) -> String {
    serving.signal("TERM");
    let begin = serving.begin.clone();
    let (status, log) = serving.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    begin + &log
}

#[test]
#[cfg_attr(not(feature = "otlp"), ignore = "this build exports no traces")]
fn a_request_is_a_span_of_its_callers_trace_and_the_store_a_span_within() {
    let (port, exports) = collector(|stream| stream);
    let serving = exporting(&format!("http://127.0.0.1:{port}"), &[]);
    ask(&serving, "/api/v1/records/a-private-id", TRACEPARENT);
    serving.get("/livez");
    // The last spans are exported before the process ends.
    let log = stop(serving);
    assert!(log.contains(r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736""#), "{log}");
    let (head, body) = exports.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let spans = spans(&body);
    let (request, _) = spans.iter().find(|(_, parent)| *parent == CALLER).expect("a span of the request");
    assert!(spans.len() == 2 && spans.iter().any(|(_, parent)| parent == request), "{spans:x?}");
    for part in [
        "service.name",
        "records",
        "GET /api/v1/records/{id}",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "store",
    ] {
        assert!(contains(&body, part.as_bytes()), "{part} is not in {}", String::from_utf8_lossy(&body));
    }
    for part in ["private", "/livez", "busy_ns", "thread.id", "code."] {
        assert!(!contains(&body, part.as_bytes()), "{part} is in {}", String::from_utf8_lossy(&body));
    }
}

#[test]
#[cfg_attr(not(feature = "otlp"), ignore = "this build exports no traces")]
fn a_request_without_a_trace_begins_one_which_its_line_names() {
    let (port, exports) = collector(|stream| stream);
    let serving = exporting(&format!("http://127.0.0.1:{port}"), &[]);
    assert!(!ask(&serving, "/api/v1/records/1", "").contains("traceparent"));
    let log = stop(serving);
    let (_, rest) = log.split_once(r#""trace_id":""#).expect("a trace id");
    let trace: Vec<u8> = (0..32).step_by(2).map(|at| u8::from_str_radix(&rest[at..at + 2], 16).unwrap()).collect();
    assert!(contains(&exports.recv_timeout(PATIENCE).unwrap().1, &trace), "{log}");
}

#[test]
#[cfg_attr(not(feature = "otlp"), ignore = "this build exports no traces")]
fn a_request_that_its_caller_does_not_sample_is_not_exported() {
    let (port, exports) = collector(|stream| stream);
    let serving = exporting(&format!("http://127.0.0.1:{port}"), &[]);
    ask(&serving, "/api/v1/records/1", &TRACEPARENT.replace("-01\r", "-00\r"));
    ask(&serving, "/api/v1/records/1", TRACEPARENT);
    let log = stop(serving);
    assert_eq!(log.matches(r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736""#).count(), 2, "{log}");
    assert_eq!(spans(&exports.recv_timeout(PATIENCE).unwrap().1).len(), 2);
    assert!(exports.try_recv().is_err());
}

#[test]
#[cfg_attr(not(feature = "otlp"), ignore = "this build exports no traces")]
fn an_image_without_certificates_exports_without_tls_only() {
    let none = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "")];
    let (port, exports) = collector(|stream| stream);
    let serving = exporting(&format!("http://127.0.0.1:{port}"), &none);
    assert_eq!(serving.get("/api/v1/records/1").0, 204);
    stop(serving);
    assert!(exports.recv_timeout(PATIENCE).is_ok());
    let log = stop(exporting("https://127.0.0.1:1", &none));
    assert!(log.contains("traces are not exported") && log.contains("No CA certificates"), "{log}");
}

#[cfg(feature = "otlp")]
#[rstest]
fn a_collector_with_tls_is_trusted_by_its_certificate_authority(#[values(true, false)] is_trusted: bool) {
    let authority = Authority::new();
    let tls = authority.server_config();
    let (port, exports) =
        collector(move |stream| rustls::StreamOwned::new(rustls::ServerConnection::new(tls.clone()).unwrap(), stream));
    let directory = directory();
    let trusted = directory.path().join("authority.pem");
    std::fs::write(&trusted, if is_trusted { authority } else { Authority::new() }.pem).unwrap();
    let variables = [
        ("SSL_CERT_FILE", trusted.to_str().unwrap()),
        ("SSL_CERT_DIR", ""),
        ("RECORDS_LOG", "info,opentelemetry-otlp=debug"),
    ];
    let serving = exporting(&format!("https://127.0.0.1:{port}"), &variables);
    ask(&serving, "/api/v1/records/1", TRACEPARENT);
    let log = stop(serving);
    if is_trusted {
        assert_eq!(spans(&exports.recv_timeout(PATIENCE).unwrap().1).len(), 2, "{log}");
    } else {
        assert!(exports.try_recv().is_err() && log.contains("invalid peer certificate"), "{log}");
    }
}

/// A certificate authority and a server key that it certifies.
#[cfg(feature = "otlp")]
struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

#[cfg(feature = "otlp")]
impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { pem: params.self_signed(&key).unwrap().pem(), issuer: rcgen::Issuer::new(params, key) }
    }

    /// Returns the TLS configuration of a server at 127.0.0.1.
    fn server_config(&self) -> std::sync::Arc<rustls::ServerConfig> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        config.with_single_cert(vec![certificate], key.into()).unwrap().into()
    }
}

#[rstest]
#[cfg_attr(not(feature = "otlp"), ignore = "this build exports no traces")]
#[case::away("http://127.0.0.1:1")]
#[case::mute("")]
fn a_collector_that_does_not_answer_delays_no_request_and_no_exit(#[case] endpoint: &str) {
    // The kernel accepts connections, and no server reads them.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("http://{}", mute.local_addr().unwrap());
    let serving = exporting(if endpoint.is_empty() { &mute } else { endpoint }, &[]);
    for _ in 0..100 {
        assert_eq!(serving.get("/api/v1/records/1").0, 204);
    }
    let began = std::time::Instant::now();
    stop(serving);
    // An export may take 10 s, the last one 2 s.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[rstest]
#[case::password("http://user:hunter2@collector.example")]
#[case::query("http://collector.example?hunter2")]
#[case::another_protocol("ftp://hunter2.example")]
#[case::no_url("hunter2:4318")]
#[case::no_host("http://")]
fn a_collector_that_is_wrong_is_a_warning_that_does_not_repeat_it(#[case] endpoint: &str) {
    let serving = exporting(endpoint, &[]);
    assert_eq!(serving.get("/api/v1/records/1").0, 204);
    let log = stop(serving);
    let reason = if CAN_EXPORT { "traces are not exported: --otlp-endpoint" } else { "has no effect" };
    let line = log.lines().find(|line| line.contains(reason)).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("WARN") && !log.contains("hunter2"), "{log}");
}

#[test]
#[cfg_attr(feature = "otlp", ignore = "this build exports traces")]
fn a_build_without_traces_refuses_the_flag() {
    let output = run(&directory(), &["--store", "memory:", "--otlp-endpoint", "http://127.0.0.1:4318"], "");
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("rebuild with --features otlp"), "{}", stderr(&output));
}

#[test]
fn the_password_of_a_collector_is_not_shown() {
    let directory = directory();
    let mut command = records(&directory, &["config", "--store", "memory:"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@collector.example");
    let shown = crate::support::stdout(&crate::support::finish(command, ""));
    assert!(shown.contains("***@collector.example") && !shown.contains("hunter2"), "{shown}");
}
