//! The documents: their links and the names in them are valid, and their commands have the output that they show.
//!
//! The commands of a document run in order, in one empty directory: see `support/markdown.rs` for the blocks that have them.
//! `cargo run` and `records` run the program that was built for this test, `mongod` the one that `TEST_MONGOD` names. Documents
//! that need it are ignored without it, as are those that need a store which this build does not have.

#[path = "support/markdown.rs"]
mod markdown;
#[path = "support/servers.rs"]
mod servers;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use markdown::{Block, Kind, PATIENCE, matches};
use records::store::{BACKENDS, DEFAULT_URL};
use servers::mongod::free_port;

/// Words and phrases for which there are plainer ones.
const UNWANTED: &[&str] =
    &["nobody", "whoever", "anew", "beside", "in vain", "by way of", "all the same", "is none", "are none", "at hand"];

/// Words that begin a fragment: a comment begins with its subject or with a verb.
const FRAGMENTS: &[&str] =
    &["What", "How", "Whether", "Where", "Of", "That", "As", "Who", "Whoever", "Which", "Not", "One", "So", "Those"];

/// The files and folders whose words are checked: the comments of Rust files, and other files as a whole.
const PLAIN: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs",
    "src",
    "tests",
    "benches",
    "fuzz/run",
    "fuzz/src",
    "fuzz/targets",
    "seed/mongo",
    "k8s",
    ".ci",
    ".woodpecker.yml",
    "Cargo.toml",
    "Containerfile",
    "Containerfile.mongo",
    "podman-compose.yml",
];

/// Folders whose paths documents name.
const FOLDERS: &[&str] = &["src", "tests", "benches", "docs", "fuzz", "k8s", "seed", ".ci"];

/// Flags of other programs.
const FOREIGN_FLAGS: &[&str] = &[
    "--build-arg",
    "--features",
    "--ipv",
    "--json",
    "--label",
    "--no-cache",
    "--platform",
    "--pretty",
    "--profile",
    "--test",
];

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("links_lead_somewhere", links_lead_somewhere),
        Trial::test("paths_exist", paths_exist),
        Trial::test("settings_exist", settings_exist),
        Trial::test("metrics_exist", metrics_exist),
        Trial::test("the_readme_is_short", the_readme_is_short),
        Trial::test("words_are_plain", words_are_plain),
        Trial::test("the_changelog_has_this_version", the_changelog_has_this_version),
        Trial::test("an_unwanted_word_is_found", an_unwanted_word_is_found),
        Trial::test("an_output_that_differs_is_found", an_output_that_differs_is_found),
    ];
    for document in documents() {
        let blocks = markdown::blocks(&document.text, "");
        if blocks.is_empty() {
            continue;
        }
        let needs_mongodb = blocks.iter().any(|block| block.code.contains("mongod"));
        let is_runnable = DEFAULT_URL.is_some()
            && (!needs_mongodb
                || BACKENDS.iter().any(|backend| backend.name == "mongodb")
                    && (servers::must_be_breakable("mongodb") || servers::mongod::program().is_some()));
        let name = format!("commands::{}", document.name);
        trials.push(Trial::test(name, move || run(&blocks)).with_ignored_flag(!is_runnable));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

struct Document {
    /// The path from the project's root.
    name: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<Document> {
    files(&["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "seed/README.md", "docs"])
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| Document {
            name: path.strip_prefix(root()).unwrap().display().to_string(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .collect()
}

fn files(names: &[&str]) -> Vec<PathBuf> {
    fn walk(path: PathBuf, found: &mut Vec<PathBuf>) {
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| walk(entry.unwrap().path(), found));
        } else {
            found.push(path);
        }
    }
    let mut found = Vec::new();
    names.iter().for_each(|name| walk(root().join(name), &mut found));
    found.sort();
    found
}

/// Fails with a line for each finding.
fn none(findings: Vec<String>) -> Outcome {
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n").into()) }
}

/// Returns the text outside of fenced blocks.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let outside = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence && !line.starts_with("    ")
    });
    outside.collect::<Vec<_>>().join("\n")
}

/// The code spans of a text.
fn spans(text: &str) -> Vec<String> {
    prose(text).split("\n\n").flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// The targets of links, `[text](target)` or `[name]: target`.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let inline = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let named = prose.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ").map(|(_, target)| target));
    inline.chain(named).map(|target| target.trim().to_owned()).collect()
}

/// The anchors that a forge makes of the headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect::<String>())
        .map(|heading| heading.replace(' ', "-"))
        .collect()
}

fn links_lead_somewhere() -> Outcome {
    let mut broken = Vec::new();
    for document in documents() {
        let path = root().join(&document.name);
        for link in links(&document.text).into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let there = fs::read_to_string(&target).map_err(|error| error.to_string());
            let leads = match anchor {
                None => target.exists(),
                Some(anchor) => there.is_ok_and(|text| anchors(&text).contains(anchor)),
            };
            // A link that leaves the project works on this machine only.
            let depth = document.name.matches('/').count();
            let above = Path::new(file).components().filter(|part| *part == Component::ParentDir).count();
            if !leads || above > depth {
                broken.push(format!("{}: {link}", document.name));
            }
        }
    }
    none(broken)
}

/// Files that documents name in code spans, such as `src/http/`. Capitals are placeholders.
fn paths_exist() -> Outcome {
    let is_path = |span: &str| {
        let folder = span.split('/').next().unwrap_or_default();
        let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "/._-".contains(letter);
        span.contains('/') && FOLDERS.contains(&folder) && span.chars().all(plain)
    };
    // The changelog also names paths that were removed.
    let documents = documents().into_iter().filter(|document| document.name != "CHANGELOG.md");
    none(
        documents
            .flat_map(|document| spans(&document.text).into_iter().map(move |span| (document.name.clone(), span)))
            .filter(|(_, span)| is_path(span) && !root().join(span).exists())
            .filter(|(_, span)| !["fuzz/artifacts", "fuzz/corpus"].contains(&span.as_str()))
            .map(|(name, span)| format!("{name}: {span}"))
            .collect(),
    )
}

/// Flags and variables that documents name: the program's, and those of the deployment.
fn settings_exist() -> Outcome {
    let mut known = String::new();
    for arguments in [&["--help"][..], &["import", "--help"], &["healthcheck", "--help"], &["config", "--help"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_records")).args(arguments).output()?;
        known += &String::from_utf8(output.stdout)?;
    }
    let deployment =
        files(&["podman-compose.yml", ".env.sample", "Containerfile", "Containerfile.mongo", "k8s", "seed/mongo"]);
    let deployment: String = deployment.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let names = |text: &str| -> BTreeSet<String> {
        let is_name = |letter: char| letter.is_ascii_uppercase() || letter == '_';
        text.split(|letter| !is_name(letter)).filter(|word| word.starts_with("RECORDS_")).map(str::to_owned).collect()
    };
    // `RECORDS_VERSION` is a variable of the build.
    let variables = &names(&format!("{known} {deployment} RECORDS_VERSION"));
    let is_flag = |letter: char| letter.is_ascii_lowercase() || letter == '-';
    let flags: &BTreeSet<&str> = &known.split(|letter| !is_flag(letter)).chain(FOREIGN_FLAGS.iter().copied()).collect();
    let documents = documents().into_iter().filter(|document| document.name != "CHANGELOG.md");
    none(
        documents
            .flat_map(|document| {
                let unknown = names(&document.text).into_iter().filter(|name| !variables.contains(name));
                let spans = spans(&document.text).into_iter().filter(|span| span.starts_with("--"));
                let named = spans.map(|span| span.split(|letter| !is_flag(letter)).next().unwrap().to_owned());
                let unknown = unknown.chain(named.filter(|flag| !flags.contains(flag.as_str())));
                unknown.map(|name| format!("{}: {name}", document.name)).collect::<Vec<_>>()
            })
            .collect(),
    )
}

/// Metrics that documents name: those of the reference, which is generated from the registry.
fn metrics_exist() -> Outcome {
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let names = |text: &str| -> BTreeSet<String> {
        let words =
            text.split(|letter| !is_name(letter)).filter(|word| word.starts_with("records_") && !word.ends_with('_'));
        // The series of a histogram; the name of the network in the compose file.
        words.map(|word| word.trim_end_matches("_bucket").to_owned()).filter(|word| word != "records_records").collect()
    };
    let known = names(&fs::read_to_string(root().join("docs/reference/metrics.md"))?);
    let unknown = |document: Document| {
        let names = names(&document.text).into_iter().filter(|name| name != "records_mongo" && !known.contains(name));
        names.map(|name| format!("{}: {name}", document.name)).collect::<Vec<_>>()
    };
    none(documents().into_iter().flat_map(unknown).collect())
}

fn the_readme_is_short() -> Outcome {
    let text = fs::read_to_string(root().join("README.md"))?;
    let (lines, words) = (text.lines().count(), text.split_whitespace().count());
    if lines <= 150 && words <= 1100 {
        return Ok(());
    }
    Err(format!("README.md has {lines} lines and {words} words; 150 and 1,100 are enough").into())
}

/// A tag of a version without notes publishes nothing.
fn the_changelog_has_this_version() -> Outcome {
    let notes = |version: &str| Command::new(root().join(".ci/steps/release-notes")).arg(version).output();
    let found = notes(env!("CARGO_PKG_VERSION"))?;
    if !found.status.success() || found.stdout.starts_with(b"## ") || found.stdout.len() < 100 {
        return Err(String::from_utf8_lossy(&found.stderr).into_owned().into());
    }
    match notes("9.9.9")?.status.success() {
        true => Err("a version without a section has notes".into()),
        false => Ok(()),
    }
}

fn words_are_plain() -> Outcome {
    let mut found = Vec::new();
    for path in files(PLAIN) {
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::InvalidData => continue,
            text => text.map_err(|error| format!("{}: {error}", path.display()))?,
        };
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        found.extend(unplain(&text, name.ends_with(".rs")).into_iter().map(|finding| format!("{name}:{finding}")));
    }
    none(found)
}

/// Returns the unwanted words in a text and the fragments that begin its comments, each with its line.
fn unplain(text: &str, is_rust: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        let is_comment = is_rust && line.trim_start().starts_with("//");
        let prose = if is_rust { comment(line) } else { line };
        let words = prose.split(|letter: char| !letter.is_alphanumeric()).collect::<Vec<_>>().join(" ");
        let lower = words.to_lowercase();
        for word in UNWANTED.iter().filter(|word| format!(" {lower} ").contains(&format!(" {word} "))) {
            found.push(format!("{number}: {word}"));
        }
        let first = words.split(' ').next().unwrap_or_default();
        if is_comment && !is_inside && FRAGMENTS.contains(&first) {
            found.push(format!("{number}: a comment begins with {first}"));
        }
        is_inside = is_comment;
    }
    found
}

/// Returns the comment in a line of Rust, without its slashes.
fn comment(line: &str) -> &str {
    let is_whole = line.trim_start().starts_with("//");
    let start = if is_whole { line.find("//") } else { line.find(" // ") };
    start.map_or("", |start| line[start..].trim_start().trim_start_matches(['/', '!']).trim())
}

fn an_unwanted_word_is_found() -> Outcome {
    for (text, is_rust, expected) in [
        ("Nobody reads it,\nand it is, in vain, written anew", false, vec!["1: nobody", "2: anew", "2: in vain"]),
        ("// How it works.\n// How fast it is.\nlet x = 5; // How", true, vec!["1: a comment begins with How"]),
        (concat!("/// Reads.\nlet nobody = x.is_none(); //", " beside"), true, vec!["2: beside"]),
        ("let how = \"nobody https://whoever\";", true, vec![]),
    ] {
        if unplain(text, is_rust) != expected {
            return Err(format!("{:?} in {text:?}", unplain(text, is_rust)).into());
        }
    }
    Ok(())
}

fn an_output_that_differs_is_found() -> Outcome {
    for (text, pattern, expected) in [
        ("a\nb\n", "a\nb", true),
        ("a\nb", "a", false),
        ("200\nage: 5\n\n{}", "200\n…\n{}", true),
        ("200\n{}", "200\n…\n{}", true),
        ("200\nage: 5\n\n{}", "200\n…\n{}\n…", false),
        ("{\"id\":\"7\"}", "{\"id\":\"…\"}", true),
        ("{\"id\":7}", "{\"id\":\"…\"}", false),
    ] {
        if matches(text, pattern) != expected {
            return Err(format!("{pattern:?} for {text:?}").into());
        }
    }
    Ok(())
}

/// A directory, programs and servers for the commands of one document.
struct Terminal {
    directory: tempfile::TempDir,
    records: u16,
    mongod: u16,
    servers: Vec<Child>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn run(blocks: &[Block]) -> Outcome {
    let mut terminal = Terminal::open()?;
    for block in blocks {
        let code = terminal.translated(&block.code);
        match block.kind {
            Kind::Script => drop(terminal.script(&format!("set -e\n{code}"))?),
            Kind::Server => terminal.serve(&code)?,
            Kind::Console => markdown::check(&code, |command| terminal.script(command))?,
        }
    }
    Ok(())
}

impl Terminal {
    fn open() -> Result<Self, Failed> {
        let (directory, records, mongod) = (tempfile::tempdir()?, free_port()?, free_port()?);
        let terminal = Self { directory, records, mongod, servers: Vec::new() };
        let bin = terminal.directory.path().join("bin");
        fs::create_dir(&bin)?;
        let records = env!("CARGO_BIN_EXE_records");
        let mongod = servers::mongod::program().unwrap_or_default();
        let port = terminal.mongod;
        for (name, text) in [
            ("records", format!("exec '{records}' \"$@\"")),
            ("cargo", format!("[ \"$1\" = run ] || exit 0\nshift\n[ \"$1\" != -- ] || shift\nexec '{records}' \"$@\"")),
            (
                "mongod",
                format!("exec '{}' --port {port} --nounixsocket --wiredTigerCacheSizeGB 0.25 \"$@\"", mongod.display()),
            ),
        ] {
            let path = bin.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
            Command::new("chmod").arg("+x").arg(&path).status()?;
        }
        // Without a terminal curl would show its progress.
        fs::write(bin.join(".curlrc"), "silent\n")?;
        Ok(terminal)
    }

    /// Replaces the ports that documents name, which other programs on this machine may use.
    fn translated(&self, code: &str) -> String {
        let code = code.replace("8080", &self.records.to_string());
        code.replace("mongodb://127.0.0.1/", &format!("mongodb://127.0.0.1:{}/", self.mongod))
    }

    fn bash(&self, script: &str) -> Command {
        let bin = self.directory.path().join("bin");
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(self.directory.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RECORDS_") || name.starts_with("OTEL_"))
        {
            command.env_remove(name);
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).env("CURL_HOME", bin).env("RECORDS_LISTEN", format!("127.0.0.1:{}", self.records));
        command
    }

    /// Runs a script, and returns what it prints to standard output and standard error.
    fn script(&self, script: &str) -> Result<String, String> {
        let output = self.bash(&format!("exec 2>&1\n{script}")).output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        if output.status.success() { Ok(text) } else { Err(format!("{script}\n{}\n{text}", output.status)) }
    }

    fn serve(&mut self, command: &str) -> Outcome {
        let port = if command.starts_with("mongod") { self.mongod } else { self.records };
        let log = fs::File::create(self.directory.path().join("log"))?;
        let server = self.bash(&format!("exec {command}")).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.servers.push(server);
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begin.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                return Err(format!("{command}\ndoes not listen\n{log}").into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
