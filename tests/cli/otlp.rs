//! Traces, as a collector gets them; and what a build says that cannot export any.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use records::telemetry::spans::COMPILED;
use rstest::rstest;

use crate::support::{Serving, code, directory, records, run, stderr};

const TRACE: [u8; 16] = *b"\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36";
const SPAN: [u8; 8] = *b"\x00\xf0\x67\xaa\x0b\xa9\x02\xb7";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A collector: its address, and the heads and bodies of what it was sent.
fn collector() -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = sender.send(export(stream.unwrap()));
        }
    });
    (address, received)
}

fn export(mut stream: TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n").unwrap();
    (head, body)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The head of the answer.
fn ask(serving: &Serving, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(serving.address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split("\r\n\r\n").next().unwrap().to_owned()
}

fn traced(collector: &str) -> Serving {
    let directory = directory();
    let mut command = records(&directory, &["--store", "memory:", "--seed", "none", "--listen", "127.0.0.1:0"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"));
    Serving::spawn(command)
}

#[test]
#[cfg_attr(not(feature = "otlp"), ignore = "this build exports no traces")]
fn a_request_is_a_span_of_its_callers_trace_and_the_store_a_span_inside() {
    let (address, received) = collector();
    let serving = traced(&address);
    ask(&serving, "/api/v1/records/a-private-id", &format!("traceparent: {PARENT}\r\n"));
    serving.get("/livez");
    serving.signal("TERM");
    // What is left is exported before it ends.
    assert_eq!(serving.wait().0.code(), Some(0));
    let (head, body) = received.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    for part in [
        &TRACE[..],
        &SPAN,
        b"service.name",
        b"records",
        b"GET /api/v1/records/{id}",
        b"http.request.method",
        b"http.response.status_code",
        b"http.route",
        b"store",
    ] {
        assert!(contains(&body, part), "{} is not in it", String::from_utf8_lossy(part));
    }
    // In protobuf, the trace's id and the span's own: fields 1 and 2, of 16 and 8 bytes.
    let begins = [&[0x0a, 16], &TRACE[..], &[0x12, 8]].concat();
    let ends =
        body.windows(begins.len()).enumerate().filter(|(_, window)| *window == begins).map(|(at, _)| at + begins.len());
    let ids: Vec<_> = ends.map(|at| &body[at..at + 8]).collect();
    let parents = ids.iter().filter(|id| body.windows(8).filter(|window| window == *id).count() == 2);
    assert_eq!((ids.len(), parents.count()), (2, 1), "one span is the parent of the other");
    assert!(!contains(&body, b"private") && !contains(&body, b"/livez"));
}

#[test]
fn a_collector_that_is_away_holds_up_nobody() {
    // Nobody listens there.
    let serving = traced("127.0.0.1:1");
    for _ in 0..100 {
        assert_eq!(serving.get("/api/v1/records/1").0, 204);
    }
    serving.signal("TERM");
    assert_eq!(serving.wait().0.code(), Some(0));
}

#[rstest]
#[case::with_tls("https://collector.example")]
#[case::with_a_password("http://user:hunter2@collector.example")]
#[case::no_url("collector:4318")]
fn a_collector_that_cannot_be_one_is_refused_without_a_word_of_it(#[case] url: &str) {
    let output = run(&directory(), &["--store", "memory:", "--otlp-endpoint", url], "");
    assert_eq!(code(&output), 2);
    let errors = stderr(&output);
    assert!(
        errors.contains(if COMPILED { "http://127.0.0.1:4318" } else { "rebuild with --features otlp" }),
        "{errors}"
    );
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
#[cfg_attr(feature = "otlp", ignore = "this build exports traces")]
fn a_build_without_traces_says_that_the_variable_has_no_effect() {
    let directory = directory();
    let mut command = records(&directory, &["--store", "memory:", "--listen", "127.0.0.1:0"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@collector.example");
    let serving = Serving::spawn(command);
    assert!(serving.begin.contains("has no effect") && !serving.begin.contains("hunter2"), "{}", serving.begin);
    let mut command = records(&directory, &["config", "--store", "memory:"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@collector.example");
    let shown = crate::support::stdout(&crate::support::finish(command, ""));
    assert!(shown.contains("***@collector.example") && !shown.contains("hunter2"), "{shown}");
}
