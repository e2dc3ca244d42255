//! The log: the fields of a line, the values that no line has, and a standard error that is not read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use records::telemetry;
use rstest::rstest;
use serde_json::Value;

use crate::support::{PATIENCE, Serving, code, directory, finish, records, run, stderr};

const SEED: &str = r#"{"_id": "a-private-id", "name": "a private name"}"#;

/// Returns the log of a server that is started with `arguments`, serves `paths` and stops.
fn log_of(arguments: &[&str], paths: &[&str]) -> Vec<String> {
    let directory = directory();
    std::fs::write(directory.path().join("seed"), SEED).unwrap();
    let all = ["--store", "memory:", "--seed", "seed", "--access-log", "all"];
    let serving = Serving::start(&directory, &[&all, arguments].concat());
    for path in paths {
        serving.get(path);
    }
    serving.signal("TERM");
    let begin = serving.begin.clone();
    let (status, log) = serving.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    (begin + &log).lines().map(str::to_owned).collect()
}

fn json(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn requests(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["target"] == "records::http::access_log").collect()
}

#[test]
fn every_line_is_an_object_with_flat_fields() {
    let lines = json(&log_of(&["--log-format", "json", "--log", "trace"], &["/api/v1/records/x", "/livez"]));
    assert!(lines.len() > 4);
    for line in lines {
        let fields = line.as_object().unwrap();
        assert!(fields.values().all(|value| !value.is_object() && !value.is_array()), "{line}");
        let time = fields["timestamp"].as_str().unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'), "{line}");
        assert!(["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&fields["level"].as_str().unwrap()), "{line}");
        assert!(fields["target"].is_string() && fields["message"].is_string(), "{line}");
    }
}

#[test]
fn a_request_is_one_line() {
    let paths = [
        ("/api/v1/records/a-private-id", "/api/v1/records/{id}", 200),
        ("/api/v1/records/nothing", "/api/v1/records/{id}", 204),
        ("/api/v1/records?limit=1", "/api/v1/records", 200),
        ("/api/v1/records?limit=none", "/api/v1/records", 400),
        ("/wp-login.php", "none", 404),
    ];
    let lines = json(&log_of(&["--log-format", "json"], &paths.map(|(path, _, _)| path)));
    let lines = requests(&lines);
    assert_eq!(lines.len(), paths.len());
    for (line, (_, route, status)) in lines.iter().zip(paths) {
        assert_eq!((&line["route"], &line["status"]), (&Value::from(route), &Value::from(status)), "{line}");
        assert_eq!((&line["method"], &line["level"]), (&Value::from("GET"), &Value::from("INFO")), "{line}");
        assert!(line["request_id"].as_str().unwrap().len() > 8, "{line}");
        assert!(line["duration_ms"].as_f64().unwrap() > 0.0, "{line}");
    }
}

#[test]
fn a_line_names_the_trace_that_its_request_is_part_of() {
    let arguments = ["--store", "memory:", "--log-format", "json", "--access-log", "all", "--server-timing"];
    let serving = Serving::start(&directory(), &arguments);
    let mut answer = String::new();
    let mut stream = TcpStream::connect(serving.address).unwrap();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    write!(stream, "GET /api/v1/records/x HTTP/1.0\r\ntraceparent: {parent}\r\n\r\n").unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("server-timing: store;dur="), "{answer}");
    serving.get("/api/v1/records/x");
    serving.signal("TERM");
    let (_, log) = serving.wait();
    let lines = json(&log.lines().map(str::to_owned).collect::<Vec<_>>());
    let traces: Vec<&Value> = requests(&lines).iter().map(|line| &line["trace_id"]).collect();
    assert_eq!(traces, [&Value::from("4bf92f3577b34da6a3ce929d0e0e4736"), &Value::Null], "{log}");
}

#[rstest]
#[case::by_default("info", 0)]
#[case::unless_asked_for("debug", 3)]
#[case::a_comma_too_many("debug,", 3)]
fn health_and_metrics_are_quiet(#[case] filter: &str, #[case] count: usize) {
    let lines = json(&log_of(&["--log-format", "json", "--log", filter], &["/livez", "/readyz", "/metrics"]));
    assert_eq!(requests(&lines).len(), count);
}

#[rstest]
#[case::every_request(&["--access-log", "all"], 1, 1)]
#[case::failures(&["--access-log", "errors"], 0, 1)]
#[case::failures_by_default(&[], 0, 1)]
#[case::failures_by_a_filter(&["--access-log", "all", "--log", "info,records::http::access_log=error"], 0, 1)]
#[case::none(&["--access-log", "off"], 0, 0)]
fn the_access_log_has_the_requests_that_the_operator_wants(
    #[case] setting: &[&str],
    #[case] successes: usize,
    #[case] failures: usize,
) {
    let directory = directory();
    std::fs::write(directory.path().join("seed"), format!(r#"{{"_id": 1, "long": "{}"}}"#, "x".repeat(4_000_000)))
        .unwrap();
    let arguments = ["--store", "memory:", "--log-format", "json"];
    let few = ["--seed", "seed", "--max-streams", "1", "--drain-timeout", "1ms"];
    let serving = Serving::start(&directory, &[setting, &arguments, &few].concat());
    let begun = Instant::now();
    assert_eq!(serving.get("/api/v1/records/x").0, 204);
    // The log of failures has slow requests, too.
    let is_slow = begun.elapsed() >= Duration::from_secs(1);
    // An unread list keeps its permit, so that a second list is refused.
    let mut first = TcpStream::connect(serving.address).unwrap();
    write!(first, "GET /api/v1/records HTTP/1.0\r\n\r\n").unwrap();
    first.read_exact(&mut [0; 12]).unwrap();
    assert_eq!(serving.get("/api/v1/records").0, 503);
    serving.signal("TERM");
    let (_, log) = serving.wait();
    let lines = json(&log.lines().map(str::to_owned).collect::<Vec<_>>());
    let lines = requests(&lines);
    // The unread list was answered, so it also has a line.
    let (failed, others): (Vec<_>, Vec<_>) =
        lines.into_iter().filter(|line| line["status"] != 200).partition(|line| line["status"] == 503);
    assert_eq!(failed.len(), failures, "{log}");
    assert!(others.len() == successes || is_slow, "{log}");
    if let Some(failure) = failed.last() {
        assert_eq!(failure["level"], "ERROR", "{log}");
        assert_eq!(failure["error"], "--max-streams reached", "{log}");
    }
}

#[test]
fn a_probe_during_the_drain_is_no_failure() {
    let arguments = ["--store", "memory:", "--log-format", "json", "--drain-delay", "1h"];
    let serving = Serving::start(&directory(), &arguments);
    serving.signal("TERM");
    while serving.get("/readyz").0 == 200 {}
    serving.signal("TERM");
    let (_, log) = serving.wait();
    let lines = json(&log.lines().map(str::to_owned).collect::<Vec<_>>());
    let lines = requests(&lines);
    assert_eq!(lines.len(), 1, "{log}");
    assert_eq!((&lines[0]["level"], &lines[0]["status"]), (&Value::from("INFO"), &Value::from(503)), "{log}");
    assert_eq!(lines[0]["error"], "the server is stopping", "{log}");
}

#[test]
fn a_full_server_is_logged_and_not_for_each_connection() {
    let serving =
        Serving::start(&directory(), &["--store", "memory:", "--log-format", "json", "--max-connections", "1"]);
    // The server is full while this connection is open; those below may end before it notices them.
    let mut open = TcpStream::connect(serving.address).unwrap();
    write!(open, "GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    open.read_exact(&mut [0]).unwrap();
    drop(open);
    for _ in 0..5 {
        assert_eq!(serving.get("/livez").0, 200);
    }
    serving.signal("TERM");
    let (_, log) = serving.wait();
    let lines = json(&log.lines().map(str::to_owned).collect::<Vec<_>>());
    let full = |line: &&Value| line["message"].as_str().unwrap().contains("--max-connections reached");
    let full: Vec<&Value> = lines.iter().filter(full).collect();
    assert_eq!(full.len(), 1, "{log}");
    assert_eq!((&full[0]["level"], &full[0]["connections"]), (&Value::from("WARN"), &Value::from(1)), "{log}");
}

#[rstest]
fn nothing_of_a_record_a_query_or_a_header_is_ever_logged(#[values("text", "json")] format: &str) {
    let directory = directory();
    std::fs::write(directory.path().join("seed"), SEED).unwrap();
    let arguments =
        ["--store", "memory:", "--seed", "seed", "--log", "trace", "--access-log", "all", "--log-format", format];
    let serving = Serving::start(&directory, &arguments);
    let mut answers = String::new();
    for path in [
        "/api/v1/records/a-private-id",
        "/api/v1/records?name.eq=a+private+name",
        "/api/v1/records?hunter2=hunter2",
        "/api/v1/records?name.hunter2=hunter2",
        "/api/v1/records?name.eq=%22hunter2",
        "/api/v1/records?name.in=hunter2,",
        "/api/v1/records?name.exists=hunter2",
        "/api/v1/records?name.starts=%22hunter2",
        "/api/v1/records?or=hunter2",
        "/api/v1/records?or=(name.eq=hunter2,hunter2)",
        "/api/v1/records?or=(hunter2.hunter2=hunter2)",
        "/api/v1/records?or=(name.eq=(hunter2))",
        "/api/v1/records?or=(name.eq=%22hunter2)",
        "/api/v1/records?or=(name.in=hunter2)",
        "/api/v1/records?or=(name.exists=hunter2)",
        "/api/v1/records?after_id=hunter2&sort=hunter2&limit=1",
        "/api/v1/records?sort=hunter2",
        "/api/v1/records?limit=99999999&hunter2.eq=hunter2",
        "/api/v1/records?limit=hunter2",
        "/api/v1/records?limit=1&after=hunter2",
        "/api/v1/records?limit=1&sort=hunter2,-hunter2",
        "/api/v1/records?fields=-hunter2,*",
        "/api/v1/records/a-private-id?fields=hunter2..hunter2",
        "/api/v1/records/hunter2%",
        "/api/v1/records/hunter2%FF",
        "/api/v1/records/hunter2/hunter2",
        "/hunter2?hunter2",
    ] {
        let mut stream = TcpStream::connect(serving.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nAuthorization: Bearer hunter2\r\nCookie: id=hunter2\r\n\r\n").unwrap();
        stream.read_to_string(&mut answers).unwrap();
    }
    for request in [
        "HUNTER2 /api/v1/records HTTP/1.0\r\n",
        "POST /api/v1/records/hunter2 HTTP/1.0\r\nContent-Length: 0\r\n",
        "GET /api/v1/records/a-private-id HTTP/1.0\r\nAccept: hunter2/hunter2\r\n",
        "GET /api/v1/records/a-private-id HTTP/1.0\r\nAccept-Encoding: hunter2, identity;q=0\r\n",
        "GET /api/v1/records/a-private-id HTTP/1.0\r\nIf-Match: \"hunter2\"\r\n",
        "GET /api/v1/records/a-private-id HTTP/1.0\r\ntraceparent: hunter2\r\n",
        "GET /api/v1/records?name.eq=hunter2 HTTP/1.0\r\nAccept: text/csv; hunter2=hunter2\r\n",
        "GET /api/v1/records?name.eq=hunter2 HTTP/1.0\r\nPrefer: count=hunter2, hunter2=\"hunter2\"\r\n",
        "GET /api/v1/records?limit=1 HTTP/1.0\r\nCache-Control: max-age=hunter2, hunter2\r\n",
        "GET /api/v1/records HTTP/1.1\r\nHost: hunter2 hunter2\r\nConnection: close\r\n",
        "GET /hunter2 hunter2 HTTP/1.0\r\n",
    ] {
        let mut stream = TcpStream::connect(serving.address).unwrap();
        // A single write, as the server may close the connection once it has read a bad request line.
        stream.write_all(format!("{request}\r\n").as_bytes()).unwrap();
        stream.read_to_string(&mut answers).unwrap();
    }
    assert!(answers.contains("a private name"));
    let metrics = serving.get("/metrics").1;
    serving.signal("TERM");
    let log = serving.begin.clone() + &serving.wait().1;
    assert!(log.contains("_OTHER"), "{log}");
    for secret in ["private", "hunter2", "HUNTER2"] {
        assert!(!log.contains(secret), "{log}");
        assert!(!metrics.contains(secret), "{metrics}");
    }
}

#[test]
fn text_is_the_default_and_has_the_same_fields() {
    let lines = log_of(&[], &["/api/v1/records/x"]);
    let line = lines.iter().find(|line| line.contains("records::http::access_log")).expect("a line");
    for field in
        ["INFO", "request completed", "method=\"GET\"", "route=\"/api/v1/records/{id}\"", "status=204", "duration_ms="]
    {
        assert!(line.contains(field), "{line}");
    }
    assert!(!line.contains('\u{1b}'), "colours are for terminals: {line}");
}

#[rstest]
fn a_clients_request_id_does_not_look_like_more_fields(#[values("text", "json")] format: &str) {
    let arguments = ["--store", "memory:", "--access-log", "all", "--log-format", format];
    let serving = Serving::start(&directory(), &arguments);
    let mut answer = String::new();
    let mut stream = TcpStream::connect(serving.address).unwrap();
    write!(stream, "GET /api/v1/records/x HTTP/1.0\r\nx-request-id: a\"b\\\r\n\r\n").unwrap();
    stream.read_to_string(&mut answer).unwrap();
    serving.signal("TERM");
    let (_, log) = serving.wait();
    let line = log.lines().find(|line| line.contains("records::http::access_log")).expect("a line");
    match format {
        "json" => assert_eq!(json(&[line.to_owned()])[0]["request_id"], "a\"b\\"),
        _ => assert!(line.contains(r#" request_id="a\"b\\" method="GET""#), "{line}"),
    }
}

#[test]
fn an_unknown_format_is_refused_with_the_known_ones() {
    let output = run(&directory(), &["--store", "memory:", "--log-format", "xml"], "");
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("possible values: text, json"), "{}", stderr(&output));
}

#[rstest]
#[case::store(&["--store", "ftp://x"], 2, "there is no \"ftp\" store")]
#[case::seed(&["--store", "memory:", "--seed", "nothing"], 1, "cannot read the seed nothing")]
#[case::listen(&["--store", "memory:", "--listen", "192.0.2.1:1"], 1, "cannot listen on 192.0.2.1:1")]
#[case::filter(&["--store", "memory:", "--log", "records=loud"], 2, "records=loud")]
#[case::of_nothing(&["--store", "ftp://x", "--log", "off"], 2, "there is no \"ftp\" store")]
#[case::import(&["import", "nothing", "--store", "memory:"], 1, "cannot read nothing")]
fn why_it_does_not_start_is_an_object_too(#[case] arguments: &[&str], #[case] status: i32, #[case] says: &str) {
    let output = run(&directory(), &[arguments, &["--log-format", "json"]].concat(), "");
    assert_eq!(code(&output), status);
    let lines = json(&stderr(&output).lines().map(str::to_owned).collect::<Vec<_>>());
    let last = lines.last().expect("a line");
    assert_eq!((&last["level"], &last["target"]), (&Value::from("ERROR"), &Value::from("records")), "{last}");
    assert!(last["message"].as_str().unwrap().contains(says) && last["timestamp"].is_string(), "{last}");
    let output = run(&directory(), arguments, "");
    assert!(stderr(&output).lines().last().unwrap().starts_with("records: "), "{}", stderr(&output));
}

#[test]
fn a_stuck_standard_error_costs_lines_and_delays_no_request_and_no_exit() {
    // More lines than the pipe and the queue hold together.
    const REQUESTS: usize = 10_000;
    let directory = directory();
    let mut command = records(&directory, &["--store", "memory:", "--seed", "none", "--listen", "127.0.0.1:0"]);
    command.env("RECORDS_LOG_FORMAT", "json").env("RECORDS_ACCESS_LOG", "all");
    // Standard error is a pipe that the test does not read once the server listens.
    let serving = Serving::spawn(command);
    let stream = TcpStream::connect(serving.address).unwrap();
    let mut requests = stream.try_clone().unwrap();
    let asking = std::thread::spawn(move || {
        let id = "i".repeat(128);
        let request = format!("GET /api/v1/records/x HTTP/1.1\r\nHost: test\r\nX-Request-Id: {id}\r\n");
        let all = format!("{request}\r\n").repeat(REQUESTS - 1) + &request + "Connection: close\r\n\r\n";
        requests.write_all(all.as_bytes()).unwrap();
    });
    let mut answers = String::new();
    (&stream).read_to_string(&mut answers).unwrap();
    asking.join().unwrap();
    assert_eq!(answers.matches("HTTP/1.1 204").count(), REQUESTS);
    let metrics = serving.get("/metrics").1;
    let lost = metrics.lines().find_map(|line| line.strip_prefix("records_log_lines_lost_total "));
    assert!(lost.and_then(|lost| lost.parse::<u64>().ok()).unwrap() > 0, "{metrics}");
    serving.signal("TERM");
    let began = Instant::now();
    assert_eq!(serving.wait_unread().code(), Some(0));
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn a_start_that_fails_ends_while_standard_error_is_stuck() {
    let (_unread, mut pipe) = std::io::pipe().unwrap();
    // Fills the pipe, so that the next byte blocks.
    pipe.write_all(&[b'x'; 65_536]).unwrap();
    let directory = directory();
    let mut command = records(&directory, &["--store", "ftp://x"]);
    let mut child = command.stderr(pipe).spawn().unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < PATIENCE, "the process waits for standard error");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(2));
}

#[rstest]
#[case::asked_for("1", true)]
#[case::unless_asked_for("0", false)]
fn a_panic_is_logged_with_a_backtrace(#[case] setting: &str, #[case] has_backtrace: bool) {
    const CHILD: &str = "RECORDS_TEST_PANICS";
    if std::env::var_os(CHILD).is_some() {
        let _telemetry = telemetry::start("info", telemetry::Format::Json, None).unwrap();
        assert!(std::thread::spawn(|| panic!("out of order")).join().is_err());
        return;
    }
    // The test runs itself in another process, since a panic hook applies to the whole process.
    let name = std::thread::current().name().unwrap().to_owned();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &name]).env(CHILD, "1").env("RUST_BACKTRACE", setting);
    let output = finish(command, "");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let lines = json(&stderr(&output).lines().map(str::to_owned).collect::<Vec<_>>());
    let [line] = &*lines else { panic!("{lines:?}") };
    assert_eq!((&line["level"], &line["message"]), (&Value::from("ERROR"), &Value::from("panic: out of order")));
    assert!(line["location"].as_str().unwrap().contains("logs.rs"), "{line}");
    assert_eq!(line["backtrace"].as_str().is_some_and(|text| text.contains("logs.rs")), has_backtrace, "{line}");
}
