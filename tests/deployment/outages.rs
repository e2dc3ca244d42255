//! MongoDB is killed, hung, stopped and replaced, its password is rotated and a backup restored, all under load. With a replica no
//! request may fail; without one the service may refuse requests, but never give a wrong answer. Each event reports the times of
//! responses before it and since, and the time until MongoDB's answers are back.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::compose::{HIT, LIST, MISS, secret};
use crate::http::{self, Answer, Connection, Failure};
use crate::images::RECORDS;
use crate::run::{self, Finally, PATIENCE, ensure, podman, unique, wait};

const CLIENTS: usize = 64;
const CLIENTS_WITHOUT_REPLICA: usize = 2;

/// The pause of a client between two requests: less than the service can answer, so that times are those of the service.
const PAUSE: Duration = Duration::from_millis(50);

/// The time for which the load runs before and after an event.
const AROUND: Duration = Duration::from_secs(2);

/// The length of an outage in seconds, unless TEST_OUTAGE_SECONDS has it: longer than a service without a replica waits.
const OUTAGE_SECONDS: u64 = 8;

/// A page that a larger collection has too, since the ids of all other records sort after its own.
const PAGE: &str = "/api/v1/records?limit=100";

/// A deployment that runs, with the folders of secrets that its containers mount.
pub struct Deployment<'a> {
    pub port: u16,
    pub app: &'a str,
    pub mongo: &'a str,
    /// The name of MongoDB in a URI.
    pub host: &'a str,
    pub network: &'a str,
    pub secrets: &'a Secrets,
    /// Replaces MongoDB's container, or its pod's sandbox, by another one.
    pub replace: &'a dyn Fn() -> Result<(), String>,
}

/// Two folders whose files are replaced like those of the kubelet: by swapping a link.
pub struct Secrets {
    pub records: PathBuf,
    pub mongo: PathBuf,
    names: [&'static str; 3],
}

impl Secrets {
    /// `names` are the files of the store's URL, of the service's password and of the administrator's.
    pub fn create(folder: &Path, names: [&'static str; 3]) -> Result<Self, String> {
        let secrets = Self { records: folder.join("records"), mongo: folder.join("mongo"), names };
        for folder in [&secrets.records, &secrets.mongo] {
            fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        }
        Ok(secrets)
    }

    pub fn write(&self, host: &str, user: &str, root: Option<&str>) -> Result<(), String> {
        let url = format!("mongodb://records:{user}@{host}:27017/records?directConnection=true");
        let [url_name, user_name, root_name] = self.names;
        replace(&self.records, url_name, &url)?;
        replace(&self.mongo, user_name, user)?;
        root.map_or(Ok(()), |root| replace(&self.mongo, root_name, root))
    }
}

fn replace(folder: &Path, name: &str, content: &str) -> Result<(), String> {
    let swap = || {
        let version = unique(&format!("..{name}-{}", content.len())) + &secret().unwrap_or_default();
        fs::create_dir(folder.join(&version))?;
        fs::write(folder.join(&version).join(name), format!("{content}\n"))?;
        let (next, data) = (folder.join(format!("..next-{name}")), format!("..data-{name}"));
        std::os::unix::fs::symlink(&version, &next)?;
        fs::rename(&next, folder.join(&data))?;
        if !folder.join(name).exists() {
            std::os::unix::fs::symlink(format!("{data}/{name}"), folder.join(name))?;
        }
        Ok(())
    };
    swap().map_err(|error: std::io::Error| format!("{}: {error}", folder.display()))
}

/// Starts another container of the service on the same network: without a replica, unless `flags` say otherwise.
pub fn start_instance(deployment: &Deployment, name: &str, flags: &[&str]) -> Result<u16, String> {
    let port = http::free_port()?;
    let secrets = format!("{}:/run/secrets/records:ro", deployment.secrets.records.display());
    let store = format!("RECORDS_STORE_FILE=/run/secrets/records/{}", deployment.secrets.names[0]);
    let mut command = Command::new("podman");
    command.args(["run", "--detach", "--name", name, "--network", deployment.network, "--read-only", "--cap-drop"]);
    command.args(["all", "-v", &secrets, "-e", &store, "-p", &format!("127.0.0.1:{port}:8080")]);
    run::output(command.args(flags).arg(RECORDS))?;
    Ok(port)
}

/// Waits until the replica of a new deployment is complete and follows the changes in MongoDB.
pub fn replica_follows(app: &str, within: Duration) -> Result<Duration, String> {
    wait("a replica that follows every change", within, || logged(app, "fallback replica follows every change") > 0)
}

fn logged(container: &str, text: &str) -> usize {
    log(container).matches(text).count()
}

pub fn log(container: &str) -> String {
    let output = Command::new("podman").args(["logs", container]).output();
    output.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
    )
}

/// Prints a line for each event at once, since all of them take minutes and a later one may fail.
pub fn all(deployment: &Deployment) -> Result<(), String> {
    let Deployment { app, mongo, .. } = *deployment;
    let name = unique("records-without-replica");
    let _remove = Finally(|| drop(podman(["rm", "--force", &name])));
    let without = start_instance(deployment, &name, &[])?;
    wait("200 without a replica", PATIENCE, || http::status(without, LIST) == 200)?;
    replica_follows(app, PATIENCE)?;
    let identity = || podman(["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", app]);
    let started = identity()?;
    let load = Load { port: deployment.port, without, expected: expected(deployment.port, LIST)? };
    let outage = run::number("TEST_OUTAGE_SECONDS", OUTAGE_SECONDS)?;
    let records = run::number("TEST_BACKUP_RECORDS", 0)?;
    let is_away = || thread::sleep(Duration::from_secs(outage));
    let podman = |arguments: &[&str]| run::output(Command::new("podman").args(arguments)).map(drop);

    load.during(&format!("killed for {outage} s"), Away::Long, || {
        podman(&["kill", mongo])?;
        is_away();
        podman(&["start", mongo])
    })?;
    load.during(&format!("hung for {outage} s"), Away::Long, || {
        // The first attempt may fail on a busy machine: runc gives up freezing processes that start others meanwhile.
        wait("a freeze", PATIENCE, || podman(&["pause", mongo]).is_ok())?;
        is_away();
        podman(&["unpause", mongo])
    })?;
    // Stopped and started instead of restarted: a pod ends with its only container, and a restart would find no pod.
    load.during(&format!("stopped for {outage} s"), Away::Long, || {
        podman(&["stop", "--time", "60", mongo])?;
        is_away();
        podman(&["start", mongo])
    })?;
    load.during("replaced", Away::Briefly, deployment.replace)?;
    load.during("password rotated", Away::No, || rotate(deployment, &name))?;
    // Connections outlive their password. After this event, all connections use the new one.
    load.during("replaced after the rotation", Away::Briefly, deployment.replace)?;
    run::output(Command::new("podman").args(["exec", mongo, "records-mongo-healthcheck"]))?;
    let backup = run::exact(Command::new("podman").args(["exec", mongo, "records-mongo-backup"]), Stdio::null())?;
    if records > 0 {
        let paged = Load { expected: expected(deployment.port, PAGE)?, ..load };
        let (larger, last) = enlarged(&backup, records);
        let mut whole = Duration::ZERO;
        paged.during(&format!("backup of {records} records restored"), Away::No, || {
            restore(mongo, &larger)?;
            whole = wait("the replica of the backup", PATIENCE, || http::is_in_replica(paged.port, &last))?;
            Ok(())
        })?;
        println!("  the replica was whole again {:.1} s after the restore", whole.as_secs_f32());
        restore(mongo, &backup)?;
    }
    load.during("backup restored", Away::No, || restore(mongo, &backup))?;
    ensure(identity()? == started, || "the service was restarted".to_owned())
}

/// Returns a backup of `records` records, which are those of `backup` and copies of them, and the path of the last one. The ids of
/// copies sort after all others.
fn enlarged(backup: &str, records: u64) -> (String, String) {
    const ID: &str = r#"{"_id":""#;
    let lines: Vec<&str> = backup.lines().filter(|line| !line.is_empty()).collect();
    let mut larger = lines.join("\n");
    let mut last = HIT.to_owned();
    for (number, line) in (lines.len() as u64..records).zip(lines.iter().cycle()) {
        let rest = line.strip_prefix(ID).and_then(|line| line.split_once('"')).map_or("}", |(_, rest)| rest);
        let _ = write!(larger, "\n{ID}copy-{number}\"{rest}");
        last = format!("{LIST}/copy-{number}");
    }
    // An empty line ends a backup.
    (larger + "\n\n", last)
}

fn restore(mongo: &str, backup: &str) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    fs::write(file.path(), backup).map_err(|error| error.to_string())?;
    let input = file.reopen().map_err(|error| error.to_string())?;
    let mut restore = Command::new("podman");
    run::fed(restore.args(["exec", "--interactive", mongo, "records-mongo-restore"]), input.into()).map(drop)
}

/// Rotates the password in the order of the documents: first MongoDB's user, then the files.
fn rotate(deployment: &Deployment, without: &str) -> Result<(), String> {
    let password = secret()?;
    let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    fs::write(file.path(), format!("{password}\n")).map_err(|error| error.to_string())?;
    let input = file.reopen().map_err(|error| error.to_string())?;
    let mut set = Command::new("podman");
    run::fed(set.args(["exec", "--interactive", deployment.mongo, "records-mongo-set-password"]), input.into())?;
    deployment.secrets.write(deployment.host, &password, None)?;
    for container in [deployment.app, without] {
        wait("the new password in use", PATIENCE, || logged(container, "has changed, and is in use") > 0)?;
    }
    Ok(())
}

/// The length of an outage. After a long one, the replica must have answered.
#[derive(Clone, Copy, PartialEq)]
enum Away {
    /// Longer than a service without a replica waits.
    Long,
    /// Perhaps shorter than that.
    Briefly,
    No,
}

/// Returns the paths that clients request, with the expected responses while there are no writes.
fn expected(port: u16, list: &'static str) -> Result<[(&'static str, Answer); 3], String> {
    let expected = |path| http::get(port, path).map(|answer| (path, answer));
    Ok([expected(list)?, expected(HIT)?, expected(MISS)?])
}

struct Load {
    port: u16,
    /// The port of a service without a replica.
    without: u16,
    expected: [(&'static str, Answer); 3],
}

#[derive(Default)]
struct Seen {
    answers: usize,
    from_replica: usize,
    refused: usize,
    /// The beginning of each request, and the time that its response took.
    times: Vec<(Instant, Duration)>,
}

impl Load {
    /// Runs the load before and during `event` and until MongoDB answers again, and checks every response.
    fn during(&self, what: &str, away: Away, event: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let stop = &AtomicBool::new(false);
        let (happened, with, without) = thread::scope(|scope| {
            let clients = |count, port, may_refuse| {
                let client = |index| scope.spawn(move || self.client(port, index, may_refuse, stop));
                (0..count).map(client).collect::<Vec<_>>()
            };
            let with = clients(CLIENTS, self.port, false);
            let without = clients(CLIENTS_WITHOUT_REPLICA, self.without, true);
            thread::sleep(AROUND);
            let begun = Instant::now();
            let happened = event().and_then(|()| {
                let again = |port| http::get(port, HIT).is_ok_and(|answer| answer.status == 200 && !answer.is_stale);
                wait("MongoDB's answers again", PATIENCE, || again(self.port) && again(self.without))
            });
            let happened = happened.map(|back| (begun, back));
            thread::sleep(AROUND);
            stop.store(true, Ordering::Relaxed);
            let joined = |clients: Vec<thread::ScopedJoinHandle<'_, Result<Seen, String>>>| {
                let seen = clients.into_iter().map(|client| client.join().unwrap_or(Err("a client panicked".into())));
                seen.collect::<Result<Vec<Seen>, String>>()
            };
            (happened, joined(with), joined(without))
        });
        let (begun, back) = happened.map_err(|error| format!("{what}: {error}"))?;
        let with = summed(with.map_err(|error| format!("{what}, with a replica: {error}"))?);
        let without = summed(without.map_err(|error| format!("{what}, without a replica: {error}"))?);
        if away != Away::No {
            ensure(with.from_replica > 0, || format!("{what}: no answer is said to be the replica's"))?;
        }
        if away == Away::Long {
            ensure(without.refused > 0, || format!("{what}: without a replica nothing was refused"))?;
        }
        ensure(without.from_replica == 0, || format!("{what}: without a replica something was said to be of it"))?;
        let mut line =
            format!("  {what}: 0 of {} requests failed, {} answered by the replica", with.answers, with.from_replica);
        let (before, since): (Vec<_>, Vec<_>) = with.times.iter().partition(|(at, _)| *at < begun);
        let _ = write!(
            line,
            ", p99 {} before and {} since, slowest {}",
            percentile(&before, 99),
            percentile(&since, 99),
            percentile(&since, 100)
        );
        let _ = write!(line, ", MongoDB's answers back after {:.1} s", back.as_secs_f32());
        let _ =
            write!(line, "; without a replica {} of {} were 503", without.refused, without.answers + without.refused);
        println!("{line}");
        Ok(())
    }

    /// Every eighth client reads lists. If all did, they would be more than --max-streams while lists wait for MongoDB.
    fn client(&self, port: u16, index: usize, may_refuse: bool, stop: &AtomicBool) -> Result<Seen, String> {
        let mut seen = Seen::default();
        let [list, lookups @ ..] = &self.expected;
        let asked = if index.is_multiple_of(8) { slice::from_ref(list) } else { lookups };
        let mut asked = asked.iter().cycle();
        while !stop.load(Ordering::Relaxed) {
            let mut connection = Connection::open(port).map_err(|error| format!("no connection: {error}"))?;
            while !stop.load(Ordering::Relaxed) {
                let Some((path, right)) = asked.next() else { break };
                let begin = Instant::now();
                let answer = match connection.get(path) {
                    Ok(answer) => answer,
                    // Without a replica, a list may be aborted.
                    Err(Failure::Cut(_)) if may_refuse => {
                        seen.refused += 1;
                        break;
                    }
                    Err(Failure::Cut(how)) => return Err(format!("{path} was cut {how}")),
                    Err(Failure::Unanswered) => return Err(format!("{path} was not answered")),
                };
                seen.times.push((begin, begin.elapsed()));
                if answer.status == 503 && may_refuse {
                    seen.refused += 1;
                } else if answer.status == right.status && answer.body == right.body {
                    seen.answers += 1;
                    seen.from_replica += usize::from(answer.is_stale);
                } else {
                    let body = String::from_utf8_lossy(&answer.body).chars().take(300).collect::<String>();
                    return Err(format!("{path} after {:?}: {} {body}", begin.elapsed(), answer.status));
                }
                if answer.last {
                    break;
                }
                thread::sleep(PAUSE);
            }
        }
        Ok(seen)
    }
}

fn summed(clients: Vec<Seen>) -> Seen {
    let mut sum = Seen::default();
    for mut seen in clients {
        sum.answers += seen.answers;
        sum.from_replica += seen.from_replica;
        sum.refused += seen.refused;
        sum.times.append(&mut seen.times);
    }
    sum
}

/// Returns the time within which that percentage of the requests were answered.
fn percentile(times: &[(Instant, Duration)], percent: usize) -> String {
    let mut times: Vec<_> = times.iter().map(|(_, took)| *took).collect();
    times.sort_unstable();
    let time = times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    time.map_or("unknown".to_owned(), |time| format!("{:.0} ms", time.as_secs_f32() * 1000.0))
}
