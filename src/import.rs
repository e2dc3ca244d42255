//! Documents of a file into a store: the whole file or nothing of it, in bounded memory.
//!
//! A file is read twice, once to check all of it, once to store it. What can be read only once (standard input, a pipe) is
//! kept in a temporary file in between.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::path::Path;

use tokio::sync::mpsc;

use crate::document::Document;
use crate::document::reader::{Bad, Documents};
use crate::store::{self, EmbeddedStore, Store};

/// How many documents go to the store in one call, and how many bytes of them: enough that a call's cost does not count.
const BATCH_DOCUMENTS: usize = 2_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

const BUFFER_BYTES: usize = 256 * 1024;

/// How many bad documents are told one by one when nothing is stored; a file of the wrong kind is wrong in every line.
const SHOWN_BAD: u64 = 10;

/// What became of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub stored: u64,
    pub skipped: u64,
}

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the input: {0}")]
    Input(#[source] io::Error),
    #[error("cannot keep the input in a temporary file: {0}. TMPDIR says where such files go")]
    Temporary(#[source] io::Error),
    #[error("{0} of {1} documents are wrong, so nothing was stored. Correct them, or leave them out by --skip-invalid")]
    Invalid(u64, u64),
    #[error("the file was changed while it was read, at {1}. {0} documents were stored: import it again")]
    Changed(u64, Bad),
    #[error("{} documents were stored, then the store failed: {}. Import again: nothing is stored twice", .0, .1.report())]
    Store(u64, #[source] store::Error),
}

/// Told how it goes. Called from another thread than the one that waits for the import.
pub trait Progress: Send + 'static {
    /// A document that cannot be stored.
    fn bad(&mut self, bad: &Bad);
    /// A pass over the input begins; `bytes` is how long it is, if that is known.
    fn begin(&mut self, doing: &'static str, bytes: Option<u64>);
    /// So many bytes of this pass are read.
    fn at(&mut self, bytes: u64);
    fn end(&mut self);
}

/// Puts every document of `input` into `store`.
///
/// Unless `skip_invalid`, it checks all of them before it stores the first one. Memory is bounded by a few batches.
///
/// # Errors
///
/// [`Error`] says how much was stored before.
pub async fn run(
    store: &dyn Store,
    input: Input,
    skip_invalid: bool,
    progress: impl Progress,
) -> Result<Report, Error> {
    // One batch waits while one is stored and one is read.
    let (batches, mut next) = mpsc::channel(1);
    let reader = tokio::task::spawn_blocking(move || read(input, skip_invalid, progress, &batches));
    let mut stored = 0;
    while let Some(batch) = next.recv().await {
        let count = Vec::len(&batch) as u64;
        store.upsert(batch).await.map_err(|error| Error::Store(stored, error))?;
        stored += count;
    }
    let read = reader.await.unwrap_or_else(|panic| Err(Failed::Input(io::Error::other(panic))));
    match read {
        Ok(skipped) => Ok(Report { stored, skipped }),
        Err(Failed::Input(error)) => Err(Error::Input(error)),
        Err(Failed::Temporary(error)) => Err(Error::Temporary(error)),
        Err(Failed::Invalid { bad, all }) => Err(Error::Invalid(bad, all)),
        Err(Failed::Changed(bad)) => Err(Error::Changed(stored, bad)),
    }
}

/// Where documents come from.
pub enum Input {
    /// Can be read twice.
    File(File),
    /// Can be read once.
    Stream(Box<dyn Read + Send>),
}

impl Input {
    /// The file at `path`, or standard input.
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

enum Failed {
    Input(io::Error),
    Temporary(io::Error),
    Invalid { bad: u64, all: u64 },
    Changed(Bad),
}

/// The thread that reads; returns how many documents were skipped.
fn read(
    input: Input,
    skip_invalid: bool,
    mut progress: impl Progress,
    batches: &mpsc::Sender<Vec<Document>>,
) -> Result<u64, Failed> {
    if skip_invalid {
        return match input {
            Input::File(file) => load(&file, length(&file), progress, true, batches),
            Input::Stream(stream) => load(stream, None, progress, true, batches),
        };
    }
    let mut file = match input {
        Input::File(file) => {
            check(BufReader::with_capacity(BUFFER_BYTES, &file), length(&file), &mut progress)?;
            file
        }
        Input::Stream(stream) => {
            let mut copy = tempfile::tempfile().map_err(Failed::Temporary)?;
            let mut tee = Tee { stream, copy: &mut copy, failure: None };
            let checked = check(BufReader::with_capacity(BUFFER_BYTES, &mut tee), None, &mut progress);
            if let Some(error) = tee.failure {
                return Err(Failed::Temporary(error));
            }
            checked?;
            copy
        }
    };
    file.rewind().map_err(Failed::Input)?;
    let length = length(&file);
    load(file, length, progress, false, batches)
}

fn length(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.len())
}

/// Reads everything and keeps nothing.
fn check(input: impl BufRead, length: Option<u64>, progress: &mut impl Progress) -> Result<(), Failed> {
    progress.begin("checking", length);
    let mut documents = Documents::new(input);
    let (mut bad, mut all) = (0, 0);
    while let Some(document) = documents.next() {
        all += 1;
        if let Err(wrong) = document.map_err(Failed::Input)? {
            bad += 1;
            if bad <= SHOWN_BAD {
                progress.bad(&wrong);
            }
        }
        progress.at(documents.bytes());
    }
    progress.end();
    if bad > 0 { Err(Failed::Invalid { bad, all }) } else { Ok(()) }
}

fn load(
    input: impl Read,
    length: Option<u64>,
    mut progress: impl Progress,
    skip_invalid: bool,
    batches: &mpsc::Sender<Vec<Document>>,
) -> Result<u64, Failed> {
    progress.begin("storing", length);
    let mut documents = Documents::new(BufReader::with_capacity(BUFFER_BYTES, input));
    let mut batch = Vec::new();
    let (mut size, mut skipped) = (0, 0);
    while let Some(document) = documents.next() {
        match document.map_err(Failed::Input)? {
            Ok(document) => {
                size += document.encoded_len();
                batch.push(document);
            }
            Err(bad) if skip_invalid => {
                skipped += 1;
                progress.bad(&bad);
            }
            Err(bad) => return Err(Failed::Changed(bad)),
        }
        if batch.len() == BATCH_DOCUMENTS || size >= BATCH_BYTES {
            size = 0;
            // Nobody takes it: the store failed, and whoever waits for it says so.
            if batches.blocking_send(std::mem::take(&mut batch)).is_err() {
                return Ok(skipped);
            }
            progress.at(documents.bytes());
        }
    }
    if !batch.is_empty() {
        let _ = batches.blocking_send(batch);
    }
    progress.end();
    Ok(skipped)
}

/// Copies what is read from it. A failure to write the copy is kept apart from one to read: they have different remedies.
struct Tee<'a> {
    stream: Box<dyn Read + Send>,
    copy: &'a mut File,
    failure: Option<io::Error>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        match self.copy.write_all(&buffer[..count]) {
            Ok(()) => Ok(count),
            Err(error) => {
                self.failure = Some(error);
                Err(io::ErrorKind::WriteZero.into())
            }
        }
    }
}

/// Fills `store` from `seed`, if it is empty; how many documents that were.
///
/// # Errors
///
/// When the seed is wrong, which leaves the store as it was, or cannot be stored.
pub async fn seed(store: &dyn EmbeddedStore, seed: Input) -> Result<u64, Error> {
    if !store.is_empty().map_err(|error| Error::Store(0, error))? {
        return Ok(0);
    }
    run(store, seed, false, Logged).await.map(|report| report.stored)
}

/// Progress without a terminal: only what is wrong.
struct Logged;

impl Progress for Logged {
    fn bad(&mut self, bad: &Bad) {
        tracing::error!("{bad}");
    }
    fn begin(&mut self, _: &'static str, _: Option<u64>) {}
    fn at(&mut self, _: u64) {}
    fn end(&mut self) {}
}
