//! The servers for tests of remote stores: named by the environment, or started once by this process.
//!
//! - `TEST_<NAME>_URL` (`TEST_MONGODB_URL=mongodb://127.0.0.1:27017`) names one that runs. Each test makes a database of
//!   its own there, so credentials need an `authSource` in the query.
//! - `TEST_MONGOD` names an executable, which is started and ended here.
//! - `TEST_REQUIRE=memory,sled,mongodb` names the stores that must be tested: if one cannot be, its tests fail instead of being
//!   ignored.

#![allow(dead_code)]

#[path = "mongod.rs"]
pub mod mongod;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use mongod::Mongod;

/// A server by the name of its backend, or why it did not start.
static STARTED: Mutex<Option<HashMap<String, Result<Mongod, String>>>> = Mutex::new(None);

/// Returns true if there is a server for the backend `name`, without starting it.
pub fn is_configured(name: &str) -> bool {
    named(name).is_some() || (name == "mongodb" && mongod::program().is_some())
}

/// Returns a text that tells what to set for a server of the backend `name`.
pub fn how_to_configure(name: &str) -> String {
    let variable = variable(name);
    let executable = if name == "mongodb" { ", or TEST_MONGOD to the path of a mongod executable" } else { "" };
    format!("set {variable} to the URL of a running server{executable}")
}

/// Returns the backends that must be tested.
pub fn required() -> Vec<String> {
    let names = std::env::var("TEST_REQUIRE").unwrap_or_default();
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Returns true if tests must have a server of the backend `name` that they may break. Tests may not break a server that
/// `TEST_<NAME>_URL` names: another run has its own.
pub fn must_be_breakable(name: &str) -> bool {
    named(name).is_none() && required().iter().any(|required| required == name)
}

/// Returns the URL of the server for the backend `name`, with `database` as its path. Starts the server if needed.
pub fn url(name: &str, database: &str) -> Result<String, String> {
    let url = match named(name) {
        Some(url) => url,
        None if is_configured(name) => started(name)?,
        None => return Err(how_to_configure(name)),
    };
    let (front, query) = url.split_once('?').map_or((url.as_str(), None), |(front, query)| (front, Some(query)));
    let (scheme, authority) = front.split_once("://").ok_or("the URL of a server has :// in it")?;
    let authority = authority.split('/').next().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{scheme}://{authority}/{database}{query}"))
}

/// Returns a name, for a database for example, that no test and no other run has used.
///
/// The process id alone is not enough: each trial may be a separate process, and the system reuses process ids.
pub fn unused_name(prefix: &str) -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{prefix}_{now}_{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// Stops the servers that were started. A static is never dropped, so `main` must call this.
pub fn stop_all() {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).take();
}

fn started(name: &str) -> Result<String, String> {
    let mut servers = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let server = servers.get_or_insert_default().entry(name.to_owned());
    let server = server.or_insert_with(|| Mongod::start().map_err(|error| format!("mongod did not start: {error}")));
    server.as_ref().map(Mongod::url).map_err(Clone::clone)
}

fn named(name: &str) -> Option<String> {
    std::env::var(variable(name)).ok().filter(|url| !url.is_empty())
}

fn variable(name: &str) -> String {
    format!("TEST_{}_URL", name.to_uppercase())
}
