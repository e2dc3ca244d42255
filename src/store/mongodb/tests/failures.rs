//! Counts of failures with a MongoDB that does not answer.

use std::time::Duration;

use futures::StreamExt;
use tokio::net::TcpListener;

use super::super::*;
use super::connections::{comes_to, value};

const UNAVAILABLE: &str = "store_failures{unavailable}";
const TIMEOUT: &str = "store_failures{timeout}";

async fn store(url: String, timeout: u64) -> Arc<dyn Store> {
    let options = Options { timeout: Duration::from_millis(timeout), ..Options::default() };
    let store = open(url, options).await.expect("a store").into_store();
    for reason in ["unavailable", "timeout", "invalid", "broken"] {
        assert_eq!(value(&*store, &format!("store_failures{{{reason}}}")), 0);
    }
    store
}

/// An address where no server listens.
async fn no_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    format!("mongodb://{}", listener.local_addr().expect("an address"))
}

#[tokio::test]
async fn calls_fail_as_unavailable_where_no_server_is_found() {
    let store = store(no_server().await, 400).await;
    store.get(&RecordId::from("1")).await.expect_err("there is no server");
    comes_to(&*store, UNAVAILABLE, 1).await;
    store.ping().await.expect_err("there is no server");
    comes_to(&*store, UNAVAILABLE, 2).await;
    store.list(ListRequest::default()).await.expect_err("there is no server");
    comes_to(&*store, UNAVAILABLE, 3).await;
    assert!(store.changes(None).next().await.expect("an item").is_err());
    comes_to(&*store, UNAVAILABLE, 4).await;
    assert_eq!(value(&*store, TIMEOUT), 0);
}

#[tokio::test]
async fn calls_count_although_their_callers_have_given_up() {
    let store = store(no_server().await, 4_000).await;
    let patience = Duration::from_millis(20);
    timeout(patience, store.get(&RecordId::from("1"))).await.expect_err("no answer yet");
    timeout(patience, store.ping()).await.expect_err("no answer yet");
    comes_to(&*store, UNAVAILABLE, 2).await;
}

#[tokio::test]
async fn calls_that_run_out_of_time_are_time_outs() {
    // The kernel accepts connections, and no server answers them.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = silent.local_addr().expect("an address");
    let patient = "serverSelectionTimeoutMS=60000&connectTimeoutMS=60000";
    let store = store(format!("mongodb://{address}/?{patient}"), 100).await;
    store.get(&RecordId::from("1")).await.expect_err("no answer");
    assert_eq!(value(&*store, TIMEOUT), 1);
    store.ping().await.expect_err("no answer");
    assert_eq!(value(&*store, TIMEOUT), 2);
    store.list(ListRequest::default()).await.expect_err("no answer");
    assert_eq!(value(&*store, TIMEOUT), 3);
    assert_eq!(value(&*store, UNAVAILABLE), 0);
}

#[tokio::test]
async fn a_list_that_was_dropped_is_no_broken_call() {
    let store = store(no_server().await, 400).await;
    let mut list = store.list(ListRequest::default());
    assert!(futures::poll!(&mut list).is_pending());
    drop(list);
    // Once a later list has failed, the dropped one would have failed too.
    store.list(ListRequest::default()).await.expect_err("there is no server");
    assert_eq!(value(&*store, "store_failures{broken}"), 0);
}
