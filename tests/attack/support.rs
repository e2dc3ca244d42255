//! The server under attack, and clients on raw sockets.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use records::store::Backend;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::process::{Serving, directory, records, run, stderr};
use crate::servers;

/// The time-out for a response, far more than a busy machine needs.
pub const PROMPT: Duration = Duration::from_secs(60);

pub const LOOKUP: &str = "GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\n\r\n";

/// Raises this process's limit on open files to the maximum.
pub fn raise_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Returns the limit on open files of this process and its children.
pub fn files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

pub struct Victim {
    serving: Serving,
    _directory: TempDir,
}

impl Victim {
    /// Starts a server with `count` records of about `size` bytes, with the ids 1, 2 and so on.
    pub fn with_records(count: usize, size: usize, arguments: &[&str]) -> Self {
        Self::start(count, size, arguments, None)
    }

    /// Starts a server like [`with_records`](Self::with_records), with the records in a database server.
    pub fn with_records_in(backend: &Backend, count: usize, size: usize, arguments: &[&str]) -> Self {
        let directory = Self::seeded(count, size);
        let name = directory.path().file_name().unwrap_or_default().to_string_lossy().replace('.', "");
        let store = servers::url(backend.name, &format!("attack_{name}")).expect("a server");
        let imported = run(&directory, &["import", "seed", "--store", &store], "");
        assert!(imported.status.success(), "{}", stderr(&imported));
        let all = [&["--store", &store, "--listen", "127.0.0.1:0"], arguments].concat();
        Self { serving: Serving::spawn(records(&directory, &all)), _directory: directory }
    }

    /// Starts a server with one record and this limit on open files: the soft limit, or with `hard` also the hard limit.
    pub fn with_files(files: u32, hard: bool, arguments: &[&str]) -> Self {
        let ulimit = format!("ulimit {} {files}; exec \"$@\"", if hard { "-n" } else { "-Sn" });
        Self::start(1, 10, arguments, Some(&ulimit))
    }

    fn seeded(count: usize, size: usize) -> TempDir {
        let directory = directory();
        let mut seed = std::io::BufWriter::new(std::fs::File::create(directory.path().join("seed")).unwrap());
        for id in 1..=count {
            writeln!(seed, r#"{{"_id":{id},"text":"{}"}}"#, "x".repeat(size)).unwrap();
        }
        seed.into_inner().unwrap();
        directory
    }

    fn start(count: usize, size: usize, arguments: &[&str], shell: Option<&str>) -> Self {
        let directory = Self::seeded(count, size);
        let all = [&["--store", "memory:", "--seed", "seed", "--listen", "127.0.0.1:0"], arguments].concat();
        let mut command = records(&directory, &all);
        if let Some(shell) = shell {
            let program = command.get_program().to_owned();
            let mut wrapped = std::process::Command::new("sh");
            wrapped.args(["-c", shell, "sh"]).arg(program).args(&all).current_dir(directory.path());
            command = wrapped;
        }
        Self { serving: Serving::spawn(command), _directory: directory }
    }

    pub fn address(&self) -> SocketAddr {
        self.serving.address
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// Connects with a small receive buffer.
    pub async fn connect_narrow(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.connect(self.address()).await.unwrap()
    }

    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = self.connect().await;
        // The server may close the connection before it has read everything.
        let _ = stream.write_all(bytes.as_ref()).await;
        stream
    }

    /// Sends `bytes`, and reads until the server closes the connection.
    pub async fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        read_to_end(&mut self.send(bytes).await).await
    }

    /// Returns the response, and the time that it took.
    pub async fn get(&self, path: &str) -> (String, Duration) {
        let begin = Instant::now();
        let answer = self.ask(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")).await;
        (answer, begin.elapsed())
    }

    /// Checks that a lookup is answered at once.
    pub async fn assert_serves(&self) {
        let (answer, took) = self.get("/api/v1/records/1").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        assert!(took < PROMPT, "a lookup took {took:?}");
    }

    /// Reads the log from now on, so that no line of a long one is lost.
    pub fn read_log(&mut self) {
        self.serving.read_log();
    }

    /// Checks that a lookup of an absent record is answered at once, for servers whose records are all large.
    pub async fn assert_serves_absent(&self) {
        let (answer, took) = self.get("/api/v1/records/none").await;
        assert!(answer.starts_with("HTTP/1.1 204") && took < PROMPT, "{answer:?} after {took:?}");
    }

    /// Returns the value of a series in `/metrics`.
    pub async fn metric(&self, series: &str) -> f64 {
        let (answer, _) = self.get("/metrics").await;
        let value = answer.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {series}: {answer}"))
    }

    pub fn terminate(&self) {
        self.serving.signal("TERM");
    }

    /// Returns the processor time of the server, with a resolution of 10 ms.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.serving.id())).unwrap();
        // The fields 14 and 15 are the times in user and kernel mode. The name before them may have spaces.
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let ticks: u64 = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Returns the resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.serving.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Returns the log until the server listened.
    pub fn start_log(&self) -> &str {
        &self.serving.begin
    }

    /// Checks that the server has stopped gracefully, and returns its log.
    pub fn wait_for_stop(self) -> String {
        let (status, log) = self.serving.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(!log.contains("panicked") && log.contains("stopped"), "{log}");
        log
    }

    /// Checks that the server still serves and stops gracefully.
    pub async fn assert_survives(self) -> String {
        self.assert_serves().await;
        self.terminate();
        self.wait_for_stop()
    }
}

/// Reads until the server closes or resets the connection.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(PROMPT, stream.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "neither answered nor closed after {:?}", String::from_utf8_lossy(&bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends a lookup on a connection that stays open.
pub async fn keep(mut stream: TcpStream) -> TcpStream {
    stream.write_all(LOOKUP.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}") {
        let read = timeout(PROMPT, stream.read_buf(&mut bytes)).await.expect("an answer").unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
    }
    assert!(bytes.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&bytes));
    stream
}
