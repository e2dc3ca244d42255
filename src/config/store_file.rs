//! The file that holds the store's URL. It may change while the service runs: a password is rotated there.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Secret;

/// A file with a store's URL, and the URL that is in use.
#[derive(Debug)]
pub struct StoreFile {
    path: PathBuf,
    used: Secret,
}

impl StoreFile {
    /// # Errors
    ///
    /// A text for the operator when the file cannot be read, or is empty.
    pub fn open(path: PathBuf) -> Result<Self, String> {
        let used = url_in(&path)?;
        Ok(Self { path, used })
    }

    pub fn used(&self) -> &Secret {
        &self.used
    }

    pub fn set_used(&mut self, url: Secret) {
        self.used = url;
    }

    /// Returns the URL that the file holds, unless it is the one in use.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn changed(&self) -> Result<Option<Secret>, String> {
        url_in(&self.path).map(|url| Some(url).filter(|url| *url != self.used))
    }
}

impl fmt::Display for StoreFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

fn url_in(path: &Path) -> Result<Secret, String> {
    let at = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read the store's URL out of {at}: {error}"))?;
    match text.trim() {
        "" => Err(format!("{at} is empty: it must hold the store's URL")),
        url => Ok(Secret::new(url.to_owned())),
    }
}
