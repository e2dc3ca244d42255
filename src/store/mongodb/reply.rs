//! The documents in a reply of the server.

use bytes::Bytes;
use mongodb::raw_batch_cursor::RawBatch;

use crate::record::raw::Elements;
use crate::record::{Document, Malformed};
use crate::store::{Error, Result};

/// Lets [`Bytes`] own the reply.
struct Reply(RawBatch);

impl AsRef<[u8]> for Reply {
    fn as_ref(&self) -> &[u8] {
        self.0.as_raw_document().as_bytes()
    }
}

/// Returns the documents of a batch as slices of the buffer that the driver received.
///
/// # Errors
///
/// `Unavailable` when the server sent something that is not BSON.
pub fn documents(batch: RawBatch) -> Result<Vec<Document>> {
    let array = batch.doc_slices().map_err(unreadable)?.as_bytes();
    let start = array.as_ptr() as usize - batch.as_raw_document().as_bytes().as_ptr() as usize;
    let range = start..start + array.len();
    let array = Bytes::from_owner(Reply(batch)).slice(range);
    let elements = Elements::new(&array).map_err(unreadable)?;
    let documents = elements.map(|element| {
        let (_, value) = element?;
        if value.is_document() { Document::new(array.slice_ref(value.bytes)) } else { Err(NOT_A_DOCUMENT) }
    });
    documents.collect::<std::result::Result<_, _>>().map_err(unreadable)
}

const NOT_A_DOCUMENT: Malformed = Malformed("a batch holds something other than documents");

pub fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::unavailable("MongoDB sent a reply that cannot be read").with_source(error)
}
