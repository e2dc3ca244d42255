//! Large collections, a page at a time.

use std::sync::Arc;

use records::store::Store;
use rstest::rstest;
use serde_json::Value;

use crate::support::{Answer, Failing, Server, memory};

async fn numbers(count: i64) -> Arc<dyn Store> {
    let lines: Vec<String> = (0..count).map(|id| format!(r#"{{"_id":{id},"v":{}}}"#, id % 3)).collect();
    memory(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await
}

fn ids(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let list: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    list.iter().map(|record| record["_id"].clone()).collect()
}

/// Follows the links from this page to the last one.
async fn walk(server: &Server, path: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut path = Some(path.to_owned());
    while let Some(here) = path {
        let answer = server.get(&here).await;
        pages.push(ids(&answer));
        path = answer.next();
        assert!(pages.len() < 100, "the links do not end");
    }
    pages
}

#[rstest]
#[case(1, 10)]
#[case(3, 4)]
#[case(5, 2)]
#[case(10, 1)]
#[case(11, 1)]
#[case(10_000, 1)]
#[tokio::test]
async fn the_links_lead_through_the_whole_list(#[case] limit: usize, #[case] pages: usize) {
    let server = Server::over(numbers(10).await).await;
    let walked = walk(&server, &format!("/api/v1/records?limit={limit}")).await;
    assert_eq!(walked.len(), pages);
    assert!(walked.concat().into_iter().eq((0..10).map(Value::from)));
}

#[tokio::test]
async fn the_link_keeps_what_else_was_asked_for() {
    let server = Server::over(numbers(10).await).await;
    let answer = server.get("/api/v1/records?v.in=1%2C2&limit=2&fields=_id&sort=-v").await;
    let next = answer.next().unwrap();
    assert!(
        next.starts_with("/api/v1/records?v.in=1,2&limit=2&fields=_id&sort=%2Dv&after=")
            || next.starts_with("/api/v1/records?v.in=1,2&limit=2&fields=_id&sort=-v&after="),
        "{next}"
    );
    assert_eq!(answer.body, r#"[{"_id":2},{"_id":5}]"#);
    assert_eq!(walk(&server, &next).await.concat(), [8, 1, 4, 7]);
}

#[tokio::test]
async fn a_link_holds_nothing_that_would_end_it() {
    let server = Server::over(memory(&[r#"{"_id":1,"é>\"":"<a>; b"}"#, r#"{"_id":2,"é>\"":"<a>; b"}"#]).await).await;
    let answer = server.get("/api/v1/records?limit=1&%C3%A9%3E%22.eq=%3Ca%3E%3B+b").await;
    let next = answer.next().unwrap();
    assert!(next.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte)), "{next}");
    assert_eq!(ids(&server.get(&next).await), [2]);
}

#[tokio::test]
async fn a_whole_list_has_no_link() {
    let server = Server::over(numbers(10).await).await;
    assert_eq!(server.get("/api/v1/records").await.next(), None);
}

#[rstest]
#[case("limit=0", "limit")]
#[case("limit=-1", "limit")]
#[case("limit=%2B1", "limit")]
#[case("limit=", "limit")]
#[case("limit=x", "limit")]
#[case("limit=99999999999999", "limit")]
#[case("limit=10001", "limit")]
#[case("limit=1&limit=1", "limit")]
#[case("limit=1&after=", "after")]
#[case("limit=1&after=xyz", "after")]
#[case("limit=1&after=AAAAAAAAAAAAAAAA", "after")]
#[case::of_an_older_version("limit=1&after=AUNkkmYDQWc", "after")]
#[case("after_id=1&after=xyz", "after_id")]
#[case("after_id=", "after_id")]
#[case("after_id=1&sort=v&limit=1", "after_id")]
#[case("sort=v", "limit")]
#[case("sort=", "sort")]
#[case("sort=a,-a&limit=1", "sort")]
#[case("sort=a,b,c,d,e,f,g,h,i&limit=1", "sort")]
#[case("fields=", "fields")]
#[case("fields=a,,b", "fields")]
#[case("offset=5", "offset")]
#[case("count=true", "count")]
#[case("v.exists=1", "v.exists")]
#[case("v.like=a", "v.like")]
#[case("v.=a", "v.")]
#[case(".eq=a", ".eq")]
#[case("v%5B%24gt%5D=1", "v[$gt]")]
#[case("a=%ff", "a")]
#[tokio::test]
async fn what_means_nothing_is_400_and_says_what_would_be_right(#[case] query: &str, #[case] parameter: &str) {
    let server = Server::over(numbers(3).await).await;
    let answer = server.get(&format!("/api/v1/records?{query}")).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let problem = answer.problem();
    assert_eq!(problem["parameter"], parameter, "{problem}");
    assert!(problem["detail"].as_str().unwrap().len() > 20, "{problem}");
}

#[rstest]
#[tokio::test]
async fn a_limit_that_is_too_large_is_told_the_largest(
    #[values("10001", "99999999999999", "99999999999999999999999999")] limit: &str,
) {
    let server = Server::over(numbers(3).await).await;
    let problem = server.get(&format!("/api/v1/records?limit={limit}")).await.problem();
    assert!(problem["detail"].as_str().unwrap().contains("10000 at most"), "{problem}");
}

#[tokio::test]
async fn a_cursor_that_was_changed_or_is_of_another_order_is_400() {
    let server = Server::over(numbers(10).await).await;
    let next = server.get("/api/v1/records?limit=2").await.next().unwrap();
    let cursor = next.split("after=").nth(1).unwrap();
    for at in 0..cursor.len() {
        let mut changed = cursor.to_owned().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        let answer = server.get(&format!("/api/v1/records?limit=2&after={changed}")).await;
        assert_eq!(answer.status, 400, "{changed}");
    }
    for other in [format!("sort=v&limit=2&after={cursor}"), format!("sort=_id&limit=2&after={cursor}")] {
        let problem = server.get(&format!("/api/v1/records?{other}")).await.problem();
        assert_eq!(problem["parameter"], "after");
    }
}

#[tokio::test]
async fn a_maximum_is_one_for_all_lists() {
    let server = Server::start_with(numbers(10).await, |settings| settings.max_limit = Some(4)).await;
    let answer = server.get("/api/v1/records?limit=5").await;
    assert_eq!(answer.status, 400);
    assert!(answer.problem()["detail"].as_str().unwrap().contains("4 at most"));
    let walked = walk(&server, "/api/v1/records").await;
    assert_eq!(walked.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
}

#[tokio::test]
async fn a_default_is_for_lists_without_a_limit() {
    let server = Server::start_with(numbers(10).await, |settings| settings.default_limit = Some(3)).await;
    assert_eq!(walk(&server, "/api/v1/records").await.len(), 4);
    assert_eq!(walk(&server, "/api/v1/records?limit=10").await.len(), 1);
    assert_eq!(walk(&server, "/api/v1/records?sort=-_id").await.concat()[0], 9);
}

#[tokio::test]
async fn a_page_that_fails_says_so_by_its_status() {
    let server = Server::over(Failing::after(5)).await;
    assert_eq!(server.get("/api/v1/records?limit=4").await.status, 200);
    assert_eq!(server.get("/api/v1/records?limit=5").await.status, 500, "a page without the row after it was sent");
    assert_eq!(server.get("/api/v1/records?limit=1&sort=v").await.status, 500);
}

#[tokio::test]
async fn a_list_goes_on_behind_an_id() {
    let server =
        Server::over(memory(&[r#"{"_id":1}"#, r#"{"_id":"1"}"#, r#"{"_id":"b"}"#, r#"{"_id":"d"}"#]).await).await;
    assert_eq!(ids(&server.get("/api/v1/records?after_id=b").await), ["d"]);
    assert_eq!(
        ids(&server.get("/api/v1/records?after_id=c").await),
        ["d"],
        "the list after the id of a removed record"
    );
    assert_eq!(ids(&server.get("/api/v1/records?after_id=1&limit=1").await), ["1"]);
}

#[tokio::test]
async fn behind_an_id_that_is_gone_and_may_have_been_of_two_types_nothing_is_left_out() {
    let of = |ids: [&str; 2]| ids.map(|id| format!(r#"{{"_id":{id}}}"#));
    let strings = of([r#""507f1f77bcf86cd799439011""#, r#""507f1f77bcf86cd799439013""#]);
    let object_ids = of([r#"{"$oid":"507f1f77bcf86cd799439011"}"#, r#"{"$oid":"507f1f77bcf86cd799439013"}"#]);
    for lines in [strings, object_ids] {
        let server = Server::over(memory(&[&lines[0], &lines[1]]).await).await;
        let rest = server.get("/api/v1/records?after_id=507f1f77bcf86cd799439012").await;
        assert_eq!(ids(&rest), ["507f1f77bcf86cd799439013"], "{lines:?}");
    }
}

#[tokio::test]
async fn behind_a_text_that_several_ids_are_shown_by_nothing_is_left_out() {
    let lines = [
        r#"{"_id":{"$minKey":1}}"#,
        r#"{"_id":null}"#,
        r#"{"_id":{"$numberDouble":"NaN"}}"#,
        r#"{"_id":1}"#,
        r#"{"_id":{"$numberDouble":"Infinity"}}"#,
        r#"{"_id":"507f1f77bcf86cd799439011"}"#,
        r#"{"_id":"b"}"#,
        r#"{"_id":{"$oid":"507f1f77bcf86cd799439011"}}"#,
    ];
    let server = Server::over(memory(&lines).await).await;
    for (after, rest) in [("MinKey", 7), ("null", 6), ("1", 4), ("507f1f77bcf86cd799439011", 2), ("b", 1)] {
        let answer = server.get(&format!("/api/v1/records?after_id={after}")).await;
        assert_eq!(ids(&answer).len(), rest, "after {after}: {}", answer.body);
    }
    for (line, rest) in [(r#"{"_id":{"$numberDouble":"NaN"}}"#, 1), (r#"{"_id":{"$numberDouble":"Infinity"}}"#, 0)] {
        let server = Server::over(memory(&[line, r#"{"_id":7}"#]).await).await;
        assert_eq!(ids(&server.get("/api/v1/records?after_id=null").await).len(), rest, "{line} is shown as null");
    }
}

#[tokio::test]
async fn pages_that_nobody_reads_leave_room_for_others_once_they_are_gone() {
    let lines: Vec<_> = (0..100).map(|id| format!(r#"{{"_id":{id},"text":"{}"}}"#, "x".repeat(20_000))).collect();
    let store = memory(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let server = Server::start_with(store, |settings| {
        settings.response_memory_limit = 5 * 1024 * 1024;
    })
    .await;
    let page = "/api/v1/records?limit=100";
    assert_eq!(server.get(page).await.status, 200);
    let mut idle = server.connect().await;
    idle.send(&format!("GET {page} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    idle.read_until("\r\n\r\n").await;
    let refused = server.get(page).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(server.get("/api/v1/records?limit=2").await.status, 200, "a small page needs the memory of responses");
    assert_eq!(server.get("/api/v1/records").await.status, 200, "a stream needs as much memory as a page");
    drop(idle);
    while server.get(page).await.status != 200 {}
}

#[tokio::test]
async fn a_link_that_would_be_too_long_is_400() {
    let long = "x".repeat(7_000);
    let server = Server::over(memory(&[&format!(r#"{{"_id":"{long}"}}"#), r#"{"_id":"y"}"#]).await).await;
    let answer = server.get("/api/v1/records?limit=1").await;
    assert_eq!((answer.status, answer.problem()["parameter"].as_str()), (400, Some("limit")));
    assert!(answer.problem()["detail"].as_str().unwrap().contains("`_id`"), "{}", answer.body);
    assert_eq!(ids(&server.get("/api/v1/records?limit=2").await).len(), 2);
    let server = Server::over(numbers(3).await).await;
    let answer = server.get(&format!("/api/v1/records?v.ne={long}{long}&limit=1")).await;
    assert_eq!((answer.status, answer.problem()["parameter"].as_str()), (400, Some("limit")));
    assert!(answer.problem()["detail"].as_str().unwrap().contains("shorter values"), "{}", answer.body);
}

#[tokio::test]
async fn after_an_id_that_is_gone_the_types_of_the_others_decide() {
    let server = Server::over(memory(&[r#"{"_id":"3"}"#, r#"{"_id":"5"}"#]).await).await;
    assert_eq!(ids(&server.get("/api/v1/records?after_id=4").await), ["5"], "strings alone");
    let server = Server::over(memory(&[r#"{"_id":3}"#, r#"{"_id":5}"#, r#"{"_id":"3"}"#]).await).await;
    assert_eq!(ids(&server.get("/api/v1/records?after_id=4").await), [Value::from(5), "3".into()], "numbers too");
}

#[tokio::test]
async fn of_too_many_filters_the_one_too_many_is_named() {
    let server = Server::over(numbers(3).await).await;
    let filters = "v.ne=7&".repeat(32);
    assert_eq!(server.get(&format!("/api/v1/records?limit=1&{filters}sort=v")).await.status, 200);
    let answer = server.get(&format!("/api/v1/records?limit=1&{filters}w.eq=1&sort=v")).await;
    assert_eq!((answer.status, answer.problem()["parameter"].as_str()), (400, Some("w.eq")));
}
