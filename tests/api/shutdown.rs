//! The graceful shutdown: the requests that are completed, those that are refused, and the end of the drain.

use std::sync::Arc;
use std::time::Duration;

use records::server::Limits;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{Failing, LIMIT, PATIENCE, Server, limits, memory};

const REQUEST: &str = "GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n\r\n";

#[tokio::test]
async fn a_request_under_way_is_answered_before_the_server_stops() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Server::over(Failing::until(go.clone(), asked.clone())).await;
    let mut connection = server.connect().await;
    connection.send(REQUEST).await;
    timeout(PATIENCE, asked.notified()).await.unwrap();
    server.stop();
    timeout(PATIENCE, server.draining.notified()).await.unwrap();
    go.notify_one();
    let answer = String::from_utf8(connection.read_to_end().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"_id":1}"#), "{answer}");
    assert_eq!(server.wait().await, 0);
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_stop() {
    let server = Server::over(memory(&[]).await).await;
    let mut idle = server.connect().await;
    idle.send("GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").await;
    idle.read_until("}").await;
    server.stop();
    assert_eq!(server.wait().await, 0);
    assert_eq!(idle.read_to_end().await, b"");
}

#[tokio::test]
async fn a_half_sent_head_does_not_hold_the_stop_beyond_the_drain_timeout() {
    let limits =
        Limits { drain_timeout: Duration::from_millis(200), header_timeout: Duration::from_secs(3_600), ..limits() };
    let server = Server::start(memory(&[]).await, LIMIT, limits).await;
    let mut half = server.connect().await;
    half.send("GET /livez HTTP/1.1\r\nHo").await;
    // Once another connection is answered, the server has also read the incomplete request.
    server.get("/livez").await;
    server.stop();
    assert_eq!(server.wait().await, 1);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_at_the_drain_timeout() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let limits = Limits { drain_timeout: Duration::from_millis(200), ..limits() };
    let server = Server::start(Failing::until(go, asked.clone()), LIMIT, limits).await;
    let mut connection = server.connect().await;
    connection.send(REQUEST).await;
    timeout(PATIENCE, asked.notified()).await.unwrap();
    server.stop();
    assert_eq!(server.wait().await, 1);
}

#[tokio::test]
async fn a_second_signal_ends_the_drain_at_once() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let limits = Limits { drain_timeout: Duration::from_secs(3_600), ..limits() };
    let server = Server::start(Failing::until(go, asked.clone()), LIMIT, limits).await;
    let mut connection = server.connect().await;
    connection.send(REQUEST).await;
    timeout(PATIENCE, asked.notified()).await.unwrap();
    server.stop();
    timeout(PATIENCE, server.draining.notified()).await.unwrap();
    server.stop();
    assert_eq!(server.wait().await, 1);
}

#[tokio::test]
async fn during_the_delay_it_serves_but_is_not_ready_and_sends_clients_elsewhere() {
    let limits = Limits { drain_delay: Duration::from_secs(3_600), ..limits() };
    let server = Server::start(memory(&[r#"{"_id": 1}"#]).await, LIMIT, limits).await;
    let before = server.request("GET", "/api/v1/records/1", "").await;
    assert_eq!(before.status, 200);
    server.stop();
    timeout(PATIENCE, server.draining.notified()).await.unwrap();
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status, ready.header("retry-after")), (503, Some("1")));
    ready.problem();
    assert_eq!(server.get("/livez").await.status, 200, "the process is restarted although it is alive");
    // A kept-alive connection.
    let mut kept = server.connect().await;
    kept.send(REQUEST).await;
    let answer = String::from_utf8(kept.read_to_end().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    server.stop();
    assert_eq!(server.wait().await, 0);
}

#[tokio::test]
async fn a_stopped_server_takes_no_connections() {
    let server = Server::over(memory(&[]).await).await;
    let address = server.address;
    server.stop();
    server.wait().await;
    assert!(TcpStream::connect(address).await.is_err());
}
