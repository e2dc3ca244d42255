//! Numbers of documents.

use std::sync::Arc;

use records::store::{ListRequest, Precision, Store};

use crate::harness::{cases, ids, read_page, request, upsert_texts};

cases! {
    Any by store {
        an_exact_count_is_of_all_that_match,
        a_count_ends_at_its_limit,
        a_count_is_the_same_wherever_the_list_begins,
        an_estimate_is_exact_with_a_filter,
        an_empty_store_has_a_count,
        a_count_follows_writes,
    }
}

async fn count(store: &dyn Store, request: ListRequest, precision: Precision) -> (u64, bool) {
    let count = store.count(request, precision).await.expect("a count").expect("a number in time");
    (count.number, count.is_exact)
}

async fn exactly(store: &dyn Store, parameters: &[(&str, &str)]) -> u64 {
    let (number, is_exact) = count(store, request(parameters), Precision::Exact).await;
    assert!(is_exact, "{parameters:?}");
    number
}

async fn fill(store: &dyn Store) {
    let texts = (0..50).map(|n| {
        let tags = if n % 5 == 0 { r#"["Aa","Ac"]"# } else { r#"["Ab"]"# };
        format!(r#"{{"_id":{n},"n":{},"a.b":{},"tags":{tags},"name":"n{n}"}}"#, n % 10, n % 2)
    });
    upsert_texts(store, &texts.collect::<Vec<_>>()).await;
}

async fn an_exact_count_is_of_all_that_match(store: Arc<dyn Store>) {
    fill(&*store).await;
    for (parameters, number) in [
        (&[][..], 50),
        (&[("n.lt", "3")], 15),
        (&[("n.eq", "11")], 0),
        (&[("or", "(n.eq=1,name.starts=n4)")], 15),
        // MongoDB cannot say these.
        (&[(r"a\.b.eq", "1")], 25),
        (&[("tags.starts", "Ab")], 40),
        (&[("tags.starts", "Ab"), ("n.in", "0,1")], 5),
    ] {
        assert_eq!(exactly(&*store, parameters).await, number, "{parameters:?}");
        assert_eq!(ids(&*store, parameters).await.len() as u64, number, "{parameters:?}");
    }
}

async fn a_count_ends_at_its_limit(store: Arc<dyn Store>) {
    fill(&*store).await;
    for parameters in
        [&[("n.lt", "3")][..], &[(r"a\.b.eq", "1"), ("n.in", "0,1,2,3,4,5")], &[("tags.starts", "Ab"), ("n.lt", "4")]]
    {
        for (limit, expected) in [(16, (15, true)), (15, (15, true)), (14, (14, false)), (1, (1, false))] {
            let request = ListRequest { limit: Some(limit), ..request(parameters) };
            assert_eq!(count(&*store, request, Precision::Exact).await, expected, "{parameters:?} up to {limit}");
        }
    }
    // Without a filter the store may know the number.
    let request = ListRequest { limit: Some(14), ..ListRequest::default() };
    let (number, is_exact) = count(&*store, request, Precision::Exact).await;
    assert!(number == 50 || (number == 14 && !is_exact), "{number}");
}

async fn a_count_is_the_same_wherever_the_list_begins(store: Arc<dyn Store>) {
    fill(&*store).await;
    for parameters in
        [&[("n.lt", "3")][..], &[("n.lt", "3"), ("sort", "-n"), ("fields", "n")], &[("tags.starts", "Ab")]]
    {
        let first = request(parameters);
        let expected = count(&*store, first.clone(), Precision::Exact).await;
        let after = read_page(&*store, &first, 4).await.next;
        assert!(after.is_some());
        assert_eq!(count(&*store, ListRequest { after, ..first }, Precision::Exact).await, expected, "{parameters:?}");
    }
}

async fn an_estimate_is_exact_with_a_filter(store: Arc<dyn Store>) {
    fill(&*store).await;
    assert_eq!(count(&*store, request(&[("n.lt", "3")]), Precision::Estimated).await, (15, true));
    let (number, _) = count(&*store, ListRequest::default(), Precision::Estimated).await;
    assert_eq!(number, 50);
}

async fn an_empty_store_has_a_count(store: Arc<dyn Store>) {
    for precision in [Precision::Exact, Precision::Estimated] {
        assert_eq!(count(&*store, ListRequest::default(), precision).await.0, 0);
        assert_eq!(count(&*store, request(&[("n.eq", "1")]), precision).await, (0, true));
    }
}

async fn a_count_follows_writes(store: Arc<dyn Store>) {
    let text = |id: i32, v: i32| format!(r#"{{"_id":{id},"v":{v}}}"#);
    upsert_texts(&*store, &[text(1, 1), text(2, 1)]).await;
    assert_eq!(exactly(&*store, &[]).await, 2);
    upsert_texts(&*store, &[text(2, 2), text(3, 2), text(3, 3)]).await;
    assert_eq!(exactly(&*store, &[]).await, 3);
    assert_eq!(exactly(&*store, &[("v.eq", "2")]).await, 1);
}
