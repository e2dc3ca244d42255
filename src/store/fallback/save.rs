//! Writes the replica to a file from time to time, for a later start.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::super::{Error, Result};
use super::replica::Replica;
use super::replica_stream::{self, Origin};
use super::source;

/// The interval between checks of a replica that cannot be saved yet.
const POLL: Duration = Duration::from_millis(250);

/// Saves the replica every `interval`, as long as it is updated: otherwise the file would only become older.
pub async fn save(replica: Arc<Replica>, origin: Origin, path: PathBuf, interval: Duration) {
    loop {
        while !replica.is_in_sync() || replica.age().is_err() {
            sleep(POLL).await;
        }
        let begun = Instant::now();
        match write(&replica, &origin, &path).await {
            Ok(bytes) => {
                replica.saves.fetch_add(1, Ordering::Relaxed);
                let duration_ms = begun.elapsed().as_micros() as f64 / 1000.0;
                tracing::debug!(bytes, duration_ms, "saved the fallback replica in {}", path.display());
            }
            Err(error) => tracing::warn!(%error, "cannot save the fallback replica in {}", path.display()),
        }
        sleep(interval).await;
    }
}

/// Checks that the replica can be saved in `path`: a new file, an empty one, or one that was saved before. Changes nothing.
///
/// # Errors
///
/// `Invalid`, with the reason.
pub async fn check(path: &Path) -> Result<()> {
    let is_replica = match fs::metadata(path).await {
        Err(error) if error.kind() == ErrorKind::NotFound => match fs::metadata(directory(path)).await {
            Ok(parent) if parent.is_dir() => Ok(true),
            Ok(_) => Err(io::Error::from(ErrorKind::NotADirectory)),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
        Ok(file) if file.is_file() => is_of_a_replica(path, file.len()).await,
        Ok(_) => is_of_a_replica(path, u64::MAX).await,
    };
    let cannot = |why: &dyn fmt::Display| Error::invalid(cannot_save(path, why));
    match is_replica.map_err(|error| cannot(&error))? {
        true => Ok(()),
        false => {
            Err(cannot(&"it is another file and would be overwritten; name a new file, or one that was saved before"))
        }
    }
}

/// Returns true if the file is empty, or begins as a replica.
async fn is_of_a_replica(path: &Path, length: u64) -> io::Result<bool> {
    Ok(length == 0 || replica_stream::begins(source::open(path).await?.chunks).await)
}

/// Returns true if a run that was killed has left the file. After a loss of power, a file system may have its length alone, and
/// zeros for its bytes.
async fn is_left_over(path: &Path, length: u64) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path).await?.take(4).read_to_end(&mut head).await?;
    Ok(head.iter().all(|byte| *byte == 0) || is_of_a_replica(path, length).await?)
}

/// Checks that files can be made in the directory of `path`. A full disk is no error, since it may have room later.
///
/// # Errors
///
/// `Invalid`, with the reason.
pub async fn check_directory(path: &Path) -> Result<()> {
    let new = new_path(path);
    let cannot =
        |error| Error::invalid(cannot_save(path, &format_args!("no file can be made in its directory: {error}")));
    match fs::symlink_metadata(&new).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(cannot(error)),
        Ok(file) if file.is_file() && is_left_over(&new, file.len()).await.map_err(cannot)? => {}
        Ok(_) => {
            let why = format!("its new version is written in {}, which is another file: move that away", new.display());
            return Err(Error::invalid(cannot_save(path, &why)));
        }
    }
    match File::options().write(true).create(true).truncate(false).open(&new).await {
        Ok(_) => fs::remove_file(&new).await.map_err(cannot),
        Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()),
        Err(error) => Err(cannot(error)),
    }
}

fn cannot_save(path: &Path, why: &dyn fmt::Display) -> String {
    format!("cannot save the fallback replica in {}: {why}", path.display())
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The name of a file that is being written.
fn new_path(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    new.into()
}

/// Replaces the file in one step, once all of the new one is on the disk.
async fn write(replica: &Replica, origin: &Origin, path: &Path) -> io::Result<u64> {
    let new = new_path(path);
    let written = async {
        let chunks = replica_stream::write(replica, origin).map_err(io::Error::other)?;
        // The records are for this service alone.
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new).await?;
        let mut bytes = 0;
        let mut chunks = chunks.map_err(io::Error::other);
        while let Some(chunk) = chunks.try_next().await? {
            file.write_all(&chunk).await?;
            bytes += chunk.len() as u64;
        }
        file.flush().await?;
        file.sync_all().await?;
        fs::rename(&new, path).await?;
        File::open(directory(path)).await?.sync_all().await?;
        Ok(bytes)
    };
    let written = written.await;
    if written.is_err() {
        // A part of the file is useless, and the disk may be full.
        let _ = fs::remove_file(&new).await;
    }
    written
}
