//! The fallback over a primary that fails, hangs, is slow, lags and loses its changes, on a schedule that a seed determines, under
//! a clock that advances only when all tasks wait. The same seed gives the same run, to the millisecond.
//!
//! - `SIMULATION_SEEDS=20000 cargo test --test simulation` tries that many seeds; an ordinary run tries 40.
//! - `SIMULATION_SEED=1234 cargo test --test simulation` repeats one seed, and prints its events.

mod audit;
mod batches;
mod check;
mod faults;
mod promises;
mod replication;
mod run;
mod world;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rstest::rstest;
use run::Tally;
use world::Bug;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} must be a number, and is {value:?}")))
}

/// Returns the failing ones of `seeds`, each with the first broken guarantee, and the totals of all runs.
fn failures(seeds: Range<u64>, bug: Bug, enough: usize) -> (Vec<(u64, String)>, Tally) {
    let (next, failures) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().unwrap().len() >= enough {
                        break;
                    }
                    match run::seed(seed, bug) {
                        Ok(tally) => total.lock().unwrap().add(&tally),
                        Err(broken) => failures.lock().unwrap().push((seed, broken)),
                    }
                }
            });
        }
    });
    (failures.into_inner().unwrap(), total.into_inner().unwrap())
}

#[test]
fn every_promise_is_kept_under_every_schedule() {
    if let Some(seed) = number("SIMULATION_SEED") {
        let outcome = run::seed(seed, Bug::None);
        println!("{outcome:#?}");
        outcome.unwrap();
        return;
    }
    let (failures, tally) = failures(0..number("SIMULATION_SEEDS").unwrap_or(40), Bug::None, 5);
    println!("{tally:?}");
    for (seed, broken) in &failures {
        println!("SIMULATION_SEED={seed} cargo test --test simulation: {broken}");
    }
    assert!(failures.is_empty(), "{} seeds failed: see above", failures.len());
    // A simulation without events would keep every guarantee.
    assert!(tally.from_primary > 100 && tally.from_copy > 100 && tally.errors > 10, "{tally:?}");
    assert!(tally.lists > 100 && tally.absent > 100, "{tally:?}");
    assert!(tally.bounded > 100 && tally.refused > 10 && tally.after_a_time > 100, "{tally:?}");
    assert!(tally.audits > 100, "{tally:?}");
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    // A run at night has time for more.
    let seeds = if number("SIMULATION_SEEDS").is_some() { 20 } else { 5 };
    for seed in 0..seeds {
        assert_eq!(run::seed(seed, Bug::None), run::seed(seed, Bug::None), "seed {seed}");
    }
}

/// Checks the checker itself by planted bugs.
#[rstest]
#[case::a_change_is_forgotten(Bug::ForgottenChange)]
#[case::a_deletion_is_forgotten(Bug::ForgottenRemoval)]
#[case::a_proof_comes_too_early(Bug::EarlyProof)]
#[case::changes_are_shown_in_the_wrong_order(Bug::BackInTime)]
#[case::a_record_is_said_not_to_be(Bug::WrongAbsence)]
#[case::an_old_answer_is_given_again(Bug::OldAnswer)]
#[case::an_answer_says_that_it_is_younger_than_it_is(Bug::YoungAge)]
#[case::a_list_is_cut_short(Bug::ShortList)]
#[case::a_bound_is_ignored(Bug::IgnoredBound)]
#[case::a_cluster_time_is_ignored(Bug::IgnoredTime)]
#[case::an_answer_names_a_later_time(Bug::LateTime)]
fn a_planted_bug_is_found(#[case] bug: Bug) {
    let (failures, _) = failures(0..300, bug, 1);
    let (seed, broken) = failures.first().unwrap_or_else(|| panic!("{bug:?} was not found in 300 seeds"));
    println!("{bug:?} was found by seed {seed}: {broken}");
}
