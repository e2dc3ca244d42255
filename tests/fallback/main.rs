//! The fallback with a real MongoDB that is killed, stuck, cut off, stepped down, or absent. Every test starts its own servers.
//!
//! Without `TEST_MONGOD` the tests are ignored, or fail if `TEST_REQUIRE` names the store. `TEST_OUTAGE_SECONDS` is the length
//! of an outage under load, by default 3. `TEST_TIMES` also checks times, which need a quiet machine. `TEST_SOAK_SECONDS` adds a
//! soak test of that length. In a build without a backend in a directory, the tests that need one are ignored.

mod bootstrap;
mod changes;
#[cfg(feature = "mongodb")]
mod checker;
mod directories;
mod exposure;
mod faults;
#[cfg(feature = "mongodb")]
mod freshness;
mod ids;
mod load;
mod process;
#[cfg(feature = "mongodb")]
mod sharded;
#[cfg(feature = "mongodb")]
mod soak;
mod support;

#[path = "../support/log.rs"]
mod log;
#[cfg(feature = "mongodb")]
#[path = "../support/mongos.rs"]
mod mongos;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/servers.rs"]
mod servers;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use records::store::{BACKENDS, BackendKind};
use servers::mongod;
use tokio::runtime::Runtime;

type Case = (&'static str, Needs, fn(&Runtime));

/// The backends that the replica of a case needs.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Any,
    /// A backend that keeps its records when it is opened again.
    Local,
}

/// Lists the cases of a file, grouped by the backends that they need, unless any will do.
macro_rules! cases {
    ($($needs:ident { $($name:ident,)* })*) => {
        pub const CASES: &[crate::Case] = &[$($(
            (stringify!($name), crate::Needs::$needs, |runtime| runtime.block_on($name())),
        )*)*];
    };
    ($($name:ident,)*) => { crate::cases! { Any { $($name,)* } } };
}
pub(crate) use cases;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let required = servers::must_be_breakable(support::NAME);
    let compiled_in = BACKENDS.iter().any(|backend| backend.name == support::NAME);
    let has_local = BACKENDS.iter().any(|backend| backend.kind == BackendKind::Local);
    let trial = |&(name, needs, case): &Case| {
        let run = move || {
            mongod::program().ok_or("set TEST_MONGOD to the path of a mongod executable")?;
            // Each test has its own runtime, which ends the tasks that the test leaves.
            case(&Runtime::new().map_err(|error| error.to_string())?);
            Ok(())
        };
        let is_untestable = needs == Needs::Local && !has_local;
        Trial::test(name, run).with_ignored_flag(is_untestable || (mongod::program().is_none() && !required))
    };
    #[cfg(feature = "mongodb")]
    let soak = if soak::time().is_some() { soak::CASES } else { &[] };
    #[cfg(feature = "mongodb")]
    let by_driver = [freshness::CASES, checker::CASES, sharded::CASES, soak].concat();
    #[cfg(not(feature = "mongodb"))]
    let by_driver = Vec::new();
    let cases = [
        bootstrap::CASES,
        changes::CASES,
        directories::CASES,
        exposure::CASES,
        faults::CASES,
        &by_driver,
        ids::CASES,
        load::CASES,
        process::CASES,
    ]
    .concat();
    let trials = if compiled_in { cases.iter().map(trial).collect() } else { Vec::new() };
    libtest_mimic::run(&arguments, trials).exit_code()
}
