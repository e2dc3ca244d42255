//! Pages: a list in parts is the list.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use records::document::{Document, Value};
use records::query::{Cursor, Selection};
use records::record::{Record, RecordId};
use records::store::{Budget, Found, Listing, Query, Reply, Result, Share, Store, page, selected};

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, poll};

use crate::harness::{Context, cases, large, list, numbered, upsert, upsert_texts};

cases! {
    Any by store {
        pages_of_any_size_are_the_list,
        a_page_has_as_many_bytes_as_it_may_and_says_that_there_are_more,
        a_page_of_nothing_is_the_last,
        a_page_behind_a_record_that_is_gone_begins_at_the_next,
        a_sorted_page_has_as_many_bytes_as_it_may,
        a_limited_list_is_as_long_as_asked,
        a_page_that_waits_for_room_keeps_no_list_open_and_is_as_if_it_had_not,
    }
    Any by property {
        a_cursor_comes_back_from_its_text,
        a_minus_in_a_name_is_not_one_before_it,
    }
}

async fn pages(store: &dyn Store, limit: usize) -> Vec<Vec<Record>> {
    let mut pages = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let page = page(store, Query::all(), None, after, limit, &mut Share::default()).await.expect("a page");
        pages.push(page.records);
        match page.next {
            None => return pages,
            Some(next) => {
                let text = next.encode(None);
                assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
                after = Some(Cursor::decode(&text, None).expect("the cursor of before"));
                assert_eq!(after, Some(next));
            }
        }
    }
}

async fn pages_of_any_size_are_the_list(store: Arc<dyn Store>) {
    let mut documents = numbered(0..700);
    documents.push(crate::harness::document(r#"{"_id":{"$oid":"507f1f77bcf86cd799439011"}}"#));
    documents.push(crate::harness::document(r#"{"_id":"text"}"#));
    documents.push(crate::harness::document(r#"{"_id":0.5}"#));
    documents.push(crate::harness::document(r#"{"_id":true}"#));
    upsert(&*store, documents).await;
    let whole = list(&*store, None).await;
    for limit in [1, 2, 63, 256, 352, 703, 704, 705, 10_000] {
        let pages = pages(&*store, limit).await;
        assert_eq!(pages.len(), whole.len().div_ceil(limit), "no page more than needed, at {limit}");
        assert!(pages.concat() == whole, "at {limit}");
    }
}

async fn a_page_has_as_many_bytes_as_it_may_and_says_that_there_are_more(store: Arc<dyn Store>) {
    // Base64 makes 4 MB of 3.
    upsert(&*store, (0..5).map(|id| large(Value::Int32(id), 3_000_000)).collect()).await;
    let sizes: Vec<_> = pages(&*store, 1_000).await.iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2, 1]);
    upsert(&*store, vec![large(Value::Int32(9), 9_000_000)]).await;
    let sizes: Vec<_> = pages(&*store, 1_000).await.iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2, 1, 1], "a record larger than a page is a page");
}

async fn a_sorted_page_has_as_many_bytes_as_it_may(store: Arc<dyn Store>) {
    upsert(&*store, [3, 1, 4, 0, 2].map(|id| large(Value::Int32(id), 3_000_000)).into()).await;
    let sort = records::query::Sort { path: records::query::Path::parse("_id").expect("a path"), descending: true };
    let mut after = None;
    let mut ids = Vec::new();
    loop {
        let page = page(&*store, Query::all(), Some(&sort), after, 100, &mut Share::default()).await.expect("a page");
        assert!(!page.records.is_empty() && page.records.len() <= 2);
        ids.extend(page.records.iter().map(|record| record.key().clone()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(ids, [4, 3, 2, 1, 0].map(records::record::Key::Integer));
}

/// A store, and how many of its lists were begun, and are open.
struct Counted {
    store: Arc<dyn Store>,
    begun: AtomicUsize,
    open: Arc<()>,
}

impl Store for Counted {
    fn get<'a>(&'a self, id: &'a RecordId) -> Reply<'a, Found> {
        self.store.get(id)
    }

    fn list(&self, query: Query) -> Listing {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let open = self.open.clone();
        let records = self.store.list(query).map(move |record| {
            let _ = &open;
            record
        });
        records.boxed().into()
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        self.store.upsert(documents)
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.store.ping()
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

async fn a_page_that_waits_for_room_keeps_no_list_open_and_is_as_if_it_had_not(store: Arc<dyn Store>) {
    const MIB: usize = 1024 * 1024;
    upsert(&*store, (0..60).map(|id| large(Value::Int32(id), 10_000)).collect()).await;
    let sort = records::query::Sort { path: records::query::Path::parse("_id").expect("a path"), descending: true };
    for sort in [None, Some(&sort)] {
        for limit in [50, 100] {
            let expected = page(&*store, Query::all(), sort, None, limit, &mut Share::default()).await.expect("a page");
            let counted = Counted { store: store.clone(), begun: AtomicUsize::new(0), open: Arc::new(()) };
            let budget = Budget::new(2 * MIB);
            let (mut others, mut share) = (budget.share(), budget.share());
            assert!(others.try_hold(2 * MIB, 2 * MIB).expect("room"));
            let mut waiting = pin!(page(&counted, Query::all(), sort, None, limit, &mut share));
            // Until it has read as much as a page may take without asking.
            while counted.begun.load(Ordering::Relaxed) == 0 || Arc::strong_count(&counted.open) > 1 {
                assert!(poll!(&mut waiting).is_pending(), "it has not waited");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(poll!(&mut waiting).is_pending());
            drop(others);
            assert_eq!(waiting.await.expect("a page"), expected);
            assert_eq!(counted.begun.load(Ordering::Relaxed), 2);
        }
    }
}

async fn a_page_of_nothing_is_the_last(store: Arc<dyn Store>) {
    assert_eq!(pages(&*store, 10).await, [vec![]]);
}

async fn a_page_behind_a_record_that_is_gone_begins_at_the_next(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":"a"}"#, r#"{"_id":"c"}"#]).await;
    let after = Cursor { key: records::record::Key::String("b".into()), value: None };
    let page = page(&*store, Query::all(), None, Some(after), 10, &mut Share::default()).await.expect("a page");
    assert_eq!(page.records.len(), 1);
    assert!(page.next.is_none());
}

async fn a_limited_list_is_as_long_as_asked(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..50)).await;
    for limit in [1, 49, 50, 51] {
        let query = Query { limit: Some(limit), ..Query::all() };
        let listed: Vec<Record> = selected(&*store, query).try_collect().await.expect("a list");
        assert_eq!(listed.len(), limit.min(50));
    }
}

fn a_minus_in_a_name_is_not_one_before_it(_: &Context) {
    let sort = |text: &str| {
        let selection = Selection::parse(&[("sort".to_owned(), text.to_owned())]).expect("an order");
        selection.sort.expect("it was given")
    };
    let orders = ["a", "-a", r"\-a", r"-\-a", r"a.-b"].map(sort);
    for order in &orders {
        assert_eq!(sort(&order.to_string()), *order);
        let cursor = Cursor { key: records::record::Key::Integer(1), value: Some(order.value(b"{}")) };
        let text = cursor.encode(Some(order));
        let takers = orders.iter().filter(|other| Cursor::decode(&text, Some(other)).is_some());
        assert_eq!(takers.collect::<Vec<_>>(), [order]);
    }
}

fn a_cursor_comes_back_from_its_text(context: &Context) {
    let values = (crate::documents::id(), crate::documents::mixed());
    context.check(256, &values, async |_, (id, value)| {
        let fields = [("_id".into(), id)].into_iter().chain(value.map(|value| ("v".into(), value)));
        let document = Document::new(fields.collect()).expect("a document");
        let sort = records::query::Sort { path: records::query::Path::parse("v").expect("a path"), descending: true };
        let record = document.to_record();
        for sort in [None, Some(&sort)] {
            let value = sort.map(|sort| sort.value(record.json()));
            let cursor = Cursor { key: document.key().clone(), value };
            let text = cursor.encode(sort);
            assert_eq!(Cursor::decode(&text, sort), Some(cursor));
            let other =
                records::query::Sort { path: records::query::Path::parse("c").expect("a path"), descending: true };
            assert_eq!(Cursor::decode(&text, Some(&other)), None, "a cursor of another order");
            assert_eq!(Cursor::decode(&text[1..], sort), None);
            assert_eq!(Cursor::decode(&(text.clone() + "A"), sort), None);
        }
    });
}
