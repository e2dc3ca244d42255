//! `records import`: the whole file or nothing of it.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use rstest::rstest;

use crate::support::{PATIENCE, Serving, code, directory, finish, persistent_stores, records, run, stderr, stdout};

const GOOD: &str = "{\"_id\": 1, \"a\": 5}\n{\"_id\": \"b\", \"a\": 5.0}\n";
const BAD: &str = "{\"_id\": 1}\n{\"_id\": 2, \"a\": }\n\n{\"_id\": [3]}\n{\"_id\": 4}\n";

/// Returns the records of the store, read by a second process.
fn list(directory: &tempfile::TempDir, store: &str) -> String {
    Serving::start(directory, &["--store", store, "--seed", "none"]).get("/api/v1/records").1
}

#[test]
#[cfg(target_os = "linux")]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn invalid_documents_that_nobody_can_read_of_keep_no_others_from_being_stored() {
    for store in persistent_stores() {
        let directory = directory();
        fs::write(directory.path().join("bad"), BAD).unwrap();
        let mut command = records(&directory, &["import", "bad", "--skip-invalid", "--store", &store]);
        command.stderr(fs::File::options().write(true).open("/dev/full").unwrap());
        assert_eq!(command.stdout(Stdio::null()).status().unwrap().code(), Some(3));
        assert_eq!(list(&directory, &store), r#"[{"_id":1},{"_id":4}]"#);
    }
}

#[test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn what_was_read_before_damaged_utf_16_is_stored_and_counted_where_damage_is_accepted() {
    for store in persistent_stores() {
        let directory = directory();
        let text: String = (0..20_000).map(|id| format!("{{\"_id\":{id}}}\n")).collect();
        let mut bytes: Vec<u8> =
            "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        // Half of a surrogate pair.
        bytes.extend([0x00, 0xd8, 0x20, 0x00]);
        fs::write(directory.path().join("utf16"), bytes).unwrap();
        let output = run(&directory, &["import", "utf16", "--skip-invalid", "--store", &store], "");
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        let errors = stderr(&output);
        let (_, rest) = errors.split_once("surrogates in it. ").unwrap_or_else(|| panic!("{errors}"));
        let stored: usize = rest.split(' ').next().unwrap().parse().unwrap();
        assert!(rest.contains("documents were stored before") && stored > 10_000, "{errors}");
        assert_eq!(list(&directory, &store).matches("_id").count(), stored);
    }
}

#[test]
fn many_documents_with_numbers_that_json_lacks_may_stand_on_one_line() {
    let directory = directory();
    let documents: Vec<_> =
        (0..5_000).map(|id| format!(r#"{{"_id":{id},"a":NaN,"t":"{}"}}"#, "x".repeat(100))).collect();
    // Reading all of the rest of the line for each would take minutes.
    let output = run(&directory, &["import", "-", "--store", "memory:"], &format!("[{}]", documents.join(",")));
    assert!(stdout(&output).starts_with("5000 documents stored"), "{}", stderr(&output));
}

#[test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn lines_from_standard_input_are_stored() {
    for store in persistent_stores() {
        let directory = directory();
        let output = run(&directory, &["import", "-", "--store", &store], GOOD);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stdout(&output).starts_with("2 documents stored"), "{}", stdout(&output));
        assert_eq!(list(&directory, &store), r#"[{"_id":1,"a":5},{"_id":"b","a":5.0}]"#);
    }
}

#[rstest]
#[case::lines(GOOD)]
#[case::array("[{\"_id\": 1, \"a\": 5},\n{\"_id\": \"b\", \"a\": 5.0}]")]
#[case::windows("{\"_id\": 1, \"a\": 5}\r\n\r\n{\"_id\": \"b\", \"a\": 5.0}")]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn a_file_is_stored_and_twice_is_as_good_as_once(#[case] text: &str) {
    for store in persistent_stores() {
        let directory = directory();
        std::fs::write(directory.path().join("file"), text).unwrap();
        for _ in 0..2 {
            assert_eq!(code(&run(&directory, &["import", "file", "--store", &store], "")), 0);
        }
        assert_eq!(list(&directory, &store), r#"[{"_id":1,"a":5},{"_id":"b","a":5.0}]"#);
    }
}

#[rstest]
fn a_bad_line_is_named_and_nothing_of_the_file_is_stored(#[values(true, false)] from_file: bool) {
    let stores = persistent_stores().into_iter().chain(["memory:".to_owned()]);
    for store in stores {
        let directory = directory();
        std::fs::write(directory.path().join("file"), BAD).unwrap();
        let output = run(&directory, &["import", if from_file { "file" } else { "-" }, "--store", &store], BAD);
        let errors = stderr(&output);
        assert_eq!(code(&output), 1);
        assert!(errors.contains("line 2, column 17: expected value"), "{errors}");
        assert!(errors.contains("line 4: its `_id` is an array, which MongoDB does not take"), "{errors}");
        let says =
            "2 of 4 documents are wrong, so nothing was stored. Correct them, or leave them out by --skip-invalid";
        assert!(errors.contains(says), "{errors}");
        if store != "memory:" {
            assert_eq!(list(&directory, &store), "[]");
        }
    }
}

#[test]
fn with_skip_invalid_every_bad_line_is_named_and_counted_and_the_rest_stored() {
    let stores = persistent_stores().into_iter().chain(["memory:".to_owned()]);
    for store in stores {
        let directory = directory();
        let output = run(&directory, &["import", "-", "--skip-invalid", "--store", &store], BAD);
        assert_eq!(code(&output), 3);
        assert!(stdout(&output).starts_with("2 documents stored") && stdout(&output).ends_with("2 skipped\n"));
        let errors = stderr(&output);
        assert!(errors.contains("line 2,") && errors.contains("line 4:"), "{errors}");
        if store != "memory:" {
            assert_eq!(list(&directory, &store), r#"[{"_id":1},{"_id":4}]"#);
        }
    }
}

#[test]
fn a_file_wrong_in_every_line_does_not_fill_the_terminal() {
    let output = run(&directory(), &["import", "-", "--store", "memory:"], &"{\"a\" 5}\n".repeat(1_000));
    let errors = stderr(&output);
    assert!(errors.lines().count() < 20 && errors.contains("1000 of 1000 documents are wrong"), "{errors}");
}

#[rstest]
#[case::table("_id,name\n1,a\n2,b\n", "CSV")]
#[case::archive("PK\u{3}\u{4}\u{14}\0", "ZIP")]
#[case::xml("<a/>\n<b/>\n", "XML")]
fn a_file_of_another_kind_is_named_once(#[case] text: &str, #[case] what: &str) {
    for skip in [&[][..], &["--skip-invalid"]] {
        let output = run(&directory(), &[&["import", "-", "--store", "memory:"], skip].concat(), text);
        let errors = stderr(&output);
        assert_eq!(code(&output), 1, "{errors}");
        assert!(
            errors.contains(what) && errors.contains("Nothing was stored") && errors.lines().count() == 1,
            "{errors}"
        );
    }
}

#[test]
fn a_file_in_another_notation_is_named_once_with_the_place() {
    let output = run(&directory(), &["import", "-", "--store", "memory:"], &"{'_id': 1}\n".repeat(1_000));
    let errors = stderr(&output);
    let says = "line 1, column 2: this is Python or JavaScript, not JSON: strings have double quotes";
    assert!(errors.contains(says) && errors.lines().count() == 2, "{errors}");
}

#[test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn documents_without_an_id_get_one_unless_ids_are_required() {
    for store in persistent_stores() {
        let directory = directory();
        let text = "{\"item\": \"journal\"}\n{\"item\": \"paper\", \"_id\": 5}\n{\"item\": \"pen\"}\n";
        let refused = run(&directory, &["import", "-", "--require-id", "--store", &store], text);
        assert_eq!(code(&refused), 1);
        assert!(stderr(&refused).contains("line 1: it has no `_id`"), "{}", stderr(&refused));
        assert_eq!(list(&directory, &store), "[]");
        let output = run(&directory, &["import", "-", "--store", &store], text);
        assert!(stdout(&output).starts_with("3 documents stored"), "{}", stderr(&output));
        let serving = Serving::start(&directory, &["--store", &store, "--seed", "none"]);
        let listed: Vec<serde_json::Value> = serde_json::from_str(&serving.get("/api/v1/records").1).unwrap();
        let ids: Vec<_> = listed.iter().filter_map(|record| record["_id"].as_str()).collect();
        assert!(ids.len() == 2 && ids.iter().all(|id| id.len() == 24) && ids[0] != ids[1], "{listed:?}");
        for id in ids {
            assert_eq!(serving.get(&format!("/api/v1/records/{id}")).0, 200);
        }
    }
}

#[cfg(feature = "compression")]
#[rstest]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn a_compressed_file_is_stored_whatever_its_name(#[values("file", "-")] from: &str) {
    for store in persistent_stores() {
        let directory = directory();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(GOOD.as_bytes()).unwrap();
        let compressed = encoder.finish().unwrap();
        std::fs::write(directory.path().join("file"), &compressed).unwrap();
        let mut command = records(&directory, &["import", from, "--store", &store]);
        command.stdin(std::fs::File::open(directory.path().join("file")).unwrap());
        let output = command.output().unwrap();
        assert!(stdout(&output).starts_with("2 documents stored"), "{}", stderr(&output));
        assert_eq!(list(&directory, &store), r#"[{"_id":1,"a":5},{"_id":"b","a":5.0}]"#);
    }
}

#[cfg(feature = "compression")]
#[test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn a_truncated_file_is_refused_with_the_place_or_stored_up_to_it() {
    for store in persistent_stores() {
        let directory = directory();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        let lines: String = (0..5_000).map(|id| format!("{{\"_id\":{id}}}\n")).collect();
        encoder.write_all(lines.as_bytes()).unwrap();
        let compressed = encoder.finish().unwrap();
        std::fs::write(directory.path().join("cut.gz"), &compressed[..compressed.len() - 100]).unwrap();
        let import = |arguments: &[&str]| {
            let output = run(&directory, &[&["import", "cut.gz", "--store", &store], arguments].concat(), "");
            assert_eq!(code(&output), 1);
            stderr(&output)
        };
        let errors = import(&[]);
        let (_, place) = errors.split_once("cut.gz: the gzip data is truncated after ").expect("a place");
        assert!(
            place.contains(
                "the file ends early, or is corrupted: get the whole file, and import that. Nothing was stored"
            ),
            "{errors}"
        );
        assert_eq!(list(&directory, &store), "[]");
        let count = place.split(' ').next().unwrap();
        let errors = import(&["--skip-invalid"]);
        assert!(
            errors.contains(&format!("get the whole file, and import that. {count} documents were stored before")),
            "{errors}"
        );
        assert_eq!(list(&directory, &store).matches("_id").count().to_string(), count);
    }
}

#[cfg(feature = "compression")]
#[test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn a_corrupted_file_is_refused_and_with_skip_invalid_nothing_before_the_damage_is_vouched_for() {
    for store in persistent_stores() {
        let directory = directory();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        encoder.write_all(b"{\"_id\":1,\"price\":1001}\n{\"_id\":2}\n").unwrap();
        let mut compressed = encoder.finish().unwrap();
        let at = compressed.windows(4).position(|bytes| bytes == b"1001").unwrap();
        compressed[at] = b'9';
        std::fs::write(directory.path().join("bit.gz"), &compressed).unwrap();
        for (arguments, stored) in
            [(&[][..], "Nothing was stored"), (&["--skip-invalid"], "2 documents were stored before")]
        {
            let output = run(&directory, &[&["import", "bit.gz", "--store", &store], arguments].concat(), "");
            let errors = stderr(&output);
            assert_eq!(code(&output), 1, "{errors}");
            assert!(errors.contains("the gzip data is corrupted, which shows after 2 documents"), "{errors}");
            let says = "any value in it may be wrong, so get another copy of the file, and import that. ";
            assert!(errors.contains(&format!("{says}{stored}")), "{errors}");
        }
    }
}

#[test]
fn with_skip_invalid_a_comment_is_left_out_alone_and_another_notation_says_that_nothing_after_it_was_read() {
    let import = |text| {
        let output = run(&directory(), &["import", "-", "--store", "memory:", "--skip-invalid"], text);
        assert_eq!(code(&output), 3);
        stdout(&output) + &stderr(&output)
    };
    let said = import("// exported 2026\n{\"_id\":1}\n{\"_id\":2}\n");
    assert!(
        said.starts_with("2 documents stored in memory:, 1 skipped\nline 1, column 1: JSON has no comments"),
        "{said}"
    );
    let said = import("{'_id': 1}\n{\"_id\":2}\n");
    assert!(said.contains("0 documents stored") && said.ends_with(". Nothing after it was read\n"), "{said}");
}

#[rstest]
#[case::missing("nothing", "cannot read nothing")]
#[case::directory(".", "directory")]
fn what_cannot_be_read_is_named(#[case] file: &str, #[case] says: &str) {
    let output = run(&directory(), &["import", file, "--store", "memory:"], "");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(says), "{}", stderr(&output));
}

#[test]
fn an_empty_file_is_no_error() {
    let output = run(&directory(), &["import", "-", "--store", "memory:"], "");
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).starts_with("0 documents stored"));
}

#[test]
fn a_named_pipe_is_read_once_and_checked_all_the_same() {
    let directory = directory();
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let writer = std::thread::spawn(move || {
        std::fs::OpenOptions::new().write(true).open(pipe).unwrap().write_all(GOOD.as_bytes())
    });
    let output = run(&directory, &["import", "pipe", "--store", "memory:"], "");
    writer.join().unwrap().unwrap();
    assert!(stdout(&output).starts_with("2 documents stored"), "{}", stderr(&output));
}

#[test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn a_store_in_use_says_so_and_is_not_harmed() {
    for store in persistent_stores() {
        let directory = directory();
        let serving = Serving::start(&directory, &["--store", &store]);
        let output = run(&directory, &["import", "-", "--store", &store], GOOD);
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains("in use by another process"), "{}", stderr(&output));
        assert_eq!(serving.get("/readyz").0, 200);
    }
}

#[test]
fn standard_input_needs_a_temporary_file_only_when_it_is_large() {
    let directory = directory();
    let import = |input: &str| {
        let mut command = records(&directory, &["import", "-", "--store", "memory:"]);
        command.env("TMPDIR", directory.path().join("nowhere"));
        finish(command, input)
    };
    let output = import(GOOD);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).starts_with("2 documents stored"), "{}", stdout(&output));
    let line = |id: u64| format!("{{\"_id\": {id}, \"text\": \"{}\"}}\n", "x".repeat(1_000));
    let large: String = (0..10_000).map(line).collect();
    let output = import(&large);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("Set TMPDIR to a directory that can be written to"), "{}", stderr(&output));
    // With a temporary directory, the whole input is imported.
    let output = run(&directory, &["import", "-", "--store", "memory:"], &large);
    assert!(stdout(&output).starts_with("10000 documents stored"), "{}", stderr(&output));
}

#[test]
#[cfg_attr(not(feature = "mongodb"), ignore = "no store of this build can be away")]
fn a_store_that_is_away_is_told_of_while_the_input_goes_on() {
    let away = ["import", "-", "--skip-invalid", "--store", "mongodb://127.0.0.1:1/x", "--store-timeout", "200ms"];
    let directory = directory();
    let mut command = records(&directory, &away);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The pipe stays open until the end of the test. The input is larger than a batch.
    let mut input = child.stdin.take().unwrap();
    let lines: String = (0..20_000).map(|id| format!("{{\"_id\":{id}}}\n")).collect();
    let _ = input.write_all(lines.as_bytes());
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut errors = child.stderr.take().unwrap();
    std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut errors, &mut text).unwrap();
        sender.send(text)
    });
    let errors = receiver.recv_timeout(PATIENCE);
    let _ = child.kill();
    let status = child.wait().unwrap();
    assert!(errors.as_ref().is_ok_and(|errors| errors.contains("MongoDB")), "{errors:?}");
    assert_eq!(status.code(), Some(1));
}
