//! Failures: the problem that the client gets, and the cause, which only the log gets.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use records::http::AccessLog;
use records::store::Error;
use rstest::rstest;
use tokio::sync::Notify;
use tracing::subscriber::DefaultGuard;

use crate::support::{Failing, PATIENCE, SECRET, Server, broken, limits, memory, record, request_at, unavailable};

#[rstest]
#[case::lookup("/api/v1/records/Au")]
#[case::list("/api/v1/records")]
#[case::readiness("/readyz")]
#[tokio::test]
async fn a_store_that_is_away_is_503_with_a_time_to_come_back(#[case] path: &str) {
    let server = Server::over(Failing::with(unavailable)).await;
    let answer = server.get(path).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.problem()["title"], "Service Unavailable");
}

#[rstest]
#[case::lookup("/api/v1/records/Au")]
#[case::list("/api/v1/records")]
#[tokio::test]
async fn a_store_that_is_broken_is_500(#[case] path: &str) {
    let server = Server::over(Failing::with(broken)).await;
    let answer = server.get(path).await;
    assert_eq!((answer.status, answer.header("retry-after")), (500, None));
    answer.problem();
}

#[rstest]
#[case(unavailable as fn() -> Error)]
#[case(broken as fn() -> Error)]
#[tokio::test]
async fn nothing_of_the_cause_reaches_the_client(#[case] error: fn() -> Error) {
    let server = Server::over(Failing::with(error)).await;
    for path in ["/api/v1/records/Au", "/api/v1/records", "/readyz"] {
        let answer = server.get(path).await;
        let shown = format!("{answer:?}");
        for word in ["hunter2", "10.0.0.7", "not master", "primary", "page 7", "mongo"] {
            assert!(!shown.contains(word), "{path} shows {word:?}: {shown}");
        }
    }
}

/// The harness searches the log for the values of every request.
#[rstest]
#[case::an_id("/api/v1/records/patient-4711", "")]
#[case::an_encoded_id("/api/v1/records/patient%2D4711", "")]
#[case::an_operand("/api/v1/records?limit=5&name.eq=patient-4711", "")]
#[case::an_operand_among_others("/api/v1/records?or=(a.eq=1,name.eq=patient-4711)", "")]
#[case::a_short_id("/api/v1/records/47", "")]
#[case::a_tag("/api/v1/records/1", "If-Match: patient-4711\r\n")]
#[case::a_key("/api/v1/records/1", "Authorization: Bearer patient-4711\r\n")]
#[tokio::test]
#[should_panic(expected = "the log has values of requests")]
async fn a_value_of_a_request_in_the_log_fails_the_test(#[case] path: &str, #[case] headers: &str) {
    let server = Server::over(Failing::with(|| Error::unavailable("patient-4711 or 47: not found"))).await;
    server.request("GET", path, headers).await;
}

/// The log of one test, which runs on one thread.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Writes the events of this thread without colours into the log, until the result is dropped.
    pub fn capture(&self) -> DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_has_the_cause_once_under_the_request_id() {
    let log = Log::default();
    let _guard = log.capture();
    let server = Server::over(Failing::with(unavailable)).await;
    let answer = server.get("/api/v1/records/Au").await;
    let text = log.text();
    assert_eq!(text.matches(SECRET).count(), 1, "{text}");
    assert!(text.contains(answer.header("x-request-id").unwrap()), "{text}");
}

#[tokio::test]
async fn an_access_log_of_errors_has_slow_requests_too() {
    let log = Log::default();
    let _guard = log.capture();
    let delays = Mutex::new(vec![Duration::ZERO, Duration::from_millis(1_100)]);
    let store = Failing {
        get: Box::new(move || {
            let delay = delays.lock().unwrap().pop().unwrap();
            Box::pin(async move {
                tokio::time::sleep(delay).await;
                Ok(Some(record(1)))
            })
        }),
        list: Arc::new(|| stream::empty().boxed()),
    };
    let server = Server::start_with(Arc::new(store), |settings| settings.access_log = AccessLog::Errors).await;
    let slow = server.get("/api/v1/records/1").await;
    let begun = Instant::now();
    let fast = server.get("/api/v1/records/1").await;
    // On a busy machine this one may be slow, too.
    let is_slow = begun.elapsed() >= Duration::from_secs(1);
    let text = log.text();
    assert_eq!((slow.status, fast.status), (200, 200));
    assert!(text.matches("access_log").count() == 1 || is_slow, "{text}");
    assert!(text.contains(slow.header("x-request-id").unwrap()) && text.contains("INFO"), "{text}");
}

#[tokio::test]
async fn livez_does_not_ask_the_store() {
    let server = Server::over(Failing::with(unavailable)).await;
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_store_that_hangs_is_503_when_the_deadline_has_passed() {
    let store = Failing::until(Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Server::start(store, Duration::from_millis(100), limits()).await;
    for path in ["/api/v1/records/1", "/api/v1/records", "/readyz"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{path}");
        answer.problem();
    }
}

#[tokio::test]
async fn a_panic_is_500_and_the_next_request_on_the_connection_is_served() {
    let panics = std::sync::atomic::AtomicBool::new(true);
    let server = Server::over(Arc::new(Failing {
        get: Box::new(move || {
            if panics.swap(false, std::sync::atomic::Ordering::Relaxed) {
                panic!("{SECRET}");
            }
            Box::pin(async { Ok(Some(record(1))) })
        }),
        list: Arc::new(|| stream::empty().boxed()),
    }))
    .await;
    let mut connection = server.connect().await;
    connection.send("GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let first = connection.read_until("}").await;
    assert!(first.starts_with("HTTP/1.1 500") && first.contains("request_id") && !first.contains("hunter2"), "{first}");
    connection.send("GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(connection.read_until("}").await.starts_with("HTTP/1.1 200"));
}

#[rstest]
#[tokio::test]
async fn a_list_that_fails_half_way_does_not_look_whole_where_an_answer_ends_with_its_connection(
    #[values(true, false)] fails: bool,
    #[values("", "Connection: keep-alive\r\n")] headers: &str,
) {
    let last = move || stream::iter(fails.then(|| Err(broken())));
    let server = Server::over(Arc::new(Failing {
        get: Box::new(|| Box::pin(async { Ok(None) })),
        list: Arc::new(move || stream::iter(0..20_000).map(|id| Ok(record(id))).chain(last()).boxed()),
    }))
    .await;
    let mut connection = server.connect().await;
    let accept = "Accept: application/x-ndjson\r\n";
    connection.send(&format!("GET /api/v1/records HTTP/1.0\r\n{accept}{headers}\r\n")).await;
    let (bytes, ended) = connection.read_to_end_or_reset().await;
    assert!(bytes.starts_with(b"HTTP/1.0 200") && bytes.len() > 100_000);
    assert_eq!(ended, !fails, "only a reset tells the client that the list is incomplete");
}

#[tokio::test]
async fn a_list_that_fails_half_way_does_not_look_whole() {
    let server = Server::over(Failing::after(20_000)).await;
    let answer = server.get("/api/v1/records").await;
    assert_eq!(answer.status, 200);
    assert!(!answer.is_complete, "the client cannot tell that the list is incomplete");
    assert!(serde_json::from_str::<serde_json::Value>(&answer.body).is_err());
}

#[rstest]
#[case::at_once(0)]
#[case::after_the_first_record(1)]
#[tokio::test]
async fn a_list_that_fails_before_anything_is_sent_says_so_by_its_status(#[case] count: i64) {
    let server = Server::over(Failing::after(count)).await;
    let answer = server.get("/api/v1/records").await;
    assert_eq!((answer.status, answer.is_complete), (500, true));
    answer.problem();
}

#[rstest]
#[tokio::test]
async fn other_methods_are_405_and_told_the_right_ones(
    #[values("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")] method: &str,
    #[values("/api/v1/records", "/api/v1/records/Au", "/api/v1/records/", "/livez", "/readyz")] path: &str,
) {
    let server = Server::over(memory(&[]).await).await;
    let answer = server.request(method, path, "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    answer.problem();
}

#[rstest]
#[tokio::test]
async fn other_paths_are_404(
    #[values(
        "/pages/none",
        "/docs/none",
        "/api",
        "/api/v1",
        "/api/v1/record",
        "/api/v2/records",
        "/livez/",
        "/API/v1/records",
        "//api/v1/records"
    )]
    path: &str,
) {
    let server = Server::over(memory(&[]).await).await;
    let answer = server.get(path).await;
    assert_eq!(answer.status, 404);
    answer.problem();
}

#[tokio::test]
async fn a_client_that_hangs_up_harms_nobody() {
    let asked = Arc::new(Notify::new());
    let go = Arc::new(Notify::new());
    let server = Server::over(Failing::until(go.clone(), asked.clone())).await;
    let mut gone = server.connect().await;
    gone.send("GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    tokio::time::timeout(PATIENCE, asked.notified()).await.unwrap();
    drop(gone);
    go.notify_waiters();
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn options_of_the_server_are_the_methods_that_it_has() {
    let (server, admin) = Server::start_with_admin(memory(&[]).await, limits()).await;
    for address in [server.address, admin] {
        let answer = request_at(address, "OPTIONS", "*", "").await;
        assert_eq!((answer.status, answer.header("allow")), (200, Some("GET, HEAD")));
        assert_eq!((answer.body.as_str(), answer.header("content-length")), ("", Some("0")));
    }
    assert_eq!(server.request("GET", "*", "").await.status, 404);
}

#[rstest]
#[case("/api/v1/records?limit=1&name.eq=%zz", "name.eq", "%25")]
#[case("/api/v1/records?name.eq=100%", "name.eq", "%25")]
#[case("/api/v1/records?%4=1", "%4", "%25")]
#[case("/api/v1/records/1?fields=%g0", "fields", "%25")]
#[case("/api/v1/records?name.eq=%ff", "name.eq", "UTF-8")]
#[tokio::test]
async fn a_query_that_cannot_be_decoded_is_400_and_says_what_would_be_right(
    #[case] path: &str,
    #[case] parameter: &str,
    #[case] says: &str,
) {
    let server = Server::over(memory(&[]).await).await;
    let answer = server.get(path).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let problem = answer.problem();
    assert_eq!(problem["parameter"], parameter);
    assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
}
