//! MongoDB's own tests of its specifications: the BSON corpus, URI options and connection strings.
//!
//! Ignored where `TEST_MONGODB_SPECIFICATIONS` names no directory with `bson-corpus`, `uri-options` and `connection-string` of
//! [mongodb/specifications](https://github.com/mongodb/specifications); their licence keeps them out of this repository.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use records::document::extended_json;
use records::document::reader::Documents;
use records::record::raw::{self, ValueRef};
use serde_json::Value;

/// Checks the content of a file. Returns the number of cases, and the failures.
type Check = fn(&Value) -> (usize, Vec<String>);

fn main() -> ExitCode {
    let directory = std::env::var_os("TEST_MONGODB_SPECIFICATIONS").filter(|path| !path.is_empty()).map(PathBuf::from);
    let trial = |name: &'static str, folders: &'static [&'static str], check: Check| {
        let path = directory.clone();
        let run = move || {
            let path = path.ok_or_else(|| Failed::from("set TEST_MONGODB_SPECIFICATIONS to the path of the tests"))?;
            run(&path, folders, check)
        };
        Trial::test(name, run).with_ignored_flag(directory.is_none())
    };
    let mut trials = vec![
        trial("texts_of_the_corpus_are_read_as_its_bson", &["bson-corpus"], texts),
        trial("wrong_texts_of_the_corpus_are_refused", &["bson-corpus"], wrong_texts),
        trial("bson_of_the_corpus_is_read_and_what_is_malformed_is_refused", &["bson-corpus"], files),
    ];
    if cfg!(feature = "mongodb") {
        trials.push(trial("uris_are_taken_or_refused", &["uri-options", "connection-string"], uris));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn run(path: &Path, folders: &[&str], check: Check) -> Result<(), Failed> {
    let (mut count, mut failures) = (0, Vec::new());
    for folder in folders {
        for file in std::fs::read_dir(path.join(folder))? {
            let file = file?.path();
            let content: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
            let (checked, failed) = check(&content);
            count += checked;
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            failures.extend(failed.into_iter().map(|failure| format!("{name}: {failure}")));
        }
    }
    println!("{count} cases, {} failures", failures.len());
    match (count, &*failures) {
        (0, _) => Err("there are no cases".into()),
        (_, []) => Ok(()),
        _ => Err(failures.join("\n").into()),
    }
}

fn text<'a>(case: &'a Value, name: &str) -> Option<&'a str> {
    case[name].as_str()
}

fn cases<'a>(content: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    content[name].as_array().into_iter().flatten()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits")).collect()
}

/// Reads a document of the corpus as a field of another document, since some of them cannot be stored by themselves.
fn read(document: &str) -> Result<Vec<u8>, String> {
    let text = format!(r#"{{"_id":1,"v":{document}}}"#);
    let document = extended_json::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(raw::find(document.bson(), b"v").expect("BSON").expect("a field").bytes.to_vec())
}

fn texts(content: &Value) -> (usize, Vec<String>) {
    let (mut count, mut failures) = (0, Vec::new());
    for case in cases(content, "valid") {
        let canonical = unhex(text(case, "canonical_bson").expect("BSON"));
        let is_lossy = case["lossy"].as_bool().unwrap_or_default();
        let described = text(case, "description").unwrap_or_default();
        // Bare numbers do not tell their type, so the relaxed form is compared by its JSON.
        for form in ["canonical_extjson", "degenerate_extjson", "relaxed_extjson"] {
            let Some(document) = text(case, form) else { continue };
            count += 1;
            match read(document) {
                Ok(bytes) if bytes == canonical || is_lossy => {}
                Ok(bytes) if form == "relaxed_extjson" && json(&bytes) == json(&canonical) => {}
                Ok(bytes) => failures.push(format!("{described}, {form}: {document} is {bytes:02x?}")),
                Err(error) => failures.push(format!("{described}, {form}: {document}: {error}")),
            }
        }
    }
    (count, failures)
}

fn json(bson: &[u8]) -> String {
    let mut out = Vec::new();
    records::wire::document(&mut out, bson).expect("a document is BSON");
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn wrong_texts(content: &Value) -> (usize, Vec<String>) {
    let (mut count, mut failures) = (0, Vec::new());
    for case in cases(content, "parseErrors") {
        let document = text(case, "string").expect("a text");
        // The corpus has decimals without a document.
        let is_decimal = text(content, "bson_type") == Some("0x13");
        let document =
            if is_decimal { format!(r#"{{"$numberDecimal":{}}}"#, Value::from(document)) } else { document.to_owned() };
        let description = text(case, "description").unwrap_or_default();
        // Numbers without quotes are accepted, as by other parsers, and as in version 1 of the format for dates.
        if ["(number, not string)", "(number, not string or hash)"].iter().any(|taken| description.ends_with(taken)) {
            continue;
        }
        count += 1;
        if let Ok(bytes) = read(&document) {
            failures.push(format!("{description}: {document} is {bytes:02x?}"));
        }
    }
    (count, failures)
}

/// Reads a document of the corpus from a BSON file, as a field of a document with an `_id`.
fn file(bson: &[u8]) -> Result<Vec<u8>, String> {
    let mut file = Vec::new();
    raw::append_document(&mut file, |out| {
        raw::append_element(out, b"_id", ValueRef { kind: bson::spec::ElementType::Int32, bytes: &[1, 0, 0, 0] });
        raw::append_element(out, b"v", ValueRef { kind: bson::spec::ElementType::EmbeddedDocument, bytes: bson });
    });
    let mut documents = Documents::new(&*file);
    let document =
        documents.next().expect("a document").expect("memory can be read").map_err(|error| error.to_string())?;
    match documents.next() {
        None => Ok(raw::find(document.bson(), b"v").expect("BSON").expect("a field").bytes.to_vec()),
        Some(_) => Err("it is two documents".to_owned()),
    }
}

fn files(content: &Value) -> (usize, Vec<String>) {
    let (mut count, mut failures) = (0, Vec::new());
    for case in cases(content, "valid") {
        let canonical = unhex(text(case, "canonical_bson").expect("BSON"));
        count += 1;
        match file(&canonical) {
            Ok(bytes) if bytes == canonical => {}
            other => failures.push(format!("{}: {other:02x?}", text(case, "description").unwrap_or_default())),
        }
    }
    for case in cases(content, "decodeErrors") {
        let description = text(case, "description").unwrap_or_default();
        // Some clients write strings that are not UTF-8, and MongoDB stores them.
        if description.to_lowercase().contains("utf-8") {
            continue;
        }
        count += 1;
        if file(&unhex(text(case, "bson").expect("BSON"))).is_ok() {
            failures.push(format!("{description}: it is taken"));
        }
    }
    (count, failures)
}

fn uris(content: &Value) -> (usize, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (mut count, mut failures) = (0, Vec::new());
    for case in cases(content, "tests") {
        let uri = text(case, "uri").expect("a URI");
        // Without their libraries the client cannot authenticate, so these mechanisms are errors.
        let is_supported = !["GSSAPI", "MONGODB-OIDC"].iter().any(|mechanism| uri.contains(mechanism));
        let expected = case["valid"].as_bool().expect("a boolean") && is_supported;
        count += 1;
        match runtime.block_on(records::store::check(uri, &records::store::Options::default())) {
            Ok(_) if !expected => failures.push(format!("{uri} is taken")),
            Err(error) if expected => failures.push(format!("{uri}: {error}")),
            _ => {}
        }
    }
    (count, failures)
}
