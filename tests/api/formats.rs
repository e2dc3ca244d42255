//! The formats of a response: JSON array, lines, and compression.

use rstest::rstest;

use crate::support::{Failing, Server, memory};

const LINES: &[&str] = &[r#"{"_id":1,"a":"x\ny"}"#, r#"{"_id":2,"a":[1.0]}"#];

#[rstest]
#[case("", "application/json", "[{\"_id\":1,\"a\":\"x\\ny\"},{\"_id\":2,\"a\":[1.0]}]")]
#[case("application/x-ndjson", "application/x-ndjson", "{\"_id\":1,\"a\":\"x\\ny\"}\n{\"_id\":2,\"a\":[1.0]}\n")]
#[tokio::test]
async fn a_list_has_the_form_that_the_client_asks_for(
    #[case] accept: &str,
    #[case] content_type: &str,
    #[case] body: &str,
    #[values("", "?limit=2", "?limit=2&sort=_id", "?_id.exists=true")] query: &str,
) {
    let server = Server::over(memory(LINES).await).await;
    let header = if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
    let answer = server.request("GET", &format!("/api/v1/records{query}"), &header).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)));
    assert_eq!((answer.body.as_str(), answer.is_complete), (body, true));
}

#[rstest]
#[case(r#"text/csv; header="absent""#, "text/csv; charset=utf-8; header=absent")]
#[case(r#"application/x-ndjson;profile="a,b;q=1";q=0.1, application/json;q=0.5"#, "application/json")]
#[tokio::test]
async fn a_quoted_parameter_of_a_media_type_is_one(#[case] accept: &str, #[case] content_type: &str) {
    let server = Server::over(memory(LINES).await).await;
    let answer = server.request("GET", "/api/v1/records?fields=a", &format!("Accept: {accept}\r\n")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)));
}

#[tokio::test]
async fn lines_of_nothing_are_nothing() {
    let server = Server::over(memory(&[]).await).await;
    for query in ["", "?limit=1"] {
        let path = format!("/api/v1/records{query}");
        let answer = server.request("GET", &path, "Accept: application/x-ndjson\r\n").await;
        assert_eq!((answer.status, answer.body.as_str(), answer.is_complete), (200, "", true));
    }
}

#[tokio::test]
async fn lines_that_fail_half_way_do_not_look_whole() {
    let server = Server::over(Failing::after(20_000)).await;
    let answer = server.request("GET", "/api/v1/records", "Accept: application/x-ndjson\r\n").await;
    assert_eq!((answer.status, answer.is_complete), (200, false));
}

#[rstest]
#[case("/api/v1/records", "application/json, application/x-ndjson or text/csv")]
#[case("/api/v1/records/1", "application/json")]
#[tokio::test]
async fn a_form_that_there_is_not_is_406(#[case] path: &str, #[case] forms: &str) {
    let server = Server::over(memory(LINES).await).await;
    let answer = server.request("GET", path, "Accept: text/html\r\n").await;
    assert_eq!(answer.status, 406);
    let problem = answer.problem();
    assert_eq!(problem["parameter"], "Accept");
    assert!(problem["detail"].as_str().unwrap().contains(&format!("use {forms}.")), "{problem}");
}

const ROWS: &[&str] = &[
    r#"{"_id":1,"name":{"en":"Gold, \"Au\"","de":"=1+1"},"n":-5,"tags":["x",{"y":1}]}"#,
    r#"{"_id":2,"name":{"en":"two\nlines"},"n":null}"#,
    r#"{"_id":3,"n":{"$numberDecimal":"-1.50"}}"#,
];

#[rstest]
#[tokio::test]
async fn a_list_as_csv_has_a_column_for_each_field(
    #[values("text/csv", "text/csv; header=present", "text/csv; header=absent", "text/*")] accept: &str,
    #[values("", "&limit=5", "&limit=5&sort=_id")] also: &str,
) {
    let server = Server::over(memory(ROWS).await).await;
    let path = format!("/api/v1/records?fields=n,name.en,_id,name.de,tags,n{also}");
    let answer = server.request("GET", &path, &format!("Accept: {accept}\r\n")).await;
    let is_absent = accept.ends_with("absent");
    let form = if is_absent { "absent" } else { "present" };
    let content_type = format!("text/csv; charset=utf-8; header={form}");
    assert_eq!((answer.status, answer.header("content-type"), answer.is_complete), (200, Some(&*content_type), true));
    let rows = concat!(
        "-5,\"Gold, \"\"Au\"\"\",1,'=1+1,\"[\"\"x\"\",{\"\"y\"\":1}]\"\r\n",
        ",\"two\nlines\",2,,\r\n",
        "-1.50,,3,,\r\n"
    );
    let header = if is_absent { "" } else { "n,name.en,_id,name.de,tags\r\n" };
    assert_eq!(answer.body, format!("{header}{rows}"));
    assert!(answer.header("vary").unwrap().contains("accept"));
}

#[tokio::test]
async fn a_field_inside_of_another_is_no_column_of_its_own() {
    let server = Server::over(memory(ROWS).await).await;
    let answer = server.request("GET", "/api/v1/records?fields=name.en,_id,name&limit=1", "Accept: text/csv\r\n").await;
    assert!(answer.body.starts_with("_id,name\r\n1,\"{\"\"en\"\""), "{}", answer.body);
}

#[rstest]
#[tokio::test]
async fn csv_without_fields_is_refused(#[values("", "?limit=5", "?n.gt=5")] query: &str) {
    let server = Server::over(memory(ROWS).await).await;
    let answer = server.request("GET", &format!("/api/v1/records{query}"), "Accept: text/csv\r\n").await;
    assert_eq!((answer.status, answer.problem()["parameter"].as_str()), (400, Some("fields")));
    assert!(answer.problem()["detail"].as_str().unwrap().contains("`fields=_id,name"));
    let record = server.request("GET", "/api/v1/records/1?fields=n", "Accept: text/csv\r\n").await;
    assert_eq!(record.status, 406, "a single record is JSON");
}

#[tokio::test]
async fn pages_of_csv_follow_each_other_and_have_tags_of_their_own() {
    let server = Server::over(memory(ROWS).await).await;
    let accept = "Accept: text/csv;header=absent\r\n";
    let mut path = Some("/api/v1/records?fields=_id&limit=1&sort=-_id".to_owned());
    let mut body = String::new();
    while let Some(here) = path {
        let answer = server.request("GET", &here, accept).await;
        let tag = answer.header("etag").unwrap().to_owned();
        for other in ["application/json", "text/csv"] {
            let other = server.request("GET", &here, &format!("Accept: {other}\r\n")).await;
            assert_ne!(other.header("etag"), Some(&*tag));
        }
        let known = server.request("GET", &here, &format!("{accept}If-None-Match: {tag}\r\n")).await;
        assert_eq!(known.status, 304);
        body += &answer.body;
        path = answer.next();
    }
    assert_eq!(body, "3\r\n2\r\n1\r\n");
}

#[tokio::test]
async fn csv_of_nothing_is_its_header() {
    let server = Server::over(memory(&[]).await).await;
    for query in ["", "&limit=1"] {
        for (header, body) in [("present", "a,b.c\r\n"), ("absent", "")] {
            let accept = format!("Accept: text/csv;header={header}\r\n");
            let answer = server.request("GET", &format!("/api/v1/records?fields=a,b.c{query}"), &accept).await;
            assert_eq!((answer.status, answer.body.as_str(), answer.is_complete), (200, body, true));
        }
    }
}

#[tokio::test]
async fn csv_that_fails_half_way_does_not_look_whole() {
    let server = Server::over(Failing::after(100_000)).await;
    let answer = server.request("GET", "/api/v1/records?fields=_id", "Accept: text/csv\r\n").await;
    assert_eq!((answer.status, answer.is_complete), (200, false));
    assert!(answer.body.starts_with("_id\r\n0\r\n1\r\n"));
}

/// Returns true if this build compresses. `Vary` names the coding in every build: one that does not compress still refuses
/// `identity;q=0`.
fn compresses() -> bool {
    cfg!(feature = "gzip")
}

const CSV: &str = "/api/v1/records?fields=text&limit=100";

#[rstest]
#[cfg_attr(not(feature = "gzip"), ignore = "this build has no gzip")]
#[case("gzip", "gzip")]
#[cfg_attr(not(feature = "compression"), ignore = "this build has no Brotli")]
#[case("br", "br")]
#[cfg_attr(not(feature = "compression"), ignore = "this build has no Zstandard")]
#[case("zstd", "zstd")]
#[cfg_attr(not(feature = "gzip"), ignore = "this build has no gzip")]
#[case("gzip;q=0.5, br;q=0.1", "gzip")]
#[tokio::test]
async fn what_is_large_is_compressed_as_the_client_asks(
    #[case] accept: &str,
    #[case] coding: &str,
    #[values("/api/v1/records", "/api/v1/records?limit=100", "/api/v1/records/1", CSV)] path: &str,
) {
    let long = format!(r#"{{"_id":1,"text":"{}"}}"#, "abc".repeat(1_000));
    let server = Server::over(memory(&[&long]).await).await;
    let media_type = if path == CSV { "text/csv" } else { "*/*" };
    let headers = format!("Accept: {media_type}\r\nAccept-Encoding: {accept}\r\nX-Request-Id: same\r\n");
    let answer = server.request("GET", path, &headers).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some(coding)));
    assert!(answer.body.len() < 200, "{} bytes", answer.body.len());
    assert!(answer.header("etag").is_none_or(|tag| tag.starts_with("W/\"")), "{answer:?}");
    assert_eq!(answer.header("vary"), Some("accept, accept-encoding, records-not-before"));
    let head = server.request("HEAD", path, &headers).await;
    let comparable = |headers: &[(String, String)]| {
        let comparable = headers.iter().filter(|(name, _)| name != "date" && name != "transfer-encoding");
        let mut comparable = comparable.cloned().collect::<Vec<_>>();
        comparable.sort();
        comparable
    };
    assert_eq!(comparable(&head.headers), comparable(&answer.headers));
    if let Some(tag) = answer.header("etag") {
        let known = format!("{headers}If-None-Match: {tag}\r\n");
        assert_eq!(server.request("GET", path, &known).await.status, 304);
    }
}

#[rstest]
#[case::small(r#"{"_id":1}"#.to_owned(), "gzip, br, zstd")]
#[case::not_asked_for(format!(r#"{{"_id":1,"text":"{}"}}"#, "abc".repeat(1_000)), "identity")]
#[case::refused(format!(r#"{{"_id":1,"text":"{}"}}"#, "abc".repeat(1_000)), "gzip;q=0")]
#[tokio::test]
async fn what_need_not_be_compressed_is_not(#[case] line: String, #[case] accept: &str) {
    let server = Server::over(memory(&[&line]).await).await;
    let answer = server.request("GET", "/api/v1/records/1", &format!("Accept-Encoding: {accept}\r\n")).await;
    assert_eq!((answer.header("content-encoding"), &answer.body), (None, &line));
    assert!(answer.header("etag").is_some_and(|tag| tag.starts_with('"')));
}

#[rstest]
#[tokio::test]
async fn a_client_that_accepts_no_coding_is_told_which_there_are(
    #[values("identity;q=0", "*;q=0", "snappy, identity;q=0", "gzip;q=0, br;q=0, zstd;q=0, identity;q=0")] accept: &str,
    #[values("/api/v1/records/1", "/api/v1/records", "/api/v1/records?limit=1", "/api/v1/records/big")] path: &str,
) {
    let big = format!(r#"{{"_id":"big","text":"{}"}}"#, "abc".repeat(1_000));
    let server = Server::over(memory(&[LINES[0], &big]).await).await;
    let answer = server.request("GET", path, &format!("Accept-Encoding: {accept}\r\n")).await;
    assert_eq!((answer.status, answer.problem()["parameter"].as_str()), (406, Some("Accept-Encoding")));
    let detail = answer.problem()["detail"].as_str().unwrap().to_owned();
    assert_eq!(detail.contains("gzip"), compresses(), "{detail}");
    assert!(detail.contains("use identity"), "{detail}");
}

#[rstest]
#[cfg_attr(not(feature = "gzip"), ignore = "this build has no gzip")]
#[case("gzip, identity;q=0", "gzip")]
#[cfg_attr(not(feature = "gzip"), ignore = "this build has no gzip")]
#[case("gzip;q=0.1, *;q=0", "gzip")]
#[cfg_attr(not(feature = "compression"), ignore = "this build has no Zstandard")]
#[case("zstd;q=0.5, identity;q=0", "zstd")]
#[tokio::test]
async fn a_small_body_is_compressed_for_a_client_that_refuses_it_plain(
    #[case] accept: &str,
    #[case] coding: &str,
    #[values("/api/v1/records", "/api/v1/records?limit=1", "/api/v1/records/1")] path: &str,
) {
    let server = Server::over(memory(LINES).await).await;
    let answer = server.request("GET", path, &format!("Accept-Encoding: {accept}\r\n")).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some(coding)));
}

#[rstest]
#[tokio::test]
async fn an_empty_accept_is_like_none(
    #[values("Accept:\r\n", "Accept: ,\r\n", "Accept:\r\nAccept:\r\n")] headers: &str,
    #[values("/api/v1/records", "/api/v1/records?limit=1", "/api/v1/records/1")] path: &str,
) {
    let server = Server::over(memory(LINES).await).await;
    let answer = server.request("GET", path, headers).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
}

#[rstest]
#[tokio::test]
async fn what_is_cut_does_not_look_whole_compressed_either(#[values("gzip", "br", "zstd")] coding: &str) {
    let server = Server::over(Failing::after(20_000)).await;
    let mut connection = server.connect().await;
    connection.send(&format!("GET /api/v1/records HTTP/1.1\r\nHost: test\r\nAccept-Encoding: {coding}\r\n\r\n")).await;
    // The encoder may still hold all of a small list when the connection is aborted.
    let bytes = connection.read_to_end().await;
    assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 200"));
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "the client cannot tell that the list is incomplete");
}
