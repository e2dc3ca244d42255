//! Counts by `Prefer`, on lists of every form.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, pending, ready};
use futures::stream;
use records::record::{Document, RecordId};
use records::store::{CountResult, Error, GetResult, ListRequest, ListResult, Precision, Result, Store};
use rstest::rstest;

use crate::support::{Answer, Failing, Server, memory, record};

const LINES: &[&str] = &[r#"{"_id":1,"a":1}"#, r#"{"_id":2,"a":2}"#, r#"{"_id":3,"a":2}"#];

async fn preferring(server: &Server, method: &str, query: &str, prefer: &str) -> Answer {
    server.request(method, &format!("/api/v1/records{query}"), &format!("Prefer: {prefer}\r\n")).await
}

fn applied(answer: &Answer) -> (Option<&str>, Option<&str>) {
    (answer.header("preference-applied"), answer.header("records-count"))
}

#[rstest]
#[case("", "3")]
#[case("?limit=1", "3")]
#[case("?limit=1&a.eq=2&sort=-a&fields=_id", "2")]
#[case("?a.eq=2&after_id=2", "2")]
#[case("?a.eq=5", "0")]
#[tokio::test]
async fn a_list_says_how_many_records_match(
    #[case] query: &str,
    #[case] number: &str,
    #[values("count=exact", "wait=5, count=estimated")] prefer: &str,
    #[values("GET", "HEAD")] method: &str,
) {
    let server = Server::over(memory(LINES).await).await;
    let plain = server.request(method, &format!("/api/v1/records{query}"), "").await;
    assert_eq!(applied(&plain), (None, None));
    let answer = preferring(&server, method, query, prefer).await;
    assert_eq!((answer.status, applied(&answer)), (200, (Some("count=exact"), Some(number))));
    assert_eq!((&answer.body, answer.header("etag")), (&plain.body, plain.header("etag")));
    assert_eq!(answer.body.is_empty(), method == "HEAD");
    for answer in [plain, answer] {
        let vary: Vec<_> =
            answer.headers.iter().filter(|(name, _)| name == "vary").map(|(_, value)| &**value).collect();
        assert!(vary.contains(&"prefer"), "{vary:?}");
    }
}

#[tokio::test]
async fn another_preference_changes_nothing() {
    let server = Server::over(memory(LINES).await).await;
    for prefer in ["", "count", "count=all", "respond-async", "count=all, count=exact"] {
        let answer = preferring(&server, "GET", "?limit=1", prefer).await;
        assert_eq!((answer.status, applied(&answer)), (200, (None, None)), "{prefer}");
    }
    let answer = preferring(&server, "GET", "/1", "count=exact").await;
    assert_eq!((answer.status, applied(&answer)), (200, (None, None)), "a record is not counted");
}

#[tokio::test]
async fn a_cached_page_learns_the_present_count() {
    let store = memory(LINES).await;
    let server = Server::over(store.clone()).await;
    let page = preferring(&server, "GET", "?limit=1&fields=a", "count=exact").await;
    store.upsert(vec![record(9)]).await.unwrap();
    let headers = format!("Prefer: count=exact\r\nIf-None-Match: {}\r\n", page.header("etag").unwrap());
    let answer = server.request("GET", "/api/v1/records?limit=1&fields=a", &headers).await;
    assert_eq!(answer.status, 304);
    assert_eq!(applied(&answer), (Some("count=exact"), Some("4")));
}

type Counted = Result<Option<CountResult>>;

/// A store whose count is this one; without one it never ends.
#[derive(Debug)]
struct Counting(Arc<dyn Store>, Option<Counted>);

impl Store for Counting {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        self.0.get(id)
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        self.0.list(request)
    }

    fn count(&self, _: ListRequest, _: Precision) -> BoxFuture<'_, Result<Option<CountResult>>> {
        match self.1.clone() {
            Some(counted) => Box::pin(ready(counted)),
            None => Box::pin(pending()),
        }
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        self.0.upsert(documents)
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.0.ping()
    }
}

#[rstest]
#[case::no_number(Some(Ok(None)))]
#[case::an_error(Some(Err(Error::unavailable("MongoDB is away"))))]
#[case::no_end(None)]
#[tokio::test]
async fn a_list_is_answered_without_a_count_that_cannot_be_had(
    #[case] counted: Option<Counted>,
    #[values("", "?limit=1")] query: &str,
) {
    let store = Arc::new(Counting(memory(LINES).await, counted));
    let server = Server::start_with(store, |settings| settings.deadline = Duration::from_secs(1)).await;
    let answer = preferring(&server, "GET", query, "count=exact").await;
    assert_eq!((answer.status, answer.is_complete, applied(&answer)), (200, true, (None, None)));
}

#[rstest]
#[case(CountResult::estimated(1_234_567), "count=estimated", "1234567", None)]
#[case(CountResult { staleness: Some(Duration::from_millis(69_001)), ..CountResult::exact(3) }, "count=exact", "3", Some("70"))]
#[tokio::test]
async fn a_count_says_how_good_it_is(
    #[case] count: CountResult,
    #[case] preference: &str,
    #[case] number: &str,
    #[case] age: Option<&str>,
) {
    let server = Server::over(Arc::new(Counting(memory(LINES).await, Some(Ok(Some(count)))))).await;
    let answer = preferring(&server, "GET", "?limit=1", "count=exact").await;
    assert_eq!(applied(&answer), (Some(preference), Some(number)));
    assert_eq!((answer.header("age"), answer.header("cache-status").is_some()), (age, age.is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_count_that_takes_too_long_is_the_number_so_far() {
    let store = Failing {
        get: Box::new(|| Box::pin(async { Ok(None) })),
        list: Arc::new(|| stream::iter((0..5).map(|id| Ok(record(id)))).chain(stream::pending()).boxed()),
    };
    let count = store.count(ListRequest::default(), Precision::Exact).await.unwrap().unwrap();
    assert_eq!((count.is_exact, count.number), (false, 5));
}
