//! Pages of other origins.

use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;

use crate::support::{Answer, Failing, Server, memory};

const PREFLIGHT: &str = "Origin: https://app.example\r\nAccess-Control-Request-Method: GET\r\n\
                         Access-Control-Request-Headers: if-none-match\r\n";

async fn server(origins: &'static [&'static str]) -> Server {
    let store = memory(&[r#"{"_id":1}"#]).await;
    Server::start_with(store, |settings| *settings = settings.clone().cors_origins(origins.iter().copied()).unwrap())
        .await
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[tokio::test]
async fn without_the_setting_nothing_is_said() {
    let server = server(&[]).await;
    let answer = server.request("GET", "/api/v1/records/1", "Origin: https://app.example\r\n").await;
    assert_eq!((answer.status, allowed(&answer)), (200, None));
    assert_eq!(server.request("OPTIONS", "/api/v1/records", PREFLIGHT).await.status, 405);
}

#[rstest]
#[case(&["https://app.example"], Some("https://app.example"))]
#[case(&["https://other.example", "https://app.example"], Some("https://app.example"))]
#[case(&["*"], Some("*"))]
#[case(&["https://other.example"], None)]
#[tokio::test]
async fn an_origin_that_is_named_may_read(
    #[case] origins: &'static [&'static str],
    #[case] expected: Option<&str>,
    #[values("/api/v1/records/1", "/api/v1/records?limit=1", "/api/v1/records?x=1", "/nowhere")] path: &str,
) {
    let server = server(origins).await;
    let answer = server.request("GET", path, "Origin: https://app.example\r\n").await;
    assert_eq!(allowed(&answer), expected);
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(
        [
            "link",
            "etag",
            "age",
            "cache-status",
            "records-as-of",
            "records-count",
            "preference-applied",
            "retry-after",
            "x-request-id",
            "server-timing"
        ]
        .iter()
        .all(|name| exposed.contains(name)),
        "{exposed}"
    );
    let varies = answer.headers.iter().any(|(name, value)| name == "vary" && value.contains("origin"));
    assert_eq!(varies, origins != ["*"], "{answer:?}");
    let preflight = server.request("OPTIONS", path, PREFLIGHT).await;
    assert_eq!((preflight.status, allowed(&preflight)), (200, expected));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET,HEAD"));
    let headers = preflight.header("access-control-allow-headers").unwrap();
    assert!(
        ["if-none-match", "records-not-before", "cache-control"].iter().all(|name| headers.contains(name)),
        "{headers}"
    );
}

#[tokio::test]
async fn an_origin_that_is_named_may_read_what_went_wrong() {
    let late = Failing::until(Arc::default(), Arc::default());
    let panics = Arc::new(Failing { get: Box::new(|| panic!("a test")), list: Arc::new(|| panic!("a test")) });
    for (store, status) in [(late, 503), (panics, 500)] {
        let server = Server::start_with(store, |settings| {
            settings.deadline = Duration::from_millis(100);
            *settings = settings.clone().cors_origins(["https://app.example"]).unwrap();
        })
        .await;
        for path in ["/api/v1/records/1", "/api/v1/records", "/api/v1/records?limit=1"] {
            let answer = server.request("GET", path, "Origin: https://app.example\r\n").await;
            assert_eq!((answer.status, allowed(&answer)), (status, Some("https://app.example")), "{path}");
            assert!(answer.problem()["request_id"].is_string());
        }
    }
}

#[tokio::test]
async fn spaces_around_an_origin_do_not_count() {
    let server = server(&["https://other.example", " https://app.example "]).await;
    let answer = server.request("GET", "/api/v1/records/1", "Origin: https://app.example\r\n").await;
    assert_eq!(allowed(&answer), Some("https://app.example"));
}

#[rstest]
fn what_is_no_origin_is_refused(
    #[values(
        "app.example",
        "https://",
        "https://a.example/",
        "https://*.a",
        "https://App.example",
        "https://a b",
        " ",
        ""
    )]
    origin: &str,
) {
    let settings = records::http::Settings::from(std::time::Duration::from_secs(1));
    assert!(settings.cors_origins([origin]).unwrap_err().contains("https://example.com"));
}

/// Returns the headers that a preflight allows for a page that asks for `asked`.
async fn allowed_headers(server: &Server, asked: &str) -> Vec<String> {
    let preflight = format!(
        "Origin: https://app.example\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: {asked}\r\n"
    );
    let answer = server.request("OPTIONS", "/api/v1/records", &preflight).await;
    assert_eq!((answer.status, allowed(&answer)), (200, Some("https://app.example")));
    let names = answer.header("access-control-allow-headers").unwrap_or_default();
    names.split(',').map(|name| name.trim().to_lowercase()).collect()
}

#[tokio::test]
async fn a_page_may_send_what_the_api_and_a_gateway_read() {
    let server = server(&["https://app.example"]).await;
    let allowed = allowed_headers(&server, "authorization,tracestate,baggage").await;
    for name in
        ["accept", "authorization", "traceparent", "tracestate", "baggage", "if-match", "if-none-match", "x-request-id"]
    {
        assert!(allowed.iter().any(|other| other == name), "{name} is not among {allowed:?}");
    }
}

#[rstest]
#[case(&["X-Tenant", " accept "], &["x-tenant", "accept"])]
#[case(&["*"], &["authorization", "x-anything"])]
#[tokio::test]
async fn the_headers_that_a_page_may_send_are_a_setting(#[case] names: &[&str], #[case] expected: &[&str]) {
    let server = Server::start_with(memory(&[]).await, |settings| {
        let set = settings.clone().cors_origins(["https://app.example"]).unwrap();
        *settings = set.cors_headers(names.iter().copied()).unwrap();
    })
    .await;
    assert_eq!(allowed_headers(&server, "authorization,x-anything").await, expected);
}

#[rstest]
fn a_header_that_no_page_can_send_is_refused(#[values("a b", "x:y", "", "é")] name: &str) {
    let settings = records::http::Settings::from(Duration::from_secs(1));
    assert!(settings.cors_headers(["accept", name]).unwrap_err().contains("X-Tenant"));
}

#[rstest]
#[case(&[])]
#[case(&["*"])]
#[case(&["https://app.example"])]
#[tokio::test]
async fn options_names_the_methods_that_are_allowed(
    #[case] origins: &'static [&'static str],
    #[values("*", "/api/v1/records", "/api/v1/records/1", "/livez")] path: &str,
    #[values("", "Origin: https://app.example\r\n", PREFLIGHT)] headers: &str,
) {
    let server = server(origins).await;
    let answer = server.request("OPTIONS", path, headers).await;
    assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{answer:?}");
    let is_answered = path == "*" || !origins.is_empty();
    assert_eq!(answer.status, if is_answered { 200 } else { 405 });
}
