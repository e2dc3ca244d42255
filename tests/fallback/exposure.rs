//! A replica of a part of the records: it has that part, and nothing else of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use memchr::memmem;
use records::query::{Exposure, Selection};
use records::record::Document;
use records::store::fallback::{self, Mode, Settings};
use records::store::{BACKENDS, BackendKind, Freshness, ListRequest, Options, Store};

use crate::cases;
use crate::servers::mongod::Mongod;
use crate::support::*;

cases! {
    Any {
        a_replica_of_a_part_is_that_part_after_every_write,
        a_replica_without_a_change_stream_is_that_part_too,
        a_read_of_the_latest_writes_shows_the_part_too,
    }
    Local {
        a_directory_of_another_scope_is_made_again,
    }
}

/// The condition needs a hidden field.
const HIDE: [&str; 2] = ["secret", "inner.secret"];
const CONDITION: &str = "secret.gte=5000500050005&n.lt=7";

/// The values of that field: long, so that no resume token has one by chance.
const SECRETS: [i64; 2] = [4_711_471_147_114, 9_999_471_147_114];

fn exposure(hide: &[&str], condition: Option<&str>) -> Arc<Exposure> {
    let hide: Vec<_> = hide.iter().map(|field| (*field).to_owned()).collect();
    Arc::new(Exposure::parse(&[], &hide, condition).expect("an exposure"))
}

async fn open_part(url: &str, exposure: &Arc<Exposure>) -> Arc<dyn Store> {
    open_with(url, Options { timeout: PATIENCE, exposure: Arc::clone(exposure), ..Default::default() }).await
}

/// Returns a generator with the seed in `TEST_SEED`, or with another one each time. Prints the seed, to repeat a run that failed.
fn seeded() -> fastrand::Rng {
    let seed = number("TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// A record; half of the records match the condition. Every value that is hidden is in `SECRETS` or has `hidden` in it.
fn record(random: &mut fastrand::Rng, id: u32) -> Document {
    let (secret, n) = (random.choice(SECRETS).expect("a secret"), random.u32(0..10));
    let inner = match random.u32(0..3) {
        0 => r#"{"secret":"hidden-text","x":1}"#.to_owned(),
        1 => format!(r#"[{{"secret":"hidden-text","x":{n}}},[{{"secret":"hidden-text"}}],5]"#),
        _ => "null".to_owned(),
    };
    parsed(&format!(r#"{{"_id":{id},"secret":{secret},"n":{n},"inner":{inner},"text":"shown"}}"#))
}

fn request(parameters: &[(&str, &str)]) -> ListRequest {
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let Selection { filter, sort, projection, limit, .. } = Selection::parse(&parameters).expect("parameters");
    ListRequest { filter, sort, projection, limit, ..ListRequest::default() }
}

async fn listed(store: &dyn Store, request: ListRequest) -> Vec<String> {
    let rows: Vec<_> = store.list(request).await.expect("a list").rows.try_collect().await.expect("rows");
    rows.iter().map(|row| json_of(&row.document)).collect()
}

/// Compares every answer of `store` with those of a memory store that holds the shown part of `all`.
async fn is_the_part(store: &dyn Store, all: &BTreeMap<u32, Document>, exposure: &Exposure) -> bool {
    let model = records::store::open("memory:", Options::default()).await.expect("a store").into_store();
    let shown = all.values().filter_map(|document| exposure.show(document.clone()).expect("BSON"));
    model.upsert(shown.collect()).await.expect("an upsert");
    for id in 0..40 {
        if json(&get(store, &id.to_string()).await) != json(&get(&*model, &id.to_string()).await) {
            return false;
        }
    }
    for parameters in [
        &[][..],
        &[("n.gte", "3")],
        &[("inner.x.exists", "true")],
        &[("sort", "-n"), ("limit", "100")],
        &[("sort", "inner.x,n"), ("limit", "5")],
        &[("fields", "inner"), ("limit", "100")],
    ] {
        if listed(store, request(parameters)).await != listed(&*model, request(parameters)).await {
            return false;
        }
    }
    true
}

/// Writes at random, and waits each time until the replica has the shown part.
async fn writes_arrive(
    server: &Mongod,
    replica: &dyn Store,
    exposure: &Exposure,
    random: &mut fastrand::Rng,
    rounds: u32,
) {
    let whole = open(&server.url()).await;
    let mut all = BTreeMap::new();
    for round in 0..rounds {
        for _ in 0..random.u32(1..8) {
            let id = random.u32(0..40);
            match random.u32(0..4) {
                0 => {
                    delete(server, id as i32);
                    all.remove(&id);
                }
                // An update: the event of the change stream has no document.
                1 if all.contains_key(&id) => {
                    set_n(server, id as i32, random.i32(0..10));
                    let document = get(&*whole, &id.to_string()).await.document.expect("a record");
                    all.insert(id, document);
                }
                _ => {
                    let document = record(random, id);
                    whole.upsert(vec![document.clone()]).await.expect("an upsert");
                    all.insert(id, document);
                }
            }
        }
        until(&format!("the part of round {round}"), async || is_the_part(replica, &all, exposure).await).await;
    }
}

/// Searches every file of the directory. Returns true if there is something of what is shown.
fn holds_nothing_hidden(path: &Path) -> bool {
    let mut holds_shown = false;
    for entry in fs::read_dir(path).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            holds_shown |= holds_nothing_hidden(&path);
            continue;
        }
        // A file may be renamed meanwhile: the state is written under another name first.
        let Ok(bytes) = fs::read(&path) else { continue };
        holds_shown |= memmem::find(&bytes, b"shown").is_some();
        let numbers = SECRETS.map(i64::to_le_bytes);
        let digits = SECRETS.map(|secret| secret.to_string());
        for hidden in [
            &b"hidden-text"[..],
            b"secret",
            b"5000500050005",
            digits[0].as_bytes(),
            digits[1].as_bytes(),
            &numbers[0],
            &numbers[1],
        ] {
            let is_there = memmem::find(&bytes, hidden).is_some();
            // The scope names what is hidden, and nothing of its values.
            let names_alone =
                hidden == b"secret" && (path.ends_with("replica.json") || path.ends_with("replica.json.new"));
            assert!(!is_there || names_alone, "{} holds {hidden:?}", path.display());
        }
    }
    holds_shown
}

async fn follow(server: Mongod, rounds: u32) {
    let mut random = seeded();
    let exposure = exposure(&HIDE, Some(CONDITION));
    for backend in BACKENDS.iter().filter(|backend| backend.kind != BackendKind::Remote) {
        // Readiness warns of a collection that does not exist.
        open(&server.url()).await.upsert(numbered(0..1)).await.expect("an upsert");
        delete_all(&server);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("replica");
        let url = match backend.kind {
            BackendKind::Local => format!("{}:{}", backend.name, path.display()),
            _ => format!("{}:", backend.name),
        };
        let settings = Settings {
            url,
            scope: exposure.scope().to_owned(),
            snapshot_interval: Duration::from_millis(50),
            ..settings(Mode::Replica)
        };
        let primary = open_part(&server.url(), &exposure).await;
        let replica = fallback::over(primary, settings).await.expect("a fallback");
        ready(&*replica).await;
        writes_arrive(&server, &*replica, &exposure, &mut random, rounds).await;
        if backend.kind == BackendKind::Local {
            until("the records on the disk", async || holds_nothing_hidden(&path)).await;
        }
    }
}

async fn a_replica_of_a_part_is_that_part_after_every_write() {
    follow(Mongod::start_replica_set().expect("a server"), 40).await;
}

async fn a_replica_without_a_change_stream_is_that_part_too() {
    follow(Mongod::start().expect("a server"), 10).await;
}

async fn a_directory_of_another_scope_is_made_again() {
    let server = filled().await;
    for backend in BACKENDS.iter().filter(|backend| backend.kind == BackendKind::Local) {
        let directory = tempfile::tempdir().expect("a directory");
        for (hide, shown) in [(&[][..], true), (&["text"][..], false), (&[][..], true)] {
            let exposure = exposure(hide, None);
            let settings = Settings {
                url: format!("{}:{}", backend.name, directory.path().join("replica").display()),
                scope: exposure.scope().to_owned(),
                ..settings(Mode::Replica)
            };
            let primary = open_part(&server.url(), &exposure).await;
            // The process before holds the lock of the directory for a moment.
            let opened = async || fallback::over(primary.clone(), settings.clone()).await.ok();
            let mut store = None;
            until("the lock", async || {
                store = opened().await;
                store.is_some()
            })
            .await;
            let store = store.expect("a fallback");
            ready(&*store).await;
            assert_eq!(json(&get(&*store, "1").await).contains("some text"), shown, "{hide:?}");
        }
    }
}

async fn a_read_of_the_latest_writes_shows_the_part_too() {
    let server = Mongod::start_replica_set().expect("a server");
    let mut random = seeded();
    let all: Vec<_> = (0..40).map(|id| record(&mut random, id)).collect();
    open(&server.url()).await.upsert(all.clone()).await.expect("an upsert");
    let exposure = exposure(&HIDE, Some(CONDITION));
    let store = open_part(&server.url(), &exposure).await;
    // Long ago, so that it is reached; the read takes the same way as after any other time.
    let not_before = Some("1.1".parse().expect("a time"));
    let freshness = Freshness { not_before, ..Freshness::default() };
    let mut shown = Vec::new();
    for (id, document) in all.into_iter().enumerate() {
        let found = store.get_fresh(&id.to_string().as_str().into(), &freshness).await.expect("a lookup");
        let expected = exposure.show(document).expect("BSON").as_ref().map(json_of);
        assert_eq!(found.document.as_ref().map(json_of), expected, "{id}");
        assert!(!json(&found).contains("secret"), "{}", json(&found));
        shown.extend(expected);
    }
    assert!((1..40).contains(&shown.len()), "{} of 40 records match the condition", shown.len());
    let latest = listed(&*store, ListRequest { freshness, ..ListRequest::default() }).await;
    assert_eq!(latest, shown);
}
