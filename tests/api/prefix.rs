//! The service under a path prefix that a proxy strips, and under a public URL.

use std::net::SocketAddr;

use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Answer, Server, memory, request_at};

const LINES: &[&str] = &[r#"{"_id":1}"#, r#"{"_id":2}"#, r#"{"_id":3}"#];

/// Starts a proxy that maps `/shop/…` to `/…` of `server`, and answers 404 to other paths.
async fn proxy(server: &Server) -> SocketAddr {
    let (listener, backend) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), server.address);
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                if head.contains(" /shop/") {
                    let mut upstream = TcpStream::connect(backend).await.unwrap();
                    upstream.write_all(head.replacen(" /shop/", " /", 1).as_bytes()).await.unwrap();
                    tokio::io::copy_bidirectional(&mut client, &mut upstream).await.ok();
                } else {
                    let not_found = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    client.write_all(not_found.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

async fn get(proxy: SocketAddr, path: &str) -> Answer {
    request_at(proxy, "GET", path, "").await
}

/// Resolves `reference` against `base` (RFC 3986, section 5.2), for the forms that occur here.
fn resolve(base: &str, reference: &str) -> String {
    let path = base.split('?').next().unwrap();
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    if reference.starts_with('?') {
        return format!("{path}{reference}");
    }
    let (target, query) = reference.split_once('?').map_or((reference, None), |(target, query)| (target, Some(query)));
    let mut segments: Vec<&str> = path.split('/').collect();
    segments.pop();
    for segment in target.split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", segments.join("/"))
}

#[tokio::test]
async fn links_lead_to_the_last_page_under_a_prefix() {
    let server = Server::over(memory(LINES).await).await;
    let proxy = proxy(&server).await;
    let (mut path, mut bodies) = ("/shop/api/v1/records?limit=1&_id.gt=0".to_owned(), String::new());
    for _ in LINES {
        let page = get(proxy, &path).await;
        assert_eq!(page.status, 200, "{path}");
        bodies += &page.body;
        let Some(link) = page.header("link") else { break };
        let target = link.strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\"")).unwrap().0;
        path = resolve(&path, target);
    }
    assert_eq!(bodies, r#"[{"_id":1}][{"_id":2}][{"_id":3}]"#);
}

#[cfg(feature = "pages")]
#[rstest]
#[case("/shop/")]
#[case("/shop/docs/")]
#[tokio::test]
async fn a_page_under_a_prefix_finds_all_its_files(#[case] page: &str) {
    let server = Server::over(memory(LINES).await).await;
    let proxy = proxy(&server).await;
    let html = get(proxy, page).await.body;
    let references: Vec<_> = ["href=\"", "src=\""]
        .iter()
        .flat_map(|attribute| html.split(attribute).skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .filter(|reference| !reference.starts_with('#') && !reference.starts_with("data:"))
        .collect();
    assert!(references.len() >= 3, "{html}");
    for reference in references {
        assert_eq!(get(proxy, &resolve(page, reference)).await.status, 200, "{reference}");
    }
}

#[cfg(feature = "pages")]
#[tokio::test]
async fn the_description_leads_back_to_the_prefix() {
    let server = Server::over(memory(LINES).await).await;
    let proxy = proxy(&server).await;
    let moved = get(proxy, "/shop/docs").await;
    let docs = resolve("/shop/docs", moved.header("location").unwrap());
    assert_eq!((moved.status, docs.as_str()), (308, "/shop/docs/"));
    let script = get(proxy, &resolve(&docs, "swagger-initializer.js")).await.body;
    let url = script.split("url\": \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let description = resolve(&docs, url);
    assert_eq!(description, "/shop/openapi.json");
    let openapi: serde_json::Value = serde_json::from_str(&get(proxy, &description).await.body).unwrap();
    let api = resolve(&description, openapi["servers"][0]["url"].as_str().unwrap());
    assert_eq!(get(proxy, &format!("{api}/api/v1/records/1")).await.body, r#"{"_id":1}"#);
}

#[rstest]
#[case("https://example.com/shop")]
#[case("https://example.com/shop/")]
#[tokio::test]
async fn links_are_absolute_where_the_public_url_is_known(#[case] url: &str) {
    let server =
        Server::start_with(memory(LINES).await, |settings| *settings = settings.clone().public_url(url).unwrap()).await;
    let answer = server.get("/api/v1/records?limit=1").await;
    let link = answer.header("link").unwrap();
    assert!(link.starts_with("<https://example.com/shop/api/v1/records?limit=1&after="), "{link}");
    if cfg!(feature = "pages") {
        let openapi: serde_json::Value = serde_json::from_str(&server.get("/openapi.json").await.body).unwrap();
        assert_eq!(openapi["servers"][0]["url"], "https://example.com/shop");
    }
}

#[rstest]
fn a_public_url_is_what_clients_can_use(
    #[values(
        "",
        "/shop",
        "example.com",
        "ftp://example.com",
        "https://",
        "https://user:hunter2@example.com/",
        "https://example.com/?a=b",
        "https://example.com/#a",
        "https://example.com/a b"
    )]
    url: &str,
) {
    let settings = records::http::Settings::from(std::time::Duration::from_secs(1));
    let error = settings.public_url(url).unwrap_err();
    assert!(error.contains("https://example.com/shop") && !error.contains("hunter2"), "{error}");
}
