//! The rate of requests of one client, and the connections of one address.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use records::auth::{KeyFile, NewKey, new_key};
use records::client::TrustedProxies;
use records::http::{RateLimit, Settings};
use records::server::Limits;
use rstest::rstest;

use crate::errors::Log;
use crate::support::{Answer, LIMIT, Server, limits, memory, request_at};

const LINES: &[&str] = &[r#"{"_id":"Au","z":79}"#];
const RECORD: &str = "/api/v1/records/Au";

/// `burst` requests at once, and none of them back within the test.
fn at_once(burst: u32) -> Option<RateLimit> {
    let [requests, burst] = [1, burst].map(|count| NonZeroU32::new(count).unwrap());
    Some(RateLimit { requests, window: Duration::from_secs(3_600), burst: Some(burst) })
}

/// This machine is a trusted proxy, so that a header says who the client is.
fn behind_a_proxy(settings: &mut Settings) {
    settings.trusted_proxies = TrustedProxies(vec!["127.0.0.1".parse().unwrap()]);
}

async fn start(set: impl FnOnce(&mut Settings)) -> Server {
    let mut settings = Settings::from(LIMIT);
    set(&mut settings);
    Server::start(memory(LINES).await, settings, Limits { with_peer_address: true, ..limits() }).await
}

async fn from(server: &Server, client: &str, headers: &str) -> Answer {
    server.request("GET", RECORD, &format!("X-Forwarded-For: {client}\r\n{headers}")).await
}

/// The number after `name=` in a structured field.
fn parameter(field: &str, name: &str) -> u64 {
    let value = field.split(';').find_map(|part| part.strip_prefix(&format!("{name}=")));
    value.unwrap_or_else(|| panic!("no {name} in {field}")).parse().unwrap()
}

#[rstest]
#[tokio::test]
async fn a_proxy_may_be_named_as_a_socket_of_both_families_shows_it(
    #[values("::ffff:127.0.0.1", "::ffff:127.0.0.0/104")] proxy: &str,
) {
    let trusted = TrustedProxies(vec![proxy.parse().unwrap()]);
    let server = start(|settings| (settings.rate_limit, settings.trusted_proxies) = (at_once(1), trusted)).await;
    for client in ["192.0.2.1", "192.0.2.2"] {
        assert_ne!(from(&server, client, "").await.status, 429, "{proxy}");
    }
    assert_eq!(from(&server, "192.0.2.2", "").await.status, 429, "{proxy}");
}

#[rstest]
#[case(RECORD)]
#[case("/api/v1/records?limit=%zz")]
#[case("/metrics")]
#[case("/nothing")]
#[tokio::test]
async fn a_client_beyond_its_limit_is_told_when_to_come_back(#[case] path: &str) {
    let server = start(|settings| settings.rate_limit = at_once(2)).await;
    for left in [1, 0] {
        let answer = server.get(path).await;
        assert_ne!(answer.status, 429);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"default\";q=1;w=3600"));
        let state = answer.header("ratelimit").unwrap();
        assert!(state.starts_with("\"default\";"), "{state}");
        assert_eq!((parameter(state, "r"), parameter(state, "t")), (left, 3_600));
    }
    // Also where the target is wrong: it is not looked at.
    let refused = server.get(path).await;
    assert_eq!((refused.status, refused.header("content-type")), (429, Some("application/problem+json")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    let state = refused.header("ratelimit").unwrap();
    assert_eq!((parameter(state, "r"), parameter(state, "t")), (0, wait));
    assert!((3_000..=3_600).contains(&wait), "{wait}");
    assert!(refused.problem()["detail"].as_str().unwrap().contains("Try again after"));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"default\";q=1;w=3600"));
}

#[tokio::test]
async fn a_client_that_waits_is_served_again() {
    let server = start(|settings| settings.rate_limit = Some("2/s".parse().unwrap())).await;
    while server.get(RECORD).await.status != 429 {}
    while server.get(RECORD).await.status != 200 {}
}

#[tokio::test]
async fn health_has_no_limit_and_refusals_are_counted() {
    let (server, admin) = {
        let mut settings = Settings::from(LIMIT);
        settings.rate_limit = at_once(1);
        Server::start_with_admin_and(memory(LINES).await, settings, Limits { with_peer_address: true, ..limits() })
            .await
    };
    assert_eq!([server.get(RECORD).await.status, server.get(RECORD).await.status], [200, 429]);
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = request_at(admin, "GET", path, "").await;
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None), "{path}");
    }
    let metrics = request_at(admin, "GET", "/metrics", "").await.body;
    assert!(metrics.contains("records_http_requests_rejected_total{reason=\"rate_limit\"} 1\n"), "{metrics}");

    let server = start(|settings| settings.rate_limit = at_once(1)).await;
    for _ in 0..3 {
        assert_eq!([server.get("/livez").await.status, server.get("/readyz").await.status], [200, 200]);
    }
    assert_eq!(server.get(RECORD).await.status, 200, "health was not counted");
}

/// The numbers of refused requests in the lines of `log`.
fn logged_refusals(log: &Log) -> Vec<u32> {
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains("--rate-limit: requests were refused"));
    lines.map(|line| line.rsplit_once("refused=").unwrap().1.parse().unwrap()).collect()
}

#[tokio::test]
async fn each_refused_request_is_in_the_log_after_a_minute_though_no_other_follows() {
    let log = Log::default();
    let _guard = log.capture();
    let server = start(|settings| settings.rate_limit = at_once(1)).await;
    assert_eq!(server.get(RECORD).await.status, 200);
    for _ in 0..5 {
        assert_eq!(server.get(RECORD).await.status, 429);
    }
    assert_eq!(logged_refusals(&log).len(), 1, "{}", log.text());
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(200)).await;
    let logged = logged_refusals(&log);
    assert_eq!((logged.len(), logged.iter().sum()), (2, 5), "{}", log.text());
}

#[tokio::test]
async fn without_a_limit_no_response_speaks_of_one() {
    let server = Server::over(memory(LINES).await).await;
    let answer = server.get(RECORD).await;
    assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("ratelimit")));
}

#[tokio::test]
async fn each_address_has_its_own_limit_and_ipv6_counts_by_network() {
    let server = start(|settings| {
        behind_a_proxy(settings);
        settings.rate_limit = at_once(1);
    })
    .await;
    for (client, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("2001:db8:0:1::1", 200),
        ("2001:db8:0:1:ffff::2", 429),
        ("2001:db8:0:2::1", 200),
        ("::ffff:192.0.2.2", 429),
        ("6.6.6.6, 192.0.2.1", 429),
    ] {
        assert_eq!(from(&server, client, "").await.status, status, "{client}");
    }
}

#[tokio::test]
async fn a_client_that_is_no_trusted_proxy_cannot_choose_its_address() {
    let server = start(|settings| {
        settings.trusted_proxies = TrustedProxies(vec!["10.0.0.0/8".parse().unwrap()]);
        settings.rate_limit = at_once(1);
    })
    .await;
    assert_eq!(from(&server, "192.0.2.1", "").await.status, 200);
    assert_eq!(from(&server, "192.0.2.2", "Forwarded: for=192.0.2.3\r\n").await.status, 429);
}

#[tokio::test]
async fn a_page_of_another_origin_may_read_the_limit() {
    let server = start(|settings| {
        settings.rate_limit = at_once(1);
        settings.cors_origins.push("https://example.com".parse().unwrap());
    })
    .await;
    for status in [200, 429] {
        let answer = server.request("GET", RECORD, "Origin: https://example.com\r\n").await;
        assert_eq!(answer.status, status);
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
            assert!(exposed.split(',').any(|exposed| exposed.trim() == name), "{exposed}");
        }
    }
}

/// A server with a rate limit and API keys, in a directory that lasts as long.
async fn guarded(burst: u32, count: usize) -> (Server, Vec<NewKey>, tempfile::TempDir) {
    let keys: Vec<_> = (0..count).map(|index| new_key(&format!("key-{index}")).unwrap()).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    std::fs::write(&path, keys.iter().map(|key| key.line.clone() + "\n").collect::<String>()).unwrap();
    let file = Arc::new(KeyFile::open(path).unwrap());
    let server = start(|settings| {
        behind_a_proxy(settings);
        settings.rate_limit = at_once(burst);
        settings.api_keys = Some(file);
    })
    .await;
    (server, keys, directory)
}

#[tokio::test]
async fn a_key_is_counted_by_its_name_wherever_it_is_used() {
    let (server, keys, _directory) = guarded(2, 2).await;
    let [first, second] = [0, 1].map(|index: usize| format!("Authorization: Bearer {}\r\n", keys[index].secret));
    for (client, key, status) in [
        ("192.0.2.1", &first, 200),
        ("192.0.2.2", &first, 200),
        ("192.0.2.3", &first, 429),
        ("192.0.2.3", &second, 200),
    ] {
        assert_eq!(from(&server, client, key).await.status, status, "{client}");
    }
}

#[tokio::test]
async fn wrong_keys_count_for_their_address_and_do_not_lock_others_out_of_it() {
    let (server, keys, _directory) = guarded(3, 1).await;
    for (key, status) in [("", 401), ("Bearer wrong", 401), ("Basic wrong", 400), ("Bearer other", 429), ("", 429)] {
        let header = if key.is_empty() { String::new() } else { format!("Authorization: {key}\r\n") };
        let answer = from(&server, "192.0.2.1", &header).await;
        assert_eq!(answer.status, status, "{key}");
        assert!(answer.header("ratelimit").is_some());
        assert_eq!(answer.header("www-authenticate").is_some(), status != 429, "a guess gets no verdict");
    }
    let valid = format!("Authorization: Bearer {}\r\n", keys[0].secret);
    assert_eq!(from(&server, "192.0.2.1", &valid).await.status, 200);
}

#[tokio::test]
async fn connections_of_one_address_beyond_its_limit_are_closed() {
    let limits = Limits { max_connections_per_address: Some(2), ..limits() };
    let (server, admin) = Server::start_with_admin(memory(LINES).await, limits.clone()).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut connection = server.connect().await;
        connection.send(&format!("GET {RECORD} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        connection.read_until("}").await;
        kept.push(connection);
    }
    assert!(refused(&server).await);
    let metrics = request_at(admin, "GET", "/metrics", "").await.body;
    assert!(metrics.contains("records_http_connections_rejected_total 1\n"), "{metrics}");
    drop(kept.pop());
    while refused(&server).await {}

    let trusted_proxies = TrustedProxies(vec!["127.0.0.0/8".parse().unwrap()]);
    let server = Server::start(memory(LINES).await, LIMIT, Limits { trusted_proxies, ..limits }).await;
    let _kept = [server.connect().await, server.connect().await, server.connect().await];
    assert!(!refused(&server).await, "a proxy has many clients");
}

/// Says if the server closes a new connection without an answer.
async fn refused(server: &Server) -> bool {
    let mut connection = server.connect().await;
    // The server may have closed it already.
    connection.try_send(&format!("GET {RECORD} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")).await;
    connection.read_to_end().await.is_empty()
}
