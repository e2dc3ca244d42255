//! The directory of the database: its format file, its lock, and the backup of the database while it opens.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::store::{Error, FORMAT_FILE, Result};

/// The first line of the file `FORMAT`; the second is the flush epoch.
const FORMAT: &str = "records store, layout 2, sled 0.34";

/// The layout before documents were BSON.
const OLD_FORMAT: &str = "records store, layout 1, sled 0.34";

const FORMAT_NEW: &str = "FORMAT.new";
const LOCK_FILE: &str = "LOCK";
/// The folder of the database.
const DATABASE: &str = "sled";
/// The database before it was opened: complete and on the disk, unlike [`PARTIAL`].
const BACKUP: &str = "sled.backup";
/// A backup that is being made or removed.
const PARTIAL: &str = "sled.partial";

/// The directory of a records store, locked by this process.
pub struct Directory {
    path: PathBuf,
    /// The lock lasts as long as the file is open.
    _lock: File,
}

impl Directory {
    /// Creates the directory if needed, locks it, and reads its flush epoch.
    ///
    /// # Errors
    ///
    /// `Invalid` if it is not a records store, `Unavailable` if another process holds the lock.
    pub fn open(path: PathBuf) -> Result<(Self, u64)> {
        let at = path.display();
        let cannot = |what: &str, error: io::Error| cannot(what, &path, error);
        fs::create_dir_all(&path).map_err(|error| cannot("make the directory", error))?;
        refuse_foreign(&path)?;
        let lock = File::create(path.join(LOCK_FILE)).map_err(|error| cannot("write in", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::unavailable(format!(
                    "the sled store in {at} is in use by another process: stop that one first, or name another directory"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(cannot("lock", error)),
        }
        let epoch = match fs::read_to_string(path.join(FORMAT_FILE)) {
            Ok(text) if text.starts_with(OLD_FORMAT) => {
                return Err(Error::invalid(format!(
                    "{at} holds a records store of an older format, which this version does not read: move the directory away, \
                     then import the records again"
                )));
            }
            Ok(text) => text
                .split_once('\n')
                .filter(|(format, _)| *format == FORMAT)
                .and_then(|(_, epoch)| epoch.trim_end().parse().ok()),
            // FORMAT precedes the database, so that after a crash the directory is recognised.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The directory entry is synced too: no older epoch could stand in for this one.
                write_flush_epoch(&path, 0).map_err(|error| cannot("write in", error))?;
                sync_names(&path);
                Some(0)
            }
            Err(error) => return Err(cannot("read", error)),
        };
        let epoch = epoch.ok_or_else(|| {
            Error::invalid(format!(
                "{at} holds a records store of another version: use the version that made it, or another directory"
            ))
        })?;
        Ok((Self { path, _lock: lock }, epoch))
    }

    /// The path of the database.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Replaces the flush epoch atomically: a crash leaves the old one or the new one.
    pub fn set_flush_epoch(&self, epoch: u64) -> io::Result<()> {
        write_flush_epoch(&self.path, epoch)
    }

    /// Runs `open`, and restores the database if it fails: sled repairs a damaged file when it opens it, which may destroy
    /// records that could still be recovered.
    pub fn open_with_backup<T>(&self, open: impl FnOnce() -> Result<T>) -> Result<T> {
        let cannot = |error| Error::broken(format!("cannot back up the database in {self}")).with_source(error);
        self.make_backup().map_err(cannot)?;
        match open() {
            Ok(opened) => self.remove_backup().map_err(cannot).map(|()| opened),
            Err(error) => match self.restore_backup() {
                Ok(()) => Err(error),
                // The cause of the failed opening comes first in the message.
                Err(restore) => {
                    Err(Error::broken(format!("{error}; and the backup in {self} cannot be restored: {restore}"))
                        .with_source(error))
                }
            },
        }
    }

    /// Makes a complete backup of the database. If an earlier process died while it opened the database, its backup is restored
    /// first.
    fn make_backup(&self) -> io::Result<()> {
        let partial = self.path.join(PARTIAL);
        self.restore_backup()?;
        remove(&partial)?;
        if self.database().is_dir() {
            let made = copy(&self.database(), &partial).and_then(|()| fs::rename(&partial, self.path.join(BACKUP)));
            if made.is_err() {
                // The disk may be full, and others need it.
                let _ = remove(&partial);
            }
            made?;
            // Before sled changes what was copied.
            sync_names(&self.path);
        }
        Ok(())
    }

    /// Renames the backup before it is removed: a partly removed backup must never be restored.
    fn remove_backup(&self) -> io::Result<()> {
        let partial = self.path.join(PARTIAL);
        match fs::rename(self.path.join(BACKUP), &partial) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        sync_names(&self.path);
        remove(&partial)
    }

    fn restore_backup(&self) -> io::Result<()> {
        let before = self.path.join(BACKUP);
        if before.is_dir() {
            remove(&self.database())?;
            fs::rename(before, self.database())?;
            sync_names(&self.path);
        }
        Ok(())
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.path.display(), f)
    }
}

fn cannot(what: &str, path: &Path, error: io::Error) -> Error {
    Error::broken(format!("cannot {what} {}", path.display())).with_source(error)
}

/// Refuses a directory that holds files but no records store. A missing directory is accepted.
pub fn refuse_foreign(path: &Path) -> Result<()> {
    if !path.exists() || path.join(FORMAT_FILE).exists() {
        return Ok(());
    }
    if has_foreign_entry(path).map_err(|error| cannot("read", path, error))? {
        return Err(Error::invalid(format!(
            "{} is not a records store, and not empty: name a new or an empty directory. Nothing in it was changed",
            path.display()
        )));
    }
    Ok(())
}

/// Returns true if the directory holds more than an interrupted start leaves.
fn has_foreign_entry(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != LOCK_FILE && name != FORMAT_NEW {
            return Ok(true);
        }
    }
    Ok(false)
}

fn write_flush_epoch(path: &Path, epoch: u64) -> io::Result<()> {
    let new = path.join(FORMAT_NEW);
    let mut file = File::create(&new)?;
    file.write_all(format!("{FORMAT}\n{epoch}\n").as_bytes())?;
    // The directory entry may reach the disk before the data, so a power cut could leave an empty file, which no version reads.
    // Losing the rename does no harm: the old epoch remains, and a database may be newer than its epoch.
    file.sync_all()?;
    fs::rename(new, path.join(FORMAT_FILE))
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies a directory and syncs the copy to the disk.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            // The copy may share blocks with the original, which may not be on the disk yet either.
            fs::copy(entry.path(), &to)?;
            // Some systems sync only files that are open for writing.
            File::options().append(true).open(to)?.sync_all()?;
        }
    }
    sync_names(to);
    Ok(())
}

/// Syncs the directory entries to the disk, on systems that can.
fn sync_names(directory: &Path) {
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::store::Kind;

    /// Enough files that a concurrent observer sees a partial removal.
    const FILES: usize = 200;

    /// Counts the files in a directory; `None` if it does not exist.
    fn count(directory: &Path) -> Option<usize> {
        fs::read_dir(directory).ok().map(Iterator::count)
    }

    #[test]
    fn a_copy_that_would_be_put_back_is_whole_at_every_moment() {
        let home = tempfile::tempdir().expect("a directory");
        let (directory, _) = Directory::open(home.path().join("store")).expect("a store");
        fs::create_dir(directory.database()).expect("a directory");
        for number in 0..FILES {
            fs::write(directory.database().join(number.to_string()), [0; 64]).expect("a file");
        }
        let before = directory.path.join(BACKUP);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                let parts = std::iter::from_fn(|| (!done.load(Ordering::Relaxed)).then(|| count(&before)));
                // A listing may end when the directory has another name, and is being removed.
                parts.flatten().filter(|count| *count < FILES && before.exists()).count()
            });
            let opened = directory.open_with_backup(|| Ok(count(&before)));
            done.store(true, Ordering::Relaxed);
            assert_eq!(opened.expect("it opens"), Some(FILES));
            assert_eq!(looks.join().expect("no panic"), 0);
        });
        assert_eq!(count(&directory.database()), Some(FILES));
        assert_eq!((count(&before), count(&directory.path.join(PARTIAL))), (None, None));

        // A remnant of the removal is no copy.
        fs::create_dir(directory.path.join(PARTIAL)).expect("a directory");
        directory.open_with_backup(|| Ok(())).expect("it opens");
        assert_eq!(count(&directory.database()), Some(FILES));
    }

    #[test]
    fn a_store_of_the_layout_before_is_refused_and_left_as_it_was() {
        let home = tempfile::tempdir().expect("a directory");
        let old = format!("{OLD_FORMAT}\n7\n");
        fs::write(home.path().join(FORMAT_FILE), &old).expect("a file");
        let refused = Directory::open(home.path().to_owned()).err().expect("an error");
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(refused.to_string().ends_with("import the records again"), "{refused}");
        assert_eq!(fs::read_to_string(home.path().join(FORMAT_FILE)).expect("a file"), old);
    }

    #[test]
    fn what_could_not_be_opened_is_put_back_with_all_that_was_in_it() {
        let home = tempfile::tempdir().expect("a directory");
        let (directory, _) = Directory::open(home.path().join("store")).expect("a store");
        let blobs = directory.database().join("blobs");
        fs::create_dir_all(&blobs).expect("a directory");
        fs::write(directory.database().join("db"), "the log").expect("a file");
        fs::write(blobs.join("1"), "a blob").expect("a file");
        let failed: Result<()> = directory.open_with_backup(|| {
            fs::write(directory.database().join("db"), "").expect("a file");
            fs::remove_file(blobs.join("1")).expect("a file");
            Err(Error::broken("it is damaged"))
        });
        failed.expect_err("it is damaged");
        assert_eq!(fs::read(directory.database().join("db")).expect("a file"), b"the log");
        assert_eq!(fs::read(blobs.join("1")).expect("a file"), b"a blob");
        assert_eq!(count(&directory.path.join(BACKUP)), None);
    }
}
