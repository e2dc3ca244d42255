//! Environment variables, and the commands that read them. `config_file.rs` tests the order of the sources.

use records::store::{BACKENDS, BackendKind};
use rstest::rstest;

use crate::support::{Serving, code, directory, finish, records, run, stderr, stdout};

/// Runs the program with these variables, and returns its exit status and its output.
fn run_with(variables: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
    let directory = directory();
    let mut command = records(&directory, arguments);
    command.envs(variables.iter().copied());
    let output = finish(command, "");
    (code(&output), stdout(&output) + &stderr(&output))
}

/// Returns the URL of a remote store, if this build has one: only such a store can have a fallback.
fn remote_url() -> Option<String> {
    BACKENDS
        .iter()
        .find(|backend| backend.kind == BackendKind::Remote)
        .map(|backend| format!("{}://127.0.0.1:1", backend.name))
}

const WRONG: &[(&str, &str)] = &[
    ("RECORDS_STORE_TIMEOUT", "wrong"),
    ("RECORDS_LOG_FORMAT", "wrong"),
    ("RECORDS_LISTEN", "wrong"),
    ("RECORDS_REQUEST_TIMEOUT", "wrong"),
    ("RECORDS_HEADER_TIMEOUT", "wrong"),
    ("RECORDS_MAX_CONNECTIONS", "wrong"),
    ("RECORDS_MAX_LIMIT", "wrong"),
    ("RECORDS_SERVER_TIMING", "wrong"),
    ("RECORDS_FALLBACK_MODE", "wrong"),
];

#[rstest]
#[case("5s")]
#[case("1h 30m")]
fn a_flag_wins_over_a_variable_that_is_wrong(#[case] time: &str) {
    let arguments = ["config", "--store", "memory:", "--store-timeout", time];
    let (status, text) = run_with(&[("RECORDS_STORE_TIMEOUT", "wrong")], &arguments);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("flag --store-timeout"), "{text}");
}

#[rstest]
#[case("RECORDS_REQUEST_TIMEOUT", "--request-timeout", "5s")]
#[case("RECORDS_LISTEN", "--listen", "127.0.0.1:1")]
#[case("RECORDS_MAX_LIMIT", "--max-limit", "5")]
#[case("RECORDS_LOG_FORMAT", "--log-format", "text")]
fn a_flag_of_any_verb_wins_over_its_variable(#[case] variable: &str, #[case] flag: &str, #[case] value: &str) {
    let (status, text) = run_with(&[(variable, "wrong")], &["config", "--store", "memory:", flag, value]);
    assert_eq!(status, 0, "{text}");
    for verb in ["config", "serve"] {
        let (status, text) = run_with(&[(variable, "wrong")], &[verb, "--store", "memory:"]);
        assert_eq!(status, 2, "{text}");
        assert!(text.contains(flag), "{text}");
    }
    let (status, text) = run_with(&[(variable, "wrong")], &["--store", "memory:"]);
    assert_eq!(status, 2, "{text}");
}

#[rstest]
#[case("RECORDS_LISTEN", "localhost", "--listen", "a host and a port, as in 127.0.0.1:8080")]
#[case("RECORDS_FALLBACK_MODE", "both", "--fallback-mode", "possible values: standby, replica")]
#[case("RECORDS_STORE_TIMEOUT", "5", "--store-timeout", "500ms, 5s or 2m")]
#[case("RECORDS_MAX_LIMIT", "many", "--max-limit", "it must be a whole number from 1 to 1000000000")]
#[case("RECORDS_REQUEST_DIRECTIVES", "true", "--request-directives", "it must be on or off")]
#[case("RECORDS_SERVER_TIMING", "maybe", "--server-timing", "it must be true or false")]
#[case("RECORDS_MAX_LIMIT", "4", "--max-limit", "RECORDS_DEFAULT_LIMIT (--default-limit) is 5")]
#[case("RECORDS_ADMIN_LISTEN", "127.0.0.1:8080", "--admin-listen", "and --listen are both")]
fn a_variable_that_is_wrong_is_named(
    #[case] variable: &str,
    #[case] value: &str,
    #[case] flag: &str,
    #[case] says: &str,
    #[values("serve", "config", "")] verb: &str,
) {
    let verb = Some(verb).filter(|verb| !verb.is_empty());
    let arguments: Vec<_> = verb.into_iter().chain(["--store", "memory:"]).collect();
    let (status, text) = run_with(&[("RECORDS_DEFAULT_LIMIT", "5"), (variable, value)], &arguments);
    assert_eq!(status, 2, "{text}");
    assert!(text.contains(&format!("{variable} ({flag}")) && text.contains(says), "{text}");
}

#[rstest]
#[case("1", true)]
#[case("on", true)]
#[case("true", true)]
#[case("0", false)]
#[case("no", false)]
fn a_switch_is_on_or_off(#[case] value: &str, #[case] on: bool) {
    let directory = directory();
    let mut command = records(&directory, &["--store", "memory:", "--seed", "none", "--listen", "127.0.0.1:0"]);
    command.env("RECORDS_SERVER_TIMING", value);
    let head = Serving::spawn(command).head("/api/v1/records/x").to_lowercase();
    assert_eq!(head.contains("server-timing"), on, "{head}");
}

#[test]
fn a_server_starts_by_its_flags_whatever_the_variables_are() {
    for verb in [&["serve"][..], &[]] {
        let directory = directory();
        let flags = ["--store", "memory:", "--request-timeout", "5s", "--listen", "127.0.0.1:0"];
        let mut command = records(&directory, &[verb, &flags].concat());
        command.env("RECORDS_REQUEST_TIMEOUT", "wrong").env("RECORDS_LISTEN", "wrong");
        assert_eq!(Serving::spawn(command).get("/livez").0, 200);
    }
}

#[test]
fn a_verb_is_not_kept_from_its_work_by_variables_of_others() {
    let serving = Serving::start(&directory(), &["--store", "memory:"]);
    let listen = serving.address.to_string();
    let (status, text) = run_with(WRONG, &["healthcheck", "--live", "--listen", &listen]);
    assert_eq!(status, 0, "{text}");
    let without: Vec<_> = WRONG.iter().filter(|(name, _)| *name != "RECORDS_LISTEN").copied().collect();
    let (status, text) = run_with(&[&without[..], &[("RECORDS_LISTEN", &listen)]].concat(), &["healthcheck"]);
    assert_eq!(status, 0, "{text}");
    assert_eq!(run_with(WRONG, &["completions", "bash"]).0, 0);
    let of_serve: Vec<_> =
        WRONG.iter().filter(|(name, _)| !name.contains("STORE") && !name.contains("LOG")).copied().collect();
    let (status, text) = run_with(&of_serve, &["import", "-", "--store", "memory:"]);
    assert_eq!(status, 0, "{text}");
    // The variables of the command itself still count.
    assert_eq!(run_with(WRONG, &["import", "-", "--store", "memory:"]).0, 2);
    assert_eq!(run_with(WRONG, &["healthcheck", "--live"]).0, 2);
}

#[test]
#[cfg_attr(not(feature = "mongodb"), ignore = "only remote stores can have a fallback")]
fn the_parts_of_a_fallback_are_variables_where_the_fallback_is_a_flag() {
    let store = remote_url().unwrap();
    let variables = [("RECORDS_FALLBACK_MODE", "replica"), ("RECORDS_FALLBACK_TIMEOUT", "100ms")];
    let (status, text) = run_with(&variables, &["config", "--store", &store, "--fallback", "memory:"]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("environment RECORDS_FALLBACK_MODE") && text.contains("flag --fallback"), "{text}");
    for verb in [&["serve"][..], &[]] {
        let directory = directory();
        let flags = ["--store", &store, "--fallback", "memory:", "--listen", "127.0.0.1:0"];
        let mut command = records(&directory, &[verb, &flags].concat());
        command.envs(variables);
        assert_eq!(Serving::spawn(command).get("/livez").0, 200);
    }
}

#[test]
#[cfg_attr(not(feature = "mongodb"), ignore = "only remote stores can have a fallback")]
fn the_fallback_is_a_variable_where_a_part_of_it_is_a_flag() {
    let store = remote_url().unwrap();
    let variables = [("RECORDS_FALLBACK", "memory:"), ("RECORDS_STORE", &store), ("RECORDS_REQUEST_TIMEOUT", "wrong")];
    let (status, text) = run_with(&variables, &["config", "--fallback-mode", "replica", "--request-timeout", "9s"]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("environment RECORDS_FALLBACK") && text.contains("flag --fallback-mode"), "{text}");
}

#[test]
fn a_flag_of_no_fallback_is_refused_and_a_variable_ignored() {
    for command in [&["serve"][..], &["config"], &[]] {
        let (status, text) = run_with(&[], &[command, &["--store", "memory:", "--fallback-mode", "replica"]].concat());
        assert_eq!(status, 2, "{text}");
        assert!(text.contains("--fallback <URL>"), "{text}");
    }
    // A deployment may set all variables, and an operator may then turn the fallback off.
    let variables = [("RECORDS_FALLBACK", ""), ("RECORDS_FALLBACK_SIZE_LIMIT", "64MiB")];
    assert_eq!(run_with(&variables, &["config", "--store", "memory:"]).0, 0);
}

#[rstest]
#[case::help(&["--help"])]
#[case::help_of_a_verb(&["config", "--help"])]
fn help_names_the_variables(#[case] arguments: &[&str]) {
    let text = stdout(&run(&directory(), arguments, ""));
    for variable in ["RECORDS_STORE]", "RECORDS_STORE_TIMEOUT]", "RECORDS_LISTEN]", "RECORDS_FALLBACK]"] {
        assert!(text.contains(variable), "the help does not name {variable}: {text}");
    }
}

#[test]
fn a_flag_before_a_command_is_refused() {
    let (status, text) = run_with(&[], &["--fallback-mode", "replica", "config", "--store", "memory:"]);
    assert_eq!(status, 2, "{text}");
    assert!(text.contains("unexpected argument 'config'"), "{text}");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let empty = ["RECORDS_LISTEN", "RECORDS_STORE", "RECORDS_MAX_LIMIT", "RECORDS_CONFIG", "RECORDS_SERVER_TIMING"];
    let variables: Vec<_> = empty.iter().map(|name| (*name, "")).collect();
    let (status, text) = run_with(&variables, &["config", "--store", "memory:"]);
    assert_eq!(status, 0, "{text}");
    assert!(!text.contains("environment"), "{text}");
}

#[rstest]
#[case::a_url("mongodb://user:hunter2@127.0.0.1:1/x")]
#[case::a_key("records_key_hunter2")]
fn a_secret_in_the_wrong_place_is_never_printed(#[case] secret: &str) {
    for name in ["STORE_FILE", "CONFIG", "API_KEYS", "SCHEMA", "LISTEN", "TLS_CERT", "FALLBACK_SAVE", "MAX_LIMIT"] {
        let variables = [(&*format!("RECORDS_{name}"), secret)];
        let (status, text) = run_with(&variables, &["serve", "--fallback", "memory:", "--tls-key", "key.pem"]);
        assert!(status == 2 && !text.contains("hunter2"), "{name}: {text}");
    }
    for arguments in [&[secret][..], &["serve", secret], &["config", secret], &["import", secret]] {
        let (status, text) = run_with(&[], arguments);
        assert!(status == 2 && !text.contains("hunter2"), "{arguments:?}: {text}");
    }
}

#[rstest]
#[case::of_a_server("mongodb://user:hunter2@127.0.0.1:1/x")]
#[case::of_no_such_store("paper://user:hunter2@127.0.0.1:1/x?y=hunter2")]
#[case::of_no_kind("user:hunter2@127.0.0.1:1")]
#[case::half_written("mongodb:user:hunter2@127.0.0.1:1?y=hunter2")]
fn a_password_in_the_fallback_is_never_printed(#[case] url: &str) {
    let store = remote_url().unwrap_or_else(|| "memory:".to_owned());
    let variables = [("RECORDS_FALLBACK", url), ("RECORDS_STORE", &store)];
    // Every command refuses the URL, or does not serve with it.
    let arguments =
        [&[][..], &["serve"], &["config"], &["config", "--fallback", url], &["config", "--listen", "nowhere"]];
    for arguments in arguments.into_iter().chain([&["--help"][..], &["serve", "--help"]]) {
        let (_, text) = run_with(&variables, arguments);
        assert!(!text.contains("hunter2"), "{arguments:?}: {text}");
    }
    // The same holds for the URL of the store.
    let (_, text) = run_with(&[], &["config", "--store", url]);
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
#[cfg_attr(not(feature = "mongodb"), ignore = "only remote stores can have a fallback")]
fn a_fallback_that_serve_refuses_is_refused_by_config_too() {
    let store = remote_url().unwrap();
    for (store, copy, more, says) in [
        (&*store, &*store, "5s", "must be in this process"),
        ("memory:", "memory:", "5s", "leave --fallback out"),
        (&*store, "memory:", "300ms", "half"),
    ] {
        for verb in ["serve", "config"] {
            let (status, text) =
                run_with(&[], &[verb, "--store", store, "--fallback", copy, "--request-timeout", more]);
            assert_eq!(status, 2, "{text}");
            assert!(text.contains(says), "{text}");
        }
    }
}
