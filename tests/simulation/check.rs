//! Checks of the guarantees of the fallback.

use std::time::Duration;

use records::record::{Document, Key};
use records::store::{ClusterTime, Freshness};
use tokio::time::Instant;

use crate::world::{KEYS, Version, World};

/// The tolerance of times: ages and timers are in whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);

/// An answer or an item of a list, with the times of the request and of the answer.
pub struct Answer<'a> {
    pub key: i64,
    pub record: Option<&'a Document>,
    /// The age of an answer from the replica; `None` if the primary answered.
    pub age: Option<Duration>,
    pub asked: Instant,
    pub got: Instant,
}

/// Returns the versions of a key, each with the time at which it ended.
fn lives(history: &[Version]) -> impl Iterator<Item = (&Version, Option<Instant>)> {
    history.iter().enumerate().map(|(index, version)| (version, history.get(index + 1).map(|next| next.from)))
}

impl Answer<'_> {
    /// Returns the time since which the primary must have held this record.
    fn since(&self) -> Instant {
        self.asked - self.age.map_or(Duration::ZERO, |age| age + ROUNDING)
    }

    /// Checks that the primary held this record at some time from [`since`](Self::since) on.
    pub fn is_true(&self, world: &World) -> Result<(), String> {
        let history = &world.history[self.key as usize];
        let fits = |(version, end): (&Version, Option<Instant>)| {
            version.record.as_ref() == self.record
                && version.from <= self.got
                && end.is_none_or(|end| end >= self.since())
        };
        if lives(history).any(fits) {
            return Ok(());
        }
        let (record, age) = (self.record, self.age);
        let held: Vec<_> = lives(history)
            .filter(|(_, end)| end.is_none_or(|end| end >= self.since()))
            .map(|(version, _)| &version.record)
            .collect();
        Err(format!("key {}: {record:?} of age {age:?} was not what the primary held then: {held:?}", self.key))
    }

    /// It has every write up to `time`, which is the number of a write.
    pub fn has_writes(&self, world: &World, time: Option<ClusterTime>) -> Result<(), String> {
        let time = time.map_or(0, ClusterTime::bits);
        let history = &world.history[self.key as usize];
        let floor = history.iter().rev().map(|version| version.number).find(|number| *number <= time);
        let has = self.goes_on(world, floor.unwrap_or_default()).map(drop);
        has.map_err(|broken| format!("it is not as of {time}: {broken}"))
    }

    /// Checks that a reader who has seen version `floor` of this key sees that version or a later one, and returns it.
    pub fn goes_on(&self, world: &World, floor: u64) -> Result<u64, String> {
        let history = &world.history[self.key as usize];
        let fits = |version: &&Version| version.number >= floor && version.record.as_ref() == self.record;
        history
            .iter()
            .find(fits)
            .map(|version| version.number)
            .ok_or_else(|| format!("key {}: {:?} was shown after version {floor}", self.key, self.record))
    }
}

/// Checks that a list is in order, that each of its records is true, and that it has every record that existed throughout.
pub fn list(
    world: &World,
    listed: &[Document],
    age: Option<Duration>,
    asked: Instant,
    got: Instant,
    time: Option<ClusterTime>,
) -> Result<(), String> {
    let keys: Vec<_> = listed.iter().map(|record| record.key().clone()).collect();
    if !keys.is_sorted_by(|a, b| a < b) {
        return Err(format!("a list is out of order: {keys:?}"));
    }
    for key in 0..KEYS {
        let record = listed.iter().find(|record| *record.key() == Key::int64(key));
        let answer = Answer { key, record, age, asked, got };
        let holds = answer.is_true(world).and_then(|()| answer.has_writes(world, time));
        holds.map_err(|broken| format!("in a list, {broken}"))?;
    }
    Ok(())
}

/// An answer of this age, and as of this time, is within the bounds.
pub fn bounds(freshness: &Freshness, age: Option<Duration>, as_of: Option<ClusterTime>) -> Result<(), String> {
    // A reader does not know if the primary has failed meanwhile.
    let max = match (freshness.max_staleness, freshness.max_staleness_on_error) {
        (Some(max), Some(on_error)) => Some(max.max(on_error)),
        _ => None,
    };
    let is_young = age.is_none_or(|age| max.is_none_or(|max| !max.is_zero() && age <= max));
    let is_from_replica = age.is_some() || !freshness.only_replica;
    if is_young && is_from_replica && as_of >= freshness.not_before {
        return Ok(());
    }
    Err(format!("an answer of age {age:?} and as of {as_of:?} is beyond {freshness:?}"))
}
