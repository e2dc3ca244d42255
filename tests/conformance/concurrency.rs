//! Concurrent and cancelled calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{FutureExt, join_all};
use records::record::Key;
use records::store::{ListRequest, Store};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::harness::{cases, document, get, get_json, list_keys, numbered, request, rows, upsert};

cases! {
    Any by store {
        a_thousand_gets_at_once_all_find,
        gets_that_are_dropped_half_way_leave_others_alone,
        an_upsert_that_is_dropped_half_way_happens_or_not,
        many_tasks_may_upsert_at_once,
        many_tasks_may_upsert_the_same_new_key_at_once,
        a_record_is_read_whole_while_it_is_replaced,
        a_record_that_is_there_all_the_while_is_listed_exactly_once,
        a_record_that_moves_in_the_order_is_listed_at_most_once,
    }
}

async fn a_thousand_gets_at_once_all_find(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..100)).await;
    let gets = (0..1_000).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { (n, get(&*store, &n.to_string()).await) })
    });
    for done in join_all(gets).await {
        let (n, found) = done.expect("a get");
        assert_eq!(found.is_some(), n < 100, "{n}");
    }
}

async fn gets_that_are_dropped_half_way_leave_others_alone(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..10)).await;
    for n in 0..500 {
        // The call is polled once, then dropped.
        let id = (n % 20).to_string().as_str().into();
        drop(store.get(&id).now_or_never());
    }
    assert!(get(&*store, "9").await.is_some());
    assert!(get(&*store, "10").await.is_none());
}

async fn an_upsert_that_is_dropped_half_way_happens_or_not(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..10)).await;
    for n in 0..50 {
        drop(store.upsert(vec![document(&format!(r#"{{"_id":{n},"n":{n}}}"#))]).now_or_never());
    }
    for n in 0..50 {
        let (old, new) = (format!(r#"{{"_id":{n}}}"#), format!(r#"{{"_id":{n},"n":{n}}}"#));
        match get_json(&*store, &n.to_string()).await {
            None => assert!(n >= 10, "{n} is gone"),
            Some(json) => assert!(json == new || (json == old && n < 10), "{n} is {json}"),
        }
    }
    upsert(&*store, numbered(0..50)).await;
    assert!(get(&*store, "49").await.is_some());
}

async fn many_tasks_may_upsert_at_once(store: Arc<dyn Store>) {
    let upserts = (0..40).map(|task| {
        let store = store.clone();
        tokio::spawn(async move { upsert(&*store, numbered(task * 50..(task + 1) * 50)).await })
    });
    for done in join_all(upserts).await {
        done.expect("an upsert");
    }
    assert_eq!(list_keys(&*store, None).await, (0..2_000).map(Key::int64).collect::<Vec<_>>());
}

/// No call may fail because another one was first.
async fn many_tasks_may_upsert_the_same_new_key_at_once(store: Arc<dyn Store>) {
    for round in 0..20 {
        let upserts = (0..20).map(|task| {
            let store = store.clone();
            // Some tasks use another type of number, which is the same key.
            let zero = if task % 4 == 0 { ".0" } else { "" };
            let one = document(&format!(r#"{{"_id":{round}{zero},"task":{task}}}"#));
            let two = document(&format!(r#"{{"_id":"round {round}","task":{task}}}"#));
            tokio::spawn(async move { store.upsert(vec![one, two]).await })
        });
        for done in join_all(upserts).await {
            done.expect("a task").unwrap_or_else(|error| panic!("round {round}: {}", error.report()));
        }
    }
    assert_eq!(list_keys(&*store, None).await.len(), 40);
}

async fn a_record_is_read_whole_while_it_is_replaced(store: Arc<dyn Store>) {
    let versions: Vec<_> = ["a", "b"]
        .iter()
        .map(|letter| document(&format!(r#"{{"_id":1,"first":"{letter}","text":"{}"}}"#, letter.repeat(5_000))))
        .collect();
    let whole = versions.clone();
    upsert(&*store, versions[..1].to_vec()).await;
    let reads = Arc::new(AtomicUsize::new(0));
    let writer = tokio::spawn({
        let (store, reads) = (store.clone(), reads.clone());
        async move {
            for n in 0.. {
                if n >= 100 && reads.load(Ordering::Relaxed) > 0 {
                    break;
                }
                upsert(&*store, vec![versions[n % 2].clone()]).await;
                let_others_run().await;
            }
        }
    });
    while !writer.is_finished() {
        let read = get(&*store, "1").await.expect("it is there all the while");
        assert!(whole.contains(&read), "half of a record was read");
        // A fallback waits for its replica after each write.
        if reads.fetch_add(1, Ordering::Relaxed) > 1_000 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    writer.await.expect("the writer");
}

/// Calls `list` at least `times` times, and until `writer` has written meanwhile. `written` is the number of its writes.
async fn list_while_written(writer: &JoinHandle<()>, written: &AtomicUsize, times: usize, list: impl AsyncFn()) {
    while written.load(Ordering::Relaxed) == 0 && !writer.is_finished() {
        sleep(Duration::from_millis(1)).await;
    }
    let (mut lists, before) = (0, written.load(Ordering::Relaxed));
    while (lists < times || written.load(Ordering::Relaxed) == before) && !writer.is_finished() {
        list().await;
        lists += 1;
    }
}

const EVEN: i64 = 3_000;

/// Yields: a store in memory never waits, and two writers of it would keep every thread of the runtime from its timers.
async fn let_others_run() {
    tokio::task::yield_now().await;
}

/// Writes documents between those with an even `_id`, and replaces the latter by larger ones, until `ended`.
async fn write_between(store: Arc<dyn Store>, written: Arc<AtomicUsize>, ended: Arc<AtomicBool>) {
    for n in (0..EVEN).cycle().step_by(7) {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let between = document(&format!(r#"{{"_id":{}}}"#, n * 2 + 1));
        let again = document(&format!(r#"{{"_id":{},"text":"{}"}}"#, n * 2, "x".repeat(500)));
        upsert(&*store, vec![between, again]).await;
        written.fetch_add(1, Ordering::Relaxed);
        let_others_run().await;
    }
}

async fn a_record_that_is_there_all_the_while_is_listed_exactly_once(store: Arc<dyn Store>) {
    upsert(&*store, numbered((0..EVEN).map(|n| n * 2))).await;
    let (written, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn(write_between(store.clone(), written.clone(), ended.clone()));
    list_while_written(&writer, &written, 3, async || {
        let mut seen = HashMap::new();
        let list = store.list(ListRequest::default()).await.expect("a list");
        let mut chunks = list.rows.chunks(500);
        while let Some(chunk) = chunks.next().await {
            for row in chunk {
                *seen.entry(row.expect("a list").document.key().clone()).or_insert(0) += 1;
            }
            tokio::task::yield_now().await;
        }
        assert!(seen.values().all(|times| *times == 1), "a record was listed twice");
        assert!((0..EVEN).all(|n| seen.contains_key(&Key::int64(n * 2))), "a record was left out");
    })
    .await;
    ended.store(true, Ordering::Relaxed);
    writer.await.expect("the writer");
    assert!(list_keys(&*store, None).await.is_sorted());
}

async fn a_record_that_moves_in_the_order_is_listed_at_most_once(store: Arc<dyn Store>) {
    const COUNT: i64 = 1_000;
    let moved = |n: i64, round: i64| document(&format!(r#"{{"_id":{n},"n":{}}}"#, (n * 37 + round * 501) % COUNT));
    upsert(&*store, (0..COUNT).map(|n| moved(n, 0)).collect()).await;
    let (written, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn({
        let (store, written, ended) = (store.clone(), written.clone(), ended.clone());
        async move {
            // Documents with an odd `_id` move, the others stay.
            for round in 1.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                upsert(&*store, (0..COUNT).filter(|n| n % 2 == 1).map(|n| moved(n, round)).collect()).await;
                written.fetch_add(1, Ordering::Relaxed);
                let_others_run().await;
            }
        }
    });
    list_while_written(&writer, &written, 5, async || {
        let listed = rows(&*store, ListRequest { limit: Some(10_000), ..request(&[("sort", "n")]) }).await;
        let mut times = HashMap::new();
        listed.iter().for_each(|row| *times.entry(row.document.key().clone()).or_insert(0) += 1);
        assert!(times.values().all(|times| *times == 1), "a record was listed twice");
        assert!((0..COUNT).step_by(2).all(|n| times.contains_key(&Key::int64(n))), "a record was left out");
        assert!(listed.is_sorted_by_key(|row| row.position()));
    })
    .await;
    ended.store(true, Ordering::Relaxed);
    writer.await.expect("the writer");
}
