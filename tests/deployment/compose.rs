//! The deployment of podman-compose.yml, from an empty volume to its removal.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{self, Connection, Failure};
use crate::images::{self, MONGO, RECORDS};
use crate::outages::{self, Deployment, Secrets};
use crate::run::{self, Finally, PATIENCE, ROOT, ensure, podman, unique, wait};
use crate::{Outcome, backup};

pub const LIST: &str = "/api/v1/records";
pub const HIT: &str = "/api/v1/records/Fe";
pub const MISS: &str = "/api/v1/records/none";

/// The time by which the service starts before its database.
const EARLIER: Duration = Duration::from_secs(30);
const LOAD_CONNECTIONS: usize = 64;

/// The time after the start of its database in which the published image must answer. Another profile, on a machine that compiles
/// meanwhile, is not timed.
fn soon() -> Duration {
    if images::are_real() { Duration::from_secs(2) } else { PATIENCE }
}

/// The time after MongoDB's first answer in which the replica of the published image must be usable.
fn usable() -> Duration {
    if images::are_real() { Duration::from_secs(10) } else { PATIENCE }
}

pub fn whole_life() -> Outcome {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    std::fs::copy(Path::new(ROOT).join("podman-compose.yml"), folder.path().join("podman-compose.yml"))
        .map_err(|error| error.to_string())?;
    let project = unique("records-test");
    let port = http::free_port()?;
    let compose = |arguments: &[&str]| {
        let mut command = Command::new("podman-compose");
        command.current_dir(folder.path()).args(["-p", &project]).args(arguments);
        command
    };
    let settings = format!(
        "RECORDS_IMAGE={RECORDS}\nRECORDS_MONGO_IMAGE={MONGO}\nRECORDS_PUBLISH=127.0.0.1:{port}\nRECORDS_LOG_FORMAT=json\n"
    );
    std::fs::write(folder.path().join(".env"), settings).map_err(|error| error.to_string())?;
    let secrets = Secrets::create(&folder.path().join("secrets"), ["store", "records-password", "root-password"])?;
    secrets.write("mongo", &secret()?, Some(&secret()?))?;

    let (app, mongo) = (format!("{project}_records_1"), format!("{project}_mongo_1"));
    let _down = Finally(|| drop(run::output(&mut compose(&["down", "--volumes"]))));
    let mut found = String::new();

    let starts = run::number("TEST_COLD_STARTS", 1)?;
    let (mut answered, mut whole) = (Vec::new(), Vec::new());
    for start in 0..starts {
        if start > 0 {
            run::output(&mut compose(&["down", "--volumes"]))?;
        }
        let begin = Instant::now();
        run::output(&mut compose(&["up", "--detach", "--no-build"]))?;
        wait("the first 200 after podman-compose up", PATIENCE, || http::status(port, LIST) == 200)?;
        answered.push(begin.elapsed());
        whole.push(outages::replica_follows(&app, usable())?);
        let started = |container| podman(["inspect", "--format", "{{.State.StartedAt.UnixNano}}", container]);
        ensure(started(&app)? < started(&mongo)?, || "MongoDB was started before the service".to_owned())?;
    }
    // Printed at once, since the rest takes minutes and may fail.
    println!("first 200 after {}; the replica after another {}", range(answered), range(whole));

    is_whole(port)?;
    for path in ["/livez", "/readyz", "/metrics"] {
        let status = http::status(port, path);
        ensure(status == 404, || format!("{path} on the port that is published: {status}"))?;
    }
    is_confined(&app, &mongo)?;
    health(&app)?;
    health(&mongo)?;
    reads_only(&mongo)?;
    backup::comes_back(&mongo)?;
    is_whole(port)?;
    // Probes and backups have run by now.
    let logs = podman(["exec", &mongo, "find", "/tmp", "-name", "*_log"])?;
    ensure(logs.is_empty(), || format!("the shell of the probes leaves logs: {logs}"))?;

    for container in [&mongo, &app] {
        podman(["restart", container])?;
        wait("200 after a restart", PATIENCE, || http::status(port, LIST) == 200)?;
        is_whole(port)?;
    }
    health(&mongo)?;
    never_open(&format!("{project}_data"))?;

    let network = format!("{project}_records");
    let replace = || {
        podman(["rm", "--force", "--time", "60", &mongo])?;
        run::output(&mut compose(&["up", "--detach", "--no-build"])).map(drop)
    };
    let deployment = Deployment {
        port,
        app: &app,
        mongo: &mongo,
        host: "mongo",
        network: &network,
        secrets: &secrets,
        replace: &replace,
    };
    outages::all(&deployment)?;
    let _ = write!(found, "{}", answers_from_the_file(&deployment, &project, &compose)?);
    let _ = write!(found, "; {}", start_early(&deployment)?);
    let _ = write!(found, "; {}", stop_under_load(&deployment)?);
    run::output(&mut compose(&["down", "--volumes"]))?;
    for (kind, left) in [
        ("container", podman(["ps", "--all", "--quiet", "--filter", &format!("name={project}")])?),
        ("volume", podman(["volume", "ls", "--quiet", "--filter", &format!("name={project}")])?),
    ] {
        ensure(left.is_empty(), || format!("a {kind} is left: {left}"))?;
    }
    Ok(found)
}

fn range(times: Vec<Duration>) -> String {
    let (least, most) = (times.iter().min().copied(), times.iter().max().copied());
    let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f32();
    format!("{:.1} to {:.1} s in {} cold starts", seconds(least), seconds(most), times.len())
}

/// Replaces the service's container while MongoDB is not there: the new one answers from the file on the volume, with its age.
fn answers_from_the_file(deployment: &Deployment, project: &str, compose: &dyn Fn(&[&str]) -> Command) -> Outcome {
    let &Deployment { port, app, mongo, .. } = deployment;
    let expected = [LIST, HIT, MISS].map(|path| http::get(port, path));
    for container in [mongo, app] {
        podman(["kill", container])?;
        podman(["rm", "--force", container])?;
    }
    let begin = Instant::now();
    run::output(&mut compose(&["up", "--detach", "--no-build", "records"]))?;
    wait("200 from the file", PATIENCE, || http::status(port, HIT) == 200)?;
    let after = begin.elapsed();
    for (path, expected) in [LIST, HIT, MISS].into_iter().zip(expected) {
        let (expected, found) = (expected?, http::get(port, path)?);
        ensure(found.is_stale, || format!("{path} has no age"))?;
        ensure((found.status, &found.body) == (expected.status, &expected.body), || format!("{path}: {found:?}"))?;
    }
    let there = podman(["ps", "--quiet", "--filter", &format!("name={project}_mongo")])?;
    ensure(there.is_empty(), || "MongoDB was started with the service".to_owned())?;
    health(app)?;
    run::output(&mut compose(&["up", "--detach", "--no-build"]))?;
    is_whole(port)?;
    Ok(format!("alone, it answers from its file after {:.1} s", after.as_secs_f32()))
}

/// Returns a new random password.
pub fn secret() -> Result<String, String> {
    let bytes = std::fs::read("/proc/sys/kernel/random/uuid").map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).trim().replace('-', ""))
}

/// Checks that the list, a hit and a miss equal those of the reference store byte for byte. MongoDB must answer, since a replica
/// may lag.
pub fn is_whole(port: u16) -> Result<(), String> {
    let fresh = |path| {
        let mut answer = http::get(port, path);
        wait("an answer of MongoDB", PATIENCE, || {
            answer = http::get(port, path);
            answer.as_ref().is_ok_and(|answer| !answer.is_stale)
        })?;
        answer
    };
    let reference = Reference::start()?;
    for path in [LIST, HIT] {
        let (found, right) = (fresh(path)?, http::get(reference.port, path)?);
        ensure(found == right, || {
            let body = String::from_utf8_lossy(&found.body).chars().take(2_000).collect::<String>();
            format!("{path} differs from the reference store's: {} {body}", found.status)
        })?;
    }
    let miss = fresh(MISS)?;
    ensure(miss.status == 204 && miss.body.is_empty(), || format!("{MISS}: {miss:?}"))
}

/// A server with the seed in the memory store.
struct Reference {
    server: Child,
    port: u16,
}

impl Reference {
    fn start() -> Result<Self, String> {
        let port = http::free_port()?;
        let server = Command::new(env!("CARGO_BIN_EXE_records"))
            .args(["serve", "--store", "memory:", "--seed", "seed/elements.jsonl"])
            .args(["--log", "error", "--listen", &format!("127.0.0.1:{port}")])
            .current_dir(ROOT)
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let reference = Self { server, port };
        wait("the reference store", PATIENCE, || http::status(port, "/livez") == 200)?;
        Ok(reference)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn is_confined(app: &str, mongo: &str) -> Result<(), String> {
    for container in [app, mongo] {
        let host = podman(["inspect", "--format", "{{.HostConfig.ReadonlyRootfs}} {{.EffectiveCaps}}", container])?;
        ensure(host == "true []", || format!("{container}: read-only and capabilities: {host}"))?;
        let options = podman(["inspect", "--format", "{{.HostConfig.SecurityOpt}} {{.HostConfig.Memory}}", container])?;
        ensure(options.contains("no-new-privileges") && !options.ends_with(" 0"), || {
            format!("{container}: {options}")
        })?;
    }
    let ports = podman(["port", mongo])?;
    ensure(ports.is_empty(), || format!("the database is published: {ports}"))
}

/// Checks the health like compose, which tries again: on a busy machine one check may take longer than it is given.
fn health(container: &str) -> Result<(), String> {
    let check = || podman(["healthcheck", "run", container]).map(drop);
    check().or_else(|_| check()).or_else(|_| check())
}

/// Checks that the service's user may neither write nor read another database.
fn reads_only(mongo: &str) -> Result<(), String> {
    let script = r#"
        const url = `mongodb://records:${require('fs').readFileSync(process.env.RECORDS_MONGO_PASSWORD_FILE, 'utf8').trim()}@${require('os').hostname()}/records`;
        const mine = connect(url);
        for (const forbidden of [
            () => mine.records.insertOne({ _id: 'x' }),
            () => mine.records.deleteMany({}),
            () => mine.getSiblingDB('admin').system.users.findOne(),
            () => mine.getSiblingDB('other').records.findOne(),
        ]) {
            try { forbidden() } catch (error) { continue }
            throw new Error(`allowed: ${forbidden}`);
        }
        const anybody = connect(`mongodb://${require('os').hostname()}/records`);
        let read = true;
        try { anybody.records.findOne() } catch (error) { read = false }
        if (read) throw new Error('anybody may read');"#;
    podman(["exec", "-e", "HOME=/tmp", mongo, "mongosh", "--quiet", "--nodb", "--eval", script]).map(drop)
}

/// Checks that MongoDB refuses to start without an administrator, since it would have no authentication, even if its volume has
/// users.
fn never_open(volume: &str) -> Result<(), String> {
    let data = format!("{volume}:/data/db");
    // The running database locks the volume, so a second one ends in any case; its message shows the reason.
    for arguments in [&[MONGO][..], &["-e", "MONGO_INITDB_ROOT_USERNAME=root", MONGO], &[MONGO, "--quiet"]] {
        let mut command = Command::new("podman");
        command.args(["run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "-v", &data]);
        let said = run::failure(command.args(arguments))?;
        ensure(said.contains("must be set on every start"), || format!("without an administrator it says: {said}"))?;
    }
    Ok(())
}

/// Starts a service with a replica half a minute before its database.
fn start_early(deployment: &Deployment) -> Outcome {
    let mongo = deployment.mongo;
    podman(["stop", "--time", "60", mongo])?;
    let name = unique("records-early");
    let _remove = Finally(|| drop(podman(["rm", "--force", &name])));
    let port = outages::start_instance(deployment, &name, &["-e", "RECORDS_FALLBACK=memory:"])?;
    let begin = Instant::now();
    wait("alive without a database", PATIENCE, || http::status(port, "/livez") == 200)?;
    while begin.elapsed() < EARLIER {
        let (live, ready) = (http::status(port, "/livez"), http::status(port, "/readyz"));
        ensure((live, ready) == (200, 503), || format!("without a database /livez is {live}, /readyz {ready}"))?;
        thread::sleep(Duration::from_secs(1));
    }
    podman(["start", mongo])?;
    let address = podman(["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", mongo])?;
    let address = SocketAddr::from((address.parse::<Ipv4Addr>().map_err(|error| error.to_string())?, 27017));
    wait("a database that listens", PATIENCE, || {
        TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
    })?;
    let late = wait("200 after the database was ready", soon(), || http::status(port, LIST) == 200)?;
    is_whole(port)?;
    let whole = outages::replica_follows(&name, usable())?;
    let (late, whole) = (late.as_millis(), (late + whole).as_millis());
    Ok(format!(
        "started {} s too early, serves {late} ms after its database, from a replica after {whole} ms",
        EARLIER.as_secs()
    ))
}

/// Sends SIGTERM while 64 clients send requests without a pause.
///
/// The drain delay is that of Kubernetes: until it is over, no request may fail. After it, connections end, but only between two
/// responses.
fn stop_under_load(deployment: &Deployment) -> Outcome {
    let delay = Duration::from_secs(3);
    let name = unique("records-drain");
    let _remove = Finally(|| drop(podman(["rm", "--force", &name])));
    let port = outages::start_instance(deployment, &name, &["-e", "RECORDS_DRAIN_DELAY=3s"])?;
    wait("a service to stop", PATIENCE, || http::status(port, "/readyz") == 200)?;

    let (over, ended) = (&OnceLock::new(), &AtomicBool::new(false));
    let (answers, stopped, unready) = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..LOAD_CONNECTIONS).map(|index| scope.spawn(move || client(port, index, over))).collect();
        thread::sleep(Duration::from_secs(2));
        // In parallel to the signal, since a busy machine may take longer to send it than the delay lasts.
        let unready = scope.spawn(|| {
            let mut unready = false;
            while !unready && !ended.load(Ordering::Relaxed) {
                unready = http::status(port, "/readyz") == 503;
            }
            unready
        });
        let begin = Instant::now();
        let signalled = podman(["kill", "--signal", "TERM", &name]);
        // Counted from before the signal, so it is a little early.
        let _ = over.set(begin + delay);
        let code = signalled.and_then(|_| podman(["wait", &name]));
        let stopped = code.map(|code| (code, begin.elapsed()));
        ended.store(true, Ordering::Relaxed);
        let answers =
            clients.into_iter().map(|client| client.join().unwrap_or_else(|_| Err("a client panicked".into())));
        (answers.sum::<Result<usize, String>>(), stopped, unready.join().unwrap_or(false))
    });
    let (answers, (code, time)) = (answers?, stopped?);
    ensure(code == "0", || format!("SIGTERM under load: exit status {code}"))?;
    ensure(unready, || "it was ready while it drained".to_owned())?;
    Ok(format!(
        "SIGTERM under {LOAD_CONNECTIONS} connections: {answers} answers, none lost, exit 0 after {:.1} s",
        time.as_secs_f32()
    ))
}

/// Sends requests until the server ends the connection, which it may do from `over` on, between two responses.
fn client(port: u16, index: usize, over: &OnceLock<Instant>) -> Result<usize, String> {
    let path = if index.is_multiple_of(8) { LIST } else { HIT };
    let may_end = || over.get().is_some_and(|over| Instant::now() >= *over);
    let mut answers = 0;
    loop {
        let mut connection = match Connection::open(port) {
            Ok(connection) => connection,
            Err(_) if may_end() => return Ok(answers),
            Err(error) => return Err(format!("a connection was refused before the drain was over: {error}")),
        };
        loop {
            let begin = Instant::now();
            match connection.get(path) {
                Ok(answer) if answer.status == 200 => {
                    answers += 1;
                    if answer.last {
                        break;
                    }
                }
                Ok(answer) => return Err(format!("under load {path} was answered {}", answer.status)),
                Err(Failure::Cut(how)) => return Err(format!("an answer was cut {how}")),
                Err(Failure::Unanswered) if may_end() => return Ok(answers),
                Err(Failure::Unanswered) => {
                    let told = if over.get().is_some() { "after" } else { "before" };
                    let waited = begin.elapsed();
                    return Err(format!("a request was lost after {waited:?}, {told} the signal ({answers} answered)"));
                }
            }
        }
    }
}
