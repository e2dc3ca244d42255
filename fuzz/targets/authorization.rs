//! Any bytes as a key file, and as the `Authorization` header of a request: no header lets a request in that has neither the key
//! nor a token of the issuer.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use records::auth::{ApiKeys, KeyFile, new_key};
use records::http::{self, AccessLog, Draining, HttpService, Settings};
use records::jwt::{Settings as JwtSettings, Tokens};
use records::store::{self, Options};
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// The examples of RFC 7517, appendix A.1, and of RFC 8037, appendix A.2. A fuzzer signs nothing.
const JWKS: &str = r#"{"keys":[
    {"kid":"rsa","kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"},
    {"kid":"ec","kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
    {"kid":"ed","kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A service that asks for a key or a token.
static SERVICE: LazyLock<(Runtime, HttpService)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(store::open("memory:", Options::default())).unwrap().into_store();
    let path = |name: &str| std::env::temp_dir().join(format!("records-fuzz-{}-{name}", std::process::id()));
    std::fs::write(path("keys"), new_key("fuzz").unwrap().line).unwrap();
    std::fs::write(path("jwks"), JWKS).unwrap();
    let mut settings = Settings::from(Duration::from_secs(10));
    settings.access_log = AccessLog::Off;
    settings.api_keys = Some(Arc::new(KeyFile::open(path("keys")).unwrap()));
    let jwks = path("jwks").display().to_string();
    let tokens = Tokens::open(JwtSettings { jwks, issuer: "issuer".into(), audience: "records".into(), ca: None });
    settings.tokens = Some(Arc::new(tokens.unwrap()));
    for name in ["keys", "jwks"] {
        std::fs::remove_file(path(name)).unwrap();
    }
    (runtime, http::service(store, settings, Draining::default()))
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err((line, reason)) = ApiKeys::parse(text)
    {
        assert!((1..=text.lines().count()).contains(&line) && !reason.is_empty());
    }
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let request = Request::get("/api/v1/records/1").header("host", "fuzz").header("authorization", value);
    let (runtime, service) = &*SERVICE;
    let response = runtime.block_on(service.clone().oneshot(request.body(Body::empty()).unwrap())).unwrap();
    assert!(matches!(response.status().as_u16(), 400 | 401), "{}", response.status());
    assert!(response.headers().contains_key("www-authenticate"));
});
