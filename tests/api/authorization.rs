//! API keys: the requests that need one, and the responses to those that have none (RFC 6750).

use std::sync::Arc;

use records::auth::{KeyFile, NewKey, new_key};
use records::reload::Reload;
use rstest::rstest;

use crate::support::{Server, memory};

const LINES: &[&str] = &[r#"{"_id":"Au","z":79}"#];

/// A server that requires a key, with a key for records, a key for metrics, and the file that lists both.
struct Guarded {
    server: Server,
    reader: NewKey,
    scraper: NewKey,
    file: Arc<KeyFile>,
    directory: tempfile::TempDir,
}

impl Guarded {
    async fn start() -> Self {
        let [reader, mut scraper] = ["reader", "scraper"].map(|name| new_key(name).unwrap());
        scraper.line = scraper.line.replace("records:read", "metrics:read");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        std::fs::write(&path, format!("{}\n{}\n", reader.line, scraper.line)).unwrap();
        let file = Arc::new(KeyFile::open(path).unwrap());
        let keys = Arc::clone(&file);
        let server = Server::start_with(memory(LINES).await, |settings| {
            settings.reloaded.push(keys.clone());
            settings.api_keys = Some(keys);
        })
        .await;
        Self { server, reader, scraper, file, directory }
    }

    /// Requests `path` with an `Authorization` header, unless it is empty.
    async fn get(&self, path: &str, authorization: &str) -> crate::support::Answer {
        let header =
            if authorization.is_empty() { String::new() } else { format!("Authorization: {authorization}\r\n") };
        self.server.request("GET", path, &header).await
    }
}

#[rstest]
#[case("/api/v1/records")]
#[case("/api/v1/records/Au")]
#[case("/api/v1/records/nothing")]
#[tokio::test]
async fn a_request_without_a_valid_key_learns_nothing(#[case] path: &str) {
    let guarded = Guarded::start().await;
    for (authorization, error) in [("", None), ("Bearer records_key_00", Some("invalid_token"))] {
        let answer = guarded.get(path, authorization).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer realm=\"records\""), "{challenge}");
        assert_eq!(challenge.contains("error="), error.is_some(), "{challenge}");
        assert!(challenge.contains(error.unwrap_or_default()) && !answer.body.contains("\"z\""));
    }
    let answer = guarded.get(path, &format!("bearer {}", guarded.reader.secret)).await;
    assert!(matches!(answer.status, 200 | 204), "{}", answer.status);
}

#[rstest]
#[case("Basic cmVhZGVyOnNlY3JldA==")]
#[case("Bearer")]
#[case("Bearer a b")]
#[case("Bearer a\r\nAuthorization: Bearer b")]
#[tokio::test]
async fn a_header_of_another_form_is_a_400_that_says_the_form(#[case] authorization: &str) {
    let answer = Guarded::start().await.get("/api/v1/records/Au", authorization).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("Bearer KEY"), "{}", answer.body);
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_request"));
}

#[tokio::test]
async fn a_key_reads_what_its_scopes_allow_and_health_needs_none() {
    let guarded = Guarded::start().await;
    let [reader, scraper] = [&guarded.reader, &guarded.scraper].map(|key| format!("Bearer {}", key.secret));
    for (path, key, status) in [
        ("/api/v1/records/Au", &scraper, 403),
        ("/metrics", &reader, 403),
        ("/metrics", &String::new(), 401),
        ("/metrics", &scraper, 200),
        ("/livez", &String::new(), 200),
        ("/readyz", &String::new(), 200),
    ] {
        let answer = guarded.get(path, key).await;
        assert_eq!(answer.status, status, "{path}");
        if status == 403 {
            assert!(answer.header("www-authenticate").unwrap().contains("insufficient_scope"));
        }
    }
}

#[tokio::test]
async fn a_response_with_a_key_stays_out_of_shared_caches_and_is_counted_by_name() {
    let guarded = Guarded::start().await;
    let answer = guarded.get("/api/v1/records/Au", &format!("Bearer {}", guarded.reader.secret)).await;
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    guarded.get("/api/v1/records/Unknown", &format!("Bearer {}", guarded.reader.secret)).await;
    // Refused, since the key has another scope.
    assert_eq!(guarded.get("/metrics", &format!("Bearer {}", guarded.reader.secret)).await.status, 403);
    let metrics = guarded.get("/metrics", &format!("Bearer {}", guarded.scraper.secret)).await;
    assert!(metrics.body.contains(r#"records_http_requests_by_key_total{key="reader"} 3"#), "{}", metrics.body);
    assert!(!metrics.body.contains(&guarded.reader.secret));
}

#[rstest]
#[case::a_record("/api/v1/records/Au", 200)]
#[case::no_record("/api/v1/records/Unknown", 204)]
#[case::a_list("/api/v1/records", 200)]
#[case::a_page_with_a_count("/api/v1/records?limit=1", 200)]
#[case::a_bad_query("/api/v1/records?limit=x", 400)]
#[tokio::test]
async fn every_response_to_a_key_varies_by_it_once(#[case] path: &str, #[case] status: u16) {
    let guarded = Guarded::start().await;
    let answer = guarded.get(path, &format!("Bearer {}", guarded.reader.secret)).await;
    assert_eq!(answer.status, status);
    let values = answer.headers.iter().filter(|(name, _)| name == "vary").flat_map(|(_, value)| value.split(','));
    assert_eq!(values.filter(|name| name.trim() == "authorization").count(), 1, "{:?}", answer.headers);
}

#[tokio::test]
async fn a_new_file_takes_effect_and_a_broken_one_degrades() {
    let guarded = Guarded::start().await;
    let path = guarded.directory.path().join("keys");
    let bearer = format!("Bearer {}", guarded.reader.secret);
    std::fs::write(&path, "nonsense").unwrap();
    guarded.file.reload();
    assert_eq!(guarded.get("/api/v1/records/Au", &bearer).await.status, 200);
    assert!(guarded.get("/readyz", "").await.body.contains("API keys"));

    std::fs::write(&path, &guarded.scraper.line).unwrap();
    guarded.file.reload();
    assert_eq!(guarded.get("/api/v1/records/Au", &bearer).await.status, 401);
    assert!(guarded.get("/readyz", "").await.body.contains("\"ready\""));
}

#[cfg(feature = "pages")]
#[tokio::test]
async fn the_description_says_where_a_key_is_needed() {
    let description = |answer: crate::support::Answer| serde_json::from_str::<serde_json::Value>(&answer.body).unwrap();
    let guarded = description(Guarded::start().await.get("/openapi.json", "").await);
    let open = description(Server::over(memory(LINES).await).await.get("/openapi.json").await);
    for (path, is_guarded) in
        [("/api/v1/records", true), ("/api/v1/records/{id}", true), ("/metrics", true), ("/livez", false)]
    {
        assert_eq!(guarded["paths"][path]["get"]["security"].is_array(), is_guarded, "{path}");
        assert!(open["paths"][path]["get"]["security"].is_null(), "{path}");
    }
    assert_eq!(guarded["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}
