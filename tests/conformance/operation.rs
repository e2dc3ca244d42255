//! The operator's side of the contract: pings, metrics, staleness, time-outs, and the source of a replica.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use records::record::Document;
use records::store::{
    Change, ChangeStreamError, Freshness, ListRequest, MetricValue, NOT_BEFORE, Options, Refusal, Store,
};

use crate::harness::{Context, cases, document, get, list, numbered, request, upsert, upsert_texts};
use crate::servers::mongod;

cases! {
    Any by context {
        ping_and_health_are_ok,
        metrics_have_their_prefix_and_counters_do_not_fall,
        an_answer_is_stale_if_and_only_if_a_replica_gave_it,
        a_cluster_time_is_reached_or_the_store_says_that_it_has_none,
        a_snapshot_has_every_document,
        changes_are_unsupported_or_show_every_write_and_resume,
    }
    Remote by context {
        a_server_that_is_away_is_unavailable_in_time,
    }
}

async fn ping_and_health_are_ok(context: &Context) {
    let store = context.fresh().await.into_store();
    store.ping().await.expect("empty");
    store.health().await.expect("empty");
    upsert(&*store, numbered(0..3)).await;
    store.ping().await.expect("not empty");
    let health = store.health().await.expect("not empty");
    assert!(health.degraded.is_none() || context.has_replica(), "{health:?}");
}

fn counters(store: &dyn Store) -> Vec<(&'static str, &'static str, u64)> {
    let mut counters = Vec::new();
    for metric in store.metrics() {
        let name = metric.name;
        let has_prefix = ["store_", "fallback_", "circuit_breaker_"].iter().any(|prefix| name.starts_with(prefix));
        assert!(has_prefix && !name.ends_with("_total"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{name}");
        assert!(!metric.help.is_empty() && matches!(metric.unit, None | Some("seconds" | "bytes")), "{name}");
        match metric.value {
            MetricValue::Counter(value) => counters.push((name, "", value)),
            MetricValue::Counters { values, .. } => {
                counters.extend(values.into_iter().map(|(label, value)| (name, label, value)));
            }
            MetricValue::Histogram(histogram) => {
                assert_eq!(histogram.buckets().map(|(_, count)| count).sum::<u64>(), histogram.count(), "{name}");
                counters.push((name, "", histogram.count()));
            }
            MetricValue::Gauge(_) | MetricValue::Gauges { .. } => {}
        }
    }
    counters
}

async fn a_cluster_time_is_reached_or_the_store_says_that_it_has_none(context: &Context) {
    let store = context.fresh().await.into_store();
    upsert(&*store, numbered(0..3)).await;
    let freshness = Freshness { not_before: "1.1".parse().ok(), ..Freshness::default() };
    let found = store.get_fresh(&"1".into(), &freshness).await.map(|found| (found.document, found.as_of));
    for sort in ["", "a"] {
        let sort: &[_] = if sort.is_empty() { &[("limit", "5")] } else { &[("sort", sort), ("limit", "5")] };
        let list = store.list(ListRequest { freshness, ..request(sort) }).await;
        match (&found, list) {
            (Ok((document, as_of)), Ok(list)) => {
                assert!(document.is_some() && *as_of >= freshness.not_before, "{document:?} {as_of:?}");
                assert!(list.as_of >= freshness.not_before, "{:?}", list.as_of);
                assert_eq!(list.rows.count().await, 3);
            }
            (Err(found), Err(list)) => {
                for error in [found, &list] {
                    // A primary that is away does not say what it has.
                    let is_refused = context.has_replica() && error.refusal() == Some(Refusal::TooStale);
                    let is_rejected = error.rejection().is_some_and(|(parameter, _)| parameter == NOT_BEFORE);
                    assert!(is_refused || is_rejected, "{error:?}");
                }
            }
            (found, list) => panic!("{found:?}, {list:?}"),
        }
    }
    // The other bounds are met by a store that is never stale.
    let zero = Some(Duration::ZERO);
    let freshness = Freshness { max_staleness: zero, max_staleness_on_error: zero, ..Freshness::default() };
    match store.get_fresh(&"1".into(), &freshness).await {
        Ok(found) => assert!(found.document.is_some() && found.staleness.is_none(), "{found:?}"),
        // Its primary does not answer.
        Err(error) => assert!(context.has_replica() && error.refusal() == Some(Refusal::TooStale), "{error:?}"),
    }
}

async fn metrics_have_their_prefix_and_counters_do_not_fall(context: &Context) {
    let store = context.fresh().await.into_store();
    let before = counters(&*store);
    upsert(&*store, numbered(0..10)).await;
    for id in 0..10 {
        assert!(get(&*store, &id.to_string()).await.is_some());
    }
    let after = counters(&*store);
    for (name, label, value) in before {
        let now = after.iter().find(|(other, other_label, _)| (*other, *other_label) == (name, label));
        assert!(now.is_some_and(|(_, _, now)| *now >= value), "{name} {label}");
    }
}

async fn an_answer_is_stale_if_and_only_if_a_replica_gave_it(context: &Context) {
    let store = context.fresh().await.into_store();
    upsert(&*store, numbered(0..3)).await;
    for id in ["1", "9"] {
        let result = store.get(&id.into()).await.expect("a lookup");
        assert_eq!(result.staleness.is_some(), context.has_replica());
        assert!(!result.is_ambiguous);
        if let Some(result) = store.try_get(&id.into()) {
            assert_eq!(result.expect("a lookup").staleness.is_some(), context.has_replica());
        }
    }
    let list = store.list(ListRequest::default()).await.expect("a list");
    assert_eq!(list.staleness.is_some(), context.has_replica());
}

async fn a_snapshot_has_every_document(context: &Context) {
    let store = context.fresh().await.into_store();
    let snapshot = async || -> Vec<Document> {
        let rows = store.snapshot(None).await.expect("a snapshot").rows;
        let mut documents: Vec<_> = rows.map_ok(|row| row.document).try_collect().await.expect("a snapshot");
        documents.sort_by(|a, b| a.key().cmp(b.key()));
        documents
    };
    assert_eq!(snapshot().await, []);
    let mut documents = numbered(0..3_000);
    documents.push(document(r#"{"_id":{"a":[1]},"b":{"$undefined":true}}"#));
    documents.push(document(r#"{"_id":"a"}"#));
    upsert(&*store, documents).await;
    assert_eq!(snapshot().await, list(&*store, None).await);
}

async fn changes_are_unsupported_or_show_every_write_and_resume(context: &Context) {
    let store = context.fresh().await.into_store();
    upsert_texts(&*store, &[r#"{"_id":0}"#]).await;
    let mut changes = store.changes(None);
    match changes.next().await {
        Some(Err(ChangeStreamError::Unsupported(_))) => {
            assert!(changes.next().await.is_none(), "the stream continues after its first error");
            return;
        }
        Some(Ok(first)) => assert!(first.changes.is_empty(), "{first:?}"),
        other => panic!("{other:?}"),
    }
    let mut token = None;
    for n in 1..6 {
        let written = document(&format!(r#"{{"_id":{n}}}"#));
        upsert(&*store, vec![written.clone()]).await;
        // The open stream and a resumed one both return the write.
        let mut streams = vec![&mut changes];
        let mut resumed = token.take().map(|token| store.changes(Some(token)));
        streams.extend(&mut resumed);
        for stream in streams {
            let batch = loop {
                let batch = stream.next().await.expect("an open stream").expect("changes");
                if !batch.changes.is_empty() {
                    break batch;
                }
            };
            assert_eq!(batch.changes, [Change::Put(written.clone())]);
            token = batch.token;
        }
    }
}

async fn a_server_that_is_away_is_unavailable_in_time(context: &Context) {
    let port = mongod::free_port().expect("a port");
    let timeout = Duration::from_secs(1);
    let options = Options { timeout, ..Options::default() };
    let url = format!("{}://127.0.0.1:{port}/records", context.backend().name);
    let store = records::store::open(&url, options).await.expect("a store opens without its server").into_store();
    let begin = Instant::now();
    let id = "1".into();
    let (get, list, snapshot) = tokio::join!(store.get(&id), store.list(ListRequest::default()), store.snapshot(None));
    let (upsert, ping, health) = tokio::join!(store.upsert(numbered(0..1)), store.ping(), store.health());
    let errors = [get.err(), list.err(), snapshot.err(), upsert.err(), ping.err(), health.err()];
    for (index, error) in errors.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("{index}: without a server nothing is known"));
        assert!(error.is_unavailable() && error.rejection().is_none(), "{index}: {}", error.report());
    }
    // The calls take two time-outs; the rest is for a busy machine.
    assert!(begin.elapsed() < timeout * 60, "{:?}", begin.elapsed());
}
