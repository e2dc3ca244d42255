//! Writes the replica to a file from time to time, for a later start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use super::replica::Replica;
use super::replica_stream::{self, Origin};

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

/// Replaces the file in one step, once all of the new one is on the disk.
async fn write(replica: &Replica, origin: &Origin, path: &Path) -> io::Result<u64> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
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
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).await?.sync_all().await?;
        Ok(bytes)
    };
    let written = written.await;
    if written.is_err() {
        // A part of the file is useless, and the disk may be full.
        let _ = fs::remove_file(&new).await;
    }
    written
}
