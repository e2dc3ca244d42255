//! What pages may take of the memory, all of them together.
//!
//! A page is gathered before it is sent, and kept until the client has taken it, which may take as long as the client
//! likes. So neither how many requests are under way nor how much one of them may gather bounds it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, PAGE_BYTES, Result};

/// What is counted at a time: a semaphore counts in 32 bits.
const UNIT: usize = 1024;

/// What a page takes without asking: no more than a chunk of a list, and what a connection may hold anyway.
pub const FREE_BYTES: usize = 64 * 1024;

/// So many bytes for pages.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    units: usize,
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(u32::MAX as usize >> 3);
        Self { free: Arc::new(Semaphore::new(units)), units }
    }

    /// How much there is, in bytes.
    pub fn bytes(&self) -> usize {
        self.units * UNIT
    }

    /// How much of it is taken, or kept for a page that waits until there is enough.
    pub fn taken(&self) -> usize {
        (self.units - self.free.available_permits()) * UNIT
    }

    /// What is taken of it for so many bytes. A page of one enormous record may take all there is.
    fn units_of(&self, bytes: usize) -> u32 {
        bytes.div_ceil(UNIT).min(self.units) as u32
    }

    /// A share for one page, of nothing yet.
    pub fn share(&self) -> Share {
        Share { budget: Some(self.clone()), held: None, bytes: FREE_BYTES, waited: Duration::ZERO }
    }
}

fn used_up() -> Error {
    Error::unavailable("the memory for pages is used up")
}

/// What one page takes. Given back when it is dropped. The default is of no budget, and may grow as it likes.
#[derive(Debug, Default)]
pub struct Share {
    budget: Option<Budget>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
    waited: Duration,
}

impl Share {
    /// Makes room for `bytes` of a page that will have `expected`. Returns whether there is some: if not, others must be
    /// [waited](Self::wait) for, which happens only as long as the share holds nothing. Pages that wait for one another while
    /// each holds something would wait for ever.
    ///
    /// # Errors
    ///
    /// [`Kind::Unavailable`](super::Kind::Unavailable) when more is needed than expected, and the others hold it.
    pub fn try_hold(&mut self, bytes: usize, expected: usize) -> Result<bool> {
        let Some(budget) = self.budget.as_ref().filter(|_| bytes > self.bytes) else { return Ok(true) };
        let Some(held) = &mut self.held else {
            let whole = bytes.max(expected);
            let Ok(permits) = budget.free.clone().try_acquire_many_owned(budget.units_of(whole)) else {
                return Ok(false);
            };
            (self.bytes, self.held) = (whole, Some(permits));
            return Ok(true);
        };
        let whole = bytes.saturating_mul(2).min(PAGE_BYTES).max(bytes);
        let more = (budget.units_of(whole) as usize).saturating_sub(held.num_permits());
        held.merge(budget.free.clone().try_acquire_many_owned(more as u32).map_err(|_| used_up())?);
        self.bytes = whole;
        Ok(true)
    }

    /// Waits for others to end, until there is room for `bytes` of a page that will have `expected`. Holds nothing when it is
    /// dropped before.
    ///
    /// # Errors
    ///
    /// [`Kind::Unavailable`](super::Kind::Unavailable) when there will never be.
    pub async fn wait(&mut self, bytes: usize, expected: usize) -> Result<()> {
        let Some(budget) = &self.budget else { return Ok(()) };
        let (whole, begun) = (bytes.max(expected), Instant::now());
        let permits = budget.free.clone().acquire_many_owned(budget.units_of(whole)).await;
        self.waited = begun.elapsed();
        (self.bytes, self.held) = (whole, Some(permits.map_err(|_| used_up())?));
        Ok(())
    }

    /// How long others were waited for, which is nothing that the store has done.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Gives back what is not needed for `bytes`, which is all there will be.
    pub fn keep(&mut self, bytes: usize) {
        let needed = if bytes > FREE_BYTES { bytes.div_ceil(UNIT) } else { 0 };
        if let Some(held) = &mut self.held {
            drop(held.split(held.num_permits().saturating_sub(needed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt, poll};

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn small_pages_take_nothing() {
        assert!(Budget::new(0).share().try_hold(FREE_BYTES, MIB).unwrap());
    }

    #[tokio::test]
    async fn a_page_waits_for_those_before_it_and_holds_what_it_has() {
        let budget = Budget::new(8 * MIB);
        let (mut first, mut second, mut third) = (budget.share(), budget.share(), budget.share());
        assert!(first.try_hold(MIB, 6 * MIB).unwrap());
        assert!(!second.try_hold(MIB, 3 * MIB).unwrap());
        {
            let mut wait = pin!(second.wait(MIB, 3 * MIB));
            assert!(poll!(&mut wait).is_pending(), "it has not waited");
            first.keep(2 * MIB);
            assert!(poll!(&mut wait).is_ready());
        }
        assert!(!third.try_hold(MIB, 4 * MIB).unwrap(), "the second holds nothing");
        assert!(third.try_hold(MIB, 3 * MIB).unwrap());
        assert_eq!((budget.taken(), budget.bytes()), (8 * MIB, 8 * MIB));
        drop((first, second, third));
        assert_eq!(budget.taken(), 0);
        assert!(budget.share().try_hold(MIB, 8 * MIB).unwrap());
    }

    #[test]
    fn a_wait_that_is_given_up_has_held_nothing() {
        let budget = Budget::new(8 * MIB);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.try_hold(MIB, 6 * MIB).unwrap());
        assert!(second.wait(MIB, 3 * MIB).now_or_never().is_none());
        assert!(!second.try_hold(MIB, 3 * MIB).unwrap());
        assert!(second.wait(MIB, 3 * MIB).now_or_never().is_none());
        drop(first);
        assert!(second.try_hold(MIB, 3 * MIB).unwrap());
        assert_eq!(budget.taken(), 3 * MIB);
    }

    #[test]
    fn a_page_that_grows_beyond_what_was_expected_never_waits_with_something_in_its_hands() {
        let budget = Budget::new(8 * MIB);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.try_hold(MIB, MIB).unwrap());
        assert!(first.try_hold(2 * MIB, MIB).unwrap());
        assert!(second.try_hold(MIB, 3 * MIB).unwrap());
        assert!(first.try_hold(5 * MIB, MIB).unwrap_err().is_unavailable());
    }

    #[test]
    fn a_page_larger_than_all_there_is_takes_all_there_is() {
        let budget = Budget::new(MIB);
        let mut share = budget.share();
        assert!(share.try_hold(3 * MIB, 0).unwrap());
        assert!(share.try_hold(9 * MIB, 0).unwrap());
    }

    #[test]
    fn without_a_budget_nothing_is_held() {
        assert!(Share::default().try_hold(usize::MAX, usize::MAX).unwrap());
    }
}
