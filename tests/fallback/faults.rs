//! Outages of MongoDB of every kind, and recovery from them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::{FutureExt, join_all};
use records::store::fallback::{self, Mode, Settings};
use records::store::{BACKENDS, BackendKind, Kind, ListRequest, Store};

use crate::servers::mongod::{Mongod, document, element, text};
use crate::support::*;
use crate::{cases, proxy};

/// More consecutive failures than the circuit breaker allows.
const BREAKER_FAILURES: usize = 10;

cases! {
    Any {
        a_killed_server_is_answered_for_until_it_is_back,
        a_stuck_server_is_answered_for_soon_also_to_those_who_wait,
        a_network_that_swallows_everything_is_answered_for_until_it_is_mended,
        a_copy_that_never_was_whole_does_not_answer,
        a_copy_that_is_too_large_is_off_and_says_so,
        a_copy_that_is_too_old_does_not_answer,
        a_list_begun_on_a_server_that_dies_fails,
        a_replica_goes_on_from_where_it_was_when_the_server_is_back,
        a_replica_behind_a_network_that_swallows_everything_follows_again,
        a_server_that_refuses_the_password_is_answered_for_until_it_takes_it,
        bytes_that_are_no_bson_are_answered_for_as_if_the_server_were_away,
        a_right_that_is_revoked_on_open_connections_is_answered_for_until_it_is_given_back,
    }
    Local {
        a_lasting_copy_answers_after_a_start_without_the_server,
        a_lasting_copy_goes_on_from_its_token,
        a_lasting_copy_of_another_source_or_scope_is_not_used,
        a_lasting_copy_whose_token_is_worth_nothing_is_made_anew,
        a_lasting_copy_whose_records_are_gone_is_made_anew,
    }
}

/// Checks that the replica gives every kind of answer, without waiting for the primary.
async fn copy_answers(store: &dyn Store) {
    tokio::time::timeout(PATIENCE, copy_answers_at_last(store))
        .await
        .expect("answers that do not wait for the primary");
}

async fn copy_answers_at_last(store: &dyn Store) {
    let found = get(store, "99").await;
    assert!(found.document.is_some(), "an existing record was reported as absent");
    assert!(found.staleness.is_some(), "the answer has no staleness, so it does not come from the replica");
    let found = get(store, "nobody").await;
    assert!(found.document.is_none() && found.staleness.is_some(), "{found:?}");
    let list = store.list(ListRequest::default()).await.expect("a list");
    assert!(list.staleness.is_some());
    assert_eq!(list.rows.count().await, 100);
    assert!(store.health().await.is_ok_and(|health| health.degraded.is_some()));
}

/// Waits until the primary answers, and returns the time that took.
async fn primary_answers(store: &dyn Store) -> Duration {
    until("the primary", async || get(store, "99").await.staleness.is_none()).await
}

async fn a_killed_server_is_answered_for_until_it_is_back() {
    let mut server = filled().await;
    let store = over_patient(&server.url(), settings(Mode::Standby)).await;
    ready(&*store).await;
    for _ in 0..2 {
        primary_answers(&*store).await;
        server.kill();
        copy_answers(&*store).await;
        server.run().expect("a server");
        let took = primary_answers(&*store).await;
        eprintln!("reads are back {took:?} after the server listens");
        ready(&*store).await;
    }
}

async fn a_stuck_server_is_answered_for_soon_also_to_those_who_wait() {
    let server = filled().await;
    let store = over_patient(&server.url(), settings(Mode::Standby)).await;
    ready(&*store).await;
    server.pause();
    // Many more calls at once than connections and permits.
    let calls = (0..500).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { get(&*store, "1").await })
    });
    let answers =
        tokio::time::timeout(PATIENCE, join_all(calls)).await.expect("answers that do not wait for the primary");
    for found in answers {
        let found = found.expect("a call");
        assert!(found.document.is_some() && found.staleness.is_some(), "{found:?}");
    }
    // The calls shared a few round trips. After several more failures the breaker opens, and a call is answered at its first
    // poll.
    for _ in 0..BREAKER_FAILURES {
        assert!(get(&*store, "1").await.staleness.is_some());
    }
    for _ in 0..100 {
        let found = store.get(&"1".into()).now_or_never().expect("an answer without waiting").expect("a record");
        assert!(found.staleness.is_some(), "{found:?}");
    }
    copy_answers(&*store).await;
    server.resume();
    let took = primary_answers(&*store).await;
    eprintln!("reads are back {took:?} after the server goes on");
}

async fn a_network_that_swallows_everything_is_answered_for_until_it_is_mended() {
    let server = filled().await;
    let network = proxy::Proxy::to(server.port()).await.expect("a port");
    let store = over_patient(&format!("mongodb://127.0.0.1:{}", network.port()), settings(Mode::Standby)).await;
    ready(&*store).await;
    network.cut();
    copy_answers(&*store).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    copy_answers(&*store).await;
    network.mend();
    let took = primary_answers(&*store).await;
    eprintln!("reads are back {took:?} after the network is");
}

async fn a_copy_that_never_was_whole_does_not_answer() {
    let server = Mongod::stopped().expect("a port");
    for mode in [Mode::Standby, Mode::Replica] {
        let store = over(&server.url(), settings(mode)).await;
        for id in ["1", "nobody"] {
            let answer = store.get(&id.into()).await;
            assert!(answer.as_ref().is_err_and(|error| error.is_unavailable()), "{answer:?}");
        }
        let list = store.list(ListRequest::default()).await;
        assert!(list.as_ref().is_err_and(|error| error.is_unavailable()), "{list:?}");
        assert!(store.health().await.is_err());
    }
}

async fn a_copy_that_is_too_large_is_off_and_says_so() {
    for mut server in [filled().await, filled_set().await] {
        let settings = Settings { size_limit: 10_000, ..settings(Mode::Standby) };
        let store = over(&server.url(), settings).await;
        let off = async || health(&*store).await.degraded.is_some_and(|detail| detail.contains("larger than allowed"));
        until("a refusal", off).await;
        assert_eq!(get(&*store, "1").await.staleness, None);
        server.kill();
        assert!(store.get(&"1".into()).await.is_err());
        server.run().expect("a server");
        until("the primary", async || store.get(&"1".into()).await.is_ok()).await;
        // Once the records fit, there is a replica.
        (2..100).for_each(|id| delete(&server, id));
        ready(&*store).await;
    }
}

async fn a_copy_that_is_too_old_does_not_answer() {
    let mut server = filled().await;
    let max_age = Duration::from_secs(8);
    let settings = Settings { max_age: Some(max_age), ..settings(Mode::Standby) };
    let store = over(&server.url(), settings).await;
    ready(&*store).await;
    server.kill();
    assert!(get(&*store, "1").await.staleness.is_some());
    tokio::time::sleep(max_age).await;
    let answer = store.get(&"1".into()).await;
    assert!(answer.as_ref().is_err_and(|error| error.is_unavailable()), "{answer:?}");
    assert!(store.health().await.is_err());
    server.run().expect("a server");
    ready(&*store).await;
}

async fn a_list_begun_on_a_server_that_dies_fails() {
    let mut server = filled().await;
    let primary = open(&server.url()).await;
    primary.upsert(numbered(0..20_000)).await.expect("an upsert");
    let store = over(&server.url(), settings(Mode::Standby)).await;
    ready(&*store).await;
    let mut listing = store.list(ListRequest::default()).await.expect("a list").rows;
    assert!(listing.next().await.is_some_and(|first| first.is_ok()));
    server.kill();
    let mut last = None;
    while let Some(item) = listing.next().await {
        last = Some(item);
    }
    assert!(last.is_some_and(|last| last.is_err()), "an interrupted list ended without an error");
    // The replica answers the next list.
    assert_eq!(count(&*store).await, 20_000);
}

async fn a_replica_goes_on_from_where_it_was_when_the_server_is_back() {
    let mut server = filled_set().await;
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    server.kill();
    copy_answers(&*store).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(get(&*store, "1").await.staleness.is_some_and(|age| age >= Duration::from_secs(2)));
    server.run().expect("a server");
    until("an elected primary", async || server.is_primary().unwrap_or(false)).await;
    set_n(&server, 1, 5);
    let took = until("the change", async || json(&get(&*store, "1").await).contains(r#""n":5"#)).await;
    eprintln!("the change was visible after {took:?}");
    let metrics = metrics(&*store);
    assert!(metrics.contains("fallback_replica_snapshots_total 1\n"), "it was copied again:\n{metrics}");
}

/// Returns the URLs of replicas in `directory` that outlive the process.
fn persistent_urls(directory: &tempfile::TempDir) -> Vec<String> {
    let path = directory.path().display();
    let lasting = BACKENDS.iter().filter(|backend| backend.kind == BackendKind::Local);
    lasting.map(|backend| format!("{}:{path}/{}", backend.name, backend.name)).collect()
}

fn settings_in(copy: &str, mode: Mode) -> Settings {
    Settings { url: copy.to_owned(), ..settings(mode) }
}

/// Opens the replica again once its directory is free.
async fn reopen(url: &str, settings: Settings) -> Arc<dyn Store> {
    let begin = Instant::now();
    loop {
        match fallback::over(open_within(url, TIMEOUT).await, settings.clone()).await {
            Ok(store) => return store,
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{}", error.report()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_lasting_copy_answers_after_a_start_without_the_server() {
    let directory = tempfile::tempdir().expect("a directory");
    for copy in persistent_urls(&directory) {
        let mut server = filled().await;
        let store = over(&server.url(), settings_in(&copy, Mode::Standby)).await;
        ready(&*store).await;
        drop(store);
        server.kill();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let store = reopen(&server.url(), settings_in(&copy, Mode::Standby)).await;
        copy_answers(&*store).await;
        let age = get(&*store, "1").await.staleness.expect("an age");
        assert!(age >= Duration::from_secs(2) && age < Duration::from_secs(60), "{age:?}");
        server.run().expect("a server");
        primary_answers(&*store).await;
    }
}

async fn a_lasting_copy_goes_on_from_its_token() {
    let directory = tempfile::tempdir().expect("a directory");
    for copy in persistent_urls(&directory) {
        let server = filled_set().await;
        let store = over(&server.url(), settings_in(&copy, Mode::Replica)).await;
        ready(&*store).await;
        set_n(&server, 1, 1);
        until("an update", async || json(&get(&*store, "1").await).contains(r#""n":1"#)).await;
        // Closed before the state file is written again, so that the change is applied a second time.
        drop(store);
        set_n(&server, 1, 2);
        delete(&server, 2);
        let store = reopen(&server.url(), settings_in(&copy, Mode::Replica)).await;
        until("an update", async || json(&get(&*store, "1").await).contains(r#""n":2"#)).await;
        until("a deletion", async || get(&*store, "2").await.document.is_none()).await;
        assert_eq!(count(&*store).await, 99);
        let metrics = metrics(&*store);
        assert!(metrics.contains("fallback_replica_snapshots_total 0\n"), "it was copied again:\n{metrics}");
        assert!(metrics.contains("fallback_replica_records 99"), "{metrics}");
    }
}

async fn a_lasting_copy_of_another_source_or_scope_is_not_used() {
    let directory = tempfile::tempdir().expect("a directory");
    for copy in persistent_urls(&directory) {
        for (source, scope) in [("another", ""), ("test", "hide=secret")] {
            let mut server = filled().await;
            let store = over(&server.url(), settings_in(&copy, Mode::Standby)).await;
            ready(&*store).await;
            drop(store);
            server.kill();
            let other =
                Settings { source: source.to_owned(), scope: scope.to_owned(), ..settings_in(&copy, Mode::Standby) };
            let store = reopen(&server.url(), other).await;
            assert!(store.get(&"1".into()).await.is_err());
        }
    }
}

async fn a_server_that_refuses_the_password_is_answered_for_until_it_takes_it() {
    let mut server = filled().await;
    create_user(&server);
    let url = format!("mongodb://reader:secret@127.0.0.1:{}/?authSource=admin", server.port());
    let store = over_patient(&url, settings(Mode::Standby)).await;
    ready(&*store).await;
    drop_user(&server);
    // A graceful stop, since a kill could lose the removal of the user.
    server.stop();
    server.ask_for_passwords(true);
    server.run().expect("a server");
    copy_answers(&*store).await;
    server.stop();
    server.ask_for_passwords(false);
    server.run().expect("a server");
    // The server still checks passwords that clients send.
    create_user(&server);
    primary_answers(&*store).await;
    ready(&*store).await;
}

async fn a_right_that_is_revoked_on_open_connections_is_answered_for_until_it_is_given_back() {
    let mut server = filled().await;
    create_operator(&server);
    create_user(&server);
    server.stop();
    server.ask_for_passwords(true);
    server.run().expect("a server");
    let url = format!("mongodb://reader:secret@127.0.0.1:{}/?authSource=admin", server.port());
    let store = over(&url, settings(Mode::Standby)).await;
    ready(&*store).await;
    primary_answers(&*store).await;
    let_reader_read(&server, false).await;
    copy_answers(&*store).await;
    let_reader_read(&server, true).await;
    primary_answers(&*store).await;
    ready(&*store).await;
}

async fn a_lasting_copy_whose_token_is_worth_nothing_is_made_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    for copy in persistent_urls(&directory) {
        let server = filled_set().await;
        let store = over(&server.url(), settings_in(&copy, Mode::Replica)).await;
        ready(&*store).await;
        drop(store);
        delete(&server, 2);
        set_n(&server, 3, 3);
        // A token whose history is lost, and a damaged token.
        let file = std::path::Path::new(copy.split_once(':').expect("a URL").1).join("replica.json");
        let mut state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&file).expect("a state")).expect("a state");
        let token = document(&element(0x02, "_data", &text("8200")));
        state["token"] = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, token).into();
        std::fs::write(&file, state.to_string()).expect("a state");
        let store = reopen(&server.url(), settings_in(&copy, Mode::Replica)).await;
        until("the deletion", async || get(&*store, "2").await.document.is_none()).await;
        until("the update", async || json(&get(&*store, "3").await).contains(r#""n":3"#)).await;
        assert_eq!(count(&*store).await, 99);
        let metrics = metrics(&*store);
        assert!(metrics.contains("fallback_replica_snapshots_total 1\n"), "{metrics}");
        // The previous replica is removed.
        let left = || std::fs::read_dir(file.parent().expect("a directory")).expect("a directory");
        let generations = || left().filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir())).count();
        until("a tidy directory", async || generations() == 1).await;
    }
}

async fn a_lasting_copy_whose_records_are_gone_is_made_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    for copy in persistent_urls(&directory) {
        let mut server = filled_set().await;
        let store = over(&server.url(), settings_in(&copy, Mode::Replica)).await;
        ready(&*store).await;
        drop(store);
        let home = std::path::Path::new(copy.split_once(':').expect("a URL").1);
        for entry in std::fs::read_dir(home).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).expect("a generation");
            }
        }
        // An unknown record is not reported as absent.
        server.kill();
        let store = reopen(&server.url(), settings_in(&copy, Mode::Replica)).await;
        assert!(store.get(&"1".into()).await.is_err());
        server.run().expect("a server");
        until("a primary", async || server.is_primary().unwrap_or(false)).await;
        ready(&*store).await;
        assert_eq!(count(&*store).await, 100);
    }
}

async fn a_replica_behind_a_network_that_swallows_everything_follows_again() {
    let server = filled_set().await;
    let network = proxy::Proxy::to(server.port()).await.expect("a port");
    let url = format!("mongodb://127.0.0.1:{}/?directConnection=true", network.port());
    let store = over(&url, settings(Mode::Replica)).await;
    ready(&*store).await;
    network.cut();
    set_n(&server, 1, 1);
    delete(&server, 2);
    let old = async || get(&*store, "1").await.staleness.is_some_and(|age| age >= Duration::from_secs(5));
    until("a copy that grows older", old).await;
    assert!(health(&*store).await.degraded.is_some());
    network.mend();
    let took = until("the changes", async || {
        json(&get(&*store, "1").await).contains(r#""n":1"#) && get(&*store, "2").await.document.is_none()
    })
    .await;
    eprintln!("the copy follows again after {took:?}");
    ready(&*store).await;
    let metrics = metrics(&*store);
    assert!(metrics.contains("fallback_replica_snapshots_total 1\n"), "it was copied again:\n{metrics}");
}

/// Simulates another server on the port, or a broken proxy.
async fn bytes_that_are_no_bson_are_answered_for_as_if_the_server_were_away() {
    let server = filled_set().await;
    // Garbage from the first byte on; after the header of each message; and within its first document.
    for kept in [0, 16, 60] {
        let network = proxy::Proxy::to(server.port()).await.expect("a port");
        let url = format!("mongodb://127.0.0.1:{}/?directConnection=true", network.port());
        let (plain, store) = (open_within(&url, TIMEOUT).await, over(&url, settings(Mode::Standby)).await);
        ready(&*store).await;
        assert!(plain.get(&"1".into()).await.is_ok());
        network.garble(kept);
        for _ in 0..20 {
            let found = get(&*store, "1").await;
            assert!(found.staleness.is_some() && found.document.is_some(), "{kept}");
            let list = store.list(ListRequest::default()).await.expect("a list");
            assert!(list.staleness.is_some(), "{kept}");
            assert_eq!(list.rows.count().await, 100, "{kept}");
        }
        let error = plain.get(&"1".into()).await.expect_err("garbage");
        assert_eq!(error.kind(), Kind::Unavailable, "{kept}: {}", error.report());
        let error = plain.list(ListRequest::default()).await.expect_err("garbage");
        assert_eq!(error.kind(), Kind::Unavailable, "{kept}: {}", error.report());
        network.mend();
        until("the server's answers", async || get(&*store, "1").await.staleness.is_none()).await;
    }
}
