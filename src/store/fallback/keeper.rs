//! Keeps the copy true, in a task that ends with the store.
//!
//! The order in which a copy comes to be leaves no gap: the feed of changes is opened first, then every record is copied into
//! a new generation, then the changes since are made in it. Among what was copied, some is older and some newer than the
//! first changes, so the generation is shown to nobody before the feed has proven it to be current as of the moment when the
//! last record was read, or later. Until then, and for ever should it come to nothing, the one before answers.
//!
//! A change goes straight into the generation: memory does not grow with what is under way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::StreamExt;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::{CHUNK_BYTES, Change, ChangeBatch, ChangeStreamError, Error, Result, ResumeToken, Store};
use super::copy::{Copy, Generation, Keeping, Off};
use super::home::{Home, Stored};

/// How long to wait after a failure. A feed that is looked for is also what tells the driver to look for its server.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a copy that has failed may take to make room, and between two looks whether it has.
const CLEARED_WITHIN: Duration = Duration::from_secs(5);
const CLEARED_AFTER: Duration = Duration::from_millis(20);

/// How many records go into a generation between two looks at its size.
const CHUNK: usize = 1_000;

/// How often what a restart needs is written down: changes soon, since they would have to be made again; the mere passing of
/// time less often.
const REMEMBER_CHANGES: Duration = Duration::from_secs(1);
const REMEMBER_TIME: Duration = Duration::from_secs(10);

/// Whose failure it is that the copy is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Primary,
    Copy,
}

/// Why one way of keeping the copy ended.
enum End {
    Stream(ChangeStreamError),
    /// The copy's side failed.
    Copy(Error),
    TooLarge,
}

impl From<ChangeStreamError> for End {
    fn from(error: ChangeStreamError) -> Self {
        Self::Stream(error)
    }
}

/// A generation that nobody may see yet.
struct Draft {
    generation: Arc<Generation>,
    number: u64,
    begun: Instant,
    /// It is whole once it is proven to be current as of here.
    copied: Instant,
}

/// Says that the copy is not kept any longer, however it comes to that.
struct Kept(Arc<Copy>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.set_keeping(Keeping::Interrupted);
    }
}

/// Parts of `changes` with so many bytes, about, and [`CHUNK`] changes at most.
fn chunks(changes: &[Change], bytes: usize) -> impl Iterator<Item = &[Change]> {
    let mut left = changes;
    std::iter::from_fn(move || {
        let mut taken = 0;
        let few = left.iter().take(CHUNK).take_while(|change| {
            let is_room = taken < bytes;
            if let Change::Put(record) = change {
                taken += record.bson().len();
            }
            is_room
        });
        let (chunk, rest) = left.split_at(few.count());
        left = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

pub struct Keeper {
    primary: Arc<dyn Store>,
    copy: Arc<Copy>,
    home: Home,
    refresh: Duration,
    max_bytes: u64,
    /// From where the changes go on, in the draft if there is one, else in what is served.
    token: Option<ResumeToken>,
    draft: Option<Draft>,
    /// The number of what is served.
    number: u64,
    remembered: Instant,
    /// Whether there were changes since.
    changed: bool,
    /// What is wrong, as the log has it.
    fault: Option<Fault>,
    /// How often the copy's side has failed since it last took a whole copy.
    failures: u32,
}

impl Keeper {
    pub fn new(
        primary: Arc<dyn Store>,
        copy: Arc<Copy>,
        home: Home,
        stored: Option<Stored>,
        refresh: Duration,
        max_bytes: u64,
    ) -> Self {
        let (mut token, mut number) = (None, 0);
        if let Some(stored) = stored {
            tracing::info!(
                records = stored.generation.records(),
                age_s = copy.age_of(&stored.generation).as_secs(),
                "found the copy of an earlier run"
            );
            (token, number) = (stored.token, stored.number);
            copy.serve(Ok(stored.generation));
        }
        let remembered = Instant::now();
        Self {
            primary,
            copy,
            home,
            refresh,
            max_bytes,
            token,
            draft: None,
            number,
            remembered,
            changed: false,
            fault: None,
            failures: 0,
        }
    }

    pub async fn run(mut self) {
        // A panic too is an end, and nobody else would say so.
        let _kept = Kept(self.copy.clone());
        loop {
            let began = Instant::now();
            match self.follow().await {
                End::Stream(ChangeStreamError::Unsupported) => self.refresh(began).await,
                End::Stream(ChangeStreamError::HistoryLost(why)) => {
                    self.interrupted(Fault::Primary, &format!("changes were lost: {why}"));
                    self.start_anew();
                    // A feed that loses what it has at once must not turn this into a busy loop.
                    sleep_until(began + PAUSE).await;
                }
                End::Stream(ChangeStreamError::Unavailable(error)) => {
                    self.interrupted(Fault::Primary, &error.report().to_string());
                    sleep(PAUSE).await;
                }
                End::Copy(error) => self.copy_failed(&error).await,
                End::TooLarge => self.give_up().await,
            }
        }
    }

    fn start_anew(&mut self) {
        self.token = None;
        if let Some(draft) = self.draft.take() {
            draft.generation.discard();
        }
    }

    /// Follows the feed until it ends.
    async fn follow(&mut self) -> End {
        match self.try_follow().await {
            Ok(()) => ChangeStreamError::Unavailable(Error::broken("a feed of changes ended without a word")).into(),
            Err(end) => end,
        }
    }

    async fn try_follow(&mut self) -> std::result::Result<(), End> {
        let mut feed = self.primary.changes(self.token.clone());
        let Some(opened) = feed.next().await else { return Ok(()) };
        let mut batch = opened?;
        if self.token.is_none() {
            self.start_anew();
            self.draft = Some(self.copied().await?);
        }
        loop {
            self.take(batch).await?;
            batch = match feed.next().await {
                Some(next) => next?,
                None => return Ok(()),
            };
        }
    }

    /// Makes the changes, and draws the conclusions.
    async fn take(&mut self, batch: ChangeBatch) -> std::result::Result<(), End> {
        let generation = match &self.draft {
            Some(draft) => draft.generation.clone(),
            None => match self.copy.served() {
                // Whoever reads has found out.
                Ok(served) if served.has_failed() => {
                    return Err(End::Copy(Error::unavailable("the copy could not be read")));
                }
                Ok(served) => served,
                Err(_) => {
                    self.start_anew();
                    return Err(ChangeStreamError::HistoryLost("there is no copy to make changes in".to_owned()).into());
                }
            },
        };
        self.changed |= !batch.changes.is_empty();
        let written = self.write(&generation, batch.changes).await;
        if let Err(End::Copy(_)) = written {
            generation.fail();
        }
        written?;
        if let Some(token) = batch.token {
            self.token = Some(token);
        }
        let Some(current) = batch.current else { return Ok(()) };
        self.copy.proven(&generation, current);
        match self.draft.take() {
            Some(draft) if current >= draft.copied => self.publish(draft).await.map_err(End::Copy)?,
            draft => self.draft = draft,
        }
        if self.draft.is_none() {
            self.now(Keeping::Following);
            self.remember_in_time().await.map_err(End::Copy)?;
        }
        Ok(())
    }

    /// Writes in place, a little at a time, or where blocking is allowed if the writes may wait for a disk.
    async fn write(&self, generation: &Arc<Generation>, changes: Vec<Change>) -> std::result::Result<(), End> {
        if changes.is_empty() {
            return Ok(());
        }
        let max = self.max_bytes;
        let write = move |generation: &Generation, changes: &[Change]| {
            generation.make(changes).map_err(End::Copy)?;
            if generation.size() > max { Err(End::TooLarge) } else { Ok(()) }
        };
        if !self.home.is_lasting() {
            for changes in chunks(&changes, CHUNK_BYTES) {
                write(generation, changes)?;
                // A catch-up may have very many, and others share the thread.
                tokio::task::yield_now().await;
            }
            return Ok(());
        }
        let generation = generation.clone();
        tokio::task::spawn_blocking(move || chunks(&changes, usize::MAX).try_for_each(|some| write(&generation, some)))
            .await
            .unwrap_or_else(|panic| Err(End::Copy(Error::broken("a copy could not be written").with_source(panic))))
    }

    /// Makes room for a new generation in the place of one that has failed, as soon as the primary answers instead.
    async fn clear(&mut self) -> std::result::Result<(), End> {
        let failed = self.copy.served().ok().filter(|served| served.has_failed());
        if failed.is_none() && !self.home.has_unopened() {
            return Ok(());
        }
        self.primary.ping().await.map_err(ChangeStreamError::Unavailable)?;
        self.home.clear_unopened();
        let Some(failed) = failed else { return Ok(()) };
        let directory = failed.directory();
        drop(failed);
        self.copy.serve(Err(Off::Incomplete));
        tracing::warn!("the copy that has failed is given up");
        // Another thread removes what it held; later, should somebody still read from it.
        let begun = Instant::now();
        while directory.as_ref().is_some_and(|directory| directory.exists()) && begun.elapsed() < CLEARED_WITHIN {
            sleep(CLEARED_AFTER).await;
        }
        Ok(())
    }

    /// Every record of the primary, in a new generation.
    async fn copied(&mut self) -> std::result::Result<Draft, End> {
        self.clear().await?;
        let begun = Instant::now();
        let (generation, number) = self.home.fresh().await.map_err(End::Copy)?;
        if let Err(end) = self.copy_into(&generation).await {
            if matches!(end, End::Copy(_)) {
                generation.fail();
            }
            generation.discard();
            return Err(end);
        }
        Ok(Draft { generation, number, begun, copied: Instant::now() })
    }

    async fn copy_into(&self, generation: &Arc<Generation>) -> std::result::Result<(), End> {
        let failed = |error| End::Stream(ChangeStreamError::Unavailable(error));
        let mut rows = self.primary.snapshot().await.map_err(failed)?.rows.ready_chunks(CHUNK);
        let mut read = 0;
        while let Some(chunk) = rows.next().await {
            let chunk: Result<Vec<_>> = chunk.into_iter().map(|row| row.map(|row| row.document)).collect();
            let chunk = chunk.map_err(failed)?;
            // A replica holds one record for each `_id`: its lists would lack the others.
            if chunk.iter().any(|document| document.key().is_missing()) {
                return Err(End::Copy(Error::invalid(
                    "a record has no `_id`, so that no replica can hold all records",
                )));
            }
            read += chunk.len() as u64;
            self.write(generation, chunk.into_iter().map(Change::Put).collect()).await?;
            if generation.records() < read {
                let repeated = "several records have one `_id`, so that no replica can hold all records";
                return Err(End::Copy(Error::invalid(repeated)));
            }
        }
        Ok(())
    }

    /// From now on `draft` is the copy.
    async fn publish(&mut self, draft: Draft) -> Result<()> {
        let Draft { generation, number, begun, .. } = draft;
        let age = self.copy.age_of(&generation);
        if let Err(error) = self.home.remember(&generation, number, self.token.as_ref(), age).await {
            generation.fail();
            generation.discard();
            self.token = None;
            return Err(error);
        }
        (self.remembered, self.changed) = (Instant::now(), false);
        (self.number, self.failures) = (number, 0);
        let (records, bytes) = (generation.records(), generation.size());
        let first = self.copy.served().is_err();
        self.copy.snapshots.fetch_add(1, Ordering::Relaxed);
        self.copy.serve(Ok(generation));
        // As a request's time is: to the microsecond.
        let duration_ms = begun.elapsed().as_micros() as f64 / 1000.0;
        if first || self.token.is_some() {
            tracing::info!(records, bytes, duration_ms, "the copy is complete");
        } else {
            tracing::debug!(records, bytes, duration_ms, "the copy is complete again");
        }
        Ok(())
    }

    async fn remember_in_time(&mut self) -> Result<()> {
        let due = if self.changed { REMEMBER_CHANGES } else { REMEMBER_TIME };
        if !self.home.is_lasting() || self.remembered.elapsed() < due {
            return Ok(());
        }
        let Ok(served) = self.copy.served() else { return Ok(()) };
        let remembered = self.home.remember(&served, self.number, self.token.as_ref(), self.copy.age_of(&served)).await;
        if remembered.is_err() {
            served.fail();
        }
        remembered?;
        (self.remembered, self.changed) = (Instant::now(), false);
        Ok(())
    }

    /// One snapshot, and the wait for the next, where there is no feed.
    async fn refresh(&mut self, began: Instant) {
        self.start_anew();
        match self.copied().await {
            Ok(draft) => {
                // Each record was read after this; nothing more is known.
                self.copy.proven(&draft.generation, draft.begun);
                match self.publish(draft).await {
                    Ok(()) => {
                        self.now(Keeping::Refreshing);
                        sleep_until(began + self.refresh).await;
                    }
                    Err(error) => self.copy_failed(&error).await,
                }
            }
            Err(End::TooLarge) => self.give_up().await,
            Err(End::Copy(error)) => self.copy_failed(&error).await,
            Err(End::Stream(ChangeStreamError::Unavailable(error))) => {
                self.interrupted(Fault::Primary, &error.report().to_string());
                sleep(PAUSE).await;
            }
            Err(End::Stream(_)) => sleep(PAUSE).await,
        }
    }

    /// The copy is off, until there is less to copy.
    async fn give_up(&mut self) {
        self.start_anew();
        self.home.forget();
        self.copy.serve(Err(Off::TooLarge));
        self.now(Keeping::TooLarge);
        sleep(self.refresh).await;
    }

    /// The next try is made in a new generation: a store on disk may say the same of every write after its first failure, so
    /// that one that has failed is never again what it must be. What is served still answers, unless it has failed itself: then
    /// it answers only where the primary does not, and goes before the next try.
    ///
    /// A disk that is full stays so for a while, and every try reads all that the primary has: so they become as rare as
    /// copies are where there is no feed.
    async fn copy_failed(&mut self, error: &Error) {
        self.start_anew();
        self.interrupted(Fault::Copy, &error.report().to_string());
        let pause = PAUSE.saturating_mul(4 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        sleep(pause.min(self.refresh.max(PAUSE))).await;
    }

    fn interrupted(&mut self, fault: Fault, cause: &str) {
        self.copy.interruptions.fetch_add(1, Ordering::Relaxed);
        if self.copy.keeping() == Keeping::TooLarge {
            // Said once; it stays true until a copy is complete.
            return;
        }
        self.copy.set_keeping(Keeping::Interrupted);
        let served = self.copy.served().is_ok();
        let new = self.fault.replace(fault) != Some(fault);
        match (new, served) {
            (true, true) => tracing::warn!(cause, served, "the copy is no longer kept: it grows older"),
            (true, false) => tracing::warn!(cause, served, "there is no copy yet: it cannot be made"),
            (false, _) => tracing::debug!(cause, served, "the copy cannot be kept"),
        }
    }

    fn now(&mut self, keeping: Keeping) {
        self.fault = None;
        if self.copy.set_keeping(keeping) == keeping {
            return;
        }
        let (every_s, limit_bytes) = (self.refresh.as_secs_f64(), self.max_bytes);
        match keeping {
            Keeping::Following => tracing::info!("the copy follows every change"),
            Keeping::Refreshing => tracing::info!(every_s, "the store tells no changes: it is copied anew so often"),
            Keeping::TooLarge => tracing::error!(limit_bytes, "the copy would be larger than allowed, and is off"),
            Keeping::Interrupted => {}
        }
    }
}
