//! The kind of the collection, which decides what a list can ask the server for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, Document, doc};

use super::Inner;

/// A collection may be dropped and made again as something else, so its kind is looked up again after this time.
const VALID_FOR: Duration = Duration::from_secs(5);

/// What the server says about the collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub kind: Kind,
    pub collation: Collation,
    /// Two documents may have one `_id`: in views, in time series, and on several shards.
    pub ids_may_repeat: bool,
    /// The average size of a document and the size of all of them, in bytes, where the server tells it.
    pub document_bytes: Option<usize>,
    pub collection_bytes: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Collection,
    View,
    TimeSeries,
}

/// How strings compare, unless a command says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collation {
    ByBytes,
    /// By the rules of a language.
    Other,
    /// The user may not look.
    Unknown,
}

impl Namespace {
    /// Returns true if the index of `_id` has the order in which keys compare, and each key once.
    pub fn has_ids_in_key_order(&self) -> bool {
        self.kind == Kind::Collection && self.collation == Collation::ByBytes && !self.ids_may_repeat
    }

    /// A collection that does not exist, or of which the user may know nothing.
    fn missing(is_known: bool) -> Self {
        Self {
            kind: Kind::Collection,
            collation: if is_known { Collation::ByBytes } else { Collation::Unknown },
            ids_may_repeat: !is_known,
            document_bytes: None,
            collection_bytes: None,
        }
    }

    fn new(info: &Document, is_sharded: bool) -> Self {
        let kind = match info.get_str("type") {
            Ok("view") => Kind::View,
            Ok("timeseries") => Kind::TimeSeries,
            _ => Kind::Collection,
        };
        let collation = match info.get_document("options") {
            Err(_) => Collation::Unknown,
            Ok(options) => match options.get_document("collation").and_then(|collation| collation.get_str("locale")) {
                Err(_) | Ok("simple") => Collation::ByBytes,
                Ok(_) => Collation::Other,
            },
        };
        Self {
            kind,
            collation,
            ids_may_repeat: is_sharded || kind != Kind::Collection,
            document_bytes: None,
            collection_bytes: None,
        }
    }
}

/// The namespace as it was last seen.
#[derive(Debug, Default)]
pub struct NamespaceCache {
    seen: Mutex<Option<(Instant, Namespace)>>,
    /// The average size of the documents that a list read last, in bytes; 0 before that.
    document_bytes: AtomicUsize,
}

impl NamespaceCache {
    pub fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Namespace)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a command was refused for.
    pub fn has_other_collation(&self) {
        if let Some((_, namespace)) = &mut *self.lock() {
            namespace.collation = Collation::Other;
        }
    }

    fn get(&self) -> Option<Namespace> {
        self.lock().filter(|(at, _)| at.elapsed() < VALID_FOR).map(|(_, namespace)| namespace)
    }

    /// Notes the size of whole documents.
    pub fn learn_size(&self, documents: usize, bytes: usize) {
        if let Some(each) = bytes.checked_div(documents) {
            self.document_bytes.store(each.max(1), Ordering::Relaxed);
        }
    }

    /// The average size of a document in bytes, if it is known.
    pub fn document_bytes(&self, namespace: &Namespace) -> Option<usize> {
        match self.document_bytes.load(Ordering::Relaxed) {
            0 => namespace.document_bytes,
            bytes => Some(bytes),
        }
    }
}

impl Inner {
    /// The kind of the collection.
    ///
    /// # Errors
    ///
    /// When there is no server.
    pub async fn namespace(&self) -> mongodb::error::Result<Namespace> {
        if let Some(namespace) = self.namespaces.get() {
            return Ok(namespace);
        }
        let database = self.client().await?.database(&self.database);
        let name = &self.options.collection;
        // A user who may only read the collection learns its kind, and not its options.
        let mut listed = None;
        for name_only in [false, true] {
            let list = doc! {
                "listCollections": 1,
                "filter": { "name": name },
                "nameOnly": name_only,
                "authorizedCollections": true,
            };
            match database.run_command(list).await {
                Ok(reply) => listed = Some(reply),
                Err(error) if is_command(&error) => continue,
                Err(error) => return Err(error),
            }
            break;
        }
        let batch = listed.as_ref().and_then(|listed| listed.get_document("cursor").ok()?.get_array("firstBatch").ok());
        let info = batch.and_then(|batch| batch.first()).and_then(|info| info.as_document());
        let is_sharded = match database.run_command(doc! { "hello": 1 }).await {
            Ok(hello) => hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid"),
            Err(error) if is_command(&error) => false,
            Err(error) => return Err(error),
        };
        let missing = || Namespace::missing(listed.is_some());
        let mut namespace = info.map_or_else(missing, |info| Namespace::new(info, is_sharded));
        if namespace.kind == Kind::Collection {
            let stats = database.run_command(doc! { "collStats": name }).await;
            // Without it, the size is learned from what lists read.
            if let Ok(stats) = stats {
                namespace.document_bytes = size(&stats, "avgObjSize");
                namespace.collection_bytes = size(&stats, "size");
            }
        }
        *self.namespaces.lock() = Some((Instant::now(), namespace));
        Ok(namespace)
    }
}

fn is_command(error: &mongodb::error::Error) -> bool {
    matches!(*error.kind, mongodb::error::ErrorKind::Command(_))
}

fn size(stats: &Document, name: &str) -> Option<usize> {
    match stats.get(name)? {
        Bson::Int32(bytes) => usize::try_from(*bytes).ok(),
        Bson::Int64(bytes) => usize::try_from(*bytes).ok(),
        Bson::Double(bytes) => Some(*bytes as usize),
        _ => None,
    }
}
