//! A moment that a later process can compare with its own time.
//!
//! The system clock may be set back between two processes, which would make a stored replica look younger than it is. The time
//! since the machine was booted never goes back, but means nothing after another boot.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The resolution of `/proc/uptime`.
const UPTIME_RESOLUTION: Duration = Duration::from_millis(10);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since 1970.
    pub clock: u64,
    /// `None` where the system does not tell.
    pub uptime: Option<Uptime>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Uptime {
    pub boot: String,
    pub millis: u64,
}

impl Uptime {
    /// Reads the uptime from `/proc`; `None` on systems other than Linux.
    fn now() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        Some(Self { boot: boot.trim().to_owned(), millis: (seconds * 1000.0) as u64 })
    }
}

impl Moment {
    pub fn now() -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { clock: clock.as_millis() as u64, uptime: Uptime::now() }
    }

    /// Returns the time since this moment; the longer one if the clocks differ. `None` if the clock was set back and the
    /// machine was booted since.
    pub fn elapsed(&self) -> Option<Duration> {
        self.until(&Self::now())
    }

    fn until(&self, now: &Self) -> Option<Duration> {
        let by_clock = now.clock.checked_sub(self.clock).map(Duration::from_millis);
        let by_uptime = self.uptime.as_ref().zip(now.uptime.as_ref()).and_then(|(then, now)| {
            let millis = (then.boot == now.boot).then(|| now.millis.checked_sub(then.millis)).flatten()?;
            Some(Duration::from_millis(millis) + UPTIME_RESOLUTION)
        });
        by_clock.max(by_uptime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(clock: u64, boot: &str, millis: u64) -> Moment {
        Moment { clock, uptime: Some(Uptime { boot: boot.to_owned(), millis }) }
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_moment_later() {
        let then = moment(5_000_000, "a", 1_000);
        let minute = |now: &Moment| then.until(now).expect("a time").as_secs();
        assert_eq!(minute(&moment(5_060_000, "a", 61_000)), 60);
        assert_eq!(minute(&moment(1_000_000, "a", 61_000)), 60);
        assert_eq!(minute(&moment(5_010_000, "a", 61_000)), 60);
        assert_eq!(minute(&moment(5_060_000, "b", 500)), 60);
        assert_eq!(then.until(&moment(1_000_000, "b", 61_000)), None);
    }
}
