//! Entity tags and conditional requests (RFC 9110, sections 8.8 and 13).

use records::document::extended_json;
use records::http::Settings;
use rstest::rstest;

use crate::support::{Server, memory};

const LINES: &[&str] = &[r#"{"_id":"Ag","z":47}"#, r#"{"_id":"Au","z":79}"#];

#[rstest]
#[case("/api/v1/records/Au")]
#[case("/api/v1/records/Au?fields=z")]
#[case("/api/v1/records?limit=1")]
#[case("/api/v1/records?limit=9")]
#[tokio::test]
async fn what_the_client_has_is_304(#[case] path: &str, #[values("GET", "HEAD")] method: &str) {
    let server = Server::over(memory(LINES).await).await;
    let first = server.get(path).await;
    let tag = first.header("etag").unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "strong: {tag}");
    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
        let answer = server.request(method, path, &format!("If-None-Match: {known}\r\n")).await;
        assert_eq!((answer.status, answer.body.as_str()), (304, ""), "{known}");
        for header in ["etag", "cache-control", "vary", "link"] {
            assert_eq!(answer.header(header), first.header(header), "{header}");
        }
        assert_eq!((answer.header("content-length"), answer.header("content-type")), (None, None));
    }
    for other in ["\"x\"", "W/\"x\"", "", &tag[1..tag.len() - 1]] {
        let answer = server.request(method, path, &format!("If-None-Match: {other}\r\n")).await;
        assert_eq!(answer.status, 200, "{other}");
    }
}

#[rstest]
#[tokio::test]
async fn a_304_has_the_tag_that_the_200_would_have(
    #[values("/api/v1/records/big", "/api/v1/records/Au", "/api/v1/records?limit=9")] path: &str,
    #[values("", "Accept-Encoding: gzip\r\n", "Accept-Encoding: gzip;q=0\r\n")] coding: &str,
) {
    let big = format!(r#"{{"_id":"big","text":"{}"}}"#, "abc".repeat(1_000));
    let server = Server::over(memory(&[LINES[0], LINES[1], &big]).await).await;
    let first = server.request("GET", path, coding).await;
    let tag = first.header("etag").unwrap();
    let strong = tag.trim_start_matches("W/");
    for known in [strong.to_owned(), format!("W/{strong}"), "*".to_owned()] {
        let answer = server.request("GET", path, &format!("{coding}If-None-Match: {known}\r\n")).await;
        assert_eq!((answer.status, answer.header("etag")), (304, Some(tag)), "{known}");
        assert_eq!(answer.header("vary"), first.header("vary"));
        assert_eq!((answer.header("content-encoding"), answer.header("content-length")), (None, None));
    }
}

#[rstest]
#[tokio::test]
async fn what_the_client_insists_on_is_sent_or_is_412(
    #[values("/api/v1/records/Au", "/api/v1/records?limit=1")] path: &str,
    #[values("GET", "HEAD")] method: &str,
) {
    let server = Server::over(memory(LINES).await).await;
    let tag = server.get(path).await.header("etag").unwrap().to_owned();
    for asked in [tag.clone(), format!("\"x\", {tag}"), "*".to_owned()] {
        assert_eq!(server.request(method, path, &format!("If-Match: {asked}\r\n")).await.status, 200, "{asked}");
    }
    for other in ["\"x\"", &format!("W/{tag}"), "", "x"] {
        let known = format!("If-Match: {other}\r\nIf-None-Match: {tag}\r\n");
        let answer = server.request(method, path, &known).await;
        assert_eq!(answer.status, 412, "{other}");
        if method == "GET" {
            assert_eq!(answer.problem()["parameter"], "If-Match");
        }
    }
}

#[tokio::test]
async fn what_has_no_tag_is_none_that_the_client_insists_on() {
    let server = Server::over(memory(LINES).await).await;
    for (path, asked, status) in [
        ("/api/v1/records", "\"x\"", 412),
        ("/api/v1/records", "*", 200),
        ("/api/v1/records/X", "\"x\"", 412),
        ("/api/v1/records/X", "*", 412),
    ] {
        let answer = server.request("GET", path, &format!("If-Match: {asked}\r\n")).await;
        assert_eq!(answer.status, status, "{path} {asked}");
    }
}

#[tokio::test]
async fn a_tag_changes_with_the_bytes_and_with_nothing_else() {
    let (one, other) = (memory(LINES).await, memory(&[LINES[1], LINES[0]]).await);
    let (server, same) = (Server::over(one.clone()).await, Server::over(other).await);
    let paths = ["/api/v1/records/Au", "/api/v1/records?limit=1", "/api/v1/records?limit=2"];
    let mut before = Vec::new();
    for path in paths {
        let tag = server.get(path).await.header("etag").unwrap().to_owned();
        assert_eq!(same.get(path).await.header("etag"), Some(tag.as_str()), "another server has another tag");
        before.push(tag);
    }
    one.upsert(vec![extended_json::parse(br#"{"_id":"B","z":5}"#).unwrap()]).await.unwrap();
    let mut after = Vec::new();
    for path in paths {
        after.push(server.get(path).await.header("etag").unwrap().to_owned());
    }
    assert_eq!((&before[0], &before[1]), (&after[0], &after[1]));
    assert_ne!(before[2], after[2], "the tag does not cover the link to the next page");
    one.upsert(vec![extended_json::parse(br#"{"_id":"Au","z":80}"#).unwrap()]).await.unwrap();
    assert_ne!(server.get(paths[0]).await.header("etag").unwrap(), before[0]);
}

#[tokio::test]
async fn each_form_has_a_tag_of_its_own() {
    let server = Server::over(memory(LINES).await).await;
    let json = server.get("/api/v1/records?limit=9").await;
    let lines = server.request("GET", "/api/v1/records?limit=9", "Accept: application/x-ndjson\r\n").await;
    assert_ne!(json.header("etag"), lines.header("etag"));
    assert!(json.header("vary").unwrap().contains("accept"));
}

#[tokio::test]
async fn a_stream_has_no_tag() {
    let server = Server::over(memory(LINES).await).await;
    assert_eq!(server.get("/api/v1/records").await.header("etag"), None);
    let tagged = server.request("GET", "/api/v1/records", "If-None-Match: \"x\"\r\n").await;
    assert_eq!(tagged.status, 200);
    assert_eq!(server.request("GET", "/api/v1/records", "If-None-Match: *\r\n").await.status, 304);
}

#[tokio::test]
async fn what_is_not_there_is_204_whatever_the_client_has() {
    let server = Server::over(memory(LINES).await).await;
    assert_eq!(server.request("GET", "/api/v1/records/X", "If-None-Match: *\r\n").await.status, 204);
}

#[tokio::test]
async fn cache_control_is_a_setting() {
    let server = Server::over(memory(LINES).await).await;
    for path in ["/api/v1/records", "/api/v1/records?limit=1", "/api/v1/records/Au"] {
        assert_eq!(server.get(path).await.header("cache-control"), Some("no-cache"));
    }
    let value = "public, max-age=60";
    let server = Server::start_with(memory(LINES).await, |settings| settings.cache_control = value.parse().ok()).await;
    for path in ["/api/v1/records", "/api/v1/records?limit=1", "/api/v1/records/Au"] {
        assert_eq!(server.get(path).await.header("cache-control"), Some(value));
    }
    for path in ["/api/v1/records/X", "/api/v1/records?x=1", "/api/v1/records/Au?x=1"] {
        assert_eq!(server.get(path).await.header("cache-control"), Some("no-store"));
    }
    let server = Server::start_with(memory(LINES).await, |settings| settings.cache_control = None).await;
    assert_eq!(server.get("/api/v1/records/Au").await.header("cache-control"), None);
}

/// Returns true if a cache may answer a request with the headers `new` by a stored response to one with the headers `old` (RFC 9111,
/// section 4.1).
fn selects(vary: &str, old: &[(&str, &str)], new: &[(&str, &str)]) -> bool {
    let value = |headers: &[(&str, &str)], name: &str| {
        let found = headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| (*value).to_owned())
    };
    vary.split(',').map(str::trim).all(|name| name != "*" && value(old, name) == value(new, name))
}

#[tokio::test]
async fn a_cache_does_not_answer_a_request_with_a_token_by_another_response() {
    let set = |settings: &mut Settings| settings.cache_control = "public, max-age=60".parse().ok();
    let server = Server::start_with(memory(LINES).await, set).await;
    let (none, first, second) = ([], [("Records-Not-Before", "1.1")], [("Records-Not-Before", "1.2")]);
    for path in ["/api/v1/records", "/api/v1/records?limit=1", "/api/v1/records/Au"] {
        let answer = server.get(path).await;
        let vary = answer.header("vary").unwrap();
        assert!(selects(vary, &none, &none), "{vary}");
        assert!(selects(vary, &none, &[("Cache-Control", "max-age=5")]), "{vary}");
        assert!(selects(vary, &first, &first), "{vary}");
        assert!(!selects(vary, &none, &first) && !selects(vary, &first, &second), "{vary}");
    }
}
