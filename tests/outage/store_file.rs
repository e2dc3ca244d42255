//! A service process that reads the URL of its store from a file that changes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::api::log::assert_logs_no_value;
use crate::servers::mongod::{Mongod, document, element, text};
use crate::{RECOVERY, numbered, open};

pub const DATABASE: &str = "outage";

pub struct Service {
    child: Child,
    address: SocketAddr,
    pub log: Arc<Mutex<String>>,
    requests: Mutex<String>,
}

impl Service {
    pub fn start(file: &Path, filter: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RECORDS_")) {
            command.env_remove(name);
        }
        command.arg("--store-file").arg(file).args(["--listen", "127.0.0.1:0", "--log", filter]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let log = Arc::new(Mutex::new(String::new()));
        let lines = log.clone();
        let stderr = BufReader::new(child.stderr.take().expect("a log"));
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| *lines.lock().expect("a log") += &(line + "\n"));
        });
        let listening = || {
            let log = log.lock().expect("a log");
            let (_, rest) = log.split_once("listening on http://")?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let address = until("the service listens", listening);
        Self { child, address, log, requests: Mutex::default() }
    }

    fn status(&self) -> u16 {
        self.status_of("/api/v1/records/1")
    }

    pub fn status_of(&self, target: &str) -> u16 {
        self.answer_to(target, "").0
    }

    /// The status, and the whole answer. `headers` are whole lines.
    pub fn answer_to(&self, target: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        let request = format!("GET {target} HTTP/1.0\r\n{headers}\r\n");
        *self.requests.lock().expect("requests") += &request;
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), answer)
    }

    /// Makes the change, waits until the log has `text` once more, and checks that every request until then is answered.
    fn answers_until_it_says(&self, text: &str, change: impl FnOnce()) {
        let count = || self.log.lock().expect("a log").matches(text).count();
        let before = count();
        change();
        until(text, || {
            assert_eq!(self.status(), 200, "while the log does not say yet: {text}");
            (count() > before).then_some(())
        });
        assert_eq!(self.status(), 200, "after the log has said: {text}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let (log, requests) = (self.log.lock().expect("a log"), self.requests.lock().expect("requests"));
            assert_logs_no_value(&log, &requests);
        }
    }
}

pub fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(begin.elapsed() < RECOVERY, "{what}: not within {RECOVERY:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn command(server: &Mongod, elements: &[Vec<u8>]) {
    let reply = server.command(DATABASE, &elements.concat()).expect("a reply");
    let ok = element(0x01, "ok", &1.0_f64.to_le_bytes());
    assert!(reply.windows(ok.len()).any(|part| part == ok), "{}", String::from_utf8_lossy(&reply));
}

fn create_user(server: &Mongod, name: &str) {
    let roles = element(0x04, "roles", &document(&element(0x02, "0", &text("read"))));
    command(server, &[element(0x02, "createUser", &text(name)), element(0x02, "pwd", &text("password")), roles]);
}

pub fn restart(server: &mut Mongod, with_passwords: bool) {
    server.stop();
    server.ask_for_passwords(with_passwords);
    server.run().expect("a server");
}

pub async fn a_store_file_that_changes_is_used_without_a_restart() {
    let mut server = Mongod::start().expect("a server");
    open(&server.url()).await.upsert(numbered(0..10)).await.expect("an upsert");
    create_user(&server, "first");
    create_user(&server, "second");
    restart(&mut server, true);

    // Kubernetes mounts a secret as a link into a directory, which it replaces by swapping another link.
    let folder = tempfile::tempdir().expect("a directory");
    let at = |name: &str| folder.path().join(name);
    let write = |version: &str, content: &str| {
        std::fs::create_dir(at(version)).expect("a directory");
        std::fs::write(at(version).join("url"), content).expect("a file");
        let _ = std::fs::remove_file(at("next"));
        symlink(version, at("next")).expect("a link");
        std::fs::rename(at("next"), at("data")).expect("a swap");
    };
    let url = |user: &str, password: &str, database: &str| {
        format!("mongodb://{user}:{password}@127.0.0.1:{}/{database}\n", server.port())
    };
    write("1", &url("first", "password", DATABASE));
    symlink("data/url", at("url")).expect("a link");
    let service = Service::start(&at("url"), "info,records::http=off");
    until("the first user's answers", || (service.status() == 200).then_some(()));

    let kept = "keeping the last one";
    service.answers_until_it_says(kept, || write("2", &url("second", "wrong", DATABASE)));
    service.answers_until_it_says(kept, || write("3", "mongodb://"));
    service.answers_until_it_says(kept, || write("4", ""));
    service.answers_until_it_says(kept, || write("5", &url("second", "password", "other")));
    let elsewhere = url("second", "password", DATABASE).replace("127.0.0.1", "localhost");
    service.answers_until_it_says(kept, || write("elsewhere", &elsewhere));
    let stale = || service.answer_to("/metrics", "").1.contains("\nrecords_config_files_stale 1");
    assert!(stale(), "no metric tells that the URL cannot be used");
    assert!(service.answer_to("/readyz", "").1.contains("the URL of the store"));
    service.answers_until_it_says("has changed, and is in use", || write("6", &url("second", "password", DATABASE)));
    assert!(!stale(), "the metric still tells that the URL cannot be used");
    let log = service.log.lock().expect("a log").clone();
    assert!(!log.contains("password@") && !log.contains("wrong@"), "the log shows a password: {log}");

    // The service uses the new user, so the old one can be removed.
    restart(&mut server, false);
    command(&server, &[element(0x02, "dropUser", &text("first"))]);
    restart(&mut server, true);
    until("the second user's answers", || (service.status() == 200).then_some(()));
}
