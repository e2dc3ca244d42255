//! The limit on open files: each connection needs one, and a store without a free one cannot connect either.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files reserved for the store's connections and for what the process has open anyway.
const RESERVED: u64 = 256;

/// Raises the process's limit on open files to the hard limit. Returns the number of connections that fit, at most `wanted`.
///
/// Shells and service managers start programs with a low soft limit (usually 1,024) for programs that call `select`.
pub fn connections_within(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If the limit cannot be raised, the current one counts below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return wanted };
    let possible = usize::try_from(available(files)).unwrap_or(usize::MAX);
    if possible < wanted {
        tracing::warn!(
            connections = possible,
            "fewer connections than --max-connections: the limit on open files is {files}"
        );
    }
    wanted.min(possible)
}

/// Returns at least one: a server that accepts nothing would give the operator no answer and no log line.
fn available(files: u64) -> u64 {
    (files - RESERVED.min(files / 2)).max(1)
}

#[cfg(test)]
mod tests {
    use super::available;

    #[test]
    fn some_files_are_reserved_for_the_store_however_few_there_are() {
        assert_eq!([0, 1, 100, 1_024, 1 << 20].map(available), [1, 1, 50, 768, (1 << 20) - 256]);
    }
}
