//! API keys on the command line: a key is made, listed in a file, and needed.

use std::fs;

use crate::support::{Serving, code, directory, run, stderr, stdout};

#[test]
fn a_server_asks_for_the_key_that_was_made() {
    let directory = directory();
    let made = stdout(&run(&directory, &["keys", "new", "reporting"], ""));
    let line = made.lines().find_map(|line| line.strip_prefix("line: ")).expect("a line for the file");
    let key = made.lines().find_map(|line| line.strip_prefix("key:  ")).expect("a key");
    assert!(line.starts_with("reporting:") && line.ends_with(":records:read") && !line.contains(key), "{line}");
    fs::write(directory.path().join("keys"), line).unwrap();
    let serving = Serving::start(&directory, &["--store", "memory:", "--api-keys", "keys"]);
    assert_eq!(serving.get("/api/v1/records/H").0, 401);
    assert_eq!(serving.get("/livez").0, 200);
}

#[test]
fn a_key_file_that_cannot_be_used_is_refused_at_the_start() {
    let directory = directory();
    fs::write(directory.path().join("keys"), "# none yet\n").unwrap();
    fs::write(directory.path().join("wrong"), "# keys\nreporting\n").unwrap();
    for (file, reason) in [("missing", "missing"), ("keys", "records keys new NAME"), ("wrong", "line 2")] {
        let output = run(&directory, &["config", "--store", "memory:", "--api-keys", file], "");
        assert_eq!(code(&output), 1, "{file}");
        assert!(stderr(&output).contains("--api-keys") && stderr(&output).contains(reason), "{}", stderr(&output));
    }
}

#[test]
fn a_name_that_a_key_cannot_have_is_refused() {
    let output = run(&directory(), &["keys", "new", "two words"], "");
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("letters, digits"), "{}", stderr(&output));
}
