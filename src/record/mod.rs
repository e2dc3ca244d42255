//! A [`Document`] is BSON bytes with the [`Key`] of its `_id`.
//!
//! An `_id` has two forms. Clients send a [`RecordId`], the text in the URL, which does not tell its type (`5` may be a
//! number or a string). Stores sort and look up by [`Key`], the typed `_id` in order-preserving bytes. [`RecordId::keys`]
//! lists the keys that a text can denote, by the rules in [`text`].

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
// A single pointer to one allocation: a lookup among millions of documents compares the key and counts the reference in
// one cache line.
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

    /// Skips the validation of [`new`](Self::new): `bson` must come from a document with this key.
    pub fn with_key(key: Key, bson: impl Into<Bytes>) -> Self {
        Self(Arc::new(Content { key, bson: bson.into() }))
    }

    pub fn key(&self) -> &Key {
        &self.0.key
    }

    pub fn bson(&self) -> &Bytes {
        &self.0.bson
    }

    /// Copies the document into its own allocation. A slice of a batch would keep the whole batch in memory.
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
