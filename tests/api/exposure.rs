//! Hidden fields and records stay hidden in every response.

use std::sync::Arc;

use records::query::Exposure;
use records::store::exposed;
use rstest::rstest;

use crate::support::{Answer, Server, memory};

/// Every value that must not be seen has the text `secret` or the number 4711 in it.
const LINES: &[&str] = &[
    r#"{"_id":"a","public":true,"n":1,"owner":{"name":"Ada","email":"secret-a"},"items":[{"price":1,"cost":4711}],"key":"secret-a"}"#,
    r#"{"_id":"b","public":true,"n":2,"owner":{"name":"Bo","email":"secret-b"},"items":[[{"price":2,"cost":4711}],7],"key":"secret-b"}"#,
    r#"{"_id":"c","public":true,"n":3,"owner":"Cy","items":[],"key":4711}"#,
    r#"{"_id":"secret","public":false,"n":4,"key":"secret-d"}"#,
];

async fn server(expose: &[&str], hide: &[&str], condition: Option<&str>) -> Server {
    let [expose, hide] =
        [expose, hide].map(|fields| fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>());
    let exposure = Arc::new(Exposure::parse(&expose, &hide, condition).unwrap());
    let store = exposed(memory(LINES).await, Arc::clone(&exposure));
    Server::start_with(store, |settings| settings.exposure = exposure).await
}

async fn hiding() -> Server {
    server(&[], &["key", "owner.email", "items.cost"], Some("public.eq=true")).await
}

async fn exposing() -> Server {
    server(&["n", "owner.name", "items.price"], &[], Some("key.ne=secret-d")).await
}

fn tells_nothing(answer: &Answer, what: &str) {
    let headers = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect::<String>();
    for text in [&answer.body, &headers] {
        assert!(!text.contains("secret-") && !text.contains("4711"), "{what}: {text}");
    }
}

#[tokio::test]
async fn records_are_shown_without_what_is_hidden() {
    let hiding = hiding().await;
    let body = hiding.get("/api/v1/records/a").await.body;
    assert_eq!(body, r#"{"_id":"a","public":true,"n":1,"owner":{"name":"Ada"},"items":[{"price":1}]}"#);
    assert!(hiding.get("/api/v1/records/b").await.body.contains(r#""items":[[{"price":2}],7]"#));
    let exposing = exposing().await;
    let body = exposing.get("/api/v1/records/a").await.body;
    assert_eq!(body, r#"{"_id":"a","n":1,"owner":{"name":"Ada"},"items":[{"price":1}]}"#);
    assert_eq!(exposing.get("/api/v1/records/c").await.body, r#"{"_id":"c","n":3,"items":[]}"#);
}

#[tokio::test]
async fn a_record_outside_of_the_condition_does_not_exist() {
    for server in [hiding().await, exposing().await] {
        for query in ["", "?fields=n", "?fields=_id"] {
            let answer = server.get(&format!("/api/v1/records/secret{query}")).await;
            assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{query}");
            assert_eq!(answer.header("etag"), None);
        }
        for query in
            ["", "?limit=10", "?n.gte=3", "?_id.eq=secret", "?sort=-n&limit=2", "?after_id=b", "?after_id=secret"]
        {
            let answer = server.get(&format!("/api/v1/records{query}")).await;
            assert_eq!(answer.status, 200, "{query}");
            assert!(!answer.body.contains(r#""secret""#), "{query}: {}", answer.body);
            tells_nothing(&answer, query);
        }
        let counted = server.request("GET", "/api/v1/records?limit=1", "Prefer: count=exact\r\n").await;
        assert_eq!(counted.header("records-count"), Some("3"));
    }
}

/// The requests of a client that wants to read `key`, `owner.email` or `items.cost`.
#[rstest]
#[case("key.eq=secret-a")]
#[case("key.ne=secret-a")]
#[case("key.in=secret-a,x")]
#[case("key.gt=s")]
#[case("key.gte=s")]
#[case("key.lt=t")]
#[case("key.lte=t")]
#[case("key.starts=secret")]
#[case("key.exists=true")]
#[case("key.exists=false")]
#[case("key.x.exists=true")]
#[case("key.0.eq=s")]
#[case("or=(n.eq=9,key.eq=secret-a)")]
#[case("owner.email.eq=secret-a")]
#[case("owner.email.exists=true")]
#[case("owner.eq=Cy")]
#[case("owner.gt=a")]
#[case("owner.exists=true")]
#[case("owner.starts=s")]
#[case("items.cost.gt=1")]
#[case("items.0.cost.eq=4711")]
#[case("items.0.0.cost.eq=4711")]
#[case("items.00.cost.eq=4711")]
#[case("items.0.eq=7")]
#[case("items.1.exists=true")]
#[case("items.gt=1")]
#[case("sort=key&limit=1")]
#[case("sort=-key&limit=1")]
#[case("sort=n,key&limit=1")]
#[case("sort=owner&limit=1")]
#[case("sort=owner.email&limit=1")]
#[case("sort=items&limit=1")]
#[case("sort=items.cost&limit=1")]
#[case("sort=items.0&limit=1")]
#[case("sort=items.0.cost&limit=1")]
#[case("fields=key")]
#[case("fields=n,key")]
#[case("fields=key.x")]
#[case("fields=owner.email")]
#[case("fields=owner.email.x")]
#[case("fields=items.cost")]
#[case("fields=items.0.cost")]
#[case("fields=%6Bey")]
#[case("%6Bey.eq=secret-a")]
#[case("\\key.eq=secret-a")]
#[case("owner.\\email.eq=secret-a")]
#[tokio::test]
async fn a_parameter_that_names_a_hidden_field_is_a_400(#[case] query: &str) {
    let hiding = hiding().await;
    for server in [&hiding, &exposing().await] {
        let answer = server.get(&format!("/api/v1/records?{query}")).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.problem()["detail"].as_str().unwrap().contains("show no field"), "{}", answer.body);
    }
    if query.starts_with("fields=") {
        assert_eq!(hiding.get(&format!("/api/v1/records/a?{query}")).await.status, 400);
        // The same answer as about a record that does not exist.
        assert_eq!(hiding.get(&format!("/api/v1/records/none?{query}")).await.status, 400);
    }
}

#[rstest]
#[case("n.gt=1", r#"["b","c"]"#)]
#[case("owner.name.eq=Ada", r#"["a"]"#)]
#[case("owner.name.starts=B", r#"["b"]"#)]
#[case("items.price.exists=true", r#"["a"]"#)]
#[case("items.price.eq=1", r#"["a"]"#)]
#[case("sort=-n&limit=2", r#"["c","b"]"#)]
#[case("sort=owner.name&limit=3", r#"["c","a","b"]"#)]
#[case("or=(n.eq=1,n.eq=3)", r#"["a","c"]"#)]
#[tokio::test]
async fn what_is_shown_can_be_filtered_and_sorted(#[case] query: &str, #[case] expected: &str) {
    for server in [hiding().await, exposing().await] {
        let answer = server.get(&format!("/api/v1/records?{query}&fields=_id")).await;
        let records: Vec<serde_json::Value> = serde_json::from_str(&answer.body).unwrap();
        let ids: Vec<_> = records.iter().map(|record| &record["_id"]).collect();
        assert_eq!(serde_json::to_string(&ids).unwrap(), expected);
        tells_nothing(&answer, query);
    }
}

#[rstest]
#[case("owner", r#"[{"_id":"a","owner":{"name":"Ada"}},{"_id":"b","owner":{"name":"Bo"}},"#)]
#[case("items", r#"[{"_id":"a","items":[{"price":1}]},"#)]
#[case("owner.name", r#"[{"_id":"a","owner":{"name":"Ada"}},"#)]
#[tokio::test]
async fn a_field_with_a_hidden_part_is_shown_without_it(#[case] fields: &str, #[case] begins: &str) {
    for server in [hiding().await, exposing().await] {
        let answer = server.get(&format!("/api/v1/records?fields={fields}&limit=10")).await;
        assert!(answer.body.starts_with(begins), "{}", answer.body);
        tells_nothing(&answer, fields);
    }
}

#[tokio::test]
async fn a_tag_and_a_cursor_depend_on_what_is_shown_alone() {
    let changed: Vec<_> = LINES.iter().map(|line| line.replace("secret-a", "secret-z")).collect();
    let changed: Vec<&str> = changed.iter().map(String::as_str).collect();
    let hide = ["key", "owner.email", "items.cost"].map(str::to_owned);
    let exposure = Arc::new(Exposure::parse(&[], &hide, Some("public.eq=true")).unwrap());
    let after = exposed(memory(&changed).await, Arc::clone(&exposure));
    let after = Server::start_with(after, |settings| settings.exposure = exposure).await;
    let before = hiding().await;
    for path in ["/api/v1/records/a", "/api/v1/records?limit=2", "/api/v1/records?limit=1&sort=owner.name"] {
        let [one, other] = [before.get(path).await, after.get(path).await];
        for header in ["etag", "link"] {
            assert_eq!(one.header(header), other.header(header), "{path}");
        }
        assert_eq!(one.body, other.body);
    }
}

#[tokio::test]
async fn a_cursor_of_another_order_opens_no_hidden_field() {
    let whole = Server::over(memory(LINES).await).await;
    let next = whole.get("/api/v1/records?sort=key&limit=1").await;
    let link = next.header("link").unwrap();
    let cursor = link.split("after=").nth(1).unwrap().split('>').next().unwrap();
    let hiding = hiding().await;
    for query in [format!("sort=key&limit=1&after={cursor}"), format!("limit=1&after={cursor}")] {
        let answer = hiding.get(&format!("/api/v1/records?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        tells_nothing(&answer, &query);
    }
}

#[rstest]
#[case(&["a"], &["b"], None, "hide")]
#[case(&[], &["_id"], None, "hide")]
#[case(&[], &["_id.part"], None, "hide")]
#[case(&[], &["a", "\\_id"], None, "hide")]
#[case(&[], &[""], None, "hide")]
#[case(&[], &["a..b"], None, "hide")]
#[case(&[], &["a.*"], None, "hide")]
#[case(&[], &["items.0.cost"], None, "hide")]
#[case(&["*"], &[], None, "expose")]
#[case(&[], &[], Some("limit=1"), "where")]
#[case(&[], &[], Some("a.eq=1&sort=a"), "where")]
#[case(&[], &[], Some("a"), "where")]
#[case(&[], &[], Some("a.eq=%zz"), "where")]
#[case(&[], &[], Some("&"), "where")]
fn settings_that_would_hide_nothing_or_too_much_are_refused(
    #[case] expose: &[&str],
    #[case] hide: &[&str],
    #[case] condition: Option<&str>,
    #[case] setting: &str,
) {
    let [expose, hide] =
        [expose, hide].map(|fields| fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>());
    assert_eq!(Exposure::parse(&expose, &hide, condition).unwrap_err().0, setting);
}

#[test]
fn the_scope_differs_where_something_else_is_shown_and_tells_no_value() {
    let scope = |expose: &[&str], hide: &[&str], condition| {
        let [expose, hide] =
            [expose, hide].map(|fields| fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>());
        Exposure::parse(&expose, &hide, condition).unwrap().scope().to_owned()
    };
    let scopes = [
        scope(&[], &[], None),
        scope(&["a"], &[], None),
        scope(&[], &["a"], None),
        scope(&[], &["a", "b"], None),
        scope(&[], &["a,b".replace(',', "\\").as_str(), "b"], None),
        scope(&[], &[], Some("key.eq=secret")),
        scope(&[], &["a"], Some("key.eq=secret")),
        scope(&[], &[], Some("key.eq=other")),
    ];
    let different: std::collections::BTreeSet<_> = scopes.iter().collect();
    assert_eq!(different.len(), scopes.len(), "{scopes:?}");
    assert!(scopes.iter().all(|scope| !scope.contains("secret")));
    assert_eq!(scope(&[], &["b", "a", "b"], None), scope(&[], &["a", "b"], None));
}
