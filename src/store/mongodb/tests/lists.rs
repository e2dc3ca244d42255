//! Whose turn it is to ask MongoDB: lists, and what must not wait for them.

use std::time::Duration;

use futures::TryStreamExt;
use tokio::time::timeout;

use super::super::*;
use super::plans::Watched;
use crate::query::Selection;

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_list_that_nobody_waits_for_any_more_asks_nothing() {
    let watched = Watched::filled().await;
    let by_field = [("sort".to_owned(), "n".to_owned())];
    let sort = Selection::parse(&by_field).expect("parameters").sort.expect("an order");
    let order = crate::store::Order { sort, after: None, limit: 10 };
    let kinds = [
        Query::all(),
        Query { limit: Some(10), ..Query::all() },
        Query::after(Key::Integer(17)),
        Query { order: Some(order), ..Query::all() },
    ];
    // As calls do that are not answered.
    let calls = watched.store.inner.calls.clone();
    let stuck = calls.acquire_many_owned(calls_at_once(&watched)).await.expect("all of them");
    for query in kinds.iter().cycle().take(100) {
        let mut list = watched.store.list(query.clone());
        timeout(Duration::from_millis(5), list.next()).await.expect_err("it is not its turn");
    }
    drop(stuck);
    let all: Vec<Record> = watched.store.list(Query::all()).try_collect().await.expect("a list");
    assert_eq!(all.len(), 1_500);
    // What had waited before it would have been asked before it.
    assert_eq!(watched.finds.lock().expect("no panic").len(), 1);
}

fn calls_at_once(watched: &Watched) -> u32 {
    u32::try_from(watched.store.inner.calls.available_permits()).expect("a few")
}
