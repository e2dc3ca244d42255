//! A service process that is killed, with a replica that outlives it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use records::store::{BACKENDS, BackendKind};
use tempfile::TempDir;

use crate::cases;
use crate::log::assert_logs_no_value;
use crate::proxy::Proxy;
use crate::support::*;

cases! {
    Any {
        without_a_usable_replica_it_is_ready_as_long_as_slow_lookups_are_answered,
        the_time_of_the_health_check_is_shown_while_the_server_answers,
    }
    Local {
        killed_while_it_copies_it_never_shows_half_a_copy,
        killed_while_it_follows_it_goes_on_and_shows_what_was_known,
        a_disk_that_takes_no_more_leaves_the_answers_to_the_server_and_says_so,
        a_copy_whose_disk_was_full_for_a_while_is_kept_again,
    }
}

pub struct Service {
    child: Child,
    pub address: SocketAddr,
    /// Health and metrics, where they have an address of their own.
    pub admin: Option<SocketAddr>,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    /// The heads of the requests, whose values are not in the log.
    requests: Mutex<BTreeSet<String>>,
}

impl Service {
    fn start(directory: &TempDir, server: &str, scheme: &str) -> Self {
        let copy = copy_in(directory, scheme);
        Self::run(Command::new(env!("CARGO_BIN_EXE_records")), directory, server, &copy, "standby")
    }

    /// Starts a service with further arguments.
    pub fn with(directory: &TempDir, server: &str, arguments: &[&str]) -> Self {
        Self::in_mode("standby", directory, server, arguments)
    }

    pub fn in_mode(mode: &str, directory: &TempDir, server: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
        command.args(arguments);
        Self::run(command, directory, server, "memory:", mode)
    }

    /// Starts a service with a limit on the size of its files: a write beyond it fails as on a full disk.
    fn start_limited(kibibytes: u32, directory: &TempDir, server: &str, scheme: &str, mode: &str) -> Self {
        let mut command = Command::new("sh");
        // The unit is 512 bytes (POSIX). The signal is ignored, since it would end the process, while a full disk is an error.
        let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", kibibytes * 2);
        command.args(["-c", &limit, "sh", env!("CARGO_BIN_EXE_records")]);
        Self::run(command, directory, server, &copy_in(directory, scheme), mode)
    }

    fn run(mut command: Command, directory: &TempDir, server: &str, copy: &str, mode: &str) -> Self {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RECORDS_")) {
            command.env_remove(name);
        }
        let (host, query) = server.split_once("/?").map_or((server, String::new()), |(a, b)| (a, format!("?{b}")));
        command.args(["--store", &format!("{host}/{DATABASE}{query}"), "--listen", "127.0.0.1:0"]);
        command.current_dir(directory.path()).args([
            "--fallback",
            copy,
            "--fallback-mode",
            mode,
            "--fallback-snapshot-interval",
            "1s",
            "--store-timeout",
            "2s",
        ]);
        // Logs the replication without each request.
        command.args(["--log", "info,records::store=debug,records::http=error"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("a log"));
        let mut text = String::new();
        let mut admin = None;
        let address = loop {
            let begin = text.len();
            assert!(log.read_line(&mut text).expect("a log") > 0, "it ended without listening: {text}");
            let after = |words: &str| {
                let address = text[begin..].split_once(words)?.1.split_whitespace().next().expect("an address");
                Some(address.parse().expect("an address"))
            };
            admin = admin.or(after("health and metrics on http://"));
            if let Some(address) = after("listening on http://") {
                break address;
            }
        };
        // A thread reads the log, so that the process never waits for a full pipe.
        let lines = Arc::new(Mutex::new(text));
        let kept = lines.clone();
        let reader = std::thread::spawn(move || {
            let lines = log.lines().map_while(std::io::Result::ok);
            lines.for_each(|line| kept.lock().expect("a log").push_str(&(line + "\n")));
        });
        Self { child, address, admin, log: lines, reader: Some(reader), requests: Mutex::default() }
    }

    /// Returns the head and the body of a response.
    pub fn get(&self, path: &str) -> (String, String) {
        let (head, body) = self.get_bytes(self.address, path);
        (head, String::from_utf8(body).expect("UTF-8"))
    }

    pub fn admin(&self, path: &str) -> (String, Vec<u8>) {
        self.get_bytes(self.admin.expect("an admin address"), path)
    }

    fn get_bytes(&self, address: SocketAddr, path: &str) -> (String, Vec<u8>) {
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.write_all(request.as_bytes()).expect("a request");
        self.requests.lock().expect("requests").insert(request);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let head = answer.windows(4).position(|part| part == b"\r\n\r\n").expect("an answer");
        let body = answer.split_off(head + 4);
        (String::from_utf8(answer).expect("a head").to_lowercase(), body)
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("a log").clone()
    }

    pub fn logged(&self, text: &str) -> bool {
        self.log.lock().expect("a log").contains(text)
    }

    pub fn status(&self, path: &str) -> u16 {
        self.get(path).0.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    pub fn is_ready(&self) -> bool {
        self.get("/readyz").1 == r#"{"status":"ready"}"#
    }

    /// Returns the resident memory of the process in KiB.
    #[cfg(feature = "mongodb")]
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        resident.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Kills the process without warning, like a power cut.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let read = self.reader.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(read.is_none_or(|read| read.is_ok()), "the log cannot be read");
            let requests = self.requests.lock().expect("requests").iter().cloned().collect::<String>();
            assert_logs_no_value(&self.log(), &requests);
        }
    }
}

fn copy_in(directory: &TempDir, scheme: &str) -> String {
    format!("{scheme}:{}", directory.path().join("copy").display())
}

fn persistent_schemes() -> impl Iterator<Item = &'static str> {
    BACKENDS.iter().filter(|backend| backend.kind == BackendKind::Local).map(|backend| backend.name)
}

async fn killed_while_it_copies_it_never_shows_half_a_copy() {
    const LAST: usize = 7;
    for scheme in persistent_schemes() {
        let total = 5_000;
        let mut server = filled().await;
        open(&server.url()).await.upsert(numbered(0..total)).await.expect("an upsert");
        let network = Proxy::to(server.port()).await.expect("a port");
        let url = format!("mongodb://127.0.0.1:{}", network.port());
        let directory = tempfile::tempdir().expect("a directory");
        let mut whole = 0;
        // The first kill comes while records arrive, and the last one after all have; the others come at any point.
        network.slow_down(Duration::from_millis(20));
        for round in 0..=LAST {
            let service = Service::start(&directory, &url, scheme);
            match round {
                0 => {
                    // A quarter of the records.
                    until("records", async || network.received() > 100_000).await;
                    network.cut();
                }
                LAST => {
                    until("a whole copy", async || service.is_ready()).await;
                }
                _ => tokio::time::sleep(Duration::from_millis([50, 150, 300, 600, 1_200, 2_500][round - 1])).await,
            }
            service.kill();
            network.mend();
            // Without MongoDB, the service answers from a complete replica or not at all.
            server.kill();
            let service = Service::start(&directory, &url, scheme);
            let (head, body) = service.get("/api/v1/records");
            if head.contains(" 200 ") {
                assert_ne!(round, 0, "the copy was whole before all records had arrived");
                assert_eq!(body.matches("\"_id\":").count(), total as usize);
                assert!(head.contains("\r\nage: "), "{head}");
                assert_eq!(service.status("/api/v1/records/nobody"), 204);
                whole += 1;
            } else {
                assert!(head.contains(" 503 "), "{head}");
                assert_ne!(round, LAST, "the whole copy is lost");
                assert_eq!(service.status("/api/v1/records/nobody"), 503);
            }
            service.kill();
            server.run().expect("a server");
        }
        eprintln!("{whole} of {} were whole", LAST + 1);
        let service = Service::start(&directory, &url, scheme);
        until("a whole copy", async || service.is_ready()).await;
    }
}

async fn killed_while_it_follows_it_goes_on_and_shows_what_was_known() {
    for scheme in persistent_schemes() {
        let mut server = filled_set().await;
        let directory = tempfile::tempdir().expect("a directory");
        let service = Service::start(&directory, &server.url(), scheme);
        until("a whole copy", async || service.is_ready()).await;
        until("how long it took", async || {
            service.logged("fallback replica is complete") && service.logged("duration_ms=")
        })
        .await;
        let n = 500;
        (1..=n).for_each(|n| set_n(&server, 1, n));
        delete(&server, 2);
        service.kill();
        set_n(&server, 3, 3);
        server.command("admin", &integer("fsync", 1)).expect("a reply");
        server.kill();
        // Without MongoDB, the replica shows a recent state that existed.
        let service = Service::start(&directory, &server.url(), scheme);
        assert!(service.logged("found the fallback replica of an earlier run") && service.logged("age_s="));
        let (head, body) = service.get("/api/v1/records/1");
        assert!(head.contains(" 200 ") && head.contains("\r\ncache-status: records; hit"), "{head}");
        let known: serde_json::Value = serde_json::from_str(&body).expect("a record");
        let known = known["n"].as_i64().unwrap_or(0);
        assert!((1..=i64::from(n)).contains(&known), "{body}");
        assert_eq!(service.status("/api/v1/records/nobody"), 204);
        // With MongoDB, the replica catches up.
        server.run().expect("a server");
        until("a primary", async || server.is_primary().unwrap_or(false)).await;
        until("a ready service", async || service.is_ready()).await;
        let last = format!("\"n\":{n}}}");
        server.kill();
        let caught_up = async || {
            service.get("/api/v1/records/1").1.contains(&last)
                && service.status("/api/v1/records/2") == 204
                && service.get("/api/v1/records/3").1.contains("\"n\":3}")
        };
        until("the copy of what happened", caught_up).await;
    }
}

async fn a_disk_that_takes_no_more_leaves_the_answers_to_the_server_and_says_so() {
    for scheme in persistent_schemes() {
        let total = 20_000;
        let mut server = filled().await;
        open(&server.url()).await.upsert(numbered(0..total)).await.expect("an upsert");
        let directory = tempfile::tempdir().expect("a directory");
        let service = Service::start_limited(1_024, &directory, &server.url(), scheme, "standby");
        until("a word on what is wrong", async || {
            let log = service.log.lock().expect("a log");
            log.contains("fallback replica cannot be made yet") && log.contains("File too large")
        })
        .await;
        let (head, body) = service.get("/api/v1/records");
        assert!(head.contains(" 200 ") && body.matches("\"_id\":").count() == total as usize, "{head}");
        let (head, body) = service.get("/readyz");
        assert!(head.contains(" 200 ") && body.contains("degraded"), "{head} {body}");
        // An incomplete replica does not answer.
        server.kill();
        for path in ["/api/v1/records", "/api/v1/records/1", "/api/v1/records/nobody"] {
            assert_eq!(service.status(path), 503, "{path}");
        }
        service.kill();
        server.run().expect("a server");
        let service = Service::start(&directory, &server.url(), scheme);
        until("a whole copy, where there is room", async || service.is_ready()).await;
        until("how often", async || service.logged("is refreshed by snapshots") && service.logged("every_s=1")).await;
    }
}

async fn a_copy_whose_disk_was_full_for_a_while_is_kept_again() {
    for (scheme, mode) in persistent_schemes().flat_map(|scheme| [(scheme, "standby"), (scheme, "replica")]) {
        let server = filled_set().await;
        let primary = open(&server.url()).await;
        let directory = tempfile::tempdir().expect("a directory");
        let service = Service::start_limited(4 * 1_024, &directory, &server.url(), scheme, mode);
        until("a whole copy", async || service.is_ready()).await;
        // Writes more than fits on the replica's disk, and removes it again.
        let long = "long ".repeat(10_000);
        let large = |id: i32| parsed(&format!(r#"{{"_id":{id},"text":"{long}"}}"#));
        primary.upsert((1_000..1_160).map(large).collect()).await.expect("an upsert");
        until("a word on what is wrong", async || {
            let log = service.log.lock().expect("a log");
            log.contains("fallback replica is no longer updated") && log.contains("File too large")
        })
        .await;
        assert_eq!(service.status("/api/v1/records/1"), 200);
        // MongoDB answers while the replica cannot.
        for path in ["/api/v1/records", "/api/v1/records?limit=1000"] {
            let (head, body) = service.get(path);
            assert!(head.contains(" 200 ") && !head.contains("\r\nage: "), "{mode}: {head}");
            assert_eq!(body.matches("\"_id\":").count(), 260, "{mode}");
        }
        // The failed snapshot is removed.
        let failed = directory.path().join("copy").join("1");
        until("room for another copy", async || !failed.exists()).await;
        // Written before the deletions, so a replica without the deleted records has this.
        set_n(&server, 1, 5);
        (1_000..1_160).for_each(|id| delete(&server, id));
        until("a copy that is kept", async || service.is_ready()).await;
        let has = || service.get("/metrics").1.contains("\nrecords_fallback_replica_records 100.0\n");
        until("a copy without the last of what was deleted", async || has()).await;
        drop(server);
        let (head, body) = service.get("/api/v1/records/1");
        assert!(head.contains("\r\nage: ") && body.contains(r#""n":5}"#), "{head} {body}");
        assert_eq!(service.get("/api/v1/records").1.matches("\"_id\":").count(), 100);
        service.kill();
    }
}

async fn without_a_usable_replica_it_is_ready_as_long_as_slow_lookups_are_answered() {
    const PROBES: usize = 20;
    let mut server = filled_set().await;
    let network = Proxy::to(server.port()).await.expect("a port");
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("mongodb://127.0.0.1:{}/?directConnection=true", network.port());
    for limit in ["1GB", "1KB"] {
        // 1GB: the replica is complete, and then too old. 1KB: it is larger than allowed.
        let arguments = ["--fallback-size-limit", limit, "--fallback-max-age", "1ms"];
        let service = Service::with(&directory, &url, &arguments);
        until("an answer", async || service.status("/api/v1/records/1") == 200).await;
        // More than --fallback-timeout for a round trip.
        network.slow_down(Duration::from_millis(150));
        std::thread::scope(|scope| {
            let lookups = scope.spawn(|| (0..PROBES).map(|_| service.status("/api/v1/records/1")).collect::<Vec<_>>());
            let probes: Vec<_> = (0..PROBES).map(|_| service.status("/readyz")).collect();
            assert_eq!(lookups.join().expect("lookups"), [200; PROBES], "{limit}");
            assert_eq!(probes, [200; PROBES], "{limit}");
        });
        let (_, body) = service.get("/readyz");
        assert!(body.contains("degraded"), "{body}");
        network.mend();
        server.kill();
        assert_eq!((service.status("/api/v1/records/1"), service.status("/readyz")), (503, 503), "{limit}");
        server.run().expect("a server");
    }
}

async fn the_time_of_the_health_check_is_shown_while_the_server_answers() {
    let mut server = filled().await;
    let directory = tempfile::tempdir().expect("a directory");
    let service = Service::with(&directory, &server.url(), &[]);
    let is_shown = || service.get("/metrics").1.contains("\nrecords_store_health_check_duration_seconds ");
    assert!(!is_shown(), "before the first check");
    until("a whole copy", async || service.is_ready()).await;
    assert!(is_shown());
    server.kill();
    until("a check that the replica answers", async || service.get("/readyz").1.contains("unreachable")).await;
    assert!(!is_shown());
    server.run().expect("a server");
    until("a ready service", async || service.is_ready()).await;
    assert!(is_shown());
}
