//! The directory of a replica: its files, and directories that belong to something else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use records::store::fallback::{self, Mode, Settings};
use records::store::{BACKENDS, BackendKind, Kind, Options};

use crate::cases;
use crate::servers::mongod::Mongod;
use crate::support::*;

cases! {
    Local {
        what_is_no_part_of_a_copy_is_left_as_it_was,
        a_directory_of_the_version_before_is_taken_over,
        a_copy_that_cannot_be_opened_stays_until_there_can_be_a_new_one,
        a_clock_that_was_set_back_makes_no_stored_copy_younger,
    }
}

fn persistent_schemes() -> impl Iterator<Item = &'static str> {
    BACKENDS.iter().filter(|backend| backend.kind == BackendKind::Local).map(|backend| backend.name)
}

fn settings_in(scheme: &str, path: &Path) -> Settings {
    Settings { url: format!("{scheme}:{}", path.display()), ..settings(Mode::Standby) }
}

/// Returns every file below `path`, sorted.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

async fn is_refused(scheme: &str, path: &Path) {
    let before = files(path);
    let primary = open_within(&Mongod::stopped().expect("a port").url(), TIMEOUT).await;
    let error = fallback::over(primary, settings_in(scheme, path)).await.expect_err("a foreign directory was accepted");
    assert_eq!(error.kind(), Kind::Invalid, "{}", error.report());
    assert!(error.to_string().ends_with("Nothing in it was changed"), "{error}");
    assert_eq!(files(path), before);
}

async fn what_is_no_part_of_a_copy_is_left_as_it_was() {
    for scheme in persistent_schemes() {
        let home = tempfile::tempdir().expect("a directory");
        let made = |name: &str| {
            let path = home.path().join(name);
            fs::create_dir_all(path.join("2023")).expect("a directory");
            path
        };
        let photos = made("photos");
        fs::write(photos.join("2023/photos.tar"), "x").expect("a file");
        is_refused(scheme, &photos).await;
        // An empty store of unknown origin.
        is_refused(scheme, &made("empty")).await;
        let file = home.path().join("file");
        fs::create_dir(&file).expect("a directory");
        fs::write(file.join("2024"), "x").expect("a file");
        is_refused(scheme, &file).await;
        // A foreign file with the name of the state file.
        let state = made("state");
        fs::write(state.join("2023/photos.tar"), "x").expect("a file");
        fs::write(state.join("replica.json"), "{}").expect("a file");
        is_refused(scheme, &state).await;
        // A store in a directory that was never a replica's.
        let store = home.path().join("store");
        let inner = records::store::open(&format!("{scheme}:{}/7", store.display()), Options::default()).await;
        inner.expect("a store").into_store().upsert(numbered(0..3)).await.expect("an upsert");
        is_refused(scheme, &store).await;

        // A foreign store in the directory of an existing replica.
        let copies = home.path().join("copies");
        let primary = open_within(&Mongod::stopped().expect("a port").url(), TIMEOUT).await;
        drop(fallback::over(primary, settings_in(scheme, &copies)).await.expect("a directory of its own"));
        let mode = fs::metadata(&copies).expect("a directory").permissions().mode();
        assert_eq!(mode & 0o077, 0, "others can read the records: {mode:o}");
        for name in ["2024", "007", "+7"] {
            fs::create_dir(copies.join(name)).expect("a directory");
            fs::write(copies.join(name).join("photos.tar"), "x").expect("a file");
            is_refused(scheme, &copies).await;
            fs::remove_dir_all(copies.join(name)).expect("a directory");
        }
        // Remains of an interrupted start are removed.
        fs::create_dir_all(copies.join("3")).expect("a directory");
        fs::create_dir_all(copies.join("4")).expect("a directory");
        fs::write(copies.join("4/FORMAT.new"), "").expect("a file");
        until("a directory of its own", async || {
            let primary = open_within(&Mongod::stopped().expect("a port").url(), TIMEOUT).await;
            fallback::over(primary, settings_in(scheme, &copies)).await.is_ok()
        })
        .await;
        assert_eq!(files(&copies), [copies.join("LOCK")]);
    }
}

/// Returns the numbers of the snapshots in the directory.
fn generations(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.parse::<u64>().is_ok()).collect()
}

/// Fills a directory with a complete replica, and closes it.
async fn with_copy(scheme: &str, path: &Path, server: &Mongod) {
    let store = over(&server.url(), settings_in(scheme, path)).await;
    ready(&*store).await;
    drop(store);
    let lock = fs::File::open(path.join("LOCK")).expect("a lock");
    until("a free directory", async || lock.try_lock().is_ok()).await;
}

async fn a_directory_of_the_version_before_is_taken_over() {
    for scheme in persistent_schemes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("copy");
        let server = filled_set().await;
        with_copy(scheme, &path, &server).await;
        let state = fs::read_to_string(path.join("replica.json")).expect("a state");
        let (before_it, after) = state.split_once("\"format\":4").expect("the version");
        fs::write(path.join("replica.json"), format!("{before_it}\"format\":3{after}")).expect("a state");
        let before = generations(&path);
        let store = over(&server.url(), settings_in(scheme, &path)).await;
        ready(&*store).await;
        assert_eq!(generations(&path).len(), 1);
        let metrics = metrics(&*store);
        assert!(metrics.contains("fallback_replica_snapshots_total 1\n"), "{before:?} was used:\n{metrics}");
    }
}

async fn a_copy_that_cannot_be_opened_stays_until_there_can_be_a_new_one() {
    for scheme in persistent_schemes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("copy");
        let mut server = filled_set().await;
        with_copy(scheme, &path, &server).await;
        let before = generations(&path);
        assert_eq!(before.len(), 1);
        fs::write(path.join(&before[0]).join("FORMAT"), "damaged").expect("a file");
        server.kill();
        let store = over(&server.url(), settings_in(scheme, &path)).await;
        // Fails after the primary's time-out, in which a replica could be created or removed.
        assert!(store.get(&"1".into()).await.is_err());
        assert_eq!(generations(&path), before);
        server.run().expect("a server");
        ready(&*store).await;
        let after = generations(&path);
        assert!(after.len() == 1 && after != before, "{after:?}");
    }
}

async fn a_clock_that_was_set_back_makes_no_stored_copy_younger() {
    for scheme in persistent_schemes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("copy");
        let mut server = filled_set().await;
        with_copy(scheme, &path, &server).await;
        server.kill();
        let written = std::time::Instant::now();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let state = path.join("replica.json");
        let mut edited: serde_json::Value = serde_json::from_slice(&fs::read(&state).expect("a state")).expect("JSON");
        let age = async |edited: &serde_json::Value, max_age: Option<Duration>| {
            fs::write(&state, edited.to_string()).expect("a state");
            let settings = Settings { mode: Mode::Replica, max_age, ..settings_in(scheme, &path) };
            let mut store = None;
            until("a free directory", async || {
                store = fallback::over(open_within(&server.url(), TIMEOUT).await, settings.clone()).await.ok();
                store.is_some()
            })
            .await;
            store.expect("a store").get(&"1".into()).await.map(|found| found.staleness.expect("an age"))
        };
        // An hour in the future, as if the clock had been set back by an hour since.
        let clock = &mut edited["written"]["clock"];
        *clock = (clock.as_u64().expect("a time") + 3_600_000).into();
        let known = age(&edited, None).await.expect("an answer");
        assert!(known >= Duration::from_secs(3) && known <= written.elapsed() + Duration::from_secs(60), "{known:?}");
        // The machine was booted in between.
        edited["written"]["uptime"]["boot"] = "another".into();
        assert!(age(&edited, None).await.expect("an answer") > Duration::from_secs(1_000_000_000));
        assert!(age(&edited, Some(Duration::from_secs(3_600))).await.is_err());
    }
}
