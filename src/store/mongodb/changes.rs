//! What changes in the collection, by a [change stream](https://www.mongodb.com/docs/manual/changeStreams/), on raw bytes.
//!
//! An event of an update does not hold the record, so the server looks it up (`updateLookup`), and finds it as it became
//! later than the event. An older event of the same record that follows would take it back: shown as it was after a second
//! update, then gone by a deletion that came before. So:
//!
//! - What a lookup found is shown at once. Until the stream has passed the moment of the lookup, events of the same record
//!   that say exactly what happened are held back, and the last of them is shown then. A further lookup is newer, and ends
//!   the hold.
//! - Of each reply, only the last state of each record is shown.
//! - A stream that goes on from a token begins with events that the copy may have seen. It is silent until it has caught up,
//!   and then shows the last state of each record.
//!
//! Moments are the server's own: each reply says how far a majority was (`operationTime`, which a read of what a majority has
//! takes from there) and how far the stream is (`postBatchResumeToken`, which begins with a time). Where the second has reached
//! the first, no lookup found anything newer.
//!
//! It does not follow that the copy is current: the primary takes writes that no majority has yet, and may never have while
//! members are away. So the primary is asked besides how far it is itself, by a `ping`, whose `operationTime` is that of the last
//! write it has made. `$clusterTime` would come with every reply, but is also moved on by writes that fail, a second insert of one
//! `_id` for example, and then stays ahead of the stream until something else happens.
//!
//! Only what a majority of the members has is in the stream, so no failover takes it back. A snapshot too: it waits until a
//! majority has what was done before the stream began, which would else be in neither.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use mongodb::bson::{RawDocument, RawDocumentBuf, Timestamp, doc};
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::{Inner, MongoDb, bson, error};
use crate::record::{Key, Record};
use crate::store::{Batch, Change, Error, Feed, Interruption, Token};

/// How long the server waits for something to happen before it says that nothing did: how often a copy hears that it is
/// current, and how long an event is held back at most while others are at work on the server.
const AWAIT: Duration = Duration::from_millis(100);

/// How much may be kept while a stream catches up, in bytes. What has changed more than that is better copied anew.
const CATCH_UP_BYTES: usize = 64 * 1024 * 1024;

/// What each record takes of that beside its JSON and its id, removed ones too: a place in the map, a key there and one in the
/// change.
const CATCH_UP_ENTRY: usize = 150;

// Codes of the server.
const UNAUTHORIZED: i32 = 13;
/// A server that is no member of a replica set has no change streams.
const NO_CHANGE_STREAMS: i32 = 40_573;
/// Nor has a view, of which a collection of time series is one.
const NOT_OF_A_VIEW: i32 = 166;
/// Further failures that pass, beside those that the server itself calls so: authentication, time limits, elections.
const PASSING: [i32; 13] = [6, 7, 11, 18, 43, 50, 89, 91, 189, 202, 262, 9_001, 11_600];

type Result<T> = std::result::Result<T, Interruption>;

/// Seconds and increment, as one number that sorts.
pub type Moment = u64;

pub fn feed(store: &MongoDb, after: Option<Token>) -> Feed {
    let (inner, within) = (store.inner.clone(), store.inner.options.timeout);
    let (sender, receiver) = mpsc::channel(1);
    let reader = read(store.clone(), after, sender);
    let batches = stream::unfold(Some((receiver, Some(reader), inner)), move |state| async move {
        let (mut receiver, reader, inner) = state?;
        if let Some(reader) = reader {
            // To its end in a task of its own: no future of the driver is dropped half way.
            tokio::spawn(reader);
        }
        let batch = match timeout(within + AWAIT, receiver.recv()).await {
            Ok(Some(batch)) => batch,
            Ok(None) => Err(Interruption::Failed(Error::broken("the reader of a change stream gave up"))),
            Err(_) => {
                let silent = error::late("the change stream was silent", within);
                Err(Interruption::Failed(silent))
            }
        };
        if let Err(Interruption::Failed(error)) = &batch {
            inner.failures.count(error);
        }
        let rest = batch.is_ok().then_some((receiver, None, inner));
        Some((batch, rest))
    });
    batches.boxed()
}

async fn read(store: MongoDb, after: Option<Token>, batches: mpsc::Sender<Result<Batch>>) {
    let resumes = after.is_some();
    let mut cursor = match open(&store.inner, after).await {
        Ok(cursor) => cursor,
        Err(error) => {
            // A user who may read, and no more; also one who could do more when the copy was made.
            let refused = error::is_command(&error, UNAUTHORIZED);
            let why = if refused { Interruption::Unsupported } else { sorted(error, resumes) };
            let _ = batches.send(Err(why)).await;
            return;
        }
    };
    let mut order = Order::new(&store.inner, resumes);
    loop {
        order.ask();
        let batch = match cursor.next().await {
            Some(Ok(reply)) => order.batch(&reply),
            Some(Err(error)) => Err(sorted(error, true)),
            None => Err(Interruption::Failed(Error::unavailable("MongoDB ended the change stream"))),
        };
        let last = batch.is_err();
        // An error here: nobody listens any more.
        if batches.send(batch).await.is_err() || last {
            break;
        }
    }
}

async fn open(inner: &Inner, after: Option<Token>) -> mongodb::error::Result<RawBatchCursor> {
    let mut stream = doc! { "fullDocument": "updateLookup" };
    if let Some(token) = after.and_then(|token| RawDocumentBuf::from_bytes(token.0.into()).ok()) {
        stream.insert("resumeAfter", mongodb::bson::Document::try_from(token)?);
    }
    let wanted = doc! { "operationType": 1, "documentKey": 1, "fullDocument": 1 };
    inner
        .collection()
        .await?
        .aggregate([doc! { "$changeStream": stream }, doc! { "$project": wanted }])
        .read_concern(ReadConcern::majority())
        // A secondary may be far behind.
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .max_await_time(AWAIT)
        .batch()
        .await
}

/// How far the primary is, if it says so.
async fn done(inner: &Inner) -> mongodb::error::Result<Option<Moment>> {
    let database = inner.client().await?.database(&inner.database);
    let reply = database.run_command(doc! { "ping": 1 }).selection_criteria(ReadPreference::Primary.into()).await?;
    Ok(reply.get_timestamp("operationTime").ok().map(moment))
}

/// What a failure means. `resumes`: whether the stream had begun, now or in an earlier life.
fn sorted(error: DriverError, resumes: bool) -> Interruption {
    let code = match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    };
    let passing = ["ResumableChangeStreamError", "RetryableError", "SystemOverloadedError"];
    match code {
        Some(NO_CHANGE_STREAMS | NOT_OF_A_VIEW) => Interruption::Unsupported,
        Some(code)
            if resumes
                && code != UNAUTHORIZED
                && !PASSING.contains(&code)
                && !passing.iter().any(|label| error.contains_label(label)) =>
        {
            // A history that is too short, a token that means nothing, an event that is too large: whatever it is, it would
            // be so again. A new stream begins behind it.
            Interruption::Lost(format!("the server says {code}"))
        }
        _ => Interruption::Failed(error::sorted(error)),
    }
}

/// What was shown of a record, and when the next exact word about it can be trusted.
struct Ahead {
    until: Moment,
    held: Option<Change>,
}

/// Puts events into an order in which no record goes back.
struct Order<'a> {
    inner: &'a Arc<Inner>,
    /// Records that were shown as they became later than the stream is.
    ahead: HashMap<Key, Ahead>,
    /// The last state of each record, in bytes, while the stream catches up.
    behind: Option<(HashMap<Key, Change>, usize)>,
    /// Where a stream that goes on has caught up.
    target: Option<Moment>,
    /// When the primary was asked how far it is, and what it will say; without an answer for a while, it is asked again.
    asked: Option<(Instant, oneshot::Receiver<Option<Moment>>)>,
    /// How far the primary was when it was asked then: reached by the stream, the copy is as new as that.
    goal: Option<(Moment, Instant)>,
}

impl<'a> Order<'a> {
    fn new(inner: &'a Arc<Inner>, resumes: bool) -> Self {
        let behind = resumes.then(Default::default);
        Self { inner, ahead: HashMap::new(), behind, target: None, asked: None, goal: None }
    }

    /// Asks the primary how far it is, unless that is known or under way. Beside the stream, which waits for nobody: changes
    /// shall not be shown later because a proof is.
    fn ask(&mut self) {
        let waits = |(asked, _): &(Instant, _)| asked.elapsed() < self.inner.options.timeout;
        if self.goal.is_some() || self.asked.as_ref().is_some_and(waits) {
            return;
        }
        let (sender, answer) = oneshot::channel();
        self.asked = Some((Instant::now(), answer));
        let inner = self.inner.clone();
        tokio::spawn(async move {
            // After a failure there is no word, and it is asked again.
            if let Ok(moment) = done(&inner).await {
                let _ = sender.send(moment);
            }
        });
    }

    /// What the primary has said meanwhile. One that keeps it to itself is taken to be where its majority is, at `server`.
    fn heard(&mut self, server: Moment) {
        let Some((asked, mut answer)) = self.asked.take() else { return };
        match answer.try_recv() {
            Ok(moment) => self.goal = Some((moment.unwrap_or(server), asked)),
            Err(TryRecvError::Empty) => self.asked = Some((asked, answer)),
            Err(TryRecvError::Closed) => {}
        }
    }

    fn batch(&mut self, reply: &RawBatch) -> Result<Batch> {
        let whole = reply.as_raw_document();
        let server = whole.get_timestamp("operationTime").map_or(Moment::MAX, moment);
        let token =
            whole.get_document("cursor").ok().and_then(|cursor| cursor.get_document("postBatchResumeToken").ok());
        let at = token.and_then(moment_of).unwrap_or(0);
        // A stream begins behind what the primary has done so far, which a majority may not have yet. Where its own time is the
        // next one, that is one tick later.
        if self.target.is_none() {
            self.inner.begun.store(at.saturating_sub(1), Ordering::Relaxed);
        }
        // Also what an earlier stream looked up, maybe on another member, is behind this.
        let seen = self.inner.seen.fetch_max(server, Ordering::Relaxed).max(server);
        let target = *self.target.get_or_insert(seen);

        let mut changes = Vec::new();
        for event in reply.doc_slices().map_err(unreadable)? {
            let event = event.map_err(unreadable)?;
            let event = event.as_document().ok_or_else(|| unreadable("not a document"))?;
            self.event(event, at, server, &mut changes)?;
        }
        // What was held for a moment that the stream has passed.
        self.ahead.retain(|_, ahead| {
            let passed = ahead.until <= at;
            if passed && let Some(held) = ahead.held.take() {
                changes.push(held);
            }
            !passed
        });
        if let Some((behind, bytes)) = &mut self.behind {
            for change in changes.drain(..) {
                *bytes += size(&change);
                if let Some(before) = behind.insert(key_of(&change).clone(), change) {
                    *bytes -= size(&before);
                }
            }
            if *bytes > CATCH_UP_BYTES {
                return Err(Interruption::Lost("too much has changed to catch up".to_owned()));
            }
            if at >= target {
                changes.extend(self.behind.take().into_iter().flat_map(|(behind, _)| behind.into_values()));
            }
        }

        // A lookup may have found what later events of the same batch say, so that each step but the last may go back.
        if changes.len() > 1 {
            let last: HashMap<Key, Change> =
                changes.drain(..).map(|change| (key_of(&change).clone(), change)).collect();
            changes.extend(last.into_values());
        }

        self.heard(server);
        let reached = self.behind.is_none().then(|| self.goal.take_if(|(goal, _)| *goal <= at)).flatten();
        let current = reached.map(|(_, then)| then);
        // What is held would be missing behind this token.
        let whole = self.behind.is_none() && self.ahead.values().all(|ahead| ahead.held.is_none());
        let token = token.filter(|_| whole).map(|token| Token(token.as_bytes().into()));
        Ok(Batch { changes, token, current })
    }

    /// `at` is how far the stream is with this batch, `server` how far a majority was after all lookups of it.
    fn event(&mut self, event: &RawDocument, at: Moment, server: Moment, changes: &mut Vec<Change>) -> Result<()> {
        let kind = event.get_str("operationType").map_err(unreadable)?;
        let key = || {
            let key = event.get_document("documentKey").map_err(unreadable)?;
            bson::key_of(key.as_bytes()).map_err(unreadable)
        };
        let (exact, change) = match kind {
            "insert" | "replace" => {
                (true, Change::Put(record(event.get_document("fullDocument").map_err(unreadable)?)?))
            }
            "delete" => (true, Change::Remove(key()?)),
            "update" => match event.get_document("fullDocument") {
                Ok(document) => (false, Change::Put(record(document)?)),
                // Gone when it was looked up.
                Err(_) => (false, Change::Remove(key()?)),
            },
            // The collection was dropped or renamed, or will be no more what it was.
            "drop" | "rename" | "dropDatabase" | "invalidate" => {
                return Err(Interruption::Lost(format!("the collection met with {kind:?}")));
            }
            // Indexes, options: nothing that a record shows.
            _ => return Ok(()),
        };
        match (self.ahead.entry(key_of(&change).clone()), exact) {
            (Entry::Occupied(mut ahead), true) => {
                ahead.get_mut().held = Some(change);
                return Ok(());
            }
            (Entry::Occupied(mut ahead), false) => *ahead.get_mut() = Ahead { until: server, held: None },
            (Entry::Vacant(ahead), false) => {
                // Where the server was no further than this batch, the lookups found nothing newer.
                if server > at {
                    ahead.insert(Ahead { until: server, held: None });
                }
            }
            (Entry::Vacant(_), true) => {}
        }
        changes.push(change);
        Ok(())
    }
}

fn key_of(change: &Change) -> &Key {
    match change {
        Change::Put(record) => record.key(),
        Change::Remove(key) => key,
    }
}

/// What is kept for a change while the stream catches up, in bytes, about.
fn size(change: &Change) -> usize {
    let json = if let Change::Put(record) = change { record.json().len() } else { 0 };
    let key = match key_of(change) {
        Key::String(text) => text.len(),
        Key::Opaque { bytes, .. } => bytes.len(),
        _ => 0,
    };
    CATCH_UP_ENTRY + key + json
}

fn record(document: &RawDocument) -> Result<Record> {
    let mut json = Vec::with_capacity(document.as_bytes().len() * 5 / 4);
    let key = bson::to_json(&mut json, document.as_bytes()).map_err(unreadable)?;
    Ok(Record::new(key, json))
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Interruption {
    Interruption::Failed(Error::broken("MongoDB sent a change that cannot be read").with_source(error))
}

fn moment(at: Timestamp) -> Moment {
    Moment::from(at.time) << 32 | Moment::from(at.increment)
}

pub fn timestamp(moment: Moment) -> Timestamp {
    Timestamp { time: (moment >> 32) as u32, increment: moment as u32 }
}

/// The time that a resume token begins with: a type (0x82), seconds, an increment, in hexadecimal digits that sort.
fn moment_of(token: &RawDocument) -> Option<Moment> {
    let digits = token.get_str("_data").ok()?.strip_prefix("82")?.get(..16)?;
    Moment::from_str_radix(digits, 16).ok()
}
