//! The directory around the database: whose it is, who uses it, and what the database was before it was opened.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::store::{Error, FORMAT_FILE, Result};

/// The first line of the file `FORMAT`; the second is the seal.
const FORMAT: &str = "records store, layout 2, sled 0.34";

/// The layout before documents were BSON.
const OLD_FORMAT: &str = "records store, layout 1, sled 0.34";

const FORMAT_NEW: &str = "FORMAT.new";
const LOCK_FILE: &str = "LOCK";
/// The database.
const DATABASE: &str = "sled";
/// What it was before it was opened: whole and on the disk, unlike [`COPYING`].
const BEFORE: &str = "sled.before";
/// A copy that is being made, or removed.
const COPYING: &str = "sled.copying";

/// A directory that is a records store, and this process's alone.
pub struct Directory {
    path: PathBuf,
    /// The lock lasts as long as the file is open.
    _lock: File,
}

impl Directory {
    /// Takes the directory, makes it if it is not there, and reads its seal.
    ///
    /// # Errors
    ///
    /// `Invalid` when it belongs to something else, `Unavailable` when another process has it.
    pub fn take(path: PathBuf) -> Result<(Self, u64)> {
        let at = path.display();
        let cannot = |what: &str, error: io::Error| cannot(what, &path, error);
        fs::create_dir_all(&path).map_err(|error| cannot("make the directory", error))?;
        refuse_others(&path)?;
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
        let seal = match fs::read_to_string(path.join(FORMAT_FILE)) {
            Ok(text) if text.starts_with(OLD_FORMAT) => {
                return Err(Error::invalid(format!(
                    "{at} holds a records store of an older format, which this version does not read: move the directory away, \
                     then import the records again"
                )));
            }
            Ok(text) => text
                .split_once('\n')
                .filter(|(format, _)| *format == FORMAT)
                .and_then(|(_, seal)| seal.trim_end().parse().ok()),
            // Written before the database is made, so that a crash in between leaves no riddle.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The name too, where a directory can be told so: no older seal would stand in for it.
                write_seal(&path, 0).map_err(|error| cannot("write in", error))?;
                sync_names(&path);
                Some(0)
            }
            Err(error) => return Err(cannot("read", error)),
        };
        let seal = seal.ok_or_else(|| {
            Error::invalid(format!(
                "{at} holds a records store of another version: use the version that made it, or another directory"
            ))
        })?;
        Ok((Self { path, _lock: lock }, seal))
    }

    /// Where the database is.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Replaces the seal in one step: a crash leaves the old one or the new one.
    pub fn seal(&self, seal: u64) -> io::Result<()> {
        write_seal(&self.path, seal)
    }

    /// Runs `open`, and puts the database back as it was if that fails: sled repairs what it opens, and by a repair that
    /// loses records the chance to save them would go too.
    pub fn guard<T>(&self, open: impl FnOnce() -> Result<T>) -> Result<T> {
        let cannot = |error| Error::broken(format!("cannot keep a copy of the database in {self}")).with_source(error);
        self.keep_copy().map_err(cannot)?;
        match open() {
            Ok(opened) => self.remove_copy().map_err(cannot).map(|()| opened),
            Err(error) => match self.restore_copy() {
                Ok(()) => Err(error),
                // Why it was to be put back is the first thing to know.
                Err(kept) => Err(Error::broken(format!("{error}; and the copy in {self} cannot be put back: {kept}"))
                    .with_source(error)),
            },
        }
    }

    /// Copies the database, whole or not at all. One that was being opened when its process died is put back first.
    fn keep_copy(&self) -> io::Result<()> {
        let copying = self.path.join(COPYING);
        self.restore_copy()?;
        remove(&copying)?;
        if self.database().is_dir() {
            copy(&self.database(), &copying)?;
            fs::rename(copying, self.path.join(BEFORE))?;
            // Before sled changes what was copied.
            sync_names(&self.path);
        }
        Ok(())
    }

    /// Under another name first: a part of it would be taken for the whole, and put in place of the database.
    fn remove_copy(&self) -> io::Result<()> {
        let copying = self.path.join(COPYING);
        match fs::rename(self.path.join(BEFORE), &copying) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        sync_names(&self.path);
        remove(&copying)
    }

    fn restore_copy(&self) -> io::Result<()> {
        let before = self.path.join(BEFORE);
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

/// Refuses a directory that belongs to something else; one that is not there belongs to nobody.
pub fn refuse_others(path: &Path) -> Result<()> {
    if !path.exists() || path.join(FORMAT_FILE).exists() {
        return Ok(());
    }
    if holds_something_else(path).map_err(|error| cannot("read", path, error))? {
        return Err(Error::invalid(format!(
            "{} is not a records store, and not empty: name a new or an empty directory. Nothing in it was changed",
            path.display()
        )));
    }
    Ok(())
}

/// Whether there is more than a start that was broken off would leave.
fn holds_something_else(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != LOCK_FILE && name != FORMAT_NEW {
            return Ok(true);
        }
    }
    Ok(false)
}

fn write_seal(path: &Path, seal: u64) -> io::Result<()> {
    let new = path.join(FORMAT_NEW);
    let mut file = File::create(&new)?;
    file.write_all(format!("{FORMAT}\n{seal}\n").as_bytes())?;
    // A name may reach the disk before what it names, and after a power cut the seal would be empty, which no version reads. That
    // the new name may be lost does no harm: the old seal is then there, and a database may be newer than its seal.
    file.sync_all()?;
    fs::rename(new, path.join(FORMAT_FILE))
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies a directory, and returns when the copy is on the disk: its name must not get there before its data.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            // Shares the blocks where the file system can, and these may not be on the disk either.
            fs::copy(entry.path(), &to)?;
            // To be written to, which some systems ask of who syncs.
            File::options().append(true).open(to)?.sync_all()?;
        }
    }
    sync_names(to);
    Ok(())
}

/// What `directory` calls its files is on the disk when this returns, where a directory can be told so.
fn sync_names(directory: &Path) {
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::store::Kind;

    /// So many that somebody who looks all the time sees them go.
    const FILES: usize = 200;

    /// How many files a directory has; `None` when it is not there.
    fn count(directory: &Path) -> Option<usize> {
        fs::read_dir(directory).ok().map(Iterator::count)
    }

    #[test]
    fn a_copy_that_would_be_put_back_is_whole_at_every_moment() {
        let home = tempfile::tempdir().expect("a directory");
        let (directory, _) = Directory::take(home.path().join("store")).expect("a store");
        fs::create_dir(directory.database()).expect("a directory");
        for number in 0..FILES {
            fs::write(directory.database().join(number.to_string()), [0; 64]).expect("a file");
        }
        let before = directory.path.join(BEFORE);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                let parts = std::iter::from_fn(|| (!done.load(Ordering::Relaxed)).then(|| count(&before)));
                // A listing may end when the directory has another name, and is being removed.
                parts.flatten().filter(|count| *count < FILES && before.exists()).count()
            });
            let opened = directory.guard(|| Ok(count(&before)));
            done.store(true, Ordering::Relaxed);
            assert_eq!(opened.expect("it opens"), Some(FILES));
            assert_eq!(looks.join().expect("no panic"), 0);
        });
        assert_eq!(count(&directory.database()), Some(FILES));
        assert_eq!((count(&before), count(&directory.path.join(COPYING))), (None, None));

        // A remnant of the removal is no copy.
        fs::create_dir(directory.path.join(COPYING)).expect("a directory");
        directory.guard(|| Ok(())).expect("it opens");
        assert_eq!(count(&directory.database()), Some(FILES));
    }

    #[test]
    fn a_store_of_the_layout_before_is_refused_and_left_as_it_was() {
        let home = tempfile::tempdir().expect("a directory");
        let old = format!("{OLD_FORMAT}\n7\n");
        fs::write(home.path().join(FORMAT_FILE), &old).expect("a file");
        let refused = Directory::take(home.path().to_owned()).err().expect("an error");
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(refused.to_string().ends_with("import the records again"), "{refused}");
        assert_eq!(fs::read_to_string(home.path().join(FORMAT_FILE)).expect("a file"), old);
    }

    #[test]
    fn what_could_not_be_opened_is_put_back_with_all_that_was_in_it() {
        let home = tempfile::tempdir().expect("a directory");
        let (directory, _) = Directory::take(home.path().join("store")).expect("a store");
        let blobs = directory.database().join("blobs");
        fs::create_dir_all(&blobs).expect("a directory");
        fs::write(directory.database().join("db"), "the log").expect("a file");
        fs::write(blobs.join("1"), "a blob").expect("a file");
        let failed: Result<()> = directory.guard(|| {
            fs::write(directory.database().join("db"), "").expect("a file");
            fs::remove_file(blobs.join("1")).expect("a file");
            Err(Error::broken("it is damaged"))
        });
        failed.expect_err("it is damaged");
        assert_eq!(fs::read(directory.database().join("db")).expect("a file"), b"the log");
        assert_eq!(fs::read(blobs.join("1")).expect("a file"), b"a blob");
        assert_eq!(count(&directory.path.join(BEFORE)), None);
    }
}
