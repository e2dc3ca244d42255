//! Records in a directory of this machine, by [sled](https://docs.rs/sled/0.34): survives a restart, needs no server.
//!
//! Layout of the directory: `FORMAT` says whose it is, `sled/` is the database. In it a key is [`encode`]d so that its
//! bytes sort as [`Key`]s compare, and a value is the record's JSON.
//!
//! Reads answer on the calling task: they find their page in sled's cache or in the system's, and a hop to a blocking
//! thread would cost several times as much. What waits for the disk (opening, writing, flushing) and what reads much
//! (lists) leaves the async threads.

use std::fmt;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use sled::{Batch, Db, Tree};

use super::{EmbeddedStore, Error, Options, RecordStream, Reply, Result, Store, directory};
use crate::document::Document;
use crate::record::{Key, Record, RecordId, rank};

/// How many records a list reads at a time, on one hop to a blocking thread.
const PAGE: usize = 256;

/// sled's page cache, in bytes. Its own default of 1 GB would grow with every page that a list ever touched; what falls
/// out of this one is still in the system's cache.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// How long to wait for the lock: sled gives it up a moment after the store is dropped, so a quick restart may meet
/// its own predecessor.
const LOCK_PATIENCE: Duration = Duration::from_millis(1_500);

const FORMAT_FILE: &str = "FORMAT";
/// Written before the database is made, and replaced by [`FORMAT`] after: a crash in between leaves no riddle.
const FORMAT_NEW: &str = "records store, being made\n";
const FORMAT: &str = "records store, layout 1, sled 0.34\n";

pub struct Sled {
    directory: PathBuf,
    db: Db,
    // The default tree of `db`, named once: `Db` would look it up at every call.
    records: Tree,
}

pub async fn open(url: String, _: Options) -> Result<Arc<dyn Store>> {
    let directory = directory(&url)?;
    let at = directory.display().to_string();
    // sled 0.34 may panic on a damaged file where it should return an error; the blocking task turns that into one.
    match tokio::task::spawn_blocking(move || Sled::open(directory)).await {
        Ok(opened) => Ok(Arc::new(opened?)),
        Err(panic) => Err(damaged(&at).with_source(panic)),
    }
}

fn damaged(at: &str) -> Error {
    Error::broken(format!(
        "the sled store in {at} is damaged. It was left as it is: move the directory away, then import the records again"
    ))
}

impl Sled {
    fn open(directory: PathBuf) -> Result<Self> {
        let at = directory.display();
        let cannot = |what: &str, error| Error::broken(format!("cannot {what} {at}")).with_source(error);
        std::fs::create_dir_all(&directory).map_err(|error| cannot("make the directory", error))?;
        let format = directory.join(FORMAT_FILE);
        let made = match std::fs::read_to_string(&format) {
            Ok(text) if text == FORMAT => true,
            Ok(text) if text == FORMAT_NEW || text.is_empty() => false,
            Ok(_) => {
                return Err(Error::invalid(format!(
                    "{at} holds a records store of another version: use the version that made it, or another directory"
                )));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                refuse_foreign(&directory)?;
                std::fs::write(&format, FORMAT_NEW).map_err(|error| cannot("write in", error))?;
                false
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Err(damaged(&at.to_string()).with_source(error));
            }
            Err(error) => return Err(cannot("read", error)),
        };
        let inner = directory.join("sled");
        if made && !inner.join("db").is_file() {
            return Err(damaged(&at.to_string()).with_source("its file sled/db is missing"));
        }
        let db = open_locked(&inner, &directory)?;
        if !made {
            db.flush().map_err(|error| cannot("write in", std::io::Error::other(error)))?;
            std::fs::write(&format, FORMAT).map_err(|error| cannot("write in", error))?;
        }
        let records = Tree::clone(&db);
        let store = Self { directory, db, records };
        // Both ends decode, or this is no store of ours.
        for end in [store.records.first(), store.records.last()] {
            if let Some((key, _)) = end.map_err(|error| store.failed("read", error))? {
                store.decode(&key)?;
            }
        }
        Ok(store)
    }

    fn failed(&self, what: &str, error: sled::Error) -> Error {
        let at = self.directory.display();
        match error {
            sled::Error::Corruption { .. } => damaged(&at.to_string()).with_source(error),
            // A full disk may be made room on; nothing that was acknowledged is lost by it.
            sled::Error::Io(_) => {
                Error::unavailable(format!("cannot {what} the sled store in {at}")).with_source(error)
            }
            _ => Error::broken(format!("cannot {what} the sled store in {at}")).with_source(error),
        }
    }

    fn decode(&self, key: &[u8]) -> Result<Key> {
        decode(key)
            .ok_or_else(|| damaged(&self.directory.display().to_string()).with_source("a key of it means nothing"))
    }

    fn find(&self, id: &RecordId) -> Result<Option<Record>> {
        for key in id.keys() {
            if let Some(json) = self.records.get(encode(&key)).map_err(|error| self.failed("read", error))? {
                // Copied, not shared: a response may live long, and would keep more alive than the record.
                return Ok(Some(Record::new(key, json.to_vec())));
            }
        }
        Ok(None)
    }

    fn page(&self, after: Option<&Key>) -> Result<Vec<Record>> {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(encode(key)));
        let page = self.records.range::<Vec<u8>, _>((start, Bound::Unbounded)).take(PAGE);
        page.map(|entry| {
            let (key, json) = entry.map_err(|error| self.failed("read", error))?;
            Ok(Record::new(self.decode(&key)?, json.to_vec()))
        })
        .collect()
    }

    fn reopened(&self) -> Self {
        Self { directory: self.directory.clone(), db: self.db.clone(), records: self.records.clone() }
    }

    /// Runs `work` where blocking is allowed. It goes on if the caller goes away.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let store = self.reopened();
        Box::pin(async move {
            tokio::task::spawn_blocking(move || work(&store))
                .await
                .unwrap_or_else(|panic| Err(Error::broken("the sled store gave up").with_source(panic)))
        })
    }

    fn flush_blocking(&self) -> Result<()> {
        self.db.flush().map(drop).map_err(|error| self.failed("write", error))
    }
}

/// An empty directory may become a store; one that holds something else belongs to somebody.
fn refuse_foreign(directory: &Path) -> Result<()> {
    let at = directory.display();
    let mut entries = std::fs::read_dir(directory)
        .map_err(|error| Error::broken(format!("cannot read the directory {at}")).with_source(error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::invalid(format!(
            "{at} is not a records store, and not empty: name a new or an empty directory. Nothing in it was changed"
        ))),
    }
}

fn open_locked(inner: &Path, directory: &Path) -> Result<Db> {
    let at = directory.display();
    let begin = Instant::now();
    loop {
        match sled::Config::new().path(inner).cache_capacity(CACHE_BYTES).open() {
            Ok(db) => return Ok(db),
            // sled reports a taken lock as any I/O error with these words.
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                if begin.elapsed() > LOCK_PATIENCE {
                    return Err(Error::unavailable(format!(
                        "the sled store in {at} is in use by another process: stop that one first, or name another directory"
                    ))
                    .with_source(error));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error @ sled::Error::Io(_)) => {
                return Err(Error::broken(format!("cannot open the sled store in {at}")).with_source(error));
            }
            Err(error) => return Err(damaged(&at.to_string()).with_source(error)),
        }
    }
}

impl Store for Sled {
    fn get<'a>(&'a self, id: &'a RecordId) -> Reply<'a, Option<Record>> {
        Reply::ready(self.find(id))
    }

    fn list(&self, after: Option<&Key>) -> RecordStream {
        let store = self.reopened();
        let pages = stream::try_unfold(after.cloned(), move |after| {
            let page = store.blocking(move |store| store.page(after.as_ref()));
            async move {
                let page = page.await?;
                Ok::<_, Error>(page.last().map(|last| last.key().clone()).map(|last| (page, Some(last))))
            }
        });
        pages.map_ok(|page| stream::iter(page.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn upsert(&self, documents: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        self.blocking(move |store| {
            let mut batch = Batch::default();
            for document in documents {
                let record = document.to_record();
                batch.insert(encode(record.key()), record.json().as_ref());
            }
            store.records.apply_batch(batch).map_err(|error| store.failed("write", error))?;
            store.flush_blocking()
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(|store| store.records.first().map(drop).map_err(|error| store.failed("read", error)))
    }

    fn as_embedded(&self) -> Option<&dyn EmbeddedStore> {
        Some(self)
    }
}

impl EmbeddedStore for Sled {
    fn put(&self, record: Record) -> Result<()> {
        let put = self.records.insert(encode(record.key()), record.json().as_ref());
        put.map(drop).map_err(|error| self.failed("write", error))
    }

    fn remove(&self, key: &Key) -> Result<bool> {
        let removed = self.records.remove(encode(key)).map_err(|error| self.failed("write", error))?;
        Ok(removed.is_some())
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(Self::flush_blocking)
    }

    fn is_empty(&self) -> Result<bool> {
        self.records.first().map(|first| first.is_none()).map_err(|error| self.failed("read", error))
    }
}

impl fmt::Debug for Sled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sled store in {}", self.directory.display())
    }
}

/// After the rank: whether the rest is a value of the rank's known type, or opaque.
const KNOWN: u8 = 0;
const OPAQUE: u8 = 1;

/// Bytes that sort as keys compare: the rank of the type, then a form of the value that sorts.
fn encode(key: &Key) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.extend_from_slice(&[key.rank(), if matches!(key, Key::Opaque { .. }) { OPAQUE } else { KNOWN }]);
    match key {
        Key::Integer(value) => {
            // The largest double that is not greater, then what is left: so integers and doubles sort among each other
            // although an i64 has more digits than a double.
            let mut below = *value as f64;
            if below as i128 > i128::from(*value) {
                below = below.next_down();
            }
            let rest = (i128::from(*value) - below as i128) as u16;
            out.extend_from_slice(&sortable(below).to_be_bytes());
            out.extend_from_slice(&rest.to_be_bytes());
        }
        Key::Double(value) => {
            out.extend_from_slice(&sortable(*value).to_be_bytes());
            out.extend_from_slice(&[0; 2]);
        }
        Key::String(text) => out.extend_from_slice(text.as_bytes()),
        Key::Uuid(bytes) => out.extend_from_slice(bytes),
        Key::ObjectId(bytes) => out.extend_from_slice(bytes),
        Key::Bool(value) => out.push(u8::from(*value)),
        Key::Date(millis) => out.extend_from_slice(&(*millis as u64 ^ 1 << 63).to_be_bytes()),
        Key::Opaque { bytes, .. } => out.extend_from_slice(bytes),
    }
    out
}

fn decode(bytes: &[u8]) -> Option<Key> {
    Some(match bytes {
        [rank, OPAQUE, rest @ ..] => Key::Opaque { rank: *rank, bytes: rest.into() },
        [rank::NUMBER, KNOWN, rest @ ..] => {
            let (sorted, rest) = rest.split_first_chunk::<8>()?;
            let below = unsortable(u64::from_be_bytes(*sorted));
            match u16::from_be_bytes(rest.try_into().ok()?) {
                0 => Key::double(below),
                rest => Key::Integer(below as i64 + i64::from(rest)),
            }
        }
        [rank::STRING, KNOWN, rest @ ..] => Key::String(std::str::from_utf8(rest).ok()?.into()),
        [rank::BINARY, KNOWN, rest @ ..] => Key::Uuid(rest.try_into().ok()?),
        [rank::OBJECT_ID, KNOWN, rest @ ..] => Key::ObjectId(rest.try_into().ok()?),
        [rank::BOOL, KNOWN, value] => Key::Bool(*value != 0),
        [rank::DATE, KNOWN, rest @ ..] => Key::Date((u64::from_be_bytes(rest.try_into().ok()?) ^ 1 << 63) as i64),
        _ => return None,
    })
}

const SIGN: u64 = 1 << 63;

/// IEEE 754 doubles sort as sign-magnitude integers; NaN goes before them all.
fn sortable(value: f64) -> u64 {
    match value.to_bits() {
        _ if value.is_nan() => 0,
        bits if bits & SIGN == 0 => bits | SIGN,
        bits => !bits,
    }
}

fn unsortable(sorted: u64) -> f64 {
    match sorted {
        0 => f64::NAN,
        sorted if sorted & SIGN != 0 => f64::from_bits(sorted & !SIGN),
        sorted => f64::from_bits(!sorted),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Key> {
        prop_oneof![
            any::<i64>().prop_map(Key::Integer),
            any::<i32>().prop_map(|value| Key::Integer(value.into())),
            // Where doubles and integers meet at the limit of precision.
            (any::<i8>(), 50..63_u32).prop_map(|(near, power)| Key::Integer((1 << power) + i64::from(near))),
            (any::<i8>(), 50..65_i32).prop_map(|(near, power)| Key::double(2_f64.powi(power) + f64::from(near))),
            any::<f64>().prop_map(Key::double),
            any::<String>().prop_map(|text| Key::String(text.into())),
            any::<[u8; 16]>().prop_map(Key::Uuid),
            any::<[u8; 12]>().prop_map(Key::ObjectId),
            any::<bool>().prop_map(Key::Bool),
            any::<i64>().prop_map(Key::Date),
            (any::<u8>(), any::<Vec<u8>>()).prop_map(|(rank, bytes)| Key::Opaque { rank, bytes: bytes.into() }),
        ]
    }

    proptest! {
        #[test]
        fn encoded_keys_sort_as_keys_compare(a in keys(), b in keys()) {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
        }

        #[test]
        fn a_key_comes_back_from_its_encoding(key in keys()) {
            prop_assert_eq!(decode(&encode(&key)), Some(key));
        }
    }
}
