//! What the driver tells of its pool, beside a server.

use std::time::{Duration, Instant};

use prometheus_client::encoding::text;

use super::super::*;
use super::servers::{mongod, url};

/// The value of a series.
pub fn value(registry: &Registry, series: &str) -> i64 {
    let mut text = String::new();
    text::encode(&mut text, registry).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    line.unwrap_or_else(|| panic!("{series} is not there: {text}"))
}

pub async fn comes_to(registry: &Registry, series: &str, wanted: i64) {
    let begin = Instant::now();
    while value(registry, series) != wanted {
        assert!(begin.elapsed() < Duration::from_secs(10), "{series} is {}, not {wanted}", value(registry, series));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn the_pools_connections_are_counted_while_they_are_there() {
    let database = format!("connections_{}", std::process::id());
    let server = mongod::program().map(|_| mongod::Mongod::start().expect("a server"));
    let url = server.as_ref().map_or_else(
        || url("mongodb", &database).expect("TEST_MONGODB_URL"),
        |server| format!("{}/{database}", server.url()),
    );
    let store = open(url, Options::default()).await.expect("a store");
    let mut registry = Registry::default();
    store.register(&mut registry);
    assert_eq!((value(&registry, "store_connections_open"), value(&registry, "store_connections_in_use")), (0, 0));

    futures::future::try_join_all((0..20).map(|_| store.ping())).await.expect("pings");
    let opened = value(&registry, "store_connections_open");
    assert!((1..=10).contains(&opened), "{opened}");
    comes_to(&registry, "store_connections_in_use", 0).await;
    assert_eq!(value(&registry, "store_connection_failures_total"), 0);

    if let Some(server) = server {
        drop(server);
        store.ping().await.expect_err("nobody is there");
        // The driver hears of the end by a connection that breaks, and clears the pool.
        comes_to(&registry, "store_connections_open", 0).await;
        comes_to(&registry, "store_connections_in_use", 0).await;
    }
}
