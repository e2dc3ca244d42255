//! .woodpecker.yml, for each event.

use std::process::Command;

use crate::Outcome;
use crate::run::{self, ROOT, ensure};

/// Steps that need no compiler.
const QUICK: &[&str] = &["version", "format"];

/// Steps of a push that run in containers with `TEST_WOODPECKER=full`, each in the combination of the matrix with this variable. Outside
/// of containers, `.ci/nightly` runs the tests of the others. The rest needs the internet or images that are not here.
const LONG: [(&str, &[&str]); 2] =
    [("ONCE", &["format", "clippy"]), ("BREAKABLE", &["tests", "build-tests", "breakable"])];

/// The number of times that each step runs on a push, on a pull request and at night, and on a tag.
const STEPS: &[(&str, usize, usize, usize)] = &[
    ("version", 0, 0, 1),
    ("format", 1, 1, 1),
    ("clippy", 1, 1, 1),
    ("licences", 1, 1, 1),
    ("deployment-files", 1, 1, 1),
    ("tests", 9, 9, 0),
    ("matrix", 0, 0, 1),
    ("matrix-oldest-rust", 0, 0, 1),
    ("build-tests", 1, 1, 1),
    ("breakable", 1, 1, 1),
    ("nightly", 0, 1, 1),
    ("nightly-breakable", 0, 1, 1),
    ("sbom", 0, 1, 1),
    ("sbom-mongo", 0, 1, 1),
    ("sbom-check", 0, 1, 1),
    ("archives", 0, 1, 1),
    ("signing-key", 0, 0, 1),
    ("build-records", 1, 1, 0),
    ("build-records-mongo", 1, 1, 0),
    ("push-records", 0, 0, 1),
    ("push-records-mongo", 0, 0, 1),
    ("sign", 0, 0, 1),
    ("release", 0, 0, 1),
];

pub fn every_event() -> Outcome {
    let program = std::env::var_os("TEST_WOODPECKER_EXEC").unwrap_or_default();
    let file = |name: &str| std::fs::read_to_string(format!("{ROOT}/{name}")).map_err(|error| error.to_string());
    let command = |file: &str, event: &str, tag: &str, arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["--event", event, "--tag", tag]).args(arguments).arg(file).current_dir(ROOT);
        command
    };
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    let listed = |event: &str, more: &[&str]| {
        run::output(&mut command(".woodpecker.yml", event, version, &[&["--list"], more].concat()))
    };
    for (event, times) in [
        ("push", (|step| step.1) as fn(&(&str, usize, usize, usize)) -> usize),
        ("pull_request", |step| step.1),
        ("cron", |step| step.2),
        ("tag", |step| step.3),
    ] {
        let listed = listed(event, &[])?;
        for step in STEPS {
            let found = listed.matches(&format!("-- {}: ", step.0)).count();
            ensure(found == times(step), || {
                format!("on {event}, {} should run {} times, and runs {found} times:\n{listed}", step.0, times(step))
            })?;
        }
        let known: usize = STEPS.iter().map(times).sum();
        ensure(listed.matches("\n-- ").count() == known, || format!("on {event} an unknown step runs:\n{listed}"))?;
    }
    // Publishing waits for all other steps.
    let on_tag = listed("tag", &[])?;
    let (checks, pushes) = on_tag.split_once("-- push-records: ").ok_or("nothing is pushed on a tag")?;
    let early = |step: &&str| !checks.contains(&format!("-- {step}: "));
    let needed = [
        "matrix",
        "matrix-oldest-rust",
        "breakable",
        "nightly",
        "nightly-breakable",
        "sbom-mongo",
        "sbom-check",
        "archives",
        "signing-key",
    ];
    let late = needed.into_iter().find(early);
    ensure(late.is_none(), || format!("{late:?} runs after what it should hold back:\n{on_tag}"))?;
    let after: Vec<_> = pushes.split("\n-- ").skip(1).filter_map(|step| step.split(':').next()).collect();
    ensure(after == ["push-records-mongo", "sign", "release"], || format!("after the first push come {after:?}"))?;

    // An image of MongoDB that this machine lacks is replaced by one that it has. `.ci/mongodb-version` logs the version.
    let mut text = file(".woodpecker.yml")?;
    let is_missing = |image: &str| run::podman(["image", "exists", image]).is_err();
    let mut replaced = Vec::new();
    for version in ["6.0", "7.0"] {
        let image = format!("docker.io/library/mongo:{version}");
        if is_missing(&image) {
            text = text.replace(&image, "docker.io/library/mongo:8.0");
            replaced.push(image);
        }
    }
    let with_line = |variable: &str| -> String {
        let is_kept = |line: &&str| !line.contains("{RUST:") || line.contains(&format!("{variable}:"));
        text.split_inclusive('\n').filter(is_kept).collect()
    };
    let here = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let path = here.path().to_string_lossy();
    // Steps whose image is missing are listed and skipped, which is no failure of the program.
    let exec = |text: &str, event: &str, steps: &[&str], times: usize| {
        std::fs::write(here.path(), text).map_err(|error| error.to_string())?;
        let only: Vec<&str> = steps.iter().flat_map(|step| ["--only", step]).collect();
        let ran = run::output(&mut command(&path, event, version, &only))?;
        let all = format!("{times} steps passed, 0 listed and not run");
        ensure(ran.lines().last().is_some_and(|last| last.contains(&all)), || {
            format!("on {event}, {times} of {steps:?} should run:\n{ran}")
        })?;
        Ok::<_, String>(ran)
    };
    let mut found = Vec::new();
    for (event, times) in [("push", 1), ("pull_request", 1), ("cron", 1), ("tag", 2)] {
        let ran = exec(&with_line("ONCE"), event, QUICK, times)?;
        found.push(format!("{event}: {}", ran.lines().last().unwrap_or_default()));
    }
    // The file has still the combination that publishes.
    let said = run::failure(&mut command(&path, "tag", "v9.9.9", &["--only", "version"]))?;
    ensure(said.contains("not of version '9.9.9'"), || format!("with a tag of another version it says: {said}"))?;
    if std::env::var("TEST_WOODPECKER").is_ok_and(|value| value == "full") {
        for (variable, steps) in LONG {
            let ran = exec(&with_line(variable), "push", steps, steps.len())?;
            let servers: Vec<&str> = ran.lines().filter(|line| line.contains("buildInfo")).collect();
            found.push(format!("{variable}: {}, {servers:?}", ran.lines().last().unwrap_or_default()));
        }
    }
    let elsewhere = listed("push", &["--branch", "topic"])?;
    ensure(!elsewhere.contains("-- "), || format!("a push to another branch runs steps:\n{elsewhere}"))?;
    if !replaced.is_empty() {
        found.push(format!("not here, and replaced by what is called mongo:8.0: {}", replaced.join(", ")));
    }
    Ok(found.join("; "))
}
