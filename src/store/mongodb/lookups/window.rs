//! How many batches may be under way before lookups gather: found by trying.
//!
//! The more batches fly, the sooner the next one leaves, and the smaller each one is. Which counts for more depends on what
//! a round trip is made of: where it is mostly distance, more flights shorten the wait; where it is mostly the server's
//! work, more commands lengthen it for all. No constant is right for both. So every now and then the present number and a
//! neighbour take turns, for a few moments each, and the one under which lookups fared better stays. Turns rather than
//! before and after: the load changes by itself, but not in step with the turns.
//!
//! Better is less time for a lookup, or more lookups. The second must count, because the first is not all of a request's
//! time: where clients wait for their answers before they ask again, and processors are busy, commands that are saved
//! leave more for everything else, which shows in how much is asked. Where what is asked does not depend on the answers, it
//! is the same under both numbers, and time decides.
//!
//! A trial is held only while lookups gather; otherwise the number does not matter.

use std::time::Duration;

use tokio::time::Instant;

/// The numbers that are tried, each beside the next.
const SIZES: [usize; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

/// How many turns a trial has. Even: each side has as many.
const TURNS: u32 = 8;

/// How long a turn lasts at least, and in round trips.
const TURN: Duration = Duration::from_millis(20);
const TURN_FLIGHTS: u32 = 8;

/// How much better the neighbour must be to be taken, as a part of [`Sums::cost`]: less than that may be chance.
const GAIN: f64 = 0.06;

/// How long to rest between two trials, in turns: the first figure after a change, the second when nothing changes for
/// long.
const REST_TURNS: u32 = 32;
const REST_TURNS_MAX: u32 = 1_024;

/// A batch has stalled when it takes so many times as long as batches do, and at least that long.
const PATIENCE_TIMES: u32 = 4;
const PATIENCE_MIN: Duration = Duration::from_millis(5);

/// Which side of which trial a batch left under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    turn: u64,
}

#[derive(Debug)]
pub struct Window {
    /// Where in [`SIZES`] we are.
    at: usize,
    /// The last place that may be tried.
    end: usize,
    /// What a round trip takes, as a moving average. Zero before the first one.
    usual: Duration,
    trial: Option<Trial>,
    /// Counts turns, so that what left under an earlier one is known by it.
    turn: u64,
    rest_turns: u32,
    next_trial: Option<Instant>,
    /// Whether the next trial is of more flights.
    upwards: bool,
}

#[derive(Debug)]
struct Trial {
    neighbour: usize,
    turns_left: u32,
    turn_began: Instant,
    turn_ends: Instant,
    /// For the present number and for the neighbour.
    sums: [Sums; 2],
}

/// What was seen in the turns of one side.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// What the lookups took in all.
    waited: Duration,
    keys: u32,
    /// How long the turns were.
    time: Duration,
}

impl Sums {
    /// Time for a lookup, by the square of lookups in a time: more of them is worth more than a little less time, and their
    /// number differs only where it depends on what they cost. Not a number when nothing was seen.
    fn cost(self) -> f64 {
        let keys = f64::from(self.keys);
        let rate = keys / self.time.as_secs_f64();
        self.waited.as_secs_f64() / keys / (rate * rate)
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Window {
    /// At most `max` flights.
    pub fn new(max: usize) -> Self {
        let end = SIZES.iter().rposition(|size| *size <= max).unwrap_or(0);
        Self {
            at: 0,
            end,
            usual: Duration::ZERO,
            trial: None,
            turn: 0,
            rest_turns: REST_TURNS,
            next_trial: None,
            upwards: true,
        }
    }

    /// How many batches may be under way now.
    pub fn size(&self) -> usize {
        match &self.trial {
            Some(trial) if trial.side() == 1 => SIZES[trial.neighbour],
            _ => SIZES[self.at],
        }
    }

    /// How long a batch may take before the next one leaves without it.
    pub fn patience(&self) -> Duration {
        (self.usual * PATIENCE_TIMES).max(PATIENCE_MIN)
    }

    pub fn arm(&self) -> Arm {
        Arm { turn: self.turn }
    }

    /// A batch came back after `took`; its `keys` lookups took `waited` in all, from asking to answer. `gathering`: others
    /// wait already.
    pub fn landed(&mut self, arm: Arm, took: Duration, waited: Duration, keys: u32, gathering: bool) {
        self.usual = if self.usual.is_zero() { took } else { (self.usual * 15 + took) / 16 };
        let now = Instant::now();
        let turn_time = self.turn_time();
        match &mut self.trial {
            None => {
                let due = *self.next_trial.get_or_insert(now + turn_time * self.rest_turns);
                if gathering && now >= due {
                    self.begin(now);
                }
            }
            Some(trial) => {
                // What left under another turn had the other number beside it.
                let sums = &mut trial.sums[side(trial.turns_left)];
                if arm.turn == self.turn {
                    sums.waited += waited;
                    sums.keys += keys;
                }
                if now >= trial.turn_ends {
                    sums.time += now - trial.turn_began;
                    self.turn += 1;
                    trial.turns_left -= 1;
                    (trial.turn_began, trial.turn_ends) = (now, now + turn_time);
                    if trial.turns_left == 0 {
                        self.decide(now);
                    }
                }
            }
        }
    }

    fn turn_time(&self) -> Duration {
        TURN.max(self.usual * TURN_FLIGHTS)
    }

    fn begin(&mut self, now: Instant) {
        let neighbour = match self.upwards {
            true if self.at < self.end => self.at + 1,
            false if self.at > 0 => self.at - 1,
            // At an end of the ladder there is one neighbour.
            true if self.at > 0 => self.at - 1,
            false if self.at < self.end => self.at + 1,
            _ => return,
        };
        self.turn += 1;
        let (turn_began, turn_ends) = (now, now + self.turn_time());
        self.trial = Some(Trial { neighbour, turns_left: TURNS, turn_began, turn_ends, sums: Default::default() });
    }

    fn decide(&mut self, now: Instant) {
        let Some(trial) = self.trial.take() else { return };
        let [present, neighbour] = trial.sums.map(Sums::cost);
        // Never true where a side saw nothing.
        if neighbour < present * (1.0 - GAIN) {
            self.upwards = trial.neighbour > self.at;
            self.at = trial.neighbour;
            self.rest_turns = REST_TURNS;
        } else {
            self.upwards = !self.upwards;
            self.rest_turns = (self.rest_turns * 2).min(REST_TURNS_MAX);
        }
        self.next_trial = Some(now + self.turn_time() * self.rest_turns);
    }
}

impl Trial {
    /// Whose turn it is: 0 for the present number, 1 for the neighbour.
    fn side(&self) -> usize {
        side(self.turns_left)
    }
}

/// They alternate.
fn side(turns_left: u32) -> usize {
    (turns_left % 2) as usize
}
