//! Outages of MongoDB under the load of 64 HTTP connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream;
use records::http::{self, Draining};
use records::server::{self, Limits};
use records::store::Store;
use records::store::fallback::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::cases;
use crate::servers::mongod::{Mongod, element};
use crate::support::*;

cases! {
    killed_under_load_no_request_fails,
    stuck_under_load_no_request_fails,
    killed_under_load_a_replica_fails_no_request,
    killed_under_load_without_a_fallback_every_answer_is_503,
    a_step_down_under_load_fails_no_request_in_standby_mode,
    a_step_down_under_load_fails_no_request_in_replica_mode,
    over_http_a_copy_says_so,
}

const CONNECTIONS: usize = 64;

/// The request timeout, which no response may exceed.
const DEADLINE: Duration = Duration::from_secs(6);

/// Checks that reads return to the primary within the target time.
fn is_soon(back: Duration) {
    assert!(back < Duration::from_secs(2) || !times_are_asked_for(), "{back:?}");
}

fn outage() -> Duration {
    Duration::from_secs(number("TEST_OUTAGE_SECONDS").unwrap_or(3))
}

/// Serves until the runtime ends.
async fn serve(store: Arc<dyn Store>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a port");
    let limits = Limits {
        tls: None,
        header_timeout: PATIENCE,
        write_timeout: PATIENCE,
        max_connections: 1_000,
        max_connections_per_address: None,
        trusted_proxies: Default::default(),
        with_peer_address: false,
        connections: Default::default(),
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::ZERO,
    };
    let service = http::service(store, DEADLINE, Draining::default());
    tokio::spawn(server::run(listener, service, limits, stream::pending(), || {}));
    address
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

pub struct Client(BufReader<TcpStream>);

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.expect("a connection")))
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.get_with(path, "").await
    }

    /// Sends a request with more header lines, each with its end.
    pub async fn get_with(&mut self, path: &str, headers: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).await.expect("a request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).expect("a head").to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.expect("a body");
        Answer { status, head, body: String::from_utf8(body).expect("a body") }
    }
}

/// The results of the requests in one phase.
#[derive(Default)]
struct Seen {
    /// The number of responses by status, and by "from the replica".
    answers: BTreeMap<(u16, bool), u64>,
    times: Vec<Duration>,
    wrong: Vec<String>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        other.answers.into_iter().for_each(|(kind, count)| *self.answers.entry(kind).or_default() += count);
        self.times.extend(other.times);
        self.wrong.extend(other.wrong);
    }

    fn p99(&mut self) -> Duration {
        self.times.sort();
        self.times.get(self.times.len() * 99 / 100).copied().unwrap_or_default()
    }

    fn tell(&mut self, phase: &str) {
        let (p99, most) = (self.p99(), self.times.last().copied().unwrap_or_default());
        eprintln!("{phase}: {:?} by status and copy; p99 {p99:?}, most {most:?}", self.answers);
        assert!(self.wrong.is_empty(), "{:?}", &self.wrong[..self.wrong.len().min(5)]);
        assert!(most < DEADLINE + Duration::from_secs(1) || !times_are_asked_for(), "an answer took {most:?}");
    }

    fn of(&self, status: u16) -> u64 {
        self.answers.iter().filter(|((is, _), _)| *is == status).map(|(_, count)| count).sum()
    }

    /// Checks that every request was answered correctly.
    fn has_no_failure(&self) {
        let all: u64 = self.answers.values().sum();
        assert!(all > 100, "only {all} requests");
        assert_eq!(self.of(200) + self.of(204), all, "{:?}", self.answers);
    }
}

/// 64 clients. Each repeatedly requests 99 records and an absent one.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<Seen>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CONNECTIONS).map(|client| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut connection = Client::connect(address).await;
                let mut seen = Seen::default();
                let mut id = client;
                while !stop.load(Ordering::Relaxed) {
                    id = (id + 1) % 101;
                    let begin = Instant::now();
                    let answer = connection.get(&format!("/api/v1/records/{id}")).await;
                    seen.times.push(begin.elapsed());
                    *seen.answers.entry((answer.status, answer.head.contains("\r\ncache-status: "))).or_default() += 1;
                    let right = match answer.status {
                        200 => id < 100 && answer.body.starts_with(&format!("{{\"_id\":{id},")),
                        204 => id == 100,
                        503 => answer.head.contains("\r\nretry-after: "),
                        _ => false,
                    };
                    if !right {
                        seen.wrong.push(format!("{id}: {} {}", answer.head, answer.body));
                    }
                }
                seen
            })
        });
        let clients = clients.collect();
        Self { stop, clients }
    }

    async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for seen in join_all(self.clients).await {
            all.add(seen.expect("a client"));
        }
        all
    }
}

/// Runs the load before, during and after an outage. The transitions belong to the second phase.
async fn phases(
    store: Arc<dyn Store>,
    begin: impl AsyncFnOnce(),
    end: impl AsyncFnOnce(),
) -> (Seen, Seen, Seen, Duration) {
    let address = serve(store.clone()).await;
    let load = Load::on(address);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut before = load.end().await;
    before.tell("before");
    let load = Load::on(address);
    begin().await;
    tokio::time::sleep(outage()).await;
    let mut while_away = load.end().await;
    while_away.tell("while away");
    let load = Load::on(address);
    end().await;
    let back =
        until("the primary", async || store.get(&"1".into()).await.is_ok_and(|found| found.staleness.is_none())).await;
    eprintln!("reads are back after {back:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut after = load.end().await;
    after.tell("after");
    (before, while_away, after, back)
}

async fn killed_under_load_no_request_fails() {
    let server = tokio::sync::Mutex::new(filled().await);
    let store = over(&server.lock().await.url(), settings(Mode::Standby)).await;
    ready(&*store).await;
    let kill = async || server.lock().await.kill();
    let run = async || server.lock().await.run().expect("a server");
    let (mut before, mut while_away, after, back) = phases(store, kill, run).await;
    [&before, &while_away, &after].into_iter().for_each(Seen::has_no_failure);
    assert!(while_away.answers.contains_key(&(200, true)), "the copy never answered");
    is_soon(back);
    if times_are_asked_for() {
        let (with, without) = (before.p99(), while_away.p99());
        assert!(without <= with, "p99 is {without:?} without MongoDB, and {with:?} with it");
    }
}

async fn stuck_under_load_no_request_fails() {
    let server = filled().await;
    let store = over(&server.url(), settings(Mode::Standby)).await;
    ready(&*store).await;
    let (before, while_away, after, back) = phases(store, async || server.pause(), async || server.resume()).await;
    [&before, &while_away, &after].into_iter().for_each(Seen::has_no_failure);
    let late = while_away.times.iter().any(|took| *took > DEADLINE / 3);
    assert!(!late || !times_are_asked_for(), "an answer came late");
    is_soon(back);
}

async fn killed_under_load_a_replica_fails_no_request() {
    let mut server = filled_set().await;
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    let load = Load::on(serve(store).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.kill();
    tokio::time::sleep(outage()).await;
    server.run().expect("a server");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut seen = load.end().await;
    seen.tell("replica");
    seen.has_no_failure();
    assert!(seen.answers.keys().all(|(_, copy)| *copy), "{:?}", seen.answers);
}

async fn killed_under_load_without_a_fallback_every_answer_is_503() {
    let mut server = filled().await;
    let store = open_within(&server.url(), TIMEOUT).await;
    assert!(store.get(&"1".into()).await.is_ok());
    let address = serve(store.clone()).await;
    server.kill();
    let load = Load::on(address);
    tokio::time::sleep(outage()).await;
    let mut seen = load.end().await;
    seen.tell("without a fallback");
    let all: u64 = seen.answers.values().sum();
    assert!(all >= CONNECTIONS as u64, "only {all} requests");
    assert_eq!(seen.of(503), all);
    server.run().expect("a server");
    let back = until("the primary", async || store.get(&"1".into()).await.is_ok()).await;
    eprintln!("answers are back after {back:?}");
    is_soon(back);
}

async fn a_step_down_under_load_fails_no_request_in_standby_mode() {
    step_down_under_load(Mode::Standby).await;
}

async fn a_step_down_under_load_fails_no_request_in_replica_mode() {
    step_down_under_load(Mode::Replica).await;
}

async fn step_down_under_load(mode: Mode) {
    let set = Mongod::start_set_of(3).expect("a replica set");
    let url = set[0].url();
    // A majority write, which an election cannot roll back.
    let primary = open(&format!("{url}&w=majority")).await;
    until("a majority", async || primary.upsert(numbered(0..100)).await.is_ok()).await;
    let store = over(&url, settings(mode)).await;
    ready(&*store).await;
    let address = serve(store.clone()).await;
    let load = Load::on(address);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut before = load.end().await;
    before.tell("before");
    before.has_no_failure();
    let load = Load::on(address);
    let begin = Instant::now();
    // For longer than an election takes under load, so that another member is elected.
    let step_down = [element(0x10, "replSetStepDown", &60_i32.to_le_bytes()), element(0x08, "force", &[1])].concat();
    set[0].command("admin", &step_down).expect("a reply");
    until("another primary", async || set[1..].iter().any(|member| member.is_primary().unwrap_or(false))).await;
    eprintln!("another primary after {:?}", begin.elapsed());
    // The replica follows the new primary.
    let new = set[1..].iter().find(|member| member.is_primary().unwrap_or(false)).expect("a primary");
    set_n(new, 1, 7);
    if mode == Mode::Replica {
        until("a change", async || json(&get(&*store, "1").await).contains(r#""n":7"#)).await;
        eprintln!("a change at the new primary is visible after {:?}", begin.elapsed());
    } else {
        until("the primary", async || get(&*store, "1").await.staleness.is_none()).await;
        eprintln!("reads are back after {:?}", begin.elapsed());
    }
    let mut seen = load.end().await;
    seen.tell("step down");
    seen.has_no_failure();
    let metrics = metrics(&*store);
    assert!(metrics.contains("fallback_replica_snapshots_total 1\n"), "it was copied again:\n{metrics}");
}

async fn over_http_a_copy_says_so() {
    let mut server = filled().await;
    let store = over(&server.url(), settings(Mode::Standby)).await;
    ready(&*store).await;
    let mut client = Client::connect(serve(store).await).await;
    until("an answer of MongoDB", async || {
        let answer = client.get("/api/v1/records/1").await;
        assert_eq!(answer.status, 200);
        let is_stale = answer.head.contains("\r\nage: ");
        assert_eq!(answer.head.contains("\r\ncache-status: "), is_stale, "{}", answer.head);
        !is_stale
    })
    .await;
    until("a service that is ready", async || {
        let ready = client.get("/readyz").await;
        assert_eq!(ready.status, 200);
        ready.body == r#"{"status":"ready"}"#
    })
    .await;
    server.kill();
    for (id, status) in [("1", 200), ("nobody", 204)] {
        let answer = client.get(&format!("/api/v1/records/{id}")).await;
        assert_eq!(answer.status, status);
        assert!(answer.head.contains("\r\ncache-status: records; hit; detail=replica\r\n"), "{}", answer.head);
        let age = answer.head.lines().find_map(|line| line.strip_prefix("age: ")?.parse::<u64>().ok());
        assert!(age.is_some_and(|age| age < 60), "{}", answer.head);
    }
    let ready = client.get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert!(
        ready.body.starts_with(r#"{"detail":"MongoDB is unreachable; the fallback replica from "#),
        "{}",
        ready.body
    );
    assert!(ready.body.ends_with(r#" s ago answers","status":"degraded"}"#), "{}", ready.body);
    let metrics = client.get("/metrics").await.body;
    assert!(metrics.contains("\nrecords_fallback_replica_usable 1.0\n"), "{metrics}");
    assert!(metrics.contains("\nrecords_fallback_replica_records 100.0\n"), "{metrics}");
    // The list comes in chunks.
    let mut list = Client::connect(client.0.get_ref().peer_addr().expect("an address")).await;
    let head = list.get("/api/v1/records").await.head;
    assert!(
        head.contains("\r\ncache-status: records; hit; detail=replica\r\n") && head.contains("\r\nage: "),
        "{head}"
    );
}
