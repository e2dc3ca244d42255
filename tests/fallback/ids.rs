//! Ids of every type from the replica and from MongoDB, and replicas of views.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use records::record::Key;
use records::store::fallback::{Mode, Settings};
use records::store::{BACKENDS, BackendKind, ChangeStreamError, ListRequest, MemoryPool, Page, Store, page};

use crate::cases;
use crate::servers::mongod::{document, element, text};
use crate::support::*;

cases! {
    an_id_replaced_by_one_that_compares_equal_leaves_nothing_behind,
    a_view_is_copied_again_and_again,
    a_view_whose_ids_repeat_has_no_copy_whatever_was_there_before,
    ids_of_every_type_are_paged_and_found_while_the_server_is_away,
    pages_of_the_server_and_of_the_copy_follow_one_another,
}

/// Returns an `_id` element that is a whole decimal.
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
        let all: Vec<_> =
            store.list(ListRequest::default()).await.expect("a list").rows.try_collect().await.expect("rows");
        assert_eq!(all.len(), 4, "{all:?}");
        all.iter().all(|row| json_of(&row.document).ends_with(r#""n":1}"#))
    })
    .await;
    // The replica compares numbers by value, as the server does.
    assert!(get(&*store, "9").await.staleness.is_some());
    assert_eq!(json(&get(&*store, "9").await), r#"{"_id":"9","n":1}"#);
    assert_eq!(json(&get(&*open(&server.url()).await, "9").await), r#"{"_id":"9","n":1}"#);
    delete_all(&server);
    until("an empty copy", async || count(&*store).await == 0).await;
    let metrics = metrics(&*store);
    assert!(metrics.contains("fallback_replica_snapshots_total 1\n"), "it was copied again:\n{metrics}");
}

async fn a_view_is_copied_again_and_again() {
    let server = crate::servers::mongod::Mongod::start_replica_set().expect("a server");
    insert(&server, "base", &[integer("_id", 1)]);
    create_view(&server, "base");
    let first = open(&server.url()).await.changes(None).next().await;
    assert!(matches!(first, Some(Err(ChangeStreamError::Unsupported(_)))), "{first:?}");
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    insert(&server, "base", &[integer("_id", 2)]);
    until("the new record", async || count(&*store).await == 2).await;
    assert!(get(&*store, "2").await.staleness.is_some());
}

async fn a_view_whose_ids_repeat_has_no_copy_whatever_was_there_before() {
    let server = crate::servers::mongod::Mongod::start_replica_set().expect("a server");
    insert(&server, "base", &[integer("_id", 1), integer("_id", 2)]);
    insert(&server, "records", &[integer("_id", 7)]);
    for is_missing in [false, true] {
        let store = over(&server.url(), settings(Mode::Replica)).await;
        if is_missing {
            drop_collection(&server);
        }
        // The store knows what the collection is.
        let is_known = async || store.health().await.is_ok() && count(&*store).await == usize::from(!is_missing);
        until("a store with its copy", is_known).await;
        if !is_missing {
            drop_collection(&server);
        }
        let doubled = element(0x04, "pipeline", &document(&element(0x03, "0", &document(&union_with("base")))));
        create_view_with(&server, "base", &doubled);
        let listed = async || {
            let list = store.list(ListRequest::default()).await.expect("a list");
            (list.staleness, list.rows.count().await)
        };
        // The replica is tried again and again. Until the first attempt after the change, it holds what was there before.
        for _ in 0..100 {
            let (staleness, count) = listed().await;
            assert!(staleness.is_none() || count != 2, "a replica of two records for four");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        until("the list of MongoDB", async || listed().await == (None, 4)).await;
        drop_collection(&server);
        insert(&server, "records", &[integer("_id", 7)]);
    }
}

/// `{ $unionWith: collection }`.
fn union_with(collection: &str) -> Vec<u8> {
    element(0x02, "$unionWith", &text(collection))
}

/// Starts a server with ids of every type that MongoDB accepts.
async fn with_all_types() -> crate::servers::mongod::Mongod {
    let server = filled_set().await;
    delete_all(&server);
    let long = |value: i64| element(0x12, "_id", &value.to_le_bytes());
    let binary = |subtype: u8, bytes: &[u8]| [&(bytes.len() as i32).to_le_bytes(), &[subtype][..], bytes].concat();
    let code_with_scope = [text("code"), document(&integer("a", 1))].concat();
    let code_with_scope = [&(code_with_scope.len() as i32 + 4).to_le_bytes(), &code_with_scope[..]].concat();
    let ids = [
        element(0xff, "_id", &[]),
        element(0x0a, "_id", &[]),
        double("_id", f64::NAN),
        integer("_id", -5),
        double("_id", 0.5),
        decimal(1),
        long(1 << 60),
        element(0x02, "_id", &text("")),
        element(0x02, "_id", &text("a")),
        element(0x0e, "_id", &text("symbol")),
        element(0x03, "_id", &document(&integer("a", 1))),
        element(0x03, "_id", &document(&element(0x02, "a", &text("x")))),
        element(0x05, "_id", &binary(0, b"ab")),
        element(0x05, "_id", &binary(4, &[7; 16])),
        element(0x07, "_id", &[9; 12]),
        element(0x08, "_id", &[0]),
        element(0x08, "_id", &[1]),
        element(0x09, "_id", &1_000_i64.to_le_bytes()),
        element(0x11, "_id", &[1, 0, 0, 0, 2, 0, 0, 0]),
        element(0x0c, "_id", &[text("a.b"), vec![5; 12]].concat()),
        element(0x0d, "_id", &text("code")),
        element(0x0f, "_id", &code_with_scope),
        element(0x7f, "_id", &[]),
    ];
    insert(&server, "records", &ids);
    server
}

async fn read_page(store: &dyn Store, request: &ListRequest) -> Page {
    page(store, request, 3, &mut MemoryPool::new(1 << 20).reservation()).await.expect("a page")
}

/// Returns the keys of all pages of `request`.
async fn walk(store: &dyn Store, mut request: ListRequest) -> Vec<Key> {
    let mut keys = Vec::new();
    loop {
        let page = read_page(store, &request).await;
        keys.extend(page.documents.iter().map(|document| document.key().clone()));
        let Some(next) = page.next else { return keys };
        request.after = Some(next);
    }
}

async fn ids_of_every_type_are_paged_and_found_while_the_server_is_away() {
    let mut server = with_all_types().await;
    let primary = open(&server.url()).await;
    let expected = walk(&*primary, ListRequest::default()).await;
    assert!(expected.len() == 23 && expected.is_sorted(), "{expected:?}");
    let directory = tempfile::tempdir().expect("a directory");
    let embedded = BACKENDS.iter().filter(|backend| backend.kind != BackendKind::Remote);
    for (backend, mode) in embedded.flat_map(|backend| [(backend, Mode::Standby), (backend, Mode::Replica)]) {
        let path = match backend.kind {
            BackendKind::InMemory => String::new(),
            _ => directory.path().join(format!("{mode:?}")).display().to_string(),
        };
        let copy = format!("{}:{path}", backend.name);
        let store = over(&server.url(), Settings { url: copy, ..settings(mode) }).await;
        ready(&*store).await;
        server.kill();
        assert_eq!(walk(&*store, ListRequest::default()).await, expected);
        for id in [
            "-5",
            "0.5",
            "1",
            "1152921504606846976",
            "a",
            "090909090909090909090909",
            "07070707-0707-0707-0707-070707070707",
            "false",
            "true",
            "1970-01-01T00:00:01.000Z",
            "symbol",
        ] {
            let found = get(&*store, id).await;
            assert!(found.document.is_some() && found.staleness.is_some(), "{id}");
        }
        server.run().expect("a server");
        until("the primary", async || primary.ping().await.is_ok()).await;
    }
}

async fn pages_of_the_server_and_of_the_copy_follow_one_another() {
    let mut server = with_all_types().await;
    let primary = open(&server.url()).await;
    let expected = walk(&*primary, ListRequest::default()).await;
    let store = over(&server.url(), settings(Mode::Standby)).await;
    ready(&*store).await;
    let mut first = read_page(&*store, &ListRequest::default()).await;
    until("a page of MongoDB", async || {
        first = read_page(&*store, &ListRequest::default()).await;
        first.staleness.is_none()
    })
    .await;
    let next = ListRequest { after: first.next, ..ListRequest::default() };
    server.kill();
    let second = read_page(&*store, &next).await;
    assert!(second.staleness.is_some());
    let next = ListRequest { after: second.next, ..ListRequest::default() };
    server.run().expect("a server");
    until("the primary", async || get(&*store, "a").await.staleness.is_none()).await;
    let rest = walk(&*store, next).await;
    let keys = first.documents.iter().chain(&second.documents).map(|document| document.key().clone());
    assert_eq!(keys.chain(rest).collect::<Vec<_>>(), expected);
}
