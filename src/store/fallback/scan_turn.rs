//! The turn to scan the primary, among siblings that all need a replica: one of them scans, and the others take its replica.
//!
//! Each tells the others its state and a random number. One that needs a scan waits while another scans, or waits with a lower
//! number. This spares the primary; it is not needed for correctness, so a sibling that cannot be reached is not waited for, and
//! neither is one that makes no progress.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The HTTP header with the state.
pub const SCAN_HEADER: &str = "records-replica-scan";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Waiting,
    Scanning,
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

    /// Returns the phase before.
    pub fn set(&self, phase: Option<Phase>) -> Option<Phase> {
        std::mem::replace(&mut *self.phase.lock().unwrap_or_else(PoisonError::into_inner), phase)
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

    /// Returns true if `other` has the turn. Of two that scan already, the one with the lower number goes on.
    pub fn belongs_to(&self, other: &ScanState) -> bool {
        let is_first = other.instance < self.instance;
        match (other.phase, self.phase()) {
            _ if self.is_self(other) => false,
            (Phase::Scanning, Some(Phase::Scanning)) | (Phase::Waiting, Some(Phase::Waiting)) => is_first,
            (Phase::Scanning, _) => true,
            (Phase::Waiting, _) => false,
        }
    }
}
