//! Runs programs, and reports their results.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The root directory of the project.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The time in which something must happen that takes seconds on a quiet machine. At night, the time that it took is printed.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Returns true if the program `need`, or the program that the variable `need` names, exists.
pub fn is_there(need: &str) -> bool {
    if need.starts_with("TEST_") {
        return std::env::var_os(need).is_some_and(|path| Path::new(&path).is_file());
    }
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(need).is_file()))
}

/// Runs a program. Returns its trimmed standard output if it exits with 0, else all its output.
pub fn output(command: &mut Command) -> Result<String, String> {
    fed(command, Stdio::null())
}

/// Runs a program like [`output`], with `input` as its standard input.
pub fn fed(command: &mut Command, input: Stdio) -> Result<String, String> {
    exact(command, input).map(|text| text.trim().to_owned())
}

/// Runs a program like [`fed`], and returns the output without trimming.
pub fn exact(command: &mut Command, input: Stdio) -> Result<String, String> {
    let output = run(command, input)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}\n{}", output.status, said(&output)))
}

/// Runs a program that must fail, and returns its output.
pub fn failure(command: &mut Command) -> Result<String, String> {
    let output = run(command, Stdio::null())?;
    if output.status.success() { Err(format!("{command:?} should have failed")) } else { Ok(said(&output)) }
}

fn run(command: &mut Command, input: Stdio) -> Result<Output, String> {
    command.stdin(input).output().map_err(|error| format!("{command:?}: {error}"))
}

fn said(output: &Output) -> String {
    // The last lines of each show the reason.
    let last = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    };
    format!("{}\n{}", last(&output.stdout), last(&output.stderr))
}

pub fn podman<const N: usize>(arguments: [&str; N]) -> Result<String, String> {
    output(Command::new("podman").args(arguments).current_dir(ROOT))
}

pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Waits until `done` returns true, and returns the time that took.
pub fn wait(what: &str, within: Duration, mut done: impl FnMut() -> bool) -> Result<Duration, String> {
    let begin = Instant::now();
    while !done() {
        if begin.elapsed() > within {
            return Err(format!("{what}: not within {within:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(begin.elapsed())
}

/// Calls a function when it is dropped, also during a panic.
pub struct Finally<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Returns the number in the variable `name`, which is `otherwise` if it is unset.
pub fn number(name: &str, otherwise: u64) -> Result<u64, String> {
    let Ok(text) = std::env::var(name) else { return Ok(otherwise) };
    text.parse().map_err(|_| format!("{name} must be a number, and is {text:?}"))
}

/// Returns a name that no other run uses.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}
