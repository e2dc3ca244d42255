//! The directory of one snapshot: a store, in a directory whose name is the snapshot's number.

use std::fs::{self, DirEntry, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::store::FORMAT_FILE;

/// The files that a store leaves in its directory if it is killed before it has written [`FORMAT_FILE`].
const BEGINNING: [&str; 2] = ["LOCK", "FORMAT.new"];

#[derive(Clone, Debug)]
pub struct SnapshotDir(PathBuf);

impl SnapshotDir {
    /// The directory of the snapshot `number`, which need not exist.
    pub fn new(parent: &Path, number: u64) -> Self {
        Self(parent.join(number.to_string()))
    }

    /// Returns the number of the snapshot in `entry`. `None` if `entry` is no snapshot, nor the beginning or the rest of one.
    pub fn number_of(entry: &DirEntry) -> io::Result<Option<u64>> {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| Some((name, name.parse::<u64>().ok()?)));
        // `007` and `+7` are not our spelling.
        let number = number.filter(|(name, number)| number.to_string() == *name).map(|(_, number)| number);
        // Symbolic links are excluded, since they may lead out of the directory.
        let is_ours = || entry.file_type().is_ok_and(|kind| kind.is_dir()) && Self(entry.path()).holds_a_store();
        Ok(number.filter(|_| is_ours()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// Returns true if a store has created this directory, or has begun to.
    fn holds_a_store(&self) -> bool {
        let has_begun = || {
            let mut names = fs::read_dir(&self.0)?.map(|entry| entry.map(|entry| entry.file_name()));
            names.try_fold(true, |all, name| name.map(|name| all && BEGINNING.iter().any(|known| name == *known)))
        };
        self.0.join(FORMAT_FILE).is_file() || has_begun().unwrap_or(false)
    }

    /// Removes the snapshot, if there is one. A failure is logged.
    pub fn remove(&self) {
        if !self.holds_a_store() {
            return;
        }
        if let Err(error) = self.try_remove()
            && error.kind() != ErrorKind::NotFound
        {
            self.warn(&error);
        }
    }

    /// Removes the snapshot. The file that identifies it goes last, so that a later start recognises the rest if the process
    /// is killed meanwhile.
    pub fn try_remove(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else if entry.file_name() != FORMAT_FILE {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_dir_all(&self.0)
    }

    /// Removes a snapshot that is still open. Truncates its files first, which frees the disk before they are closed.
    pub fn remove_open(&self) {
        fn truncate(path: &Path) -> io::Result<()> {
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => truncate(&entry.path())?,
                    false if entry.file_name() == FORMAT_FILE => {}
                    false => File::options().write(true).open(entry.path())?.set_len(0)?,
                }
            }
            Ok(())
        }
        if let Err(error) = truncate(&self.0).and_then(|()| self.try_remove()) {
            self.warn(&error);
        }
    }

    fn warn(&self, error: &io::Error) {
        tracing::warn!(%error, "cannot remove the old snapshot in {}", self.0.display());
    }
}
