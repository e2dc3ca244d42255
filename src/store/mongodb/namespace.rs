//! The kind of the collection, which decides what a list can ask the server for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, Document, doc};

use super::Inner;

/// A collection may be dropped and made again as something else, so its kind is looked up again after this time.
const VALID_FOR: Duration = Duration::from_secs(30);

/// What the server says about the collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub kind: Kind,
    /// It compares strings by the rules of a language, unless a command says otherwise.
    pub has_collation: bool,
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

impl Namespace {
    /// A plain collection: what is assumed where the user may not look.
    const PLAIN: Self = Self {
        kind: Kind::Collection,
        has_collation: false,
        ids_may_repeat: false,
        document_bytes: None,
        collection_bytes: None,
    };

    fn new(info: &Document, is_sharded: bool) -> Self {
        let kind = match info.get_str("type") {
            Ok("view") => Kind::View,
            Ok("timeseries") => Kind::TimeSeries,
            _ => Kind::Collection,
        };
        let options = info.get_document("options");
        let collation = options.and_then(|options| options.get_document("collation"));
        let has_collation =
            collation.is_ok_and(|collation| !collation.get_str("locale").is_ok_and(|locale| locale == "simple"));
        Self {
            kind,
            has_collation,
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
    /// The kind of the collection. One that does not exist is a plain one; so is one that the user may not look at.
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
        let list = doc! { "listCollections": 1, "filter": { "name": name }, "authorizedCollections": true };
        let listed = match database.run_command(list).await {
            Ok(reply) => reply,
            Err(error) if is_command(&error) => Document::new(),
            Err(error) => return Err(error),
        };
        let batch = listed.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let info = batch.ok().and_then(|batch| batch.first()).and_then(|info| info.as_document());
        let is_sharded = match database.run_command(doc! { "hello": 1 }).await {
            Ok(hello) => hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid"),
            Err(error) if is_command(&error) => false,
            Err(error) => return Err(error),
        };
        let mut namespace = info.map_or(Namespace::PLAIN, |info| Namespace::new(info, is_sharded));
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
