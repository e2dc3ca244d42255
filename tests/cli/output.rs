//! Standard output that is closed early, or has no space left.

#[cfg(target_os = "linux")]
use std::fs::File;
use std::process::Stdio;

use rstest::rstest;

use crate::support::{code, directory, records, stderr};

#[rstest]
#[case::completions(&["completions", "bash"])]
#[case::settings(&["config", "--store", "memory:"])]
#[case::import(&["import", "file", "--store", "memory:"])]
fn a_reader_that_has_read_enough_is_no_failure(#[case] arguments: &[&str]) {
    let directory = directory();
    std::fs::write(directory.path().join("file"), r#"{"_id": 1}"#).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = records(&directory, arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
}

#[cfg(target_os = "linux")]
#[rstest]
#[case::completions(&["completions", "bash"], "records: cannot write")]
#[case::settings(&["config", "--store", "memory:"], "records: cannot write")]
#[case::import(&["import", "file", "--store", "memory:"], "records: 1 documents stored in memory:, 0 skipped; but cannot write")]
fn no_room_is_said_to_be_that(#[case] arguments: &[&str], #[case] says: &str) {
    let directory = directory();
    std::fs::write(directory.path().join("file"), r#"{"_id": 1}"#).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = records(&directory, arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(stderr(&output).starts_with(&format!("{says} to standard output: No space left")), "{}", stderr(&output));
}
