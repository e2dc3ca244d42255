//! Tokens of an issuer: those that are accepted, and the classic attacks on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use records::auth::{KeyFile, new_key};
use records::jwt::{Settings as JwtSettings, Tokens};
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::jwt_support::{AUDIENCE, ISSUER, Issuer, claims, encode, now};
use crate::support::{Answer, PATIENCE, Server, memory};

const RECORD: &str = "/api/v1/records/Au";

/// A server that accepts tokens of an issuer.
struct Guarded {
    server: Server,
    issuer: Issuer,
    tokens: Arc<Tokens>,
    directory: TempDir,
}

fn settings(jwks: &str) -> JwtSettings {
    JwtSettings { jwks: jwks.to_owned(), issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned(), ca: None }
}

impl Guarded {
    async fn start() -> Self {
        let (issuer, directory) = (Issuer::new(), tempfile::tempdir().unwrap());
        let path = directory.path().join("jwks.json");
        std::fs::write(&path, issuer.jwks()).unwrap();
        Self::over(issuer, directory, settings(path.to_str().unwrap())).await
    }

    async fn over(issuer: Issuer, directory: TempDir, settings: JwtSettings) -> Self {
        let tokens = Arc::new(Tokens::open(settings).unwrap());
        let accepted = tokens.clone();
        let server = Server::start_with(memory(&[r#"{"_id":"Au","z":79}"#]).await, |settings| {
            settings.reloaded.push(accepted.keys());
            settings.tokens = Some(accepted);
        })
        .await;
        Self { server, issuer, tokens, directory }
    }

    async fn get(&self, path: &str, bearer: &str) -> Answer {
        self.server.request("GET", path, &format!("Authorization: Bearer {bearer}\r\n")).await
    }

    async fn status(&self, token: &str) -> u16 {
        self.get(RECORD, token).await.status
    }

    #[track_caller]
    fn refused(answer: &Answer, what: &str) {
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"), "{what}");
        assert!(!answer.body.contains(r#""z":"#) && answer.header("content-type") == Some("application/problem+json"));
    }
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[rstest]
#[tokio::test]
async fn a_token_of_the_issuer_is_accepted(#[values("RS256", "ES256", "EdDSA")] algorithm: &str) {
    let guarded = Guarded::start().await;
    let more = [
        claims(),
        with("aud", json!(["other", AUDIENCE])),
        with("nbf", now() - 5),
        with("exp", now() as f64 + 100.5),
        with("exp", u64::MAX),
        // Within the leeway.
        with("exp", now() - 30),
        with("nbf", now() + 30),
        with("sub", Value::Null),
        with("scope", "openid records:read profile"),
    ];
    for claims in more {
        let token = guarded.issuer.token(algorithm, &claims);
        // The second time it is remembered.
        for _ in 0..2 {
            let answer = guarded.get(RECORD, &token).await;
            assert_eq!(answer.status, 200, "{claims}: {answer:?}");
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
        }
    }
}

#[tokio::test]
async fn scopes_are_those_of_scope_and_of_scp() {
    let guarded = Guarded::start().await;
    let scoped = |name: &str, value: Value| {
        let mut claims = without("scope");
        claims[name] = value;
        guarded.issuer.token("ES256", &claims)
    };
    for (token, record, metrics) in [
        (scoped("scope", json!("records:read")), 200, 403),
        (scoped("scope", json!("metrics:read records:read")), 200, 200),
        (scoped("scp", json!("metrics:read")), 403, 200),
        (scoped("scp", json!(["records:read", "email"])), 200, 403),
        (scoped("scope", json!("")), 403, 403),
        (scoped("scope", json!("records:readonly records RECORDS:READ")), 403, 403),
        (guarded.issuer.token("ES256", &without("scope")), 403, 403),
    ] {
        assert_eq!(guarded.status(&token).await, record);
        let answer = guarded.get("/metrics", &token).await;
        assert_eq!(answer.status, metrics);
        if metrics == 403 {
            assert!(answer.header("www-authenticate").unwrap().contains("insufficient_scope"));
        }
    }
}

#[rstest]
#[case::expired(with("exp", now() - 61), "expired")]
#[case::expired_long_ago(with("exp", 0), "expired")]
#[case::no_expiry(without("exp"), "not valid")]
#[case::an_expiry_of_another_type(with("exp", "9999999999"), "not valid")]
#[case::an_expiry_of_null(with("exp", Value::Null), "not valid")]
#[case::a_negative_expiry(with("exp", -1), "`exp`")]
#[case::not_yet_valid(with("nbf", now() + 90), "not valid yet")]
#[case::a_beginning_of_another_type(with("nbf", "soon"), "not valid")]
#[case::another_issuer(with("iss", "https://issuer.example/"), "another issuer")]
#[case::no_issuer(without("iss"), "`iss`")]
#[case::another_audience(with("aud", "RECORDS"), "another audience")]
#[case::other_audiences(with("aud", json!(["a", "b"])), "another audience")]
#[case::no_audience(without("aud"), "`aud`")]
#[case::an_empty_audience(with("aud", json!([])), "another audience")]
#[case::scopes_of_another_type(with("scope", 1), "not valid")]
#[tokio::test]
async fn a_token_with_wrong_claims_is_refused_with_the_reason(#[case] claims: Value, #[case] reason: &str) {
    let guarded = Guarded::start().await;
    let answer = guarded.get(RECORD, &guarded.issuer.token("EdDSA", &claims)).await;
    Guarded::refused(&answer, reason);
    assert!(answer.body.contains(reason), "{}", answer.body);
}

#[tokio::test]
async fn a_claim_that_stands_there_twice_is_refused() {
    let guarded = Guarded::start().await;
    let text = claims().to_string();
    let twice = |claim: &str| text.replacen('{', &format!("{{{claim},"), 1);
    let header = r#"{"alg":"ES256","kid":"ES256"}"#;
    for claim in [r#""exp":1"#, r#""iss":"other""#, r#""aud":"other""#, r#""sub":"bob""#, r#""scope":"metrics:read""#] {
        let token = guarded.issuer.sign_text("ES256", header, &twice(claim));
        Guarded::refused(&guarded.get(RECORD, &token).await, claim);
    }
    for header in [r#"{"alg":"none","alg":"ES256","kid":"ES256"}"#, r#"{"alg":"ES256","kid":"RS256","kid":"ES256"}"#] {
        let token = guarded.issuer.sign_text("ES256", header, &text);
        Guarded::refused(&guarded.get(RECORD, &token).await, header);
    }
}

#[tokio::test]
async fn a_token_is_verified_by_the_algorithm_of_its_key_alone() {
    let guarded = Guarded::start().await;
    let payload = encode(claims().to_string());
    // Unsigned tokens.
    for name in ["none", "None", "NONE", "nOnE", ""] {
        let header = encode(json!({ "alg": name, "kid": "RS256" }).to_string());
        for signature in ["", "AA"] {
            Guarded::refused(&guarded.get(RECORD, &format!("{header}.{payload}.{signature}")).await, name);
        }
    }
    // Signed with a public key, which everyone has, as the secret.
    let jwk = guarded.issuer.jwk("RS256");
    let n = jwk["n"].as_str().unwrap();
    let x = guarded.issuer.jwk("EdDSA")["x"].as_str().unwrap().to_owned();
    for secret in [n.as_bytes(), guarded.issuer.jwks().as_bytes(), jwk.to_string().as_bytes(), x.as_bytes(), b""] {
        for id in ["RS256", "ES256", "EdDSA", "HS256"] {
            let header = encode(json!({ "alg": "HS256", "kid": id }).to_string());
            let message = format!("{header}.{payload}");
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
            let signature = encode(ring::hmac::sign(&key, message.as_bytes()));
            Guarded::refused(&guarded.get(RECORD, &format!("{message}.{signature}")).await, "HS256");
        }
    }
    // The right signature of one key, under the name of another algorithm or of another key.
    for id in ["RS256", "ES256", "EdDSA"] {
        for algorithm in ["RS256", "ES256", "EdDSA", "RS384", "RS512", "PS256", "ES384", "HS256", "ES256K"] {
            for signer in ["RS256", "ES256", "EdDSA"] {
                let header = json!({ "alg": algorithm, "kid": id }).to_string();
                let token = guarded.issuer.sign_text(signer, &header, &claims().to_string());
                let answer = guarded.get(RECORD, &token).await;
                match id == algorithm && id == signer {
                    true => assert_eq!(answer.status, 200),
                    false => Guarded::refused(&answer, &format!("{algorithm} by {signer} as {id}")),
                }
            }
        }
    }
}

#[tokio::test]
async fn keys_that_a_token_brings_along_are_not_used() {
    let guarded = Guarded::start().await;
    let attacker = Issuer::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    for (name, value) in [
        ("jwk", attacker.jwk("ES256")),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!(["AAAA"])),
        ("kid", json!(url)),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!("' OR 1=1 --")),
        ("kid", json!("")),
        ("kid", json!("es256")),
        ("kid", Value::Null),
        ("kid", json!(7)),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
    ] {
        let mut header = json!({ "alg": "ES256", "kid": "ES256" });
        header[name] = value;
        let token = attacker.sign_text("ES256", &header.to_string(), &claims().to_string());
        Guarded::refused(&guarded.get(RECORD, &token).await, name);
        // The issuer's own key is used whatever else the header names, unless that changes what the signature is of.
        let token = guarded.issuer.sign_text("ES256", &header.to_string(), &claims().to_string());
        let answer = guarded.get(RECORD, &token).await;
        match ["jwk", "jku", "x5u", "x5c"].contains(&name) {
            true => assert_eq!(answer.status, 200, "{name}"),
            false => Guarded::refused(&answer, name),
        }
    }
    let own = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (_, first) = listener.accept().await.unwrap();
    assert_eq!(first, own.local_addr().unwrap(), "a URL in a token was asked");
}

#[tokio::test]
async fn other_forms_and_other_signatures_are_refused() {
    let guarded = Guarded::start().await;
    let token = guarded.issuer.token("ES256", &claims());
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { unreachable!() };
    let message = format!("{header}.{payload}");
    let raw = guarded.issuer.signature("ES256", message.as_bytes());
    let signed = |signature: &[u8]| format!("{message}.{}", encode(signature));
    assert_eq!(guarded.status(&signed(&raw)).await, 200);
    // The same signature as ASN.1, which OpenSSL writes.
    let integer = |bytes: &[u8]| [&[2, 33, 0][..], bytes].concat();
    let asn1 = [&[0x30, 70][..], &integer(&raw[..32]), &integer(&raw[32..])].concat();
    let rsa = guarded.issuer.token("RS256", &claims());
    let other = encode(with("sub", "root").to_string());
    let both = json!({ "payload": payload, "signatures": [
        { "protected": header, "signature": signature },
        { "protected": encode(r#"{"alg":"none"}"#), "signature": "" },
    ] });
    let flattened = json!({ "payload": payload, "protected": header, "signature": signature });
    for token in [
        signed(&asn1),
        signed(&raw[..63]),
        signed(&[&raw[..], &[0]].concat()),
        signed(&[0; 64]),
        signed(&[raw[32..].to_vec(), raw[..32].to_vec()].concat()),
        signed(&[]),
        format!("{header}.{other}.{signature}"),
        format!("{message}.{signature}.{signature}"),
        format!("{message}.{signature}="),
        format!("{token}.."),
        format!("{message}."),
        message.clone(),
        header.to_owned(),
        "..".to_owned(),
        ".".repeat(100),
        format!("{}.{}.{}", header, rsa.split('.').nth(1).unwrap(), rsa.split('.').nth(2).unwrap()),
        both.to_string(),
        flattened.to_string(),
        format!("{}.{payload}.{signature}", encode("nonsense")),
        format!("{}.{payload}.{signature}", encode("[".repeat(3_000))),
        format!("{}.{payload}.{signature}", "x".repeat(9_000)),
    ] {
        Guarded::refused(&guarded.get(RECORD, &token).await, &token);
    }
    // Longer than any head.
    let answer = guarded.get(RECORD, &"x".repeat(20_000)).await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn keys_and_tokens_are_accepted_together() {
    let (issuer, directory, key) = (Issuer::new(), tempfile::tempdir().unwrap(), new_key("reader").unwrap());
    let [keys, jwks] = ["keys", "jwks"].map(|name| directory.path().join(name));
    std::fs::write(&keys, &key.line).unwrap();
    std::fs::write(&jwks, issuer.jwks()).unwrap();
    let server = Server::start_with(memory(&[r#"{"_id":"Au"}"#]).await, |http| {
        http.api_keys = Some(Arc::new(KeyFile::open(keys).unwrap()));
        http.tokens = Some(Arc::new(Tokens::open(settings(jwks.to_str().unwrap())).unwrap()));
    })
    .await;
    let ask = async |path: &str, bearer: &str| {
        server.request("GET", path, &format!("Authorization: Bearer {bearer}\r\n")).await
    };
    let token = issuer.token("EdDSA", &with("scope", "records:read metrics:read"));
    assert_eq!(ask(RECORD, &key.secret).await.status, 200);
    assert_eq!(ask(RECORD, &token).await.status, 200);
    assert_eq!(ask(RECORD, "records_key_00").await.status, 401);
    assert_eq!(server.get(RECORD).await.status, 401);
    let metrics = ask("/metrics", &token).await.body;
    for series in [r#"{key="reader"} 1"#, r#"{key="(token)"} 1"#] {
        assert!(metrics.contains(&format!("records_http_requests_by_key_total{series}")), "{metrics}");
    }
    assert!(!metrics.contains("alice") && !metrics.contains(&key.secret));
}

#[tokio::test]
async fn a_token_is_forgotten_with_the_key_that_verified_it() {
    let guarded = Guarded::start().await;
    let path = guarded.directory.path().join("jwks.json");
    let token = guarded.issuer.token("ES256", &claims());
    assert_eq!(guarded.status(&token).await, 200);

    std::fs::write(&path, "{}").unwrap();
    guarded.tokens.keys().reload();
    assert_eq!(guarded.status(&token).await, 200);
    assert!(guarded.server.get("/readyz").await.body.contains("keys of tokens"));

    std::fs::write(&path, Issuer::new().jwks()).unwrap();
    guarded.tokens.keys().reload();
    assert_eq!(guarded.status(&token).await, 401);
    assert!(guarded.server.get("/readyz").await.body.contains("\"ready\""));
}

#[tokio::test]
async fn keys_that_verify_no_signature_are_left_out() {
    let issuer = Issuer::new();
    let path = tempfile::NamedTempFile::new().unwrap();
    let open = |keys: Value| {
        std::fs::write(path.path(), json!({ "keys": keys }).to_string()).unwrap();
        Tokens::open(settings(path.path().to_str().unwrap()))
    };
    let changed = |name: &str, value: Value| {
        let mut key = issuer.jwk("RS256");
        key[name] = value;
        key
    };
    let useless = [
        json!({ "kty": "oct", "kid": "RS256", "k": "c2VjcmV0" }),
        json!({ "kty": "EC", "crv": "secp256k1", "kid": "RS256", "x": "AA", "y": "AA" }),
        json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": "AA" }),
        json!({}),
        changed("use", json!("enc")),
        changed("key_ops", json!(["encrypt"])),
        changed("alg", json!("RS512")),
        changed("alg", json!("RSA-OAEP")),
        changed("n", json!("+/=")),
    ];
    for key in &useless {
        assert!(open(json!([key])).unwrap_err().contains("no public key"), "{key}");
    }
    assert!(open(json!([])).unwrap_err().contains("no public key"));
    assert!(open(json!([changed("d", json!("AAAA"))])).unwrap_err().contains("private key"));
    let token = issuer.token("RS256", &claims());
    let all: Vec<Value> = useless.iter().cloned().chain([changed("use", json!("sig"))]).collect();
    assert!(open(json!(all)).unwrap().verify(&token).is_ok());
    // A token that names no key is verified by the only one.
    let unnamed = issuer.sign_text("RS256", r#"{"alg":"RS256"}"#, &claims().to_string());
    assert!(open(json!([issuer.jwk("RS256")])).unwrap().verify(&unnamed).is_ok());
    assert!(open(json!([issuer.jwk("RS256"), issuer.jwk("ES256")])).unwrap().verify(&unnamed).is_err());

    std::fs::write(path.path(), " ".repeat(300 * 1024)).unwrap();
    assert!(Tokens::open(settings(path.path().to_str().unwrap())).unwrap_err().contains("longer than"));
}

/// Starts an HTTP server that serves the last text in `answer`. Returns its URL and the number of its requests.
async fn serve_keys(answer: watch::Receiver<String>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys.json", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let mut head = vec![0; 4_096];
            let length = stream.read(&mut head).await.unwrap();
            assert!(head[..length].starts_with(b"GET /keys.json HTTP/1.1\r\n"));
            let text = answer.borrow().clone();
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    (url, requests)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn keys_of_a_url_stay_while_the_issuer_is_away() {
    let issuer = Issuer::new();
    let (tell, told) = watch::channel(ok(&issuer.jwks()));
    let (url, _) = serve_keys(told).await;
    let guarded = Guarded::over(issuer, tempfile::tempdir().unwrap(), settings(&url)).await;
    let token = guarded.issuer.token("RS256", &claims());
    // Before the first keys, the service cannot know.
    let answer = guarded.get(RECORD, &token).await;
    assert!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");

    guarded.tokens.refresh().await;
    assert_eq!(guarded.status(&token).await, 200);
    assert!(guarded.server.get("/readyz").await.body.contains("\"ready\""));
    let fetched = Instant::now();
    for away in [
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "nonsense".to_owned(),
        String::new(),
        ok("{}"),
        ok(&" ".repeat(300 * 1024)),
        // Cut in the middle.
        ok(&guarded.issuer.jwks())[..200].to_owned(),
    ] {
        tell.send(away.clone()).unwrap();
        guarded.tokens.refresh().await;
        assert_eq!(guarded.status(&token).await, 200, "{away}");
        assert!(guarded.server.get("/readyz").await.body.contains("keys of tokens"), "{away}");
    }
    let elapsed = fetched.elapsed();
    assert!(guarded.tokens.age().unwrap() >= elapsed, "the age is not that of the last keys");
    let reader = guarded.issuer.token("RS256", &with("scope", "metrics:read"));
    assert!(guarded.get("/metrics", &reader).await.body.contains("records_jwt_keys_age_seconds"));
    tell.send(ok(&guarded.issuer.jwks())).unwrap();
    guarded.tokens.refresh().await;
    assert!(guarded.server.get("/readyz").await.body.contains("\"ready\""));
    assert!(guarded.tokens.age().unwrap() < fetched.elapsed());
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_and_not_too_often() {
    let (first, second) = (Issuer::new(), Issuer::new());
    let only = |issuer: &Issuer, algorithm: &str| ok(&json!({ "keys": [issuer.jwk(algorithm)] }).to_string());
    let (tell, told) = watch::channel(only(&first, "EdDSA"));
    let (url, requests) = serve_keys(told).await;
    let tokens = Arc::new(Tokens::open(settings(&url)).unwrap());
    tokens.refresh().await;
    tokio::time::pause();
    let follower = tokens.clone();
    tokio::spawn(async move { follower.follow().await });
    let token = second.token("ES256", &claims());
    for _ in 0..1_000 {
        assert!(tokens.verify(&token).is_err());
    }
    // The issuer is asked again after ten seconds, and not before.
    tokio::time::sleep(Duration::from_secs(9)).await;
    tell.send(only(&second, "ES256")).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    let is_known = async {
        while tokens.verify(&token).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_known).await.expect("the new key is fetched");
    assert_eq!(requests.load(Ordering::Relaxed), 2, "the issuer is asked again at once");
    assert!(tokens.verify(&first.token("EdDSA", &claims())).is_err(), "a key that is gone is used");
}

#[rstest]
#[case::without_tls("http://issuer.example/keys.json", "https")]
#[case::without_tls_on_a_private_network("http://10.0.0.1/keys.json", "https")]
#[case::a_name_that_looks_local("http://localhost.example/keys.json", "https")]
#[case::another_scheme("file:///etc/passwd", "the URL of the keys")]
#[case::with_a_password("https://user:hunter2@issuer.example/", "without user")]
#[case::without_a_host("https:///keys.json", "the URL of the keys")]
#[tokio::test]
async fn a_url_that_others_could_change_is_refused(#[case] url: &str, #[case] reason: &str) {
    let error = Tokens::open(settings(url)).unwrap_err();
    assert!(error.contains(reason) && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn the_server_of_a_url_needs_a_certificate_of_a_trusted_authority() {
    let (issuer, directory) = (Issuer::new(), tempfile::tempdir().unwrap());
    let (authority, other) = (crate::tls_support::Authority::new(), crate::tls_support::Authority::new());
    let files = crate::tls_support::write(&directory, &authority.issue("localhost"));
    let acceptor = records::tls::Acceptor::open(files).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = ok(&issuer.jwks());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.flush().await;
        }
    });
    let token = issuer.token("ES256", &claims());
    for (ca, host, is_trusted) in [
        (Some(&authority.pem), "localhost", true),
        (Some(&authority.pem), "127.0.0.1", false),
        (Some(&other.pem), "localhost", false),
        (None, "localhost", false),
    ] {
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, ca.map_or("", |pem| pem)).unwrap();
        let url = format!("https://{host}:{port}/keys.json");
        let tokens = Tokens::open(JwtSettings { ca: ca.map(|_| path.clone()), ..settings(&url) }).unwrap();
        tokens.refresh().await;
        assert_eq!(tokens.verify(&token).is_ok(), is_trusted, "{host}");
    }
}
