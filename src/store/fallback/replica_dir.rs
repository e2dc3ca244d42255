//! The place of the replica. In memory, snapshots come and go with the process; in a directory, each snapshot has a store of its
//! own, and a file next to them names the complete one.
//!
//! ```text
//! LOCK           locked by the process that uses the directory; its text marks the directory as a replica's
//! replica.json   the complete snapshot, the resume token of its changes, and when it was last known to be current
//! 1/, 2/, …      a store each
//! ```
//!
//! A new snapshot is filled next to the old one, and becomes the replica when `replica.json` names it: in one step, and after
//! all of it is on the disk. A start removes the snapshots that `replica.json` does not name. Foreign directories may have
//! numbers for names too, so only a snapshot is removed: a store, or the beginning of one, in a directory that was empty when
//! it was first taken. A directory with anything else is refused and left as it is.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::Settings;
use super::moment::Moment;
use super::replica::{Replica, Snapshot};
use super::snapshot_dir::SnapshotDir;
use crate::store::{self, BackendKind, ClusterTime, Error, ListRequest, Opened, Options, Result, ResumeToken};

const LOCK: &str = "LOCK";
const STATE: &str = "replica.json";
const STATE_NEW: &str = "replica.json.new";

/// The text of the lock file, which distinguishes it from a foreign file of that name.
const MARK: &str = "records, fallback replica\n";

/// The layout of the directory and of the stores in it.
const FORMAT: u32 = 4;

/// The age that a replica has if it cannot be known: the greatest that HTTP has (RFC 9111, section 1.2.2).
pub const UNKNOWN_AGE: Duration = Duration::from_secs(1 << 31);

pub struct ReplicaDir {
    url: String,
    options: Options,
    directory: Option<Directory>,
}

struct Directory {
    path: PathBuf,
    source: String,
    scope: String,
    /// The number of the last snapshot.
    last: u64,
    /// A snapshot of an earlier run that could not be opened.
    unopened: Option<u64>,
    /// The lock is held as long as the file is open.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    source: String,
    #[serde(default)]
    scope: String,
    snapshot: u64,
    token: Option<String>,
    #[serde(default)]
    identity: Option<String>,
    /// The age of the replica when this was written, in milliseconds.
    age: u64,
    written: Moment,
    /// The bits of [`Snapshot::as_of`]; 0 if it is unknown.
    #[serde(default)]
    as_of: u64,
}

/// A replica of an earlier run.
pub struct StoredReplica {
    pub snapshot: Arc<Snapshot>,
    pub number: u64,
    pub token: Option<ResumeToken>,
}

/// Checks that `url` can hold a replica, as far as the URL tells.
///
/// # Errors
///
/// `Invalid`, with the text of [`store::open`].
pub async fn check(url: &str) -> Result<()> {
    match store::kind(url) {
        Some(BackendKind::Remote) => Err(not_embedded()),
        // The directory is no store itself: it holds a store for each snapshot.
        Some(BackendKind::Local) => refuse_foreign(&store::directory(url)?),
        // For an unknown store, the error says what is wrong with the name.
        Some(BackendKind::InMemory) | None => store::check(url, &Options::default()).await.map(drop),
    }
}

/// Checks that the file `path`, in which the replica is saved, is not in the directory of the replica itself, which holds nothing
/// else: the next start would refuse it.
///
/// # Errors
///
/// `Invalid`, with the reason.
pub fn check_outside(url: &str, path: &Path) -> Result<()> {
    if store::kind(url) != Some(BackendKind::Local) {
        return Ok(());
    }
    let directory = store::directory(url)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.into());
    if !real(parent).starts_with(real(&directory)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the fallback replica cannot be saved in {}: {} holds the replica itself, and nothing else; name another directory",
        path.display(),
        directory.display()
    )))
}

fn not_embedded() -> Error {
    Error::invalid("the fallback replica must be in this process: memory:, or sled:DIRECTORY")
}

impl ReplicaDir {
    /// Opens the stored replica, if there is one of the same source and scope, and removes all other snapshots.
    pub async fn open(settings: &Settings, replica: &Replica) -> Result<(Self, Option<StoredReplica>)> {
        let url = settings.url.clone();
        check(&url).await?;
        let mut opened = Self { url, options: settings.options.clone(), directory: None };
        if store::kind(&opened.url) != Some(BackendKind::Local) {
            return Ok((opened, None));
        }
        let path = store::directory(&opened.url)?;
        let mut directory = Directory::lock(path, settings)?;
        let state = directory.read()?;
        let kept = state.as_ref().map(|state| state.snapshot);
        // The number in the state is not given to another snapshot, also if its directory is missing.
        directory.last = directory.collect_garbage(kept)?.max(kept.unwrap_or_default());
        opened.directory = Some(directory);
        let Some(state) = state else { return Ok((opened, None)) };
        match opened.reopen(&state, replica).await {
            Ok(stored) => Ok((opened, Some(stored))),
            Err(error) => {
                tracing::error!(cause = %error.report(), "cannot open the stored fallback replica; a new one will be made");
                // It is kept until a new one can be made: the next start may succeed, with more room on the disk for example.
                if let Some(directory) = &mut opened.directory {
                    directory.unopened = Some(state.snapshot);
                }
                Ok((opened, None))
            }
        }
    }

    async fn reopen(&self, state: &State, replica: &Replica) -> Result<StoredReplica> {
        // Opening a missing store would create it, and the replica would have no records.
        if let Some(directory) = &self.directory
            && !SnapshotDir::new(&directory.path, state.snapshot).exists()
        {
            return Err(Error::broken(format!("the directory of the snapshot {} is missing", state.snapshot)));
        }
        let snapshot = self.open_snapshot(Some(state.snapshot)).await?;
        // The records are counted again, since there may be writes after the state file was written.
        let (mut records, mut bytes) = (0, 0);
        let mut all = snapshot.store()?.list(ListRequest::default()).await?.rows;
        while let Some(row) = all.try_next().await? {
            records += 1;
            bytes += row.document.bson().len() as u64;
        }
        snapshot.set_counts(records, bytes);
        let age = match state.written.elapsed() {
            Some(since) => Duration::from_millis(state.age).saturating_add(since),
            None => {
                tracing::warn!("the clock was set back; the age of the stored fallback replica is unknown");
                UNKNOWN_AGE
            }
        };
        replica.mark_current_since(&snapshot, age);
        if let Some(time) = ClusterTime::new(state.as_of) {
            replica.mark_as_of(&snapshot, time);
        }
        let token = state.token.as_ref().and_then(|token| BASE64_STANDARD.decode(token).ok());
        let token = token.map(|token| ResumeToken(token.into()));
        snapshot.set_identity(state.identity.clone());
        snapshot.set_token(token.clone());
        Ok(StoredReplica { snapshot, number: state.snapshot, token })
    }

    /// Creates an empty snapshot, and returns it with its number.
    pub async fn create_snapshot(&mut self) -> Result<(Arc<Snapshot>, u64)> {
        let number = match &mut self.directory {
            None => 0,
            Some(directory) => {
                directory.last += 1;
                directory.last
            }
        };
        let created = self.open_snapshot(self.directory.is_some().then_some(number)).await;
        if created.is_err()
            && let Some(directory) = &self.directory
        {
            // Removed, so that failed attempts do not fill the disk with parts of stores.
            SnapshotDir::new(&directory.path, number).remove();
        }
        Ok((created?, number))
    }

    /// Returns true if there is a stored replica that could not be opened.
    pub fn has_unopened(&self) -> bool {
        self.directory.as_ref().is_some_and(|directory| directory.unopened.is_some())
    }

    /// Removes the stored replica that could not be opened, to make room for a new one.
    pub fn remove_unopened(&mut self) {
        self.forget();
        if let Some(directory) = &mut self.directory
            && let Some(number) = directory.unopened.take()
        {
            SnapshotDir::new(&directory.path, number).remove();
        }
    }

    async fn open_snapshot(&self, number: Option<u64>) -> Result<Arc<Snapshot>> {
        let (url, directory) = match (number, &self.directory) {
            (Some(number), Some(directory)) => {
                let directory = SnapshotDir::new(&directory.path, number);
                let scheme = self.url.split(':').next().unwrap_or_default();
                (format!("{scheme}:{}", directory.path().display()), Some(directory))
            }
            _ => (self.url.clone(), None),
        };
        match store::open(&url, self.options.clone()).await? {
            Opened::Embedded(store) => Ok(Snapshot::new(store, directory)),
            Opened::Remote(_) => Err(not_embedded()),
        }
    }

    /// Returns true if the replica outlives the process.
    pub fn is_persistent(&self) -> bool {
        self.directory.is_some()
    }

    /// Makes `snapshot` the one that a restart finds, after all of it is on the disk. Removes a stored one that could not be
    /// opened.
    pub async fn remember(
        &mut self,
        snapshot: &Snapshot,
        number: u64,
        token: Option<&ResumeToken>,
        age: Duration,
    ) -> Result<()> {
        let Some(directory) = &mut self.directory else { return Ok(()) };
        // Taken before the flush: the flushed records are at least as new.
        let (written, as_of) = (Moment::now(), snapshot.as_of().map_or(0, ClusterTime::bits));
        snapshot.store()?.flush().await?;
        let state = State {
            format: FORMAT,
            source: directory.source.clone(),
            scope: directory.scope.clone(),
            snapshot: number,
            token: token.map(|token| BASE64_STANDARD.encode(&token.0)),
            identity: snapshot.origin().identity,
            age: age.as_millis() as u64,
            written,
            as_of,
        };
        let (path, unopened) = (directory.path.clone(), directory.unopened);
        let written = tokio::task::spawn_blocking(move || {
            write(&path, &state)?;
            if let Some(unopened) = unopened {
                SnapshotDir::new(&path, unopened).remove();
            }
            Ok(())
        });
        let written = written.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        written
            .map_err(|error| Error::unavailable("cannot write the state of the fallback replica").with_source(error))?;
        directory.unopened = None;
        Ok(())
    }

    /// Makes a restart find no replica.
    pub fn forget(&self) {
        if let Some(directory) = &self.directory
            && let Err(error) = fs::remove_file(directory.path.join(STATE))
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove the state of the fallback replica");
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
    fn lock(path: PathBuf, settings: &Settings) -> Result<Self> {
        let at = path.display().to_string();
        let cannot = |what: &str, error: io::Error| Error::broken(format!("cannot {what} {at}")).with_source(error);
        // The records are for this service alone.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| cannot("make the directory", error))?;
        // The file is not truncated before it is locked: another process may use the directory.
        let lock = File::options().create(true).truncate(false).write(true).open(path.join(LOCK));
        let mut lock = lock.map_err(|error| cannot("write in", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::unavailable(format!(
                    "the fallback replica in {at} is in use by another process: stop that one first, or name another directory"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(cannot("lock", error)),
        }
        // The mark is on the disk before any file that it identifies. It is not written again, since a full disk may have no
        // room for it.
        if fs::read(path.join(LOCK)).map_err(|error| cannot("read", error))? != MARK.as_bytes() {
            let marked = lock.set_len(0).and_then(|()| lock.write_all(MARK.as_bytes())).and_then(|()| lock.sync_all());
            marked.map_err(|error| cannot("write in", error))?;
        }
        let (source, scope) = (settings.source.clone(), settings.scope.clone());
        Ok(Self { path, source, scope, last: 0, unopened: None, _lock: lock })
    }

    /// Reads the state of a stored replica of the same source and scope.
    fn read(&self) -> Result<Option<State>> {
        let bytes = match fs::read(self.path.join(STATE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Error::broken("cannot read the state of the fallback replica").with_source(error));
            }
        };
        let state: State = match serde_json::from_slice(&bytes) {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(%error, "cannot read the state of the stored fallback replica; a new one will be made");
                return Ok(None);
            }
        };
        if state.format != FORMAT || state.source != self.source || state.scope != self.scope {
            tracing::warn!(
                source = state.source,
                scope = state.scope,
                "the stored fallback replica has another source, scope or version; a new one will be made"
            );
            return Ok(None);
        }
        Ok(Some(state))
    }

    /// Removes all snapshots but `kept`. Returns the highest number of a snapshot.
    fn collect_garbage(&self, kept: Option<u64>) -> Result<u64> {
        let cannot =
            |error| Error::broken("cannot remove old snapshots from the directory of the replica").with_source(error);
        let mut last = 0;
        for entry in fs::read_dir(&self.path).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let Some(number) = SnapshotDir::number_of(&entry).map_err(cannot)? else { continue };
            last = last.max(number);
            if Some(number) != kept {
                SnapshotDir::new(&self.path, number).try_remove().map_err(cannot)?;
            }
        }
        Ok(last)
    }
}

/// Refuses a directory that holds anything but a replica. A missing directory is accepted.
fn refuse_foreign(path: &Path) -> Result<()> {
    let at = path.display();
    match foreign_entry(path) {
        Ok(None) => Ok(()),
        Ok(Some(foreign)) => Err(Error::invalid(format!(
            "{at} holds {foreign:?}, which is no part of a fallback replica: name a new or an empty directory. Nothing in it was changed"
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::broken(format!("cannot read {at}")).with_source(error)),
    }
}

/// Returns the name of the first entry that is no part of a replica.
fn foreign_entry(path: &Path) -> io::Result<Option<String>> {
    let is = |name: &str, test: fn(&[u8]) -> bool| match fs::read(path.join(name)) {
        Ok(bytes) => Ok(test(&bytes)),
        Err(error) if [ErrorKind::NotFound, ErrorKind::IsADirectory].contains(&error.kind()) => Ok(false),
        Err(error) => Err(error),
    };
    let is_marked = is(LOCK, |text| text == MARK.as_bytes())?;
    // The lock is empty if the process was killed before it wrote the mark.
    let is_lock = is_marked || is(LOCK, <[u8]>::is_empty)?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_known = if name == LOCK {
            is_lock
        } else if name == STATE || name == STATE_NEW {
            is_marked && entry.file_type()?.is_file()
        } else {
            is_marked && SnapshotDir::number_of(&entry)?.is_some()
        };
        if !is_known {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}
