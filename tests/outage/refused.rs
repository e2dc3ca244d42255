//! Requests that MongoDB refuses with texts that quote them: the log must not show those.

use std::process::Command;

use crate::servers::mongod::{Mongod, document, element, text};
use crate::store_file::{DATABASE, Service, command, restart, until};

/// A value that occurs only in the requests.
const VALUE: &str = "patient-4711";

pub async fn no_value_of_a_refused_request_is_logged() {
    let mut server = Mongod::start().expect("a server");
    let role = document(&[element(0x02, "role", &text("read")), element(0x02, "db", &text("other"))].concat());
    let roles = element(0x04, "roles", &document(&element(0x03, "0", &role)));
    command(&server, &[element(0x02, "createUser", &text("other")), element(0x02, "pwd", &text("password")), roles]);
    restart(&mut server, true);
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("url");
    std::fs::write(&file, format!("mongodb://other:password@127.0.0.1:{}/{DATABASE}", server.port())).expect("a file");
    let service = Service::start(&file, "debug");
    let targets = [
        format!("/api/v1/records/{VALUE}"),
        format!("/api/v1/records?name.eq={VALUE}"),
        format!("/api/v1/records?name.gt={VALUE}&sort=name&limit=5"),
        format!("/api/v1/records?after_id={VALUE}&limit=5"),
        format!("/api/v1/records?fields=name&_id.in={VALUE},b"),
        format!("/api/v1/records?or=(name.starts={VALUE},name.eq=b)"),
    ];
    for target in &targets {
        assert_eq!(service.answer_to(target, "Prefer: count=exact\r\n").0, 503, "{target}");
    }
    let causes = || service.log.lock().expect("a log").matches("code 13 (Unauthorized)").count();
    until("a cause for each request", || (causes() >= targets.len()).then_some(()));
    let log = service.log.lock().expect("a log").clone();
    assert!(!log.contains("4711") && !log.contains("RawDocumentBuf"), "{log}");
}

pub async fn a_view_whose_pipeline_fails_is_not_ready_and_says_so_without_values() {
    let server = Mongod::start().expect("a server");
    let patients = document(&[element(0x02, "_id", &text("one")), element(0x02, "name", &text(VALUE))].concat());
    command(
        &server,
        &[
            element(0x02, "insert", &text("patients")),
            element(0x04, "documents", &document(&element(0x03, "0", &patients))),
        ],
    );
    let number = document(&element(0x03, "digits", &document(&element(0x02, "$toInt", &text("$name")))));
    let pipeline = document(&element(0x03, "0", &document(&element(0x03, "$set", &number))));
    command(
        &server,
        &[
            element(0x02, "create", &text("records")),
            element(0x02, "viewOn", &text("patients")),
            element(0x04, "pipeline", &pipeline),
        ],
    );
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("url");
    std::fs::write(&file, format!("{}/{DATABASE}", server.url())).expect("a file");
    let service = Service::start(&file, "trace");
    let (status, answer) = service.answer_to("/readyz", "");
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("cannot read the view") && !answer.contains("4711"), "{answer}");
    for (target, headers) in [
        ("/api/v1/records/one", ""),
        ("/api/v1/records", "Prefer: count=exact\r\n"),
        ("/api/v1/records?limit=5&sort=digits", ""),
        ("/api/v1/records?digits.gt=5&limit=5", "Prefer: count=exact\r\n"),
        ("/api/v1/records?fields=digits,name", "Accept: text/csv\r\n"),
    ] {
        let (status, answer) = service.answer_to(target, headers);
        assert_eq!(status, 503, "{target}: {answer}");
        assert!(!answer.contains("4711"), "{answer}");
    }
    let causes = || service.log.lock().expect("a log").matches("ConversionFailure").count();
    until("the causes", || (causes() > 4).then_some(()));
    let log = service.log.lock().expect("a log").clone();
    assert!(!log.contains("4711"), "{log}");
}

pub async fn an_import_that_is_refused_in_part_says_what_was_stored() {
    let server = Mongod::start().expect("a server");
    let validator = document(&element(0x03, "a", &document(&element(0x02, "$type", &text("int")))));
    command(&server, &[element(0x02, "create", &text("records")), element(0x03, "validator", &validator)]);
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("documents.jsonl");
    let import = |options: &str, lines: &str| {
        std::fs::write(&file, lines).expect("a file");
        let mut import = Command::new(env!("CARGO_BIN_EXE_records"));
        import.arg("import").arg(&file).args(["--store", &format!("{}/{DATABASE}{options}", server.url())]);
        let output = import.output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, errors) = import(
        "",
        "{\"_id\":1,\"a\":1}\n{\"_id\":\"two\",\"a\":\"x\"}\n{\"_id\":3,\"a\":\"x\"}\n{\"_id\":4,\"a\":4}\n",
    );
    assert_eq!(code, Some(1));
    assert!(errors.contains("2 documents were stored"), "{errors}");
    let cause = "2 refused: code 121 (DocumentValidationFailure): Document failed validation: _id \"two\", 3";
    assert!(errors.contains(cause) && !errors.contains("not tried"), "{errors}");
    assert!(errors.contains("Correct them, and import again: nothing is stored twice"), "{errors}");
    assert!(!errors.contains("Try again"), "{errors}");
    // Without an acknowledgement, the server would say nothing.
    let (code, errors) = import("?w=0", "{\"_id\":7,\"a\":\"x\"}\n");
    assert!(code == Some(1) && errors.contains("1 refused: code 121"), "{errors}");
    // The server quotes the value of an index that has it twice.
    let key = element(0x03, "key", &document(&element(0x10, "email", &1_i32.to_le_bytes())));
    let index =
        [key, element(0x02, "name", &text("email")), element(0x08, "unique", &[1]), element(0x08, "sparse", &[1])]
            .concat();
    let indexes = element(0x04, "indexes", &document(&element(0x03, "0", &document(&index))));
    command(&server, &[element(0x02, "createIndexes", &text("records")), indexes]);
    let twice = format!("{{\"_id\":5,\"a\":5,\"email\":\"{VALUE}\"}}\n{{\"_id\":6,\"a\":6,\"email\":\"{VALUE}\"}}\n");
    let (_, errors) = import("", &twice);
    assert!(errors.contains("1 refused: code 11000 (DuplicateKey)") && !errors.contains("4711"), "{errors}");
    // In a second import, a document without an `_id` would be another document.
    let (_, errors) = import("", "{\"a\":1}\n{\"_id\":2,\"a\":\"x\"}\n");
    assert!(errors.contains("documents without an `_id` would be stored a second time"), "{errors}");
}
