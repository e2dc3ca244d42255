//! File descriptors: every connection is one, and where they run out, the store cannot connect either.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is kept for the store, its own connections among them, and for what the process has open anyway.
const RESERVED: u64 = 256;

/// Raises the process's limit of open files as far as the system lets it, and returns for how many connections that is
/// enough: `wanted`, or fewer.
///
/// A shell or a service manager starts programs with a low limit (1,024 usually), for the sake of those that still call
/// `select`, and lets them raise it.
pub fn connections_within(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // What cannot be raised stays, and counts below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return wanted };
    let possible = usize::try_from(room(files)).unwrap_or(usize::MAX);
    if possible < wanted {
        tracing::warn!(connections = possible, "the system lets this process open only {files} files, so fewer");
    }
    wanted.min(possible)
}

/// One connection at least: where there is no room at all, nothing is served, and the operator sees why.
fn room(files: u64) -> u64 {
    (files - RESERVED.min(files / 2)).max(1)
}

#[cfg(test)]
mod tests {
    use super::room;

    #[test]
    fn some_files_are_kept_for_the_store_however_few_there_are() {
        assert_eq!([0, 1, 100, 1_024, 1 << 20].map(room), [1, 1, 50, 768, (1 << 20) - 256]);
    }
}
