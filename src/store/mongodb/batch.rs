//! The server's batches as records.

use bytes::Bytes;
use mongodb::raw_batch_cursor::RawBatch;

use super::bson;
use crate::record::{Key, Record};
use crate::store::{Error, Result};

/// How much JSON is written into one buffer. A larger one the allocator would have from the system and give back each time, and
/// the system fills what it gives with zeros.
const JSON_BYTES: usize = 64 * 1024;

/// The records of one batch, as slices of a few buffers.
pub fn records(batch: &RawBatch) -> Result<Vec<Record>> {
    let malformed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::broken("MongoDB sent a document that cannot be read").with_source(error)
    };
    let documents = batch.doc_slices().map_err(|error| malformed(error.into()))?;
    let mut records = Vec::new();
    // JSON takes somewhat more room than BSON.
    let capacity = (documents.as_bytes().len() * 5 / 4).min(JSON_BYTES + JSON_BYTES / 4);
    let (mut json, mut ends) = (Vec::with_capacity(capacity), Vec::new());
    for document in documents {
        let document = document.map_err(|error| malformed(error.into()))?;
        let document = document.as_document().ok_or_else(|| malformed("not a document".into()))?;
        let key = bson::to_json(&mut json, document.as_bytes()).map_err(|error| malformed(error.into()))?;
        ends.push((key, json.len()));
        if json.len() >= JSON_BYTES {
            cut(&mut records, std::mem::replace(&mut json, Vec::with_capacity(capacity)), &mut ends);
        }
    }
    cut(&mut records, json, &mut ends);
    Ok(records)
}

/// Takes the records out of `json`, each from the end of the one before to its own.
fn cut(records: &mut Vec<Record>, json: Vec<u8>, ends: &mut Vec<(Key, usize)>) {
    let mut json = Bytes::from(json);
    let mut start = 0;
    records.extend(ends.drain(..).map(|(key, end)| {
        let record = Record::new(key, json.split_to(end - start));
        start = end;
        record
    }));
}
