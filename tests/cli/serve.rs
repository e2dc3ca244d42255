//! `records serve`: its defaults, its health check, and its end.

use std::io::Write;
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::time::Instant;

use records::store::SEED;
use records::telemetry::VERSION;
use rstest::rstest;
#[cfg(target_os = "linux")]
use tokio::signal::unix::{SignalKind, signal as catch};

#[cfg(target_os = "linux")]
use crate::support::mask_has;
use crate::support::{Serving, code, directory, finish, persistent_stores, records, run, stderr};

// A build for production has no default store: help.rs tests its message.
#[test]
#[cfg_attr(all(feature = "mongodb", not(feature = "sled")), ignore = "this build has no default store")]
fn without_any_setting_it_serves_the_sample_data() {
    let directory = directory();
    let serving = Serving::start(&directory, &[]);
    let (status, gold) = serving.get("/api/v1/records/Au");
    assert_eq!(status, 200);
    assert!(gold.starts_with(r#"{"_id":"Au","atomic number":79,"#), "{gold}");
    let list: Vec<serde_json::Value> = serde_json::from_str(&serving.get("/api/v1/records").1).unwrap();
    assert_eq!(list.len(), SEED.unwrap().lines().count());
}

#[test]
fn without_a_fallback_cache_control_of_a_request_is_ignored() {
    let directory = directory();
    let serving = Serving::start(&directory, &["--store", "memory:", "--seed", "none"]);
    for value in ["max-age=x", "only-if-cached"] {
        let answer = serving.answer("/api/v1/records/1", &format!("Cache-Control: {value}\r\n"));
        assert!(answer.starts_with("HTTP/1.0 204 "), "{value}: {answer}");
    }
}

#[test]
fn it_says_which_version_it_is() {
    let serving = Serving::start(&directory(), &["--store", "memory:"]);
    let listening = serving.begin.lines().last().unwrap();
    assert!(listening.contains(&format!(" version=\"{VERSION}\"")), "{listening}");
    let metrics = serving.get("/metrics").1;
    assert!(metrics.contains(&format!("records_build_info{{version=\"{VERSION}\"}} 1\n")), "{metrics}");
}

#[test]
fn the_verb_serve_may_be_left_out() {
    let directory = directory();
    let serving = Serving::start(&directory, &["serve", "--store", "memory:", "--seed", "none"]);
    assert_eq!(serving.get("/api/v1/records"), (200, "[]".to_owned()));
}

#[rstest]
#[cfg_attr(not(feature = "mongodb"), ignore = "other stores have no collections")]
fn a_name_that_mongodb_gives_no_collection_is_refused(#[values(".x", "a$b")] name: &str) {
    let output =
        run(&directory(), &["--store", "mongodb://127.0.0.1:1/x", "--collection", name, "--listen", "127.0.0.1:0"], "");
    let message = format!("--collection {name:?} cannot be a collection: ");
    assert!(code(&output) == 2 && stderr(&output).contains(&message), "{}", stderr(&output));
}

#[cfg(target_os = "linux")]
#[rstest]
#[case::unless_set(&[], std::thread::available_parallelism().unwrap().get())]
#[case::as_set(&["--worker-threads", "3"], 3)]
fn as_many_threads_serve(#[case] arguments: &[&str], #[case] expected: usize) {
    let directory = directory();
    // Without a seed: reading it takes an additional thread.
    let serving = Serving::start(&directory, &[&["--store", "memory:", "--seed", "none"], arguments].concat());
    assert_eq!(serving.get("/livez").0, 200);
    let workers = || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", serving.id())).unwrap();
        let names = threads.map(|one| std::fs::read_to_string(one.unwrap().path().join("comm")).unwrap_or_default());
        names.filter(|name| name.starts_with("tokio-rt-worker")).count()
    };
    // A thread sets its own name once it runs.
    let begun = Instant::now();
    while workers() < expected && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(workers(), expected);
}

#[rstest]
#[case::a_name("localhost:0", "127.0.0.1")]
#[case::every_address(":0", "127.0.0.1")]
#[case::ipv6("[::1]:0", "::1")]
fn it_listens_on_names_and_on_every_address(#[case] listen: &str, #[case] host: &str) {
    let directory = directory();
    let serving = Serving::spawn(records(&directory, &["--store", "memory:", "--listen", listen]));
    let host: std::net::IpAddr = host.parse().unwrap();
    assert_eq!(serving.get_at((host, serving.address.port()).into(), "/livez").0, 200);
    let asked = listen.replace(":0", &format!(":{}", serving.address.port()));
    let output = run(&directory, &["healthcheck", "--listen", &asked], "");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn an_empty_store_is_filled_from_the_seed_and_a_full_one_left_alone() {
    let directory = directory();
    std::fs::write(directory.path().join("one"), r#"{"_id": 1}"#).unwrap();
    std::fs::write(directory.path().join("two"), r#"{"_id": 2}"#).unwrap();
    for store in persistent_stores().iter().map(String::as_str).chain(["memory:"]) {
        let first = Serving::start(&directory, &["--store", store, "--seed", "one"]);
        assert_eq!(first.get("/api/v1/records").1, r#"[{"_id":1}]"#);
        drop(first);
        if store != "memory:" {
            let second = Serving::start(&directory, &["--store", store, "--seed", "two"]);
            assert_eq!(second.get("/api/v1/records").1, r#"[{"_id":1}]"#);
        }
    }
}

#[test]
fn a_wrong_seed_keeps_it_from_starting_and_is_named() {
    let directory = directory();
    std::fs::write(directory.path().join("seed"), "{\"_id\": 1}\n{\"_id\": }\n").unwrap();
    let output = run(&directory, &["--store", "memory:", "--seed", "seed", "--listen", "127.0.0.1:0"], "");
    assert_eq!(code(&output), 1);
    let errors = stderr(&output);
    assert!(errors.contains("the seed seed") && errors.contains("line 2, column 9"), "{errors}");
    assert!(errors.trim_end().ends_with("Correct them"), "the message names a flag that serve does not have: {errors}");
}

#[test]
fn the_health_check_follows_the_server() {
    let directory = directory();
    let serving = Serving::start(&directory, &["--store", "memory:"]);
    let listen = serving.address.to_string();
    for arguments in [&["healthcheck", "--listen", &listen][..], &["healthcheck", "--live", "--listen", &listen]] {
        let output = run(&directory, arguments, "");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    let everywhere = format!("0.0.0.0:{}", serving.address.port());
    assert_eq!(code(&run(&directory, &["healthcheck", "--listen", &everywhere], "")), 0);
    drop(serving);
    let output = run(&directory, &["healthcheck", "--listen", &listen], "");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("no answer from"), "{}", stderr(&output));
}

#[test]
fn the_health_check_does_not_wait_for_ever() {
    // The kernel accepts connections, and no server answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = silent.local_addr().unwrap().to_string();
    let late = || {
        let output = run(&directory(), &["healthcheck", "--timeout", "200ms", "--listen", &listen], "");
        assert_eq!(code(&output), 1);
        assert_eq!(stderr(&output), format!("records: no answer from {listen} within 200ms\n"));
    };
    late();
    // A server that sends one byte at a time does not prolong the wait.
    std::thread::spawn(move || {
        for mut client in silent.incoming().flatten() {
            while client.write_all(b"H").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    late();
}

#[rstest]
fn a_signal_stops_it_in_order(#[values("TERM", "INT")] signal: &str) {
    let serving = Serving::start(&directory(), &["--store", "memory:"]);
    serving.signal(signal);
    let (status, log) = serving.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_terminal_that_goes_away_stops_it_in_order() {
    // Children inherit an ignored signal; one that is caught has its default action in them.
    let _caught = catch(SignalKind::hangup()).unwrap();
    let serving = Serving::start(&directory(), &["--store", "memory:"]);
    serving.signal("HUP");
    let (status, log) = serving.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[cfg(target_os = "linux")]
#[test]
fn one_that_was_started_to_survive_its_terminal_does() {
    let directory = directory();
    let program = records(&directory, &["--store", "memory:", "--listen", "127.0.0.1:0"]);
    // Ignores SIGHUP like `nohup`.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(program.get_program()).args(program.get_args());
    let serving = Serving::spawn(command);
    assert!(mask_has(serving.id(), "SigIgn", SignalKind::hangup()), "the server handles SIGHUP");
    serving.signal("HUP");
    assert_eq!(serving.get("/readyz").0, 200);
    serving.signal("TERM");
    assert_eq!(serving.wait().0.code(), Some(0));
}

#[test]
fn a_second_signal_stops_it_at_once() {
    let serving = Serving::start(&directory(), &["--store", "memory:", "--drain-delay", "1h"]);
    serving.signal("TERM");
    while serving.get("/readyz").0 == 200 {}
    serving.signal("TERM");
    assert_eq!(serving.wait().0.code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_said_to_be_that() {
    let directory = directory();
    let serving = Serving::start(&directory, &["--store", "memory:"]);
    for store in persistent_stores().iter().map(String::as_str).chain(["memory:"]) {
        for setting in ["--listen", "--admin-listen"] {
            let mut command = records(&directory, &["--store", store, setting, &serving.address.to_string()]);
            if setting != "--listen" {
                command.args(["--listen", "127.0.0.1:0"]);
            }
            let output = finish(command, "");
            assert_eq!(code(&output), 1);
            assert!(stderr(&output).contains(&format!("({setting})")), "{}", stderr(&output));
            assert!(!directory.path().join("data").exists(), "the process has created a store that it does not serve");
        }
    }
}

#[test]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn a_directory_of_something_else_is_refused_and_left_alone() {
    for store in persistent_stores() {
        let directory = directory();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("letter.txt"), "Dear reader").unwrap();
        let output = run(&directory, &["--store", &store], "");
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains("is not a records store"), "{}", stderr(&output));
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(data.join("letter.txt")).unwrap(), "Dear reader");
    }
}

/// Returns every file below a directory.
fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Returns the contents of all files, without empty ones such as locks.
fn contents(directory: &std::path::Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let read = files(directory).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap()));
    read.filter(|(path, _)| !path.ends_with("LOCK")).collect()
}

#[rstest]
#[case::a_byte(|bytes: &mut Vec<u8>| { let at = bytes.len() / 2; bytes[at] ^= 0xff; })]
#[case::a_stretch(|bytes: &mut Vec<u8>| { let quarter = bytes.len() / 4; bytes[quarter..quarter * 2].fill(0xa5); })]
#[case::its_beginning(|bytes: &mut Vec<u8>| bytes[..64].fill(0))]
#[case::cut_in_half(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2))]
#[case::emptied(|bytes: &mut Vec<u8>| bytes.clear())]
#[cfg_attr(not(feature = "sled"), ignore = "this build has no store on disk")]
fn a_damaged_directory_is_said_to_be_that_and_left_as_it_was(#[case] damage: fn(&mut Vec<u8>)) {
    for store in persistent_stores() {
        let directory = directory();
        let output = run(&directory, &["import", "-", "--store", &store], SEED.unwrap());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let data = directory.path().join("data");
        let largest = files(&data).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let mut bytes = std::fs::read(&largest).unwrap();
        damage(&mut bytes);
        std::fs::write(&largest, &bytes).unwrap();
        let before = contents(&data);
        for _ in 0..2 {
            let output = run(&directory, &["--store", &store, "--listen", "127.0.0.1:0"], "");
            assert_eq!(code(&output), 1, "{}", stderr(&output));
            assert!(stderr(&output).contains("is damaged"), "{}", stderr(&output));
        }
        assert!(before == contents(&data), "the directory was changed");
    }
}
