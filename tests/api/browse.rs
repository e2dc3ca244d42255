//! The pages for people, where they are compiled in.
#![cfg(feature = "pages")]

use rstest::rstest;
use serde_json::Value;

use crate::support::{Server, memory};

#[rstest]
#[case("/", "text/html; charset=utf-8", "<title>Records</title>")]
#[case("/pages/browse.js", "text/javascript; charset=utf-8", "use strict")]
#[case("/pages/browse.css", "text/css; charset=utf-8", "body {")]
#[tokio::test]
async fn a_file_comes_with_a_strict_policy(#[case] path: &str, #[case] content_type: &str, #[case] holds: &str) {
    let server = Server::over(memory(&[]).await).await;
    let answer = server.get(path).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)));
    assert!(answer.body.contains(holds));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let known = format!("If-None-Match: {}\r\n", answer.header("etag").unwrap());
    assert_eq!(server.request("GET", path, &known).await.status, 304);
    let compressed = "Accept-Encoding: gzip\r\n";
    let head = server.request("HEAD", path, compressed).await;
    let same = server.request("GET", path, &format!("{compressed}{known}")).await;
    assert_eq!(same.status, 304);
    for name in ["etag", "vary"] {
        assert_eq!(same.header(name), head.header(name), "{name}");
    }
    for host in ["http://", "https://"] {
        assert!(!answer.body.contains(host), "the page loads from another host");
    }
}

#[tokio::test]
async fn the_page_keeps_to_its_policy() {
    let server = Server::over(memory(&[]).await).await;
    let page = server.get("/").await.body;
    assert!(!page.contains("style=") && !page.contains("onclick") && !page.contains("<style"), "{page}");
    assert_eq!(page.matches("<script").count(), page.matches("<script src=").count());
}

#[rstest]
#[case("/docs/", "text/html")]
#[case("/docs/swagger-ui-bundle.js", "text/javascript")]
#[case("/docs/swagger-ui.css", "text/css")]
#[case("/docs/swagger-initializer.js", "text/javascript")]
#[tokio::test]
async fn the_docs_are_out_of_the_binary(#[case] path: &str, #[case] content_type: &str) {
    let server = Server::over(memory(&[]).await).await;
    let answer = server.get(path).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)));
    if path.ends_with("initializer.js") {
        assert!(answer.body.contains("/openapi.json"), "{}", answer.body);
    }
    let moved = server.get("/docs").await;
    assert_eq!(
        (moved.status, moved.header("location")),
        (308, Some("docs/")),
        "the redirect is not relative, which proxies need"
    );
}

async fn openapi(server: &Server) -> Value {
    let answer = server.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn what_is_described_is_what_is_answered() {
    let server = Server::over(memory(&[r#"{"_id":"Au","z":79}"#]).await).await;
    let openapi = openapi(&server).await;
    assert!(openapi["openapi"].as_str().unwrap().starts_with("3.1."), "{openapi}");
    for (path, item) in openapi["paths"].as_object().unwrap() {
        let answer = server.get(&path.replace("{id}", "Au")).await;
        assert_eq!(answer.status, 200, "{path}");
        let described = item["get"]["responses"]["200"]["content"].as_object().unwrap();
        let content_type = answer.header("content-type").unwrap().split(';').next().unwrap();
        assert!(described.contains_key(content_type), "{path}: {content_type} is not among {described:?}");
    }
    let parameters = openapi["paths"]["/api/v1/records"]["get"]["parameters"].as_array().unwrap();
    let names: Vec<_> = parameters.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
    let headers = ["Prefer", "Records-Not-Before", "Cache-Control", "If-Match", "If-None-Match"];
    assert_eq!(names, [&["limit", "after", "after_id", "sort", "fields", "filters", "or"], &headers[..]].concat());
    for name in ["limit", "after", "after_id", "sort", "fields"] {
        let problem = server.get(&format!("/api/v1/records?{name}=&{name}=")).await.problem();
        assert_eq!(problem["parameter"], *name, "it is a parameter");
    }
}

#[tokio::test]
async fn the_description_says_what_this_server_is_set_to() {
    let server = Server::start_with(memory(&[]).await, |settings| settings.max_limit = Some(50)).await;
    let openapi = openapi(&server).await;
    assert_eq!(openapi["paths"]["/api/v1/records"]["get"]["parameters"][0]["schema"]["maximum"], 50);
}

#[rstest]
#[tokio::test]
async fn the_docs_are_compressed_for_clients_that_ask_for_it_alone(
    #[values("/docs/", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css")] path: &str,
) {
    let server = Server::over(memory(&[]).await).await;
    let plain = server.get(path).await;
    assert_eq!((plain.status, plain.header("content-encoding")), (200, None));
    assert!(plain.body.contains("swagger"), "{} bytes", plain.body.len());
    for (accept, coding) in [
        ("identity", None),
        ("gzip;q=0", None),
        ("gzip", Some("gzip")),
        ("gzip, deflate, br, zstd", Some("gzip")),
        ("identity;q=0, *", Some("gzip")),
    ] {
        let answer = server.request("GET", path, &format!("Accept-Encoding: {accept}\r\n")).await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, coding), "{accept}");
        assert_eq!(answer.header("etag") == plain.header("etag"), coding.is_none(), "another coding has another tag");
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
    }
    let refused = server.request("GET", path, "Accept-Encoding: identity;q=0\r\n").await;
    assert_eq!((refused.status, refused.problem()["parameter"].as_str()), (406, Some("Accept-Encoding")));
}

#[tokio::test]
async fn every_operator_is_described() {
    let server = Server::over(memory(&[]).await).await;
    let openapi = openapi(&server).await;
    let filters = &openapi["paths"]["/api/v1/records"]["get"]["parameters"][5];
    assert_eq!(
        filters["schema"]["propertyNames"]["pattern"].as_str().unwrap(),
        format!(r"^[A-Za-z_][A-Za-z0-9_]*\.({})$", records::query::OPERATORS.join("|"))
    );
    let named = format!("`{}`", records::query::OPERATORS.join("`, `"));
    assert!(filters["description"].as_str().unwrap().contains(&named), "{filters}");
}

const SCHEMA: &str = r##"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://example.com/product.json",
    "type": "object",
    "required": ["_id"],
    "properties": {"_id": {"type": "string"}, "price": {"$ref": "#/$defs/money"}, "parts": {"items": {"$ref": "#"}}},
    "$defs": {"money": {"type": "number", "minimum": 0}}
}"##;

#[tokio::test]
async fn the_schema_of_a_record_is_part_of_the_description() {
    let store = memory(&[r#"{"_id":"a","price":5}"#]).await;
    let server = Server::start_with(store, |settings| {
        *settings = settings.clone().record_schema(SCHEMA.as_bytes()).unwrap();
    })
    .await;
    let openapi = openapi(&server).await;
    let record = &openapi["components"]["schemas"]["Record"];
    assert_eq!(record["properties"]["_id"]["type"], "string");
    for (reference, leads_to) in [
        (&record["properties"]["price"]["$ref"], &record["$defs"]["money"]),
        (&record["properties"]["parts"]["items"]["$ref"], record),
    ] {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert_eq!(openapi.pointer(pointer), Some(leads_to), "{reference}");
    }
    assert_eq!(
        openapi["paths"]["/api/v1/records/{id}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/Record"
    );
}

#[rstest]
#[case::no_json("{\"type\": ", "not JSON")]
#[case::not_a_schema("[]", "not a JSON Schema")]
#[case::of_something_else(r#"{"type": "array"}"#, "\"object\"")]
#[case::of_two_other_things(r#"{"type": ["string", "null"]}"#, "\"object\"")]
#[case::in_another_file(r##"{"properties": {"a": {"items": [{"$ref": "money.json#/a"}]}}}"##, "leads out of the file")]
#[case::of_a_place_that_is_not_there(r##"{"properties": {"a": {"$ref": "#/$defs/money"}}}"##, "#/$defs/money")]
fn a_schema_that_cannot_be_served_is_refused(#[case] schema: &str, #[case] says: &str) {
    let settings = records::http::Settings::from(std::time::Duration::from_secs(1));
    let error = settings.record_schema(schema.as_bytes()).unwrap_err();
    assert!(error.contains(says), "{error}");
}
