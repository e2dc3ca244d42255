//! What is counted of a MongoDB that does not answer.

use std::time::Duration;

use futures::StreamExt;
use tokio::net::TcpListener;

use super::super::*;
use super::connections::{comes_to, value};
use crate::record::RecordId;

fn series(reason: &str) -> String {
    format!("store_failures_total{{reason=\"{reason}\"}}")
}

async fn store(url: String, timeout: u64) -> (Arc<dyn Store>, Registry) {
    let options = Options { timeout: Duration::from_millis(timeout), ..Options::default() };
    let store = open(url, options).await.expect("a store");
    let mut registry = Registry::default();
    store.register(&mut registry);
    for reason in ["unavailable", "timeout", "invalid", "broken"] {
        assert_eq!(value(&registry, &series(reason)), 0);
    }
    (store, registry)
}

/// An address where nobody is.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    format!("mongodb://{}", listener.local_addr().expect("an address"))
}

#[tokio::test]
async fn calls_fail_as_unavailable_where_no_server_is_found() {
    let (store, registry) = store(nobody().await, 400).await;
    let unavailable = series("unavailable");
    store.get(&RecordId::from("1")).await.expect_err("nobody is there");
    comes_to(&registry, &unavailable, 1).await;
    store.ping().await.expect_err("nobody is there");
    comes_to(&registry, &unavailable, 2).await;
    store.list(Query::all()).next().await.expect("an item").expect_err("nobody is there");
    comes_to(&registry, &unavailable, 3).await;
    assert!(store.changes(None).next().await.expect("an item").is_err());
    comes_to(&registry, &unavailable, 4).await;
    assert_eq!(value(&registry, &series("timeout")), 0);
}

#[tokio::test]
async fn they_count_although_nobody_waits_any_more() {
    let (store, registry) = store(nobody().await, 400).await;
    let patience = Duration::from_millis(20);
    tokio::time::timeout(patience, store.get(&RecordId::from("1"))).await.expect_err("no answer yet");
    tokio::time::timeout(patience, store.ping()).await.expect_err("no answer yet");
    comes_to(&registry, &series("unavailable"), 2).await;
}

#[tokio::test]
async fn what_takes_too_long_is_a_timeout() {
    // Takes connections, by the system's queue, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = silent.local_addr().expect("an address");
    let patient = "serverSelectionTimeoutMS=60000&connectTimeoutMS=60000";
    let (store, registry) = store(format!("mongodb://{address}/?{patient}"), 100).await;
    let timeout = series("timeout");
    store.get(&RecordId::from("1")).await.expect_err("no answer");
    assert_eq!(value(&registry, &timeout), 1);
    store.ping().await.expect_err("no answer");
    assert_eq!(value(&registry, &timeout), 2);
    store.list(Query::all()).next().await.expect("an item").expect_err("no answer");
    assert_eq!(value(&registry, &timeout), 3);
    assert_eq!(value(&registry, &series("unavailable")), 0);
}

#[tokio::test]
async fn a_list_that_nobody_reads_any_more_is_no_failure() {
    let (store, registry) = store(nobody().await, 400).await;
    let mut list = store.list(Query::all());
    assert!(futures::poll!(list.next()).is_pending());
    drop(list);
    // As long as the reader may wait for its turn, and for a server.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(value(&registry, &series("broken")), 0);
}
