//! An upgrade from another commit: its volume is served, and `kubectl apply` can update its objects.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::compose::{HIT, secret};
use crate::http;
use crate::images::{MONGO, RECORDS};
use crate::outages::Secrets;
use crate::run::{self, Finally, PATIENCE, ROOT, ensure, podman, unique, wait};

const OLD_MONGO: &str = "localhost/records-mongo-test:before";

/// The fields that the API server refuses to change in an existing object, by kind.
const IMMUTABLE: &[(&str, &[&str])] = &[
    ("Deployment", &["selector:"]),
    ("StatefulSet", &["podManagementPolicy:", "selector:", "serviceName:", "volumeClaimTemplates:"]),
    ("Service", &["clusterIP:"]),
    ("PersistentVolumeClaim", &["accessModes:", "resources:"]),
];

/// Upgrades from the commit in `TEST_UPGRADE_FROM`, by default the previous one.
pub fn from_the_commit_before() -> Outcome {
    let commit = std::env::var("TEST_UPGRADE_FROM").unwrap_or_else(|_| "HEAD~1".to_owned());
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let before = folder.path().join("before");
    std::fs::create_dir(&before).map_err(|error| error.to_string())?;
    let archive = format!("git archive '{commit}' | tar -x -C '{}'", before.display());
    run::output(Command::new("sh").args(["-c", &archive]).current_dir(ROOT))?;

    let applied = manifests(&before)?;
    let served = volume(&before, folder.path())?;
    Ok(format!("from {commit}: {served}; {applied}"))
}

fn volume(before: &Path, folder: &Path) -> Outcome {
    let build = ["build", "--network", "host", "-f", "Containerfile.mongo", "-t", OLD_MONGO, "."];
    run::output(Command::new("podman").args(build).current_dir(before))?;
    let _untag = Finally(|| drop(podman(["untag", OLD_MONGO])));

    let project = unique("records-upgrade");
    let after = folder.join("after");
    std::fs::create_dir(&after).map_err(|error| error.to_string())?;
    std::fs::copy(Path::new(ROOT).join("podman-compose.yml"), after.join("podman-compose.yml"))
        .map_err(|error| error.to_string())?;
    let port = http::free_port()?;
    let (user, root) = (secret()?, secret()?);
    for (place, mongo) in [(before, OLD_MONGO), (&after, MONGO)] {
        let settings =
            format!("RECORDS_IMAGE={RECORDS}\nRECORDS_MONGO_IMAGE={mongo}\nRECORDS_PUBLISH=127.0.0.1:{port}\n");
        std::fs::write(place.join(".env"), settings).map_err(|error| error.to_string())?;
        let secrets = Secrets::create(&place.join("secrets"), ["store", "records-password", "root-password"])?;
        secrets.write("mongo", &user, Some(&root))?;
    }
    let compose = |place: &Path, arguments: &[&str]| {
        let mut command = Command::new("podman-compose");
        run::output(command.current_dir(place).args(["-p", &project]).args(arguments))
    };
    let _down = Finally(|| drop(compose(&after, &["down", "--volumes"])));
    let mongo = format!("{project}_mongo_1");

    compose(before, &["up", "--detach", "--no-build", "mongo"])?;
    let healthy = || podman(["exec", &mongo, "records-mongo-healthcheck"]).is_ok();
    wait("the database of before", PATIENCE, healthy)?;
    let insert = "const { administrator } = require('/usr/local/share/records/common.js');
                  connect(administrator()).records.insertOne({ _id: 'kept' })";
    podman(["exec", "-e", "HOME=/tmp", &mongo, "mongosh", "--quiet", "--nodb", "--eval", insert])?;
    compose(before, &["down"])?;

    compose(&after, &["up", "--detach", "--no-build"])?;
    wait("the volume's records", PATIENCE, || http::status(port, "/api/v1/records/kept") == 200)?;
    let status = http::status(port, HIT);
    ensure(status == 200, || format!("{HIT} after the upgrade: {status}"))?;
    wait("the database's health after the upgrade", PATIENCE, healthy)?;
    let log = run::exact(Command::new("sh").args(["-c", &format!("podman logs {mongo} 2>&1")]), Stdio::null())?;
    let told = log.contains("becomes a replica set of one member");
    Ok(format!("the volume is served{}", if told { ", as a replica set from now on" } else { "" }))
}

fn manifests(before: &Path) -> Outcome {
    let mut compared = 0;
    for overlay in ["k8s", "k8s/overlays/local", "k8s/overlays/production"] {
        let (old, new) = (render(before, overlay)?, render(Path::new(ROOT), overlay)?);
        for object in &new {
            let Some(same) = old.iter().find(|other| identity(other) == identity(object)) else { continue };
            for (kind, fields) in IMMUTABLE {
                if !object.contains(&format!("\nkind: {kind}\n")) {
                    continue;
                }
                for field in *fields {
                    let (was, is) = (section(same, field), section(object, field));
                    ensure(was == is, || {
                        format!("{overlay}: {:?} has another {field}\n{was}\n{is}", identity(object))
                    })?;
                    compared += 1;
                }
            }
        }
    }
    ensure(compared > 0, || "no object of before is there any more".to_owned())?;
    Ok(format!("{compared} fields that no apply may change are the same"))
}

/// Renders the objects of a kustomization, with random secrets.
fn render(root: &Path, overlay: &str) -> Result<Vec<String>, String> {
    let copy = tempfile::tempdir().map_err(|error| error.to_string())?;
    run::output(Command::new("cp").arg("-R").arg(root.join("k8s")).arg(copy.path()))?;
    let place = copy.path().join(overlay);
    for (name, content) in
        [("store", "RECORDS_STORE=x\n"), ("mongo", "MONGO_ROOT_PASSWORD=x\nRECORDS_MONGO_PASSWORD=x\n")]
    {
        std::fs::write(place.join(format!("{name}.secret.env")), content).map_err(|error| error.to_string())?;
    }
    let text = run::output(Command::new("kubectl").arg("kustomize").arg(&place))?;
    Ok(text.split("\n---\n").map(|object| format!("\n{object}\n")).collect())
}

fn identity(object: &str) -> (Option<&str>, Option<&str>) {
    let line = |begin: &str| object.lines().find(|line| line.starts_with(begin));
    (line("kind: "), line("  name: "))
}

/// Returns a field of `spec` with its content. kustomize writes the fields of every object in the same order.
fn section(object: &str, field: &str) -> String {
    let mut lines = object.lines().skip_while(|line| *line != "spec:").skip(1);
    let mut text = String::new();
    let Some(first) = lines.by_ref().find(|line| line.starts_with(&format!("  {field}"))) else { return text };
    text += first;
    for line in lines.take_while(|line| line.starts_with("   ") || line.starts_with("  - ")) {
        text += "\n";
        text += line;
    }
    text
}
