//! A soak test with random outages, which checks every answer: `TEST_SOAK_SECONDS=3600 cargo test --test fallback soak`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use records::record::Document;
use records::store::Store;

use crate::cases;
use crate::load::Client;
use crate::process::Service;
use crate::servers::mongod::{Mongod, element};
use crate::support::*;

cases! { soak, }

/// Returns the length of the soak test, if it is enabled.
pub fn time() -> Option<Duration> {
    std::env::var("TEST_SOAK_SECONDS").ok()?.parse().ok().map(Duration::from_secs)
}

const RECORDS: usize = 4_000;
const CLIENTS: usize = 4;
/// The pause between two requests of a client.
const PAUSE: Duration = Duration::from_millis(20);
/// The pause between two writes.
const WRITE_PAUSE: Duration = Duration::from_millis(50);
/// The time for which a deposed primary may still answer as the primary.
const OLD_PRIMARY: Duration = Duration::from_secs(15);
/// The tolerance of an age: it is in whole seconds, and the clocks are read one after the other.
const ROUNDING: Duration = Duration::from_secs(2);

/// The writes to each record: a number that only grows.
#[derive(Default)]
struct Written {
    tried: Vec<i64>,
    /// The acknowledged numbers, with the time of the acknowledgement.
    done: Vec<Vec<(Instant, i64)>>,
    /// True if a write to the record has an unknown outcome: it may still arrive, so the record is not written again.
    unknown: Vec<bool>,
}

impl Written {
    /// Returns the least number that an answer may show if its data is from `at`.
    fn least(&self, id: usize, at: Instant) -> i64 {
        self.done[id].iter().take_while(|(when, _)| *when <= at).map(|(_, n)| *n).last().unwrap_or(0)
    }
}

type Ledger = Arc<Mutex<Written>>;

fn record(id: usize, n: i64) -> Document {
    parsed(&format!(r#"{{"_id":{id},"text":"as long as a record may be, more or less","n":{{"$numberLong":"{n}"}}}}"#))
}

#[derive(Default)]
struct Seen {
    answers: BTreeMap<(u16, bool), u64>,
    wrong: Vec<String>,
}

/// Sends a request and checks the response.
async fn ask(client: &mut Client, ledger: &Ledger, id: Option<usize>, seen: &mut Seen) {
    let begin = Instant::now();
    let path = id.map_or("nobody".to_owned(), |id| id.to_string());
    let answer = client.get(&format!("/api/v1/records/{path}")).await;
    let age = answer.head.lines().find_map(|line| line.strip_prefix("age: ")?.parse().ok()).map(Duration::from_secs);
    *seen.answers.entry((answer.status, age.is_some())).or_default() += 1;
    let wrong = match (answer.status, id) {
        (204, None) => None,
        (503, _) if answer.head.contains("\r\nretry-after: ") => None,
        (200, Some(id)) => {
            let record: serde_json::Value = serde_json::from_str(&answer.body).expect("a record is JSON");
            let n = record["n"].as_i64().unwrap_or(i64::MIN);
            let written = ledger.lock().expect("a ledger");
            let old = age.map_or(OLD_PRIMARY, |age| age + ROUNDING);
            let least = begin.checked_sub(old).map_or(0, |at| written.least(id, at));
            let most = written.tried[id];
            let right = record["_id"] == id && (least..=most).contains(&n);
            (!right).then(|| format!("{n} is not from {least} to {most}"))
        }
        _ => Some("not an answer to this".to_owned()),
    };
    if let Some(wrong) = wrong {
        seen.wrong.push(format!("{path}, age {age:?}: {wrong}: {} {}", answer.head, answer.body));
    }
}

async fn write(store: Arc<dyn Store>, ledger: Ledger, until: Instant) -> (u64, u64) {
    let (mut done, mut unknown) = (0, 0);
    for (n, id) in (1_i64..).zip((0..RECORDS).cycle()) {
        if Instant::now() > until {
            break;
        }
        if ledger.lock().expect("a ledger").unknown[id] {
            continue;
        }
        ledger.lock().expect("a ledger").tried[id] = n;
        let result = store.upsert(vec![record(id, n)]).await;
        {
            let mut written = ledger.lock().expect("a ledger");
            match result {
                Ok(()) => {
                    written.done[id].push((Instant::now(), n));
                    done += 1;
                }
                Err(_) => {
                    written.unknown[id] = true;
                    unknown += 1;
                }
            }
        }
        tokio::time::sleep(WRITE_PAUSE).await;
    }
    (done, unknown)
}

async fn read(address: std::net::SocketAddr, ledger: Ledger, first: usize, until: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut client = Client::connect(address).await;
    let mut id = first;
    while Instant::now() < until {
        id = (id + 7) % (RECORDS + 1);
        ask(&mut client, &ledger, (id < RECORDS).then_some(id), &mut seen).await;
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

fn primary(set: &[Mongod]) -> Option<usize> {
    set.iter().position(|member| member.is_primary().unwrap_or(false))
}

/// Causes an outage, and waits until the replica set has recovered.
async fn accident(kind: usize, set: &mut [Mongod]) {
    let seconds = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
    let first = primary(set).unwrap_or(0);
    match kind % 6 {
        0 => {
            set[first].kill();
            seconds(5).await;
            set[first].run().expect("a server");
        }
        1 => {
            set[first].pause();
            seconds(8).await;
            set[first].resume();
        }
        2 => {
            let step_down =
                [element(0x10, "replSetStepDown", &10_i32.to_le_bytes()), element(0x08, "force", &[1])].concat();
            let _ = set[first].command("admin", &step_down);
        }
        3 => {
            set.iter_mut().for_each(Mongod::kill);
            seconds(5).await;
            set.iter_mut().for_each(|member| member.run().expect("a server"));
        }
        4 => {
            set.iter().for_each(Mongod::pause);
            seconds(5).await;
            set.iter().for_each(Mongod::resume);
        }
        _ => seconds(10).await,
    }
    until("a primary", async || primary(set).is_some()).await;
    seconds(5).await;
}

async fn soak() {
    let time = time().unwrap_or_default();
    let mut set = Mongod::start_set_of(3).expect("a replica set");
    let url = set[0].url();
    let store = open(&format!("{url}&w=majority")).await;
    let all = || (0..RECORDS).map(|id| record(id, 0)).collect::<Vec<_>>();
    until("a majority", async || store.upsert(all()).await.is_ok()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let service = Service::start_with_replica(&directory, &url, "memory:");
    until("a whole copy", async || service.is_ready()).await;
    let ledger = Ledger::new(Mutex::new(Written {
        tried: vec![0; RECORDS],
        done: vec![Vec::new(); RECORDS],
        unknown: vec![false; RECORDS],
    }));
    let (begin, end) = (Instant::now(), Instant::now() + time);
    let writer = tokio::spawn(write(store.clone(), ledger.clone(), end));
    let readers: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(read(service.address, ledger.clone(), client * RECORDS / CLIENTS, end)))
        .collect();
    let (mut accidents, mut early) = (0, None);
    while Instant::now() < end {
        accident(accidents, &mut set).await;
        accidents += 1;
        if begin.elapsed() > time / 6 {
            early.get_or_insert_with(|| service.memory());
        }
    }
    let mut seen = Seen::default();
    for reader in readers {
        let one = reader.await.expect("a reader");
        one.answers.into_iter().for_each(|(kind, count)| *seen.answers.entry(kind).or_default() += count);
        seen.wrong.extend(one.wrong);
    }
    let (done, unknown) = writer.await.expect("the writer");
    let (early, late) = (early.unwrap_or_default(), service.memory());
    eprintln!("{accidents} accidents, {done} writes, {unknown} of unknown outcome");
    eprintln!("by status and copy: {:?}; {} wrong", seen.answers, seen.wrong.len());
    eprintln!("memory after a sixth of the time: {early} KiB; at the end: {late} KiB");
    assert!(seen.wrong.is_empty(), "{:#?}", &seen.wrong[..seen.wrong.len().min(5)]);
    let failed: u64 = seen.answers.iter().filter(|((status, _), _)| *status == 503).map(|(_, count)| count).sum();
    assert_eq!(failed, 0, "{:?}", seen.answers);
    assert!(late <= early + early / 10, "memory grew from {early} to {late} KiB");

    // Checks the checker itself with a record that goes back in time.
    tokio::time::sleep(OLD_PRIMARY).await;
    let id = (0..RECORDS).find(|id| !ledger.lock().expect("a ledger").done[*id].is_empty()).expect("a write");
    until("a write", async || store.upsert(vec![record(id, -1)]).await.is_ok()).await;
    let mut planted = Seen::default();
    ask(&mut Client::connect(service.address).await, &ledger, Some(id), &mut planted).await;
    assert_eq!(planted.wrong.len(), 1, "the checker does not see a record that goes back in time");
}
