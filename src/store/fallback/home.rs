//! Where copies live. In memory they come and go with the process; in a directory each has a store of its own, and a file
//! beside them says which one is whole.
//!
//! ```text
//! LOCK         whose directory it is at the moment
//! copy.json    the generation that is whole, where its changes go on, and when it was last known to be current
//! 1/, 2/, …    a store each
//! ```
//!
//! A new generation is filled beside the old one, and becomes the copy when `copy.json` names it: in one step, and after
//! all of it is on the disk. What no `copy.json` names is removed at the next start.

use std::fs::{self, File, TryLockError};
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
use crate::store::{self, Error, Options, Place, Query, Result, Token};

const LOCK: &str = "LOCK";
const STATE: &str = "copy.json";
const STATE_NEW: &str = "copy.json.new";

/// The layout of the directory.
const FORMAT: u32 = 1;

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
    pub token: Option<Token>,
}

/// Refuses what no copy can be kept in, as far as the URL tells.
///
/// # Errors
///
/// `Invalid`, as [`store::open`] has it.
pub async fn check(url: &str) -> Result<()> {
    match store::place(url) {
        Some(Place::Server) => Err(Error::invalid("a copy must be in this process: memory:, or sled:DIRECTORY")),
        // Around the stores of the copy: it is not one itself.
        Some(Place::Directory) => store::directory(url).map(drop),
        // Where there is no such store, the error says what is wrong with the name.
        Some(Place::Memory) | None => store::check(url).await,
    }
}

impl Home {
    /// Finds the copy that is there, if there is one of the same source, and clears away what is left of others.
    pub async fn open(settings: &Settings, copy: &Copy) -> Result<(Self, Option<Stored>)> {
        let url = settings.copy.clone();
        check(&url).await?;
        let mut home = Self { url, options: settings.options.clone(), directory: None };
        if store::place(&home.url) != Some(Place::Directory) {
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
        let mut all = empty.embedded()?.list(Query::all());
        while let Some(record) = all.try_next().await? {
            records += 1;
            bytes += record.json().len() as u64;
        }
        empty.counted(records, bytes);
        let then = UNIX_EPOCH + Duration::from_millis(state.current);
        // A clock that was set back says nothing; what it says is the best there is.
        copy.proven_ago(&empty, SystemTime::now().duration_since(then).unwrap_or_default());
        let token = state.token.as_ref().and_then(|token| BASE64_STANDARD.decode(token).ok());
        Ok(Stored { generation: empty, number: state.generation, token: token.map(|token| Token(token.into())) })
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
        Ok((self.generation(self.directory.is_some().then_some(number)).await?, number))
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
        Generation::new(store::open(&url, self.options.clone()).await?, path)
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
        token: Option<&Token>,
        age: Duration,
    ) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        // The moment first: what is flushed after it is newer.
        let current = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age);
        generation.embedded()?.flush().await?;
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
        if let Some(stranger) = strangers(&path).map_err(|error| cannot("read", error))? {
            return Err(Error::invalid(format!(
                "{at} holds {stranger:?}, which is no part of a copy: name a new or an empty directory. Nothing in it was changed"
            )));
        }
        let lock = File::create(path.join(LOCK)).map_err(|error| cannot("write in", error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, source, last: 0, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::unavailable(format!(
                "the copy in {at} is in use by another process: stop that one first, or name another directory"
            ))),
            Err(TryLockError::Error(error)) => Err(cannot("lock", error)),
        }
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
            tracing::warn!(source = state.source, "the stored copy is of another source: it is made anew");
            return Ok(None);
        }
        Ok(Some(state))
    }

    /// Removes all generations but `kept`; returns the highest number there was.
    fn tidy(&self, kept: Option<u64>) -> Result<u64> {
        let cannot = |error| Error::broken("cannot tidy the directory of the copy").with_source(error);
        let mut last = 0;
        for entry in fs::read_dir(&self.path).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            last = last.max(number);
            if Some(number) != kept {
                fs::remove_dir_all(entry.path()).map_err(cannot)?;
            }
        }
        Ok(last)
    }
}

/// The first thing in the directory that is none of ours.
fn strangers(path: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if ![LOCK, STATE, STATE_NEW].contains(&name.as_str()) && name.parse::<u64>().is_err() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
