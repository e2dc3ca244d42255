//! Counts by what the server knows, and by a sample.

use super::super::counts::Count;
use super::super::pushdown::{self, Pushed};
use super::super::*;
use super::plans::{request, with_fields};

fn count(query: &str, limit: Option<usize>) -> Count {
    let Pushed { clauses, .. } = pushdown::push_down(&request(query).filter);
    Count { filter: pushdown::conjunction(clauses), limit, by_bytes: false }
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_sample_tells_about_how_many_documents_match() {
    let watched = with_fields().await;
    let inner = &watched.store.inner;
    for (query, matching) in [("few.eq=1", 1_500), ("n.gte=0", 2_998)] {
        let sampled = inner.count_by_sample(&count(query, None)).await.expect("a sample").expect("a number");
        // Ten standard deviations at least.
        assert!(!sampled.is_exact && sampled.number.abs_diff(matching) < 400, "{query}: {sampled:?}");
    }
    let none = inner.count_by_sample(&count("few.eq=7", None)).await.expect("a sample");
    assert_eq!(none, None, "no number is better than a wrong one");
}

#[tokio::test]
#[ignore = "needs TEST_MONGOD or TEST_MONGODB_URL"]
async fn a_count_reads_no_further_than_its_limit() {
    let watched = with_fields().await;
    let inner = &watched.store.inner;
    for (limit, number) in [(None, 1_500), (Some(1_500), 1_500), (Some(10), 11)] {
        assert_eq!(inner.count_exactly(&count("few.eq=1", limit)).await.expect("a count"), number);
    }
    let all = ListRequest { limit: Some(10), ..ListRequest::default() };
    for precision in [Precision::Exact, Precision::Estimated] {
        let count = watched.store.count(all.clone(), precision).await.expect("a count");
        assert_eq!(count, Some(CountResult::estimated(3_000)), "the server knows it beyond the limit");
    }
}
