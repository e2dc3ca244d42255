//! A real `mongod` for tests: the executable that `TEST_MONGOD` names, on a free port, with its data in a temporary directory.
//!
//! Test binaries include this file by `#[path]`; none of them uses all of it.

#![allow(dead_code)]

#[path = "ports.rs"]
mod ports;

use std::fs::File;
use std::io::{Error, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use ports::free_port;

/// The time in which a server must start, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of this test. It ends when this is dropped, and when the test process ends in any way.
pub struct Mongod {
    program: PathBuf,
    data: tempfile::TempDir,
    port: u16,
    replica_set: bool,
    auth: bool,
    running: Option<Running>,
}

struct Running {
    server: Child,
    /// Kills the server once this process's end of a pipe is closed, which the system does when this process ends.
    guard: Child,
}

/// Returns the executable to test with, if `TEST_MONGOD` names one.
pub fn program() -> Option<PathBuf> {
    std::env::var_os("TEST_MONGOD").filter(|path| !path.is_empty()).map(PathBuf::from)
}

impl Mongod {
    /// Starts a server on a free port.
    pub fn start() -> Result<Self> {
        Self::started(false)
    }

    /// Starts a replica set with a single member.
    pub fn start_replica_set() -> Result<Self> {
        Ok(Self::start_set_of(1)?.remove(0))
    }

    /// Starts a replica set, and waits until the first member is its primary.
    pub fn start_set_of(members: usize) -> Result<Vec<Self>> {
        let mut set = Vec::new();
        for _ in 0..members {
            set.push(Self::started(true)?);
        }
        let ports: Vec<u16> = set.iter().map(|server| server.port).collect();
        set[0].initiate(&ports)?;
        Ok(set)
    }

    /// Reserves a port and a directory for a server that [`run`](Self::run) starts.
    pub fn stopped() -> Result<Self> {
        Self::stopped_on(free_port()?)
    }

    pub fn stopped_on(port: u16) -> Result<Self> {
        let program = program().ok_or_else(|| Error::other("TEST_MONGOD must name a mongod executable"))?;
        Ok(Self { program, data: tempfile::tempdir()?, port, replica_set: false, auth: false, running: None })
    }

    /// Starts a server, on another port if another process has taken the first one.
    fn started(replica_set: bool) -> Result<Self> {
        let start = || {
            let mut server = Self::stopped()?;
            server.replica_set = replica_set;
            server.run()?;
            Ok(server)
        };
        start().or_else(|_: Error| start()).or_else(|_| start())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id.
    ///
    /// # Panics
    ///
    /// When the server does not run.
    pub fn process(&self) -> u32 {
        self.running.as_ref().expect("a server that runs").server.id()
    }

    /// Returns the connection string without a database.
    pub fn url(&self) -> String {
        let set = if self.replica_set { "/?replicaSet=rs0" } else { "" };
        format!("mongodb://127.0.0.1:{}{set}", self.port)
    }

    /// Starts the server with its previous data, and returns once it listens.
    pub fn run(&mut self) -> Result<()> {
        self.kill();
        let log = self.data.path().join("log");
        let mut command = Command::new(&self.program);
        command.arg("--dbpath").arg(self.data.path()).args(["--bind_ip", "127.0.0.1", "--port"]);
        command.arg(self.port.to_string()).args(["--wiredTigerCacheSizeGB", "0.5", "--nounixsocket"]);
        if self.replica_set {
            // Tests of replica sets may use fail points.
            command.args(["--replSet", "rs0", "--setParameter", "enableTestCommands=1"]);
        }
        match (self.auth, self.replica_set) {
            (true, true) => command.arg("--keyFile").arg(self.key_file()?),
            (true, false) => command.arg("--auth"),
            (false, _) => &mut command,
        };
        let output = File::create(&log)?;
        let server = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
        let guard = Command::new("sh")
            .args(["-c", &format!("cat >/dev/null; kill -9 {}", server.id())])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let running = self.running.insert(Running { server, guard });
        let begin = Instant::now();
        // Another process may listen on the port, so the log is checked too.
        while !(says_that_it_listens(&log) && listens(self.port)) {
            if let Some(status) = running.server.try_wait()? {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                let end = log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
                return Err(Error::other(format!(
                    "mongod ended: {status}. The end of its log, last line first:\n{end}"
                )));
            }
            if begin.elapsed() > PATIENCE {
                return Err(Error::other(format!("mongod does not listen on port {} after {PATIENCE:?}", self.port)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Writes the secret that the members of a set share. The server refuses a file that other users may read.
    fn key_file(&self) -> Result<PathBuf> {
        let path = self.data.path().join("key");
        if !path.exists() {
            File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?
                .write_all(b"not+a+secret")?;
        }
        Ok(path)
    }

    /// Enables or disables access control from the next start on.
    pub fn ask_for_passwords(&mut self, auth: bool) {
        self.auth = auth;
    }

    /// Stops the server gracefully by SIGTERM.
    pub fn stop(&mut self) {
        self.signal("TERM");
        if let Some(running) = &mut self.running {
            let begin = Instant::now();
            while begin.elapsed() < PATIENCE && !matches!(running.server.try_wait(), Ok(Some(_))) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.kill();
    }

    /// Kills the server, like a power cut.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // The guard is killed first: once the server has been waited for, its process id may be reused.
            let _ = running.guard.kill();
            let _ = running.guard.wait();
            let _ = running.server.kill();
            let _ = running.server.wait();
        }
    }

    /// Pauses the server with its connections open, like a stuck machine.
    pub fn pause(&self) {
        self.signal("STOP");
        // The signal stops one thread first, which stops the others. On a busy machine that takes time.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(500) || (!self.is_paused() && begin.elapsed() < PATIENCE) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns true if all threads are stopped. Only Linux tells; elsewhere the signal is trusted.
    fn is_paused(&self) -> bool {
        let process = self.running.as_ref().map_or(0, |running| running.server.id());
        std::fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| stat.contains(") T "))
    }

    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        if let Some(running) = &self.running {
            let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", running.server.id())]).status();
            assert!(sent.is_ok_and(|status| status.success()), "SIG{name} did not reach mongod");
        }
    }

    /// Initiates a replica set. The few commands do not justify a driver.
    fn initiate(&mut self, ports: &[u16]) -> Result<()> {
        let mut members = Vec::new();
        for (id, port) in ports.iter().enumerate() {
            let host = format!("127.0.0.1:{port}");
            // The first member has priority, so that tests know the primary.
            let priority = if id == 0 { 2.0_f64 } else { 1.0 };
            let member = [
                element(0x10, "_id", &(id as u32).to_le_bytes()),
                element(0x02, "host", &text(&host)),
                element(0x01, "priority", &priority.to_le_bytes()),
            ];
            members.extend(element(0x03, &id.to_string(), &document(&member.concat())));
        }
        let set = [element(0x02, "_id", &text("rs0")), element(0x04, "members", &document(&members))].concat();
        self.command("admin", &element(0x03, "replSetInitiate", &document(&set)))?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if self.is_primary()? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(Error::other("the replica set has no primary"))
    }

    pub fn is_primary(&self) -> Result<bool> {
        let reply = self.command("admin", &element(0x10, "hello", &[1, 0, 0, 0]))?;
        let primary = element(0x08, "isWritablePrimary", &[1]);
        Ok(reply.windows(primary.len()).any(|part| part == primary))
    }

    /// Returns one of the `metrics` in the server's status.
    pub fn metric(&self, path: &[&str]) -> i64 {
        let reply = self.command("admin", &element(0x10, "serverStatus", &[1, 0, 0, 0])).expect("a reply");
        // After the rest of the header, the flags and the kind of the section.
        let status = bson::Document::from_reader(&reply[17..]).expect("BSON");
        let (last, path) = path.split_last().expect("a path");
        let metrics = status.get_document("metrics").expect("metrics");
        let metrics = path.iter().try_fold(metrics, |metrics, name| metrics.get_document(name));
        metrics.and_then(|metrics| metrics.get_i64(last)).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }

    /// Sends one command to `database`, as an OP_MSG, and returns the reply's bytes.
    pub fn command(&self, database: &str, elements: &[u8]) -> Result<Vec<u8>> {
        const OP_MSG: u32 = 2013;
        let body = document(&[elements, &element(0x02, "$db", &text(database))].concat());
        // The header, flags of 0, and a section with the body.
        let length = 16 + 4 + 1 + body.len() as u32;
        let mut message = [length, 1, 0, OP_MSG, 0].map(u32::to_le_bytes).concat();
        message.push(0);
        message.extend_from_slice(&body);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.write_all(&message)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut reply = vec![0; (u32::from_le_bytes(length) as usize).saturating_sub(4)];
        stream.read_exact(&mut reply)?;
        Ok(reply)
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.kill();
    }
}

fn says_that_it_listens(log: &Path) -> bool {
    std::fs::read_to_string(log).is_ok_and(|log| log.contains("Waiting for connections"))
}

fn listens(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Duration::from_secs(1)).is_ok()
}

// The BSON that the commands above need.

pub fn element(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0], value].concat()
}

pub fn document(elements: &[u8]) -> Vec<u8> {
    [&(elements.len() as u32 + 5).to_le_bytes(), elements, &[0]].concat()
}

pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u32 + 1).to_le_bytes(), text.as_bytes(), &[0]].concat()
}
