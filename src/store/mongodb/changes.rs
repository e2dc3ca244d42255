//! The changes of the collection, from its [change stream](https://www.mongodb.com/docs/manual/changeStreams/), as raw bytes.
//!
//! # Updates
//!
//! The event of an update does not hold the document. The server looks it up (`updateLookup`), and finds it in a state that may
//! be later than the event. An older event of the same document that follows would take it back: a document shown after its
//! second update, for example, would disappear by a deletion that came before. Therefore:
//!
//! - The document of a lookup is emitted at once. Until the stream has passed the time of the lookup, exact events of the same
//!   document (inserts, replacements, deletions) are held, and the last of them is emitted then. A further lookup is newer and
//!   replaces them. While a long backlog is read, this takes memory for each document that was updated in it.
//! - Only the last state of each document in a reply is emitted.
//! - A resumed stream begins with events that the replica may have seen. It emits nothing until it has caught up, and then the
//!   last state of each document.
//!
//! Times are the server's own. Each reply says how far a majority was (`operationTime`; a majority read returns that state), and
//! how far the stream is (`postBatchResumeToken`, which begins with a time). Where the second has reached the first, no lookup
//! found anything newer.
//!
//! An event may be larger than a reply: a document may have 16 MiB, and its `_id` is in the event three times more. Events are then
//! read one by one and without documents of such a size, which are looked up by a `find`, as the server does for an update.
//! The split events of later servers (`$changeStreamSplitLargeEvent`) would need the same care, and 7.0.
//!
//! # Currency
//!
//! This does not prove that a replica is current: the primary takes writes that no majority has yet, and never may while members
//! are away. So the primary is asked as well, by a `ping`, whose `operationTime` is that of its last write. `$clusterTime` comes
//! with every reply, but failed writes advance it too (a second insert of an `_id`, for example), after which the stream does not
//! reach it until something else happens. A member that has just become primary may send replies without `operationTime` for a
//! moment: they prove nothing, and the next ones are waited for. A `mongos` answers a `ping` by itself, and may not have heard of a
//! write through another one. There a `find` asks the primary of every shard.
//!
//! The stream follows a name, and stays silent if the name does not exist, or if a view or a time series takes it. So the
//! kind and the UUID of the collection belong to each proof, and to each resume token. Another UUID means another collection.
//!
//! The stream holds only what a majority of the members has, so that no failover takes it back. The same holds for a snapshot:
//! it waits until a majority has what was written before the stream began, since the stream does not have that.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use mongodb::bson::{Bson, RawDocument, Timestamp, doc};
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::client::LazyClient;
use super::{Inner, MongoDb, error, reply};
use crate::record::{Document, Key, raw};
use crate::store::{Change, ChangeBatch, ChangeStream, ChangeStreamError, ClusterTime, Error, ResumeToken};

/// The time that the server waits for an event before it sends an empty reply. While there are no writes, the replica is proven
/// current at this interval, and held events are emitted after it.
const AWAIT: Duration = Duration::from_millis(100);

/// The stream ends if the primary does not answer for this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The memory for changes while a resumed stream catches up. If they need more, a new snapshot is cheaper.
const CATCH_UP_BYTES: usize = 64 * 1024 * 1024;

/// The memory of such a change in addition to the bytes of its document and key: the map entry and the change itself.
const CATCH_UP_ENTRY: usize = 150;

/// After a smaller reply, the next event fits as well, unless it is nearly as large as an event can be. That one may be of the same
/// transaction, which an event tells; the writes of one command that share a time have 16 MiB together.
const SMALL_REPLY_BYTES: usize = 1024 * 1024;

/// The size of a document that is left out of an event, in bytes. The rest of 16 MiB is for the `_id`.
const LARGE_DOCUMENT: i32 = 14 * 1024 * 1024;

/// Events of a transaction have this field.
const TRANSACTION: &str = "txnNumber";

/// Tells that the document was left out of an event.
const IS_LARGE: &str = "isLarge";

/// The most events of the first reply of a cursor, unless a command names another number.
const FIRST_REPLY_EVENTS: usize = 101;

// Codes of the server.
/// An event does not fit into a reply.
const TOO_LARGE: i32 = 10_334;
const UNAUTHORIZED: i32 = 13;
/// A standalone server has no change streams.
const NOT_A_REPLICA_SET: i32 = 40_573;
/// `CommandNotSupportedOnView`: views have no change stream. A time series collection is a view too.
const NOT_ON_A_VIEW: i32 = 166;
/// Transient failures that the server does not label as such: authentication, time limits, elections.
const TRANSIENT: [i32; 13] = [6, 7, 11, 18, 43, 50, 89, 91, 189, 202, 262, 9_001, 11_600];

type Result<T, E = ChangeStreamError> = std::result::Result<T, E>;

/// A time of the server: seconds and increment in one number that sorts.
pub type ServerTime = u64;

pub fn watch(store: &MongoDb, after: Option<ResumeToken>) -> ChangeStream {
    let (inner, within) = (store.inner.clone(), store.inner.options.timeout);
    let (sender, receiver) = mpsc::channel(1);
    let reader = read(inner.clone(), after, sender);
    let batches = stream::unfold(Some((receiver, Some(reader), inner)), move |state| async move {
        let (mut receiver, reader, inner) = state?;
        if let Some(reader) = reader {
            // A separate task, so that no future of the driver is dropped half way.
            tokio::spawn(reader);
        }
        let batch = match timeout(within + AWAIT, receiver.recv()).await {
            Ok(Some(batch)) => batch,
            Ok(None) => Err(ChangeStreamError::Unavailable(Error::broken("the reader of a change stream gave up"))),
            Err(_) => Err(ChangeStreamError::Unavailable(error::timed_out("the change stream sent nothing", within))),
        };
        if let Err(ChangeStreamError::Unavailable(error)) = &batch {
            inner.failures.count(error);
        }
        let rest = batch.is_ok().then_some((receiver, None, inner));
        Some((batch, rest))
    });
    batches.boxed()
}

async fn read(inner: Arc<Inner>, after: Option<ResumeToken>, batches: mpsc::Sender<Result<ChangeBatch>>) {
    let resumes = after.is_some();
    let client = inner.client.get();
    let (mut cursor, mut position, identity) = match open(&inner, after).await {
        Ok(opened) => opened,
        Err(why) => {
            let _ = batches.send(Err(why)).await;
            return;
        }
    };
    // Ids do not repeat in a collection on one replica set. Several shards may have writes of the same time.
    let is_one_set = inner.namespace().await.is_ok_and(|namespace| !namespace.ids_may_repeat);
    let mut events = Events::new(&inner, identity, resumes, is_one_set.then_some(client));
    loop {
        if let Err(why) = events.ask_primary() {
            let _ = batches.send(Err(why)).await;
            break;
        }
        let next = match &mut cursor {
            Some(cursor) => cursor.next().await,
            None => None,
        };
        let is_too_large = match &next {
            Some(Err(error)) => error::is_command(error, TOO_LARGE),
            _ => cursor.is_none(),
        };
        let batch = match (next, position.take_if(|_| is_too_large)) {
            (_, Some(after)) => read_large(&inner, after, &mut events, &batches).await.map(|(batch, after, next)| {
                (position, cursor) = (Some(after), next);
                batch
            }),
            (Some(Ok(reply)), None) => {
                position = token_of(&reply).or(position.take());
                events.batch(&reply, Form::Batches, None)
            }
            (Some(Err(error)), None) => Err(classify(error, true)),
            (None, None) => Err(ChangeStreamError::Unavailable(Error::unavailable("MongoDB ended the change stream"))),
        };
        let is_last = batch.is_err();
        if !events.send(batch, &batches).await || is_last {
            break;
        }
    }
}

async fn open(
    inner: &Inner,
    after: Option<ResumeToken>,
) -> Result<(Option<RawBatchCursor>, Option<mongodb::bson::Document>, Identity)> {
    let (after, identity) = match after {
        // The identity is read before the stream is opened, so that a later change of it is noticed.
        None => (None, observe(inner, Clock::Ping).await.map_err(|error| classify(error, false))?.0),
        Some(token) => {
            let unknown = || ChangeStreamError::HistoryLost("the resume token cannot be read".to_owned());
            let (token, identity) = decode_token(token).ok_or_else(unknown)?;
            (Some(token), identity)
        }
    };
    if let Identity::Other(kind) = identity {
        return Err(no_stream_of(&kind));
    }
    Ok((open_cursor(inner, after.as_ref(), Form::Batches).await?, after, identity))
}

/// The form in which a cursor sends events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Batches,
    /// Single events, without large documents.
    Single,
}

/// Opens a stream. Returns `None` if the first event is too large for this form.
async fn open_cursor(
    inner: &Inner,
    after: Option<&mongodb::bson::Document>,
    form: Form,
) -> Result<Option<RawBatchCursor>> {
    let mut stream = doc! { "fullDocument": "updateLookup" };
    if let Some(after) = after {
        stream.insert("resumeAfter", after.clone());
    }
    let mut fields = doc! { "operationType": 1, "documentKey": 1, "fullDocument": 1, TRANSACTION: 1 };
    if form == Form::Single {
        // `$bsonSize` of what is missing is null.
        let is_large = doc! { "$gt": [{ "$bsonSize": "$fullDocument" }, LARGE_DOCUMENT] };
        fields.insert("fullDocument", doc! { "$cond": [is_large.clone(), "$$REMOVE", "$fullDocument"] });
        fields.insert(IS_LARGE, is_large);
    }
    let cursor = async {
        let collection = inner.collection().await?;
        let stream = collection.aggregate([doc! { "$changeStream": stream }, doc! { "$project": fields }]);
        let stream = match form {
            Form::Batches => stream,
            Form::Single => stream.batch_size(1),
        };
        stream
            .read_concern(ReadConcern::majority())
            // A secondary may lag far.
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .max_await_time(AWAIT)
            .batch()
            .await
    };
    match cursor.await {
        Ok(cursor) => Ok(Some(cursor)),
        Err(error) if form == Form::Batches && after.is_some() && error::is_command(&error, TOO_LARGE) => Ok(None),
        // The user may have lost the right since the replica was made.
        Err(error) if error::is_command(&error, UNAUTHORIZED) => {
            Err(ChangeStreamError::Unsupported("the user lacks the right to open a change stream".to_owned()))
        }
        Err(error) => Err(classify(error, after.is_some())),
    }
}

fn token_of(reply: &RawBatch) -> Option<mongodb::bson::Document> {
    let cursor = reply.as_raw_document().get_document("cursor").ok()?;
    mongodb::bson::Document::try_from(cursor.get_document("postBatchResumeToken").ok()?).ok()
}

/// A document that was looked up here, and the time of the primary's last write after that.
struct Lookup {
    document: Option<Vec<u8>>,
    time: ServerTime,
}

/// Reads the events after `after` one by one, up to one whose document is large, which is looked up, or until there are no more: a
/// document may have become smaller meanwhile. Returns the last batch, the position after it, and a cursor from there.
async fn read_large(
    inner: &Inner,
    after: mongodb::bson::Document,
    events: &mut Events<'_>,
    batches: &mpsc::Sender<Result<ChangeBatch>>,
) -> Result<(ChangeBatch, mongodb::bson::Document, Option<RawBatchCursor>)> {
    let unavailable = |why: &'static str| ChangeStreamError::Unavailable(Error::unavailable(why));
    let cursor = open_cursor(inner, Some(&after), Form::Single).await?;
    let mut cursor = cursor.ok_or_else(|| unavailable("MongoDB did not open the change stream"))?;
    loop {
        events.ask_primary()?;
        let reply = cursor.next().await.ok_or_else(|| unavailable("MongoDB ended the change stream"))?;
        let reply = reply.map_err(|error| classify(error, true))?;
        let event = reply.doc_slices().map_err(unreadable)?.into_iter().next().transpose().map_err(unreadable)?;
        let lookup = match event.and_then(|event| event.as_document()) {
            None => None,
            Some(event) if event.get_bool(IS_LARGE).unwrap_or(false) => {
                Some(look_up(inner, event.get_document("documentKey").map_err(unreadable)?).await?)
            }
            Some(_) => {
                let batch = events.batch(&reply, Form::Single, None)?;
                if !events.send(Ok(batch), batches).await {
                    return Err(unavailable("the change stream was dropped"));
                }
                continue;
            }
        };
        let after = token_of(&reply).ok_or_else(|| unavailable("MongoDB sent no resume token"))?;
        let batch = events.batch(&reply, Form::Single, lookup)?;
        let cursor = open_cursor(inner, Some(&after), Form::Batches).await?;
        return Ok((batch, after, cursor));
    }
}

async fn look_up(inner: &Inner, key: &RawDocument) -> Result<Lookup> {
    let key = mongodb::bson::Document::try_from(key).map_err(unreadable)?;
    let id = key.get("_id").cloned().ok_or_else(|| unreadable("an event names no _id"))?;
    let found = async {
        let filter = doc! { "_id": { "$eq": id } };
        let collection = inner.collection().await?;
        let find = collection.find(filter).limit(1).max_time(inner.options.timeout);
        let find = find.read_concern(ReadConcern::majority());
        let mut found = find.selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary)).await?;
        let document = if found.advance().await? { Some(found.current().as_bytes().to_vec()) } else { None };
        Ok((document, observe(inner, Clock::Ping).await?.1))
    };
    let (document, time) = found.await.map_err(|error| classify(error, false))?;
    let no_time = || Error::unavailable("MongoDB does not tell the time of its last write yet");
    Ok(Lookup { document, time: time.ok_or_else(no_time).map_err(ChangeStreamError::Unavailable)? })
}

fn no_stream_of(kind: &str) -> ChangeStreamError {
    ChangeStreamError::Unsupported(format!("a {kind} has no change stream"))
}

/// The collection as the primary sees it.
#[derive(Clone, Debug, PartialEq)]
enum Identity {
    /// The UUID. Null if there is no such collection, undefined if the user may not know it.
    Collection(Bson),
    /// A view or a time series, which have no change stream.
    Other(String),
}

type Observation = (Identity, Option<ServerTime>);

/// The command that asks for the time of the last write.
#[derive(Clone, Copy)]
enum Clock {
    /// Asks the primary, or a `mongos` itself.
    Ping,
    /// Asks the primary of every shard.
    Find,
}

impl Clock {
    fn of(is_one_set: bool) -> Self {
        if is_one_set { Self::Ping } else { Self::Find }
    }
}

/// Returns a time up to which a snapshot needs every write: that of the primary's last write, or where the server does not tell it,
/// the beginning of the last change stream. A standalone server tells neither.
pub async fn snapshot_time(inner: &Inner, is_one_set: bool) -> Result<Option<ServerTime>, Error> {
    let (_, time) = observe(inner, Clock::of(is_one_set)).await.map_err(error::classify)?;
    Ok(time.max(Some(inner.begun.load(Ordering::Relaxed))).filter(|time| *time > 0))
}

/// Asks the primary what the collection is, then for the time of its last write, which it may not tell yet.
async fn observe(inner: &Inner, clock: Clock) -> mongodb::error::Result<Observation> {
    let database = inner.client().await?.database(&inner.database);
    let on_primary = || SelectionCriteria::ReadPreference(ReadPreference::Primary);
    let list = async |name_only: bool| {
        let filter = doc! { "name": &inner.options.collection };
        let list =
            doc! { "listCollections": 1, "filter": filter, "nameOnly": name_only, "authorizedCollections": true };
        database.run_command(list).selection_criteria(on_primary()).await
    };
    // A user who may only read the collection sees its kind, but not its UUID.
    let listed = match list(false).await {
        Err(error) if error::is_command(&error, UNAUTHORIZED) => list(true).await,
        listed => listed,
    };
    let identity = match listed {
        Ok(reply) => identity_of(&reply),
        Err(error) if error::is_command(&error, UNAUTHORIZED) => Identity::Collection(Bson::Undefined),
        Err(error) => return Err(error),
    };
    let question = match clock {
        Clock::Ping => doc! { "ping": 1 },
        Clock::Find => doc! {
            "find": &inner.options.collection,
            "filter": { "_id": { "$gte": Bson::MinKey } },
            "projection": { "_id": 1 },
            "limit": 1,
            "singleBatch": true,
        },
    };
    let reply = database.run_command(question).selection_criteria(on_primary()).await?;
    Ok((identity, reply.get_timestamp("operationTime").ok().map(server_time)))
}

/// Returns the kind and the UUID of the collection, as the primary sees it.
pub async fn identity(inner: &Inner) -> Result<Option<String>, Error> {
    let (identity, _) = observe(inner, Clock::Ping).await.map_err(error::classify)?;
    Ok(match identity {
        Identity::Collection(Bson::Binary(uuid)) => {
            Some(uuid.bytes.iter().fold("collection ".to_owned(), |text, byte| text + &format!("{byte:02x}")))
        }
        Identity::Collection(Bson::Null) => Some("no collection".to_owned()),
        Identity::Collection(_) => None,
        Identity::Other(kind) => Some(kind),
    })
}

fn identity_of(listed: &mongodb::bson::Document) -> Identity {
    let batch = listed.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let found = batch.ok().and_then(|batch| batch.first()).and_then(Bson::as_document);
    let Some(found) = found else { return Identity::Collection(Bson::Null) };
    match found.get_str("type") {
        Ok("collection") | Err(_) => {
            let uuid = found.get_document("info").ok().and_then(|info| info.get("uuid"));
            Identity::Collection(uuid.cloned().unwrap_or(Bson::Undefined))
        }
        Ok(other) => Identity::Other(other.to_owned()),
    }
}

/// A resume token of the server, with the identity of the collection to which it belongs.
fn encode_token(token: &RawDocument, identity: &Identity) -> Option<ResumeToken> {
    let Identity::Collection(uuid) = identity else { return None };
    let token = mongodb::bson::Document::try_from(token).ok()?;
    let token = doc! { "token": token, "uuid": uuid.clone() }.to_vec().ok()?;
    Some(ResumeToken(token.into()))
}

fn decode_token(token: ResumeToken) -> Option<(mongodb::bson::Document, Identity)> {
    let mut token = mongodb::bson::Document::from_reader(token.0.as_ref()).ok()?;
    let uuid = token.remove("uuid")?;
    Some((token.get_document("token").ok()?.clone(), Identity::Collection(uuid)))
}

/// `has_begun`: the stream was open once, now or before it was resumed.
fn classify(error: DriverError, has_begun: bool) -> ChangeStreamError {
    let code = match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    };
    let is_transient = |code: i32| {
        let labels = ["ResumableChangeStreamError", "RetryableError", "SystemOverloadedError"];
        code == UNAUTHORIZED || TRANSIENT.contains(&code) || labels.iter().any(|label| error.contains_label(label))
    };
    match code {
        Some(NOT_A_REPLICA_SET) => {
            ChangeStreamError::Unsupported("a standalone server has no change streams".to_owned())
        }
        Some(NOT_ON_A_VIEW) => no_stream_of("view"),
        // The oplog is too short, the token unknown, or an event too large: another attempt would fail in the same way. A new
        // stream starts after the failure.
        Some(code) if has_begun && !is_transient(code) => {
            ChangeStreamError::HistoryLost(format!("the server says {code}"))
        }
        _ => ChangeStreamError::Unavailable(error::classify(error)),
    }
}

/// A document that was emitted as a lookup found it.
struct LookedUp {
    /// Exact events before this time may be older than the document.
    until: ServerTime,
    held: Option<Change>,
}

/// Puts events into an order in which no document becomes older.
struct Events<'a> {
    inner: &'a Arc<Inner>,
    looked_up: HashMap<Key, LookedUp>,
    /// The last state of each document, and their size in bytes, while a resumed stream catches up.
    catch_up: Option<(HashMap<Key, Change>, usize)>,
    /// The time at which a resumed stream has caught up.
    target: Option<ServerTime>,
    /// The collection that the stream follows.
    identity: Identity,
    resumes: bool,
    /// The client, if the collection is on one replica set.
    one_set: Option<Arc<LazyClient>>,
    /// The position of the first reply.
    first_position: Option<ServerTime>,
    /// A majority had the write of that time when the server began to look for the events of the next reply.
    has_passed_first: bool,
    /// The question to the primary that is not answered yet, and the time at which it was sent.
    question: Option<(Instant, oneshot::Receiver<Observation>)>,
    /// The time of the first question since the last answer. Bounds how long the stream stays on a member that is no longer the
    /// primary.
    unanswered_since: Option<Instant>,
    /// The primary's last write at a moment: once the stream has reached it, the replica is as current as that.
    goal: Option<(ServerTime, Instant)>,
}

impl<'a> Events<'a> {
    fn new(inner: &'a Arc<Inner>, identity: Identity, resumes: bool, one_set: Option<Arc<LazyClient>>) -> Self {
        let (catch_up, looked_up) = (resumes.then(Default::default), HashMap::new());
        Self {
            inner,
            looked_up,
            catch_up,
            target: None,
            identity,
            resumes,
            one_set,
            first_position: None,
            has_passed_first: false,
            question: None,
            unanswered_since: None,
            goal: None,
        }
    }

    /// Sends a batch. Returns false once the stream is dropped. The primary is not asked meanwhile, so a consumer that takes its time
    /// does not count against the primary.
    async fn send(&mut self, batch: Result<ChangeBatch>, batches: &mpsc::Sender<Result<ChangeBatch>>) -> bool {
        let begun = Instant::now();
        let is_sent = batches.send(batch).await.is_ok();
        if let Some(since) = &mut self.unanswered_since {
            *since += begun.elapsed();
        }
        is_sent
    }

    /// Asks the primary for its last write and the collection's identity, unless that is known or was asked a short time ago.
    /// Changes do not wait for the answer.
    fn ask_primary(&mut self) -> Result<()> {
        // The answer may have come while the consumer was busy.
        self.take_answer()?;
        let is_recent = |(asked, _): &(Instant, _)| asked.elapsed() < self.inner.options.timeout;
        if self.goal.is_some() || self.question.as_ref().is_some_and(is_recent) {
            return Ok(());
        }
        let (sender, answer) = oneshot::channel();
        self.question = Some((Instant::now(), answer));
        self.unanswered_since.get_or_insert_with(Instant::now);
        let inner = self.inner.clone();
        let clock = Clock::of(self.one_set.is_some());
        tokio::spawn(async move {
            // After a failure there is no answer, and the next batch asks again.
            if let Ok(observed) = observe(&inner, clock).await {
                let _ = sender.send(observed);
            }
        });
        Ok(())
    }

    /// Takes the primary's answer, if there is one.
    fn take_answer(&mut self) -> Result<()> {
        let Some((asked, mut answer)) = self.question.take() else { return Ok(()) };
        let within = self.inner.options.timeout.min(ANSWER_TIMEOUT);
        let answer_now = answer.try_recv();
        if answer_now.is_ok() {
            self.unanswered_since = None;
        } else if self.unanswered_since.is_some_and(|since| since.elapsed() > within) {
            let error = error::timed_out("the primary does not answer", within);
            return Err(ChangeStreamError::Unavailable(error));
        }
        match answer_now {
            Ok((Identity::Other(kind), _)) => {
                self.inner.namespaces.forget();
                return Err(no_stream_of(&kind));
            }
            Ok((identity, _)) if identity != self.identity => {
                self.inner.namespaces.forget();
                let why = "the collection was created, dropped or replaced".to_owned();
                return Err(ChangeStreamError::HistoryLost(why));
            }
            // Without a time, the next batch asks again.
            Ok((_, time)) => self.goal = time.map(|time| (time, asked)),
            Err(TryRecvError::Empty) => self.question = Some((asked, answer)),
            Err(TryRecvError::Closed) => {}
        }
        Ok(())
    }

    /// `lookup` is the document of the only event, if that came without it.
    fn batch(&mut self, reply: &RawBatch, form: Form, lookup: Option<Lookup>) -> Result<ChangeBatch> {
        let whole = reply.as_raw_document();
        let token =
            whole.get_document("cursor").ok().and_then(|cursor| cursor.get_document("postBatchResumeToken").ok());
        let position = match token {
            // An emulation of MongoDB may have tokens of its own.
            Some(token) => time_of_token(token).ok_or_else(|| {
                ChangeStreamError::Unsupported("the server's resume tokens do not tell the time".to_owned())
            })?,
            None => 0,
        };
        // A stream begins after the primary's last write, which a majority may not have yet. Where it names the time of the
        // next write, that is one tick later.
        if self.first_position.is_none() {
            self.inner.begun.store(position.saturating_sub(1), Ordering::Relaxed);
        }
        // The write whose time it names is still to come then, or is the one after which the stream was resumed.
        let is_at_first = *self.first_position.get_or_insert(position) == position && !self.has_passed_first;
        let Ok(majority) = whole.get_timestamp("operationTime").map(server_time) else {
            let mut events = reply.doc_slices().map_err(unreadable)?.into_iter();
            return match events.next() {
                None => Ok(ChangeBatch::default()),
                // Without a time, the lookups cannot be ordered among these events.
                Some(_) => {
                    let error = Error::unavailable("MongoDB does not tell the time of its last write yet");
                    Err(ChangeStreamError::Unavailable(error))
                }
            };
        };
        if let Some(client) = &self.one_set {
            client.note_majority(majority);
        }
        // The write may be there already: a stream begins one tick after what a majority had, which may be one write behind. Without
        // further writes it would then stay at its first position, and prove nothing.
        self.has_passed_first |= majority >= position;
        // The time of a lookup is that of the primary, which no majority may have yet.
        let majority = lookup.as_ref().map_or(majority, |lookup| lookup.time.max(majority));
        // An event that comes alone may be followed by others of the same transaction, which have the same time.
        let position = position.saturating_sub(u64::from(form == Form::Single));
        // An upper bound for the states that earlier streams looked up, perhaps on another member.
        let seen = self.inner.seen.fetch_max(majority, Ordering::Relaxed).max(majority);
        let target = *self.target.get_or_insert(seen);

        let (mut changes, mut events, mut ends_in_transaction) = (Vec::new(), 0, false);
        for event in reply.doc_slices().map_err(unreadable)? {
            let event = event.map_err(unreadable)?;
            let event = event.as_document().ok_or_else(|| unreadable("an event is no document"))?;
            events += 1;
            ends_in_transaction = event.get(TRANSACTION).ok().flatten().is_some();
            self.event(event, lookup.as_ref(), position, majority, &mut changes)?;
        }
        self.looked_up.retain(|_, looked_up| {
            let has_passed = looked_up.until <= position;
            if has_passed && let Some(held) = looked_up.held.take() {
                changes.push(held);
            }
            !has_passed
        });
        if let Some((states, bytes)) = &mut self.catch_up {
            for change in changes.drain(..) {
                *bytes += size_of(&change);
                if let Some(before) = states.insert(change.key().clone(), change) {
                    *bytes -= size_of(&before);
                }
            }
            if *bytes > CATCH_UP_BYTES {
                return Err(ChangeStreamError::HistoryLost("too much has changed to catch up".to_owned()));
            }
            if position >= target {
                changes.extend(self.catch_up.take().into_iter().flat_map(|(states, _)| states.into_values()));
            }
        }

        // A lookup may have found the state of a later event in the same batch. Only the last change of each document is kept,
        // so that no document becomes older.
        if changes.len() > 1 {
            let last: HashMap<Key, Change> = changes.drain(..).map(|change| (change.key().clone(), change)).collect();
            changes.extend(last.into_values());
        }

        // The document may have matched the condition before, so one that does not match it any more is a removal.
        let exposure = &self.inner.options.exposure;
        if !exposure.is_whole() {
            let shown = changes.into_iter().map(|change| match change {
                Change::Put(document) => {
                    let key = document.key().clone();
                    let shown = exposure.show(document).map_err(unreadable)?;
                    Ok(shown.map_or(Change::Remove(key), Change::Put))
                }
                removal @ Change::Remove(_) => Ok(removal),
            });
            changes = shown.collect::<Result<_>>()?;
        }

        self.take_answer()?;
        let (has_caught_up, is_catching_up) = (self.catch_up.is_none(), self.catch_up.is_some() && events > 0);
        // Writes of one transaction have one time. A reply ends between two of them only where the next event does not fit into
        // it, which has 16 MiB; the first reply of a cursor, after [`FIRST_REPLY_EVENTS`]; and that of several shards anywhere. The
        // next reply, at the latest after [`AWAIT`], tells that there are no more.
        let is_cut = events >= FIRST_REPLY_EVENTS
            || ends_in_transaction
            || (events > 0 && whole.as_bytes().len() > SMALL_REPLY_BYTES);
        let reached = position.saturating_sub(u64::from(is_cut || (is_at_first && !self.resumes)));
        let reached = has_caught_up.then(|| self.goal.take_if(|(goal, _)| *goal <= reached)).flatten();
        let current = reached.map(|(_, asked)| asked);
        // A stream that resumes with this token does not repeat held events.
        let is_complete = has_caught_up && self.looked_up.values().all(|looked_up| looked_up.held.is_none());
        let may_lack_events = is_at_first || self.one_set.is_none() || is_cut;
        let as_of = ClusterTime::new(position.saturating_sub(u64::from(may_lack_events))).filter(|_| has_caught_up);
        let token = token.filter(|_| is_complete).and_then(|token| encode_token(token, &self.identity));
        Ok(ChangeBatch { changes, token, current, as_of, is_catching_up })
    }

    /// `position` is the time of the stream after this batch, `majority` that of the members after all lookups of it.
    fn event(
        &mut self,
        event: &RawDocument,
        lookup: Option<&Lookup>,
        position: ServerTime,
        majority: ServerTime,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let kind = event.get_str("operationType").map_err(unreadable)?;
        let removal = || {
            let key = event.get_document("documentKey").map_err(unreadable)?;
            let id = raw::find(key.as_bytes(), b"_id").map_err(unreadable)?;
            let id = id.ok_or_else(|| unreadable("an event names no _id"))?;
            Ok(Change::Remove(Key::new(id).map_err(unreadable)?))
        };
        let (is_exact, change) = match (kind, lookup) {
            ("insert" | "replace" | "update", Some(Lookup { document, .. })) => match document {
                Some(document) => (false, put(document)?),
                None => (false, removal()?),
            },
            ("insert" | "replace", None) => {
                (true, put(event.get_document("fullDocument").map_err(unreadable)?.as_bytes())?)
            }
            ("delete", _) => (true, removal()?),
            ("update", None) => match event.get_document("fullDocument") {
                Ok(document) => (false, put(document.as_bytes())?),
                // It was removed before the lookup.
                Err(_) => (false, removal()?),
            },
            ("drop" | "rename" | "dropDatabase" | "invalidate", _) => {
                self.inner.namespaces.forget();
                return Err(ChangeStreamError::HistoryLost(format!("the collection had the event {kind:?}")));
            }
            // Events about indexes and options do not change documents.
            _ => return Ok(()),
        };
        match (self.looked_up.entry(change.key().clone()), is_exact) {
            (Entry::Occupied(mut looked_up), true) => {
                looked_up.get_mut().held = Some(change);
                return Ok(());
            }
            (Entry::Occupied(mut looked_up), false) => {
                *looked_up.get_mut() = LookedUp { until: majority, held: None };
            }
            (Entry::Vacant(looked_up), false) => {
                // If no member is ahead of this batch, its lookups found nothing newer.
                if majority > position {
                    looked_up.insert(LookedUp { until: majority, held: None });
                }
            }
            (Entry::Vacant(_), true) => {}
        }
        changes.push(change);
        Ok(())
    }
}

/// The approximate memory of a change, in bytes.
fn size_of(change: &Change) -> usize {
    let document = if let Change::Put(document) = change { document.bson().len() } else { 0 };
    CATCH_UP_ENTRY + change.key().as_bytes().len() + document
}

/// Copies the document, since a replica would otherwise keep the whole reply.
fn put(document: &[u8]) -> Result<Change> {
    Document::new(document.to_vec()).map(Change::Put).map_err(unreadable)
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ChangeStreamError {
    ChangeStreamError::Unavailable(reply::unreadable(error))
}

fn server_time(time: Timestamp) -> ServerTime {
    ServerTime::from(time.time) << 32 | ServerTime::from(time.increment)
}

pub fn timestamp(time: ServerTime) -> Timestamp {
    Timestamp { time: (time >> 32) as u32, increment: time as u32 }
}

/// The time that a resume token begins with: a type (0x82), seconds, an increment, in hexadecimal digits that sort.
fn time_of_token(token: &RawDocument) -> Option<ServerTime> {
    let digits = token.get_str("_data").ok()?.strip_prefix("82")?.get(..16)?;
    ServerTime::from_str_radix(digits, 16).ok()
}
