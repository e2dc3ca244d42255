//! Instances of the service over a replica set of three, all on this machine. They share its processors, so the comparison shows
//! the cost of spreading the same load.

use std::cell::Cell;
use std::process::Command;
use std::sync::Arc;

use super::servers::mongod::Mongod;
use super::{Comparison, Server, Turn, data, fill, load};

const DATABASE: &str = "compare";

const CLIENTS: usize = 60;

/// The name, the number of instances, and the options added to the URI.
const CONTESTANTS: [(&str, usize, &str); 4] = [
    ("records, 1 instance, the primary", 1, ""),
    ("records, 1 instance, nearest", 1, "&readPreference=nearest"),
    ("records, 3 instances, the primary", 3, ""),
    ("records, 3 instances, nearest", 3, "&readPreference=nearest"),
];

pub fn run(comparison: &Comparison) {
    let set = Mongod::start_set_of(3).expect("a replica set");
    let (host, options) =
        set[0].url().split_once("/?").map(|(host, set)| (host.to_owned(), set.to_owned())).expect("a set");
    let url = |more: &str| format!("{host}/{DATABASE}?{options}{more}");
    // Waits until every member has all records.
    fill(&url("&w=3"), data::FEW);

    let paths = Arc::new(data::paths(data::FEW, data::FEW));
    let instances = CONTESTANTS
        .map(|(_, count, more)| (0..count).map(|_| Server::records(&url(more), &paths[0])).collect::<Vec<_>>());
    let spent = CONTESTANTS.map(|_| Cell::new(Spent::default()));
    let turns = instances.iter().zip(&spent).zip(CONTESTANTS).map(|((servers, spent), (name, ..))| -> Turn<'_> {
        let ports: Vec<u16> = servers.iter().map(|server| server.port).collect();
        let (paths, turn, set) = (paths.clone(), comparison.turn, &set);
        let run = move || {
            let before = processor_seconds(set);
            let seen = load::run(&ports, &paths, CLIENTS, turn);
            let Spent { seconds, lookups } = spent.get();
            let lookups = lookups + seen.per_second * turn.as_secs_f64();
            spent.set(Spent { seconds: seconds + processor_seconds(set) - before, lookups });
            seen
        };
        (name, Box::new(run))
    });
    comparison.hold(&format!("A replica set of three, {CLIENTS} connections"), turns.collect());

    println!("\n| | keys a batch | MongoDB's processor time for a lookup, µs |\n|---|---|---|");
    for ((servers, spent), (name, ..)) in instances.iter().zip(&spent).zip(CONTESTANTS) {
        let sum = |what: &str| servers.iter().map(|server| server.metric(what)).sum::<f64>();
        let keys = sum("records_store_batch_keys_sum") / sum("records_store_batch_keys_count");
        let Spent { seconds, lookups } = spent.get();
        println!("| {name} | {keys:.1} | {:.0} |", seconds / lookups * 1e6);
    }
}

/// The processor time of all members, and the number of lookups for it.
#[derive(Clone, Copy, Default)]
struct Spent {
    seconds: f64,
    lookups: f64,
}

fn processor_seconds(set: &[Mongod]) -> f64 {
    let output = Command::new("getconf").arg("CLK_TCK").output().expect("getconf");
    let per_second: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    let ticks = set.iter().map(|member| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", member.process())).expect("a process");
        // User and system time are the 12th and 13th field after the name, which may contain spaces.
        let fields: Vec<f64> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        fields[11] + fields[12]
    });
    ticks.sum::<f64>() / per_second
}
