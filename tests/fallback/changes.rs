//! Replication of the changes in MongoDB to the replica.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use records::store::fallback::Mode;
use records::store::{Change, ChangeBatch, ChangeStreamError, ListRequest, ResumeToken, Store};

use crate::cases;
use crate::servers::mongod::{Mongod, document, element, text};
use crate::support::*;

cases! {
    a_server_alone_has_no_changes_and_is_copied_again_and_again,
    puts_updates_and_deletes_arrive,
    a_change_is_visible_soon,
    what_no_majority_has_yet_when_the_copy_begins_is_not_lost,
    a_snapshot_takes_few_round_trips,
    the_copy_grows_older_while_no_majority_has_what_the_primary_has,
    a_snapshot_has_every_write_that_came_before_it,
    a_write_that_failed_leaves_the_copy_as_young_as_it_was,
    a_copy_of_a_busy_set_stays_young,
    an_idle_feed_proves_again_and_again_that_the_copy_is_current,
    a_feed_goes_on_from_its_token_with_the_last_state_of_each_record,
    a_token_that_means_nothing_is_lost,
    a_user_who_may_only_read_is_told_no_changes_from_a_token_either,
    a_collection_that_is_dropped_leaves_an_empty_copy,
    a_busy_collection_never_goes_back_and_ends_the_same,
    a_set_with_a_key_file_has_a_replica_within_seconds_of_its_start,
    another_kind_of_collection_that_takes_the_name_is_noticed,
    a_collection_that_takes_the_name_by_a_rename_is_noticed,
    an_event_that_is_larger_than_a_reply_costs_no_scan,
}

async fn a_server_alone_has_no_changes_and_is_copied_again_and_again() {
    let server = filled().await;
    let primary = open(&server.url()).await;
    let first = primary.changes(None).next().await;
    assert!(matches!(first, Some(Err(ChangeStreamError::Unsupported(_)))), "{first:?}");
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    let written = Instant::now();
    // A snapshot may come between the two writes: one without the record 7 has both.
    set_n(&server, 8, 88);
    delete(&server, 7);
    until("the deletion", async || get(&*store, "7").await.document.is_none()).await;
    let found = get(&*store, "8").await;
    assert!(json(&found).contains(r#""n":88"#), "{}", json(&found));
    assert!(found.staleness.is_some_and(|age| age < written.elapsed()), "older than what it has: {found:?}");
}

async fn puts_updates_and_deletes_arrive() {
    let server = filled_set().await;
    let begun = Instant::now();
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    assert_eq!(count(&*store).await, 100);
    store.upsert(vec![parsed(r#"{"_id":"new"}"#)]).await.expect("an upsert");
    until("a new record", async || get(&*store, "new").await.document.is_some()).await;
    set_n(&server, 8, 1);
    set_n(&server, 8, 2);
    until("an update", async || json(&get(&*store, "8").await).contains(r#""n":2"#)).await;
    delete(&server, 7);
    until("a deletion", async || get(&*store, "7").await.document.is_none()).await;
    store.upsert(vec![parsed(r#"{"_id":7,"again":true}"#)]).await.expect("an upsert");
    until("a record put again", async || get(&*store, "7").await.document.is_some()).await;
    assert_eq!(count(&*store).await, 101);
    let list = store.list(ListRequest::default()).await.expect("a list");
    let age = list.staleness;
    assert_eq!(list.rows.count().await, 101);
    assert!(age.is_some_and(|age| age < begun.elapsed()), "older than itself: {age:?}");
}

async fn a_change_is_visible_soon() {
    let server = filled_set().await;
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    let mut times = Vec::new();
    for n in 0..50 {
        set_n(&server, 1, n);
        let written = Instant::now();
        let wanted = format!(r#""n":{n}}}"#);
        until("an update", async || json(&get(&*store, "1").await).contains(&wanted)).await;
        times.push(written.elapsed());
    }
    times.sort();
    let median = times[times.len() / 2];
    eprintln!("a change is visible after {median:?} (median), {:?} (most)", times[times.len() - 1]);
    assert!(median < Duration::from_millis(100) || !times_are_asked_for(), "{times:?}");
}

async fn what_no_majority_has_yet_when_the_copy_begins_is_not_lost() {
    let set = Mongod::start_set_of(3).expect("a replica set");
    let url = set[0].url();
    let primary = open(&format!("{url}&w=majority")).await;
    until("a majority", async || primary.upsert(numbered(0..50)).await.is_ok()).await;
    set[1..].iter().for_each(Mongod::pause);
    // These writes precede the change stream, and a majority does not have them yet, so a majority snapshot lacks them.
    open(&format!("{url}&w=1")).await.upsert(numbered(50..100)).await.expect("an upsert");
    let streams = || set[0].metric(&["commands", "aggregate", "total"]);
    let before = streams();
    let store = over(&url, settings(Mode::Replica)).await;
    until("a change stream", async || streams() > before).await;
    // The snapshot begins right after the stream.
    tokio::time::sleep(Duration::from_secs(1)).await;
    set[1..].iter().for_each(Mongod::resume);
    ready(&*store).await;
    assert_eq!(count(&*store).await, 100);
}

async fn the_copy_grows_older_while_no_majority_has_what_the_primary_has() {
    let set = Mongod::start_set_of(3).expect("a replica set");
    let url = set[0].url();
    let primary = open(&format!("{url}&w=majority")).await;
    until("a majority", async || primary.upsert(numbered(0..50)).await.is_ok()).await;
    let store = over(&url, settings(Mode::Replica)).await;
    ready(&*store).await;
    is_renewed(&*store).await;
    let paused = Instant::now();
    set[1..].iter().for_each(Mongod::pause);
    open(&format!("{url}&w=1")).await.upsert(vec![parsed(r#"{"_id":"new"}"#)]).await.expect("an upsert");
    let written = Instant::now();
    // The primary steps down 10 s after the pause, and its write may then be lost.
    loop {
        let since = written.elapsed();
        let found = get(&*store, "new").await;
        assert!(found.document.is_none(), "the replica has a write that no majority has");
        assert!(
            found.staleness.is_some_and(|age| age + Duration::from_millis(5) >= since),
            "{found:?} after {since:?}"
        );
        if written.elapsed() > Duration::from_secs(4) || paused.elapsed() > Duration::from_secs(8) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    set[1..].iter().for_each(Mongod::resume);
    until("the record", async || get(&*store, "new").await.document.is_some()).await;
    is_renewed(&*store).await;
}

async fn a_snapshot_has_every_write_that_came_before_it() {
    let set = Mongod::start_set_of(3).expect("a replica set");
    let url = set[0].url();
    let primary = open(&format!("{url}&w=majority")).await;
    until("a majority", async || primary.upsert(numbered(0..50)).await.is_ok()).await;
    set[1..].iter().for_each(Mongod::pause);
    open(&format!("{url}&w=1")).await.upsert(vec![parsed(r#"{"_id":"new"}"#)]).await.expect("an upsert");
    let rows = async { primary.snapshot(None).await?.rows.try_collect::<Vec<_>>().await };
    // A snapshot begins with the identity of the collection.
    let begun = || set[0].metric(&["commands", "listCollections", "total"]);
    let before = begun();
    let resumed = async {
        until("a snapshot", async || begun() > before).await;
        // Its read follows at once.
        tokio::time::sleep(Duration::from_millis(500)).await;
        set[1..].iter().for_each(Mongod::resume);
    };
    // A majority without the write would be 50 records.
    assert_eq!(tokio::join!(rows, resumed).0.expect("rows").len(), 51);
}

async fn a_snapshot_takes_few_round_trips() {
    let server = filled_set().await;
    open(&server.url()).await.upsert(numbered(0..30_000)).await.expect("an upsert");
    let commands = || {
        let total = |name| server.metric(&["commands", name, "total"]);
        total("find") + total("getMore")
    };
    let store = open(&server.url()).await;
    let before = commands();
    let snapshot = store.snapshot(None).await.expect("a snapshot");
    assert_eq!(snapshot.rows.try_collect::<Vec<_>>().await.expect("rows").len(), 30_000);
    let taken = commands() - before;
    assert!(taken < 5, "{taken} commands");
}

/// Checks that the staleness of the replica falls repeatedly, which only new proofs of currency can cause.
async fn is_renewed(store: &dyn records::store::Store) {
    let (mut last, mut most, mut times) = (Duration::ZERO, Duration::ZERO, 0);
    until("a copy that is renewed ten times", async || {
        let age = get(store, "1").await.staleness.expect("an age");
        times += u32::from(age < last);
        // Before the first proof, the replica is as old as the change that it has just received.
        if times > 0 {
            most = most.max(age);
        }
        last = age;
        times == 10
    })
    .await;
    eprintln!("a copy that is well is at most {most:?} old");
    assert!(most < Duration::from_secs(1) || !times_are_asked_for(), "{most:?}");
}

async fn a_write_that_failed_leaves_the_copy_as_young_as_it_was() {
    let server = filled_set().await;
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    // The failed write has advanced the server's time without a change.
    insert_again(&server, 1);
    is_renewed(&*store).await;
}

async fn a_copy_of_a_busy_set_stays_young() {
    let set = Mongod::start_set_of(3).expect("a replica set");
    let url = set[0].url();
    let primary = open(&format!("{url}&w=majority")).await;
    until("a majority", async || primary.upsert(numbered(0..50)).await.is_ok()).await;
    let store = over(&url, settings(Mode::Replica)).await;
    ready(&*store).await;
    let (written, enough) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::task::spawn_blocking({
        let (written, enough) = (written.clone(), enough.clone());
        move || {
            // Keeps writing, so that there is always a write that no majority has yet.
            while !enough.load(Ordering::Relaxed) {
                set_n(&set[0], 2, written.fetch_add(1, Ordering::Relaxed) as i32);
            }
        }
    });
    until("a busy set", async || written.load(Ordering::Relaxed) > 100).await;
    let before = written.load(Ordering::Relaxed);
    is_renewed(&*store).await;
    assert!(written.load(Ordering::Relaxed) > before, "there were no writes meanwhile");
    enough.store(true, Ordering::Relaxed);
    writer.await.expect("a writer");
}

async fn an_idle_feed_proves_again_and_again_that_the_copy_is_current() {
    let server = filled_set().await;
    let primary = open(&server.url()).await;
    let mut feed = primary.changes(None);
    let mut proven = Vec::new();
    let begin = tokio::time::Instant::now();
    let proofs = async {
        while proven.len() < 10 {
            let batch = feed.next().await.expect("a feed").expect("a batch");
            assert!(batch.changes.is_empty(), "{batch:?}");
            proven.extend(batch.current);
        }
    };
    tokio::time::timeout(PATIENCE, proofs).await.expect("ten proofs");
    assert!(proven.is_sorted() && proven[0] < proven[9], "a single proof, repeated ten times: {proven:?}");
    assert!(proven[9] > begin, "the proof is older than the stream: {proven:?}");
}

/// Reads all changes until the stream is current as of now.
async fn caught_up(feed: &mut records::store::ChangeStream) -> (Vec<Change>, Option<ResumeToken>) {
    let (now, mut changes, mut token) = (tokio::time::Instant::now(), Vec::new(), None);
    loop {
        let batch: ChangeBatch = feed.next().await.expect("a feed").expect("a batch");
        changes.extend(batch.changes);
        token = batch.token.or(token);
        if batch.current.is_some_and(|current| current >= now) {
            return (changes, token);
        }
    }
}

async fn a_feed_goes_on_from_its_token_with_the_last_state_of_each_record() {
    let server = filled_set().await;
    let primary = open(&server.url()).await;
    let mut feed = primary.changes(None);
    let (changes, token) = caught_up(&mut feed).await;
    assert!(changes.is_empty());
    drop(feed);
    set_n(&server, 1, 1);
    delete(&server, 1);
    primary.upsert(vec![parsed(r#"{"_id":1,"last":true}"#)]).await.expect("an upsert");
    set_n(&server, 2, 1);
    delete(&server, 2);
    let (mut changes, again) = caught_up(&mut primary.changes(token.clone())).await;
    changes.sort_by_key(|change| matches!(change, Change::Remove(_)));
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(
        matches!(&changes[0], Change::Put(document) if json_of(document) == r#"{"_id":1,"last":true}"#),
        "{changes:?}"
    );
    assert_eq!(changes[1], Change::Remove(records::record::Key::int64(2)));
    // After the last change there are no more.
    assert_ne!(again, token);
    assert!(caught_up(&mut primary.changes(again)).await.0.is_empty());
}

async fn a_token_that_means_nothing_is_lost() {
    let server = filled_set().await;
    let primary = open(&server.url()).await;
    let data = element(0x02, "_data", &text("8200"));
    let of_the_server = [element(0x03, "token", &document(&data)), element(0x0a, "uuid", &[])].concat();
    let wrong = [document(&of_the_server), document(&data), vec![5, 0, 0, 0, 0]];
    for token in wrong {
        let first = primary.changes(Some(ResumeToken(token.into()))).next().await;
        assert!(matches!(first, Some(Err(ChangeStreamError::HistoryLost(_)))), "{first:?}");
    }
}

async fn a_user_who_may_only_read_is_told_no_changes_from_a_token_either() {
    let mut server = filled().await;
    create_finder(&server);
    server.stop();
    server.ask_for_passwords(true);
    server.run().expect("a server");
    let primary = open(&format!("mongodb://reader:secret@127.0.0.1:{}/?authSource=admin", server.port())).await;
    // The user may still read the records, so snapshots work.
    assert_eq!(count(&*primary).await, 100);
    let data = element(0x02, "_data", &text("8200"));
    let token = [element(0x03, "token", &document(&data)), element(0x0a, "uuid", &[])].concat();
    for after in [None, Some(ResumeToken(document(&token).into()))] {
        let first = primary.changes(after).next().await;
        assert!(matches!(first, Some(Err(ChangeStreamError::Unsupported(_)))), "{first:?}");
    }
}

async fn a_collection_that_is_dropped_leaves_an_empty_copy() {
    let server = filled_set().await;
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    drop_collection(&server);
    until("an empty copy", async || count(&*store).await == 0).await;
    store.upsert(numbered(0..3)).await.expect("an upsert");
    until("new records", async || count(&*store).await == 3).await;
}

/// Several writers change a few records in all ways, while readers check that a number in each record never falls.
async fn a_busy_collection_never_goes_back_and_ends_the_same() {
    let server = Arc::new(filled_set().await);
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    let enough = Arc::new(AtomicBool::new(false));
    let writers = (0..4).map(|id| {
        let (server, enough) = (server.clone(), enough.clone());
        // The helpers block on their sockets.
        tokio::task::spawn_blocking(move || {
            let mut n = 0;
            while !enough.load(Ordering::Relaxed) {
                n += 1;
                set_n(&server, id, n);
            }
            n
        })
    });
    let writers: Vec<_> = writers.collect();
    // A record is deleted and inserted again; a counter in it numbers the insertions.
    let lives = tokio::spawn({
        let (store, server, enough) = (store.clone(), server.clone(), enough.clone());
        async move {
            let mut life = 0;
            while !enough.load(Ordering::Relaxed) {
                life += 1;
                store.upsert(vec![parsed(&format!(r#"{{"_id":50,"n":{life}}}"#))]).await.expect("an upsert");
                set_n(&server, 50, life);
                delete(&server, 50);
            }
            life
        }
    });
    let number = |found: &records::store::GetResult| -> Option<i64> {
        let record: serde_json::Value = serde_json::from_str(&json_of(found.document.as_ref()?)).expect("JSON");
        record.get("n")?.as_i64()
    };
    let (mut last, mut seen) = ([0; 5], 0);
    let begin = Instant::now();
    // Runs for at least 4 s and 100 changes.
    while seen < 100 || begin.elapsed() < Duration::from_secs(4) {
        assert!(begin.elapsed() < PATIENCE, "only {seen} changes were seen");
        for (at, id) in ["0", "1", "2", "3", "50"].into_iter().enumerate() {
            let found = get(&*store, id).await;
            if let Some(n) = number(&found) {
                assert!(n >= last[at], "record {id} went back from {} to {n}", last[at]);
                seen += usize::from(n > last[at]);
                last[at] = n;
            }
        }
        tokio::task::yield_now().await;
    }
    enough.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.expect("a writer"));
    }
    let lives = lives.await.expect("a writer");
    eprintln!("{written:?} updates and {lives} lives written, {seen} changes seen");
    until("the end", async || {
        let mut same = true;
        for (id, n) in written.iter().enumerate() {
            same &= number(&get(&*store, &id.to_string()).await) == Some(i64::from(*n));
        }
        same && get(&*store, "50").await.document.is_none()
    })
    .await;
}

/// For a moment after such a member has become primary, its replies carry no `operationTime`.
async fn a_set_with_a_key_file_has_a_replica_within_seconds_of_its_start() {
    let mut server = filled_set().await;
    create_user(&server);
    server.ask_for_passwords(true);
    let url = format!("mongodb://reader:secret@127.0.0.1:{}/?replicaSet=rs0&authSource=admin", server.port());
    for _ in 0..4 {
        server.stop();
        // The store is opened before the server answers.
        let store = over(&url, settings(Mode::Standby)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.run().expect("a server");
        let took = ready(&*store).await;
        assert!(took < Duration::from_secs(10) || !times_are_asked_for(), "{took:?}");
        assert_eq!(metrics_of_state(&*store), "following");
    }
}

/// A change stream on a name that does not exist stays open and silent whatever takes the name.
async fn another_kind_of_collection_that_takes_the_name_is_noticed() {
    for kind in ["view", "time series"] {
        for existed in [false, true] {
            let server = Mongod::start_replica_set().expect("a server");
            let store = over(&server.url(), settings(Mode::Replica)).await;
            if existed {
                store.upsert(numbered(0..2)).await.expect("an upsert");
                until("the records before", async || {
                    health(&*store).await.degraded.is_none() && count(&*store).await == 2
                })
                .await;
                drop_collection(&server);
            } else {
                // Readiness warns of a collection that does not exist.
                until("an empty replica", async || metrics_of_state(&*store) == "following").await;
                // The stream has proven that there is nothing.
                assert_eq!(count(&*store).await, 0);
            }
            let rows: Vec<_> = (0..4).map(|id| [integer("_id", id), element(0x09, "t", &[0; 8])].concat()).collect();
            match kind {
                "view" => {
                    insert(&server, "others", &rows);
                    create_view(&server, "others");
                }
                _ => {
                    create_time_series(&server, "t");
                    insert(&server, "records", &rows);
                }
            }
            let took = until("the rows of the other kind", async || count(&*store).await == 4).await;
            eprintln!("a {kind} was noticed after {took:?}");
            assert!(get(&*store, "3").await.staleness.is_some());
            // The rows may be read before the stream has ended.
            until("a refresh by snapshots", async || metrics_of_state(&*store) == "refreshing").await;
        }
    }
}

async fn a_collection_that_takes_the_name_by_a_rename_is_noticed() {
    let server = Mongod::start_replica_set().expect("a server");
    let store = over(&server.url(), settings(Mode::Replica)).await;
    until("an empty replica", async || metrics_of_state(&*store) == "following").await;
    insert(&server, "others", &[integer("_id", 1), integer("_id", 2)]);
    rename_to_records(&server, "others");
    until("its records", async || count(&*store).await == 2).await;
    store.upsert(numbered(5..6)).await.expect("an upsert");
    until("a change", async || count(&*store).await == 3).await;
}

/// Without the document that an update looks up, an event has the `_id` three times: in its key, and in its token as hexadecimal
/// digits.
async fn an_event_that_is_larger_than_a_reply_costs_no_scan() {
    let server = filled_set().await;
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    let stays = |store: &dyn Store| {
        let metrics = metrics(store);
        assert!(metrics.contains("fallback_replica_snapshots_total 1\n"), "{metrics}");
        assert!(metrics.contains("fallback_replica_interruptions_total 0\n"), "{metrics}");
    };
    // An update of more than half of what a reply holds, whose change the event would have as well.
    let long = |letter: &str| element(0x02, "text", &text(&letter.repeat(9_000_000)));
    for letter in ["a", "b"] {
        let change = document(&element(0x03, "$set", &document(&long(letter))));
        let update = [element(0x03, "q", &document(&integer("_id", 1))), element(0x03, "u", &change)].concat();
        sent(
            &server,
            &[
                element(0x02, "update", &text("records")),
                element(0x04, "updates", &document(&element(0x03, "0", &document(&update)))),
            ],
        );
        let begins = format!(r#""text":"{}"#, letter.repeat(100));
        until("an update", async || json(&get(&*store, "1").await).contains(&begins)).await;
    }
    stays(&*store);
    // The largest document there is, with a long id: two in a row, the second replaced, and removed at the end.
    for (letter, other) in [("c", "d"), ("e", "f")] {
        let ids = [letter, other].map(|letter| letter.repeat(9_000));
        for id in &ids {
            let room = 16 * 1024 * 1024 - id.len() - 50;
            let of = |letter: &str| {
                [element(0x02, "_id", &text(id)), element(0x02, "text", &text(&letter.repeat(room)))].concat()
            };
            insert(&server, "records", &[of("x")]);
            replace(&server, &element(0x02, "_id", &text(id)), &of("y"));
        }
        set_n(&server, 2, i32::from(letter.as_bytes()[0]));
        for id in &ids {
            let begins = format!(r#""text":"{}"#, "y".repeat(100));
            until("a large record", async || json(&get(&*store, id).await).contains(&begins)).await;
        }
        let last = format!(r#""n":{}"#, letter.as_bytes()[0]);
        until("the change after them", async || json(&get(&*store, "2").await).contains(&last)).await;
        for id in &ids {
            let delete =
                [element(0x03, "q", &document(&element(0x02, "_id", &text(id)))), integer("limit", 1)].concat();
            sent(
                &server,
                &[
                    element(0x02, "delete", &text("records")),
                    element(0x04, "deletes", &document(&element(0x03, "0", &document(&delete)))),
                ],
            );
            until("a deletion", async || get(&*store, id).await.document.is_none()).await;
        }
        stays(&*store);
    }
    until("a replica that is current", async || get(&*store, "1").await.staleness.is_some_and(|age| age.as_secs() < 1))
        .await;
}
