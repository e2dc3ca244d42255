//! HTTP/2 without TLS, by prior knowledge, on the port of HTTP/1.1.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::select_all;
use futures::{StreamExt, stream};
use h2::client::{Connection, SendRequest};
use hyper::{Request, Response, Version};
use records::http::Settings;
use records::server::Limits;
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::log::Requests;
use crate::support::{Failing, LIMIT, PATIENCE, Server, embedded, limits, memory, record, request_at, try_request_at};

/// A client and the task that drives its connection, which ends when the connection does.
struct Client {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
    sent: Requests,
}

impl Client {
    async fn connect(server: &Server) -> Self {
        Self::connect_with(server, &mut h2::client::Builder::new()).await
    }

    async fn connect_with(server: &Server, builder: &mut h2::client::Builder) -> Self {
        let sent = Requests::new();
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (requests, connection): (_, Connection<_, Bytes>) = builder.handshake(stream).await.unwrap();
        Self { requests, connection: tokio::spawn(connection), sent }
    }

    async fn begin(&mut self, path: &str) -> h2::client::ResponseFuture {
        self.send(Request::get(format!("http://test{path}")).body(()).unwrap()).await
    }

    async fn send(&mut self, request: Request<()>) -> h2::client::ResponseFuture {
        let headers = request.headers().iter().map(|(name, value)| format!("\r\n{name}: {}", value.to_str().unwrap()));
        self.sent.push(&format!("GET {}{}\r\n\r\n", request.uri(), headers.collect::<String>()));
        self.requests = self.requests.clone().ready().await.unwrap();
        self.requests.send_request(request, true).unwrap().0
    }

    async fn get(&mut self, path: &str) -> Response<Bytes> {
        let response = timeout(PATIENCE, self.begin(path).await).await.expect("an answer").unwrap();
        read_whole(response).await.unwrap()
    }

    /// Waits until the server has closed the connection.
    async fn wait_until_closed(self) {
        let closed = timeout(PATIENCE, self.connection).await.expect("the server closes the connection");
        // A reset or another error also ends the connection.
        let _ = closed.unwrap();
    }
}

/// Reads the whole body, and opens the window again for all of it.
async fn read_whole(response: Response<h2::RecvStream>) -> Result<Response<Bytes>, h2::Error> {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = timeout(PATIENCE, body.data()).await.expect("more of the body") {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend(data);
    }
    Ok(Response::from_parts(head, bytes.into()))
}

fn long_record() -> String {
    format!(r#"{{"_id":1,"text":"{}"}}"#, "x".repeat(1_000_000))
}

#[tokio::test]
async fn records_and_lists_are_as_over_http_1() {
    let server = Server::over(memory(&[&long_record(), r#"{"_id":2}"#]).await).await;
    let mut client = Client::connect(&server).await;
    for path in ["/api/v1/records", "/api/v1/records/1", "/api/v1/records/3", "/api/v1/records?limit=1"] {
        let (over_2, over_1) = (client.get(path).await, server.get(path).await);
        assert_eq!(over_2.status().as_u16(), over_1.status, "{path}");
        assert!(over_2.body() == over_1.body.as_bytes(), "{path} has another body");
        for name in ["content-type", "content-length", "etag", "link", "cache-control"] {
            let value = over_2.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(value, over_1.header(name), "{name} of {path}");
        }
        for name in ["connection", "transfer-encoding", "keep-alive"] {
            assert!(!over_2.headers().contains_key(name), "{path} has `{name}`, which HTTP/2 forbids");
        }
    }
}

#[tokio::test]
async fn the_response_to_head_is_that_to_get_without_the_body() {
    let mut settings = Settings::from(LIMIT);
    settings.rate_limit = Some("6/h".parse().unwrap());
    let limits = Limits { with_peer_address: true, ..limits() };
    let server = Server::start(memory(&[r#"{"_id":1}"#]).await, settings, limits).await;
    let mut client = Client::connect(&server).await;
    let mut statuses = Vec::new();
    for path in ["/api/v1/records", "/api/v1/records/1", "/nothing", "/nothing"] {
        let mut ask = async |method| {
            let request = Request::builder().method(method).uri(format!("http://test{path}"));
            let answer = client.send(request.header("x-request-id", "same").body(()).unwrap()).await;
            let answer = timeout(PATIENCE, answer).await.expect("an answer").unwrap();
            read_whole(answer).await.unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let (get, head) = (ask("GET").await, ask("HEAD").await);
        assert!(!get.body().is_empty() && head.body().is_empty(), "{path}: {head:?}");
        assert_eq!(head.headers().get("content-length"), get.headers().get("content-length"), "{path}");
        statuses.push(head.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 404, 429]);
}

#[rstest]
#[case::the_authority("http://test/livez", &[], 200)]
#[case::the_same_in_both("http://test:80/livez", &["TEST:80"], 200)]
#[case::the_field("/livez", &["test"], 200)]
#[case::none("/livez", &[], 400)]
#[case::two_fields("http://test/livez", &["test", "test"], 400)]
#[case::another_field("http://test/livez", &["other"], 400)]
#[case::user_information("http://user@test/livez", &[], 400)]
#[case::another_scheme("ftp://test/livez", &[], 400)]
#[case::another_path("http://user@test/nothing", &[], 400)]
#[tokio::test]
async fn a_request_names_one_host(#[case] uri: &str, #[case] hosts: &[&str], #[case] status: u16) {
    let server = Server::over(memory(&[]).await).await;
    let mut client = Client::connect(&server).await;
    // h2 sends a request of HTTP/2 only with an authority.
    let request = Request::get(uri).version(if uri.starts_with('/') { Version::HTTP_11 } else { Version::HTTP_2 });
    let request = hosts.iter().fold(request, |request, host| request.header("host", *host));
    let answer = client.send(request.body(()).unwrap()).await;
    let answer = read_whole(timeout(PATIENCE, answer).await.expect("an answer").unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(answer.body());
    assert_eq!((answer.status().as_u16(), text.contains(r#""parameter":"Host""#)), (status, status == 400), "{text}");
}

#[tokio::test]
async fn many_requests_are_served_at_once_on_one_connection() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Server::over(Failing::until(go.clone(), asked.clone())).await;
    let mut client = Client::connect(&server).await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.push(client.begin("/api/v1/records/1").await);
        timeout(PATIENCE, asked.notified()).await.expect("requests wait for each other");
    }
    go.notify_waiters();
    for answer in answers {
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_list_that_fails_half_way_is_reset() {
    let server = Server::over(Failing::after(20_000)).await;
    let mut client = Client::connect(&server).await;
    let response = timeout(PATIENCE, client.begin("/api/v1/records").await).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    let error = read_whole(response).await.unwrap_err();
    assert!(error.is_reset() && error.is_remote(), "{error}");
    assert_eq!(client.get("/livez").await.status(), 200, "other streams of the connection have ended too");
}

#[tokio::test]
async fn a_request_under_way_is_answered_before_the_server_stops() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Server::over(Failing::until(go.clone(), asked.clone())).await;
    let (mut busy, mut idle) = (Client::connect(&server).await, Client::connect(&server).await);
    assert_eq!(idle.get("/livez").await.status(), 200);
    let answer = busy.begin("/api/v1/records/1").await;
    timeout(PATIENCE, asked.notified()).await.unwrap();
    server.stop();
    idle.wait_until_closed().await;
    go.notify_one();
    let answer = read_whole(timeout(PATIENCE, answer).await.unwrap().unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, &br#"{"_id":1}"#[..]));
    busy.wait_until_closed().await;
    assert_eq!(server.wait().await, 0);
}

#[tokio::test]
async fn during_the_drain_delay_requests_are_served_without_a_header_that_http_2_forbids() {
    let limits = Limits { drain_delay: Duration::from_secs(3_600), ..limits() };
    let server = Server::start(memory(&[r#"{"_id": 1}"#]).await, LIMIT, limits).await;
    let mut client = Client::connect(&server).await;
    server.stop();
    timeout(PATIENCE, server.draining.notified()).await.unwrap();
    let answer = client.get("/api/v1/records/1").await;
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("connection"), "{answer:?}");
    assert_eq!(client.get("/readyz").await.status(), 503);
    server.stop();
    server.wait().await;
    client.wait_until_closed().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_request_is_not() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let limits = Limits { header_timeout: Duration::from_secs(3), ..limits() };
    let server = Server::start(Failing::until(go.clone(), asked.clone()), LIMIT, limits).await;
    let mut busy = Client::connect(&server).await;
    let answer = busy.begin("/api/v1/records/1").await;
    timeout(PATIENCE, asked.notified()).await.unwrap();
    let mut idle = Client::connect(&server).await;
    assert_eq!(idle.get("/livez").await.status(), 200);
    idle.wait_until_closed().await;
    go.notify_one();
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    busy.wait_until_closed().await;
}

#[tokio::test]
async fn a_connection_that_never_begins_is_closed() {
    let limits = Limits { header_timeout: Duration::from_secs(1), ..limits() };
    let server = Server::start(memory(&[]).await, LIMIT, limits).await;
    for begun in ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let closed = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "{begun:?} holds its connection");
    }
}

#[tokio::test]
async fn a_stream_whose_client_reads_nothing_is_reset_while_others_are_served() {
    let limits = Limits { write_timeout: Duration::from_secs(1), ..limits() };
    let (server, admin) = Server::start_with_admin(memory(&[&long_record(), r#"{"_id":2}"#]).await, limits).await;
    let mut builder = h2::client::Builder::new();
    let mut client = Client::connect_with(&server, builder.initial_window_size(16_000)).await;
    for path in ["/api/v1/records", "/api/v1/records/1", "/api/v1/records?limit=1"] {
        let stalled = timeout(PATIENCE, client.begin(path).await).await.unwrap().unwrap();
        let mut body = stalled.into_body();
        let ended = async {
            // The window is never opened again.
            while let Some(data) = body.data().await {
                data?;
                assert_eq!(client.get("/api/v1/records/2").await.status(), 200);
            }
            Ok::<_, h2::Error>(())
        };
        let error = timeout(PATIENCE, ended).await.expect("the stream ends").expect_err("a reset");
        assert!(error.is_reset() && error.is_remote(), "{path}: {error}");
        assert_eq!(client.get("/api/v1/records/2").await.status(), 200);
    }
    let metrics = request_at(admin, "GET", "/metrics", "").await.body;
    assert!(metrics.contains("records_http_write_timeouts_total 3\n"), "{metrics}");
}

#[tokio::test]
async fn a_stream_that_is_read_slowly_gets_everything() {
    let limits = Limits { write_timeout: Duration::from_secs(3), ..limits() };
    let server = Server::start(memory(&[&long_record()]).await, LIMIT, limits).await;
    let mut builder = h2::client::Builder::new();
    let mut client = Client::connect_with(&server, builder.initial_window_size(65_535)).await;
    let response = timeout(PATIENCE, client.begin("/api/v1/records").await).await.unwrap().unwrap();
    let (mut body, mut bytes) = (response.into_body(), 0);
    while let Some(data) = timeout(PATIENCE, body.data()).await.unwrap() {
        let length = data.unwrap().len();
        bytes += length;
        // The pauses add up to six seconds for a million bytes: twice the time-out.
        tokio::time::sleep(Duration::from_micros(6 * length as u64)).await;
        body.flow_control().release_capacity(length).unwrap();
    }
    assert!(bytes > 1_000_000, "{bytes}");
}

#[tokio::test]
async fn streams_that_share_a_slow_connection_are_not_reset() {
    let limits = Limits { write_timeout: Duration::from_secs(3), ..limits() };
    let record = format!(r#"{{"_id":1,"text":"{}"}}"#, "x".repeat(200_000));
    let server = Server::start(memory(&[&record]).await, LIMIT, limits).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(65_535);
    let mut client = Client::connect_with(&server, &mut builder).await;
    let mut responses = Vec::new();
    for _ in 0..50 {
        responses.push(client.begin("/api/v1/records/1").await);
    }
    // The connection is slow, and each stream waits for the turns of the others for longer than the time-out.
    let (unslept, left) = (Mutex::new(0), AtomicUsize::new(400_000));
    let readers = responses.into_iter().map(async |response| {
        let mut body = timeout(PATIENCE, response).await.unwrap().unwrap().into_body();
        while left.load(Ordering::Relaxed) > 0 {
            let length = timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap().len();
            let mut unslept = unslept.lock().await;
            *unslept += length;
            if *unslept >= 16_000 {
                *unslept = 0;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            body.flow_control().release_capacity(length).unwrap();
            let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(length)));
        }
    });
    select_all(readers.map(Box::pin)).await;
}

#[tokio::test]
async fn a_buffered_response_that_is_read_slowly_gets_out_before_the_connection_is_idle() {
    let (header_timeout, write_timeout) = (Duration::from_secs(2), Duration::from_secs(2));
    let limits = Limits { header_timeout, write_timeout, ..limits() };
    let record = format!(r#"{{"_id":1,"text":"{}"}}"#, "x".repeat(4_000));
    let server = Server::start(memory(&[&record]).await, LIMIT, limits).await;
    let mut builder = h2::client::Builder::new();
    let mut client = Client::connect_with(&server, builder.initial_window_size(100)).await;
    let response = timeout(PATIENCE, client.begin("/api/v1/records/1").await).await.unwrap().unwrap();
    let (mut body, mut bytes) = (response.into_body(), 0);
    while let Some(data) = timeout(PATIENCE, body.data()).await.unwrap() {
        let length = data.unwrap().len();
        bytes += length;
        // 40 pauses, which add up to more than both time-outs.
        tokio::time::sleep(Duration::from_millis(100)).await;
        body.flow_control().release_capacity(length).unwrap();
    }
    assert_eq!(bytes, record.len());
}

#[tokio::test]
async fn a_stream_whose_window_stays_closed_is_reset_although_others_are_read() {
    let limits = Limits { write_timeout: Duration::from_millis(100), ..limits() };
    let server = Server::start(memory(&[&long_record(), r#"{"_id":2}"#]).await, LIMIT, limits).await;
    let mut builder = h2::client::Builder::new();
    let mut client = Client::connect_with(&server, builder.initial_window_size(16_000)).await;
    let stalled = timeout(PATIENCE, client.begin("/api/v1/records/1").await).await.unwrap().unwrap();
    let mut body = stalled.into_body();
    let mut ended = pin!(async {
        // The window is never opened again.
        while let Some(data) = body.data().await {
            data?;
        }
        Ok::<_, h2::Error>(())
    });
    let reads_others = async {
        loop {
            tokio::select! {
                result = &mut ended => return result,
                answer = client.get("/api/v1/records/2") => assert_eq!(answer.status(), 200),
            }
        }
    };
    let error = timeout(PATIENCE, reads_others).await.expect("the stream ends").expect_err("a reset");
    assert!(error.is_reset() && error.is_remote(), "{error}");
}

#[tokio::test]
async fn a_list_that_waits_for_the_store_is_not_taken_for_a_client_that_reads_nothing() {
    let go = Arc::new(Notify::new());
    let waits = go.clone();
    let store = Failing {
        get: Box::new(|| Box::pin(async { Ok(None) })),
        list: Arc::new(move || {
            let go = waits.clone();
            let later = stream::once(async move {
                go.notified().await;
                Ok(record(2))
            });
            stream::iter([Ok(record(1))]).chain(later).boxed()
        }),
    };
    let limits = Limits { write_timeout: Duration::from_millis(100), ..limits() };
    let server = Server::start(Arc::new(store), LIMIT, limits).await;
    let mut client = Client::connect(&server).await;
    let response = timeout(PATIENCE, client.begin("/api/v1/records").await).await.unwrap().unwrap();
    // A paused clock skips the wait.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_millis(500)).await;
    tokio::time::resume();
    go.notify_one();
    assert_eq!(read_whole(response).await.unwrap().body().as_ref(), br#"[{"_id":1},{"_id":2}]"#);
}

#[tokio::test]
async fn a_head_that_is_too_long_is_431_and_the_connection_goes_on() {
    let server = Server::over(memory(&[]).await).await;
    let mut client = Client::connect(&server).await;
    let request = Request::get("http://test/livez").header("x-long", "x".repeat(20_000)).body(()).unwrap();
    let answer = client.send(request).await;
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 431);
    assert_eq!(client.get("/livez").await.status(), 200);
}

#[tokio::test]
async fn an_upgrade_of_http_1_is_ignored_and_both_versions_share_the_port() {
    let server = Server::over(embedded().await).await;
    let upgrade = "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let mut client = Client::connect(&server).await;
    assert_eq!(client.get("/livez").await.status(), 200);
    assert_eq!(server.request("GET", "/livez", upgrade).await.status, 200);
    let answer = try_request_at(server.address, "GET", "/livez", "").await.unwrap();
    assert_eq!(answer.status, 200);
}
