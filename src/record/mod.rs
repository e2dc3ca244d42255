//! What stores hold: a [`Document`] is BSON bytes with the [`Key`] of its `_id`.
//!
//! Two names for one thing, and why: clients ask by [`RecordId`], the text in the URL, which does not say its type (`5` may
//! be a number or a string). Stores order and find by [`Key`], the typed `_id`. [`RecordId::keys`] leads from the first to
//! the second, by what [`text`] says a text can denote.

pub mod decimal;
mod id;
mod key;
pub mod raw;
pub mod text;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use id::RecordId;
pub use key::{Key, KeyBytes, complement, encode, rank, to_bson};
pub use raw::{Malformed, ValueRef};

/// A BSON document and the key of its `_id`. Cloning shares it.
#[derive(Clone, PartialEq, Eq)]
// One pointer to all of it: a store that holds millions reaches a document, compares its key and counts one reader more in
// a single line of memory.
pub struct Document(Arc<Content>);

#[derive(PartialEq, Eq)]
struct Content {
    key: Key,
    bson: Bytes,
}

impl Document {
    /// Reads the `_id`; a document without one has the key [`Key::default`], which is missing.
    ///
    /// # Errors
    ///
    /// When the bytes are not BSON, down to the deepest level: what has become a `Document` can be compared and encoded.
    pub fn new(bson: impl Into<Bytes>) -> Result<Self, Malformed> {
        let bson = bson.into();
        raw::validate(&bson)?;
        let key = raw::find(&bson, b"_id")?.map(Key::new).transpose()?.unwrap_or_default();
        Ok(Self::with_key(key, bson))
    }

    /// As [`new`](Self::new), where the caller knows that `bson` is valid and has the key: it was read from such a document.
    pub fn with_key(key: Key, bson: impl Into<Bytes>) -> Self {
        Self(Arc::new(Content { key, bson: bson.into() }))
    }

    pub fn key(&self) -> &Key {
        &self.0.key
    }

    pub fn bson(&self) -> &Bytes {
        &self.0.bson
    }

    /// The document in memory of its own: a store may have cut it out of a batch, all of which it would keep.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self::with_key(self.key().clone(), Bytes::copy_from_slice(self.bson()))
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match bson::RawDocument::from_bytes(self.bson()).ok().and_then(|raw| bson::Document::try_from(raw).ok()) {
            Some(document) => write!(f, "{document}"),
            None => write!(f, "Document({:?})", self.bson()),
        }
    }
}
