//! Tokens on the command line: settings that are refused, and what the log says of those who have one.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::jwt_support::{AUDIENCE, ISSUER, Issuer, claims};
use crate::support::{Serving, code, directory, run, stderr};

const TOKENS: [&str; 6] = ["--jwt-jwks", "keys.json", "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE];

fn with_keys(issuer: &Issuer) -> TempDir {
    let directory = directory();
    fs::write(directory.path().join("keys.json"), issuer.jwks()).unwrap();
    directory
}

fn get(serving: &Serving, token: &str) -> String {
    let mut stream = TcpStream::connect(serving.address).unwrap();
    write!(stream, "GET /api/v1/records/1 HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[rstest]
#[case::keys_alone(&TOKENS[..2], 2, "--jwt-issuer")]
#[case::no_audience(&TOKENS[..4], 2, "--jwt-audience")]
#[case::no_keys(&TOKENS[2..], 2, "--jwt-jwks")]
#[case::an_authority_alone(&["--jwt-ca", "ca.pem"], 2, "--jwt-jwks")]
#[case::missing(&["--jwt-jwks", "missing", "--jwt-issuer", "a", "--jwt-audience", "b"], 1, "missing")]
#[case::no_keys_in_it(&["--jwt-jwks", "empty", "--jwt-issuer", "a", "--jwt-audience", "b"], 1, "not a JWK Set")]
#[case::not_https(&["--jwt-jwks", "http://a.example/", "--jwt-issuer", "a", "--jwt-audience", "b"], 1, "https")]
fn settings_that_cannot_be_used_are_refused(#[case] flags: &[&str], #[case] status: i32, #[case] reason: &str) {
    let directory = with_keys(&Issuer::new());
    fs::write(directory.path().join("empty"), "").unwrap();
    for command in ["serve", "config"] {
        let output =
            run(&directory, &[&[command, "--store", "memory:", "--listen", "127.0.0.1:0"], flags].concat(), "");
        assert_eq!(code(&output), status, "{command}: {}", stderr(&output));
        assert!(stderr(&output).contains("--jwt-") && stderr(&output).contains(reason), "{}", stderr(&output));
    }
}

#[rstest]
#[case::plain("alice", "alice")]
#[case::a_line_of_its_own("a\n2026-01-01T00:00:00Z ERROR forged", "a\\n2026-01-01T00:00:00Z ERROR forged")]
#[case::an_escape("\u{1b}[2J", "\\u{1b}[2J")]
fn the_log_has_the_subject_and_never_the_token(#[case] subject: &str, #[case] logged: &str) {
    let issuer = Issuer::new();
    let directory = with_keys(&issuer);
    let arguments = ["--store", "memory:", "--seed", "none", "--access-log", "all"];
    let serving = Serving::start(&directory, &[&arguments[..], &TOKENS[..]].concat());
    let token = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        issuer.token("ES256", &claims)
    };
    let (valid, expired) = (token("sub", json!(subject)), token("exp", json!(1)));
    let long = token("sub", json!("x".repeat(1_000)));
    for (token, status) in [(&valid, "204"), (&expired, "401"), (&long, "204")] {
        assert!(get(&serving, token).contains(status), "{token}");
    }
    serving.signal("TERM");
    let (_, log) = serving.wait();
    assert!(log.contains(&format!("subject=\"{logged}\"")) && !log.contains(&"x".repeat(201)), "{log}");
    assert!(log.lines().all(|line| line.starts_with("20")), "{log}");
    for token in [&valid, &expired] {
        assert!(token.split('.').all(|part| !log.contains(part)), "{log}");
    }
}

#[test]
fn an_issuer_that_is_away_at_the_start_is_waited_for() {
    let directory = directory();
    let url = "http://127.0.0.1:1/keys.json?secret=hunter2";
    let away = ["--jwt-jwks", url, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE];
    let serving = Serving::start(&directory, &[&["--store", "memory:"], &away[..]].concat());
    let (status, body) = serving.get("/readyz");
    assert!(status == 200 && body.contains("degraded") && body.contains("keys of tokens"), "{body}");
    let log = &serving.begin;
    assert!(log.contains("http://127.0.0.1:1/keys.json") && !log.contains("hunter2"), "{log}");
    assert!(get(&serving, &Issuer::new().token("ES256", &claims())).contains(" 503 "));
}
