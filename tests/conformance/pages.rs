//! Pages: together they are the whole list.

use std::sync::Arc;

use bson::{Bson, doc};
use proptest::prelude::any;
use records::query::{Cursor, Sort};
use records::record::{Document, Key};
use records::store::{ListRequest, MemoryPool, PAGE_BYTES, Store, page};

use crate::harness::{
    Context, after_key, cases, document, keys_of, large, list, numbered, pages, read_page, request, upsert,
    upsert_texts,
};

cases! {
    Any by store {
        pages_of_any_size_are_the_list,
        a_page_has_as_many_bytes_as_it_may_and_says_that_there_are_more,
        a_page_of_nothing_is_the_last,
        a_page_that_ends_with_the_list_is_the_last,
        a_page_after_a_record_that_is_gone_begins_at_the_next,
        a_sorted_page_has_as_many_bytes_as_it_may,
        a_page_after_a_record_that_moved_goes_on_from_where_it_was,
        a_page_without_memory_is_unavailable,
        a_page_holds_the_memory_of_its_documents,
    }
    Any by property {
        a_cursor_comes_back_from_its_text,
        a_minus_in_a_name_is_not_one_before_it,
    }
}

async fn pages_of_any_size_are_the_list(store: Arc<dyn Store>) {
    let mut documents = numbered(0..700);
    documents.push(document(r#"{"_id":{"$oid":"507f1f77bcf86cd799439011"}}"#));
    documents.push(document(r#"{"_id":"text"}"#));
    documents.push(document(r#"{"_id":0.5}"#));
    documents.push(document(r#"{"_id":{"a":1}}"#));
    upsert(&*store, documents).await;
    let whole = list(&*store, None).await;
    for limit in [1, 2, 63, 256, 352, 703, 704, 705, 10_000] {
        let pages = pages(&*store, &ListRequest::default(), limit).await;
        assert_eq!(pages.len(), whole.len().div_ceil(limit), "no page more than needed, at {limit}");
        assert!(pages.concat() == whole, "at {limit}");
    }
}

async fn a_page_has_as_many_bytes_as_it_may_and_says_that_there_are_more(store: Arc<dyn Store>) {
    let sizes = async |request| pages(&*store, &request, 1_000).await.iter().map(Vec::len).collect::<Vec<_>>();
    upsert(&*store, (0..5).map(|id| large(id, PAGE_BYTES / 2 - 100)).collect()).await;
    assert_eq!(sizes(ListRequest::default()).await, [2, 2, 1]);
    assert_eq!(sizes(request(&[("sort", "-_id")])).await, [2, 2, 1]);
    upsert(&*store, vec![large(9, PAGE_BYTES + 1)]).await;
    assert_eq!(sizes(ListRequest::default()).await, [2, 2, 1, 1], "a record larger than a page is a page");
    assert_eq!(sizes(request(&[("sort", "-_id")])).await, [1, 2, 2, 1]);
}

async fn a_sorted_page_has_as_many_bytes_as_it_may(store: Arc<dyn Store>) {
    upsert(&*store, [3, 1, 4, 0, 2].map(|id| large(id, 3_500_000)).into()).await;
    let pages = pages(&*store, &request(&[("sort", "-_id")]), 100).await;
    assert!(pages.iter().all(|page| !page.is_empty() && page.len() <= 2));
    assert_eq!(keys_of(&pages.concat()), [4, 3, 2, 1, 0].map(Key::int64));
}

async fn a_page_of_nothing_is_the_last(store: Arc<dyn Store>) {
    assert_eq!(pages(&*store, &ListRequest::default(), 10).await, [vec![]]);
    upsert(&*store, numbered(0..3)).await;
    assert_eq!(pages(&*store, &request(&[("_id.gt", "5"), ("sort", "a")]), 10).await, [vec![]]);
}

async fn a_page_that_ends_with_the_list_is_the_last(store: Arc<dyn Store>) {
    upsert(&*store, numbered(0..6)).await;
    for parameters in [&[][..], &[("sort", "-_id")], &[("sort", "a")], &[("_id.gte", "0")]] {
        for limit in [3, 6] {
            assert_eq!(pages(&*store, &request(parameters), limit).await.len(), 6 / limit, "{parameters:?}");
        }
    }
}

async fn a_page_after_a_record_that_is_gone_begins_at_the_next(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":"a"}"#, r#"{"_id":"c"}"#]).await;
    let page = read_page(&*store, &after_key(&Key::string("b")), 10).await;
    assert_eq!(keys_of(&page.documents), [Key::string("c")]);
    assert!(page.next.is_none());
}

async fn a_page_after_a_record_that_moved_goes_on_from_where_it_was(store: Arc<dyn Store>) {
    upsert_texts(&*store, &(0..6).map(|n| format!(r#"{{"_id":{n},"n":{n}}}"#)).collect::<Vec<_>>()).await;
    for (sort, expected) in [("n", [3, 4, 5, 2]), ("-n", [2, 1, 0, 3])] {
        upsert_texts(&*store, &[r#"{"_id":2,"n":2}"#, r#"{"_id":3,"n":3}"#]).await;
        let mut request = request(&[("sort", sort)]);
        let page = read_page(&*store, &request, 3).await;
        request.after = page.next;
        // The last record of the page becomes the last one of the list.
        let moved = if sort == "n" { r#"{"_id":2,"n":9}"# } else { r#"{"_id":3,"n":-9}"# };
        upsert_texts(&*store, &[moved]).await;
        let rest = pages(&*store, &request, 2).await.concat();
        assert_eq!(keys_of(&rest), expected.map(Key::int64), "{sort}");
    }
}

async fn a_page_without_memory_is_unavailable(store: Arc<dyn Store>) {
    const MIB: usize = 1024 * 1024;
    upsert(&*store, (0..60).map(|id| large(id, 10_000)).collect()).await;
    for request in [ListRequest::default(), request(&[("sort", "-_id")])] {
        let expected = read_page(&*store, &request, 50).await;
        let pool = MemoryPool::new(2 * MIB);
        let (mut others, mut own) = (pool.reservation(), pool.reservation());
        others.try_grow(2 * MIB).expect("memory");
        let refused = page(&*store, &request, 50, &mut own).await;
        assert!(refused.as_ref().is_err_and(|error| error.is_unavailable()), "{refused:?}");
        drop(others);
        let mut own = pool.reservation();
        let page = page(&*store, &request, 50, &mut own).await.expect("a page");
        assert!((page.documents, page.next) == (expected.documents, expected.next));
    }
}

async fn a_page_holds_the_memory_of_its_documents(store: Arc<dyn Store>) {
    upsert(&*store, (0..60).map(|id| large(id, 10_000)).collect()).await;
    let pool = MemoryPool::new(10_000_000);
    let mut own = pool.reservation();
    let page = page(&*store, &ListRequest::default(), 50, &mut own).await.expect("a page");
    let bytes: usize = page.documents.iter().map(|document| document.bson().len()).sum();
    assert!((bytes..bytes + 50_000).contains(&pool.reserved()), "{} of {bytes}", pool.reserved());
    drop(own);
    assert_eq!(pool.reserved(), 0);
}

fn sort(text: &str) -> Sort {
    request(&[("sort", text)]).sort
}

fn a_minus_in_a_name_is_not_one_before_it(_: &Context) {
    let orders = ["a", "-a", r"\-a", r"-\-a", r"a.-b", "a,b", "b,a", "a,-b"].map(sort);
    let document = document(r#"{"_id":1}"#);
    for order in &orders {
        assert_eq!(sort(&order.to_string()), *order);
        let cursor = Cursor { position: order.position(&document).expect("a position"), no_arrays: true };
        let text = cursor.encode(order);
        let takers = orders.iter().filter(|other| Cursor::decode(&text, other).is_some());
        assert_eq!(takers.collect::<Vec<_>>(), [order]);
    }
}

fn a_cursor_comes_back_from_its_text(context: &Context) {
    let values = (crate::documents::id(), crate::documents::mixed(), crate::documents::mixed(), any::<bool>());
    context.check(256, &values, async |_, (id, v, w, no_arrays)| {
        let document = numbered_fields(id, v, w);
        for text in [None, Some("v"), Some("-v"), Some("-v,w"), Some("w,-_id"), Some("_id,v")] {
            let order = text.map(sort).unwrap_or_default();
            // A document with arrays in two sort fields has no position.
            let Ok(position) = order.position(&document) else { continue };
            let cursor = Cursor { position, no_arrays };
            let text = cursor.encode(&order);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            assert_eq!(Cursor::decode(&text, &order), Some(cursor));
            assert_eq!(Cursor::decode(&text, &sort("c")), None, "a cursor of another order");
            assert_eq!(Cursor::decode(&text[1..], &order), None);
            assert_eq!(Cursor::decode(&(text.clone() + "A"), &order), None);
        }
    });
}

fn numbered_fields(id: Bson, v: Option<Bson>, w: Option<Bson>) -> Document {
    let mut tree = doc! { "_id": id };
    tree.extend([("v", v), ("w", w)].into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    crate::documents::stored(&tree)
}
