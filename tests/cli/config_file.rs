//! `--config`: settings from a file, and which source overrides which.

use rstest::rstest;

use crate::support::{Serving, code, directory, finish, records, run, stderr, stdout};

const FILE: &str = r#"# A service of records.
store = "memory:"
max-limit = 100
default-limit = 20
request-timeout = "7s"
response-memory-limit = 1048576
cors-origin = ["https://a.example", "https://b.example"]
server-timing = true
log-format = "json"
"#;

/// Returns the line of `records config` about `flag`, without the padding of its columns.
fn line(text: &str, flag: &str) -> String {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(flag));
    line.unwrap_or_else(|| panic!("{flag} is not shown: {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_flag_overrides_a_variable_and_a_variable_the_file() {
    let directory = directory();
    std::fs::write(directory.path().join("records.toml"), FILE).unwrap();
    let mut command = records(&directory, &["config", "--config", "records.toml", "--max-limit", "300"]);
    command.env("RECORDS_MAX_LIMIT", "200").env("RECORDS_DEFAULT_LIMIT", "30");
    let output = finish(command, "");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    for expected in [
        "--config records.toml flag --config",
        "--store memory: records.toml:2",
        "--max-limit 300 flag --max-limit",
        "--default-limit 30 environment RECORDS_DEFAULT_LIMIT",
        "--request-timeout 7s records.toml:5",
        "--response-memory-limit 1048576 records.toml:6",
        "--cors-origin https://a.example,https://b.example records.toml:7",
        "--server-timing true records.toml:8",
        "--store-timeout 5s default",
    ] {
        assert_eq!(line(&text, expected.split(' ').next().unwrap()), expected);
    }
}

#[test]
fn a_server_and_its_health_check_take_their_settings_from_the_file() {
    let directory = directory();
    let text = format!("{FILE}listen = \"127.0.0.1:0\"\nseed = \"none\"\n");
    std::fs::write(directory.path().join("records.toml"), &text).unwrap();
    let mut command = records(&directory, &[]);
    command.env("RECORDS_CONFIG", "records.toml");
    let serving = Serving::spawn(command);
    assert!(serving.begin.contains("{\"timestamp\""), "{}", serving.begin);
    let head = serving.head("/api/v1/records/x").to_lowercase();
    assert!(head.contains("server-timing"), "{head}");
    std::fs::write(directory.path().join("check.toml"), format!("listen = \"{}\"", serving.address)).unwrap();
    assert_eq!(code(&run(&directory, &["healthcheck", "--config", "check.toml"], "")), 0);
    let output = run(&directory, &["import", "-", "--config", "records.toml"], r#"{"_id": 1}"#);
    assert_eq!(stdout(&output), "1 documents stored in memory:, 0 skipped\n", "{}", stderr(&output));
}

#[rstest]
#[case::an_unknown_key(
    "listen = \":80\"\nlisten-on = \":80\"",
    "records.toml:2: there is no setting `listen-on`: use one of store, "
)]
#[case::a_group("\n\n[server]\nlisten = \":80\"", "records.toml:3: there is no setting `server`")]
#[case::a_text_for_a_number(
    "max-limit = \"10\"",
    "records.toml:1: `max-limit` must be a number: it is of the type string"
)]
#[case::a_number_for_a_text("store = 10", "records.toml:1: `store` must be a string")]
#[case::a_number_for_a_time("\nrequest-timeout = 10", "records.toml:2: `request-timeout` must be a string")]
#[case::a_text_for_a_switch("server-timing = \"on\"", "records.toml:1: `server-timing` must be true or false")]
#[case::a_text_for_a_list("cors-origin = \"*\"", "records.toml:1: `cors-origin` must be an array of strings")]
#[case::numbers_in_a_list("cors-headers = [1]", "records.toml:1: `cors-headers` must be an array of strings")]
#[case::a_wrong_time(
    "# Slow.\nrequest-timeout = \"5\"",
    "records.toml:2: invalid value '5' for '--request-timeout <TIME>'"
)]
#[case::no_choice("log-format = \"xml\"", "possible values: text, json")]
#[case::too_many_threads(
    "worker-threads = 9999",
    "invalid value '9999' for '--worker-threads <NUMBER>': it must be a whole number from 1 to 1024"
)]
#[case::a_negative_limit("max-limit = -1", "it must be a whole number from 1 to 1000000000")]
#[case::the_same_twice("store = \"memory:\"\nstore = \"memory:\"", "records.toml:2: duplicate key")]
#[case::no_toml("store = \"memory:\"\nmax-limit: 10", "records.toml:2: ")]
#[case::another_file("config = \"other.toml\"", "records.toml:1: there is no setting `config`")]
#[case::a_contradiction("default-limit = 5\nmax-limit = 4", "records.toml:2 (--max-limit) is 4")]
fn a_mistake_in_the_file_is_named_with_its_line(#[case] text: &str, #[case] says: &str) {
    let directory = directory();
    std::fs::write(directory.path().join("records.toml"), text).unwrap();
    for verb in ["serve", "config"] {
        let output = run(&directory, &[verb, "--config", "records.toml"], "");
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = run(&directory(), &["--config", "nothing.toml"], "");
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("cannot read nothing.toml"), "{}", stderr(&output));
}

#[test]
fn a_store_of_a_higher_source_replaces_a_file_with_a_url() {
    let directory = directory();
    std::fs::write(directory.path().join("records.toml"), "store-file = \"nothing\"").unwrap();
    let mut command = records(&directory, &["config", "--config", "records.toml"]);
    command.env("RECORDS_STORE", "memory:");
    let output = finish(command, "");
    assert_eq!(line(&stdout(&output), "--store"), "--store memory: environment RECORDS_STORE", "{}", stderr(&output));
}

#[test]
fn a_password_in_the_file_is_never_printed() {
    let directory = directory();
    let text = "store = \"mongodb://user:hunter2@127.0.0.1:1/x\"\nmax-limit = \"wrong\"";
    std::fs::write(directory.path().join("records.toml"), text).unwrap();
    std::fs::write(directory.path().join("right.toml"), text.lines().next().unwrap()).unwrap();
    for file in ["records.toml", "right.toml"] {
        let output = run(&directory, &["config", "--config", file], "");
        assert!(!format!("{}{}", stdout(&output), stderr(&output)).contains("hunter2"));
    }
}
