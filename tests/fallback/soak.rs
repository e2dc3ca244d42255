//! A soak test with random outages, which checks every answer: `TEST_SOAK_SECONDS=3600 cargo test --test fallback soak`.
//!
//! Many writers and readers bound what they get, by directives and by the times of writes, in both modes. The checker knows every
//! acknowledged write.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::options::WriteConcern;
use records::store::ClusterTime;

use crate::cases;
use crate::checker::{Answer, Bounds, Ledger, Violation, violations};
use crate::freshness::cluster_time;
use crate::load::Client;
use crate::process::Service;
use crate::servers::mongod::{Mongod, element};
use crate::support::*;

cases! { soak, }

/// Returns the length of the soak test, if it is enabled.
pub fn time() -> Option<Duration> {
    number("TEST_SOAK_SECONDS").map(Duration::from_secs)
}

const RECORDS: usize = 400;
const WRITERS: usize = 8;
/// The readers of each service.
const READERS: usize = 8;
/// The pause between two requests of a reader, and between two writes of a writer.
const READ_PAUSE: Duration = Duration::from_millis(50);
const WRITE_PAUSE: Duration = Duration::from_millis(200);
/// The records of a list.
const LISTED: usize = 10;
const MODES: [&str; 2] = ["standby", "replica"];

const fn bounds(cache_control: &'static str, max_age: Option<u64>, only_replica: bool) -> Bounds {
    Bounds { cache_control, max_age, only_replica, not_before: None }
}

/// The directives of the readers.
const BOUNDS: [Bounds; 11] = [
    bounds("", None, false),
    bounds("max-age=1", Some(1), false),
    bounds("max-age=4", Some(4), false),
    bounds("max-age=1, max-stale=2", Some(3), false),
    bounds("max-stale", None, false),
    bounds("stale-if-error=3", Some(3), false),
    bounds("max-age=1, stale-if-error=5", Some(6), false),
    bounds("no-cache", Some(0), false),
    bounds("no-cache, stale-if-error=4", Some(4), false),
    bounds("only-if-cached", None, true),
    bounds("only-if-cached, max-age=2", Some(2), true),
];

#[derive(Default)]
struct Seen {
    /// The number of answers by the bounds of the request, the status, and "from the replica".
    answers: BTreeMap<(String, u16, bool), u64>,
    /// The times of reads of a writer's own write.
    own: Vec<Duration>,
    wrong: Vec<String>,
    by_kind: BTreeMap<String, u64>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        other.answers.into_iter().for_each(|(kind, count)| *self.answers.entry(kind).or_default() += count);
        other.by_kind.into_iter().for_each(|(kind, count)| *self.by_kind.entry(kind).or_default() += count);
        self.own.extend(other.own);
        self.wrong.extend(other.wrong);
    }
}

/// Sends a request for one record, for a list of several, or for one that does not exist, and checks the response.
async fn ask(client: &mut Client, ledger: &Ledger, ids: Range<usize>, bounds: Bounds, seen: &mut Seen) {
    let path = match ids.len() {
        0 => "/nobody".to_owned(),
        1 => format!("/{}", ids.start),
        many => format!("?_id.gte={}&limit={many}", ids.start),
    };
    let asked = Instant::now();
    let response = client.get_with(&format!("/api/v1/records{path}"), &bounds.headers()).await;
    let answer = Answer::read(response.status, &response.head, &response.body);
    let token = if bounds.not_before.is_some() { " + token" } else { "" };
    let kind = (format!("{}{token}", bounds.cache_control), answer.status, answer.age.is_some());
    *seen.answers.entry(kind).or_default() += 1;
    for violation in violations(ledger, ids, &bounds, asked, &answer) {
        *seen.by_kind.entry(format!("{violation:?}")).or_default() += 1;
        if seen.wrong.len() < 20 {
            let sent = bounds.headers();
            seen.wrong.push(format!("{violation:?}: {path} {sent}: {} {}", response.head, response.body));
        }
    }
}

/// Writes numbers to its own records, and reads what it has just written.
async fn write(
    records: mongodb::Collection<Document>,
    ledger: Arc<Ledger>,
    first: usize,
    services: [SocketAddr; 2],
    until: Instant,
) -> (Seen, u64, u64) {
    let (mut seen, mut done, mut unknown) = (Seen::default(), 0, 0);
    for (n, id) in (1_i64..).zip((first..RECORDS).step_by(WRITERS).cycle()) {
        if Instant::now() > until {
            break;
        }
        ledger.try_write(id, n);
        match set_n(&records, id, n).await {
            Ok(time) => {
                ledger.acknowledge(id, n, time);
                done += 1;
                for service in services {
                    // The service closes a connection that is idle while the writer waits for MongoDB.
                    let mut client = Client::connect(service).await;
                    let asked = Instant::now();
                    let bounds = Bounds { not_before: Some(time), ..Bounds::default() };
                    ask(&mut client, &ledger, id..id + 1, bounds, &mut seen).await;
                    seen.own.push(asked.elapsed());
                }
            }
            // It may still arrive.
            Err(_) => unknown += 1,
        }
        tokio::time::sleep(WRITE_PAUSE).await;
    }
    (seen, done, unknown)
}

async fn set_n(records: &mongodb::Collection<Document>, id: usize, n: i64) -> mongodb::error::Result<ClusterTime> {
    let mut session = records.client().start_session().await?;
    // A write that arrives late takes nothing back.
    let set = records.update_one(doc! { "_id": id as i32, "n": { "$lt": n } }, doc! { "$set": { "n": n } });
    set.write_concern(WriteConcern::majority()).session(&mut session).await?;
    Ok(cluster_time(session.operation_time().ok_or_else(|| mongodb::error::Error::custom("no time"))?))
}

async fn read(service: SocketAddr, ledger: Arc<Ledger>, first: usize, until: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut client = Client::connect(service).await;
    let mut id = first;
    for round in first.. {
        if Instant::now() > until {
            break;
        }
        id = (id + 7) % RECORDS;
        let ids = match round % 16 {
            0 => id..id,
            1 => id..(id + LISTED).min(RECORDS),
            _ => id..id + 1,
        };
        // A token of a write to the record, or to another one.
        let not_before = if round % 3 == 0 { ledger.last_time((id + round % 2) % RECORDS) } else { None };
        let bounds = Bounds { not_before, ..BOUNDS[round % BOUNDS.len()] };
        ask(&mut client, &ledger, ids, bounds, &mut seen).await;
        tokio::time::sleep(READ_PAUSE).await;
    }
    seen
}

fn primary(set: &[Mongod]) -> Option<usize> {
    set.iter().position(|member| member.is_primary().unwrap_or(false))
}

/// Makes every member disturb the commands of the services: by `how`, until it is told to stop.
pub async fn disturb(set: &[Mongod], mode: &str, how: Document) {
    let mut data = doc! { "failCommands": ["find", "aggregate", "getMore", "ping"], "appName": "records" };
    data.extend(how);
    for member in set {
        let url = format!("mongodb://127.0.0.1:{}/?directConnection=true", member.port());
        let client = mongodb::Client::with_uri_str(url).await.expect("a client");
        let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data.clone() };
        client.database("admin").run_command(command).await.expect("a fail point");
    }
}

/// Causes an outage, and waits until the replica set has recovered.
async fn accident(kind: usize, set: &mut [Mongod]) {
    let seconds = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
    let first = primary(set).unwrap_or(0);
    match kind % 8 {
        0 => {
            set[first].kill();
            seconds(5).await;
            set[first].run().expect("a server");
        }
        1 => {
            disturb(set, "alwaysOn", doc! { "blockConnection": true, "blockTimeMS": 400 }).await;
            seconds(8).await;
            disturb(set, "off", Document::new()).await;
        }
        2 => {
            set[first].pause();
            seconds(8).await;
            set[first].resume();
        }
        3 => {
            let step_down =
                [element(0x10, "replSetStepDown", &10_i32.to_le_bytes()), element(0x08, "force", &[1])].concat();
            let _ = set[first].command("admin", &step_down);
        }
        4 => {
            disturb(set, "alwaysOn", doc! { "closeConnection": true }).await;
            seconds(8).await;
            disturb(set, "off", Document::new()).await;
        }
        5 => {
            set.iter_mut().for_each(Mongod::kill);
            seconds(5).await;
            set.iter_mut().for_each(|member| member.run().expect("a server"));
        }
        6 => {
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
    let client = mongodb::Client::with_uri_str(format!("{url}&serverSelectionTimeoutMS=2000")).await.expect("a client");
    let records = client.database(DATABASE).collection::<Document>("records");
    let all = (0..RECORDS).map(|id| doc! { "_id": id as i32, "n": 0_i64, "text": "as long as a record may be" });
    records.insert_many(all).write_concern(WriteConcern::majority()).await.expect("records");
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let audits = ["--fallback-audit-interval", "1s"];
    let services: Vec<_> = MODES
        .iter()
        .zip(&directories)
        .map(|(mode, directory)| Service::in_mode(mode, directory, &url, &audits))
        .collect();
    for service in &services {
        until("a whole copy", async || service.is_ready()).await;
    }
    let addresses = [services[0].address, services[1].address];
    let ledger = Arc::new(Ledger::new(RECORDS));
    let (begin, end) = (Instant::now(), Instant::now() + time);
    let writers: Vec<_> =
        (0..WRITERS).map(|first| tokio::spawn(write(records.clone(), ledger.clone(), first, addresses, end))).collect();
    let readers: Vec<_> = (0..2 * READERS)
        .map(|reader| tokio::spawn(read(addresses[reader % 2], ledger.clone(), reader * RECORDS / (2 * READERS), end)))
        .collect();
    let (mut accidents, mut early) = (0, None);
    while Instant::now() < end {
        accident(accidents, &mut set).await;
        accidents += 1;
        if begin.elapsed() > time / 6 {
            early.get_or_insert_with(|| services[0].memory());
        }
    }
    let (mut seen, mut done, mut unknown) = (Seen::default(), 0, 0);
    for reader in readers {
        seen.add(reader.await.expect("a reader"));
    }
    for writer in writers {
        let (one, one_done, one_unknown) = writer.await.expect("a writer");
        seen.add(one);
        (done, unknown) = (done + one_done, unknown + one_unknown);
    }
    let (early, late) = (early.unwrap_or_default(), services[0].memory());
    eprintln!("{accidents} accidents, {done} writes, {unknown} of unknown outcome");
    for ((bounds, status, is_replica), count) in &seen.answers {
        eprintln!("{count:8} × {status} {} [{bounds}]", if *is_replica { "replica" } else { "MongoDB" });
    }
    seen.own.sort();
    let own = |percent: usize| seen.own.get(seen.own.len() * percent / 100).copied().unwrap_or_default();
    eprintln!("reads of one's own write: median {:?}, p99 {:?}", own(50), own(99));
    eprintln!("memory after a sixth of the time: {early} KiB; at the end: {late} KiB");
    eprintln!("wrong: {:?}", seen.by_kind);
    assert!(seen.wrong.is_empty(), "{:#?}", &seen.wrong[..seen.wrong.len().min(5)]);
    for service in &services {
        let (_, metrics) = service.get("/metrics");
        let audits: Vec<_> = metrics.lines().filter(|line| line.starts_with("records_fallback_audits_total")).collect();
        eprintln!("{audits:?}");
        assert!(audits.iter().any(|line| line.contains("different") && line.ends_with(" 0")), "{audits:?}");
        assert!(audits.iter().any(|line| line.contains("equal") && !line.ends_with(" 0")), "{audits:?}");
    }
    assert!(late <= early + early / 10, "memory grew from {early} to {late} KiB");

    // Checks the checker itself with a record that goes back in time.
    let id = (0..RECORDS).find(|id| ledger.last_time(*id).is_some()).expect("a write");
    let back = records.update_one(doc! { "_id": id as i32 }, doc! { "$set": { "n": -1_i64 } });
    back.write_concern(WriteConcern::majority()).await.expect("a write");
    let not_before = ledger.last_time(id);
    let mut planted = Seen::default();
    for address in addresses {
        let bounds = Bounds { cache_control: "no-cache", max_age: Some(0), only_replica: false, not_before };
        ask(&mut Client::connect(address).await, &ledger, id..id + 1, bounds, &mut planted).await;
    }
    assert_eq!(planted.by_kind.get(&format!("{:?}", Violation::BeforeTheToken)), Some(&2), "{:?}", planted.wrong);
}
