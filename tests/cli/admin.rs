//! `--admin-listen`: health and metrics on another address, and the clients that find them there.

use std::io::{Read, Write};
use std::net::TcpListener;

use rstest::rstest;

use crate::support::{Serving, code, directory, finish, records, run, stderr};

const ADMIN: [&str; 4] = ["--store", "memory:", "--admin-listen", "127.0.0.1:0"];

#[test]
fn health_and_metrics_are_there_and_nowhere_else() {
    let serving = Serving::start(&directory(), &ADMIN);
    let admin = serving.admin();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(serving.get_at(admin, path).0, 200, "{path}");
        assert_eq!(serving.get(path).0, 404, "{path}");
    }
    assert_eq!(serving.get_at(admin, "/api/v1/records").0, 404);
    assert_eq!(serving.get("/api/v1/records").0, 200);
}

#[test]
fn the_health_check_finds_them_by_the_servers_own_settings() {
    let directory = directory();
    let serving = Serving::start(&directory, &ADMIN);
    let (listen, admin) = (serving.address.to_string(), serving.admin().to_string());
    let check = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = records(&directory, &[&["healthcheck"], arguments].concat());
        command.envs(variables.iter().copied());
        code(&finish(command, ""))
    };
    let both = [("RECORDS_LISTEN", listen.as_str()), ("RECORDS_ADMIN_LISTEN", admin.as_str())];
    assert_eq!(check(&[], &both), 0);
    assert_eq!(check(&["--live"], &both), 0);
    assert_eq!(check(&["--admin-listen", &admin], &[]), 0);
    assert_eq!(check(&["--admin-listen", &admin, "--listen", &listen], &[]), 0);
    assert_eq!(check(&["--listen", &listen], &both), 1, "the health check ignores its own flag");
    assert_eq!(check(&["--listen", &admin], &[("RECORDS_ADMIN_LISTEN", "")]), 0, "an empty variable counts as set");
}

#[test]
fn it_is_not_ready_there_while_it_drains() {
    let serving = Serving::start(&directory(), &[&ADMIN[..], &["--drain-delay", "1h"]].concat());
    let admin = serving.admin();
    serving.signal("TERM");
    while serving.get_at(admin, "/readyz").0 == 200 {}
    assert_eq!(serving.get_at(admin, "/livez").0, 200);
    serving.signal("TERM");
    assert_eq!(serving.wait().0.code(), Some(0));
}

#[test]
fn a_port_that_is_taken_keeps_it_from_starting() {
    let directory = directory();
    let serving = Serving::start(&directory, &["--store", "memory:"]);
    let taken = serving.address.to_string();
    let output = run(&directory, &["--store", "memory:", "--listen", "127.0.0.1:0", "--admin-listen", &taken], "");
    assert_eq!(code(&output), 1);
    let errors = stderr(&output);
    assert!(errors.contains(&format!("cannot listen on {taken} (--admin-listen)")), "{errors}");
}

#[rstest]
#[case::no_address("9090", "a host and a port, as in 127.0.0.1:8080")]
#[case::the_same_twice("127.0.0.1:8080", "both 127.0.0.1:8080")]
fn a_wrong_address_is_named(#[case] address: &str, #[case] says: &str, #[values("serve", "config")] verb: &str) {
    let output = run(&directory(), &[verb, "--store", "memory:", "--admin-listen", address], "");
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains(says), "{}", stderr(&output));
}

/// A sibling's answer 404 to a number of requests for its replica: its API port gives it.
fn answer_404(sibling: &TcpListener, requests: usize) {
    for _ in 0..requests {
        let (mut stream, _) = sibling.accept().unwrap();
        let mut request = [0; 1_024];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
    }
}

#[test]
#[cfg_attr(not(feature = "mongodb"), ignore = "this build has no store that can be away")]
fn a_source_without_a_replica_is_logged_once() {
    let sibling = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = sibling.local_addr().unwrap();
    let from = format!("missing.bson,http://127.0.0.1:1,http://{address}");
    let store = ["--store", "mongodb://127.0.0.1:1", "--fallback", "memory:", "--fallback-from", &from];
    let mut serving = Serving::start(&directory(), &store);
    serving.read_log();
    answer_404(&sibling, 3);
    serving.signal("TERM");
    // The request in progress ends with the connection.
    drop(sibling);
    let begin = serving.begin.clone();
    let log = begin + &serving.wait().1;
    for (level, line) in [
        ("INFO", "no replica was found at missing.bson: No such file"),
        ("INFO", "no replica was found at http://127.0.0.1:1: Connection refused"),
        ("WARN", &format!("http://{address} answers 404 and gives no replica: check that it is the --admin-listen")),
    ] {
        let lines: Vec<_> = log.lines().filter(|text| text.contains(line)).collect();
        assert!(lines.len() == 1 && lines[0].contains(level), "{line}: {log}");
    }
}
