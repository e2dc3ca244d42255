//! HTTPS on the command line: files that are refused, what is printed, and the health check.

use std::fs;

use rstest::rstest;
use tempfile::TempDir;

use crate::support::{Serving, code, directory, run, stderr};
use crate::tls_support::{Authority, write};

fn with_files() -> TempDir {
    let directory = directory();
    write(&directory, &Authority::new().issue("localhost"));
    directory
}

#[rstest]
#[case::no_key(&["--tls-cert", "tls.crt"], 2, "--tls-key")]
#[case::no_certificate(&["--tls-key", "tls.key"], 2, "--tls-cert")]
#[case::clients_alone(&["--tls-client-ca", "tls.crt"], 2, "--tls-cert")]
#[case::missing(&["--tls-cert", "missing", "--tls-key", "tls.key"], 1, "missing")]
#[case::not_a_key(&["--tls-cert", "tls.crt", "--tls-key", "tls.crt"], 1, "no private key")]
#[case::not_a_certificate(&["--tls-cert", "tls.key", "--tls-key", "tls.key"], 1, "no certificate")]
#[case::empty_authority(&["--tls-cert", "tls.crt", "--tls-key", "tls.key", "--tls-client-ca", "empty"], 1, "empty")]
fn files_that_cannot_be_used_are_refused(#[case] flags: &[&str], #[case] status: i32, #[case] reason: &str) {
    let directory = with_files();
    fs::write(directory.path().join("empty"), "").unwrap();
    for command in ["serve", "config"] {
        let output =
            run(&directory, &[&[command, "--store", "memory:", "--listen", "127.0.0.1:0"], flags].concat(), "");
        assert_eq!(code(&output), status, "{command}: {}", stderr(&output));
        assert!(stderr(&output).contains("tls-") && stderr(&output).contains(reason), "{}", stderr(&output));
    }
}

#[test]
fn the_health_check_asks_as_the_server_speaks() {
    let directory = with_files();
    let tls = ["--tls-cert", "tls.crt"];
    let serve = ["--store", "memory:", "--tls-key", "tls.key"];
    let serving = Serving::start(&directory, &[&serve[..], &tls].concat());
    assert!(serving.begin.contains(&format!("listening on https://{}", serving.address)), "{}", serving.begin);
    let listen = serving.address.to_string();
    let check = |flags: &[&str]| run(&directory, &[&["healthcheck", "--listen", &listen], flags].concat(), "");
    assert_eq!(code(&check(&tls)), 0);
    let without = check(&[]);
    assert!(code(&without) == 1 && stderr(&without).contains("400 Bad Request"), "{}", stderr(&without));
    // The health check does not read the certificate, which may be about to change.
    fs::write(directory.path().join("tls.crt"), "nonsense").unwrap();
    assert_eq!(code(&check(&tls)), 0);

    // The check fails for a server without TLS, and uses HTTP for the admin address.
    fs::remove_file(directory.path().join("tls.crt")).unwrap();
    write(&directory, &Authority::new().issue("localhost"));
    let plain = Serving::start(&directory, &["--store", "memory:"]);
    let output = run(&directory, &[&["healthcheck", "--listen", &plain.address.to_string()], &tls[..]].concat(), "");
    assert_eq!(code(&output), 1);
    let apart = Serving::start(&directory, &[&serve[..], &tls, &["--admin-listen", "127.0.0.1:0"]].concat());
    let admin = apart.admin().to_string();
    let output = run(&directory, &[&["healthcheck", "--admin-listen", &admin], &tls[..]].concat(), "");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}
