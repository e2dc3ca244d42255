//! Where copies live. In memory they come and go with the process; in a directory each has a store of its own, and a file
//! beside them says which one is whole.
//!
//! ```text
//! LOCK         whose directory it is at the moment, and that it is one of copies: its text says so
//! copy.json    the generation that is whole, where its changes go on, and when it was last known to be current
//! 1/, 2/, …    a store each
//! ```
//!
//! A new generation is filled beside the old one, and becomes the copy when `copy.json` names it: in one step, and after
//! all of it is on the disk. What no `copy.json` names is removed at the next start. Since directories of other people have
//! numbers for names too, only that is removed which is known to be a copy's: a store, or the beginning of one, in a directory
//! that was empty when it was first taken. Where there is anything else, nothing is touched.

use std::fs::{self, DirEntry, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::Settings;
use super::copy::{Copy, Generation};
use crate::store::{self, BackendKind, Error, FORMAT_FILE, ListRequest, Opened, Options, Result, ResumeToken};

const LOCK: &str = "LOCK";
const STATE: &str = "copy.json";
const STATE_NEW: &str = "copy.json.new";

/// What stands in the lock: somebody else's file of that name says something else.
const MARK: &str = "records, copies of a store\n";

/// What a store leaves in its directory if it is killed before it has written [`FORMAT_FILE`].
const BEGINNING: [&str; 2] = ["LOCK", "FORMAT.new"];

/// The layout of the directory and of the stores in it: since layout 3 they hold BSON.
const FORMAT: u32 = 3;

pub struct Home {
    url: String,
    options: Options,
    directory: Option<Directory>,
}

struct Directory {
    path: PathBuf,
    source: String,
    /// The last number that was given to a generation.
    last: u64,
    /// The generation of an earlier run that could not be opened.
    unopened: Option<u64>,
    /// The lock lasts as long as the file is open.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    source: String,
    generation: u64,
    token: Option<String>,
    /// Milliseconds since 1970.
    current: u64,
}

/// A copy out of an earlier run.
pub struct Stored {
    pub generation: Arc<Generation>,
    pub number: u64,
    pub token: Option<ResumeToken>,
}

/// Refuses what no copy can be kept in, as far as the URL tells.
///
/// # Errors
///
/// `Invalid`, as [`store::open`] has it.
pub async fn check(url: &str) -> Result<()> {
    match store::kind(url) {
        Some(BackendKind::Remote) => Err(not_embedded()),
        // Around the stores of the copy: it is not one itself.
        Some(BackendKind::Local) => store::directory(url).map(drop),
        // Where there is no such store, the error says what is wrong with the name.
        Some(BackendKind::InMemory) | None => store::check(url).await,
    }
}

fn not_embedded() -> Error {
    Error::invalid("a copy must be in this process: memory:, or sled:DIRECTORY")
}

impl Home {
    /// Finds the copy that is there, if there is one of the same source, and clears away what is left of others.
    pub async fn open(settings: &Settings, copy: &Copy) -> Result<(Self, Option<Stored>)> {
        let url = settings.copy.clone();
        check(&url).await?;
        let mut home = Self { url, options: settings.options.clone(), directory: None };
        if store::kind(&home.url) != Some(BackendKind::Local) {
            return Ok((home, None));
        }
        let path = store::directory(&home.url)?;
        let mut directory = Directory::take(path, settings.source.clone())?;
        let state = directory.read()?;
        directory.last = directory.tidy(state.as_ref().map(|state| state.generation))?;
        home.directory = Some(directory);
        let Some(state) = state else { return Ok((home, None)) };
        match home.reopened(&state, copy).await {
            Ok(stored) => Ok((home, Some(stored))),
            Err(error) => {
                tracing::error!(cause = %error.report(), "the stored copy cannot be opened: it is made anew");
                // There until a new one can be made: the next start may have what this one has not, such as room on the disk.
                if let Some(directory) = &mut home.directory {
                    directory.unopened = Some(state.generation);
                }
                Ok((home, None))
            }
        }
    }

    async fn reopened(&self, state: &State, copy: &Copy) -> Result<Stored> {
        // A store that is not there would be made, and served as if the copy had no records.
        if let Some(directory) = &self.directory
            && !directory.path.join(state.generation.to_string()).is_dir()
        {
            return Err(Error::broken(format!("the directory of the generation {} is missing", state.generation)));
        }
        let empty = self.generation(Some(state.generation)).await?;
        // Counted, not remembered: what was written after the last word in the file would be missing.
        let (mut records, mut bytes) = (0, 0);
        let mut all = empty.store()?.list(ListRequest::default()).await?.rows;
        while let Some(row) = all.try_next().await? {
            records += 1;
            bytes += row.document.bson().len() as u64;
        }
        empty.counted(records, bytes);
        let then = UNIX_EPOCH + Duration::from_millis(state.current);
        // A clock that was set back says nothing; what it says is the best there is.
        copy.proven_ago(&empty, SystemTime::now().duration_since(then).unwrap_or_default());
        let token = state.token.as_ref().and_then(|token| BASE64_STANDARD.decode(token).ok());
        Ok(Stored { generation: empty, number: state.generation, token: token.map(|token| ResumeToken(token.into())) })
    }

    /// An empty generation, and its number.
    pub async fn fresh(&mut self) -> Result<(Arc<Generation>, u64)> {
        let number = match &mut self.directory {
            None => 0,
            Some(directory) => {
                directory.last += 1;
                directory.last
            }
        };
        let made = self.generation(self.directory.is_some().then_some(number)).await;
        if made.is_err()
            && let Some(directory) = &self.directory
        {
            // Where there is no room for a whole store, there is none for parts of many either.
            directory.clear(number);
        }
        Ok((made?, number))
    }

    /// Whether there is a copy that nobody can read.
    pub fn has_unopened(&self) -> bool {
        self.directory.as_ref().is_some_and(|directory| directory.unopened.is_some())
    }

    /// Makes room for a new copy in the place of the one that nobody can read.
    pub fn clear_unopened(&mut self) {
        self.forget();
        if let Some(directory) = &mut self.directory
            && let Some(number) = directory.unopened.take()
        {
            directory.clear(number);
        }
    }

    async fn generation(&self, number: Option<u64>) -> Result<Arc<Generation>> {
        let (url, path) = match (number, &self.directory) {
            (Some(number), Some(directory)) => {
                let path = directory.path.join(number.to_string());
                let scheme = self.url.split(':').next().unwrap_or_default();
                (format!("{scheme}:{}", path.display()), Some(path))
            }
            _ => (self.url.clone(), None),
        };
        match store::open(&url, self.options.clone()).await? {
            Opened::Embedded(store) => Ok(Generation::new(store, path)),
            Opened::Remote(_) => Err(not_embedded()),
        }
    }

    /// Whether a copy outlives the process.
    pub fn is_lasting(&self) -> bool {
        self.directory.is_some()
    }

    /// From now on `generation` is what a restart finds. Everything in it is on the disk before.
    pub async fn remember(
        &self,
        generation: &Generation,
        number: u64,
        token: Option<&ResumeToken>,
        age: Duration,
    ) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        // The moment first: what is flushed after it is newer.
        let current = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age);
        generation.store()?.flush().await?;
        let state = State {
            format: FORMAT,
            source: directory.source.clone(),
            generation: number,
            token: token.map(|token| BASE64_STANDARD.encode(&token.0)),
            current: current.as_millis() as u64,
        };
        let path = directory.path.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, &state)).await;
        written
            .unwrap_or_else(|panic| Err(io::Error::other(panic)))
            .map_err(|error| Error::unavailable("cannot write the state of the copy").with_source(error))
    }

    /// Forgets the copy that [`remember`](Self::remember) has named.
    pub fn forget(&self) {
        if let Some(directory) = &self.directory
            && let Err(error) = fs::remove_file(directory.path.join(STATE))
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove the state of the copy");
        }
    }
}

fn write(directory: &Path, state: &State) -> io::Result<()> {
    let new = directory.join(STATE_NEW);
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    file.sync_all()?;
    fs::rename(new, directory.join(STATE))
}

impl Directory {
    fn take(path: PathBuf, source: String) -> Result<Self> {
        let at = path.display().to_string();
        let cannot = |what: &str, error: io::Error| Error::broken(format!("cannot {what} {at}")).with_source(error);
        fs::create_dir_all(&path).map_err(|error| cannot("make the directory", error))?;
        if let Some(stranger) = stranger(&path).map_err(|error| cannot("read", error))? {
            return Err(Error::invalid(format!(
                "{at} holds {stranger:?}, which is no part of a copy: name a new or an empty directory. Nothing in it was changed"
            )));
        }
        // What is in it may be the other process's mark.
        let lock = File::options().create(true).truncate(false).write(true).open(path.join(LOCK));
        let mut lock = lock.map_err(|error| cannot("write in", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::unavailable(format!(
                    "the copy in {at} is in use by another process: stop that one first, or name another directory"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(cannot("lock", error)),
        }
        // On the disk before anything that is known to be ours by it; and not again, for which a full disk may have no room.
        if fs::read(path.join(LOCK)).map_err(|error| cannot("read", error))? != MARK.as_bytes() {
            let marked = lock.write_all(MARK.as_bytes()).and_then(|()| lock.sync_all());
            marked.map_err(|error| cannot("write in", error))?;
        }
        Ok(Self { path, source, last: 0, unopened: None, _lock: lock })
    }

    /// What is remembered of a copy of the same source.
    fn read(&self) -> Result<Option<State>> {
        let bytes = match fs::read(self.path.join(STATE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Error::broken("cannot read the state of the copy").with_source(error));
            }
        };
        let state: State = match serde_json::from_slice(&bytes) {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(%error, "the state of the stored copy cannot be read: it is made anew");
                return Ok(None);
            }
        };
        if state.format != FORMAT || state.source != self.source {
            tracing::warn!(source = state.source, "the stored copy is of another source or version: it is made anew");
            return Ok(None);
        }
        Ok(Some(state))
    }

    /// Removes the generation `number`, if it is one.
    fn clear(&self, number: u64) {
        let path = self.path.join(number.to_string());
        if is_generation(&path)
            && let Err(error) = remove(&path)
        {
            tracing::warn!(%error, "cannot remove the copy in {}", path.display());
        }
    }

    /// Removes all generations but `kept`; returns the highest number there was.
    fn tidy(&self, kept: Option<u64>) -> Result<u64> {
        let cannot = |error| Error::broken("cannot tidy the directory of the copy").with_source(error);
        let mut last = 0;
        for entry in fs::read_dir(&self.path).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let Some(number) = number(&entry).map_err(cannot)? else { continue };
            last = last.max(number);
            if Some(number) != kept {
                remove(&entry.path()).map_err(cannot)?;
            }
        }
        Ok(last)
    }
}

/// The first thing in the directory that is none of ours.
fn stranger(path: &Path) -> io::Result<Option<String>> {
    let is = |name: &str, text: fn(&[u8]) -> bool| match fs::read(path.join(name)) {
        Ok(bytes) => Ok(text(&bytes)),
        Err(error) if [ErrorKind::NotFound, ErrorKind::IsADirectory].contains(&error.kind()) => Ok(false),
        Err(error) => Err(error),
    };
    let marked = is(LOCK, |text| text == MARK.as_bytes())?;
    // A version before this one left its lock empty.
    let ours = marked || is(STATE, |text| serde_json::from_slice::<State>(text).is_ok())?;
    let taken = marked || is(LOCK, <[u8]>::is_empty)?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let known = if name == LOCK {
            taken
        } else if name == STATE || name == STATE_NEW {
            ours && entry.file_type()?.is_file()
        } else {
            ours && number(&entry)?.is_some()
        };
        if !known {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// The number of a generation, if this is one, or the beginning or the rest of one.
fn number(entry: &DirEntry) -> io::Result<Option<u64>> {
    let name = entry.file_name();
    // Spelled as we do: not `007`, and not `+7`.
    let number = name.to_str().and_then(|name| Some((name, name.parse::<u64>().ok()?)));
    let number = number.filter(|(name, number)| number.to_string() == *name).map(|(_, number)| number);
    // A link would lead elsewhere.
    Ok(number.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_generation(&entry.path())))
}

/// Whether this is a directory that a store has made, or has begun to.
fn is_generation(path: &Path) -> bool {
    let begun = || {
        let mut names = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name()));
        names.try_fold(true, |all, name| name.map(|name| all && BEGINNING.iter().any(|known| name == *known)))
    };
    path.join(FORMAT_FILE).is_file() || begun().unwrap_or(false)
}

/// Removes a generation that is still open: what it has on the disk goes now, and not when its files are closed.
pub fn empty(generation: &Path) {
    fn cut(path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => cut(&entry.path())?,
                false if entry.file_name() == FORMAT_FILE => {}
                false => File::options().write(true).open(entry.path())?.set_len(0)?,
            }
        }
        Ok(())
    }
    if let Err(error) = cut(generation).and_then(|()| remove(generation)) {
        tracing::warn!(%error, "cannot remove the copy in {}", generation.display());
    }
}

/// Removes a generation: last that by which it is known, so that what is left of it when the process is killed is known too.
pub fn remove(generation: &Path) -> io::Result<()> {
    for entry in fs::read_dir(generation)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != FORMAT_FILE {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir_all(generation)
}
