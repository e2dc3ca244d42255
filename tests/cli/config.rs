//! `records config`: the value and the source of each setting.

use std::fs;

use records::store::{BACKENDS, BackendKind};
use rstest::rstest;

use crate::support::{Serving, code, directory, finish, persistent_stores, records, run, stderr, stdout};

/// Returns the value and the source of a setting.
fn setting(text: &str, flag: &str) -> (String, String) {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(flag));
    let line = line.unwrap_or_else(|| panic!("{flag} is not shown: {text}"));
    let parts: Vec<_> = line.split("  ").map(str::trim).filter(|part| !part.is_empty()).collect();
    (parts[1].to_owned(), parts[2].to_owned())
}

#[test]
fn each_setting_is_shown_with_where_it_comes_from() {
    let directory = directory();
    let mut command =
        records(&directory, &["config", "--store", "memory:", "--max-limit", "100", "--listen", "127.0.0.1:1"]);
    command.env("RECORDS_DEFAULT_LIMIT", "10").env("RECORDS_LISTEN", "127.0.0.1:2");
    let output = finish(command, "");
    let text = stdout(&output);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for (flag, value, source) in [
        ("--store", "memory:", "flag --store"),
        ("--max-limit", "100", "flag --max-limit"),
        ("--default-limit", "10", "environment RECORDS_DEFAULT_LIMIT"),
        ("--listen", "127.0.0.1:1", "flag --listen"),
        ("--admin-listen", "-", "default"),
        ("--cache-control", "no-cache", "default"),
        ("--cors-origin", "-", "default"),
        ("--collection", "records", "default"),
        ("--request-timeout", "10s", "default"),
        ("--log", "info", "default"),
    ] {
        assert_eq!(setting(&text, flag), (value.to_owned(), source.to_owned()), "{text}");
    }
}

#[test]
fn a_secret_is_hidden_wherever_it_comes_from() {
    let url = "mongodb://user:hunter2@127.0.0.1/shop?authSource=admin";
    let directory = directory();
    fs::write(directory.path().join("url"), url).unwrap();
    let mut of_environment = records(&directory, &["config"]);
    of_environment.env("RECORDS_STORE", url);
    for (command, source) in [
        (records(&directory, &["config", "--store", url]), "flag --store"),
        (records(&directory, &["config", &format!("--store={url}")]), "flag --store"),
        (of_environment, "environment RECORDS_STORE"),
        (records(&directory, &["config", "--store-file", "url"]), "file url"),
    ] {
        let output = finish(command, "");
        let text = stdout(&output);
        if !BACKENDS.iter().any(|backend| backend.name == "mongodb") {
            assert!(!stderr(&output).contains("hunter2") && code(&output) == 2, "{}", stderr(&output));
            continue;
        }
        assert_eq!(setting(&text, "--store"), ("mongodb://***@127.0.0.1/shop".to_owned(), source.to_owned()));
        assert!(!format!("{text}{}", stderr(&output)).contains("hunter2"), "{text}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for arguments in [["--default-limit", "5", "--max-limit", "4"], ["--max-limit", "0", "--max-requests", "1"]] {
        for verb in ["serve", "config"] {
            let output = run(&directory(), &[&[verb, "--store", "memory:"], &arguments[..]].concat(), "");
            assert_eq!(code(&output), 2, "{}", stderr(&output));
            assert!(stderr(&output).contains("--max-limit"), "{}", stderr(&output));
        }
    }
}

#[test]
fn settings_that_http_cannot_use_are_refused_at_start() {
    for (flag, value) in [
        ("--cors-origin", "example.com"),
        ("--cors-headers", "x-tenant,not a name"),
        ("--cache-control", "a\nb"),
        ("--public-url", "example.com/shop"),
        ("--schema", "nothing.json"),
    ] {
        for verb in ["serve", "config"] {
            let output = run(&directory(), &[verb, "--store", "memory:", flag, value], "");
            // The name of a file may be right though the file is missing.
            assert_eq!(code(&output), if flag == "--schema" { 1 } else { 2 }, "{}", stderr(&output));
            assert!(stderr(&output).contains(flag), "{}", stderr(&output));
        }
    }
}

#[rstest]
#[case::no_such_store(&["--store", "redis://x"], 2, "there is no \"redis\" store")]
#[case::a_name_for_memory(&["--store", "memory:mine"], 2, "a memory store has no name")]
#[case::no_seed(&["--store", "memory:", "--seed", "nothing"], 1, "cannot read the seed nothing")]
#[case::a_seed_that_is_none(&["--store", "memory:", "--seed", "."], 1, "cannot read the seed .")]
fn what_serve_refuses_config_refuses_in_the_same_words(
    #[case] arguments: &[&str],
    #[case] status: i32,
    #[case] says: &str,
) {
    let refused = ["serve", "config"].map(|verb| {
        let output = run(&directory(), &[&[verb], arguments].concat(), "");
        assert_eq!((code(&output), stdout(&output).as_str()), (status, ""), "{}", stderr(&output));
        stderr(&output)
    });
    assert!(refused[0].contains(says), "{}", refused[0]);
    assert_eq!(refused[0], refused[1]);
}

#[test]
fn urls_are_checked_by_those_who_would_open_them() {
    let refused = |arguments: &[&str], says: &str| {
        for verb in ["serve", "config"] {
            let directory = directory();
            std::fs::create_dir(directory.path().join("letters")).unwrap();
            std::fs::write(directory.path().join("letters/one"), "Dear reader").unwrap();
            let output = run(&directory, &[&[verb], arguments].concat(), "");
            assert_eq!(code(&output), 2, "{}", stderr(&output));
            assert!(stderr(&output).contains(says), "{}", stderr(&output));
        }
    };
    for backend in BACKENDS {
        match backend.kind {
            BackendKind::InMemory => {}
            BackendKind::Local => {
                refused(&["--store", &format!("{}:", backend.name)], "names no directory");
                refused(&["--store", &format!("{}:letters", backend.name)], "is not a records store");
            }
            BackendKind::Remote => {
                refused(&["--store", &format!("{}://u:p@ss@h/x?foo=bar", backend.name)], "the MongoDB URI is wrong");
                let url = format!("{}://127.0.0.1:1", backend.name);
                refused(&["--store", &url, "--fallback", "memory:mine"], "a memory store has no name");
                for collection in [".a", "a$b"] {
                    refused(&["--store", &url, "--collection", collection], "cannot be a collection");
                }
                for local in BACKENDS.iter().filter(|backend| backend.kind == BackendKind::Local) {
                    let letters = format!("{}:letters", local.name);
                    refused(
                        &["--store", &url, "--fallback", &letters],
                        "holds \"one\", which is no part of a fallback replica",
                    );
                }
                refused(&["--store", &url, "--seed", "letters/one"], "--seed has no effect with ");
            }
        }
    }
}

/// The arguments of a store that is away, with a fallback that is saved.
fn saved_in<'a>(verb: &'a str, file: &'a str) -> [&'a str; 7] {
    [verb, "--store", "mongodb://127.0.0.1:1", "--fallback", "memory:", "--fallback-save", file]
}

#[rstest]
#[case::of_a_person("letter.txt", "it is another file and would be overwritten")]
#[case::no_file(".", "it is not a file")]
#[case::in_no_directory("no/such/replica.bson", "No such file")]
#[case::below_a_file("letter.txt/replica.bson", "Not a directory")]
#[cfg_attr(not(feature = "mongodb"), ignore = "this build has no store that can be away")]
fn a_replica_is_not_saved_where_something_else_is(#[case] file: &str, #[case] says: &str) {
    let directory = directory();
    let letter = directory.path().join("letter.txt");
    fs::write(&letter, "Dear reader").unwrap();
    for verb in ["serve", "config"] {
        let output = run(&directory, &saved_in(verb, file), "");
        let error = stderr(&output);
        assert_eq!(code(&output), 2, "{error}");
        assert!(
            error.contains(&format!("cannot save the fallback replica in {file}: ")) && error.contains(says),
            "{error}"
        );
    }
    assert_eq!(fs::read_to_string(&letter).unwrap(), "Dear reader");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
#[cfg_attr(not(feature = "mongodb"), ignore = "this build has no store that can be away")]
fn a_file_that_has_the_name_of_a_new_version_is_left_as_it_is() {
    let directory = directory();
    let letter = directory.path().join("replica.bson.new");
    fs::write(&letter, "Dear reader").unwrap();
    let output = run(&directory, &saved_in("serve", "replica.bson"), "");
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("replica.bson.new, which is another file"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&letter).unwrap(), "Dear reader");
    // A loss of power may leave this of a version that was being written.
    for left in [&[0; 300][..], b""] {
        fs::write(&letter, left).unwrap();
        let arguments = saved_in("serve", "replica.bson");
        Serving::start(&directory, &arguments);
        assert!(!letter.exists());
    }
    assert!(std::process::Command::new("mkfifo").arg(&letter).status().unwrap().success());
    let output = run(&directory, &saved_in("serve", "replica.bson"), "");
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}

#[rstest]
#[case("replica/saved.bson")]
#[case("./replica/1/saved.bson")]
#[cfg_attr(not(all(feature = "mongodb", feature = "sled")), ignore = "this build has no replica in a directory")]
fn a_replica_is_not_saved_in_its_own_directory(#[case] file: &str) {
    let directory = directory();
    for verb in ["serve", "config"] {
        let fallback = ["--fallback", "sled:replica", "--fallback-save", file];
        let output = run(&directory, &[&[verb, "--store", "mongodb://127.0.0.1:1"][..], &fallback].concat(), "");
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains("holds the replica itself"), "{}", stderr(&output));
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
#[cfg_attr(not(feature = "mongodb"), ignore = "this build has no store that can be away")]
fn a_replica_is_saved_in_a_new_file_or_one_that_was_saved_before() {
    let directory = directory();
    fs::write(directory.path().join("empty.bson"), "").unwrap();
    // The next format may begin like this.
    fs::write(directory.path().join("saved.bson"), b"\x12\0\0\0\x10replica\0\x09\0\0\0\0 and so on").unwrap();
    for file in ["new.bson", "empty.bson", "saved.bson"] {
        let output = run(&directory, &saved_in("config", file), "");
        assert_eq!(code(&output), 0, "{file}: {}", stderr(&output));
    }
}

/// A user that may write everywhere may not write there.
#[test]
#[cfg(target_os = "linux")]
#[cfg_attr(not(feature = "mongodb"), ignore = "this build has no store that can be away")]
fn a_directory_in_which_no_replica_can_be_saved_is_refused_at_start() {
    let output = run(&directory(), &saved_in("serve", "/proc/replica.bson"), "");
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    let says = "cannot save the fallback replica in /proc/replica.bson: no file can be made in its directory";
    assert!(stderr(&output).contains(says), "{}", stderr(&output));
}

#[test]
fn config_makes_nothing_and_waits_for_nobody() {
    let directory = directory();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for store in persistent_stores().iter().map(String::as_str).chain(["memory:"]) {
        let output = run(&directory, &["config", "--store", store, "--seed", "pipe"], "");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    // With a remote store, the seed is not read.
    for backend in BACKENDS.iter().filter(|backend| backend.kind == BackendKind::Remote) {
        let url = format!("{}://127.0.0.1:1", backend.name);
        let mut command = records(&directory, &["config", "--store", &url]);
        command.env("RECORDS_SEED", "nothing");
        let output = finish(command, "");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[rstest]
#[case("0.0.0.0:8099", "127.0.0.1:8099", true)]
#[case(":8099", "127.0.0.1:8099", true)]
#[case("[::]:8099", "0.0.0.0:8099", true)]
#[case("localhost:8099", "0.0.0.0:8099", true)]
#[case("127.0.0.1:8099", "127.0.0.2:8099", false)]
#[case("0.0.0.0:8099", "127.0.0.1:8098", false)]
#[case("0.0.0.0:8099", "[::1]:8099", false)]
#[case("0.0.0.0:0", "127.0.0.1:0", false)]
fn two_addresses_that_overlap_are_refused_in_either_order(
    #[case] one: &str,
    #[case] other: &str,
    #[case] overlap: bool,
) {
    for (listen, admin) in [(one, other), (other, one)] {
        let output =
            run(&directory(), &["config", "--store", "memory:", "--listen", listen, "--admin-listen", admin], "");
        let says = format!("--admin-listen {admin} and --listen {listen} overlap: give one of them another port");
        assert_eq!((code(&output), stderr(&output).contains(&says)), (if overlap { 2 } else { 0 }, overlap));
    }
}

#[test]
fn a_filter_that_is_none_is_refused_at_start() {
    for verb in ["serve", "config"] {
        let output = run(&directory(), &[verb, "--store", "memory:", "--log", "records=loud"], "");
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains("records=loud"), "{}", stderr(&output));
    }
}

#[test]
fn what_is_set_to_nothing_is_not_set() {
    let directory = directory();
    let config = |variables: &[(&str, &str)]| {
        let mut command = records(&directory, &["config", "--store", "memory:"]);
        command.envs(variables.iter().copied());
        let output = finish(command, "");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        stdout(&output)
    };
    // All variables that the help names.
    let help = stdout(&run(&directory, &["--help"], ""));
    let names = help.split("[env:").skip(1).map(|text| text.trim_start().split(['=', ']']).next().unwrap());
    let empty: Vec<_> = names.map(|name| (name, "")).collect();
    assert!(empty.len() > 25 && empty.contains(&("RECORDS_SERVER_TIMING", "")), "{empty:?}");
    assert_eq!(config(&empty), config(&[]));
    let mut command = records(&directory, &["--store", "memory:", "--listen", "127.0.0.1:0"]);
    command.envs(empty);
    assert_eq!(Serving::spawn(command).get("/api/v1/records/x").0, 204);
}

#[test]
fn what_is_typed_is_something() {
    for flag in ["--store", "--store-file", "--collection", "--log", "--seed", "--fallback", "--listen", "--max-limit"]
    {
        let output = run(&directory(), &["config", flag, ""], "");
        assert_eq!(code(&output), 2, "{flag}: {}", stderr(&output));
        assert!(stderr(&output).contains(flag), "{}", stderr(&output));
    }
}

#[rstest]
#[case(&[], Some("no-cache"))]
#[case(&["--cache-control", "none"], None)]
#[case(&["--cache-control", ""], None)]
fn there_may_be_no_cache_control(#[case] arguments: &[&str], #[case] expected: Option<&str>) {
    let directory = directory();
    fs::write(directory.path().join("seed"), r#"{"_id": 1}"#).unwrap();
    let serving = Serving::start(&directory, &[&["--store", "memory:", "--seed", "seed"], arguments].concat());
    let head = serving.head("/api/v1/records/1").to_lowercase();
    let sent = head.lines().find_map(|line| line.strip_prefix("cache-control: "));
    assert_eq!(sent, expected, "{head}");
}

#[test]
fn the_server_keeps_to_its_settings() {
    let directory = directory();
    fs::write(directory.path().join("seed"), (1..=5).map(|id| format!("{{\"_id\": {id}}}\n")).collect::<String>())
        .unwrap();
    let serving = Serving::start(&directory, &["--store", "memory:", "--seed", "seed", "--max-limit", "3"]);
    let (status, body) = serving.get("/api/v1/records");
    let list: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
    assert_eq!((status, list.len()), (200, 3));
    assert_eq!(serving.get("/api/v1/records?limit=4").0, 400);
}

#[test]
#[cfg_attr(not(feature = "mongodb"), ignore = "this build reads no such URI")]
fn options_of_a_uri_that_are_ignored_are_named() {
    let url = "mongodb://acct:hunter2@acct.example:10255/x?ssl=true&appName=@acct@&compressors=zstd";
    let output = run(&directory(), &["config", "--store", url], "");
    let text = stdout(&output);
    assert_eq!(setting(&text, "--store").0, "mongodb://***@acct.example:10255/x");
    let says = "an option of the MongoDB URI: compressors is ignored: this build talks to MongoDB without compression";
    assert!(stderr(&output).contains(says), "{}", stderr(&output));
}
