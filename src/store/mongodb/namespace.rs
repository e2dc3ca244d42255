//! The kind of the collection, which decides how much of a list can be pushed down.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, Document, doc};

use super::Inner;

/// The time after which the kind is looked up again: the collection may be dropped and created as another kind.
const VALID_FOR: Duration = Duration::from_secs(5);

/// The properties of the collection that decide how it can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub kind: Kind,
    /// The server knows no such collection.
    pub is_missing: bool,
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

/// The default comparison of strings in the collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collation {
    ByBytes,
    /// By the rules of a language.
    Other,
    /// The user may not see it.
    Unknown,
}

impl Namespace {
    /// Returns true if the index of `_id` has the order in which keys compare, and each key once.
    pub fn has_ids_in_key_order(&self) -> bool {
        self.kind == Kind::Collection && self.collation == Collation::ByBytes && !self.ids_may_repeat
    }

    /// Describes a collection that does not exist, or about which the user may not ask.
    fn missing(is_known: bool) -> Self {
        Self {
            kind: Kind::Collection,
            is_missing: is_known,
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
            is_missing: false,
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
    was_missing: AtomicBool,
}

impl NamespaceCache {
    pub fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Namespace)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a command was refused because of the collation.
    pub fn set_other_collation(&self) {
        if let Some((_, namespace)) = &mut *self.lock() {
            namespace.collation = Collation::Other;
        }
    }

    fn get(&self) -> Option<Namespace> {
        // A collection that does not exist may be created as a view at any time, and costs little to ask for.
        let is_valid = |(at, namespace): &(Instant, Namespace)| !namespace.is_missing && at.elapsed() < VALID_FOR;
        self.lock().filter(is_valid).map(|(_, namespace)| namespace)
    }

    /// Records the size of whole documents.
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
        // A user who may only read the collection sees its kind, but not its options.
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
            // Without statistics, the size is learned from the documents that lists read.
            if let Ok(stats) = stats {
                namespace.document_bytes = size(&stats, "avgObjSize");
                namespace.collection_bytes = size(&stats, "size");
            }
        }
        *self.namespaces.lock() = Some((Instant::now(), namespace));
        if namespace.is_missing != self.namespaces.was_missing.swap(namespace.is_missing, Ordering::Relaxed) {
            if !namespace.is_missing {
                tracing::info!("the collection {name} of the database {} exists now", self.database);
            } else if let Some(text) = self.missing_collection().await {
                tracing::warn!("{text}: nothing is served");
            }
        }
        Ok(namespace)
    }

    /// Returns a text that the collection does not exist, with the most similar names. `None` if it was created since the
    /// namespace was read.
    pub async fn missing_collection(&self) -> Option<String> {
        let (database, collection) = (&self.database, &self.options.collection);
        let (of, wanted, names) = match self.collection_names().await {
            Ok(names) if names.contains(collection) => return None,
            Ok(names) if names.is_empty() => ("databases", database, self.database_names().await),
            names => ("collections", collection, names),
        };
        let similar = similar(wanted, names.unwrap_or_default());
        let hint = match &*similar {
            [] => String::new(),
            names => format!(" (there are {of} with similar names: {})", names.join(", ")),
        };
        Some(format!("there is no collection {collection} in the database {database}{hint}"))
    }

    async fn collection_names(&self) -> mongodb::error::Result<Vec<String>> {
        let list = doc! { "listCollections": 1, "nameOnly": true, "authorizedCollections": true };
        let reply = self.client().await?.database(&self.database).run_command(list).await?;
        Ok(names(reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).ok()))
    }

    async fn database_names(&self) -> mongodb::error::Result<Vec<String>> {
        let list = doc! { "listDatabases": 1, "nameOnly": true };
        let reply = self.client().await?.database("admin").run_command(list).await?;
        Ok(names(reply.get_array("databases").ok()))
    }
}

/// Returns the names in a reply.
fn names(array: Option<&Vec<Bson>>) -> Vec<String> {
    let documents = array.into_iter().flatten().filter_map(Bson::as_document);
    documents.filter_map(|document| document.get_str("name").ok().map(str::to_owned)).collect()
}

/// Returns the most similar names, at most three.
fn similar(wanted: &str, names: Vec<String>) -> Vec<String> {
    const LIKELY: f64 = 0.75;
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(f64, String)> = names
        .into_iter()
        .filter(|name| !name.starts_with("system.") && !matches!(&**name, "admin" | "config" | "local"))
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .filter(|(score, _)| *score >= LIKELY)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.truncate(3);
    scored.into_iter().map(|(_, name)| name).collect()
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
