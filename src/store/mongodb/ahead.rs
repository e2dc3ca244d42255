//! What lists hold in memory before it is read: how much is asked for at a time, and when.
//!
//! A reader takes as long as it likes, and there may be hundreds. So a list asks the server for its next batch only when
//! the one before was taken, and ahead of its reader only as long as all lists together hold no more than
//! [`HELD_BYTES`]. Beyond that a list holds what its reader is at, and asks for less at a time.
//!
//! The server counts records, and bytes are what counts here: so how large records are is taken from those that came before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::record::Record;
use crate::store::{Error, Query, Result};

/// How many records the server sends at a time, at most. Its own default is as many as fit into 16 MB.
pub const BATCH_RECORDS: u32 = 1_000;

/// How much JSON a batch should have, in bytes: so much that a round trip does not count beside it.
pub const BATCH_BYTES: usize = 512 * 1024;

/// And how much when there is little room left.
const SMALL_BYTES: usize = 64 * 1024;

/// How much lists hold together, in bytes, beside what each needs to go on.
const HELD_BYTES: usize = 16 * 1024 * 1024;

/// How many records are asked for while it is not known how large they are.
const UNKNOWN: u32 = 100;

/// How much JSON is left out of a batch of parts of records, in bytes, at most: how large such parts are depends on which
/// ones are asked for, and those of before may have been others.
const WHOLE_BYTES: usize = 4 * 1024 * 1024;

/// What is counted at a time: a semaphore counts in 32 bits.
const UNIT: usize = 1024;

/// What all lists of a store hold, and how large its records are.
#[derive(Clone, Debug)]
pub struct Held {
    free: Arc<Semaphore>,
    whole: Arc<AtomicUsize>,
    parts: Arc<AtomicUsize>,
}

impl Default for Held {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(HELD_BYTES / UNIT)), whole: Arc::default(), parts: Arc::default() }
    }
}

impl Held {
    /// Room for so many bytes, if there is as much.
    pub fn room(&self, bytes: usize) -> Option<Room> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        self.free.clone().try_acquire_many_owned(units).ok().map(|permit| Room(Some(permit)))
    }

    /// Makes `room` one for so many bytes. Returns whether it is.
    pub fn fit(&self, room: &mut Room, bytes: usize) -> bool {
        let units = bytes.div_ceil(UNIT);
        let Some(permit) = &mut room.0 else {
            *room = self.room(bytes).unwrap_or_default();
            return room.0.is_some();
        };
        let has = permit.num_permits();
        if has > units {
            drop(permit.split(has - units));
            return true;
        }
        match self.room((units - has) * UNIT) {
            Some(Room(Some(more))) => permit.merge(more),
            _ => return false,
        }
        true
    }

    /// Whether there is so little room left that lists should ask for less at a time.
    fn is_low(&self) -> bool {
        self.free.available_permits() < HELD_BYTES / UNIT / 2
    }

    fn sizes(&self, query: &Query) -> &AtomicUsize {
        if query.fields.is_some() { &self.parts } else { &self.whole }
    }

    /// Notes how large records are.
    pub fn learn(&self, query: &Query, records: usize, bytes: usize) {
        if let Some(each) = bytes.checked_div(records) {
            self.sizes(query).store(each.max(1), Ordering::Relaxed);
        }
    }

    /// How many records of `query` to ask for at a time, where there is this room for the next ones.
    pub fn batch(&self, query: &Query, room: &Room) -> u32 {
        let whole = self.whole.load(Ordering::Relaxed);
        let bytes = if self.is_low() { SMALL_BYTES } else { room.batch_bytes() };
        match self.sizes(query).load(Ordering::Relaxed) {
            0 => UNKNOWN,
            each if query.fields.is_some() => fitting(bytes, each).min(fitting(WHOLE_BYTES, whole)),
            each => fitting(bytes, each),
        }
    }

    /// As [`batch`](Self::batch), or no more than the reader takes.
    pub fn batch_up_to_limit(&self, query: &Query, room: &Room) -> u32 {
        let batch = self.batch(query, room);
        let few = query.limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(batch);
        // Where some may be left out, those should not cost a round trip each.
        let least = if query.filters.is_empty() { 1 } else { 100 };
        few.max(least).min(batch)
    }

    /// How many bytes a first batch may have.
    pub fn first_bytes(&self, query: &Query) -> usize {
        match (self.sizes(query).load(Ordering::Relaxed), query.limit) {
            (0, _) | (_, None) => BATCH_BYTES,
            (each, Some(limit)) => each.saturating_mul(limit).clamp(1, BATCH_BYTES),
        }
    }
}

fn fitting(bytes: usize, each: usize) -> u32 {
    u32::try_from(bytes / each.max(1)).unwrap_or(BATCH_RECORDS).clamp(1, BATCH_RECORDS)
}

/// What a batch holds of that, until it was read.
#[derive(Debug, Default)]
pub struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    /// Whether there is none, and the batch comes because somebody waits for it.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    fn batch_bytes(&self) -> usize {
        if self.is_none() { SMALL_BYTES } else { BATCH_BYTES }
    }

    /// How many of these records, which have so many bytes, a list may hold: all, unless they are far more than a batch should
    /// have.
    pub fn held_of(&self, records: &[Record], bytes: usize) -> usize {
        let most = self.batch_bytes();
        if bytes <= 2 * most {
            return records.len();
        }
        let mut bytes = 0;
        let few = records.iter().take_while(|record| {
            bytes += record.json().len();
            bytes <= most
        });
        few.count().max(1)
    }
}

/// Some records of a list.
pub struct Batch {
    pub records: Vec<Record>,
    pub room: Room,
}

pub fn bytes_of(records: &[Record]) -> usize {
    records.iter().map(|record| record.json().len()).sum()
}

pub fn unread() -> Error {
    Error::broken("nobody reads the list any more")
}

/// Where a list goes, batch by batch.
pub struct Batches {
    /// `None` says that this was all.
    sender: mpsc::Sender<Result<Option<Batch>>>,
    /// How many batches were asked for.
    wanted: watch::Receiver<usize>,
    sent: AtomicUsize,
    held: Held,
}

/// Where they come from.
pub struct Reading {
    receiver: mpsc::Receiver<Result<Option<Batch>>>,
    wanted: watch::Sender<usize>,
}

pub fn batches(held: Held) -> (Batches, Reading) {
    let (sender, receiver) = mpsc::channel(1);
    let (wants, wanted) = watch::channel(0);
    (Batches { sender, wanted, sent: AtomicUsize::new(0), held }, Reading { receiver, wanted: wants })
}

impl Batches {
    /// Waits until a batch of so many bytes, about, may be asked for.
    ///
    /// # Errors
    ///
    /// When nobody reads the list any more.
    pub async fn ready(&self, bytes: usize) -> Result<Room> {
        // What was sent was taken.
        drop(self.sender.reserve().await.map_err(|_| unread())?);
        let sent = self.sent.load(Ordering::Relaxed);
        let mut wanted = self.wanted.clone();
        if *wanted.borrow() <= sent {
            if let Some(room) = self.held.room(bytes) {
                return Ok(room);
            }
            wanted.wait_for(|wanted| *wanted > sent).await.map_err(|_| unread())?;
        }
        Ok(self.held.room(bytes).unwrap_or_default())
    }

    /// Sends what there was room for.
    ///
    /// # Errors
    ///
    /// When nobody reads the list any more.
    pub async fn send(&self, records: Vec<Record>, mut room: Room) -> Result<()> {
        // Where there is no room for it, somebody waits for it all the same.
        self.held.fit(&mut room, bytes_of(&records));
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.sender.send(Ok(Some(Batch { records, room }))).await.map_err(|_| unread())
    }

    /// Says that this was all, or why it was not.
    pub async fn end(&self, how: Result<()>) {
        // Nobody may listen any more.
        let _ = self.sender.send(how.map(|()| None)).await;
    }

    /// Returns when nobody reads the list any more.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Reading {
    /// The next batch. `None` when the reader of the list gave up.
    pub async fn next(&mut self) -> Option<Result<Option<Batch>>> {
        self.wanted.send_modify(|wanted| *wanted += 1);
        self.receiver.recv().await
    }

    pub fn close(&mut self) {
        self.receiver.close();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;
    use crate::query::Selection;
    use crate::record::Key;

    fn records(count: usize, bytes: usize) -> Vec<Record> {
        (0..count).map(|id| Record::new(Key::Integer(id as i64), vec![b'x'; bytes])).collect()
    }

    #[tokio::test]
    async fn a_batch_is_asked_for_when_the_one_before_was_taken_and_ahead_only_as_long_as_there_is_room() {
        let held = Held::default();
        let (batches, mut reading) = batches(held.clone());
        // One that was not taken, then one that was.
        let room = batches.ready(0).await.expect("a reader");
        batches.send(records(1, 10_000), room).await.expect("a reader");
        assert!(poll!(pin!(batches.ready(10_000))).is_pending());
        let first = reading.next().await.expect("a batch").expect("no error").expect("not the end");
        let ahead = batches.ready(10_000).await.expect("a reader");
        batches.send(records(1, 10_000), ahead).await.expect("a reader");
        let second = reading.next().await.expect("a batch").expect("no error").expect("not the end");
        // Others hold all there is.
        let others = held.room(held.free.available_permits() * UNIT);
        assert!(others.is_some() && held.room(1).is_none());
        {
            let mut ready = pin!(batches.ready(10_000));
            assert!(poll!(&mut ready).is_pending());
            let mut next = pin!(reading.next());
            assert!(poll!(&mut next).is_pending());
            // Somebody waits for it.
            assert!(poll!(&mut ready).is_ready());
        }
        drop((first, second, others));
        assert_eq!(held.free.available_permits() * UNIT, HELD_BYTES);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_reader_who_has_gone() {
        let held = Held::default();
        let (batches, mut reading) = batches(held.clone());
        let room = batches.ready(0).await.expect("a reader");
        batches.send(records(1, 1), room).await.expect("a reader");
        reading.next().await.expect("a batch").expect("no error");
        let _others = held.room(held.free.available_permits() * UNIT);
        let mut ready = pin!(batches.ready(1));
        assert!(poll!(&mut ready).is_pending());
        drop(reading);
        assert!(ready.await.is_err());
    }

    #[test]
    fn so_many_are_asked_for_as_have_the_bytes_that_a_batch_should_have() {
        let (held, all) = (Held::default(), Query::all());
        let room = || held.room(1).expect("room");
        let part = Query {
            fields: Selection::parse(&[("fields".into(), "n".into())]).expect("fields").fields,
            ..Query::all()
        };
        assert_eq!((held.batch(&all, &room()), held.batch(&part, &room())), (UNKNOWN, UNKNOWN));
        held.learn(&all, 100, 100 * 4096);
        held.learn(&part, 100, 100 * 10);
        assert_eq!(held.batch(&all, &room()) as usize, BATCH_BYTES / 4096);
        // Other parts of them may be as large as they are.
        assert_eq!(held.batch(&part, &room()) as usize, BATCH_RECORDS as usize);
        held.learn(&all, 1, 64 * 1024);
        assert_eq!(held.batch(&part, &room()) as usize, WHOLE_BYTES / (64 * 1024));
        held.learn(&all, 1, 16 * 1024 * 1024);
        assert_eq!(held.batch(&all, &room()), 1);
        held.learn(&all, 1, 1);
        assert_eq!(held.batch(&all, &room()), BATCH_RECORDS);
        held.learn(&all, 1, 4096);
        assert_eq!(held.batch(&all, &Room::default()) as usize, SMALL_BYTES / 4096);
        let _others = held.room(HELD_BYTES / 2 + UNIT);
        assert_eq!(held.batch(&all, &room()) as usize, SMALL_BYTES / 4096);
        let limited = |limit| Query { limit: Some(limit), ..Query::all() };
        assert_eq!(held.batch_up_to_limit(&limited(3), &room()), 3);
        assert_eq!(held.batch_up_to_limit(&limited(10_000), &room()), held.batch(&all, &room()));
    }

    #[test]
    fn far_too_much_is_not_held() {
        for (count, bytes, held) in
            [(1_000, 1_000, 1_000), (200, 10_000, BATCH_BYTES / 10_000), (3, 4_000_000, 1), (0, 0, 0)]
        {
            let room = Held::default().room(1).expect("room");
            assert_eq!(room.held_of(&records(count, bytes), count * bytes), held, "of {count} with {bytes}");
        }
    }
}
