//! Health and metrics on an address of their own.

use std::sync::Arc;
use std::time::Duration;

use records::server::Limits;
use rstest::rstest;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{Failing, PATIENCE, Server, limits, memory, request_at};

#[rstest]
#[tokio::test]
async fn the_operators_paths_are_on_one_side_only(
    #[values("/livez", "/readyz", "/metrics", "/status", "/audits")] path: &str,
) {
    let (server, admin) = Server::start_with_admin(memory(&[r#"{"_id": 1}"#]).await, limits()).await;
    assert_eq!(request_at(admin, "GET", path, "").await.status, 200);
    assert_eq!(request_at(admin, "DELETE", path, "").await.status, 405);
    let (here, unknown) = (server.get(path).await, server.get("/unknown").await);
    assert_eq!(here.status, 404);
    assert_eq!(here.problem()["detail"], unknown.problem()["detail"]);
}

/// It names ids.
#[tokio::test]
async fn audits_have_no_path_among_the_records() {
    assert_eq!(Server::over(memory(&[]).await).await.get("/audits").await.status, 404);
}

#[rstest]
#[tokio::test]
async fn the_records_are_on_the_other(
    #[values("/api/v1/records", "/api/v1/records/1", "/", "/docs/", "/openapi.json")] path: &str,
) {
    let (server, admin) = Server::start_with_admin(memory(&[r#"{"_id": 1}"#]).await, limits()).await;
    let answer = request_at(admin, "GET", path, "").await;
    assert_eq!(answer.status, 404);
    answer.problem();
    if path.starts_with("/api") {
        assert_eq!(server.get(path).await.status, 200);
    }
}

#[rstest]
#[tokio::test]
async fn the_status_page_loads_nothing_from_elsewhere(
    #[values("/status", "/status/page.js", "/status/page.css", "/status/settings")] path: &str,
) {
    let (_server, admin) = Server::start_with_admin(memory(&[]).await, limits()).await;
    let answer = request_at(admin, "GET", path, "").await;
    assert_eq!(answer.status, 200);
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    for other in ["/status/", "/status/page", "/status/page.js/x"] {
        assert_eq!(request_at(admin, "GET", other, "").await.status, 404);
    }
}

#[tokio::test]
async fn the_status_page_is_small() {
    let (_server, admin) = Server::start_with_admin(memory(&[]).await, limits()).await;
    let mut bytes = 0;
    for path in ["/status", "/status/page.js", "/status/page.css"] {
        bytes += request_at(admin, "GET", path, "").await.body.len();
    }
    assert!(bytes <= 10 * 1024, "{bytes} bytes");
}

#[tokio::test]
async fn a_store_without_a_replica_has_none_to_send() {
    let (server, admin) = Server::start_with_admin(memory(&[r#"{"_id": 1}"#]).await, limits()).await;
    let answer = request_at(admin, "GET", "/replica", "").await;
    assert_eq!((answer.status, &answer.problem()["detail"]), (404, &"This instance has no fallback replica.".into()));
    assert_eq!(request_at(admin, "DELETE", "/replica", "").await.status, 405);
    let (here, unknown) = (server.get("/replica").await, server.get("/unknown").await);
    assert_eq!((here.status, here.problem()["detail"].clone()), (404, unknown.problem()["detail"].clone()));
    let alone = Server::over(memory(&[r#"{"_id": 1}"#]).await).await;
    assert_eq!(alone.get("/replica").await.status, 404);
}

#[tokio::test]
async fn what_happens_on_one_side_is_counted_on_the_other() {
    let (server, admin) = Server::start_with_admin(memory(&[r#"{"_id": 1}"#]).await, limits()).await;
    server.get("/api/v1/records/1").await;
    server.get("/metrics").await;
    let text = request_at(admin, "GET", "/metrics", "").await.body;
    assert!(text.contains("records_http_requests_total{route=\"/api/v1/records/{id}\",status=\"200\"} 1"), "{text}");
    assert!(text.contains("records_http_requests_total{route=\"none\",status=\"404\"} 1"), "{text}");
}

#[tokio::test]
async fn the_description_has_only_what_is_there() {
    let (server, _) = Server::start_with_admin(memory(&[]).await, limits()).await;
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.status, if cfg!(feature = "pages") { 200 } else { 404 });
    assert!(!answer.body.contains("/readyz"), "{answer:?}");
}

#[tokio::test]
async fn a_probe_sees_that_it_is_not_ready_until_the_drain_is_over() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let limits = Limits { drain_delay: Duration::ZERO, ..limits() };
    let (server, admin) = Server::start_with_admin(Failing::until(go.clone(), asked.clone()), limits).await;
    let address = server.address;
    let mut connection = server.connect().await;
    connection.send("GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    timeout(PATIENCE, asked.notified()).await.unwrap();
    server.stop();
    timeout(PATIENCE, server.draining.notified()).await.unwrap();
    // The public listener is closed, and a request is in progress.
    while TcpStream::connect(address).await.is_ok() {}
    assert_eq!(request_at(admin, "GET", "/readyz", "").await.status, 503);
    assert_eq!(request_at(admin, "GET", "/livez", "").await.status, 200);
    assert_eq!(request_at(admin, "GET", "/metrics", "").await.status, 200);
    go.notify_one();
    connection.read_to_end().await;
    assert_eq!(server.wait().await, 0);
    assert!(TcpStream::connect(admin).await.is_err());
}

#[tokio::test]
async fn a_scraper_that_stays_connected_does_not_hold_the_stop() {
    let hour = Duration::from_secs(3_600);
    let limits = Limits { drain_timeout: hour, header_timeout: hour, ..limits() };
    let (server, admin) = Server::start_with_admin(memory(&[]).await, limits).await;
    let mut half = TcpStream::connect(admin).await.unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
    // Once another connection is answered, the server has also read the incomplete request.
    request_at(admin, "GET", "/livez", "").await;
    server.stop();
    server.wait().await;
}
