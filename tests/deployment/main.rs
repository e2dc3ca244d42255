//! The files that deploy the service, proved by running them: images, compose, Kubernetes manifests, CI.
//!
//! The tests take minutes and need root's Podman, so they are ignored unless these variables are set:
//!
//! - `TEST_DEPLOYMENT=1` runs the tests for which this machine has the programs; with `TEST_DEPLOYMENT=all` a missing program is a
//!   failure. The programs are `podman`, `podman-compose`, `kubectl` and `git`.
//! - `TEST_IMAGE_PROFILE=dev` builds the service's image by that cargo profile instead of `image`: in a fraction of the time, but
//!   its size and its digest are not checked.
//! - `TEST_OUTAGE_SECONDS=30` is the length of an outage, by default 8; `TEST_BACKUP_RECORDS=100000` also restores a backup of that
//!   many records; `TEST_COLD_STARTS=20` starts the compose file that many times with empty volumes, instead of once.
//! - `TEST_KUBE_PLAY` names a program that runs a kustomization: `up [--publish SERVICE=PORT] FOLDER`, `down`.
//! - `TEST_WOODPECKER_EXEC` names one that runs a Woodpecker file: `--event EVENT [--list] [--only STEP] FILE`. With
//!   `TEST_WOODPECKER=full` most steps of a push run; without, the quick ones.
//! - `TEST_UPGRADE_FROM` names the commit that is upgraded from. The default is `HEAD~1`, for the profile `image` alone.
//!
//! The trials, except `woodpecker`, depend on each other, and run in order, one at a time. They stop everything that they start, even
//! when they fail.

mod backup;
mod cluster;
mod compose;
mod documents;
mod http;
mod images;
mod outages;
mod run;
mod upgrade;
mod woodpecker;

#[path = "../support/markdown.rs"]
mod markdown;
#[path = "../support/ports.rs"]
mod ports;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// The report of a successful trial, or the reason of its failure.
type Outcome = Result<String, String>;

struct Check {
    name: &'static str,
    /// Required programs, and variables (in capitals) that name a program.
    needs: &'static [&'static str],
    run: fn() -> Outcome,
}

const CHECKS: &[Check] = &[
    Check { name: "images", needs: &["podman"], run: images::build },
    Check { name: "database_that_was_not_loaded", needs: &["podman"], run: images::refuse },
    Check { name: "compose", needs: &["podman", "podman-compose"], run: compose::whole_life },
    Check { name: "guides", needs: &["podman", "podman-compose", "curl", "openssl"], run: documents::guides },
    Check { name: "kubernetes", needs: &["podman", "kubectl", "TEST_KUBE_PLAY"], run: cluster::whole_life },
    Check {
        name: "upgrade",
        needs: &["podman", "podman-compose", "kubectl", "git"],
        run: upgrade::from_the_commit_before,
    },
    Check { name: "woodpecker", needs: &["podman", "TEST_WOODPECKER_EXEC"], run: woodpecker::every_event },
    Check { name: "same_digest_twice", needs: &["podman"], run: images::build_again },
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The trials depend on each other, so they never run in parallel.
    arguments.test_threads = Some(1);
    let asked = std::env::var("TEST_DEPLOYMENT").unwrap_or_default();
    let trials = CHECKS.iter().map(|check| {
        let missing = check.needs.iter().find(|need| !run::is_there(need));
        let run = move || {
            if let Some(missing) = missing {
                return Err(format!("TEST_DEPLOYMENT=all, and there is no {missing}").into());
            }
            let begin = std::time::Instant::now();
            let found = (check.run)()?;
            println!("{}, in {:.0} s: {found}", check.name, begin.elapsed().as_secs_f32());
            Ok(())
        };
        Trial::test(check.name, run).with_ignored_flag(
            asked.is_empty()
                || (missing.is_some() && asked != "all")
                || (check.name == "same_digest_twice" && !images::are_real())
                || (check.name == "upgrade" && !images::are_real() && std::env::var_os("TEST_UPGRADE_FROM").is_none()),
        )
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if !asked.is_empty() {
        // Only the images of this run are removed.
        images::forget();
    }
    conclusion.exit_code()
}
