//! The program as a process.

#[path = "../support/log.rs"]
mod log;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use log::assert_logs_no_value;
use records::store::{BACKENDS, BackendKind};
use tempfile::TempDir;
#[cfg(target_os = "linux")]
use tokio::signal::unix::SignalKind;

/// The longest wait of a test, so that a hang becomes a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the program's command in `directory`, without settings from the environment.
pub fn records(directory: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.args(arguments).current_dir(directory.path()).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RECORDS_") || name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command
}

/// Runs the program to its end with `input` on its standard input.
pub fn run(directory: &TempDir, arguments: &[&str], input: &str) -> Output {
    finish(records(directory, arguments), input)
}

pub fn finish(mut command: Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // The process may end before it has read everything, which is no failure of the test.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let (done, ended) = std::sync::mpsc::channel();
    let id = child.id();
    std::thread::spawn(move || done.send(child.wait_with_output().unwrap()));
    ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        signal(id, "KILL");
        panic!("the process did not end by itself: {}", stderr(&ended.recv().unwrap()))
    })
}

pub fn signal(process: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status().unwrap();
    assert!(sent.success());
}

/// Returns true if a signal is in a mask of the process, such as `SigIgn`.
#[cfg(target_os = "linux")]
#[allow(dead_code)]
pub fn mask_has(process: u32, mask: &str, signal: SignalKind) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let bits = status.lines().find_map(|line| line.strip_prefix(mask)?.strip_prefix(':')).unwrap().trim();
    u64::from_str_radix(bits, 16).unwrap() & (1 << (signal.as_raw_value() - 1)) != 0
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit status: the process was killed")
}

/// Returns the relative URLs of the embedded stores of this build that outlive a process.
pub fn persistent_stores() -> Vec<String> {
    BACKENDS
        .iter()
        .filter(|backend| backend.kind == BackendKind::Local)
        .map(|backend| format!("{}:data", backend.name))
        .collect()
}

/// A server process, which is killed when this is dropped.
pub struct Serving {
    child: Child,
    pub address: SocketAddr,
    /// The log up to the line about listening.
    pub begin: String,
    log: Option<BufReader<std::process::ChildStderr>>,
    /// Reads the log while the process runs.
    reader: Option<std::thread::JoinHandle<String>>,
    requests: Mutex<String>,
}

impl Serving {
    /// Starts a server, and returns once it listens; panics with its log if it ends before.
    pub fn start(directory: &TempDir, arguments: &[&str]) -> Self {
        Self::spawn(records(directory, &[arguments, &["--listen", "127.0.0.1:0"]].concat()))
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut serving = Self {
            child,
            address: ([0; 4], 0).into(),
            begin: String::new(),
            log: None,
            reader: None,
            requests: Mutex::default(),
        };
        let mut text = String::new();
        let address = loop {
            let begin = text.len();
            if log.read_line(&mut text).unwrap() == 0 {
                panic!("the server ended without listening: {text}");
            }
            let address = text[begin..].split_once("listening on ").and_then(|(_, rest)| rest.split_once("://"));
            if let Some((_, rest)) = address {
                break rest.split(|c: char| c.is_whitespace() || c == '"').next().unwrap();
            }
        };
        serving.address = address.parse().unwrap();
        serving.begin = text;
        serving.log = Some(log);
        serving
    }

    /// Reads the log from now on: a process whose log fills the pipe drops lines.
    #[allow(dead_code)]
    pub fn read_log(&mut self) {
        let log = self.log.take();
        self.reader = Some(std::thread::spawn(|| read_to_end(log)));
    }

    /// Returns the status and the body of a response.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.get_at(self.address, path)
    }

    /// Returns the admin address.
    pub fn admin(&self) -> SocketAddr {
        let (_, rest) = self.begin.split_once("health and metrics on http://").expect("an admin address in the log");
        rest.split(|c: char| c.is_whitespace() || c == '"').next().unwrap().parse().unwrap()
    }

    pub fn get_at(&self, address: SocketAddr, path: &str) -> (u16, String) {
        let answer = self.ask(address, path, "");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Returns the head of a response.
    #[allow(dead_code)]
    pub fn head(&self, path: &str) -> String {
        self.ask(self.address, path, "").split("\r\n\r\n").next().unwrap().to_owned()
    }

    /// Returns the whole response to a request with these header lines, each with its end.
    #[allow(dead_code)]
    pub fn answer(&self, path: &str, headers: &str) -> String {
        self.ask(self.address, path, headers)
    }

    fn ask(&self, address: SocketAddr, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        // With HTTP/1.0, the body has no chunks and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\n{headers}\r\n");
        self.requests.lock().unwrap().push_str(&request);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Returns the process id, for the memory measurements in `tests/attack`.
    #[allow(dead_code)]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the end, and returns the exit status without reading the log.
    pub fn wait_unread(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Waits for the end, and returns the exit status and the rest of the log, which has no value of a request.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let log = match self.reader.take() {
            Some(reader) => reader.join().unwrap(),
            None => read_to_end(self.log.take()),
        };
        assert_logs_no_value(&log, &self.requests.lock().unwrap());
        (self.child.wait().unwrap(), log)
    }
}

fn read_to_end(log: Option<impl Read>) -> String {
    let mut text = String::new();
    log.map(|mut log| log.read_to_string(&mut text).unwrap());
    text
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}
