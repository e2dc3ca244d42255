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

    /// A share for one page, of nothing yet.
    pub fn share(&self) -> Share {
        Share { budget: Some(self.clone()), held: None, bytes: FREE_BYTES, waited: Duration::ZERO }
    }
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
    /// Makes room for `bytes` of a page that will have `expected`. Waits for others to end, but only the first time: pages
    /// that wait for one another while each holds something would wait for ever.
    ///
    /// # Errors
    ///
    /// [`Kind::Unavailable`](super::Kind::Unavailable) when more is needed than expected, and the others hold it.
    pub async fn hold(&mut self, bytes: usize, expected: usize) -> Result<()> {
        let Some(budget) = self.budget.as_ref().filter(|_| bytes > self.bytes) else { return Ok(()) };
        // A page of one enormous record may take all there is.
        let units = |bytes: usize| bytes.div_ceil(UNIT).min(budget.units);
        let used_up = || Error::unavailable("the memory for pages is used up");
        match &mut self.held {
            None => {
                self.bytes = bytes.max(expected);
                let begun = Instant::now();
                let permits = budget.free.clone().acquire_many_owned(units(self.bytes) as u32).await;
                self.waited = begun.elapsed();
                self.held = Some(permits.map_err(|_| used_up())?);
            }
            Some(held) => {
                self.bytes = bytes.saturating_mul(2).min(PAGE_BYTES).max(bytes);
                let more = units(self.bytes).saturating_sub(held.num_permits());
                let more = budget.free.clone().try_acquire_many_owned(more as u32).map_err(|_| used_up())?;
                held.merge(more);
            }
        }
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
    use futures::FutureExt;

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn small_pages_take_nothing() {
        let budget = Budget::new(0);
        let hold = budget.share().hold(FREE_BYTES, MIB).now_or_never();
        assert!(hold.expect("no wait").is_ok());
    }

    #[test]
    fn a_page_waits_for_those_before_it_and_holds_what_it_has() {
        let budget = Budget::new(8 * MIB);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.hold(MIB, 6 * MIB).now_or_never().is_some());
        assert!(second.hold(MIB, 3 * MIB).now_or_never().is_none(), "it has not waited");
        first.keep(2 * MIB);
        assert_eq!((budget.taken(), budget.bytes()), (2 * MIB, 8 * MIB));
        assert!(second.hold(MIB, 3 * MIB).now_or_never().is_some());
        assert_eq!(budget.taken(), 5 * MIB);
        drop((first, second));
        assert_eq!(budget.taken(), 0);
        assert!(budget.share().hold(MIB, 8 * MIB).now_or_never().is_some());
    }

    #[test]
    fn a_page_that_grows_beyond_what_was_expected_never_waits_with_something_in_its_hands() {
        let budget = Budget::new(8 * MIB);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.hold(MIB, MIB).now_or_never().is_some());
        assert!(first.hold(2 * MIB, MIB).now_or_never().expect("no wait").is_ok());
        assert!(second.hold(MIB, 3 * MIB).now_or_never().is_some());
        let error = first.hold(5 * MIB, MIB).now_or_never().expect("no wait").unwrap_err();
        assert!(error.is_unavailable());
    }

    #[test]
    fn a_page_larger_than_all_there_is_takes_all_there_is() {
        let budget = Budget::new(MIB);
        let mut share = budget.share();
        assert!(share.hold(3 * MIB, 0).now_or_never().is_some());
        assert!(share.hold(9 * MIB, 0).now_or_never().expect("no wait").is_ok());
    }

    #[test]
    fn without_a_budget_nothing_is_held() {
        assert!(Share::default().hold(usize::MAX, usize::MAX).now_or_never().is_some());
    }
}
