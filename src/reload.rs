//! Values that are read again when their files change, while the process runs.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest, Sha256};

/// Bounds the memory that a wrong path can take.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The contents of the files, in the order of their paths; or the reason why a file cannot be read.
pub type Contents = Result<Vec<Vec<u8>>, String>;

/// Parses the contents of the files.
type Parse<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// A value that follows its files.
pub trait Reload: fmt::Debug + Send + Sync {
    /// Reads the files again. Blocks on the disk.
    fn reload(&self);

    /// Returns the reason why the value is not that of the files as they are now, for `/readyz`.
    fn degraded(&self) -> Option<String>;
}

/// A value of type `T` and the files that it was read from. While new files cannot be used, the value stays as it was.
pub struct Reloaded<T> {
    /// Names the value in log lines: `API keys`, for example.
    name: &'static str,
    paths: Vec<PathBuf>,
    parse: Parse<T>,
    state: RwLock<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    /// The contents that were read last, usable or not, by their digest.
    contents: Option<[u8; 32]>,
    /// The reason why the contents that were read last cannot be used.
    failure: Option<String>,
}

impl<T> Reloaded<T> {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// When they cannot be read, and those of `parse`.
    pub fn from_files(
        name: &'static str,
        paths: Vec<PathBuf>,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let contents = read(&paths);
        let digest = digest(&contents);
        let value = Arc::new(parse(&contents?)?);
        let state = RwLock::new(State { value, contents: digest, failure: None });
        Ok(Self { name, paths, parse: Box::new(parse), state })
    }

    /// Holds `value` until the first [`update`](Self::update).
    pub fn from_value(
        name: &'static str,
        value: T,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        let state = RwLock::new(State { value: Arc::new(value), contents: None, failure: None });
        Self { name, paths: Vec::new(), parse: Box::new(parse), state }
    }

    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).value)
    }

    /// Takes the value from `contents` if they have changed.
    pub fn update(&self, contents: Contents) {
        let digest = digest(&contents);
        if digest.is_some() && self.state.read().unwrap_or_else(PoisonError::into_inner).contents == digest {
            return;
        }
        let parsed = contents.and_then(|contents| (self.parse)(&contents));
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.contents = digest;
        match parsed {
            Ok(value) => {
                tracing::info!("{} reloaded", self.name);
                state.value = Arc::new(value);
                state.failure = None;
            }
            Err(error) if state.failure.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::warn!(error, "{} not reloaded; the previous ones stay valid", self.name);
                state.failure = Some(error);
            }
        }
    }
}

impl<T: Send + Sync> Reload for Reloaded<T> {
    /// Compares contents rather than times: Kubernetes replaces a Secret by swapping a symbolic link.
    fn reload(&self) {
        if self.paths.is_empty() {
            return;
        }
        self.update(read(&self.paths));
    }

    fn degraded(&self) -> Option<String> {
        let is_stale = self.state.read().unwrap_or_else(PoisonError::into_inner).failure.is_some();
        is_stale.then(|| format!("the {} cannot be read again; the previous ones stay valid", self.name))
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("name", &self.name).field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn read(paths: &[PathBuf]) -> Contents {
    let read = |path: &PathBuf| {
        let cannot = |error: String| format!("cannot read {}: {error}", path.display());
        let size = fs::metadata(path).map_err(|error| cannot(error.to_string()))?.len();
        if size > MAX_BYTES {
            return Err(cannot(format!("it has {size} bytes, and at most {MAX_BYTES} are read")));
        }
        fs::read(path).map_err(|error| cannot(error.to_string()))
    };
    paths.iter().map(read).collect()
}

fn digest(contents: &Contents) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    for content in contents.as_ref().ok()? {
        // A byte that moves from one file to the next is a change.
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    Some(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_new_files_keep_the_last_good_value() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        let parse = |contents: &[Vec<u8>]| {
            let text = String::from_utf8_lossy(&contents[0]);
            text.parse::<u32>().map_err(|error| error.to_string())
        };
        assert!(Reloaded::from_files("numbers", vec![path.clone()], parse).unwrap_err().contains("number"));
        fs::write(&path, "1").unwrap();
        let number = Reloaded::from_files("numbers", vec![path.clone()], parse).unwrap();

        for broken in ["nonsense", "2"] {
            fs::write(&path, broken).unwrap();
            if broken == "2" {
                fs::remove_file(&path).unwrap();
            }
            number.reload();
            assert!(*number.get() == 1 && number.degraded().is_some());
        }
        fs::write(&path, "2").unwrap();
        number.reload();
        assert!(*number.get() == 2 && number.degraded().is_none());
    }
}
