//! A store made of two: a primary, and an embedded copy of it that answers when the primary does not.
//!
//! Neither half is known by name: any store that can be listed may be the primary, any embedded one the copy.
//!
//! - [`copy`] is the copy as readers see it: whole or not there, and how old.
//! - [`keeper`] keeps it true, in a task of its own: a snapshot, then the changes since, or one snapshot after the other.
//! - [`home`] is where copies live, one generation beside the other, and what is remembered across a restart.
//! - [`breaker`] knows whether it is worth asking the primary.
//! - [`metrics`] says all this to Prometheus.
//!
//! # What is promised
//!
//! - An answer comes from the primary, or from a copy that once was whole, with its age: how long ago the copy was last
//!   known to be what the primary was. The record in it is what the primary held at that moment or later.
//! - A copy that never was whole, is larger than allowed or older than allowed does not answer.
//! - One that could not be written or read, on a disk that is full perhaps, answers only while the primary does not, and goes
//!   before the next is made: it may hold what that one needs.
//! - Reads of one copy never go back in time, record by record. Between the primary and the copy they may: in standby mode
//!   the two take turns.
//! - Writes go to the primary, and nowhere else.

mod breaker;
mod copy;
mod home;
mod keeper;
mod metrics;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{Error, GetResult, Health, ListRequest, ListResult, Metric, Options, Result, Store};
use crate::record::{Document, RecordId};
use breaker::Breaker;
use copy::{Copy, Off};
use home::Home;
pub use home::check;
use keeper::Keeper;

/// How much longer than a lookup a list may take to begin, and a question after the primary's health to be answered.
const PATIENCE: u32 = 4;

/// Who answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The primary, and the copy when the primary does not.
    #[default]
    Standby,
    /// The copy, and the primary as long as there is no copy.
    Replica,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// The URL of an embedded store, which holds nothing else. A directory gets a store for each copy in it.
    pub copy: String,
    /// What the primary is, without secrets. A copy in a directory is used again for the same source only.
    pub source: String,
    pub mode: Mode,
    /// How long the primary may take for a lookup before the copy answers, in standby mode; a list may take four times
    /// that to begin.
    pub after: Duration,
    /// The greatest age at which the copy still answers. `None`: any.
    pub max_age: Option<Duration>,
    /// How long from one snapshot to the next, where the primary has no feed of changes.
    pub refresh: Duration,
    /// How large the copy may become: the bytes of the records' BSON, and [`copy::RECORD_BYTES`] for each.
    pub max_bytes: u64,
    /// How the copy is opened.
    pub options: Options,
}

#[derive(Clone)]
pub struct Fallback {
    inner: Arc<Inner>,
}

struct Inner {
    primary: Arc<dyn Store>,
    copy: Arc<Copy>,
    breaker: Arc<Breaker>,
    mode: Mode,
    after: Duration,
    // They end with the store.
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// Puts a copy beside `primary`, and begins to keep it. Does not wait for the primary.
///
/// # Errors
///
/// When the copy's store is not an embedded one or cannot be opened. A copy from an earlier run that is damaged is no error: it
/// is replaced.
pub async fn over(primary: Arc<dyn Store>, settings: Settings) -> Result<Arc<dyn Store>> {
    let copy = Arc::new(Copy::new(settings.max_age));
    let (home, stored) = Home::open(&settings, &copy).await?;
    let breaker = Arc::new(Breaker::default());
    let keeper = Keeper::new(primary.clone(), copy.clone(), home, stored, settings.refresh, settings.max_bytes);
    let tasks =
        [tokio::spawn(keeper.run()), tokio::spawn(breaker::probe(breaker.clone(), primary.clone(), settings.after))]
            .map(AbortOnDropHandle::new);
    let inner = Inner { primary, copy, breaker, mode: settings.mode, after: settings.after, _tasks: tasks };
    Ok(Arc::new(Fallback { inner: Arc::new(inner) }))
}

/// How the primary did when it was asked.
enum Asked<T> {
    Answered(T),
    /// Not in time, or others have found out meanwhile that it does not answer: it may still.
    Waiting,
}

impl Inner {
    /// Whether to ask the copy first.
    fn prefers_copy(&self) -> bool {
        self.mode == Mode::Replica || !self.breaker.is_closed()
    }

    /// Waits for the primary for as long as it is worth it, and tells the breaker how that went: `late` does, when the primary
    /// was too slow.
    async fn ask<T>(
        &self,
        call: &mut (impl Future<Output = Result<T>> + Unpin),
        within: Duration,
        late: impl FnOnce(),
    ) -> Asked<Result<T>> {
        let late = async {
            tokio::select! {
                biased;
                () = self.breaker.opened() => {}
                () = tokio::time::sleep(within) => late(),
            }
        };
        tokio::select! {
            biased;
            answer = call => {
                match &answer {
                    Err(error) if error.is_unavailable() => self.breaker.failed(&error.report().to_string()),
                    // Whatever it is, it is an answer.
                    _ => self.breaker.succeeded(),
                }
                Asked::Answered(answer)
            }
            () = late => Asked::Waiting,
        }
    }

    /// Whether a copy that has failed is not worth asking first: where the primary may answer.
    fn well(&self) -> bool {
        self.breaker.is_closed()
    }

    /// A list that is slow may be one that takes long to find: any client can ask for such, of a primary that does well. So
    /// that alone is no failure. It is one when the primary does not answer a ping either.
    fn suspect(&self) {
        let (primary, breaker, within) = (self.primary.clone(), self.breaker.clone(), self.after * PATIENCE);
        tokio::spawn(async move {
            match timeout(within, primary.ping()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => breaker.failed(&error.report().to_string()),
                Err(_) => breaker.failed("it is too slow"),
            }
        });
    }

    async fn get(&self, id: &RecordId) -> Result<GetResult> {
        let mut call = self.primary.get(id);
        match self.ask(&mut call, self.after, || self.breaker.failed("it is too slow")).await {
            Asked::Answered(Err(error)) if error.is_unavailable() => self.copy.get(id, false).ok_or(error),
            Asked::Answered(answer) => answer,
            Asked::Waiting => match self.copy.get(id, false) {
                Some(found) => Ok(found),
                // There is nobody else to ask.
                None => call.await,
            },
        }
    }

    /// The first row decides who answers: from then on a list is of one of the two, to its end.
    async fn list(&self, request: ListRequest) -> Result<ListResult> {
        if self.prefers_copy()
            && let Some(list) = self.copy.list(request.clone(), self.well()).await
        {
            return list;
        }
        let mut first = self.primary.list(request.clone());
        let begun = match self.ask(&mut first, self.after * PATIENCE, || self.suspect()).await {
            Asked::Answered(answer) => answer,
            Asked::Waiting => match self.copy.list(request.clone(), false).await {
                Some(list) => return list,
                None => first.await,
            },
        };
        match begun {
            Err(error) if error.is_unavailable() => self.copy.list(request, false).await.unwrap_or(Err(error)),
            answer => answer,
        }
    }

    async fn health(&self) -> Result<Health> {
        let ping = async {
            match timeout(self.after * PATIENCE, self.primary.ping()).await {
                Ok(answer) => answer,
                Err(_) => Err(Error::unavailable("the store does not answer in time")),
            }
        };
        let primary = match self.breaker.is_closed() {
            true => ping.await,
            false => Err(Error::unavailable("it is not asked for a while")),
        };
        let seconds = |age: Duration| age.as_secs();
        let degraded = match (primary, self.copy.age()) {
            (Ok(()), Ok(_)) if self.copy.is_kept() => None,
            (Ok(()), Ok(age)) => Some(format!("the copy is from {} s ago and no longer kept", seconds(age))),
            (Ok(()), Err(off)) => Some(format!("the store answers, but no copy of it could: {off}")),
            (Err(_), Ok(age)) => Some(format!("the store does not answer; a copy from {} s ago does", seconds(age))),
            (Err(error), Err(off)) => {
                return Err(Error::unavailable(format!("{off}, and the store does not answer")).with_source(error));
            }
        };
        Ok(Health { degraded })
    }
}

impl Store for Fallback {
    fn get<'a>(&'a self, id: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        match self.try_get(id) {
            Some(answer) => Box::pin(std::future::ready(answer)),
            None => Box::pin(self.inner.get(id)),
        }
    }

    fn try_get(&self, id: &RecordId) -> Option<Result<GetResult>> {
        let inner = &self.inner;
        if inner.prefers_copy() { inner.copy.get(id, inner.well()).map(Ok) } else { None }
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        Box::pin(self.inner.list(request))
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        self.inner.primary.upsert(documents)
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health().map(|health| health.map(drop)).boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        self.inner.health().boxed()
    }

    fn metrics(&self) -> Vec<Metric> {
        let mut metrics = self.inner.primary.metrics();
        metrics.extend(metrics::metrics(&self.inner.copy, &self.inner.breaker));
        metrics
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with a copy", self.inner.primary)
    }
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "there is no complete copy yet",
            Self::TooLarge => "the copy would be larger than allowed",
            Self::TooOld => "the copy is older than allowed",
        })
    }
}
