//! Imports the documents of a file into a store: the whole file or nothing of it, in bounded memory.
//!
//! A file is read twice, once to check all of it, once to store it. An input that can be read only once (standard input, a
//! pipe) is kept in between: in memory, and beyond `KEPT_BYTES` in a temporary file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rapidhash::v3::{RapidSecrets, RapidStreamHasherV3};
use tempfile::SpooledTempFile;
use tokio::sync::mpsc;

use crate::document::MissingId;
use crate::document::reader::{Documents, InvalidDocument, Place};
use crate::record::Document;
use crate::store::{self, EmbeddedStore, Store};
use crate::wire;

/// The limits of a batch, which goes to the store in one call: large enough that the cost of a call does not matter.
const BATCH_DOCUMENTS: usize = 2_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The memory for an input that can be read only once: about as much as the batches take. The container image has no place
/// for temporary files, and most inputs are smaller.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// The number of invalid documents that are reported one by one: a file of another format is wrong in every line.
const SHOWN_BAD: u64 = 10;

/// The treatment of documents that cannot be stored as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Leaves invalid documents out, without checking the whole input first.
    pub skip_invalid: bool,
    /// Refuses documents without an `_id`. Otherwise each of them gets a new ObjectId.
    pub require_id: bool,
}

/// The result of an import, in documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    pub stored: u64,
    pub skipped: u64,
}

/// The reason why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the input: {error}{}", if *stored == 0 { String::new() } else { format!(". {stored} documents were stored before") })]
    Input {
        #[source]
        error: io::Error,
        stored: u64,
    },
    #[error(
        "cannot keep the input in a temporary file: {0}. Set TMPDIR to a directory that can be written to, in a container to \
         one that is mounted for it; or import a file by its name, which needs none"
    )]
    Temporary(#[source] io::Error),
    #[error("{reason}. {}", if *stored == 0 { "Nothing was stored".to_owned() } else { format!("{stored} documents were stored before") })]
    Format { reason: String, stored: u64 },
    #[error("{0} of {1} documents are wrong, so nothing was stored. Correct them")]
    Invalid(u64, u64),
    #[error("the file was changed while it was read, at {1}. {0} documents were stored: import it again")]
    Changed(u64, InvalidDocument),
    #[error(
        "the store holds only a part of {0}, since its load did not finish. Start again with that seed as it was then, or move \
         the store's directory away"
    )]
    Part(String),
    #[error("{0}")]
    Store(StoreFailure),
}

/// A store that failed during an import.
#[derive(Debug)]
pub struct StoreFailure {
    /// The documents that were certainly stored.
    pub stored: u64,
    /// The documents of the input, if they were counted before.
    pub documents: Option<u64>,
    /// True if some documents got a generated `_id`: a second import would give them another one.
    pub has_generated_ids: bool,
    pub error: store::Error,
}

impl StoreFailure {
    fn new(stored_before: u64, has_generated_ids: bool, error: store::Error) -> Self {
        let stored = error.outcome().map_or(0, |outcome| outcome.stored as u64);
        Self { stored: stored_before + stored, documents: None, has_generated_ids, error }
    }
}

/// The number of refused documents that are named for each cause.
const SHOWN_REFUSED: usize = 10;

impl fmt::Display for StoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stored, documents, has_generated_ids, error } = self;
        write!(f, "{stored} documents were stored, then the store failed: ")?;
        match error.outcome().is_some_and(|outcome| !outcome.refused.is_empty()) {
            true => write!(f, "{error}")?,
            false => write!(f, "{}", error.report())?,
        }
        if let Some(outcome) = error.outcome() {
            let mut causes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for refused in &outcome.refused {
                let id = refused.document.as_ref().and_then(|document| wire::id(document.bson()));
                causes.entry(&refused.reason).or_default().push(id.unwrap_or_else(|| "unknown".to_owned()));
            }
            for (reason, ids) in causes {
                write!(
                    f,
                    "\n  {} refused: {reason}: _id {}",
                    ids.len(),
                    ids[..ids.len().min(SHOWN_REFUSED)].join(", ")
                )?;
                if ids.len() > SHOWN_REFUSED {
                    f.write_str(", …")?;
                }
            }
            if outcome.unknown > 0 {
                write!(f, "\n  {} may be stored or not: the store did not say", outcome.unknown)?;
            }
            let tried = stored + outcome.refused.len() as u64 + outcome.unknown as u64;
            match documents.map(|documents| documents.saturating_sub(tried)) {
                Some(0) => {}
                Some(others) => write!(f, "\n  {others} not tried")?,
                None => f.write_str("\n  the rest of the input not tried")?,
            }
        }
        let twice = match has_generated_ids {
            true => "documents without an `_id` would be stored a second time",
            false => "nothing is stored twice",
        };
        match (error.remedy(), error.kind()) {
            (Some(remedy), _) => write!(f, ". {remedy}, and import again: {twice}"),
            (None, store::Kind::Unavailable) => write!(f, ". Try again: {twice}"),
            (None, store::Kind::Invalid) => write!(f, ". Correct the input, and import again: {twice}"),
            (None, store::Kind::Broken) => Ok(()),
        }
    }
}

/// Receives the progress of an import, on another thread than the one that waits for the import.
pub trait Progress: Send + 'static {
    /// Reports a document that cannot be stored.
    fn bad(&mut self, bad: &InvalidDocument);
    /// Starts a pass over the input; `bytes` is the length of the input, if it is known.
    fn begin(&mut self, doing: &'static str, bytes: Option<u64>);
    /// Reports the number of bytes that the pass has read.
    fn at(&mut self, bytes: u64);
    fn end(&mut self);
}

/// Stores every document of `input` in `store`.
///
/// Unless invalid ones are skipped, all of them are checked before the first one is stored. Memory is bounded by a few batches.
///
/// # Errors
///
/// [`Error`] says how much was stored before.
pub async fn run(
    store: &dyn Store,
    input: Input,
    options: ImportOptions,
    progress: impl Progress,
) -> Result<ImportSummary, Error> {
    let missing_id = if options.require_id { MissingId::Refuse } else { MissingId::Generate { count: 0 } };
    storing(store, Reading { input, skip_invalid: options.skip_invalid, missing_id }, progress, async |_| Ok(())).await
}

/// Like [`run`]; calls `checked` with the hash of the input once all documents are valid, before the first one is stored.
async fn storing(
    store: &dyn Store,
    reading: Reading,
    progress: impl Progress,
    checked: impl AsyncFn(u64) -> Result<(), Error>,
) -> Result<ImportSummary, Error> {
    // Three batches are in memory: one is read, one waits in the channel, one is stored.
    let (steps, mut next) = mpsc::channel(1);
    let reader = tokio::task::spawn_blocking(move || reading.run(progress, &steps));
    let (mut stored, mut all) = (0, None);
    while let Some(step) = next.recv().await {
        match step {
            Step::Checked { hash, documents } => {
                all = Some(documents);
                checked(hash).await?;
            }
            Step::Batch { documents, has_generated_ids } => {
                let count = documents.len() as u64;
                let failed = |error| {
                    Error::Store(StoreFailure { documents: all, ..StoreFailure::new(stored, has_generated_ids, error) })
                };
                store.upsert(documents).await.map_err(failed)?;
                stored += count;
            }
        }
    }
    let read = reader.await.unwrap_or_else(|panic| Err(ReadError::Input(io::Error::other(panic))));
    match read {
        Ok(skipped) => Ok(ImportSummary { stored, skipped }),
        Err(ReadError::Input(error)) => Err(Error::Input { error, stored }),
        Err(ReadError::Temporary(error)) => Err(Error::Temporary(error)),
        Err(ReadError::Format(reason)) => Err(Error::Format { reason, stored }),
        Err(ReadError::Invalid { bad, all }) => Err(Error::Invalid(bad, all)),
        Err(ReadError::Changed(bad)) => Err(Error::Changed(stored, bad)),
    }
}

/// A source of documents.
pub enum Input {
    /// Can be read twice.
    File(File),
    /// Can be read once.
    Stream(Box<dyn Read + Send>),
}

impl Input {
    /// Opens the file at `path`, or standard input.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or is a directory.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stream(Box::new(io::stdin()))) };
        let file = File::open(path)?;
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // A named pipe has a path and can still be read only once.
        Ok(if kind.is_file() { Self::File(file) } else { Self::Stream(Box::new(file)) })
    }
}

/// A message from the thread that reads.
enum Step {
    /// All documents are valid; with the hash of the input.
    Checked { hash: u64, documents: u64 },
    Batch {
        documents: Vec<Document>,
        /// True if a document of this batch or of an earlier one got a generated `_id`.
        has_generated_ids: bool,
    },
}

enum ReadError {
    Input(io::Error),
    Temporary(io::Error),
    /// The file is of a kind that is not read, or is damaged.
    Format(String),
    Invalid {
        bad: u64,
        all: u64,
    },
    Changed(InvalidDocument),
}

/// The work of the thread that reads and checks the input.
struct Reading {
    input: Input,
    skip_invalid: bool,
    missing_id: MissingId,
}

impl Reading {
    /// Returns the number of skipped documents.
    fn run(self, mut progress: impl Progress, steps: &mpsc::Sender<Step>) -> Result<u64, ReadError> {
        let Self { input, skip_invalid, missing_id } = self;
        if skip_invalid {
            return match input {
                Input::File(file) => load(&file, length(&file), missing_id, progress, true, steps),
                Input::Stream(stream) => load(stream, None, missing_id, progress, true, steps),
            };
        }
        match input {
            Input::File(file) => {
                let length = length(&file);
                let checked = check(&file, length, missing_id, &mut progress, steps)?;
                load_checked(file, checked, length, missing_id, progress, steps)
            }
            Input::Stream(stream) => {
                let mut tee = Tee { stream, copy: SpooledTempFile::new(KEPT_BYTES), length: 0, failure: None };
                let checked = check(&mut tee, None, missing_id, &mut progress, steps);
                if let Some(error) = tee.failure {
                    return Err(ReadError::Temporary(error));
                }
                load_checked(tee.copy, checked?, Some(tee.length), missing_id, progress, steps)
            }
        }
    }
}

/// Stores an input whose documents were found valid. `checked` is the hash of the input and the number of documents.
fn load_checked(
    mut input: impl Read + Seek,
    (hash, documents): (u64, u64),
    length: Option<u64>,
    missing_id: MissingId,
    progress: impl Progress,
    steps: &mpsc::Sender<Step>,
) -> Result<u64, ReadError> {
    // If the receiver is gone, sending the first batch fails, which ends the load.
    let _ = steps.blocking_send(Step::Checked { hash, documents });
    input.rewind().map_err(ReadError::Input)?;
    let missing_id = match missing_id {
        MissingId::Derive { .. } => MissingId::Derive { file: (hash >> 32) as u32, count: 0 },
        other => other,
    };
    load(input, length, missing_id, progress, false, steps)
}

fn length(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.len())
}

/// Checks all documents, and returns the hash of the input and their number.
fn check(
    input: impl Read,
    length: Option<u64>,
    missing_id: MissingId,
    progress: &mut impl Progress,
    steps: &mpsc::Sender<Step>,
) -> Result<(u64, u64), ReadError> {
    progress.begin("checking", length);
    let mut input = HashingReader { input, hasher: RapidStreamHasherV3::new(&SECRETS) };
    let mut documents = Documents::with_missing_id(&mut input, missing_id);
    let (mut bad, mut all) = (0, 0);
    while let Some(document) = documents.next() {
        all += 1;
        if let Err(wrong) = document.map_err(ReadError::Input)? {
            if wrong.place == Place::File {
                return Err(ReadError::Format(wrong.reason));
            }
            bad += 1;
            if bad <= SHOWN_BAD {
                progress.bad(&wrong);
            }
        }
        progress.at(documents.bytes());
        // The receiver is gone: the process is about to end, and would wait for this thread.
        if steps.is_closed() {
            break;
        }
    }
    drop(documents);
    progress.end();
    if bad > 0 { Err(ReadError::Invalid { bad, all }) } else { Ok((input.hasher.finish(), all)) }
}

fn load(
    input: impl Read,
    length: Option<u64>,
    missing_id: MissingId,
    mut progress: impl Progress,
    skip_invalid: bool,
    steps: &mpsc::Sender<Step>,
) -> Result<u64, ReadError> {
    progress.begin("storing", length);
    let mut documents = Documents::with_missing_id(input, missing_id);
    let mut batch = Vec::new();
    let (mut size, mut skipped) = (0, 0);
    let mut outcome = Ok(());
    while let Some(document) = documents.next() {
        let document = match document {
            Ok(document) => document,
            // The documents before it are stored.
            Err(error) => {
                outcome = Err(ReadError::Input(error));
                break;
            }
        };
        match document {
            Ok(document) => {
                size += document.bson().len();
                batch.push(document);
            }
            Err(bad) if bad.place == Place::File => outcome = Err(ReadError::Format(bad.reason)),
            Err(bad) if skip_invalid => {
                skipped += 1;
                progress.bad(&bad);
            }
            Err(bad) => return Err(ReadError::Changed(bad)),
        }
        if batch.len() == BATCH_DOCUMENTS || size >= BATCH_BYTES {
            size = 0;
            // The receiver is gone: the store failed, and the caller reports that.
            let has_generated_ids = documents.has_generated_ids();
            let step = Step::Batch { documents: std::mem::take(&mut batch), has_generated_ids };
            if steps.blocking_send(step).is_err() {
                return Ok(skipped);
            }
            progress.at(documents.bytes());
        }
    }
    if !batch.is_empty() {
        let has_generated_ids = documents.has_generated_ids();
        let _ = steps.blocking_send(Step::Batch { documents: batch, has_generated_ids });
    }
    progress.end();
    if documents.is_partial() {
        tracing::warn!(
            "the replica lacks the fields and records that its service did not show (--expose, --hide, --where), and so do \
             the documents that were stored"
        );
    }
    outcome.map(|()| skipped)
}

/// Reads a stream and keeps a copy. Reports errors of the copy separately from read errors: the remedies differ.
struct Tee {
    stream: Box<dyn Read + Send>,
    copy: SpooledTempFile,
    length: u64,
    failure: Option<io::Error>,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        match self.copy.write_all(&buffer[..count]) {
            Ok(()) => {
                self.length += count as u64;
                Ok(count)
            }
            Err(error) => {
                self.failure = Some(error);
                Err(io::ErrorKind::WriteZero.into())
            }
        }
    }
}

/// Hashes the bytes that pass through it.
struct HashingReader<R> {
    input: R,
    hasher: RapidStreamHasherV3<'static>,
}

/// The secrets of the hash. Fixed, since a store keeps the hash and a later build compares it.
static SECRETS: RapidSecrets = RapidSecrets::seed(0);

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.write(&buffer[..count]);
        Ok(count)
    }
}

/// The documents that an empty embedded store is filled with.
pub struct Seed {
    /// The name in messages.
    pub name: String,
    pub input: Input,
}

/// Fills `store` from `seed` if it is empty, or if a load of the same seed was interrupted; returns the number of documents.
///
/// A store with a part of a seed looks like a complete one. So the store records the name and the hash of the seed that is
/// being loaded, until all of it is stored. The record of a load that had stored nothing is removed.
///
/// # Errors
///
/// When the seed is invalid, which leaves the store as it was, or cannot be stored. When the store holds a part of another
/// seed, whose documents would otherwise be mixed with those of this one.
pub async fn seed(store: &dyn EmbeddedStore, seed: Option<Seed>) -> Result<u64, Error> {
    let failed = |error| Error::Store(StoreFailure::new(0, false, error));
    let noted = store.loading().map_err(failed)?;
    let is_empty = store.is_empty().map_err(failed)?;
    if noted.is_none() && (seed.is_none() || !is_empty) {
        return Ok(0);
    }
    let part = noted.as_deref().filter(|_| !is_empty).map(|note| note.split_once(' ').unwrap_or(("", note)));
    let mut stored = 0;
    match (seed, part) {
        (Some(Seed { name, input }), _) => {
            let checked = async |hash| {
                let hash = format!("{hash:016x}");
                match part {
                    Some((of, part)) if of != hash => return Err(Error::Part(part.to_owned())),
                    Some((_, part)) => tracing::warn!("the last load of {part} did not finish: loading it again"),
                    None => {}
                }
                store.set_loading(Some(&format!("{hash} {name}"))).await.map_err(failed)
            };
            // An interrupted load is repeated, so documents without an `_id` must get the same one each time.
            let missing_id = MissingId::Derive { file: 0, count: 0 };
            stored = storing(store, Reading { input, skip_invalid: false, missing_id }, Logged, checked).await?.stored;
        }
        (None, Some((_, part))) => return Err(Error::Part(part.to_owned())),
        (None, None) => {}
    }
    store.set_loading(None).await.map_err(|error| Error::Store(StoreFailure::new(stored, false, error)))?;
    Ok(stored)
}

/// Progress without a terminal: logs invalid documents only.
struct Logged;

impl Progress for Logged {
    fn bad(&mut self, bad: &InvalidDocument) {
        tracing::error!("{bad}");
    }
    fn begin(&mut self, _: &'static str, _: Option<u64>) {}
    fn at(&mut self, _: u64) {}
    fn end(&mut self) {}
}
