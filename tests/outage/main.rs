//! A remote store while its server is down, stuck, or back again. Every test starts its own server.
//!
//! Without `TEST_MONGOD` the tests are ignored, or fail if `TEST_REQUIRE` names the store and `TEST_MONGODB_URL` names no server.

#[path = "../api/support.rs"]
#[allow(dead_code)]
mod api;
mod connections;
mod lists;
#[path = "../support/proxy.rs"]
mod proxy;
mod refused;
#[path = "../support/servers.rs"]
mod servers;
mod store_file;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connections::{
    a_list_that_is_dropped_leaves_no_cursor_on_the_secondary_that_has_it,
    the_connections_to_a_killed_server_are_counted_as_closed,
};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use libtest_mimic::{Arguments, Trial};
use lists::{a_list_that_is_cut_at_any_point_never_looks_whole, a_short_list_that_is_cut_at_any_point_is_refused};
use records::document::extended_json;
use records::query::Selection;
use records::record::Document;
use records::store::{BACKENDS, Error, Kind, ListRequest, Options, Result, Row, RowStream, Store};
use refused::{
    a_view_whose_pipeline_fails_is_not_ready_and_says_so_without_values,
    an_import_that_is_refused_in_part_says_what_was_stored, no_value_of_a_refused_request_is_logged,
};
use servers::mongod::{self, Mongod};
use store_file::a_store_file_that_changes_is_used_without_a_restart;
use tokio::runtime::Runtime;

/// The store whose server can be started here.
const NAME: &str = "mongodb";

/// The time-out of the stores: long enough for a server on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Returns the time that a call may take in addition to the time-out: less with `TEST_TIMES`, on a quiet machine.
fn margin() -> Duration {
    Duration::from_secs(if std::env::var_os("TEST_TIMES").is_some() { 2 } else { 30 })
}
/// The time in which a store must notice that its server is back or away.
const RECOVERY: Duration = Duration::from_secs(60);

/// The number of records. Concurrent lookups of all of them need more batches than there are connections.
const RECORDS: i32 = 6_000;

macro_rules! cases {
    ($($name:ident,)*) => {
        const CASES: &[(&str, fn(&Runtime))] = &[$((stringify!($name), |runtime| runtime.block_on($name())),)*];
    };
}

cases! {
    a_store_opens_without_its_server_and_finds_it_later,
    a_store_of_a_host_without_a_name_opens_and_is_unavailable,
    a_server_that_accepts_and_says_nothing_is_unavailable,
    a_killed_server_is_unavailable_until_it_is_back,
    a_stopped_server_is_unavailable_until_it_is_back,
    a_stuck_server_is_unavailable_within_the_time_out,
    a_network_that_swallows_everything_is_unavailable_until_it_is_mended,
    a_network_that_ends_every_connection_is_unavailable_until_it_is_mended,
    a_network_that_delays_is_slow_and_beyond_the_time_out_unavailable,
    a_list_comes_in_parts_over_a_network_that_is_too_slow_for_all_at_once,
    a_server_that_scans_no_collection_lists_what_a_filter_finds_and_in_any_order,
    a_list_ends_with_an_error_when_the_server_is_killed,
    a_list_ends_with_an_error_when_the_server_is_stuck,
    a_list_that_is_cut_at_any_point_never_looks_whole,
    a_short_list_that_is_cut_at_any_point_is_refused,
    an_upsert_that_failed_can_be_made_again,
    a_replica_set_is_a_store_as_any_other,
    a_store_file_that_changes_is_used_without_a_restart,
    no_value_of_a_refused_request_is_logged,
    a_view_whose_pipeline_fails_is_not_ready_and_says_so_without_values,
    an_import_that_is_refused_in_part_says_what_was_stored,
    the_connections_to_a_killed_server_are_counted_as_closed,
    a_list_that_is_dropped_leaves_no_cursor_on_the_secondary_that_has_it,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tests mostly wait.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let required = servers::must_be_breakable(NAME);
    let compiled_in = BACKENDS.iter().any(|backend| backend.name == NAME);
    let trial = |&(name, case): &(&'static str, fn(&Runtime))| {
        let run = move || {
            mongod::program().ok_or("set TEST_MONGOD to the path of a mongod executable")?;
            // Each test has its own runtime, which ends the tasks that the test leaves.
            case(&Runtime::new().map_err(|error| error.to_string())?);
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(mongod::program().is_none() && !required)
    };
    let trials = if compiled_in { CASES.iter().map(trial).collect() } else { Vec::new() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

async fn open(url: &str) -> Arc<dyn Store> {
    let (url, query) = url.split_once("/?").map_or((url, String::new()), |(url, query)| (url, format!("?{query}")));
    let options = Options { collection: "records".to_owned(), timeout: TIMEOUT, ..Default::default() };
    let opened = records::store::open(&format!("{url}/outage{query}"), options).await;
    opened.expect("a store opens without its server").into_store()
}

fn numbered(ids: std::ops::Range<i32>) -> Vec<Document> {
    ids.map(|id| extended_json::parse(format!(r#"{{"_id":{id}}}"#).as_bytes()).expect("a document")).collect()
}

/// Starts a server with [`RECORDS`], and opens a store.
async fn running() -> (Mongod, Arc<dyn Store>) {
    let server = Mongod::start().expect("a server");
    let store = open(&server.url()).await;
    store.upsert(numbered(0..RECORDS)).await.expect("an upsert");
    assert!(store.get(&"99".into()).await.expect("a get").document.is_some());
    (server, store)
}

/// Checks that a call returns within the time-out, and returns its result.
async fn in_time<T>(what: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
    let begin = Instant::now();
    let result = call.await;
    let took = begin.elapsed();
    assert!(took < TIMEOUT + margin(), "{what} took {took:?}");
    result
}

fn is_unavailable<T: std::fmt::Debug>(what: &str, result: &Result<T>) {
    assert!(result.as_ref().is_err_and(Error::is_unavailable), "{what} must be unavailable, but is {result:?}");
}

/// Checks that every call fails in time, and reports no record as absent.
async fn all_unavailable(store: &dyn Store) {
    for id in ["1", "nobody"] {
        is_unavailable("get", &in_time("get", store.get(&id.into())).await);
    }
    is_unavailable("ping", &in_time("ping", store.ping()).await);
    is_unavailable("list", &in_time("list", read(store, ListRequest::default())).await);
    is_unavailable("upsert", &in_time("upsert", store.upsert(numbered(0..1))).await);
}

/// Repeats all calls until the store answers, and checks that it is unavailable until then.
async fn answers_again(store: &dyn Store) {
    let begin = Instant::now();
    loop {
        match ask_all(store).await {
            Ok(()) => break,
            error => is_unavailable("call", &error),
        }
        assert!(begin.elapsed() < RECOVERY, "the store does not find its server again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ask_all(store: &dyn Store) -> Result<()> {
    let found = in_time("get", store.get(&"99".into())).await?;
    assert!(found.document.is_some(), "an existing record was reported as absent");
    in_time("ping", store.ping()).await?;
    // The driver's monitor may notice the outage only now, and clear the connection pool.
    let listed = read(store, ListRequest::default()).await?;
    assert_eq!(listed.len(), RECORDS as usize);
    Ok(())
}

async fn a_store_opens_without_its_server_and_finds_it_later() {
    let mut server = Mongod::stopped().expect("a port");
    let store = open(&server.url()).await;
    all_unavailable(&*store).await;
    server.run().expect("a server");
    // Another store writes the records, so that the tested one must find the server by itself.
    open(&server.url()).await.upsert(numbered(0..RECORDS)).await.expect("an upsert");
    answers_again(&*store).await;
}

async fn a_store_of_a_host_without_a_name_opens_and_is_unavailable() {
    all_unavailable(&*open("mongodb://no-such-host.invalid:27017").await).await;
    all_unavailable(&*open("mongodb+srv://no-such-host.example.invalid").await).await;
}

async fn a_server_that_accepts_and_says_nothing_is_unavailable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let store = open(&format!("mongodb://{}", listener.local_addr().expect("a port"))).await;
    let silent = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    all_unavailable(&*store).await;
    silent.abort();
}

async fn a_killed_server_is_unavailable_until_it_is_back() {
    let (mut server, store) = running().await;
    for _ in 0..2 {
        server.kill();
        all_unavailable(&*store).await;
        server.run().expect("a server");
        answers_again(&*store).await;
    }
}

async fn a_stopped_server_is_unavailable_until_it_is_back() {
    let (mut server, store) = running().await;
    server.stop();
    all_unavailable(&*store).await;
    server.run().expect("a server");
    answers_again(&*store).await;
}

async fn a_stuck_server_is_unavailable_within_the_time_out() {
    let (server, store) = running().await;
    server.pause();
    // Many more calls at once than connections and permits.
    let calls = (0..500).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { in_time("get", store.get(&"1".into())).await })
    });
    for done in join_all(calls).await {
        is_unavailable("get", &done.expect("a call"));
    }
    // The same with connections that are all stuck.
    all_unavailable(&*store).await;
    server.resume();
    answers_again(&*store).await;
}

/// Existing connections hang without an error, and must not hold a call for ever.
async fn a_network_that_swallows_everything_is_unavailable_until_it_is_mended() {
    let (_server, network, store) = behind_a_network().await;
    let lookups = || {
        join_all((0..RECORDS).map(|id| {
            let store = store.clone();
            tokio::spawn(async move { in_time("get", store.get(&id.to_string().into())).await })
        }))
    };
    // The pool has all its connections, and they are in use.
    for done in lookups().await {
        assert!(done.expect("a call").expect("a get").document.is_some());
    }
    let under_way = tokio::spawn(lookups());
    network.cut();
    for done in under_way.await.expect("the calls") {
        // Some calls may have been answered before the cut.
        match done.expect("a call") {
            Ok(found) => assert!(found.document.is_some(), "an existing record was reported as absent"),
            error => is_unavailable("get", &error),
        }
    }
    for done in lookups().await {
        is_unavailable("get", &done.expect("a call"));
    }
    all_unavailable(&*store).await;
    network.mend();
    answers_again(&*store).await;
}

/// Starts a server with [`RECORDS`] and a proxy to it, and opens a store through the proxy.
async fn behind_a_network() -> (Mongod, proxy::Proxy, Arc<dyn Store>) {
    let server = Mongod::start().expect("a server");
    let network = proxy::Proxy::to(server.port()).await.expect("a port");
    let store = open(&format!("mongodb://127.0.0.1:{}", network.port())).await;
    store.upsert(numbered(0..RECORDS)).await.expect("an upsert");
    (server, network, store)
}

async fn a_network_that_ends_every_connection_is_unavailable_until_it_is_mended() {
    let (_server, network, store) = behind_a_network().await;
    for _ in 0..3 {
        network.reset();
        all_unavailable(&*store).await;
        network.mend();
        answers_again(&*store).await;
    }
}

async fn a_network_that_delays_is_slow_and_beyond_the_time_out_unavailable() {
    let (_server, network, store) = behind_a_network().await;
    network.slow_down(TIMEOUT / 100);
    assert!(in_time("get", store.get(&"1".into())).await.expect("a slow get").document.is_some());
    network.slow_down(TIMEOUT * 2);
    all_unavailable(&*store).await;
    network.mend();
    answers_again(&*store).await;
}

async fn a_list_comes_in_parts_over_a_network_that_is_too_slow_for_all_at_once() {
    let server = Mongod::start().expect("a server");
    let network = proxy::Proxy::to(server.port()).await.expect("a port");
    let store = open(&format!("mongodb://127.0.0.1:{}", network.port())).await;
    let filler = "x".repeat(300);
    let documents = (0..3_500).map(|n| format!(r#"{{"_id":{n},"filler":"{filler}"}}"#));
    let documents = documents.map(|text| extended_json::parse(text.as_bytes()).expect("a document")).collect();
    store.upsert(documents).await.expect("an upsert");
    network.slow_down(Duration::from_millis(20));
    // The first list may fail: the store does not know yet how slow the network is.
    let _ = read(&*store, ListRequest::default()).await;
    for _ in 0..2 {
        let listed = read(&*store, ListRequest::default()).await.expect("a list");
        assert_eq!(listed.len(), 3_500);
    }
}

/// Some operators forbid collection scans (`notablescan`).
async fn a_server_that_scans_no_collection_lists_what_a_filter_finds_and_in_any_order() {
    let server = Mongod::start().expect("a server");
    let store = open(&server.url()).await;
    store.upsert(numbered(0..100)).await.expect("an upsert");
    assert_eq!(read(&*store, ListRequest::default()).await.expect("a list").len(), 100);
    let parameters =
        [mongod::element(0x10, "setParameter", &1_i32.to_le_bytes()), mongod::element(0x08, "notablescan", &[1])];
    server.command("admin", &parameters.concat()).expect("a parameter");
    assert!(read(&*store, request("colour.eq", "red")).await.expect("a list").is_empty());
    // The server refuses to sort without an index.
    assert_eq!(read(&*store, request("sort", "colour")).await.expect("a list").len(), 100);
}

/// Returns a request for a list with one query parameter.
fn request(name: &str, value: &str) -> ListRequest {
    let selection = Selection::parse(&[(name.to_owned(), value.to_owned())]).expect("a parameter");
    ListRequest { filter: selection.filter, sort: selection.sort, limit: Some(200), ..ListRequest::default() }
}

async fn read(store: &dyn Store, request: ListRequest) -> Result<Vec<Row>> {
    store.list(request).await?.rows.try_collect().await
}

/// Stores `records` records with a text of `text` bytes, in batches that a busy machine stores in time.
async fn fill(store: &dyn Store, records: i32, text: usize) {
    let text = "x".repeat(text);
    for first in (0..records).step_by(500) {
        let documents = (first..records.min(first + 500)).map(|id| format!(r#"{{"_id":{id},"text":"{text}"}}"#));
        let documents = documents.map(|text| extended_json::parse(text.as_bytes()).expect("a document")).collect();
        store.upsert(documents).await.expect("an upsert");
    }
}

/// Stores more than a list reads ahead, and begins a list.
async fn list_under_way(store: &dyn Store) -> (usize, RowStream) {
    let total = 8_000;
    fill(store, total, 250).await;
    let mut listing = store.list(ListRequest::default()).await.expect("a list").rows;
    assert!(listing.next().await.is_some_and(|first| first.is_ok()));
    (total as usize, listing)
}

/// Reads the rest of an interrupted list, and checks that it has fewer records than stored, and ends with one error.
async fn ends_with_an_error(total: usize, mut listing: RowStream) {
    let mut listed = 1;
    let error = loop {
        let begin = Instant::now();
        let next = listing.next().await;
        assert!(begin.elapsed() < TIMEOUT + margin(), "a step of the list took {:?}", begin.elapsed());
        match next.expect("an interrupted list ended without an error") {
            Ok(_) => listed += 1,
            Err(error) => break error,
        }
    };
    assert!(listed < total);
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(listing.next().await.is_none(), "the list continues after its error");
}

async fn a_list_ends_with_an_error_when_the_server_is_killed() {
    let (mut server, store) = running().await;
    let (total, listing) = list_under_way(&*store).await;
    server.kill();
    ends_with_an_error(total, listing).await;
}

async fn a_list_ends_with_an_error_when_the_server_is_stuck() {
    let (server, store) = running().await;
    let (total, listing) = list_under_way(&*store).await;
    server.pause();
    ends_with_an_error(total, listing).await;
    server.resume();
    let whole = read(&*store, ListRequest::default()).await.expect("a list");
    assert_eq!(whole.len(), total);
}

async fn an_upsert_that_failed_can_be_made_again() {
    let (mut server, network, store) = behind_a_network().await;
    // The server has stored a part, and its reply does not arrive.
    network.reset_after(1);
    let received = network.received();
    let upsert = tokio::spawn({
        let store = store.clone();
        async move { store.upsert(numbered(0..50_000)).await }
    });
    while network.received() == received && !upsert.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.kill();
    is_unavailable("upsert", &upsert.await.expect("an upsert"));
    server.run().expect("a server");
    network.mend();
    let begin = Instant::now();
    while let error @ Err(_) = store.ping().await {
        is_unavailable("ping", &error);
        assert!(begin.elapsed() < RECOVERY, "the store does not find its server again");
    }
    store.upsert(numbered(0..50_000)).await.expect("the same upsert again");
    assert_eq!(read(&*store, ListRequest::default()).await.expect("a list").len(), 50_000);
}

async fn a_replica_set_is_a_store_as_any_other() {
    let mut server = Mongod::start_replica_set().expect("a replica set");
    let store = open(&server.url()).await;
    store.upsert(numbered(0..RECORDS)).await.expect("an upsert");
    server.kill();
    all_unavailable(&*store).await;
    server.run().expect("a server");
    // The member elects itself again, which takes a while.
    answers_again(&*store).await;
}
