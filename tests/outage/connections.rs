//! Connections and cursors that end.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::try_join_all;
use records::query::{Cursor, Position};
use records::record::Key;
use records::store::{ListRequest, MetricValue, Store};

use crate::servers::mongod::Mongod;
use crate::{RECOVERY, numbered, open, request};

fn gauge(store: &dyn Store, name: &str) -> u64 {
    let metric = store.metrics().into_iter().find(|metric| metric.name == name).expect("the metric");
    match metric.value {
        MetricValue::Gauge(value) => value as u64,
        other => panic!("{name} is {other:?}"),
    }
}

pub async fn the_connections_to_a_killed_server_are_counted_as_closed() {
    let mut server = Mongod::start().expect("a server");
    let store = open(&server.url()).await;
    try_join_all((0..20).map(|_| store.ping())).await.expect("pings");
    assert!(gauge(&*store, "store_connections_open") > 0);
    server.kill();
    store.ping().await.expect_err("there is no server");
    // The driver notices by a connection that breaks, and clears the pool.
    let begin = Instant::now();
    for name in ["store_connections_open", "store_connections_in_use"] {
        while gauge(&*store, name) > 0 {
            assert!(begin.elapsed() < RECOVERY, "{name} is {}", gauge(&*store, name));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub async fn a_list_that_is_dropped_leaves_no_cursor_on_the_secondary_that_has_it() {
    let set = Mongod::start_set_of(3).expect("a replica set");
    let store = open(&format!("{}&w=3&readPreference=secondary", set[0].url())).await;
    // More than a list reads ahead.
    for batch in 0..40 {
        store.upsert(numbered(batch * 1_000..(batch + 1) * 1_000)).await.expect("an upsert");
    }
    let open_cursors = || set[1..].iter().map(|server| server.metric(&["cursor", "open", "total"])).sum::<i64>();
    // Replication between the members uses cursors too, which are subtracted.
    let before = open_cursors();
    let after = Some(Cursor { position: Position::of_key(&Key::int64(0)), no_arrays: false });
    let after = ListRequest { after, ..ListRequest::default() };
    let mut lists = Vec::new();
    for request in [after, ListRequest { limit: None, ..request("_id.gte", "1") }].iter().cycle().take(10) {
        let mut list = store.list(request.clone()).await.expect("a list");
        list.rows.next().await.expect("a row").expect("a record");
        lists.push(list);
    }
    assert!(open_cursors() > before, "the lists have no cursors");
    drop(lists);
    let begin = Instant::now();
    while open_cursors() > before {
        assert!(begin.elapsed() < RECOVERY, "{} cursors are left", open_cursors() - before);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
