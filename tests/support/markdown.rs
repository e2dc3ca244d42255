//! Commands in fenced blocks of the documents. The info string of a block tells if it is run:
//!
//! - `sh test`: a script, which must succeed.
//! - `console test`: commands after `$ `, each with its output; `…` stands for any text, and a line of it for any number of
//!   lines. A request by `curl` and a `healthcheck` are repeated until the output is right, since servers need a moment to notice
//!   something.
//! - `sh test server`: one command, which runs until the document ends.
//!
//! `tests/documents.rs` runs these; `tests/deployment` those with `compose` as their last word.

#![allow(dead_code)]

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The time within which an output must become right: on a busy machine, MongoDB's first start takes more than a minute.
pub const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Script,
    Console,
    Server,
}

pub struct Block {
    pub kind: Kind,
    pub code: String,
}

pub fn read(document: &str) -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    std::fs::read_to_string(&path).map_err(|error| format!("{document}: {error}"))
}

/// Returns the blocks whose info string ends in `test` and `suite`.
pub fn blocks(text: &str, suite: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let code: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        let words: Vec<_> = info.split(' ').filter(|word| !word.is_empty()).collect();
        let kind = match words.split_at(words.len().min(2)) {
            (["sh", "test"], ["server"]) if suite.is_empty() => Kind::Server,
            (["sh", "test"], rest) if rest.join(" ") == suite => Kind::Script,
            (["console", "test"], rest) if rest.join(" ") == suite => Kind::Console,
            _ => continue,
        };
        blocks.push(Block { kind, code: code.join("\n") });
    }
    blocks
}

/// Runs the commands of a console by `run`, which returns what a command prints, and compares.
pub fn check(console: &str, run: impl Fn(&str) -> Result<String, String>) -> Result<(), String> {
    for (command, expected) in commands(console) {
        let begin = Instant::now();
        loop {
            let found = run(&command);
            if found.as_ref().is_ok_and(|text| matches(text, &expected)) {
                break;
            }
            let only_asks = command.starts_with("curl") || command.contains(" healthcheck");
            if !only_asks || begin.elapsed() > PATIENCE {
                let found = found.unwrap_or_else(|error| error);
                return Err(format!("{command}\nshould print\n{expected}\nand prints\n{found}"));
            }
            sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// Returns the commands of a console, each with its expected output.
fn commands(console: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in console.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((command, _))) if command.ends_with('\\') => *command += &format!("\n{line}"),
            (None, Some((_, output))) => *output += &format!("{line}\n"),
            (None, None) => panic!("output without a command: {line}"),
        }
    }
    commands
}

/// Returns `true` if `text` is `pattern`, with any text in the place of each `…`.
pub fn matches(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.trim(), pattern.trim().replace("\n…\n", "\n…"));
    let mut parts = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}
