//! A primary with all possible faults, which records its whole history.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use records::document::extended_json;
use records::record::{Document, Key, RecordId};
use records::store::{
    Change, ChangeBatch, ChangeStream, ChangeStreamError, ClusterTime, Error, Freshness, GetResult, ListRequest,
    ListResult, Refusal, Result, ResumeToken, Row, RowStream, SnapshotRows, Store,
};
use tokio::time::{Instant, sleep};

/// A planted bug in the primary or in the store over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    /// The change stream omits a put.
    ForgottenChange,
    /// The change stream omits a removal.
    ForgottenRemoval,
    /// The change stream claims to be current while it lags.
    EarlyProof,
    /// The change stream returns an older state than before.
    BackInTime,
    // The others are bugs of the store: see `run::Buggy`.
    WrongAbsence,
    OldAnswer,
    YoungAge,
    ShortList,
    /// The bounds of readers on staleness count for nothing.
    IgnoredBound,
    /// Their cluster times count for nothing.
    IgnoredTime,
    /// An answer says that it is of a later time than it is.
    LateTime,
}

pub const KEYS: i64 = 8;

/// The time-out of a call, which the contract requires.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Up,
    Refusing,
    Hanging,
}

/// The state of a key from a time on.
#[derive(Clone, Debug)]
pub struct Version {
    pub from: Instant,
    pub number: u64,
    pub record: Option<Document>,
}

#[derive(Clone, Copy)]
struct Event {
    at: Instant,
    number: u64,
    key: i64,
}

pub struct World {
    pub condition: Condition,
    /// The duration of a call.
    pub latency: Duration,
    /// The delay of a change in the change stream.
    pub lag: Duration,
    pub has_changes: bool,
    /// The number of times that all change streams were cut.
    pub cuts: u64,
    /// The history up to this change is no longer available.
    pub expired: u64,
    /// The versions of each key.
    pub history: Vec<Vec<Version>>,
    events: Vec<Event>,
    bug: Bug,
    pub random: fastrand::Rng,
}

impl World {
    fn new(seed: u64, bug: Bug) -> Self {
        let begin = Instant::now();
        let nothing = vec![Version { from: begin, number: 0, record: None }];
        Self {
            condition: Condition::Up,
            latency: Duration::from_millis(2),
            lag: Duration::from_millis(5),
            has_changes: true,
            cuts: 0,
            expired: 0,
            history: vec![nothing; KEYS as usize],
            events: Vec::new(),
            bug,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Puts a record, or removes it.
    pub fn write(&mut self, key: i64, there: bool) {
        let number = self.last() + 1;
        let record = there.then(|| {
            let text = format!(r#"{{"_id":{key},"n":{number}}}"#);
            extended_json::parse(text.as_bytes()).expect("a document")
        });
        let from = Instant::now();
        self.history[key as usize].push(Version { from, number, record });
        self.events.push(Event { at: from, number, key });
    }

    pub fn last(&self) -> u64 {
        self.events.len() as u64
    }

    pub fn now(&self, key: i64) -> &Version {
        self.history[key as usize].last().expect("each key begins with nothing")
    }

    fn version(&self, event: Event) -> &Version {
        let history = &self.history[event.key as usize];
        history.iter().find(|version| version.number == event.number).expect("an event is a version")
    }
}

/// The primary.
#[derive(Clone)]
pub struct Primary(pub Arc<Mutex<World>>);

impl Primary {
    pub fn new(seed: u64, bug: Bug) -> Self {
        Self(Arc::new(Mutex::new(World::new(seed, bug))))
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Waits for half of a call's duration, and fails like the primary.
    async fn way(&self) -> Result<()> {
        let begin = Instant::now();
        let half = self.with(|world| {
            let most = world.latency.as_millis() as u64;
            Duration::from_millis(world.random.u64(0..=most) / 2)
        });
        sleep(half).await;
        loop {
            match self.with(|world| world.condition) {
                Condition::Up => return Ok(()),
                Condition::Refusing => return Err(Error::unavailable("refused")),
                Condition::Hanging if begin.elapsed() >= TIMEOUT => return Err(Error::unavailable("timed out")),
                Condition::Hanging => sleep(Duration::from_millis(40)).await,
            }
        }
    }

    async fn find(&self, key: Option<i64>, not_before: Option<ClusterTime>) -> Result<GetResult> {
        self.way().await?;
        let as_of = self.reached(not_before)?;
        let record = self.with(|world| key.and_then(|key| world.now(key).record.clone()));
        self.way().await?;
        Ok(GetResult { as_of, ..record.into() })
    }

    /// The number of the last write is the time; a time that is still to come is refused.
    fn reached(&self, not_before: Option<ClusterTime>) -> Result<Option<ClusterTime>> {
        let now = ClusterTime::new(self.with(|world| world.last()));
        if not_before > now { Err(Error::refused(Refusal::TooStale, "ahead")) } else { Ok(now) }
    }

    /// Lists the records, each in its state at the time when it is read.
    fn rows(&self, from: i64) -> RowStream {
        let steps = stream::unfold((self.clone(), Some(from)), |(primary, key)| async move {
            let key = key.filter(|key| *key < KEYS)?;
            match primary.way().await {
                Ok(()) => {
                    let record = primary.with(|world| world.now(key).record.clone());
                    Some((record.map(|record| Ok(record.into())), (primary, Some(key + 1))))
                }
                Err(error) => Some((Some(Err(error)), (primary, None))),
            }
        });
        steps.filter_map(|step| async { step }).boxed()
    }
}

/// Returns the key of an id, if the simulation uses it.
fn key_of(id: &RecordId) -> Option<i64> {
    id.as_str().parse().ok().filter(|key| (0..KEYS).contains(key))
}

impl Store for Primary {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        Box::pin(self.find(key_of(id), None))
    }

    fn get_fresh<'a>(&'a self, id: &'a RecordId, freshness: &'a Freshness) -> BoxFuture<'a, Result<GetResult>> {
        Box::pin(self.find(key_of(id), freshness.not_before))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        Box::pin(async move {
            let as_of = self.reached(request.freshness.not_before)?;
            let after = request.after.map(|after| after.position);
            let is_after = move |row: &Result<Row>| {
                row.as_ref().map_or(true, |row| after.as_ref().is_none_or(|after| row.position() > *after))
            };
            let rows = self.rows(0).filter(move |row| std::future::ready(is_after(row)));
            let mut rows = rows.take(request.limit.unwrap_or(usize::MAX)).boxed();
            let list: ListResult = match rows.next().await.transpose()? {
                Some(first) => stream::iter([Ok(first)]).chain(rows).boxed().into(),
                None => ListResult::empty(),
            };
            Ok(ListResult { as_of, ..list })
        })
    }

    fn upsert(&self, _: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Error::broken("the test does not write")) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { self.find(None, None).await.map(drop) })
    }

    fn snapshot(&self, after: Option<Key>) -> BoxFuture<'_, Result<SnapshotRows>> {
        let from = after.map_or(0, |after| (0..KEYS).find(|key| Key::int64(*key) > after).unwrap_or(KEYS));
        Box::pin(async move { Ok(SnapshotRows { rows: self.rows(from), is_in_order: true }) })
    }

    fn changes(&self, after: Option<ResumeToken>) -> ChangeStream {
        let position = after.map(|token| u64::from_le_bytes(token.0.as_ref().try_into().expect("a token of ours")));
        let reader =
            Reader { primary: self.clone(), cuts: 0, position, resumes: position.is_some(), shown: [0; KEYS as usize] };
        let batches = stream::unfold((Some(reader), false), |(reader, open)| async move {
            let mut reader = reader?;
            let batch = if open { reader.batch().await } else { reader.open().await };
            let rest = batch.is_ok().then_some(reader);
            Some((batch, (rest, true)))
        });
        batches.boxed()
    }
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated primary")
    }
}

struct Reader {
    primary: Primary,
    /// The number of cuts when this stream began.
    cuts: u64,
    position: Option<u64>,
    /// True while a resumed stream has not caught up.
    resumes: bool,
    /// The last version that was sent of each key.
    shown: [u64; KEYS as usize],
}

type Item = std::result::Result<ChangeBatch, ChangeStreamError>;

impl Reader {
    async fn open(&mut self) -> Item {
        self.primary.way().await.map_err(ChangeStreamError::Unavailable)?;
        let position = self.position;
        let opened = self.primary.with(|world| {
            if !world.has_changes {
                return Err(ChangeStreamError::Unsupported("none".to_owned()));
            }
            if position.is_some_and(|position| position < world.expired) {
                return Err(ChangeStreamError::HistoryLost("expired".to_owned()));
            }
            Ok((world.cuts, world.last()))
        });
        let (cuts, last) = opened?;
        self.cuts = cuts;
        let position = *self.position.get_or_insert(last);
        self.primary.way().await.map_err(ChangeStreamError::Unavailable)?;
        Ok(ChangeBatch { token: Some(token(position)), ..ChangeBatch::default() })
    }

    async fn batch(&mut self) -> Item {
        let pause = self.primary.with(|world| world.random.u64(1..60));
        sleep(Duration::from_millis(pause)).await;
        self.primary.way().await.map_err(ChangeStreamError::Unavailable)?;
        let position = self.position.unwrap_or_default();
        let primary = self.primary.clone();
        let batch = primary.with(|world| {
            if world.cuts != self.cuts {
                return Err(ChangeStreamError::Unavailable(Error::unavailable("cut")));
            }
            if position < world.expired && world.random.bool() {
                return Err(ChangeStreamError::HistoryLost("expired".to_owned()));
            }
            let (now, bug) = (Instant::now(), world.bug);
            let lag = if self.resumes { Duration::ZERO } else { world.lag };
            let visible = |event: &Event| event.at + lag <= now;
            let mut events: Vec<Event> =
                world.events[position as usize..].iter().copied().take_while(visible).collect();
            let all = events.len();
            if !self.resumes && world.random.u8(0..4) == 0 {
                // Sends only a part of the events.
                events.truncate(all / 2);
            }
            let whole = events.len() == all;
            let mut changes = Vec::new();
            for (index, event) in events.iter().enumerate() {
                let later = events[index + 1..].iter().any(|later| later.key == event.key);
                // A resumed stream sends only the last state.
                if (self.resumes && later) || event.number <= self.shown[event.key as usize] {
                    continue;
                }
                let lookup = world.random.u8(0..3) == 0;
                let version = if lookup { world.now(event.key) } else { world.version(*event) }.clone();
                let forgotten = match bug {
                    Bug::ForgottenChange => version.record.is_some(),
                    Bug::ForgottenRemoval => version.record.is_none(),
                    _ => false,
                };
                if forgotten && world.random.u8(0..20) == 0 {
                    continue;
                }
                if bug != Bug::BackInTime {
                    self.shown[event.key as usize] = version.number;
                }
                changes.push(match version.record {
                    Some(record) => Change::Put(record),
                    None => Change::Remove(Key::int64(event.key)),
                });
            }
            let current = match bug {
                Bug::EarlyProof => Some(now),
                _ => whole.then(|| now - lag),
            };
            self.resumes = false;
            self.position = Some(position + events.len() as u64);
            // Some batches have no token, so a resumed stream repeats events.
            let token = (world.random.u8(0..5) > 0).then(|| token(position + events.len() as u64));
            let as_of = ClusterTime::new(self.position.unwrap_or_default());
            Ok(ChangeBatch { changes, token, current, as_of, ..ChangeBatch::default() })
        })?;
        self.primary.way().await.map_err(ChangeStreamError::Unavailable)?;
        Ok(batch)
    }
}

fn token(position: u64) -> ResumeToken {
    ResumeToken(position.to_le_bytes().into())
}
