//! The tables of `docs/reference/settings.md` and `docs/reference/metrics.md`, compared with the flags and the registry.
//!
//! `TEST_REGENERATE=1 cargo test --all-features --test reference` writes them between the markers of the two files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use axum::body::Body;
use axum::http::Request;
use bson::doc;
use clap::Arg;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use records::auth;
use records::config;
use records::http::{self, Draining, Settings};
use records::jwt::{Settings as JwtSettings, Tokens};
use records::record::{Document, Key, RecordId};
use records::store::{
    self, BACKENDS, BackendKind, ChangeStream, GetResult, ListRequest, ListResult, Metric, Options, Result,
    ResumeToken, SnapshotRows, Store, fallback,
};
use records::telemetry::Connections;
use tower::ServiceExt;
use tracing_appender::non_blocking::NonBlocking;

const BEGIN: &str = "<!-- generated: begin -->\n";
const END: &str = "<!-- generated: end -->\n";

/// Compares the part of `docs/reference/NAME` between the markers with `generated`, or writes it.
fn check(name: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(name);
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("a marker where the generated part begins");
    let (there, tail) = rest.split_once(END).expect("a marker where the generated part ends");
    if env::var_os("TEST_REGENERATE").is_some() {
        fs::write(&path, [head, BEGIN, generated, END, tail].concat()).unwrap();
        return;
    }
    let differs = there.lines().zip(generated.lines()).find(|(there, generated)| there != generated);
    assert!(
        there == generated,
        "docs/reference/{name} is out of date at {differs:?}: write it by TEST_REGENERATE=1 cargo test --all-features --test reference"
    );
}

#[test]
fn the_reference_of_settings_is_what_the_flags_say() {
    let settings = config::settings();
    let mut text = String::new();
    let mut heading = None;
    for arg in settings.get_arguments().filter(|arg| arg.get_env().is_some()) {
        let group = arg.get_help_heading().unwrap_or("General");
        if heading != Some(group) {
            heading = Some(group);
            let columns = "| flag | variable | type in a file | default | |\n|---|---|---|---|---|\n";
            write!(text, "\n## {group}\n\n{columns}").unwrap();
        }
        text += &setting(arg);
    }
    text.push('\n');
    check("settings.md", &text);
}

fn setting(arg: &Arg) -> String {
    let value = arg.get_value_names().filter(|_| arg.get_action().takes_values());
    let value = value.map(|names| format!(" {}", names[0])).unwrap_or_default();
    let help = arg.get_long_help().or(arg.get_help()).unwrap().to_string();
    // The help text has defaults that the flag does not define.
    let (mut help, mut default) = match help.split_once(" [default: ") {
        Some((before, rest)) => {
            let (default, after) = rest.split_once(']').unwrap();
            (format!("{before}{after}"), default.to_owned())
        }
        None => (help, String::new()),
    };
    if !arg.is_hide_default_value_set() && arg.get_action().takes_values() {
        for value in arg.get_default_values() {
            write!(default, "`{}`", value.to_string_lossy()).unwrap();
        }
    }
    if arg.get_action().takes_values() && !arg.is_hide_possible_values_set() {
        for choice in arg.get_possible_values() {
            let meaning = choice.get_help().map(|help| format!(": {help}")).unwrap_or_default();
            write!(help, "\n\n`{}`{meaning}", choice.get_name()).unwrap();
        }
    }
    let cells = [
        format!("`--{}{value}`", arg.get_long().unwrap()),
        format!("`{}`", arg.get_env().unwrap().to_string_lossy()),
        config::valid_type(arg).to_owned(),
        default,
        help.replace("\n\n", ". ").replace("..", "."),
    ];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// A store with the metrics of a remote store and the records of an embedded one, so that it needs no server.
#[derive(Debug)]
struct Primary {
    metrics: Arc<dyn Store>,
    records: Arc<dyn Store>,
}

impl Store for Primary {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        self.records.get(id)
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        self.records.list(request)
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        self.records.upsert(documents)
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.records.ping()
    }

    fn snapshot(&self, after: Option<Key>) -> BoxFuture<'_, Result<SnapshotRows>> {
        self.records.snapshot(after)
    }

    fn changes(&self, after: Option<ResumeToken>) -> ChangeStream {
        self.records.changes(after)
    }

    fn metrics(&self) -> Vec<Metric> {
        self.metrics.metrics()
    }
}

#[tokio::test]
#[cfg_attr(not(all(feature = "mongodb", feature = "jwt")), ignore = "this build has fewer metrics")]
async fn the_reference_of_metrics_is_what_the_registry_says() {
    let remote = BACKENDS.iter().find(|backend| backend.kind == BackendKind::Remote).unwrap();
    let issuer = JwtSettings {
        jwks: "https://issuer.example/keys.json".into(),
        issuer: "reference".into(),
        audience: "reference".into(),
        ca: None,
    };
    let tokens = Tokens::open(issuer).map(Arc::new).unwrap();
    let open = async |url: &str| store::open(url, Options::default()).await.unwrap().into_store();
    let metrics = open(&format!("{}://127.0.0.1:1", remote.name)).await;
    let records = open("memory:").await;
    records.upsert(vec![Document::new(doc! { "_id": 1 }.to_vec().unwrap()).unwrap()]).await.unwrap();
    let settings = fallback::Settings {
        url: "memory:".into(),
        source: "the reference".into(),
        scope: String::new(),
        mode: fallback::Mode::Standby,
        timeout: Duration::from_secs(1),
        max_age: None,
        first_snapshot_within: Duration::ZERO,
        snapshot_interval: Duration::from_secs(60),
        audit_interval: Duration::ZERO,
        size_limit: 1 << 20,
        from: Vec::new(),
        save: None,
        options: Options::default(),
    };
    let store = fallback::over(Arc::new(Primary { metrics, records }), settings).await.unwrap();
    let mut settings = Settings::from(Duration::from_secs(20));
    settings.connections = Some(Connections::default());
    settings.process_memory_limit = Some(1 << 30);
    settings.dropped_lines = Some(NonBlocking::new(std::io::sink()).0.error_counter());
    // The metric of API keys appears after the first request with a key.
    let key = auth::new_key("reference").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    fs::write(&keys, &key.line).unwrap();
    settings.api_keys = Some(Arc::new(auth::KeyFile::open(keys).unwrap()));
    settings.tokens = Some(tokens);
    let (service, admin) = http::services(store, settings, Draining::default());
    let get = async |path: &str| {
        let request =
            Request::get(path).header("host", "records").header("authorization", format!("Bearer {}", key.secret));
        let service = if path.starts_with("/api/") { &service } else { &admin };
        let response = service.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    get("/api/v1/records/1").await;
    // The metric of the health check appears after the first one.
    get("/readyz").await;
    let mut text = get("/metrics").await;
    let begun = Instant::now();
    while !text.contains("\nrecords_fallback_replica_usable 1") {
        assert!(begun.elapsed() < Duration::from_secs(60), "there is no replica: {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        text = get("/metrics").await;
    }
    let families = parse(&text);
    for Family { name, labels, .. } in families.iter().filter(|family| family.kind == "histogram") {
        let largest = labels.get("le").is_some_and(|bounds| bounds.contains("+Inf"));
        assert!(largest, "the last bucket of {name} must be infinite: {labels:?}");
        assert!(labels["le"].iter().all(|bound| bound.len() < 10), "{name}: {labels:?}");
    }
    let rows: String = families.into_iter().map(row).collect();
    check("metrics.md", &format!("\n| metric | type | labels | |\n|---|---|---|---|\n{rows}\n"));
}

/// A family of metrics in the text of the registry.
#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    help: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn parse(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                families.push(Family { name: name.to_owned(), help: help.to_owned(), ..Default::default() });
            }
            (Some("#"), Some("TYPE"), _, Some(kind)) => families.last_mut().unwrap().kind = kind.to_owned(),
            (Some("#"), ..) => {}
            _ => {
                let Some((_, rest)) = line.split_once('{') else { continue };
                let (labels, _) = rest.rsplit_once('}').unwrap();
                for label in labels.split("\",") {
                    let (name, value) = label.split_once("=\"").unwrap();
                    let values = families.last_mut().unwrap().labels.entry(name.to_owned()).or_default();
                    values.insert(value.trim_end_matches('"').to_owned());
                }
            }
        }
    }
    families
}

fn row(family: Family) -> String {
    let suffix = match family.kind.as_str() {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    let label = |(name, values): (&String, &BTreeSet<String>)| match name.as_str() {
        // The reference of the API has the routes; every status may occur; operators name their keys.
        "route" | "status" | "version" | "key" => format!("`{name}`"),
        _ => format!("`{name}`: {}", values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")),
    };
    let labels: Vec<_> = family.labels.iter().filter(|(name, _)| *name != "le").map(label).collect();
    let help = family.help.trim_end_matches('.');
    format!("| `{}{suffix}` | {} | {} | {help} |\n", family.name, family.kind, labels.join("; "))
}
