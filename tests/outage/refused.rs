//! The log of a service whose requests MongoDB refuses, with texts that quote them.

use crate::servers::mongod::{Mongod, document, element, text};
use crate::store_file::{DATABASE, Service, command, restart, until};

/// In every request, and nowhere else.
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
    ];
    for target in &targets {
        assert_eq!(service.status_of(target), 503, "{target}");
    }
    let causes = || service.log.lock().expect("a log").matches("code 13 (Unauthorized)").count();
    until("a cause for each request", || (causes() >= targets.len()).then_some(()));
    let log = service.log.lock().expect("a log").clone();
    assert!(!log.contains("4711") && !log.contains("RawDocumentBuf"), "{log}");
}
