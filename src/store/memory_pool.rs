//! The memory that responses may hold until their clients have read them.
//!
//! A slow client makes the process hold its response. All such memory is reserved from one pool: pages, large records,
//! stream buffers, compression windows. A response that does not fit is refused.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, Refusal, Result};

/// The unit of the pool: a semaphore counts in 32 bits.
const UNIT: usize = 1024;

/// Bytes that a response may take without a reservation: no more than the buffers of its connection.
pub const UNCOUNTED_BYTES: usize = 64 * 1024;

/// A bounded number of bytes. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryPool {
    free: Arc<Semaphore>,
    units: usize,
}

impl MemoryPool {
    pub fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(u32::MAX as usize >> 3);
        Self { free: Arc::new(Semaphore::new(units)), units }
    }

    /// The size of the pool, in bytes.
    pub fn capacity(&self) -> usize {
        self.units * UNIT
    }

    /// The bytes that are reserved.
    pub fn reserved(&self) -> usize {
        (self.units - self.free.available_permits()) * UNIT
    }

    /// An empty reservation.
    pub fn reservation(&self) -> MemoryReservation {
        MemoryReservation { pool: self.clone(), permit: None }
    }

    /// Caps a request at the size of the pool, so that a record larger than the pool can still be sent.
    fn units_for(&self, bytes: usize) -> usize {
        if bytes <= UNCOUNTED_BYTES { 0 } else { bytes.div_ceil(UNIT).min(self.units) }
    }
}

/// Memory reserved for one response. Released on drop.
#[derive(Debug)]
pub struct MemoryReservation {
    pool: MemoryPool,
    permit: Option<OwnedSemaphorePermit>,
}

impl MemoryReservation {
    /// Reserves `bytes` in all, if that is more than before.
    ///
    /// # Errors
    ///
    /// [`Kind::Unavailable`](super::Kind::Unavailable) when others hold too much of the pool. The reservation is then as it was.
    pub fn try_grow(&mut self, bytes: usize) -> Result<()> {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = self.pool.units_for(bytes).saturating_sub(held);
        if more == 0 {
            return Ok(());
        }
        let permit = self.pool.free.clone().try_acquire_many_owned(more as u32);
        let permit = permit.map_err(|_| {
            Error::refused(Refusal::OutOfMemory, "the memory for responses is used up (--response-memory-limit)")
        })?;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        Ok(())
    }

    /// Releases all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let needed = self.pool.units_for(bytes);
        if let Some(held) = &mut self.permit {
            drop(held.split(held.num_permits().saturating_sub(needed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn small_responses_need_no_reservation() {
        assert!(MemoryPool::new(0).reservation().try_grow(UNCOUNTED_BYTES).is_ok());
    }

    #[test]
    fn a_reservation_that_does_not_fit_is_refused_and_stays_as_it_was() {
        let pool = MemoryPool::new(8 * MIB);
        let (mut first, mut second) = (pool.reservation(), pool.reservation());
        first.try_grow(6 * MIB).unwrap();
        second.try_grow(MIB).unwrap();
        assert!(second.try_grow(3 * MIB).unwrap_err().is_unavailable());
        assert_eq!((pool.reserved(), pool.capacity()), (7 * MIB, 8 * MIB));
        first.shrink_to(MIB);
        second.try_grow(3 * MIB).unwrap();
        assert_eq!(pool.reserved(), 4 * MIB);
        drop((first, second));
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn a_response_larger_than_the_pool_takes_all_of_it() {
        let pool = MemoryPool::new(MIB);
        let mut reservation = pool.reservation();
        reservation.try_grow(3 * MIB).unwrap();
        reservation.try_grow(9 * MIB).unwrap();
        assert!(pool.reservation().try_grow(UNCOUNTED_BYTES + 1).is_err());
    }
}
