//! The stream of a fallback replica, as an import checks it: a header, the records, and a trailer with their number and a SHA-256
//! of every byte before the digest. `store::fallback` writes it.

use bson::Document;
use sha2::{Digest, Sha256};

use crate::record::raw;

/// The version of the format. It changes when an older version could not read the stream.
pub const FORMAT: i32 = 1;

/// The length of the digest at the end of the trailer. One byte after it ends the document.
pub const DIGEST_BYTES: usize = 32;

/// Returns true if the digest in `trailer` is right; `hash` is of every byte before the trailer.
pub fn has_valid_digest(trailer: &[u8], hash: Sha256) -> bool {
    let before = trailer.len().checked_sub(DIGEST_BYTES + 1).and_then(|at| trailer.split_at_checked(at));
    before.is_some_and(|(before, rest)| *hash.chain_update(before).finalize() == rest[..DIGEST_BYTES])
}

/// Verifies the checksum and the number of the records in a stream.
pub struct ReplicaCheck {
    hash: Sha256,
    records: u64,
    /// True if fields or records were left out by the settings of the service that wrote the stream.
    pub is_partial: bool,
}

/// A document after the header.
#[derive(PartialEq, Eq)]
pub enum Part {
    Record,
    /// `is_valid` is false if the stream is not as it was written.
    Trailer {
        is_valid: bool,
    },
}

impl ReplicaCheck {
    /// Begins at the first document of a file. Returns `None` if that is no header of a replica.
    ///
    /// # Errors
    ///
    /// When the format is that of another version.
    pub fn begin(header: &[u8]) -> Option<Result<Self, &'static str>> {
        if !matches!(raw::find(header, b"_id"), Ok(None)) {
            return None;
        }
        let fields = Document::from_reader(header).ok()?;
        let format = fields.get_i32("replica").ok()?;
        let (_, scope) = (fields.get_str("source").ok()?, fields.get_str("scope").ok()?);
        Some(match format {
            FORMAT => Ok(Self { hash: Sha256::new_with_prefix(header), records: 0, is_partial: !scope.is_empty() }),
            _ => Err("a fallback replica in the format of another version: import it by the version that wrote it"),
        })
    }

    /// Continues with the next document.
    pub fn next(&mut self, document: &[u8]) -> Part {
        if !matches!(raw::find(document, b"_id"), Ok(None)) {
            self.hash.update(document);
            self.records += 1;
            return Part::Record;
        }
        let records = Document::from_reader(document).ok().and_then(|fields| fields.get_i64("records").ok());
        let is_valid = records.is_some_and(|records| u64::try_from(records) == Ok(self.records))
            && has_valid_digest(document, self.hash.clone());
        Part::Trailer { is_valid }
    }
}
