//! Sharded clusters, where an `_id` may repeat and the router's own time is that of no shard.

use std::time::Duration;

use futures::TryStreamExt;
use records::query::Selection;
use records::store::fallback::{Mode, Settings};
use records::store::{CountResult, ListRequest, MemoryPool, Precision, Store, page};

use crate::cases;
use crate::freshness::{Writer, get_after};
use crate::mongos::Mongos;
use crate::servers::mongod::{Mongod, document, element, text};
use crate::support::*;

cases! {
    a_sharded_cluster_serves_as_a_replica_set_does,
    a_replica_of_a_sharded_cluster_follows_every_change,
    a_sharded_cluster_promises_no_time,
}

const REQUESTS: &[&[(&str, &str)]] = &[
    &[],
    &[("n.gte", "10"), ("n.lt", "30")],
    &[("s.ne", "b")],
    &[("_id.gt", "20")],
    &[("sort", "n")],
    &[("sort", "-n,s")],
    &[("sort", "s,-_id")],
    &[("sort", "v"), ("n.ne", "7")],
    &[("sort", "-v"), ("fields", "v")],
];

fn request(parameters: &[(&str, &str)]) -> ListRequest {
    let owned: Vec<_> = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let Selection { filter, sort, projection, .. } = Selection::parse(&owned).expect("a request");
    ListRequest { filter, sort, projection, ..ListRequest::default() }
}

/// Inserts documents whose fields have indexes, and are missing or arrays in some.
async fn fill(server: &Mongod, store: &dyn Store) {
    let documents = (0..60).map(|n| {
        let value = [r#","v":1"#, "", r#","v":[3,-1]"#, r#","v":"text""#][n % 4];
        parsed(&format!(r#"{{"_id":{n},"n":{},"s":"{}"{value}}}"#, n * 17 % 40, ["a", "b", "é"][n % 3]))
    });
    store.upsert(documents.collect()).await.expect("an upsert");
    for (name, keys) in [("n", ["n", "_id"]), ("v", ["v", "_id"])] {
        let keys: Vec<u8> = keys.iter().flat_map(|key| integer(key, 1)).collect();
        let index = [element(0x03, "key", &document(&keys)), element(0x02, "name", &text(name))].concat();
        let indexes = element(0x04, "indexes", &document(&element(0x03, "0", &document(&index))));
        sent(server, &[element(0x02, "createIndexes", &text("records")), indexes]);
    }
}

async fn listed(store: &dyn Store, request: &ListRequest) -> Vec<String> {
    // Requests with a sort need a limit.
    let limit = (!request.sort.is_empty()).then_some(1_000);
    let list = store.list(ListRequest { limit, ..request.clone() }).await;
    let list = list.unwrap_or_else(|error| panic!("{request:?}: {}", error.report()));
    list.rows.map_ok(|row| json_of(&row.document)).try_collect().await.expect("rows")
}

async fn paged(store: &dyn Store, request: &ListRequest, limit: usize) -> Vec<String> {
    let (mut request, mut all) = (request.clone(), Vec::new());
    loop {
        let page = page(store, &request, limit, &mut MemoryPool::new(1 << 30).reservation()).await;
        let page = page.unwrap_or_else(|error| panic!("{request:?}: {}", error.report()));
        assert!(page.documents.len() == limit || page.next.is_none(), "{request:?}, {limit} a page");
        all.extend(page.documents.iter().map(json_of));
        let Some(next) = page.next else { return all };
        request.after = Some(next);
    }
}

async fn a_sharded_cluster_serves_as_a_replica_set_does() {
    let server = Mongod::start_replica_set().expect("a server");
    let router = Mongos::over(server.port()).await.expect("a router");
    let (direct, routed) = (open(&server.url()).await, open(&router.url()).await);
    fill(&server, &*routed).await;
    health(&*routed).await;
    for id in ["0", "7", "59", "60", "none"] {
        let (expected, found) = (get(&*direct, id).await, get(&*routed, id).await);
        assert_eq!((json(&found), found.is_ambiguous), (json(&expected), false), "{id}");
    }
    for parameters in REQUESTS {
        let request = request(parameters);
        let expected = listed(&*direct, &request).await;
        assert!(!expected.is_empty(), "{parameters:?}");
        assert_eq!(listed(&*routed, &request).await, expected, "{parameters:?}");
        for limit in [1, 7, 60] {
            assert_eq!(paged(&*routed, &request, limit).await, expected, "{parameters:?}, {limit} a page");
        }
        let count = routed.count(request, Precision::Exact).await.expect("a count");
        assert_eq!(count, Some(CountResult::exact(expected.len() as u64)), "{parameters:?}");
    }
}

async fn a_replica_of_a_sharded_cluster_follows_every_change() {
    let server = filled_set().await;
    let router = Mongos::over(server.port()).await.expect("a router");
    // Only the change stream can bring a write within the test.
    let never = Duration::from_secs(3_600);
    let store = over(&router.url(), Settings { snapshot_interval: never, ..settings(Mode::Replica) }).await;
    ready(&*store).await;
    let writer = Writer::new(&server).await;
    for n in 0..20 {
        let time = writer.set_n(n, 1_000 + n).await;
        until("the write", async || json(&get(&*store, &n.to_string()).await).contains(&format!("{}", 1_000 + n)))
            .await;
        let found = get_after(&*store, n, time).await.expect("an answer");
        assert!(json(&found).contains(&format!("{}", 1_000 + n)) && found.as_of >= Some(time), "{found:?}");
    }
    // Every shard has said that there is nothing newer.
    until("a current replica", async || {
        get(&*store, "1").await.staleness.is_some_and(|staleness| staleness < Duration::from_secs(1))
    })
    .await;
}

async fn a_sharded_cluster_promises_no_time() {
    let server = filled_set().await;
    let router = Mongos::over(server.port()).await.expect("a router");
    let (direct, routed) =
        (over(&server.url(), settings(Mode::Standby)).await, over(&router.url(), settings(Mode::Standby)).await);
    ready(&*direct).await;
    ready(&*routed).await;
    let writer = Writer::new(&server).await;
    let time = writer.set_n(1, 1).await;
    until("the time of the write", async || get(&*direct, "1").await.as_of >= Some(time)).await;
    assert_eq!(get(&*routed, "1").await.as_of, None);
    assert_eq!(routed.list(ListRequest::default()).await.expect("a list").as_of, None);
    // A reader that names a write still sees it.
    for n in 2..20 {
        let time = writer.set_n(1, n).await;
        let found = get_after(&*routed, 1, time).await.expect("an answer");
        assert!(json(&found).contains(&format!(r#""n":{n}"#)), "{found:?}");
    }
}
