//! The counts of the driver's pool, compared with a server.

use std::time::{Duration, Instant};

use super::super::*;
use super::servers::{unused_name, url};
use crate::store::MetricValue;

/// Returns the value of a counter or a gauge: `name`, or `name{label}`.
pub fn value(store: &dyn Store, series: &str) -> u64 {
    let (name, label) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
    let metric = store.metrics().into_iter().find(|metric| metric.name == name).expect("the metric");
    match metric.value {
        MetricValue::Counter(count) => count,
        MetricValue::Gauge(value) => value as u64,
        MetricValue::Counters { values, .. } => values.iter().find(|(value, _)| *value == label).expect("the label").1,
        other => panic!("{series} is {other:?}"),
    }
}

pub async fn comes_to(store: &dyn Store, series: &str, expected: u64) {
    let begin = Instant::now();
    while value(store, series) != expected {
        assert!(begin.elapsed() < Duration::from_secs(60), "{series} is {}, not {expected}", value(store, series));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn the_connections_of_the_pool_are_counted_while_they_exist() {
    let database = unused_name("connections");
    let store =
        open(url("mongodb", &database).expect("a server"), Options::default()).await.expect("a store").into_store();
    assert_eq!((value(&*store, "store_connections_open"), value(&*store, "store_connections_in_use")), (0, 0));

    futures::future::try_join_all((0..20).map(|_| store.ping())).await.expect("pings");
    let opened = value(&*store, "store_connections_open");
    assert!((1..=10).contains(&opened), "{opened}");
    comes_to(&*store, "store_connections_in_use", 0).await;
    assert_eq!(value(&*store, "store_connection_failures"), 0);
}
