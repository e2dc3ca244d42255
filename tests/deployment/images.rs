//! The two images: their content, the settings that they refuse, and reproducible builds.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Outcome;
use crate::run::{self, Finally, PATIENCE, ROOT, ensure, podman, unique, wait};

pub const RECORDS: &str = "localhost/records-test:first";
pub const MONGO: &str = "localhost/records-mongo-test:first";
const AGAIN: [&str; 2] = ["localhost/records-test:second", "localhost/records-mongo-test:second"];
const ONCE_MORE: &str = "localhost/records-test:third";

const MAX_BYTES: u64 = 10_000_000;

/// True once [`build`] has begun. Other runs, without this trial, must not remove its images.
static BUILT: AtomicBool = AtomicBool::new(false);

/// Layers of builds that are removed at the end.
static LEFT_OVER: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Returns the cargo profile of the images: that of the published image, unless `TEST_IMAGE_PROFILE` names another one.
fn profile() -> String {
    std::env::var("TEST_IMAGE_PROFILE").unwrap_or_else(|_| "image".to_owned())
}

/// Returns true if the images have the published profile. Size and digest are checked only for those.
pub fn are_real() -> bool {
    profile() == "image"
}

fn git(arguments: &[&str]) -> Outcome {
    run::output(Command::new("git").args(arguments).current_dir(ROOT))
}

fn head() -> Outcome {
    git(&["rev-parse", "HEAD"])
}

/// Builds an image by the command in docs/reference/deployment-files.md, with another name and perhaps another profile.
fn build_one(file: &str, image: &str, flags: &[&str]) -> Result<(), String> {
    let time = git(&["log", "-1", "--format=%ct"])?;
    let revision = format!("org.opencontainers.image.revision={}", head()?);
    let mut command = Command::new("podman");
    command.args(["build", "--network", "host", "--timestamp", &time, "--label", &revision]);
    if file == "Containerfile" {
        command.args(["--build-arg", &format!("PROFILE={}", profile())]);
    }
    command.args(["-f", file, "-t", image]).args(flags).arg(".");
    run::output(command.current_dir(ROOT)).map(drop)
}

pub fn build() -> Outcome {
    BUILT.store(true, Ordering::Relaxed);
    build_one("Containerfile", RECORDS, &[])?;
    build_one("Containerfile.mongo", MONGO, &[])?;

    let size: u64 = inspect(RECORDS, "{{.Size}}")?.parse().map_err(|_| "a size that is no number")?;
    ensure(size <= MAX_BYTES || !are_real(), || format!("the image has {size} bytes, more than {MAX_BYTES}"))?;
    let mount = podman(["image", "mount", RECORDS])?;
    let _unmount = Finally(|| drop(podman(["image", "unmount", RECORDS])));
    let files = run::output(Command::new("find").args([mount.as_str(), "-mindepth", "1", "-printf", "%P\n"]))?;
    ensure(files == "records", || format!("the image should hold one file, and holds:\n{files}"))?;

    for (image, field, value) in [
        (RECORDS, "{{.User}}", "65532:65532"),
        (RECORDS, "{{.Config.Entrypoint}}", "[/records]"),
        (RECORDS, "{{.Config.ExposedPorts}}", "map[8080/tcp:{}]"),
        (RECORDS, r#"{{index .Labels "org.opencontainers.image.licenses"}}"#, "MIT OR Apache-2.0"),
        (MONGO, "{{.User}}", "999:999"),
        // The licence of MongoDB and that of the added files.
        (MONGO, r#"{{index .Labels "org.opencontainers.image.licenses"}}"#, "SSPL-1.0 AND (MIT OR Apache-2.0)"),
    ] {
        let found = inspect(image, field)?;
        ensure(found == value, || format!("{image}: {field} is {found:?}, not {value:?}"))?;
    }
    for image in [RECORDS, MONGO] {
        let revision = inspect(image, r#"{{index .Labels "org.opencontainers.image.revision"}}"#)?;
        let head = head()?;
        ensure(revision == head, || format!("{image} says it is of {revision:?}, and is of {head}"))?;
        let settings = inspect(image, "{{.Config.Env}}")?;
        ensure(!settings.contains("PASSWORD"), || format!("{image} has a password: {settings}"))?;
    }

    let refusal = run::failure(Command::new("podman").args(["run", "--rm", "--read-only", RECORDS]))?;
    ensure(refusal.contains("RECORDS_STORE"), || format!("without a store it says: {refusal}"))?;
    Ok(format!("{size} bytes by the profile {}, one file", profile()))
}

fn inspect(image: &str, field: &str) -> Outcome {
    podman(["image", "inspect", "--format", field, image])
}

/// Builds the images again without a cache, and compares them. The first build may have used cached steps of an earlier commit,
/// with the times of that commit: then a third build is compared with the second.
pub fn build_again() -> Outcome {
    let before = all_images()?;
    let built = build_and_compare();
    if let Ok(mut left_over) = LEFT_OVER.lock() {
        left_over.extend(all_images()?.difference(&before).cloned());
    }
    built
}

fn build_and_compare() -> Outcome {
    build_one("Containerfile", AGAIN[0], &["--no-cache"])?;
    let digest = |image| inspect(image, "{{.Digest}} {{.Id}}");
    let mut first = RECORDS;
    if digest(RECORDS)? != digest(AGAIN[0])? {
        first = ONCE_MORE;
        build_one("Containerfile", ONCE_MORE, &["--no-cache"])?;
    }
    // This image builds quickly.
    build_one("Containerfile.mongo", MONGO, &["--no-cache"])?;
    build_one("Containerfile.mongo", AGAIN[1], &["--no-cache"])?;
    let mut digests = Vec::new();
    for (first, second) in [first, MONGO].into_iter().zip(AGAIN) {
        let (first, second) = (digest(first)?, digest(second)?);
        ensure(first == second, || format!("two builds of the same commit differ: {first}, {second}"))?;
        digests.push(first.split(' ').next().unwrap_or_default().to_owned());
    }
    Ok(digests.join(", "))
}

fn all_images() -> Result<BTreeSet<String>, String> {
    Ok(podman(["images", "--all", "--quiet", "--no-trunc"])?.lines().map(str::to_owned).collect())
}

/// Removes the images, but keeps the layers of the first build, which speed up the next one.
pub fn forget() {
    if !BUILT.load(Ordering::Relaxed) {
        return;
    }
    for image in [RECORDS, MONGO, ONCE_MORE].into_iter().chain(AGAIN) {
        let _ = podman(["untag", image, image]);
    }
    if let Ok(left_over) = LEFT_OVER.lock() {
        for image in left_over.iter() {
            let _ = podman(["rmi", "--force", image]);
        }
    }
}

/// Checks that a failed load ends the container with a reason, that the next start loads again, and that foreign data stays
/// untouched, and is served only if the settings say so.
pub fn refuse() -> Outcome {
    let volume = unique("records-refuse");
    podman(["volume", "create", &volume])?;
    let _remove = Finally(|| drop(podman(["volume", "rm", "--force", &volume])));
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let seed = folder.path().join("seed.jsonl");
    std::fs::write(&seed, "{\"_id\":\"twice\"}\n{\"_id\":\"twice\"}\n").map_err(|error| error.to_string())?;
    let mut permissions = std::fs::metadata(&seed).map_err(|error| error.to_string())?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&seed, permissions).map_err(|error| error.to_string())?;

    let data = format!("{volume}:/data/db");
    let seed = format!("{}:/usr/local/share/records/seed.jsonl:ro", seed.display());
    let start = |flags: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "-v", &data]);
        command.args(["-e", "MONGO_INITDB_ROOT_USERNAME=root", "-e", "MONGO_INITDB_ROOT_PASSWORD=root"]);
        command.args(["-e", "RECORDS_MONGO_USERNAME=records"]).args(flags).arg(MONGO);
        command
    };
    let said = run::failure(&mut start(&[]))?;
    ensure(said.contains("RECORDS_MONGO_PASSWORD"), || format!("without a password it says: {said}"))?;
    // Starts twice: the second start must not accept the incomplete load.
    for _ in 0..2 {
        let said = run::failure(&mut start(&["-e", "RECORDS_MONGO_PASSWORD=pass", "-v", &seed]))?;
        let reasons = ["E11000", "the seed could not be loaded"];
        ensure(reasons.iter().all(|reason| said.contains(reason)), || format!("a bad seed: {said}"))?;
    }
    let foreign = "rm -rf /data/db/.records-* && touch /data/db/WiredTiger";
    run::output(start(&[]).args(["bash", "-c", foreign]))?;
    let said = run::failure(&mut start(&["-e", "RECORDS_MONGO_PASSWORD=pass"]))?;
    ensure(said.contains("left alone"), || format!("with a foreign database it says: {said}"))?;

    // Follows the advice of that message. The database has no records.
    let own = r#"
        set -e
        export HOME=/tmp
        find /data/db -mindepth 1 -delete
        mongod --dbpath /data/db --fork --logpath /tmp/log
        mongosh --quiet --eval "
            db.getSiblingDB('admin').createUser({ user: 'root', pwd: 'root', roles: ['root'] });
            db.getSiblingDB('records').createUser({ user: 'records', pwd: 'pass', roles: ['read'] });"
        mongod --dbpath /data/db --shutdown
        touch /data/db/.records-loaded"#;
    run::output(start(&[]).args(["bash", "-c", own]))?;
    let name = unique("records-foreign");
    let _stop = Finally(|| drop(podman(["rm", "--force", &name])));
    run::output(&mut start(&["-e", "RECORDS_MONGO_PASSWORD=pass", "--detach", "--name", &name]))?;
    let healthy = || podman(["exec", &name, "records-mongo-healthcheck"]);
    wait("health with somebody's own database", PATIENCE, || healthy().is_ok())?;
    podman(["exec", &name, "rm", "/data/db/.records-loaded"])?;
    let said = healthy().err().ok_or("healthy before the load is done")?;
    ensure(said.contains("not loaded"), || format!("before the load is done it says: {said}"))?;
    Ok("a failed load ends the container, twice; a foreign database is left alone, or served as it is".to_owned())
}
