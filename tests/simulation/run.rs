//! A run of the simulation: a primary, a store over it, a writer, a task that causes faults, and readers that check every answer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::{StreamExt, TryStreamExt};
use records::record::{Document, RecordId};
use records::store::fallback::{self, Mode, Settings};
use records::store::{
    ClusterTime, Freshness, GetResult, ListRequest, ListResult, Options, Result as StoreResult, Store,
};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::check::{self, Answer};
use crate::world::{Bug, Condition, KEYS, Primary};

/// The length of the phase with faults.
const TROUBLE: Duration = Duration::from_secs(6);

/// The time in which the store must recover completely.
const RECOVERY: Duration = Duration::from_secs(35);

const READERS: usize = 5;
const WRITERS: usize = 2;

/// The time-out of the primary, after which the replica answers.
const AFTER: Duration = Duration::from_millis(250);

/// The counts of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub from_primary: u64,
    pub from_copy: u64,
    pub absent: u64,
    pub lists: u64,
    pub errors: u64,
    /// Answers to readers with bounds, those among them with a cluster time, and refusals.
    pub bounded: u64,
    pub after_a_time: u64,
    pub refused: u64,
    pub audits: u64,
    pub writes: u64,
    pub faults: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.from_primary += other.from_primary;
        self.from_copy += other.from_copy;
        self.absent += other.absent;
        self.lists += other.lists;
        self.errors += other.errors;
        self.bounded += other.bounded;
        self.after_a_time += other.after_a_time;
        self.refused += other.refused;
        self.audits += other.audits;
        self.writes += other.writes;
        self.faults += other.faults;
    }
}

/// Runs `seed`. An error is the first broken guarantee.
pub fn seed(seed: u64, bug: Bug) -> Result<Tally, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(LocalSet::new().run_until(simulate(seed, bug)))
}

struct Run {
    primary: Primary,
    store: Arc<dyn Store>,
    mode: Mode,
    max_age: Option<Duration>,
    /// True once the replica is complete: from then on no request may fail, unless the replica is too old.
    whole: Cell<bool>,
    over: Cell<bool>,
    broken: RefCell<Option<String>>,
    tally: RefCell<Tally>,
}

async fn simulate(seed: u64, bug: Bug) -> Result<Tally, String> {
    let primary = Primary::new(seed, bug);
    let (mode, max_age, refresh) = primary.with(|world| {
        for key in 0..KEYS {
            if world.random.bool() {
                world.write(key, true);
            }
        }
        world.has_changes = world.random.u8(0..4) > 0;
        let mode = if world.random.bool() { Mode::Standby } else { Mode::Replica };
        let max_age = (world.random.u8(0..3) == 0).then(|| Duration::from_millis(world.random.u64(500..3_000)));
        (mode, max_age, Duration::from_millis(world.random.u64(200..1_000)))
    });
    let settings = Settings {
        url: "memory:".to_owned(),
        source: "simulation".to_owned(),
        scope: String::new(),
        mode,
        timeout: AFTER,
        max_age,
        first_snapshot_within: Duration::ZERO,
        snapshot_interval: refresh,
        // Every record, again and again.
        audit_interval: Duration::from_millis(300),
        size_limit: u64::MAX,
        from: Vec::new(),
        save: None,
        options: Options::default(),
    };
    // Seeds the random pauses between the attempts of the replicator.
    fastrand::seed(seed);
    let store = fallback::over(Arc::new(primary.clone()), settings).await.map_err(|error| error.to_string())?;
    let store: Arc<dyn Store> = Arc::new(Buggy { store, bug, primary: primary.clone(), old: Mutex::new(None) });
    let (whole, over) = (Cell::new(false), Cell::new(false));
    let run =
        Rc::new(Run { primary, store, mode, max_age, whole, over, broken: None.into(), tally: Default::default() });
    let mut tasks =
        vec![tokio::task::spawn_local(troublemaker(run.clone())), tokio::task::spawn_local(watcher(run.clone()))];
    tasks.extend((0..WRITERS).map(|_| tokio::task::spawn_local(writer(run.clone()))));
    tasks.extend((0..READERS).map(|_| tokio::task::spawn_local(reader(run.clone()))));
    join_all(tasks).await;
    if run.broken.borrow().is_none() {
        let recovered = recovered(&run).await;
        run.check(recovered);
    }
    match run.broken.take() {
        Some(broken) => Err(format!("{mode:?}, {broken}")),
        None => Ok(run.tally.take()),
    }
}

impl Run {
    /// Records the first broken guarantee.
    fn check(&self, outcome: Result<(), String>) {
        if let Err(broken) = outcome {
            self.over.set(true);
            self.broken.borrow_mut().get_or_insert(broken);
        }
    }

    fn random(&self, range: std::ops::Range<u64>) -> u64 {
        self.primary.with(|world| world.random.u64(range))
    }

    async fn pause(&self, range: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.random(range))).await;
    }

    /// The bounds of a reader: none, an age, a cluster time, or both.
    fn freshness(&self) -> Freshness {
        self.primary.with(|world| {
            if world.random.bool() {
                return Freshness::default();
            }
            let max_staleness = world.random.bool().then(|| match world.random.u8(0..4) {
                0 => Duration::ZERO,
                _ => Duration::from_millis(world.random.u64(1..1_500)),
            });
            let on_error = match world.random.bool() {
                true => max_staleness,
                false => max_staleness.map(|max| max + Duration::from_millis(world.random.u64(0..1_500))),
            };
            let last = world.last();
            let not_before = match world.random.u8(0..8) {
                0..=3 => None,
                // The last write, a recent one, and one that is still to come.
                4 => ClusterTime::new(last),
                5 | 6 => ClusterTime::new(last.saturating_sub(world.random.u64(0..10))),
                _ => ClusterTime::new(last + world.random.u64(1..5)),
            };
            let only_replica = world.random.u8(0..8) == 0;
            Freshness { max_staleness, max_staleness_on_error: on_error, only_replica, not_before }
        })
    }

    /// Counts an answer to a reader with bounds.
    fn count<T>(&self, freshness: &Freshness, answer: &StoreResult<T>) {
        let mut tally = self.tally.borrow_mut();
        match answer {
            _ if !freshness.is_bounded() => {}
            Ok(_) => {
                tally.bounded += 1;
                tally.after_a_time += u64::from(freshness.not_before.is_some());
            }
            Err(error) => tally.refused += u64::from(error.refusal().is_some()),
        }
    }

    /// Checks that a request is answered within this time, once there is a usable replica.
    fn served<T>(
        &self,
        whole: bool,
        freshness: &Freshness,
        asked: Instant,
        within: Duration,
        answer: &StoreResult<T>,
    ) -> Result<(), String> {
        if !whole || self.max_age.is_some() || freshness.is_bounded() {
            return Ok(());
        }
        if let Err(error) = answer {
            return Err(format!("a replica was usable, and a request failed: {}", error.report()));
        }
        match asked.elapsed() {
            took if took <= within + Duration::from_millis(10) => Ok(()),
            took => Err(format!("a replica was usable, and a request took {took:?}")),
        }
    }

    fn young(&self, age: Option<Duration>) -> Result<(), String> {
        match (age, self.max_age) {
            (Some(age), Some(max)) if age > max => Err(format!("the copy answered at the age of {age:?}")),
            _ => Ok(()),
        }
    }
}

async fn writer(run: Rc<Run>) {
    while !run.over.get() {
        run.pause(1..120).await;
        run.primary.with(|world| {
            let (key, there) = (world.random.i64(0..KEYS), world.random.u8(0..4) > 0);
            // Only an existing record can be removed.
            if there || world.now(key).record.is_some() {
                world.write(key, there);
            }
        });
        run.tally.borrow_mut().writes += 1;
    }
}

async fn troublemaker(run: Rc<Run>) {
    let begin = Instant::now();
    while begin.elapsed() < TROUBLE && !run.over.get() {
        run.pause(20..900).await;
        run.tally.borrow_mut().faults += 1;
        run.primary.with(|world| {
            let random = |world: &mut crate::world::World, most| Duration::from_millis(world.random.u64(0..most));
            match world.random.u8(0..12) {
                0..=2 => world.condition = Condition::Up,
                3 | 4 => world.condition = Condition::Refusing,
                5 | 6 => world.condition = Condition::Hanging,
                7 => world.latency = random(world, 800),
                8 => world.latency = random(world, 20),
                9 => world.lag = random(world, 600),
                10 => world.cuts += 1,
                _ => world.expired = world.history.iter().flatten().map(|version| version.number).max().unwrap_or(0),
            }
        });
    }
    run.over.set(true);
}

/// Notices when the replica becomes complete.
async fn watcher(run: Rc<Run>) {
    while !run.over.get() {
        if let Ok(health) = run.store.health().await {
            run.whole.set(
                run.whole.get()
                    || !health.degraded.is_some_and(|detail| detail.contains("no complete fallback replica")),
            );
        }
        run.pause(5..100).await;
    }
}

async fn reader(run: Rc<Run>) {
    let mut floors = [0; KEYS as usize];
    while !run.over.get() {
        run.pause(0..40).await;
        let outcome = match run.random(0..10) {
            0 => list(&run).await,
            _ => get(&run, &mut floors).await,
        };
        run.check(outcome);
    }
}

async fn get(run: &Run, floors: &mut [u64; KEYS as usize]) -> Result<(), String> {
    let key = run.random(0..KEYS as u64) as i64;
    let (asked, whole) = (Instant::now(), run.whole.get());
    let freshness = run.freshness();
    let answer = match freshness.is_bounded() {
        true => run.store.get_fresh(&key.to_string().into(), &freshness).await,
        false => run.store.get(&key.to_string().into()).await,
    };
    run.count(&freshness, &answer);
    run.served(whole, &freshness, asked, AFTER, &answer)?;
    let mut tally = run.tally.borrow_mut();
    let Ok(GetResult { document: record, staleness: age, as_of, .. }) = answer else {
        tally.errors += 1;
        return Ok(());
    };
    tally.absent += u64::from(record.is_none());
    match age {
        Some(_) => tally.from_copy += 1,
        None => tally.from_primary += 1,
    }
    run.young(age)?;
    check::bounds(&freshness, age, as_of)?;
    let answer = Answer { key, record: record.as_ref(), age, asked, got: Instant::now() };
    run.primary.with(|world| {
        answer.is_true(world)?;
        answer.has_writes(world, as_of.max(freshness.not_before))?;
        // Only answers of the replica never go back. It may lag the primary.
        if age.is_some() {
            let floor = &mut floors[key as usize];
            *floor = answer.goes_on(world, *floor)?;
        }
        Ok(())
    })
}

async fn list(run: &Run) -> Result<(), String> {
    let (asked, whole) = (Instant::now(), run.whole.get());
    let freshness = run.freshness();
    let begun = run.store.list(ListRequest { freshness, ..ListRequest::default() }).await;
    run.count(&freshness, &begun);
    run.served(whole, &freshness, asked, AFTER * 4, &begun)?;
    let (age, as_of, listed): (_, _, StoreResult<Vec<Document>>) = match begun {
        Ok(list) => (list.staleness, list.as_of, list.rows.map_ok(|row| row.document).try_collect().await),
        Err(error) => (None, None, Err(error)),
    };
    let Ok(listed) = listed else {
        run.tally.borrow_mut().errors += 1;
        return Ok(());
    };
    run.tally.borrow_mut().lists += 1;
    run.young(age)?;
    check::bounds(&freshness, age, as_of)?;
    let time = as_of.max(freshness.not_before);
    run.primary.with(|world| check::list(world, &listed, age, asked, Instant::now(), time))
}

/// Checks that after the faults the primary answers in standby mode, and that in replica mode the replica equals it.
async fn recovered(run: &Run) -> Result<(), String> {
    run.primary.with(|world| {
        world.condition = Condition::Up;
        world.latency = Duration::from_millis(2);
        world.lag = Duration::from_millis(5);
    });
    let healed = Instant::now();
    sleep(Duration::from_secs(2)).await;
    if run.mode == Mode::Standby {
        let answer = run.store.get(&"0".into()).await.map_err(|error| error.report().to_string())?;
        if answer.staleness.is_some() {
            return Err("reads are not back at the primary after 2 s".to_owned());
        }
    }
    sleep(RECOVERY - healed.elapsed()).await;
    let health = run.store.health().await.map_err(|error| error.report().to_string())?;
    // Between two snapshots, a replica may become older than allowed.
    if let Some(detail) = health.degraded
        && (run.max_age.is_none() || run.primary.with(|world| world.has_changes))
    {
        return Err(format!("all is well again, and yet: {detail}"));
    }
    let audits = |outcome| crate::audit::count(&*run.store, outcome);
    if audits("different") > 0 {
        return Err("an audit found a difference".to_owned());
    }
    run.tally.borrow_mut().audits += audits("equal");
    for key in 0..KEYS {
        let found = run.store.get(&key.to_string().into()).await.map_err(|error| error.report().to_string())?;
        let held = run.primary.with(|world| world.now(key).record.clone());
        if found.document != held {
            return Err(format!("key {key} is {:?}, and stays so, where the primary holds {held:?}", found.document));
        }
    }
    Ok(())
}

/// A store with planted bugs, to test the checks.
#[derive(Debug)]
struct Buggy {
    store: Arc<dyn Store>,
    bug: Bug,
    primary: Primary,
    old: Mutex<Option<(RecordId, GetResult)>>,
}

impl Buggy {
    fn strikes(&self, bug: Bug) -> bool {
        self.bug == bug && self.primary.with(|world| world.random.u8(0..50)) == 0
    }

    fn falsified(&self, id: &RecordId, mut found: GetResult) -> GetResult {
        if self.strikes(Bug::WrongAbsence) {
            found.document = None;
        }
        if self.bug == Bug::YoungAge {
            found.staleness = found.staleness.map(|_| Duration::ZERO);
        }
        if self.bug == Bug::LateTime {
            found.as_of = found.as_of.and_then(|_| ClusterTime::new(self.primary.with(|world| world.last())));
        }
        if self.bug == Bug::OldAnswer {
            let mut old = self.old.lock().unwrap();
            match &*old {
                Some((of, answer)) if of == id => return answer.clone(),
                Some(_) => {}
                None => *old = Some((id.clone(), found.clone())),
            }
        }
        found
    }
}

impl Store for Buggy {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, StoreResult<GetResult>> {
        Box::pin(async move { self.store.get(id).await.map(|found| self.falsified(id, found)) })
    }

    fn get_fresh<'a>(&'a self, id: &'a RecordId, freshness: &'a Freshness) -> BoxFuture<'a, StoreResult<GetResult>> {
        Box::pin(async move {
            let freshness = match self.bug {
                Bug::IgnoredBound => Freshness { not_before: freshness.not_before, ..Freshness::default() },
                Bug::IgnoredTime => Freshness { not_before: None, ..*freshness },
                _ => *freshness,
            };
            let found = self.store.get_fresh(id, &freshness).await?;
            Ok(self.falsified(id, found))
        })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, StoreResult<ListResult>> {
        Box::pin(async {
            let list = self.store.list(request).await?;
            if !self.strikes(Bug::ShortList) {
                return Ok(list);
            }
            Ok(ListResult { rows: list.rows.take(2).boxed(), ..list })
        })
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, StoreResult<()>> {
        self.store.upsert(documents)
    }

    fn ping(&self) -> BoxFuture<'_, StoreResult<()>> {
        self.store.ping()
    }

    fn metrics(&self) -> Vec<records::store::Metric> {
        self.store.metrics()
    }

    fn health(&self) -> BoxFuture<'_, StoreResult<records::store::Health>> {
        self.store.health()
    }
}
