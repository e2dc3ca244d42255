//! A seed whose load is interrupted by a kill or a stop, and the next start, perhaps with another seed.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use records::store::{self, Opened, Options};
use tempfile::TempDir;
#[cfg(target_os = "linux")]
use tokio::signal::unix::SignalKind;

#[cfg(target_os = "linux")]
use crate::support::mask_has;
use crate::support::{Serving, code, directory, persistent_stores, records, run, signal, stderr};

/// Enough for several batches, and for the test to look while they are loaded.
const RECORDS: usize = 40_000;

/// The size on disk at which a store certainly holds some of them.
const SOME_BYTES: u64 = 4 * 1024 * 1024;

/// The time in which a process must end after a signal.
const SOON: Duration = Duration::from_secs(60);

fn write_seed(directory: &TempDir, name: &str, count: usize) {
    let line = |id| format!("{{\"_id\":{id},\"text\":\"{}\"}}\n", "x".repeat(400));
    std::fs::write(directory.path().join(name), (1..=count).map(line).collect::<String>()).unwrap();
}

fn size(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let size = |path: &Path| if path.is_dir() { size(path) } else { path.metadata().map_or(0, |file| file.len()) };
    entries.map(|entry| size(&entry.unwrap().path())).sum()
}

/// A server that loads its seed, and does not listen yet.
struct Loading {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Loading {
    fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Starts a server, and returns once some of the seed is stored in a new store.
    fn first(directory: &TempDir, store: &str) -> Self {
        let loading = Self::spawn(serve(directory, store, &["--seed", "seed"]));
        let begun = Instant::now();
        while size(&directory.path().join("data")) < SOME_BYTES {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not load the seed");
            std::thread::sleep(Duration::from_millis(2));
        }
        loading
    }

    /// Starts a server, and returns once it loads the seed again.
    fn again(directory: &TempDir, store: &str) -> Self {
        let mut loading = Self::spawn(serve(directory, store, &["--seed", "seed"]));
        let mut line = String::new();
        while !line.contains("did not finish: loading it again") {
            line.clear();
            assert!(loading.log.read_line(&mut line).unwrap() > 0, "the process has ended");
            assert!(!line.contains("listening"), "the server serves a part of the seed");
        }
        loading
    }

    /// Returns true if the kill came before the end of the load.
    fn kill(mut self) -> bool {
        self.child.kill().unwrap();
        let (status, log) = self.wait();
        assert_eq!(status.code(), None, "{log}");
        !log.contains("listening")
    }

    /// Checks that the server stops gracefully and soon. Returns true if the stop came before the end of the load.
    fn stop(mut self, name: &str) -> bool {
        let begun = Instant::now();
        signal(self.child.id(), name);
        let (status, log) = self.wait();
        assert!(begun.elapsed() < SOON, "it took {:?}: {log}", begun.elapsed());
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("stopped"), "{log}");
        !log.contains("listening")
    }

    fn wait(&mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log)
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(directory: &TempDir, store: &str, arguments: &[&str]) -> Command {
    records(directory, &[&["--store", store, "--listen", "127.0.0.1:0"], arguments].concat())
}

/// Returns a directory with a seed whose load `interrupt` has interrupted.
fn interrupted(interrupt: impl Fn(&TempDir) -> bool) -> TempDir {
    // On a busy machine the load may be complete before the signal.
    for _ in 0..10 {
        let directory = directory();
        write_seed(&directory, "seed", RECORDS);
        if interrupt(&directory) {
            return directory;
        }
    }
    panic!("the server listened before every signal")
}

/// Checks that a server has the whole seed, and returns its log.
fn whole(directory: &TempDir, store: &str, seed: &str, count: usize) -> String {
    let serving = Serving::start(directory, &["--store", store, "--seed", seed]);
    let lines = serving.get("/api/v1/records").1;
    let list: Vec<serde::de::IgnoredAny> = serde_json::from_str(&lines).unwrap();
    assert_eq!(list.len(), count, "{}", serving.begin);
    serving.begin.clone()
}

#[test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn a_load_that_was_killed_begins_again_and_only_the_whole_is_served() {
    for store in persistent_stores() {
        let directory = interrupted(|directory| {
            Loading::first(directory, &store).kill() && Loading::again(directory, &store).kill()
        });
        let log = whole(&directory, &store, "seed", RECORDS);
        assert!(log.contains("did not finish: loading it again"), "{log}");
        // The store is now like any other.
        for seed in ["seed", "none"] {
            let log = whole(&directory, &store, seed, RECORDS);
            assert!(!log.contains("loading"), "{log}");
        }
    }
}

#[test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn a_part_of_a_seed_is_served_by_no_other_start() {
    for store in persistent_stores() {
        let directory = interrupted(|directory| Loading::first(directory, &store).kill());
        let whole_name = directory.path().canonicalize().unwrap().join("seed");
        let refused = |arguments: &[&str]| {
            let output = run(&directory, &[&["--store", &store, "--listen", "127.0.0.1:0"], arguments].concat(), "");
            let errors = stderr(&output);
            assert_eq!(code(&output), 1, "{errors}");
            assert!(errors.contains("only a part of") && errors.contains(whole_name.to_str().unwrap()), "{errors}");
        };
        write_seed(&directory, "other", 10);
        refused(&[]);
        refused(&["--seed", "none"]);
        refused(&["--seed", "other"]);
        // An import does not make the store complete.
        let output = run(&directory, &["import", "-", "--store", &store], r#"{"_id": "imported"}"#);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stderr(&output).contains("only a part of"), "{}", stderr(&output));
        refused(&["--seed", "none"]);
        // A seed is identified by its bytes, not by its name.
        std::fs::rename(directory.path().join("seed"), directory.path().join("moved")).unwrap();
        std::fs::rename(directory.path().join("other"), directory.path().join("seed")).unwrap();
        refused(&["--seed", "seed"]);
        whole(&directory, &store, "moved", RECORDS + 1);
    }
}

#[tokio::test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
async fn a_load_that_had_stored_nothing_leaves_an_empty_store() {
    for store in persistent_stores() {
        for imported in [true, false] {
            let directory = directory();
            let at = store.replace("data", directory.path().join("data").to_str().unwrap());
            let Ok(Opened::Embedded(opened)) = store::open(&at, Options::default()).await else {
                panic!("{at} is no embedded store")
            };
            opened.set_loading(Some("0 a seed")).await.unwrap();
            drop(opened);
            if imported {
                assert_eq!(code(&run(&directory, &["import", "-", "--store", &store], r#"{"_id": 1}"#)), 0);
            }
            for _ in 0..2 {
                whole(&directory, &store, "none", usize::from(imported));
            }
        }
    }
}

#[test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn a_stop_in_the_middle_of_a_load_is_a_stop() {
    for store in persistent_stores() {
        let directory = interrupted(|directory| {
            Loading::first(directory, &store).stop("TERM") && Loading::again(directory, &store).stop("INT")
        });
        whole(&directory, &store, "seed", RECORDS);
    }
}

#[test]
fn a_stop_while_a_seed_is_read_that_does_not_end_is_a_stop() {
    let directory = directory();
    let pipe = make_pipe(&directory);
    let loading = Loading::spawn(serve(&directory, "memory:", &["--seed", "seed"]));
    // Opening the pipe returns once the server has opened it for reading.
    let _writer = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
    assert!(loading.stop("TERM"));
}

#[test]
fn nobody_can_connect_while_a_seed_is_read() {
    let directory = directory();
    let pipe = make_pipe(&directory);
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let command = records(&directory, &["--store", "memory:", "--seed", "seed", "--listen", &address]);
    let loading = Loading::spawn(command);
    let _writer = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
    let refused = TcpStream::connect(&address).map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "the server accepts connections before it can answer");
    assert!(loading.stop("TERM"));
}

#[cfg(target_os = "linux")]
#[test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn the_seed_of_a_full_store_is_not_waited_for() {
    for store in persistent_stores() {
        let directory = directory();
        assert_eq!(code(&run(&directory, &["import", "-", "--store", &store], "{\"_id\":1}\n")), 0);
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let serving = Serving::start(&directory, &["--store", &store, "--seed", "pipe"]);
        assert_eq!(serving.get("/api/v1/records").1, r#"[{"_id":1}]"#);
    }
}

#[test]
fn a_stop_while_nobody_writes_the_seed_is_a_stop() {
    let directory = directory();
    make_pipe(&directory);
    let loading = Loading::spawn(serve(&directory, "memory:", &["--seed", "seed"]));
    // The server handles SIGTERM before it opens a file.
    while !mask_has(loading.child.id(), "SigCgt", SignalKind::terminate()) {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(loading.stop("TERM"));
}

fn make_pipe(directory: &TempDir) -> PathBuf {
    let pipe = directory.path().join("seed");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    pipe
}
