//! Large collections: for every backend, the memory of an import and of a list, the time of a page, and equal responses.
//!
//! Each trial runs the program as a process. `TEST_RECORDS=1000000` sets the number of records; without it, the trials that read
//! the program's memory from `/proc` are ignored. A million records need optimised code: `cargo test --profile scale --test scale`.
//! For the servers see `tests/support/servers.rs`.

#[path = "support/servers.rs"]
mod servers;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use memchr::memmem;
use records::store::{BACKENDS, Backend, BackendKind};
use tempfile::TempDir;

/// The number of records. A million have 260 MB together. Fewer records are longer: a hundred thousand still have 130 MB.
static RECORDS: LazyLock<u32> = LazyLock::new(|| {
    let records = std::env::var("TEST_RECORDS").unwrap_or_default();
    records.parse().unwrap_or_else(|_| panic!("TEST_RECORDS must be a number, and is {records:?}"))
});

/// The memory in KiB that a list may add to a server that has answered before.
const LIST_MAX_KIB: u64 = 32 * 1024;

/// The memory in KiB that an import may take: some batches of 4 MiB in their several forms, the program itself, and the index of
/// its pages that a store on the disk keeps in memory. Nothing of the file may pile up.
const IMPORT_MAX_KIB: u64 = 192 * 1024;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for backend in BACKENDS {
        let missing = backend.kind == BackendKind::Remote && !servers::is_configured(backend.name);
        let required = servers::required().iter().any(|name| name == backend.name);
        let untestable = missing && !required;
        let trial = move |name: &str, run: fn(&Backend) -> Result<(), Failed>| {
            Trial::test(format!("{}::{name}", backend.name), move || run(backend))
        };
        trials.push(trial("a_mixed_file_reads_back_as_from_memory", mixed).with_ignored_flag(untestable));
        let ignored = std::env::var_os("TEST_RECORDS").is_none() || untestable;
        let trial = |name, run| trial(name, run).with_ignored_flag(ignored);
        trials.push(trial("lists_of_many_to_slow_and_fast_readers_take_little_memory", lists));
        trials.push(trial("an_exact_count_of_many_ends_at_its_bound_and_an_estimate_needs_no_scan", counts));
        // Times are checked only with `TEST_TIMES`, on a quiet machine.
        let untimed = ignored || std::env::var_os("TEST_TIMES").is_none();
        trials.push(trial("the_last_page_takes_as_long_as_the_first", pages).with_ignored_flag(untimed));
        // An import into a memory store keeps every record, so it is not bounded.
        if backend.kind != BackendKind::InMemory {
            trials.push(trial("many_are_imported_in_bounded_memory_from_a_file", |backend| import(backend, true)));
            trials.push(trial("many_are_imported_in_bounded_memory_from_a_pipe", |backend| import(backend, false)));
        }
    }
    // Parallel measurements would disturb each other.
    let conclusion = libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials);
    servers::stop_all();
    conclusion.exit_code()
}

fn write_file(path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let text = "lorem ipsum ".repeat(10 * (1_000_000 / *RECORDS).clamp(1, 10) as usize);
    for index in 0..*RECORDS {
        // The order differs from that of the ids.
        let id = index.wrapping_mul(2_654_435_761);
        writeln!(
            file,
            r#"{{"_id": {{"$oid": "{id:024x}"}}, "name": "record {index}", "rating": {}.5, "count": {index}, "when": {{"$date": "2015-09-10T08:55:47Z"}}, "tags": ["a", "b"], "text": "{text}"}}"#,
            index % 10,
        )?;
    }
    file.flush()
}

/// Data that grew over the years: one field with several types, names with spaces, ids of several types.
fn mixed(backend: &Backend) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("mixed.jsonl");
    let mut text = String::new();
    for index in 0..2_500_u32 {
        let id = match index % 4 {
            0 => format!(r#"{{"$oid": "{:024x}"}}"#, index.wrapping_mul(2_654_435_761)),
            1 => format!(r#""Straße {index}""#),
            2 => index.to_string(),
            _ => format!(r#"{{"$uuid": "3b241101-e2bb-4255-8caf-{index:012x}"}}"#),
        };
        let rating = match index % 5 {
            0 => r#""Not yet rated""#.to_owned(),
            1 => format!("{}.5", index % 10),
            2 => format!("{}.0", index % 10),
            3 => r#"{"$numberDecimal": "4.50"}"#.to_owned(),
            _ => (index % 10).to_string(),
        };
        text += &format!(
            r#"{{"type of food": "Curaçao", "rating": {rating}, "_id": {id}, "address": {{"line one": null, "no": [{index}, {index}.25]}}, "when": {{"$date": {{"$numberLong": "{index}000"}}}}}}"#
        );
        text.push('\n');
    }
    std::fs::write(&file, text)?;
    let listed = |backend: &Backend| -> Result<String, Failed> {
        let serving = Serving::filled(backend, &directory, &file)?;
        let mut stream = serving.ask("/api/v1/records", "")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_once("\r\n\r\n").ok_or("no answer")?.1.to_owned())
    };
    let reference =
        BACKENDS.iter().find(|backend| backend.kind == BackendKind::InMemory).ok_or("memory is always there")?;
    let (expected, found) = (listed(reference)?, listed(backend)?);
    if expected != found || expected.matches("type of food").count() != 2_500 {
        return Err(format!("{} bytes from memory, {} from {}", expected.len(), found.len(), backend.name).into());
    }
    Ok(())
}

fn url(backend: &Backend, directory: &TempDir) -> Result<String, Failed> {
    let name = directory.path().file_name().unwrap_or_default().to_string_lossy().replace('.', "");
    Ok(match backend.kind {
        BackendKind::InMemory => format!("{}:", backend.name),
        BackendKind::Local => format!("{}:{}", backend.name, directory.path().join("store").display()),
        BackendKind::Remote => servers::url(backend.name, &format!("scale_{name}"))?,
    })
}

fn records(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.args(arguments).args(["--store", url, "--store-timeout", "60s"]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn import(backend: &Backend, from_file: bool) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("many.jsonl");
    write_file(&file)?;
    let name = file.to_string_lossy();
    let mut command = records(&url(backend, &directory)?, &["import", if from_file { &name } else { "-" }]);
    if !from_file {
        // A pipe can be read only once.
        let mut cat = Command::new("cat").arg(&file).stdout(Stdio::piped()).spawn()?;
        command.stdin(cat.stdout.take().ok_or("no pipe")?);
        std::thread::spawn(move || cat.wait());
    }
    let mut child = Ending(command.spawn()?);
    let begin = Instant::now();
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        peak = memory(&child.0, "VmHWM").unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(5));
    };
    println!("{}: {} records imported in {:.1?}, at most {peak} KiB", backend.name, *RECORDS, begin.elapsed());
    if !status.success() || peak == 0 || peak > IMPORT_MAX_KIB {
        return Err(format!("{status}, {peak} KiB at its peak where {IMPORT_MAX_KIB} are allowed").into());
    }
    Ok(())
}

fn lists(backend: &Backend) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("many.jsonl");
    write_file(&file)?;
    let server = Serving::filled(backend, &directory, &file)?;
    // The first request allocates what later ones reuse.
    server.ask("/api/v1/records/nothing", "")?.read_to_end(&mut Vec::new())?;
    let idle = memory(&server.process.0, "VmRSS")?;
    let list = |query, accept, mark, slow| {
        let reader = server.ask(&format!("/api/v1/records{query}"), &format!("Accept: {accept}\r\n"))?;
        Ok::<_, std::io::Error>(List { reader, mark, slow })
    };
    let (slow, fast) = (Duration::from_secs(5), Duration::ZERO);

    let array = list("", "application/json", ID, slow)?;
    read_by(backend, &server, idle, "an array to one slow at first", vec![array])?;
    let lines = |slow| list("", "application/x-ndjson", ID, slow);
    read_by(backend, &server, idle, "lines to a slow and a fast one", vec![lines(slow)?, lines(fast)?])?;
    let csv = list("?fields=_id,name,rating,count,when,tags,text", "text/csv; header=present", b",lorem ", slow)?;
    read_by(backend, &server, idle, "CSV to one slow at first", vec![csv])
}

/// The largest number that an exact count without a filter reaches.
const COUNT_MAX: u32 = 1_000_000;

fn counts(backend: &Backend) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("many.jsonl");
    write_file(&file)?;
    // A tenth more, so that a million exceed the bound.
    let mut more = BufWriter::new(File::options().append(true).open(&file)?);
    for index in 0..*RECORDS / 10 {
        writeln!(more, r#"{{"_id": {index}}}"#)?;
    }
    more.flush()?;
    let all = *RECORDS + *RECORDS / 10;
    let server = Serving::filled(backend, &directory, &file)?;
    let exact = || server.count("exact");
    let estimated = || server.count("estimated");
    // An embedded store knows its number; a database says what it was asked.
    if backend.kind != BackendKind::Remote {
        for (is_exact, number) in [exact()?, estimated()?] {
            if !is_exact || number != all {
                return Err(format!("{number} of {all}, exact: {is_exact}").into());
            }
        }
        return Ok(());
    }
    let commands = profile::commands(&url(backend, &directory)?, || {
        let (is_exact, number) = exact()?;
        if number != all || (is_exact && all > COUNT_MAX) {
            return Err(format!("{number} of {all}, exact: {is_exact}").into());
        }
        match estimated()? {
            (false, number) if number == all => Ok(()),
            (is_exact, number) => Err(format!("{number} of {all} estimated, exact: {is_exact}").into()),
        }
    })?;
    for (name, examined) in &commands {
        println!("{}: {name} examined {examined} of {all}", backend.name);
    }
    // The first is the exact one. Where that is out of bounds or of time, the number of the collection is its answer.
    let (aggregations, counts): (Vec<_>, Vec<_>) = commands.iter().partition(|(name, _)| name == "aggregate");
    let [(_, examined)] = aggregations[..] else { return Err(format!("{commands:?}").into()) };
    let is_bounded = *examined <= i64::from(COUNT_MAX) + 1;
    if !is_bounded || !(1..=2).contains(&counts.len()) || counts.iter().any(|(_, examined)| *examined != 0) {
        return Err(format!("{commands:?}").into());
    }
    Ok(())
}

/// The profiler of a MongoDB.
#[cfg(feature = "mongodb")]
mod profile {
    use futures::TryStreamExt;
    use libtest_mimic::Failed;
    use mongodb::bson::{Document, doc};

    /// Returns the aggregations and counts that the database of `url` executes during `run`, each with the keys and documents that it
    /// examined.
    pub fn commands(url: &str, run: impl FnOnce() -> Result<(), Failed>) -> Result<Vec<(String, i64)>, Failed> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(mongodb::Client::with_uri_str(url))?;
        let database = client.default_database().ok_or("no database")?;
        let set_level = |level: i32| runtime.block_on(database.run_command(doc! { "profile": level }).into_future());
        set_level(2)?;
        run()?;
        set_level(0)?;
        let filter =
            doc! { "$or": [{ "command.count": { "$exists": true } }, { "command.aggregate": { "$exists": true } }] };
        let profile = database.collection::<Document>("system.profile");
        let entries: Vec<Document> =
            runtime.block_on(async { profile.find(filter).sort(doc! { "ts": 1 }).await?.try_collect().await })?;
        let number = |entry: &Document, name| {
            entry.get_i64(name).or_else(|_| entry.get_i32(name).map(i64::from)).unwrap_or_default()
        };
        let command = |entry: &Document| {
            let name = entry.get_document("command").ok().and_then(|command| command.keys().next().cloned());
            let examined = number(entry, "docsExamined").max(number(entry, "keysExamined"));
            (name.unwrap_or_default(), examined)
        };
        Ok(entries.iter().map(command).collect())
    }
}

#[cfg(not(feature = "mongodb"))]
mod profile {
    use libtest_mimic::Failed;

    pub fn commands(_: &str, _: impl FnOnce() -> Result<(), Failed>) -> Result<Vec<(String, i64)>, Failed> {
        Err("this build has no store in a server".into())
    }
}

/// The beginning of each record in JSON.
const ID: &[u8] = b"\"_id\":";

/// A list whose reader is slow for a while, to measure the memory that the server needs to read ahead.
struct List {
    reader: TcpStream,
    /// The bytes that each record has once.
    mark: &'static [u8],
    slow: Duration,
}

impl List {
    /// Reads the list to its end. Returns the number of records, without those whose mark is split between two buffers, and the
    /// last byte.
    fn read(mut self) -> std::io::Result<(usize, u8)> {
        let begin = Instant::now();
        let (mut count, mut last) = (0, 0);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let slow = begin.elapsed() < self.slow;
            let read = self.reader.read(if slow { &mut buffer[..16 * 1024] } else { &mut buffer })?;
            if read == 0 {
                return Ok((count, last));
            }
            count += memmem::find_iter(&buffer[..read], self.mark).count();
            last = buffer[read - 1];
            if slow {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Reads all `lists` at once, and checks the server's memory meanwhile.
fn read_by(backend: &Backend, server: &Serving, idle: u64, what: &str, lists: Vec<List>) -> Result<(), Failed> {
    let begin = Instant::now();
    let readers: Vec<_> = lists.into_iter().map(|list| std::thread::spawn(|| list.read())).collect();
    let mut peak = idle;
    while readers.iter().any(|reader| !reader.is_finished()) {
        peak = peak.max(memory(&server.process.0, "VmRSS")?);
        std::thread::sleep(Duration::from_millis(5));
    }
    let added = peak - idle;
    println!("{}: {what}: {added} KiB above {idle} KiB, in {:.1?}", backend.name, begin.elapsed());
    for reader in readers {
        let (count, last) = reader.join().map_err(|_| "a reader gave up")??;
        if !b"]\n".contains(&last) || count > *RECORDS as usize || count < *RECORDS as usize * 99 / 100 {
            return Err(format!("a list was not whole: {count} records").into());
        }
    }
    if added > LIST_MAX_KIB {
        return Err(format!("{what}: {added} KiB more where {LIST_MAX_KIB} are allowed").into());
    }
    Ok(())
}

/// The number of records in a page: a million records are ten thousand pages.
const PAGE: usize = 100;

fn pages(backend: &Backend) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("many.jsonl");
    write_file(&file)?;
    let server = Serving::filled(backend, &directory, &file)?;
    let mut ids: Vec<u32> = (0..*RECORDS).map(|index| index.wrapping_mul(2_654_435_761)).collect();
    ids.sort_unstable();
    let before = ids[ids.len() - PAGE - 2];
    let link = server.answer(&format!("/api/v1/records?limit=1&after_id={before:024x}"))?;
    let cursor = link.split("after=").nth(1).and_then(|rest| rest.split('>').next()).ok_or("no link")?;
    let first = format!("/api/v1/records?limit={PAGE}");
    let last = format!("{first}&after={cursor}");
    let mut times = [Vec::new(), Vec::new()];
    // The requests take turns, so that other load on the machine affects both equally.
    for _ in 0..500 {
        for (page, times) in [&first, &last].into_iter().zip(&mut times) {
            let begin = Instant::now();
            let answer = server.answer(page)?;
            times.push(begin.elapsed());
            if answer.matches("\"_id\":").count() != PAGE || answer.contains("rel=") != (page == &first) {
                return Err(format!("not the page that was asked for: {}", &answer[..500]).into());
            }
        }
    }
    let [first, last] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    println!("{}: page 1 in {first:.1?}, page {} in {last:.1?} (medians)", backend.name, *RECORDS as usize / PAGE);
    if last > first.mul_f64(1.2) || first > last.mul_f64(1.2) {
        return Err(format!("page 1 takes {first:?}, the last one {last:?}").into());
    }
    Ok(())
}

struct Serving {
    process: Ending,
    address: String,
}

impl Serving {
    /// Starts the program with `backend` and the records of `file`.
    fn filled(backend: &Backend, directory: &TempDir, file: &Path) -> Result<Self, Failed> {
        let url = url(backend, directory)?;
        let name = file.to_string_lossy();
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--seed"];
        if backend.kind == BackendKind::InMemory {
            arguments.push(&name);
        } else {
            let status = records(&url, &["import", &name]).status()?;
            assert!(status.success());
            arguments.push("none");
        }
        let mut process = Ending(records(&url, &arguments).stderr(Stdio::piped()).spawn()?);
        let mut log = BufReader::new(process.0.stderr.take().ok_or("no log")?);
        let mut line = String::new();
        loop {
            line.clear();
            if log.read_line(&mut line)? == 0 {
                return Err("the server ended".into());
            }
            if let Some((_, rest)) = line.split_once("http://") {
                let address = rest.split_whitespace().next().unwrap_or_default().to_owned();
                return Ok(Self { process, address });
            }
        }
    }

    /// Returns the head and the body of a response.
    fn answer(&self, path: &str) -> Result<String, Failed> {
        let mut answer = String::new();
        self.ask(path, "")?.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Returns whether the count of all records is exact, and the count.
    fn count(&self, precision: &str) -> Result<(bool, u32), Failed> {
        let mut answer = String::new();
        let prefer = format!("Prefer: count={precision}\r\n");
        self.ask("/api/v1/records?limit=1&fields=_id", &prefer)?.read_to_string(&mut answer)?;
        let header = |name| {
            let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.ok_or_else(|| format!("no {name} in {answer}"))
        };
        Ok((header("preference-applied")? == "count=exact", header("records-count")?.parse()?))
    }

    /// Sends a request of HTTP/1.0, so that the body has no chunks and ends with the connection.
    fn ask(&self, path: &str, headers: &str) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET {path} HTTP/1.0\r\n{headers}\r\n")?;
        Ok(stream)
    }
}

/// Returns a value of the process's status, in KiB.
fn memory(process: &Child, what: &str) -> Result<u64, Failed> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    Ok(line.ok_or("the process has ended")?.trim().trim_end_matches(" kB").parse()?)
}

struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
