//! The limits on clients, and the responses to a client that exceeds them.

use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use bytes::Bytes;
use records::http::Settings;
use records::record::{Document, Key};
use records::server::Limits;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{Failing, LIMIT, PATIENCE, Server, embedded, limits, memory, request_at};

#[tokio::test]
async fn a_head_that_is_never_finished_is_cut() {
    let limits = Limits { header_timeout: Duration::from_millis(200), ..limits() };
    let server = Server::start(memory(&[]).await, LIMIT, limits).await;
    let mut slow = server.connect().await;
    slow.send("GET /livez HTTP/1.1\r\nHost: te").await;
    // The read ends only because the server closes the connection.
    slow.read_to_end().await;
}

#[tokio::test]
async fn a_connection_that_stays_idle_is_closed() {
    let limits = Limits { header_timeout: Duration::from_secs(3), ..limits() };
    let server = Server::start(memory(&[]).await, LIMIT, limits).await;
    let mut idle = server.connect().await;
    idle.send("GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(idle.read_until("}").await.starts_with("HTTP/1.1 200"));
    assert_eq!(idle.read_to_end().await, b"");
}

#[tokio::test]
async fn a_client_that_closes_its_sending_half_gets_its_whole_answer() {
    let store = memory(&[&format!(r#"{{"_id":1,"text":"{}"}}"#, "x".repeat(8_000_000)), r#"{"_id":"Au"}"#]).await;
    let server = Server::over(store).await;
    for path in ["/readyz", "/api/v1/records/Au", "/api/v1/records/none", "/api/v1/records?limit=2", "/api/v1/records"]
    {
        let whole = server.get(path).await;
        for (version, header) in [("1.1", "Connection: close\r\n"), ("1.1", ""), ("1.0", "")] {
            let mut half = server.connect().await;
            half.send(&format!("GET {path} HTTP/{version}\r\nHost: test\r\n{header}\r\n")).await;
            half.close_sending_half().await;
            let (answer, in_order) = half.read_to_end_or_reset().await;
            let (head, status) = (String::from_utf8_lossy(&answer[..answer.len().min(40)]), whole.status);
            assert!(in_order && head.contains(&format!(" {status} ")), "{path} over HTTP/{version}: {head:?}");
            assert!(answer.len() > whole.body.len(), "{path} over HTTP/{version}: {} bytes", answer.len());
        }
    }
}

#[tokio::test]
async fn a_client_that_closes_its_sending_half_gets_an_answer_that_takes_time() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Server::over(Failing::until(go.clone(), asked.clone())).await;
    let mut half = server.connect().await;
    half.send("GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    timeout(PATIENCE, asked.notified()).await.unwrap();
    half.close_sending_half().await;
    // Once another client is served, the server has also read the end of this connection.
    server.get("/livez").await;
    go.notify_one();
    let answer = String::from_utf8(half.read_to_end().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"_id":1}"#), "{answer}");
}

#[tokio::test]
async fn work_for_a_client_that_has_left_ends_at_the_request_timeout() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (server, admin) = {
        let settings = Settings::from(Duration::from_millis(300));
        Server::start_with_admin_and(Failing::until(go, asked.clone()), settings, limits()).await
    };
    let mut leaver = server.connect().await;
    leaver.send("GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    timeout(PATIENCE, asked.notified()).await.unwrap();
    drop(leaver);
    let ended = async {
        while !request_at(admin, "GET", "/metrics", "").await.body.contains("records_http_connections_open 0\n") {}
    };
    timeout(PATIENCE, ended).await.expect("the connection is closed");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_431() {
    let server = Server::over(memory(&[]).await).await;
    let mut connection = server.connect().await;
    connection.send(&format!("GET /livez HTTP/1.1\r\nHost: test\r\nX-Long: {}\r\n\r\n", "x".repeat(20_000))).await;
    let answer = String::from_utf8(connection.read_to_end().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_the_next_client_served() {
    let server = Server::over(memory(&[]).await).await;
    for garbage in
        ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}\r\n\r\n", "PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut connection = server.connect().await;
        connection.send(garbage).await;
        let answer = connection.read_to_end().await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let store = memory(&[r#"{"_id": "Au"}"#]).await;
    let (server, admin) = Server::start_with_admin(store, Limits { max_connections: 1, ..limits() }).await;
    let mut first = server.connect().await;
    first.send("GET /api/v1/records/Au HTTP/1.1\r\nHost: test\r\n\r\n").await;
    first.read_until("}").await;
    let mut second = server.connect().await;
    second.send("GET /api/v1/records/Au HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    // The server has one thread: it would have answered the second client before all of these.
    for _ in 0..20 {
        assert_eq!(request_at(admin, "GET", "/livez", "").await.status, 200);
    }
    assert!(second.has_received_nothing(), "a connection beyond the limit was answered");
    drop(first);
    assert!(String::from_utf8(second.read_to_end().await).unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_does_not_disturb() {
    let server = Server::over(memory(&[r#"{"_id": "Au"}"#]).await).await;
    let mut connection = server.connect().await;
    connection
        .send("GET /api/v1/records/Au HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        .await;
    assert!(String::from_utf8(connection.read_to_end().await).unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn requests_beyond_the_limit_are_told_to_come_back_at_once() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server =
        Server::start_with(Failing::until(go.clone(), asked.clone()), |settings| settings.max_requests = 1).await;
    let mut first = server.connect().await;
    first.send("GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    timeout(PATIENCE, asked.notified()).await.unwrap();
    for path in ["/api/v1/records/1", "/api/v1/records"] {
        let refused = server.get(path).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{path}");
        assert!(refused.problem()["detail"].as_str().unwrap().contains("limit of concurrent requests"));
    }
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(server.get("/metrics").await.status, 200);
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("records_http_requests_rejected_total{reason=\"max_requests\"} 2\n"), "{metrics}");
    go.notify_one();
    assert!(first.read_until("}").await.starts_with("HTTP/1.1 200"));
    go.notify_one();
    assert_eq!(server.get("/api/v1/records/1").await.status, 200, "there is a place again");
}

#[tokio::test]
async fn streams_beyond_the_limit_are_told_to_come_back_at_once_and_lookups_go_on() {
    let store = memory(&[&format!(r#"{{"_id":1,"text":"{}"}}"#, "x".repeat(8_000_000))]).await;
    let server = Server::start_with(store, |settings| settings.max_streams = 1).await;
    let mut first = server.connect().await;
    first.send("GET /api/v1/records HTTP/1.1\r\nHost: test\r\n\r\n").await;
    first.read_until("\r\n\r\n").await;
    let refused = server.get("/api/v1/records").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.problem()["detail"].as_str().unwrap().contains("limit of streamed lists"));
    assert_eq!(server.get("/api/v1/records/2").await.status, 204);
    assert_eq!(server.get("/api/v1/records?limit=1").await.status, 200, "a page counts as a stream");
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("records_http_requests_rejected_total{reason=\"max_streams\"} 1\n"), "{metrics}");
    drop(first);
    while server.get("/api/v1/records").await.status != 200 {}
}

#[tokio::test]
async fn large_records_share_the_memory_for_responses() {
    let store = memory(&[&format!(r#"{{"_id":1,"text":"{}"}}"#, "x".repeat(4_000_000)), r#"{"_id":2}"#]).await;
    let server = Server::start_with(store, |settings| settings.response_memory_limit = 10_000_000).await;
    for path in ["/api/v1/records/1", "/api/v1/records?limit=1", "/api/v1/records"] {
        let mut first = server.connect().await;
        first.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        first.read_until("\r\n\r\n").await;
        for other in ["/api/v1/records/1", "/api/v1/records?limit=1", "/api/v1/records"] {
            let refused = server.get(other).await;
            assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{other} during {path}");
        }
        assert_eq!(server.get("/api/v1/records/2").await.status, 200, "a small record needs the memory of responses");
        drop(first);
        while server.get("/api/v1/records/1").await.status != 200 {}
    }
}

#[tokio::test]
async fn a_stream_that_gets_no_memory_on_the_way_is_aborted() {
    let large = format!(r#"{{"_id":2,"text":"{}"}}"#, "x".repeat(4_000_000));
    // The first record exceeds a chunk, so that the status is sent before the second record.
    let store = memory(&[&format!(r#"{{"_id":1,"text":"{}"}}"#, "x".repeat(65_536)), &large]).await;
    let server = Server::start_with(store, |settings| settings.response_memory_limit = 10_000_000).await;
    let mut holder = server.connect().await;
    holder.send("GET /api/v1/records/2 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    holder.read_until("\r\n\r\n").await;
    let list = server.get("/api/v1/records").await;
    assert_eq!((list.status, list.is_complete), (200, false));
    drop(holder);
    while !server.get("/api/v1/records").await.is_complete {}
}

#[tokio::test]
async fn a_deadline_passes_while_much_is_read_of_which_little_is_sent() {
    let store = embedded().await;
    // All records share their bytes, so that only the scan takes long: far longer than the deadline, on any machine.
    let bson = Bytes::from(doc! { "text": "x".repeat(16_000), "n": 1 }.to_vec().unwrap());
    for id in 0..20_000 {
        store.put(Document::with_key(Key::int64(id), bson.clone())).unwrap();
    }
    let server = Server::start(store, Duration::from_millis(1), limits()).await;
    for query in ["fields=n&limit=10000", "fields=n&limit=1&sort=-n", "text.eq=nothing"] {
        let answer = server.get(&format!("/api/v1/records?{query}")).await;
        assert_eq!(answer.status, 503, "{query}");
    }
}
