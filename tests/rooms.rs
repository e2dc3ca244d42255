//! The rules on imports between modules, checked by a search of the source text. `src/lib.rs` explains them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rstest::rstest;

/// Returns the Rust files below `src/`, by their relative paths, without their unit tests.
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
        // Comments may name any module.
        let text = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let each = ungrouped(&text);
        text + &each
    };
    files.iter().map(|path| (name(path), code(path))).filter(|(name, _)| !name.ends_with("tests.rs")).collect()
}

/// Expands grouped imports: `use crate::{query, store::Error}` names `crate::query` and `crate::store::Error`.
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
#[case::features_are_asked_for_where_they_are_the_matter("feature =", &["store/mod.rs", "document/decompress.rs", "http/compress", "http/pages.rs", "telemetry/", "tls.rs", "jwt.rs"])]
#[case::the_environment_is_read_in_one_place("env = \"", &["config/flags.rs"])]
#[case::the_environment_is_read_by_hand_for_empty_variables("std::env", &["config/sources.rs"])]
#[case::the_driver_stays_in_its_backend("mongodb::", &["store/mongodb/"])]
#[case::traces_are_exported_from_one_place("opentelemetry", &["telemetry/"])]
#[case::sled_stays_in_its_backend("sled::", &["store/sled/"])]
#[case::status_codes_are_for_the_http_room("StatusCode", &["http/"])]
#[case::axum_is_for_the_http_room("axum", &["http/"])]
#[case::the_http_room_is_wired_by_the_binary("crate::http", &["http/", "config/"])]
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
#[case("record/", &["crate::store", "crate::query", "crate::document", "crate::import"])]
#[case("wire.rs", &["crate::store", "crate::query", "crate::document", "crate::import"])]
#[case("document/", &["crate::store", "crate::import"])]
#[case("query/", &["crate::store", "crate::document", "crate::import"])]
#[case("store/", &["crate::import", "crate::telemetry"])]
#[case("http/", &["crate::import", "crate::document"])]
#[case("telemetry/", &["crate::record", "crate::query", "crate::store", "crate::import", "crate::document"])]
fn imports_lead_leftwards(#[case] room: &str, #[case] words: &[&str]) {
    let sources: Vec<_> = sources().into_iter().filter(|(name, _)| name.starts_with(room)).collect();
    assert!(!sources.is_empty(), "src/{room} does not exist");
    for (name, code) in sources {
        for word in words {
            assert!(!code.contains(word), "src/{name} may not say `{word}`");
        }
    }
}

/// Groups of files that import each other, by `use` or by path, directly or in a cycle. This list may only become shorter. A module
/// and its submodules count as one unit, since the outer one declares the inner ones.
const KNOWN_CYCLES: &[&[&str]] = &[];

#[test]
fn files_import_each_other_in_no_circle() {
    let modules = Modules::read(sources());
    let found: Vec<Vec<&str>> = modules.cycles();
    assert_eq!(found, KNOWN_CYCLES, "the imports among these:\n{}", modules.explain(&found));
}

#[rstest]
#[case::directly(&[("a.rs", "use crate::b::B;"), ("b.rs", "fn b() { crate::a::a() }")], &["a.rs", "b.rs"])]
#[case::in_a_circle(
    &[("a/mod.rs", "mod b; mod c; mod d;"), ("a/b.rs", "use super::c;"), ("a/c.rs", "use super::{d::D, x};"), ("a/d.rs", "use super::b::{B};")],
    &["a/b.rs", "a/c.rs", "a/d.rs"]
)]
#[case::by_what_their_parent_exports(
    &[("a.rs", "mod b; mod c; pub use b::B; use self::c::C as D;"), ("a/b.rs", "use super::D;"), ("a/c.rs", "use super::B;")],
    &["a/b.rs", "a/c.rs"]
)]
#[case::between_rooms(
    &[("a/mod.rs", "mod b;"), ("a/b.rs", "use crate::c::C;"), ("c.rs", "use crate::{a::b::B};")],
    &["a/b.rs", "c.rs"]
)]
#[case::not_with_a_parent(&[("a.rs", "mod b; use b::B;"), ("a/b.rs", "use super::A;")], &[])]
#[case::not_one_way(&[("a.rs", "use crate::b::{self, B}; use std::a;"), ("b.rs", "use std::b::A;")], &[])]
fn a_circle_of_imports_is_found(#[case] files: &[(&str, &str)], #[case] cycle: &[&str]) {
    let files = files.iter().map(|&(name, code)| (name.to_owned(), code.to_owned())).collect();
    assert_eq!(Modules::read(files).cycles().concat(), cycle);
}

type ModulePath = Vec<String>;

/// The crate's modules, each with its file and its imports.
struct Modules(BTreeMap<ModulePath, Module>);

struct Module {
    file: String,
    /// Names that `use` brings in, with the paths that they stand for.
    names: BTreeMap<String, ModulePath>,
    /// Every path in the file that begins with `crate`, `self` or `super`.
    paths: BTreeSet<ModulePath>,
}

impl Modules {
    fn read(files: Vec<(String, String)>) -> Self {
        let module = |file: &str| -> ModulePath {
            let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
            path.split('/').filter(|part| !["lib", "main"].contains(part)).map(str::to_owned).collect()
        };
        let paths: BTreeSet<ModulePath> = files.iter().map(|(file, _)| module(file)).collect();
        let read = |(file, code): (String, String)| {
            let here = module(&file);
            let (mut names, mut found) = (BTreeMap::new(), BTreeSet::new());
            for tree in code.split("use ").skip(1).map(|rest| rest.split(';').next().unwrap_or_default()) {
                for (path, name) in flattened(tree) {
                    if let Some(path) = absolute(&here, &path, &paths) {
                        found.insert(path.clone());
                        names.insert(name, path);
                    }
                }
            }
            let is_path = |character: char| character.is_alphanumeric() || "_:".contains(character);
            for word in code.split(|character| !is_path(character)).filter(|word| word.contains("::")) {
                let path: ModulePath = word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
                found.extend(absolute(&here, &path, &paths));
            }
            (here, Module { file, names, paths: found })
        };
        Self(files.into_iter().map(read).collect())
    }

    /// Returns the module that defines the item at `path`, which other modules may re-export.
    fn defined(&self, path: &[String], depth: usize) -> ModulePath {
        let known = (0..=path.len()).rev().find(|&length| self.0.contains_key(&path[..length])).unwrap_or_default();
        let module = path[..known].to_vec();
        let import = path.get(known).and_then(|name| self.0.get(&module)?.names.get(name));
        match import {
            Some(import) if depth < 8 => self.defined(&[import.as_slice(), &path[known + 1..]].concat(), depth + 1),
            _ => module,
        }
    }

    /// Returns the imports of each file, without its parent modules and submodules.
    fn edges(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let targets = |(here, module): (&ModulePath, &Module)| {
            let targets = module.paths.iter().map(|path| self.defined(path, 0));
            let apart = |there: &ModulePath| !here.starts_with(there) && !there.starts_with(here);
            targets.filter(apart).map(|there| self.0[&there].file.as_str()).collect()
        };
        self.0.iter().map(|entry| (entry.1.file.as_str(), targets(entry))).collect()
    }

    /// Returns the groups of files that reach each other (strongly connected components).
    fn cycles(&self) -> Vec<Vec<&str>> {
        let edges = self.edges();
        let mut reached = edges.clone();
        for middle in edges.keys() {
            let beyond = reached[middle].clone();
            for there in reached.values_mut().filter(|there| there.contains(middle)) {
                there.extend(&beyond);
            }
        }
        let group = |file: &&str| -> Vec<&str> {
            reached[file].iter().copied().filter(|there| reached[there].contains(file)).collect()
        };
        let groups: BTreeSet<Vec<&str>> = reached.keys().map(group).filter(|group| !group.is_empty()).collect();
        groups.into_iter().collect()
    }

    fn explain(&self, cycles: &[Vec<&str>]) -> String {
        let edges = self.edges();
        let inside = |group: &Vec<&str>| {
            let line = |file: &&str| {
                let there: Vec<_> = edges[*file].iter().filter(|there| group.contains(there)).collect();
                format!("{file} imports {there:?}\n")
            };
            group.iter().map(line).collect::<String>()
        };
        cycles.iter().map(inside).collect::<Vec<_>>().join("\n")
    }
}

/// Returns the paths of a tree such as `a::{b, c::{self, D as E}}`, each with its local name.
fn flattened(tree: &str) -> Vec<(ModulePath, String)> {
    fn walk(front: &[String], tree: &str, found: &mut Vec<(ModulePath, String)>) {
        let tree = tree.trim();
        if let Some((path, group)) = tree.split_once('{') {
            let front = [front, &parts(path)].concat();
            let (mut depth, mut item) = (0, String::new());
            for character in group.strip_suffix('}').unwrap_or(group).chars().chain([',']) {
                depth += i32::from(character == '{') - i32::from(character == '}');
                if depth == 0 && character == ',' {
                    walk(&front, &std::mem::take(&mut item), found);
                } else {
                    item.push(character);
                }
            }
        } else if !tree.is_empty() {
            let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias)));
            let mut path = [front, &parts(path)].concat();
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let name = alias.map_or_else(|| path.last().cloned().unwrap_or_default(), |alias| alias.trim().to_owned());
            found.push((path, name));
        }
    }
    fn parts(path: &str) -> ModulePath {
        path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
    let mut found = Vec::new();
    walk(&[], tree, &mut found);
    found
}

/// Returns `path` from the crate's root, if it leads into the crate.
fn absolute(here: &[String], path: &[String], modules: &BTreeSet<ModulePath>) -> Option<ModulePath> {
    let mut base = here.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" | "records" => base.clear(),
        "self" => {}
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop();
                rest = &rest[1..];
            }
            return Some([&base, rest].concat());
        }
        child if modules.contains(&[here, &[child.to_owned()]].concat()) => return Some([&base, path].concat()),
        _ => return None,
    }
    Some([&base, &rest[1..]].concat())
}
