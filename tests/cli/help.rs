//! Texts for people: help, versions, and messages about mistakes. They never show a password.

use records::store::{BACKENDS, BackendKind};
use records::telemetry::VERSION;
use rstest::rstest;

use crate::support::{code, directory, finish, records, run, stderr, stdout};

#[test]
fn help_names_every_verb_and_every_setting() {
    let output = run(&directory(), &["--help"], "");
    let text = stdout(&output);
    assert_eq!(code(&output), 0);
    for word in [
        "serve",
        "import",
        "healthcheck",
        "completions",
        "man",
        "--store",
        "--listen",
        "--admin-listen",
        "--seed",
        "--collection",
        "--fallback",
        "RECORDS_FALLBACK_MAX_AGE",
        "RECORDS_STORE",
        "RECORDS_STORE_FILE",
        "RECORDS_LISTEN",
        "RECORDS_SEED",
        "RECORDS_LOG",
        "sled:",
        "mongodb://",
    ] {
        assert!(text.contains(word), "--help does not name {word}");
    }
}

#[test]
fn short_help_fits_a_screen_with_the_ten_settings_that_matter() {
    let directory = directory();
    for (arguments, columns, lines) in [(&["-h"][..], 100, 30), (&["-h"], 80, 40), (&["serve", "-h"], 80, 40)] {
        let mut command = records(&directory, arguments);
        command.env("COLUMNS", columns.to_string());
        let text = stdout(&finish(command, ""));
        let fits = text.lines().count() <= lines && text.lines().all(|line| line.chars().count() <= columns);
        assert!(fits, "{text}");
        let settings = text.lines().filter(|line| line.starts_with("      --"));
        assert_eq!(settings.count(), 10, "{text}");
        assert!(!text.contains("--drain-delay"), "{text}");
    }
}

#[test]
fn help_of_import_says_what_the_exit_status_means() {
    let output = run(&directory(), &["import", "--help"], "");
    assert!(stdout(&output).contains("Exit status") && stdout(&output).contains("--skip-invalid"));
}

#[test]
fn the_version_is_printed() {
    let output = run(&directory(), &["--version"], "");
    assert_eq!(stdout(&output), format!("records {VERSION}\n"));
}

#[test]
fn the_manual_page_has_every_setting() {
    let output = run(&directory(), &["man"], "");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let page = stdout(&output).replace("\\-", "-");
    assert!(page.contains(".TH records 1"), "{page}");
    let settings = records::config::settings();
    for setting in settings.get_arguments().filter_map(|argument| argument.get_long()) {
        let heading = format!("\\fB--{setting}\\fR");
        let help = page.lines().skip_while(|line| !line.starts_with(&heading)).nth(1).unwrap_or_default();
        assert!(help.starts_with(char::is_alphanumeric), "{setting} has no help in {page}");
    }
}

#[rstest]
fn completions_are_printed_for_every_shell(#[values("bash", "zsh", "fish", "elvish", "powershell")] shell: &str) {
    let output = run(&directory(), &["completions", shell], "");
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("healthcheck"));
}

#[rstest]
#[case::unknown_flag(&["--colour"], 2, "--colour")]
#[case::unknown_verb(&["sing"], 2, "sing")]
#[case::what_may_be_a_password(&["--store", "hunter2@host:27017"], 2, "a store is named by a URL")]
#[case::of_another_kind(&["--store", "sled+file:x"], 2, "there is no \"sled+file\" store")]
#[case::unknown_store(&["--store", "ftp://host/x"], 2, "there is no \"ftp\" store: use one of memory:")]
#[case::no_url(&["--store", "somewhere"], 2, "a store is named by a URL")]
#[case::quoted(&["--store", "'memory:'"], 2, "a store is named by a URL, without quotation marks around it")]
#[case::a_name_for_memory(&["--store", "memory:mine"], 2, "memory:")]
#[case::address_without_port(&["--listen", "127.0.0.1"], 2, "--listen")]
#[case::time_without_unit(&["--request-timeout", "5"], 2, "500ms, 5s or 2m")]
#[case::a_time_without_end(&["--fallback", "memory:", "--fallback-timeout", "10000000000000000000s"], 2, "a year at most")]
#[case::a_limit_without_end(&["--max-limit", "18446744073709551615"], 2, "from 1 to 1000000000")]
#[case::no_time(&["--request-timeout", "0s"], 2, "longer than nothing")]
#[case::no_connections(&["--max-connections", "0"], 2, "from 1 to 1000000")]
#[case::no_threads(&["--worker-threads", "0"], 2, "from 1 to 1024")]
#[case::requests_to_log(&["--access-log", "some"], 2, "possible values: all, errors, off")]
#[case::log_filter(&["--store", "memory:", "--log", "records=loud"], 2, "log filter")]
#[case::origin_with_a_default_port(&["--store", "memory:", "--cors-origin", "https://a.example:443"], 2, "write it as in https://a.example")]
#[case::log_level(&["--store", "memory:", "--log", "warning"], 2, "\"warning\" is no level: use off, error, warn, info, debug or trace")]
#[case::seed_that_is_not_there(&["--store", "memory:", "--seed", "nothing.jsonl"], 1, "nothing.jsonl")]
#[case::address_of_another_machine(&["--store", "memory:", "--listen", "192.0.2.1:1"], 1, "cannot listen on 192.0.2.1:1")]
#[case::address_of_no_machine(&["--store", "memory:", "--listen", "nowhere.invalid:1"], 1, "cannot listen on nowhere.invalid:1 (--listen)")]
#[case::address_without_brackets(&["--listen", "::1:8080"], 2, "[::1]:8080")]
#[case::a_size_of_nothing(&["--response-memory-limit", "0"], 2, "64MiB")]
#[case::a_size_in_no_unit(&["--response-memory-limit", "64 apples"], 2, "64MiB")]
#[case::a_size_below_nothing(&["--response-memory-limit=-1MiB"], 2, "--response-memory-limit")]
#[case::more_memory_than_there_is(&["--store", "memory:", "--response-memory-limit", "1PiB"], 2, "1.0 PiB for responses + ")]
#[case::fallback_of_a_store_here(&["--store", "memory:", "--fallback", "memory:"], 2, "leave --fallback out")]
#[case::fallback_of_no_kind(&["--store", "memory:", "--fallback", "memory:", "--fallback-mode", "both"], 2, "possible values: standby, replica")]
#[case::fallback_of_no_size(&["--store", "memory:", "--fallback", "memory:", "--fallback-size-limit", "0"], 2, "--fallback-size-limit")]
#[case::part_of_no_fallback(&["--store", "memory:", "--fallback-mode", "replica"], 2, "--fallback <URL>")]
#[case::file_with_the_url_not_there(&["--store-file", "nothing"], 2, "nothing")]
fn a_mistake_is_named_in_words_that_say_what_to_do(
    #[case] arguments: &[&str],
    #[case] status: i32,
    #[case] says: &str,
) {
    let output = run(&directory(), arguments, "");
    assert_eq!(code(&output), status, "{}", stderr(&output));
    assert!(stderr(&output).contains(says), "{}", stderr(&output));
}

#[rstest]
#[case::not_here(&["--fallback", "{url}"], 2, "must be in this process")]
#[case::of_no_such_store(&["--fallback", "paper:"], 2, "there is no \"paper\" store")]
#[case::a_name_for_memory(&["--fallback", "memory:mine"], 2, "memory:")]
#[case::of_more_than_fits(&["--fallback", "memory:", "--fallback-size-limit", "1PiB"], 2, "2.25 × 1.0 PiB for the replica + ")]
#[case::from_an_address(&["--fallback", "memory:", "--fallback-from", "127.0.0.1:9090"], 2, "write http://127.0.0.1:9090 for")]
#[case::without_time_to_answer(&["--fallback", "memory:", "--fallback-timeout", "3s", "--request-timeout", "5s"], 2, "half")]
#[cfg_attr(not(feature = "mongodb"), ignore = "only remote stores can have a fallback")]
fn a_mistake_about_the_fallback_is_named(#[case] arguments: &[&str], #[case] status: i32, #[case] says: &str) {
    for backend in BACKENDS.iter().filter(|backend| backend.kind == BackendKind::Remote) {
        let url = format!("{}://127.0.0.1:1", backend.name);
        let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace("{url}", &url)).collect();
        let arguments: Vec<&str> = ["--store", &url].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let output = run(&directory(), &arguments, "");
        assert_eq!(code(&output), status, "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}

#[rstest]
#[cfg_attr(feature = "sled", ignore = "this build has the store")]
#[case::sled("sled")]
#[cfg_attr(feature = "mongodb", ignore = "this build has the store")]
#[case::mongodb("mongodb")]
fn a_store_that_is_not_compiled_in_says_how_to_get_it(#[case] name: &str) {
    let output = run(&directory(), &["--store", &format!("{name}://x")], "");
    let expected = format!("this build has no {name} store: rebuild with --features {name}");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
}

#[test]
#[cfg_attr(any(feature = "sled", not(feature = "mongodb")), ignore = "this build has a default store")]
fn a_build_for_production_does_not_start_without_a_store() {
    let output = run(&directory(), &[], "");
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("RECORDS_STORE"), "{}", stderr(&output));
}

#[test]
fn two_names_for_the_store_are_one_too_many_unless_one_is_a_flag() {
    let directory = directory();
    std::fs::write(directory.path().join("url"), "memory:\n").unwrap();
    let mut both = records(&directory, &["import", "-"]);
    both.env("RECORDS_STORE", "memory:").env("RECORDS_STORE_FILE", "url");
    let output = finish(both, "");
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("named twice"));
    let mut flag = records(&directory, &["import", "-", "--store", "memory:"]);
    flag.env("RECORDS_STORE_FILE", "nothing");
    assert_eq!(code(&finish(flag, "")), 0);
}

#[test]
fn the_stores_url_comes_out_of_a_file_too() {
    let directory = directory();
    std::fs::write(directory.path().join("url"), "memory:\n").unwrap();
    let mut command = records(&directory, &["import", "-"]);
    command.env("RECORDS_STORE_FILE", "url").env("RECORDS_STORE", "");
    assert_eq!(code(&finish(command, r#"{"_id": 1}"#)), 0);
}

#[rstest]
#[case("mongodb://user:hunter2@127.0.0.1:1/records")]
#[case("mongodb://user:hunter2@127.0.0.1:no-port/records")]
#[case("mongodb://user:hunter2/x@127.0.0.1/records")]
#[case("mongodb://user:hunter2@h@127.0.0.1/records?what=hunter2")]
#[case("mongodb://127.0.0.1/records?authMechanism=hunter2")]
#[case("postgres://user:hunter2@127.0.0.1/records")]
#[case("user:hunter2@127.0.0.1")]
fn a_password_is_never_printed(#[case] url: &str) {
    let directory = directory();
    for arguments in [&["import", "-", "--store-timeout", "200ms"][..], &["--help"], &["--listen", "nowhere"]] {
        let mut command = records(&directory, arguments);
        command.env("RECORDS_STORE", url).env("RECORDS_LOG", "trace");
        let output = finish(command, r#"{"_id": 1}"#);
        assert!(!stdout(&output).contains("hunter2"), "{}", stdout(&output));
        assert!(!stderr(&output).contains("hunter2"), "{}", stderr(&output));
    }
}

#[test]
#[cfg_attr(not(feature = "mongodb"), ignore = "this build has no store that can be away")]
fn a_password_of_a_sibling_is_refused_and_not_printed() {
    let directory = directory();
    let store = ["--store", "mongodb://127.0.0.1:1/records", "--fallback", "memory:"];
    let arguments = [&store[..], &["--fallback-from", "http://user:hunter2@sibling:9090"]].concat();
    let output = finish(records(&directory, &arguments), "");
    assert_ne!(code(&output), 0);
    let error = stderr(&output);
    assert!(error.contains("--fallback-from: http://***@sibling:9090: it must be"), "{error}");
}

#[rstest]
#[case::without_a_port(
    "http://sibling",
    Some("it has no port: it must be the admin address of siblings, as in http://records-siblings:9090")
)]
#[case::in_capitals("HTTP://sibling:9090", None)]
#[case::by_tls("HTTPS://sibling:9090", Some("the admin address has no TLS"))]
#[cfg_attr(not(feature = "mongodb"), ignore = "this build has no store that can be away")]
fn the_url_of_a_sibling_is_checked(#[case] from: &str, #[case] says: Option<&str>) {
    let store =
        ["config", "--store", "mongodb://127.0.0.1:1/records", "--fallback", "memory:", "--fallback-from", from];
    let output = run(&directory(), &store, "");
    let error = stderr(&output);
    match says {
        None => assert_eq!(code(&output), 0, "{error}"),
        Some(says) => assert!(code(&output) == 2 && error.contains(says), "{error}"),
    }
}

#[test]
#[cfg_attr(feature = "tls", ignore = "this build has TLS")]
fn a_build_without_tls_does_not_serve_http_in_its_place() {
    let directory = directory();
    let start = |flags: &[&str], variables: &[(&str, &str)]| {
        let arguments = [&["--store", "memory:", "--listen", "127.0.0.1:0"], flags].concat();
        let mut command = records(&directory, &arguments);
        command.envs(variables.iter().copied());
        let output = finish(command, "");
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains("rebuild with --features tls"), "{}", stderr(&output));
    };
    start(&["--tls-cert", "tls.crt", "--tls-key", "tls.key"], &[]);
    start(&[], &[("RECORDS_TLS_CERT", "tls.crt"), ("RECORDS_TLS_KEY", "tls.key")]);
}

#[test]
#[cfg_attr(feature = "jwt", ignore = "this build reads tokens")]
fn a_build_without_tokens_does_not_serve_everyone_in_their_place() {
    let directory = directory();
    let mut command = records(&directory, &["--store", "memory:", "--listen", "127.0.0.1:0"]);
    command.envs([("RECORDS_JWT_JWKS", "keys.json"), ("RECORDS_JWT_ISSUER", "a"), ("RECORDS_JWT_AUDIENCE", "b")]);
    let output = finish(command, "");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("rebuild with --features jwt"), "{}", stderr(&output));
}
