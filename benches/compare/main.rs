//! Compares the whole service with its parts in one run: `cargo bench --bench compare`.
//!
//! Needs a MongoDB: `TEST_MONGOD` names an executable to start as a replica set of one, or `TEST_MONGODB_URL` a replica set
//! that runs. Every contestant is a separate process, which is idle while another one is measured. They take turns in rounds,
//! because the speed of the machine changes over minutes: ratios are computed within a round, and the output is their median,
//! with the least and the greatest.
//!
//! - `--seconds 3` each turn, `--rounds 5`.
//! - `--million` also compares lookups among a million records with those among a few, from each store and from bare axum's
//!   hash map; loading them takes three minutes.
//! - `--spread` only compares instances of the service over a replica set of three.
//! - `--save` draws the plot that docs/explanation/benchmarks.md shows.

mod baselines;
mod data;
mod load;
mod plot;
mod spread;

#[path = "../../tests/support/servers.rs"]
mod servers;

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use load::Seen;
use mongodb::bson::{RawDocumentBuf, doc, oid::ObjectId};
use records::store::{self, Options};
use servers::mongod::Mongod;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, name, argument] = arguments.as_slice()
        && serve == "serve"
    {
        return baselines::serve(name, argument);
    }
    let value = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).map_or(default, |value| value.parse().expect("a number"))
    };
    let test = arguments.iter().any(|argument| argument == "--test");
    let comparison = Comparison {
        turn: if test { Duration::from_millis(200) } else { Duration::from_secs(value("--seconds", 3)) },
        rounds: if test { 1 } else { value("--rounds", 5) as usize },
    };
    if !servers::is_configured("mongodb") {
        println!("nothing is compared: {}", servers::how_to_configure("mongodb"));
        return;
    }
    let asked = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if !asked("--spread") {
        // A replica set, as in production: a standalone server has no change stream for the replica.
        let set = servers::mongod::program().map(|_| Mongod::start_replica_set().expect("a replica set"));
        let url = |database: &str| {
            let database = format!("{database}_{}", std::process::id());
            match &set {
                Some(set) => set.url().replace("/?", &format!("/{database}?")),
                None => servers::url("mongodb", &database).expect("a MongoDB"),
            }
        };
        run(&comparison, url, asked("--million"), asked("--save"));
    } else if servers::mongod::program().is_some() {
        spread::run(&comparison);
    } else {
        println!("nothing is compared: set TEST_MONGOD to the path of a mongod executable, to start three of them");
    }
    servers::stop_all();
}

struct Comparison {
    turn: Duration,
    rounds: usize,
}

/// The number of records in a large collection.
const MANY: u32 = 1_000_000;

/// The seed of a store that has records already.
const NO_SEED: &str = "none";

/// The time limit for a replica of [`MANY`] records.
const COPIED: Duration = Duration::from_secs(300);

/// The text before the address in a server's output.
const LISTENING: &str = "listening on http://";

/// A server process, killed when this is dropped.
struct Server {
    child: Child,
    port: u16,
    /// The time from the start to the first 200.
    cold: Duration,
}

impl Server {
    fn start(command: &mut Command, first: &str) -> Self {
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
        // Baselines print their address to standard output, the service logs it.
        let (out, log) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (sender, receiver) = std::sync::mpsc::channel();
        for reader in [Box::new(out) as Box<dyn Read + Send>, Box::new(log)] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(reader);
                for line in reader.by_ref().lines().map_while(Result::ok) {
                    let found = line.contains(LISTENING);
                    let _ = sender.send(line);
                    if found {
                        break;
                    }
                }
                // The pipe must be drained, in blocks as a log collector does, not line by line.
                io::copy(&mut reader, &mut io::sink())
            });
        }
        let port = loop {
            let line = receiver.recv_timeout(Duration::from_secs(60)).expect("a server says where it listens");
            if let Some((_, address)) = line.split_once(LISTENING) {
                let port = address.split_once(':').expect("an address and a port").1;
                break port[..port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len())].parse().expect("a port");
            }
        };
        while get(port, first).0 != 200 {
            std::thread::sleep(Duration::from_micros(200));
        }
        Self { child, port, cold: begun.elapsed() }
    }

    fn records(store: &str, first: &str) -> Self {
        Self::start(&mut serve(store, NO_SEED.as_ref()), first)
    }

    /// Starts the service in replica mode, and returns once the replica answers.
    fn replica(store: &str, first: &str) -> Self {
        let mut command = serve(store, NO_SEED.as_ref());
        let server = Self::start(command.args(["--fallback", "memory:", "--fallback-mode", "replica"]), first);
        let end = Instant::now() + COPIED;
        while !server.answers_from_its_copy(first) {
            assert!(Instant::now() < end, "there is no copy: replica mode takes a replica set");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn answers_from_its_copy(&self, path: &str) -> bool {
        get(self.port, path).1.contains("cache-status: records; hit; detail=replica")
    }

    fn baseline(name: &str, argument: &str, first: &str) -> Self {
        Self::start(Command::new(std::env::current_exe().expect("this program")).args(["serve", name, argument]), first)
    }

    /// Returns the value of a metric.
    fn metric(&self, name: &str) -> f64 {
        let (_, text) = get(self.port, "/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect("such a metric").parse().expect("a number")
    }

    /// Returns the resident memory in MB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap_or(0.0) / 1024.0
    }
}

fn serve(store: &str, seed: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--store", store, "--seed"]).arg(seed);
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the status and the whole response of a GET; status 0 without a response.
fn get(port: u16, path: &str) -> (u16, String) {
    let mut answer = String::new();
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return (0, answer) };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer)).is_err() {
        return (0, answer);
    }
    (answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0), answer)
}

fn fill(url: &str, count: u32) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let options = Options { timeout: Duration::from_secs(60), ..Options::default() };
        let store = store::open(url, options).await.expect("a store").into_store();
        let mut documents = data::documents(count).map(|(_, document)| document);
        loop {
            let some: Vec<_> = documents.by_ref().take(20_000).collect();
            if some.is_empty() {
                break;
            }
            store.upsert(some).await.expect("an import");
        }
    });
}

/// Writes records in the format of MongoDB's tools.
fn seed_file(path: &Path, count: u32) {
    let mut file = io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    for (id, document) in data::documents(count) {
        let json = data::json(&document);
        let json = std::str::from_utf8(&json).expect("UTF-8");
        let typed = json.replace(&format!("\"{id}\""), &format!("{{\"$oid\":\"{id}\"}}"));
        writeln!(file, "{typed}").expect("a file");
    }
    file.flush().expect("a file");
}

type Turn<'a> = (&'a str, Box<dyn Fn() -> Seen + 'a>);

/// Runs the comparison. `url` returns the URL of a database in MongoDB.
fn run(comparison: &Comparison, url: impl Fn(&str) -> String, million: bool, save: bool) {
    let directory = tempfile::tempdir().expect("a directory");
    let seed = directory.path().join("seed.jsonl");
    seed_file(&seed, data::FEW);
    let sled = format!("sled:{}", directory.path().join("sled").display());
    let mongodb = url("compare");
    fill(&sled, data::FEW);
    fill(&mongodb, data::FEW);

    let paths = Arc::new(data::paths(data::FEW, data::FEW));
    let list = Arc::new(vec!["/api/v1/records".to_owned()]);
    let first = &paths[0];
    let names = [
        "records, memory",
        "records, sled",
        "records, MongoDB",
        "records, MongoDB, replica mode",
        "its server and memory alone",
        "bare hyper",
        "bare axum",
        "axum and the driver",
    ];
    let servers: HashMap<&str, Server> = names
        .into_iter()
        .zip([
            Server::start(&mut serve("memory:", &seed), first),
            Server::records(&sled, first),
            Server::records(&mongodb, first),
            Server::replica(&mongodb, first),
            Server::baseline("server", "", first),
            Server::baseline("hyper", "", first),
            Server::baseline("axum", &data::FEW.to_string(), first),
            Server::baseline("driver", &mongodb, first),
        ])
        .collect();

    println!("# Start and memory\n\n| | start to first 200, ms | idle, MB |\n|---|---|---|");
    for name in names {
        println!("| {name} | {:.0} | {:.1} |", servers[name].cold.as_secs_f64() * 1e3, servers[name].memory());
    }

    let ask = |name: &'static str, paths: &Arc<Vec<String>>, connections: usize| -> Turn<'_> {
        let (port, paths, turn) = (servers[name].port, paths.clone(), comparison.turn);
        (name, Box::new(move || load::run(&[port], &paths, connections, turn)))
    };
    let driver: Turn<'_> =
        ("the driver alone, no HTTP", Box::new(|| driver_alone(&mongodb, &paths, 64, comparison.turn)));
    let lookups = comparison
        .hold("Lookups, 64 connections", names.iter().map(|name| ask(name, &paths, 64)).chain([driver]).collect());
    assert!(servers["records, MongoDB, replica mode"].answers_from_its_copy(first), "replica mode left its copy");
    comparison.hold(
        "Lookups, 1 connection",
        ["records, MongoDB", "records, MongoDB, replica mode", "axum and the driver", "records, memory", "bare axum"]
            .map(|name| ask(name, &paths, 1))
            .into(),
    );
    comparison.hold(
        "Lists of 2,500 records, 4 connections",
        ["records, MongoDB", "axum and the driver", "records, memory", "records, sled"]
            .map(|name| ask(name, &list, 4))
            .into(),
    );

    println!("\n# Memory after the load\n\n| | MB |\n|---|---|");
    for name in names {
        println!("| {name} | {:.1} |", servers[name].memory());
    }

    if million {
        // The same number of paths for both, so that the clients have the same work.
        let [few_paths, many_paths] = [data::FEW, MANY].map(|count| Arc::new(data::paths(count, 200_000)));
        let seed = directory.path().join("many.jsonl");
        seed_file(&seed, MANY);
        let sled = format!("sled:{}", directory.path().join("many").display());
        fill(&sled, MANY);
        let mongodb = url("compare_many");
        fill(&mongodb, MANY);
        let first = &many_paths[0];
        let start: [(&str, &dyn Fn() -> Server); 5] = [
            ("records, memory", &|| Server::start(&mut serve("memory:", &seed), first)),
            ("records, sled", &|| Server::records(&sled, first)),
            ("records, MongoDB", &|| Server::records(&mongodb, first)),
            ("records, MongoDB, replica mode", &|| Server::replica(&mongodb, first)),
            ("bare axum", &|| Server::baseline("axum", &MANY.to_string(), first)),
        ];
        for (few, start) in start {
            // The servers run one at a time, because each needs much memory.
            let server = start();
            let name = format!("{few}, among 1,000,000");
            let among_many: Turn<'_> =
                (&name, Box::new(|| load::run(&[server.port], &many_paths, 64, comparison.turn)));
            comparison.hold("Lookups among many, 64 connections", vec![ask(few, &few_paths, 64), among_many]);
        }
    }
    if save {
        plot::draw("benches/compare/lookups.svg", "Lookups per second, 64 connections", &lookups);
    }
}

/// The contestants, each with its measurements in each round.
pub type Rounds = Vec<(String, Vec<Seen>)>;

impl Comparison {
    /// Lets all contestants take turns, and prints the measurements.
    fn hold(&self, title: &str, turns: Vec<Turn<'_>>) -> Rounds {
        let mut rounds: Rounds = turns.iter().map(|(name, _)| ((*name).to_owned(), Vec::new())).collect();
        for (_, turn) in &turns {
            // Warms up connections, caches and the pool of the driver, which are not compared.
            turn();
        }
        for round in 0..self.rounds {
            // Each round starts with another contestant, so that none always follows the same one.
            for step in 0..turns.len() {
                let at = (round + step) % turns.len();
                rounds[at].1.push(turns[at].1());
            }
        }
        // The service is compared with the others. If all rows are services, they are compared with the first.
        let mut others: Vec<_> = rounds.iter().filter(|(name, _)| !name.starts_with("records")).collect();
        if others.is_empty() || others.len() == rounds.len() {
            others = rounds.first().into_iter().collect();
        }
        println!("\n# {title}\n");
        print!("| | a second (least to most) | p50, ms | p99, ms |");
        others.iter().for_each(|(name, _)| print!(" × {name} |"));
        println!("\n|---|---|---|---|{}", "---|".repeat(others.len()));
        for (name, seen) in &rounds {
            let rates = sorted(seen.iter().map(|seen| seen.per_second));
            let ms = |of: fn(&Seen) -> Duration| middle(&sorted(seen.iter().map(|seen| of(seen).as_secs_f64() * 1e3)));
            print!(
                "| {name} | {:.0} ({:.0} to {:.0}) | {:.2} | {:.2} |",
                middle(&rates),
                rates[0],
                rates[rates.len() - 1],
                ms(|seen| seen.p50),
                ms(|seen| seen.p99)
            );
            for (_, other) in &others {
                let ratios = sorted(seen.iter().zip(other).map(|(a, b)| a.per_second / b.per_second));
                print!(" {:.2} ({:.2} to {:.2}) |", middle(&ratios), ratios[0], ratios[ratios.len() - 1]);
            }
            println!();
        }
        rounds
    }
}

pub fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

pub fn middle(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// Calls `find_one` of the driver in this process, `at_once` calls in parallel: the limit of the driver itself.
fn driver_alone(url: &str, paths: &[String], at_once: usize, time: Duration) -> Seen {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let records = baselines::collection::<RawDocumentBuf>(url).await;
        let ids: Arc<Vec<ObjectId>> = Arc::new(
            paths
                .iter()
                .map(|path| ObjectId::parse_str(path.rsplit('/').next().expect("an id")).expect("an id"))
                .collect(),
        );
        let begun = Instant::now();
        let end = begun + time;
        let tasks = (0..at_once).map(|task| {
            let (records, ids) = (records.clone(), ids.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                for id in ids.iter().cycle().skip(task * ids.len() / at_once) {
                    let begun = Instant::now();
                    if begun >= end {
                        break;
                    }
                    assert!(records.find_one(doc! { "_id": id }).await.expect("an answer").is_some());
                    took.push(begun.elapsed());
                }
                took
            })
        });
        let took: Vec<Duration> = join_all(tasks).await.into_iter().flat_map(|took| took.expect("a task")).collect();
        load::seen(took, begun.elapsed().as_secs_f64())
    })
}
