//! The turn to scan the primary, among siblings that all need a replica: one of them scans, and the others take its replica.
//!
//! Each tells the others its state and a random number. One that needs a scan waits while another claims the turn or scans, or waits
//! with a lower number. Otherwise it claims the turn, and asks the others once more before it scans. This spares the primary; it is
//! not needed for correctness, so a sibling that cannot be reached is not waited for, and neither is one that makes no progress.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The HTTP header with the state.
pub const SCAN_HEADER: &str = "records-replica-scan";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Waiting,
    /// About to scan, unless a sibling was faster.
    Claiming,
    Scanning,
}

/// The next step of an instance that has asked its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask again after a pause.
    Wait,
    /// Ask again at once, to see if a sibling claimed the turn at the same time.
    Confirm,
    Scan,
}

/// The state of an instance that needs a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanState {
    pub instance: u64,
    pub phase: Phase,
    /// The records that were copied.
    pub records: u64,
}

impl fmt::Display for ScanState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::Waiting => "waiting",
            Phase::Claiming => "claiming",
            Phase::Scanning => "scanning",
        };
        write!(f, "{phase} {} {}", self.instance, self.records)
    }
}

impl FromStr for ScanState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let phase = match words.next() {
            Some("waiting") => Phase::Waiting,
            Some("claiming") => Phase::Claiming,
            Some("scanning") => Phase::Scanning,
            _ => return Err(()),
        };
        let mut number = || words.next().and_then(|word| word.parse().ok()).ok_or(());
        Ok(Self { phase, instance: number()?, records: number()? })
    }
}

/// The phase of this instance.
#[derive(Debug)]
pub struct ScanTurn {
    instance: u64,
    phase: Mutex<Option<Phase>>,
    records: AtomicU64,
}

impl Default for ScanTurn {
    fn default() -> Self {
        Self { instance: fastrand::u64(..), phase: Mutex::default(), records: AtomicU64::new(0) }
    }
}

/// The turn of this instance to scan, or its wait for it.
pub struct TurnGuard(Arc<ScanTurn>);

impl Drop for TurnGuard {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl ScanTurn {
    /// Tells the siblings that this instance waits for its turn.
    pub fn wait(self: &Arc<Self>) -> TurnGuard {
        self.set(Some(Phase::Waiting));
        TurnGuard(self.clone())
    }

    pub fn set(&self, phase: Option<Phase>) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    fn phase(&self) -> Option<Phase> {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_records(&self, records: u64) {
        self.records.store(records, Ordering::Relaxed);
    }

    /// Returns the state, if this instance needs a scan.
    pub fn state(&self) -> Option<ScanState> {
        let records = self.records.load(Ordering::Relaxed);
        self.phase().map(|phase| ScanState { instance: self.instance, phase, records })
    }

    pub fn is_self(&self, other: &ScanState) -> bool {
        other.instance == self.instance
    }

    /// Takes the next step. `siblings` are their states since the step before.
    ///
    /// An instance confirms its claim only after it has seen no other one. Of two claims, the later one therefore sees the earlier
    /// one. If both see each other, the higher number withdraws, and the lower one waits until it has seen that.
    pub fn step(&self, siblings: &[ScanState]) -> Step {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = *phase == Some(Phase::Claiming);
        let (mut must_wait, mut is_contested) = (false, false);
        for other in siblings.iter().filter(|other| !self.is_self(other)) {
            let is_first = other.instance < self.instance;
            must_wait |= match other.phase {
                Phase::Scanning => true,
                Phase::Claiming => !claims || is_first,
                Phase::Waiting => !claims && is_first,
            };
            is_contested |= other.phase == Phase::Claiming;
        }
        let (next, step) = match claims {
            _ if must_wait => (Phase::Waiting, Step::Wait),
            false => (Phase::Claiming, Step::Confirm),
            true if is_contested => (Phase::Claiming, Step::Wait),
            true => (Phase::Scanning, Step::Scan),
        };
        *phase = Some(next);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An instance, and the states of its siblings that it has read since its last step.
    struct Instance {
        turn: ScanTurn,
        read: Vec<ScanState>,
        asked: usize,
    }

    impl Instance {
        fn new(random: &mut fastrand::Rng) -> Self {
            let turn = ScanTurn { instance: random.u64(..), ..ScanTurn::default() };
            Self { turn, read: Vec::new(), asked: 0 }
        }
    }

    /// Lets one of `instances` after the other read the state of a sibling or take a step, in a random order, until one scans.
    /// Returns the number of those that scan after `more` further steps.
    fn scanning(random: &mut fastrand::Rng, instances: &mut [Instance], more: usize) -> usize {
        let mut left = more;
        while left > 0 {
            let at = random.usize(..instances.len());
            let sibling = instances[at].asked;
            if let Some(state) = instances.get(sibling).map(|sibling| sibling.turn.state()) {
                instances[at].read.extend(state);
                instances[at].asked += 1;
                continue;
            }
            let own = &mut instances[at];
            own.asked = 0;
            let read = std::mem::take(&mut own.read);
            if own.turn.phase() != Some(Phase::Scanning) {
                own.turn.step(&read);
            }
            left -= usize::from(instances.iter().any(|instance| instance.turn.phase() == Some(Phase::Scanning)));
        }
        instances.iter().filter(|instance| instance.turn.phase() == Some(Phase::Scanning)).count()
    }

    #[test]
    fn one_instance_of_many_scans_however_they_start() {
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut instances: Vec<_> = (0..random.usize(1..5)).map(|_| Instance::new(&mut random)).collect();
            assert_eq!(scanning(&mut random, &mut instances, 20), 1, "seed {seed}");
        }
    }

    #[test]
    fn a_state_reads_back_as_it_was_written() {
        for phase in [Phase::Waiting, Phase::Claiming, Phase::Scanning] {
            let state = ScanState { instance: u64::MAX, phase, records: 7 };
            assert_eq!(state.to_string().parse(), Ok(state));
        }
        assert!("scanning 1".parse::<ScanState>().is_err());
    }
}
