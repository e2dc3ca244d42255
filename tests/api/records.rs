//! The two endpoints of records.

use rstest::rstest;

use crate::support::{Server, memory};

#[tokio::test]
async fn a_record_is_one_object_and_not_a_list() {
    let server = Server::over(memory(&[r#"{"_id": "Au", "mass": 196.97, "whole": 5.0, "count": 5}"#]).await).await;
    let answer = server.get("/api/v1/records/Au").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.body, r#"{"_id":"Au","mass":196.97,"whole":5.0,"count":5}"#);
    assert!(answer.is_complete);
}

#[tokio::test]
async fn a_record_that_is_not_there_is_a_bare_204_that_no_cache_keeps() {
    let server = Server::over(memory(&[]).await).await;
    let answer = server.get("/api/v1/records/Au").await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!((answer.header("content-type"), answer.header("content-length")), (None, None));
    assert_eq!(answer.header("transfer-encoding"), None);
}

#[rstest]
#[case::object_id_of_nothing("507f1f77bcf86cd799439011")]
#[case::almost_an_object_id("507f1f77bcf86cd79943901")]
#[case::a_blank("%20")]
#[case::a_nul("%00")]
#[case::a_newline("%0A")]
#[case::an_encoded_slash("a%2Fb")]
#[case::an_encoded_path("..%2F..%2Fetc%2Fpasswd")]
#[case::dots("..")]
#[case::one_dot(".")]
#[case::an_operator("%7B%22$ne%22:1%7D")]
#[case::a_plus("a+b")]
#[case::a_semicolon(";drop=1")]
#[case::an_encoded_question_mark("what%3F")]
#[case::an_encoded_percent_sign("100%25")]
#[case::greek("%CE%A7%CF%81%CF%85%CF%83%CF%8C%CF%82")]
#[case::beyond_every_number("99999999999999999999999999")]
#[tokio::test]
async fn an_odd_id_of_no_record_is_204(#[case] id: &str) {
    let server = Server::over(memory(&[r#"{"_id": "Au"}"#]).await).await;
    assert_eq!(server.get(&format!("/api/v1/records/{id}")).await.status, 204);
}

#[tokio::test]
async fn an_id_of_four_kilobytes_is_204() {
    let server = Server::over(memory(&[]).await).await;
    assert_eq!(server.get(&format!("/api/v1/records/{}", "x".repeat(4096))).await.status, 204);
}

#[rstest]
#[case::empty("/api/v1/records/", "empty")]
#[case::two_segments("/api/v1/records/a/b", "%2F")]
#[case::a_slash_behind("/api/v1/records/a/", "%2F")]
#[case::a_path("/api/v1/records/../../etc/passwd", "%2F")]
#[case::a_cut_escape("/api/v1/records/100%", "%25")]
#[case::a_wrong_escape("/api/v1/records/%zz", "%25")]
#[case::not_utf8("/api/v1/records/%ff%fe", "UTF-8")]
#[tokio::test]
async fn an_id_that_cannot_be_read_is_400_and_says_what_would_be_right(#[case] path: &str, #[case] says: &str) {
    let server = Server::over(memory(&[]).await).await;
    let answer = server.get(path).await;
    assert_eq!(answer.status, 400);
    let problem = answer.problem();
    assert_eq!(problem["parameter"], "id");
    assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
}

#[rstest]
#[case("Curaçao", "Cura%C3%A7ao")]
#[case("a/b c", "a%2Fb%20c")]
#[case("50%", "50%25")]
#[case("a+b", "a+b")]
#[case("who?", "who%3F")]
#[tokio::test]
async fn an_id_is_percent_decoded_once(#[case] id: &str, #[case] encoded: &str) {
    let line = serde_json::json!({ "_id": id }).to_string();
    let server = Server::over(memory(&[&line]).await).await;
    let answer = server.get(&format!("/api/v1/records/{encoded}")).await;
    assert_eq!((answer.status, answer.body), (200, line));
}

#[tokio::test]
async fn the_list_is_an_array_in_id_order() {
    let lines = [r#"{"_id": "b"}"#, r#"{"_id": 10}"#, r#"{"_id": "a", "x": [1]}"#, r#"{"_id": 9}"#];
    let server = Server::over(memory(&lines).await).await;
    let answer = server.get("/api/v1/records").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.body, r#"[{"_id":9},{"_id":10},{"_id":"a","x":[1]},{"_id":"b"}]"#);
    assert!(answer.is_complete);
}

#[tokio::test]
async fn the_list_of_nothing_is_an_empty_array() {
    let server = Server::over(memory(&[]).await).await;
    let answer = server.get("/api/v1/records").await;
    assert_eq!((answer.status, answer.body.as_str(), answer.is_complete), (200, "[]", true));
}

#[tokio::test]
async fn a_list_of_many_records_is_whole() {
    let lines: Vec<String> =
        (0..20_000).map(|id| format!(r#"{{"_id": {id}, "text": "{}"}}"#, "x".repeat(id % 100))).collect();
    let server = Server::over(memory(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await).await;
    let answer = server.get("/api/v1/records").await;
    let list: Vec<serde_json::Value> = serde_json::from_str(&answer.body).unwrap();
    assert!(answer.is_complete);
    assert!(list.iter().map(|record| record["_id"].as_i64().unwrap()).eq(0..20_000));
}

#[rstest]
#[case("/api/v1/records/Au", 200)]
#[case("/api/v1/records/nothing", 204)]
#[case("/api/v1/records/%zz", 400)]
#[case("/nowhere", 404)]
#[case("/livez", 200)]
#[case("/readyz", 200)]
#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body(#[case] path: &str, #[case] status: u16) {
    let server = Server::over(memory(&[r#"{"_id": "Au"}"#]).await).await;
    // Both requests have the same id, so that the responses can be compared byte for byte.
    let (get, head) = (
        server.request("GET", path, "X-Request-Id: same\r\n").await,
        server.request("HEAD", path, "X-Request-Id: same\r\n").await,
    );
    let without_date = |headers: &[(String, String)]| -> Vec<(String, String)> {
        headers.iter().filter(|(name, _)| name != "date").cloned().collect()
    };
    assert_eq!((get.status, head.status), (status, status));
    let (mut of_get, mut of_head) = (without_date(&get.headers), without_date(&head.headers));
    of_get.sort();
    of_head.sort();
    assert_eq!(of_get, of_head);
    assert_eq!(head.body, "");
}

#[tokio::test]
async fn head_of_the_list_says_nothing_of_a_length_it_does_not_know() {
    let server = Server::over(memory(&[r#"{"_id": "Au"}"#]).await).await;
    let head = server.request("HEAD", "/api/v1/records", "").await;
    assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", None));
}

#[rstest]
#[case("/api/v1/records?page=5", "page")]
#[case("/api/v1/records?a%20b", "a b")]
#[case("/api/v1/records/Au?pretty", "pretty")]
#[tokio::test]
async fn a_parameter_that_does_not_exist_is_400_and_named(#[case] path: &str, #[case] name: &str) {
    let server = Server::over(memory(&[]).await).await;
    let answer = server.get(path).await;
    assert_eq!((answer.status, &answer.problem()["parameter"]), (400, &name.into()));
}

#[tokio::test]
async fn an_empty_query_is_no_parameter() {
    let server = Server::over(memory(&[]).await).await;
    assert_eq!(server.get("/api/v1/records?").await.status, 200);
}

#[tokio::test]
async fn a_request_id_is_taken_over() {
    let server = Server::over(memory(&[]).await).await;
    let answer = server.request("GET", "/nowhere", "X-Request-Id: abc-123\r\n").await;
    assert_eq!(answer.header("x-request-id"), Some("abc-123"));
    assert_eq!(answer.problem()["request_id"], "abc-123");
}

#[rstest]
#[case::empty("".into())]
#[case::too_long("x".repeat(129))]
#[case::with_blanks("a b".into())]
#[tokio::test]
async fn a_request_id_that_no_log_can_show_is_replaced(#[case] id: String) {
    let server = Server::over(memory(&[]).await).await;
    let answer = server.request("GET", "/api/v1/records/x", &format!("X-Request-Id: {id}\r\n")).await;
    let given = answer.header("x-request-id").unwrap();
    assert!(given != id && !given.is_empty());
}

#[tokio::test]
async fn every_request_gets_an_id_of_its_own() {
    let server = Server::over(memory(&[]).await).await;
    let (first, second) = (server.get("/livez").await, server.get("/livez").await);
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

#[rstest]
#[case("GET /api/v1/records/Au HTTP/1.1\r\nConnection: close\r\n\r\n", 400)]
#[case("GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n", 400)]
#[case("GET /api/v1/records/Au HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", 400)]
#[case("GET /api/v1/records/Au HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400)]
#[case("GET /api/v1/records/Au HTTP/1.1\r\nHost: a b/\r\nConnection: close\r\n\r\n", 400)]
#[case("GET /api/v1/records/Au HTTP/1.1\r\nHost: user@a\r\nConnection: close\r\n\r\n", 400)]
#[case("GET /api/v1/records/Au HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n", 200)]
#[case("GET /api/v1/records/Au HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", 200)]
#[case("GET /api/v1/records/Au HTTP/1.0\r\n\r\n", 200)]
#[case("GET http://a/api/v1/records/Au HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n", 200)]
#[case("GET http://a/api/v1/records/Au HTTP/1.1\r\nConnection: close\r\n\r\n", 400)]
#[case("GET http://user@a/api/v1/records/Au HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400)]
#[case("GET ftp://a/api/v1/records/Au HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400)]
#[tokio::test]
async fn a_request_has_one_host(#[case] request: &str, #[case] status: u16) {
    let server = Server::over(memory(&[r#"{"_id": "Au"}"#]).await).await;
    let mut connection = server.connect().await;
    connection.send(request).await;
    let answer = String::from_utf8(connection.read_to_end().await).unwrap();
    let (version, rest) = answer.split_once(' ').unwrap();
    assert!(version.starts_with("HTTP/1.") && rest.starts_with(&status.to_string()), "{answer}");
    assert_eq!(answer.contains(r#""parameter":"Host""#), status == 400, "{answer}");
}

#[rstest]
#[case::a_record("GET", "/api/v1/records/Au", "", 200)]
#[case::no_record("GET", "/api/v1/records/nothing", "", 204)]
#[case::not_modified("GET", "/api/v1/records/Au", "If-None-Match: *\r\n", 304)]
#[case::a_page("GET", "/api/v1/records?limit=1", "", 200)]
#[case::a_stream("GET", "/api/v1/records", "", 200)]
#[case::a_mistake("GET", "/api/v1/records?colour=red", "", 400)]
#[case::an_id_without_sense("GET", "/api/v1/records/%zz", "", 400)]
#[case::two_hosts("GET", "/api/v1/records/Au", "Host: other\r\n", 400)]
#[case::nowhere("GET", "/nowhere", "", 404)]
#[case::another_method("DELETE", "/api/v1/records", "", 405)]
#[case::a_preflight(
    "OPTIONS",
    "/api/v1/records",
    "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n",
    200
)]
#[case::no_media_type("GET", "/api/v1/records/Au", "Accept: text/csv\r\n", 406)]
#[case::another_state("GET", "/api/v1/records/Au", "If-Match: \"x\"\r\n", 412)]
#[case::liveness("GET", "/livez", "", 200)]
#[case::readiness("GET", "/readyz", "", 200)]
#[case::metrics("GET", "/metrics", "", 200)]
#[tokio::test]
async fn no_response_may_be_taken_for_another_type(
    #[case] method: &str,
    #[case] path: &str,
    #[case] headers: &str,
    #[case] status: u16,
) {
    let store = memory(&[r#"{"_id": "Au"}"#]).await;
    let server =
        Server::start_with(store, |settings| *settings = settings.clone().cors_origins(["https://a.example"]).unwrap())
            .await;
    let answer = server.request(method, path, headers).await;
    assert_eq!((answer.status, answer.header("x-content-type-options")), (status, Some("nosniff")));
    assert!(answer.header("x-request-id").is_some());
}
