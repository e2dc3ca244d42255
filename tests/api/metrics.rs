//! The text of `/metrics`.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use records::server::Limits;
use rstest::rstest;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{Failing, PATIENCE, Server, limits, memory, record, request_at, unavailable};

/// Returns the value of a series, by its name with its labels.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

impl Server {
    /// Waits until `series` is `wanted`, and returns the text of `/metrics`.
    async fn metrics_with(&self, series: &str, wanted: f64) -> String {
        let come = async {
            loop {
                let text = self.get("/metrics").await.body;
                if value(&text, series) == Some(wanted) {
                    return text;
                }
            }
        };
        timeout(PATIENCE, come).await.unwrap_or_else(|_| panic!("{series} does not become {wanted}"))
    }
}

#[rstest]
#[case::hit("/api/v1/records/Au", "/api/v1/records/{id}", 200)]
#[case::miss("/api/v1/records/nothing", "/api/v1/records/{id}", 204)]
#[case::list("/api/v1/records", "/api/v1/records", 200)]
#[case::bad("/api/v1/records?colour=red", "/api/v1/records", 400)]
#[case::health("/livez", "/livez", 200)]
#[case::elsewhere("/wp-login.php", "none", 404)]
#[tokio::test]
async fn requests_are_counted_by_route_and_status(#[case] path: &str, #[case] route: &str, #[case] status: u16) {
    let server = Server::over(memory(&[r#"{"_id": "Au"}"#]).await).await;
    for _ in 0..3 {
        assert_eq!(server.get(path).await.status, status);
    }
    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    let text = metrics.body;
    let series = format!("records_http_requests_total{{route=\"{route}\",status=\"{status}\"}}");
    assert_eq!(value(&text, &series), Some(3.0), "{text}");
    let timed = format!("records_http_request_duration_seconds_count{{route=\"{route}\"}}");
    assert_eq!(value(&text, &timed), Some(3.0), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn records_are_no_route_where_there_are_none() {
    let (server, admin) = Server::start_with_admin(memory(&[r#"{"_id": "Au"}"#]).await, limits()).await;
    assert_eq!(server.get("/api/v1/records/Au").await.status, 200);
    assert_eq!(request_at(admin, "GET", "/api/v1/records/Au", "").await.status, 404);
    let text = request_at(admin, "GET", "/metrics", "").await.body;
    assert_eq!(
        value(&text, "records_http_requests_total{route=\"/api/v1/records/{id}\",status=\"404\"}"),
        None,
        "{text}"
    );
    assert_eq!(value(&text, "records_http_requests_total{route=\"none\",status=\"404\"}"), Some(1.0), "{text}");
}

#[tokio::test]
async fn a_list_is_counted_while_it_is_streamed() {
    let endless = Failing {
        get: Box::new(|| Box::pin(async { Ok(None) })),
        list: Arc::new(|| stream::iter([Ok(record(1))]).chain(stream::pending()).boxed()),
    };
    let server = Server::over(Arc::new(endless)).await;
    let streams = async || value(&server.get("/metrics").await.body, "records_http_list_streams");
    assert_eq!(streams().await, Some(0.0));
    let mut reader = server.connect().await;
    reader.send("GET /api/v1/records HTTP/1.1\r\nHost: test\r\n\r\n").await;
    reader.read_until("{\"_id\":1}").await;
    assert_eq!(streams().await, Some(1.0));
    drop(reader);
    let gone = async { while streams().await != Some(0.0) {} };
    timeout(PATIENCE, gone).await.expect("the stream of a client that has gone is still counted");
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open() {
    let (server, admin) = Server::start_with_admin(memory(&[]).await, Limits { max_connections: 7, ..limits() }).await;
    let has = async |wanted: f64| {
        let come = async {
            loop {
                let text = request_at(admin, "GET", "/metrics", "").await.body;
                assert_eq!(value(&text, "records_http_connections_limit"), Some(7.0), "{text}");
                if value(&text, "records_http_connections_open") == Some(wanted) {
                    return;
                }
            }
        };
        timeout(PATIENCE, come).await.unwrap_or_else(|_| panic!("there are not {wanted} connections"));
    };
    has(0.0).await;
    let (first, second) = (server.connect().await, server.connect().await);
    has(2.0).await;
    drop(first);
    has(1.0).await;
    drop(second);
    has(0.0).await;
}

#[tokio::test]
async fn the_memory_of_responses_is_shown_until_they_are_sent() {
    let long = format!(r#"{{"_id": 1, "text": "{}"}}"#, "x".repeat(8_000_000));
    let server = Server::start_with(memory(&[&long]).await, |settings| settings.response_memory_limit = 16 << 20).await;
    let text = server.metrics_with("records_http_response_memory_bytes", 0.0).await;
    assert_eq!(value(&text, "records_http_response_memory_limit_bytes"), Some(f64::from(16 << 20)), "{text}");
    let mut reader = server.connect().await;
    reader.send("GET /api/v1/records?limit=1 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    reader.read_until("\r\n\r\n").await;
    let text = server.get("/metrics").await.body;
    assert!(value(&text, "records_http_response_memory_bytes").is_some_and(|bytes| bytes >= 8e6), "{text}");
    drop(reader);
    server.metrics_with("records_http_response_memory_bytes", 0.0).await;
}

#[tokio::test]
async fn a_list_that_is_aborted_is_counted_and_one_that_fails_before_it_begins_is_not() {
    let aborted = "records_http_streams_aborted_total";
    let server = Server::over(Failing::with(unavailable)).await;
    assert_eq!(server.get("/api/v1/records").await.status, 503);
    server.metrics_with(aborted, 0.0).await;
    let server = Server::over(Failing::after(20_000)).await;
    let list = server.get("/api/v1/records").await;
    assert_eq!((list.status, list.is_complete), (200, false));
    server.metrics_with(aborted, 1.0).await;
}

#[tokio::test]
async fn a_request_whose_client_resets_its_connection_is_counted() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Server::over(Failing::until(go, asked.clone())).await;
    let mut impatient = server.connect().await;
    impatient.send("GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    timeout(PATIENCE, asked.notified()).await.unwrap();
    impatient.reset();
    let gone = "records_http_requests_total{route=\"/api/v1/records/{id}\",status=\"499\"}";
    let text = server.metrics_with(gone, 1.0).await;
    assert_eq!(
        value(&text, "records_http_request_duration_seconds_count{route=\"/api/v1/records/{id}\"}"),
        Some(1.0),
        "{text}"
    );
}

#[tokio::test]
async fn metrics_say_nothing_of_records_ids_or_causes() {
    let server = Server::over(Failing::with(unavailable)).await;
    assert_eq!(server.get("/api/v1/records/a-private-id").await.status, 503);
    let text = server.get("/metrics").await.body;
    assert_eq!(
        value(&text, "records_http_requests_total{route=\"/api/v1/records/{id}\",status=\"503\"}"),
        Some(1.0),
        "{text}"
    );
    for secret in ["a-private-id", "hunter2", "10.0.0.7"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_request_for_which_there_is_no_memory_is_counted_and_told() {
    let record = format!(r#"{{"_id":1,"text":"{}"}}"#, "x".repeat(4_000_000));
    let server =
        Server::start_with(memory(&[&record]).await, |settings| settings.response_memory_limit = 10_000_000).await;
    let mut reader = server.connect().await;
    reader.send("GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    reader.read_until("\r\n\r\n").await;
    for path in ["/api/v1/records/1", "/api/v1/records?limit=1"] {
        let refused = server.get(path).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{path}");
        assert!(refused.problem()["detail"].as_str().unwrap().contains("no memory left"));
    }
    let text = server.get("/metrics").await.body;
    for (reason, count) in [("response_memory", 2.0), ("max_requests", 0.0), ("max_streams", 0.0)] {
        let series = format!("records_http_requests_rejected_total{{reason=\"{reason}\"}}");
        assert_eq!(value(&text, &series), Some(count), "{text}");
    }
}
