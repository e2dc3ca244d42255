//! The memory that the process may use, and what fits into it.

use std::fs;
use std::path::Path;

use bytesize::{ByteSize, GIB, MIB};

/// Memory for everything but responses and the replica: code, connections, the driver.
const PROCESS_BYTES: u64 = 64 * MIB;

/// The response memory, unless that is more than a quarter of all. Holds eight of the largest pages.
const RESPONSE_BYTES: u64 = 64 * MIB;

/// The largest replica where its memory is not the limit.
pub const REPLICA_BYTES: u64 = GIB;

/// The peak memory of a replica in units of its size. Measured: a replica of 93 MB takes 103 MB, and up to 202 MB while a new
/// snapshot is taken and both are held. The rest is a margin.
const REPLICA_FACTOR: f64 = 2.25;

/// The memory that the process may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryLimit {
    pub bytes: u64,
    /// True if a cgroup sets the limit; false if it is the memory of the machine.
    is_by_cgroup: bool,
}

/// Returns the default of the response memory limit.
pub fn response_default() -> ByteSize {
    ByteSize(MemoryLimit::read().map_or(RESPONSE_BYTES, |limit| limit.response_default()))
}

impl MemoryLimit {
    /// Returns the limit of this process, where the system tells it.
    pub fn read() -> Option<Self> {
        Self::read_below(Path::new("/"))
    }

    /// Reads `proc` and `sys` below `root`.
    fn read_below(root: &Path) -> Option<Self> {
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let by_cgroup = groups.lines().filter_map(|group| {
            // ID:CONTROLLERS:PATH, without controllers in version 2.
            let (controllers, path) = group.split_once(':')?.1.split_once(':')?;
            let (hierarchy, file) = match controllers {
                "" => ("sys/fs/cgroup", "memory.max"),
                _ if controllers.split(',').any(|one| one == "memory") => {
                    ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
                }
                _ => return None,
            };
            // The groups above a group limit it too. In some containers the path is the host's, and does not exist here.
            let groups = Path::new(path.trim_start_matches('/')).ancestors();
            let limit =
                |group| fs::read_to_string(root.join(hierarchy).join(group).join(file)).ok()?.trim().parse().ok();
            groups.filter_map(limit).min()
        });
        let by_cgroup: Option<u64> = by_cgroup.min();
        let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
        });
        match (by_cgroup, machine) {
            // Without a limit, version 1 has a number larger than any memory.
            (Some(bytes), machine) if machine.is_none_or(|machine| bytes < machine) => {
                Some(Self { bytes, is_by_cgroup: true })
            }
            (_, machine) => machine.map(|bytes| Self { bytes, is_by_cgroup: false }),
        }
    }

    fn process(&self) -> u64 {
        PROCESS_BYTES.min(self.bytes / 2)
    }

    fn response_default(&self) -> u64 {
        RESPONSE_BYTES.min(self.bytes / 4)
    }

    /// Returns the largest size limit of a replica that fits next to `responses`.
    pub fn replica_default(&self, responses: u64) -> u64 {
        (self.bytes.saturating_sub(self.process() + responses) as f64 / REPLICA_FACTOR) as u64
    }

    /// Checks that responses of `responses` bytes fit, and a replica of `replica` bytes in memory.
    ///
    /// # Errors
    ///
    /// A text with the sum, and what to set.
    pub fn check(&self, responses: u64, replica: u64) -> Result<(), String> {
        let (process, copies) = (self.process(), (replica as f64 * REPLICA_FACTOR) as u64);
        if copies.saturating_add(responses).saturating_add(process) <= self.bytes {
            return Ok(());
        }
        let owner = if self.is_by_cgroup { "of the cgroup" } else { "of this machine" };
        let [process, responses_size, limit] = [process, responses, self.bytes].map(ByteSize);
        let fitting = self.replica_default(responses);
        let (replica, advice) = match replica {
            0 => (String::new(), format!("--response-memory-limit to {} or less", ByteSize(self.bytes / 4))),
            _ if fitting == 0 => (String::new(), "a smaller --response-memory-limit".to_owned()),
            _ => {
                let sum = format!("{REPLICA_FACTOR} × {} for the replica + ", ByteSize(replica));
                (sum, format!("--fallback-size-limit to {} or less", ByteSize(fitting)))
            }
        };
        Err(format!(
            "the settings need more memory than there is: {replica}{responses_size} for responses + {process} for the \
             process > {limit} {owner}. Set {advice}, or raise the limit"
        ))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree:  1 kB\n");

    fn limit(files: &[(&str, &str)]) -> Option<MemoryLimit> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        MemoryLimit::read_below(root.path())
    }

    #[rstest]
    #[case::version_2(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "536870912\n")], 512 * MIB)]
    #[case::the_least_of_those_that_it_is_in(
        &[
            ("proc/self/cgroup", "0::/pod/container\n"),
            ("sys/fs/cgroup/pod/container/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/memory.max", "268435456\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
        ],
        256 * MIB
    )]
    #[case::version_1_in_a_container(
        &[
            ("proc/self/cgroup", "3:cpu,cpuacct:/docker/1\n2:memory:/docker/1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
        ],
        128 * MIB
    )]
    fn a_cgroup_limits_memory(#[case] files: &[(&str, &str)], #[case] bytes: u64) {
        assert_eq!(limit(&[files, &[MACHINE]].concat()), Some(MemoryLimit { bytes, is_by_cgroup: true }));
    }

    #[rstest]
    #[case::no_cgroup(&[])]
    #[case::version_2_without_a_limit(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")])]
    #[case::version_1_without_a_limit(
        &[("proc/self/cgroup", "2:memory:/\n"), ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")]
    )]
    #[case::another_controller(&[("proc/self/cgroup", "2:pids:/\n"), ("sys/fs/cgroup/memory.max", "1000\n")])]
    fn without_a_limit_the_memory_of_the_machine_counts(#[case] files: &[(&str, &str)]) {
        let expected = MemoryLimit { bytes: 8 * GIB, is_by_cgroup: false };
        assert_eq!(limit(&[files, &[MACHINE]].concat()), Some(expected));
    }

    #[test]
    fn a_system_that_tells_nothing_has_no_limit() {
        assert_eq!(limit(&[]), None);
    }

    #[rstest]
    fn the_defaults_fit_into_any_limit(#[values(1, 16 * MIB, 100 * MIB, 256 * MIB, 512 * MIB, 64 * GIB)] bytes: u64) {
        let limit = MemoryLimit { bytes, is_by_cgroup: true };
        let responses = limit.response_default();
        assert_eq!(limit.check(responses, limit.replica_default(responses)), Ok(()));
    }

    #[test]
    fn settings_that_do_not_fit_are_refused_with_the_sum() {
        let limit = MemoryLimit { bytes: 512 * MIB, is_by_cgroup: true };
        assert_eq!(
            limit.check(64 * MIB, GIB).unwrap_err(),
            "the settings need more memory than there is: 2.25 × 1.0 GiB for the replica + 64.0 MiB for responses + 64.0 MiB \
             for the process > 512.0 MiB of the cgroup. Set --fallback-size-limit to 170.7 MiB or less, or raise the limit"
        );
        assert_eq!(
            limit.check(GIB, 0).unwrap_err(),
            "the settings need more memory than there is: 1.0 GiB for responses + 64.0 MiB for the process > 512.0 MiB of \
             the cgroup. Set --response-memory-limit to 128.0 MiB or less, or raise the limit"
        );
    }
}
