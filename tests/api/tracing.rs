//! Headers about the request itself: none about its trace, and `Server-Timing` where the operator wants it.

use std::sync::Arc;

use rstest::rstest;
use tokio::sync::Notify;

use crate::support::{Failing, Server, memory, unavailable};

#[rstest]
#[tokio::test]
async fn no_response_has_a_traceparent(
    #[values("/api/v1/records/1", "/api/v1/records/2", "/api/v1/records", "/api/v1/records?colour=red", "/nothing")]
    path: &str,
    #[values("", "traceparent: hello\r\n", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n")]
    headers: &str,
) {
    let server = Server::over(memory(&[r#"{"_id": 1}"#]).await).await;
    assert_eq!(
        server.request("GET", path, headers).await.header("traceparent"),
        None,
        "the standard defines no such response header"
    );
}

/// Returns the name and the milliseconds of each part of a `Server-Timing`.
fn timing(header: &str) -> Vec<(String, f64)> {
    header
        .split(", ")
        .map(|part| part.split_once(";dur=").unwrap())
        .map(|(name, time)| (name.to_owned(), time.parse().unwrap()))
        .collect()
}

#[rstest]
#[case::a_record("/api/v1/records/1", true)]
#[case::none("/api/v1/records/2", true)]
#[case::a_page("/api/v1/records?limit=1&after_id=1", true)]
#[case::a_list("/api/v1/records", true)]
#[case::a_mistake("/api/v1/records?colour=red", false)]
#[case::health("/livez", false)]
#[tokio::test]
async fn server_timing_is_there_when_asked_for(#[case] path: &str, #[case] asks: bool) {
    let server = Server::start_with(memory(&[r#"{"_id": 1}"#]).await, |settings| settings.server_timing = true).await;
    let answer = server.get(path).await;
    let parts = timing(answer.header("server-timing").unwrap());
    let (name, total) = parts.last().unwrap();
    assert_eq!((name.as_str(), parts.len()), ("total", if asks { 2 } else { 1 }));
    if asks {
        assert!(parts[0].0 == "store" && parts[0].1 <= *total, "{parts:?}");
    }
}

#[tokio::test]
async fn server_timing_is_nobodys_business_by_default() {
    let server = Server::over(memory(&[r#"{"_id": 1}"#]).await).await;
    assert_eq!(server.get("/api/v1/records/1").await.header("server-timing"), None);
}

#[tokio::test]
async fn the_time_of_a_store_that_fails_or_is_given_up_counts() {
    let server = Server::start_with(Failing::with(unavailable), |settings| settings.server_timing = true).await;
    assert_eq!(timing(server.get("/api/v1/records/1").await.header("server-timing").unwrap()).len(), 2);
    let never = Failing::until(Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Server::start_with(never, |settings| {
        settings.server_timing = true;
        settings.deadline = std::time::Duration::from_millis(100);
    })
    .await;
    let answer = server.get("/api/v1/records/1").await;
    let parts = timing(answer.header("server-timing").unwrap());
    assert!(answer.status == 503 && parts[0].0 == "store" && parts[0].1 > 50.0, "{answer:?}");
}
