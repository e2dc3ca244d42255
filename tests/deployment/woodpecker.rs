//! .woodpecker.yml, for each event.

use std::process::Command;

use crate::Outcome;
use crate::run::{self, ROOT, ensure};

/// Steps that take no compiler.
const QUICK: &[&str] = &["format", "version"];

pub fn every_event() -> Outcome {
    let program = std::env::var_os("TEST_WOODPECKER_EXEC").unwrap_or_default();
    let command = |event: &str, tag: &str, arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["--event", event, "--tag", tag]).args(arguments).arg(".woodpecker.yml").current_dir(ROOT);
        command
    };
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    let exec = |event: &str, arguments: &[&str]| run::output(&mut command(event, version, arguments));
    let full = std::env::var("TEST_WOODPECKER").is_ok_and(|value| value == "full");
    let mut found = Vec::new();
    for event in ["push", "pull_request", "tag"] {
        let listed = exec(event, &["--list"])?;
        let count = |step: &str| listed.matches(&format!("-- {step}: ")).count();
        for (step, times) in [
            ("format", 1),
            ("clippy", 4),
            ("supply-chain", 1),
            ("test", 7),
            ("outages", 1),
            ("deployment-files", 1),
            ("version", usize::from(event == "tag")),
            ("build-records", usize::from(event != "tag")),
            ("build-records-mongo", usize::from(event != "tag")),
            ("push-records", usize::from(event == "tag")),
            ("push-records-mongo", usize::from(event == "tag")),
        ] {
            ensure(count(step) == times, || format!("on {event}, {step} should run {times} times:\n{listed}"))?;
        }
        let only: Vec<&str> = if full { Vec::new() } else { QUICK.iter().flat_map(|step| ["--only", step]).collect() };
        let ran = exec(event, &only)?;
        found.push(format!("{event}: {}", ran.lines().last().unwrap_or_default()));
    }
    let said = run::failure(&mut command("tag", "v9.9.9", &["--only", "version"]))?;
    ensure(said.contains("not of version '9.9.9'"), || format!("with a tag of another version it says: {said}"))?;
    let elsewhere = exec("push", &["--list", "--branch", "topic"])?;
    ensure(!elsewhere.contains("-- "), || format!("a push to another branch runs steps:\n{elsewhere}"))?;
    Ok(found.join("; "))
}
