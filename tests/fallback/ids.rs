//! Ids that no import takes, and that MongoDB holds all the same: decimals, documents. And records that are a view.

use futures::StreamExt;
use records::query::Selection;
use records::store::fallback::Mode;
use records::store::{Interruption, Query, Share, page, selected};

use crate::cases;
use crate::servers::mongod::{document, element};
use crate::support::*;

cases! {
    an_id_replaced_by_one_that_compares_equal_leaves_nothing_behind,
    a_view_is_copied_again_and_again,
    pages_are_the_servers_alone_where_the_copy_has_ids_in_another_order,
    a_replica_leaves_pages_to_the_server_where_it_has_ids_in_another_order,
}

/// An `_id` that is a decimal without a fraction.
fn decimal(value: u8) -> Vec<u8> {
    let mut bytes = [0; 16];
    (bytes[0], bytes[14], bytes[15]) = (value, 0x40, 0x30);
    element(0x13, "_id", &bytes)
}

fn double(name: &str, value: f64) -> Vec<u8> {
    element(0x01, name, &value.to_le_bytes())
}

async fn an_id_replaced_by_one_that_compares_equal_leaves_nothing_behind() {
    let server = filled_set().await;
    delete_all(&server);
    let of = |inner: Vec<u8>| element(0x03, "_id", &document(&inner));
    let pairs = [
        (integer("_id", 9), decimal(9)),
        (of(integer("a", 1)), of(double("a", 1.0))),
        (decimal(7), double("_id", 7.0)),
        (decimal(11), integer("_id", 11)),
    ];
    insert(&server, "records", &pairs.clone().map(|(before, _)| before));
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    assert_eq!(count(&*store).await, 4);
    for (before, after) in &pairs {
        replace(&server, before, &[after.clone(), integer("n", 1)].concat());
    }
    until("all replacements", async || {
        let all: Vec<_> = store.list(Query::all()).collect().await;
        let is_new = |record: &records::store::Result<records::record::Record>| {
            record.as_ref().is_ok_and(|record| record.json().ends_with(br#""n":1}"#))
        };
        assert_eq!(all.len(), 4, "{all:?}");
        all.iter().all(is_new)
    })
    .await;
    // By value, as the server finds it.
    assert!(get(&*store, "9").await.age.is_some());
    assert_eq!(json(&get(&*store, "9").await), r#"{"_id":"9","n":1}"#);
    assert_eq!(json(&get(&*open(&server.url()).await, "9").await), r#"{"_id":"9","n":1}"#);
    delete_all(&server);
    until("an empty copy", async || count(&*store).await == 0).await;
    let metrics = metrics(&*store);
    assert!(metrics.contains("store_copy_snapshots_total 1\n"), "it was copied anew:\n{metrics}");
}

async fn a_view_is_copied_again_and_again() {
    let server = crate::servers::mongod::Mongod::start_replica_set().expect("a server");
    insert(&server, "base", &[integer("_id", 1)]);
    create_view(&server, "base");
    let first = open(&server.url()).await.changes(None).next().await;
    assert!(matches!(first, Some(Err(Interruption::Unsupported))), "{first:?}");
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    insert(&server, "base", &[integer("_id", 2)]);
    until("the new record", async || count(&*store).await == 2).await;
    assert!(get(&*store, "2").await.age.is_some());
}

/// Eleven records whose ids are documents.
async fn with_documents() -> crate::servers::mongod::Mongod {
    let server = filled_set().await;
    delete_all(&server);
    let records = (0..11).map(|n| [element(0x03, "_id", &document(&integer("n", n * 51))), integer("m", n)].concat());
    insert(&server, "records", &records.collect::<Vec<_>>());
    server
}

async fn pages_are_the_servers_alone_where_the_copy_has_ids_in_another_order() {
    let mut server = with_documents().await;
    let store = over(&server.url(), settings(Mode::Standby)).await;
    ready(&*store).await;
    let first = page(&*store, Query::all(), None, None, 4, &mut Share::default()).await.expect("a page");
    assert_eq!(first.age, None);
    server.kill();
    let next = page(&*store, Query::all(), None, first.next, 4, &mut Share::default()).await;
    assert!(next.as_ref().is_err_and(|error| error.is_unavailable()), "{next:?}");
    // Nor is there a first page that the server would have to go on behind.
    let first = page(&*store, Query::all(), None, None, 4, &mut Share::default()).await;
    assert!(first.as_ref().is_err_and(|error| error.is_unavailable()), "{first:?}");
    let all = selected(&*store, Query::all());
    let age = all.known_age();
    assert_eq!(all.count().await, 11);
    assert!(age.get().is_some());
    // What is sorted is in the same order everywhere.
    let Selection { sort, .. } = Selection::parse(&[("sort".to_owned(), "m".to_owned())]).expect("parameters");
    let sorted = page(&*store, Query::all(), sort.as_ref(), None, 4, &mut Share::default()).await.expect("a page");
    assert_eq!((sorted.records.len(), sorted.age.is_some()), (4, true));
}

async fn a_replica_leaves_pages_to_the_server_where_it_has_ids_in_another_order() {
    let server = with_documents().await;
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    let (mut after, mut seen) = (None, 0);
    loop {
        let page = page(&*store, Query::all(), None, after, 4, &mut Share::default()).await.expect("a page");
        assert_eq!(page.age, None);
        seen += page.records.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, 11);
    // With ids that both have in one order, the copy goes on behind the server, and the other way round.
    delete_all(&server);
    store.upsert(numbered(0..100)).await.expect("an upsert");
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    let page = page(&*store, Query::all(), None, None, 4, &mut Share::default()).await.expect("a page");
    assert!(page.age.is_some());
}
