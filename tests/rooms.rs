//! The rules of the house, as far as a search can see them: who may name what. `src/lib.rs` says why.

use std::fs;
use std::path::{Path, PathBuf};

use rstest::rstest;

/// The Rust files below `src/`, by their path from there, without their unit tests.
fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    let name = |path: &Path| path.strip_prefix(&src).unwrap().display().to_string();
    let code = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let text = text.split("\n#[cfg(test)]").next().unwrap().to_owned();
        // What comments and documents say of other rooms is no import.
        let text = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let each = ungrouped(&text);
        text + &each
    };
    files.iter().map(|path| (name(path), code(path))).filter(|(name, _)| !name.ends_with("tests.rs")).collect()
}

/// What is imported in groups, one by one: `use crate::{query, store::Error}` names `crate::query` and `crate::store::Error`.
fn ungrouped(code: &str) -> String {
    let mut each = String::new();
    for root in ["crate", "std"] {
        for group in code.split(&format!("{root}::{{")).skip(1) {
            let (mut depth, mut name) = (0, String::new());
            for character in group.chars() {
                depth += i32::from(character == '{') - i32::from(character == '}');
                if depth < 0 || (depth == 0 && character == ',') {
                    each += &format!("\n{root}::{}", name.trim());
                    name.clear();
                } else {
                    name.push(character);
                }
                if depth < 0 {
                    break;
                }
            }
        }
    }
    each
}

#[test]
fn an_import_in_a_group_is_seen_too() {
    let each = ungrouped("use std::{\n    env,\n    io::{self, Read},\n};\nuse crate::{query, store};\n");
    assert_eq!(each, "\ncrate::query\ncrate::store\nstd::env\nstd::io::{self, Read}\nstd::");
}

#[rstest]
#[case::features_are_asked_for_where_they_are_the_matter("feature =", &["store/mod.rs", "http/compress.rs", "http/pages.rs", "telemetry/spans/mod.rs"])]
#[case::the_environment_is_read_in_one_place("env = \"", &["config/flags.rs"])]
#[case::the_environment_is_asked_by_hand_for_what_is_empty("std::env", &["config/environment.rs"])]
#[case::the_driver_stays_in_its_backend("mongodb::", &["store/mongodb/"])]
#[case::traces_are_exported_from_one_place("opentelemetry", &["telemetry/spans/"])]
#[case::sled_stays_in_its_backend("sled::", &["store/sled/"])]
#[case::status_codes_are_for_the_http_room("StatusCode", &["http/"])]
#[case::axum_is_for_the_http_room("axum", &["http/"])]
#[case::the_http_room_is_wired_by_the_binary("crate::http", &["http/"])]
#[case::the_server_is_wired_by_the_binary("crate::server", &[])]
#[case::settings_are_handed_on_by_the_binary("crate::config", &[])]
fn only(#[case] word: &str, #[case] rooms: &[&str]) {
    for (name, code) in sources() {
        if rooms.iter().any(|room| name.starts_with(room)) {
            continue;
        }
        let line = code.lines().find(|line| line.contains(word));
        assert!(line.is_none(), "src/{name} may not say `{word}`: {}", line.unwrap_or_default().trim());
    }
}

#[rstest]
#[case("record.rs", &["crate::store", "crate::document", "crate::import"])]
#[case("wire.rs", &["crate::"])]
#[case("document/", &["crate::store", "crate::import"])]
#[case("query/", &["crate::store", "crate::document", "crate::import"])]
#[case("store/", &["crate::import", "crate::telemetry"])]
#[case("http/", &["crate::import", "crate::document"])]
#[case("telemetry/", &["crate::record", "crate::query", "crate::store", "crate::import", "crate::document"])]
fn imports_lead_leftwards(#[case] room: &str, #[case] words: &[&str]) {
    for (name, code) in sources().into_iter().filter(|(name, _)| name.starts_with(room)) {
        for word in words {
            assert!(!code.contains(word), "src/{name} may not say `{word}`");
        }
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for (name, code) in sources() {
        let lines = code.lines().count();
        assert!(lines <= 450, "src/{name} has {lines} lines");
    }
}
