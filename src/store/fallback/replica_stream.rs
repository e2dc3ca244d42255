//! A replica as a stream of bytes: what one instance sends to another, and what a file keeps for a later start.
//!
//! The stream is a sequence of BSON documents, which `bsondump` shows: a header, every record, and a trailer. Records have an
//! `_id`; the trailer has none. Its last field is a SHA-256 of every byte before the digest, so that a truncated or damaged
//! stream is detected and refused as a whole.
//!
//! Changes go on while the records are written. The resume token is of the moment before the first of them, so that a change
//! stream from there repeats every change that a record may lack.

use std::io;
use std::time::{Duration, SystemTime};

use bson::spec::BinarySubtype;
use bson::{Binary, Document as BsonDocument, Timestamp, doc};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::super::{ClusterTime, Error, ListRequest, ResumeToken};
use super::moment::{Moment, Uptime};
use super::replica::{Replica, SnapshotOrigin};
use super::replica_dir::UNKNOWN_AGE;
use crate::document::replica_file::{DIGEST_BYTES, FORMAT, has_valid_digest};
use crate::record::{Document, Key, raw};

type Result<T, E = Error> = std::result::Result<T, E>;

/// The bytes that are gathered before they are sent.
const STREAM_CHUNK_BYTES: usize = 64 * 1024;

/// The longest time of one stream. Its snapshot stays in memory until then, also when a newer one has taken its place.
const DURATION_MAX: Duration = Duration::from_secs(10 * 60);

/// MongoDB's limit for a document, with the room that it leaves for its own fields.
const DOCUMENT_BYTES: usize = (16 * 1024 + 16) * 1024;

/// The collection that a replica is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub source: String,
    pub scope: String,
}

/// The first document of a stream.
pub struct Header {
    pub origin: Origin,
    /// The identity of the collection, if it is known.
    pub identity: Option<String>,
    /// The age of the replica when the stream began.
    pub age: Duration,
    /// When the stream began, by the writer's clock.
    pub written: Moment,
}

/// The last document of a stream.
pub struct Trailer {
    pub records: u64,
    pub token: Option<ResumeToken>,
    /// The records contain every write up to this time.
    pub as_of: Option<ClusterTime>,
}

pub enum Item {
    Record(Document),
    End(Trailer),
}

/// The streams that are written at once.
static STREAMS: Semaphore = Semaphore::const_new(8);

/// Writes the replica that is served now.
///
/// # Errors
///
/// `Unavailable` if there is no complete replica, or it is written too often already.
pub fn write(replica: &Replica, origin: &Origin) -> Result<BoxStream<'static, Result<Bytes>>> {
    let snapshot = replica.served().map_err(|unusable| Error::unavailable(unusable.to_string()))?;
    if !snapshot.is_healthy() {
        return Err(Error::unavailable("the fallback replica has failed, or differs from MongoDB"));
    }
    let busy = |_| Error::unavailable("the fallback replica is sent to too many others");
    let permit = STREAMS.try_acquire().map_err(busy)?;
    // All three are taken before the first record is read, so that the records are at least as new.
    let as_of = snapshot.as_of();
    let SnapshotOrigin { identity, token } = snapshot.origin();
    let age = replica.age_of(&snapshot);
    let header = Header { origin: origin.clone(), identity, age, written: Moment::now() };
    let rows = stream::once(async move {
        let list = snapshot.list(ListRequest::default()).await;
        list.map(|list| list.rows)
    });
    let writer = Writer {
        head: header.encode()?,
        documents: Some(rows.try_flatten().map_ok(|row| row.document).boxed()),
        hash: Sha256::new(),
        records: 0,
        token,
        as_of,
        until: Instant::now() + DURATION_MAX,
        _permit: permit,
    };
    let chunks =
        stream::try_unfold(writer, async |mut writer| Ok(writer.next_chunk().await?.map(|chunk| (chunk, writer))));
    Ok(chunks.boxed())
}

struct Writer {
    /// The header, until it is written.
    head: Vec<u8>,
    /// `None` after the end.
    documents: Option<BoxStream<'static, Result<Document>>>,
    hash: Sha256,
    records: u64,
    token: Option<ResumeToken>,
    as_of: Option<ClusterTime>,
    until: Instant,
    _permit: SemaphorePermit<'static>,
}

impl Writer {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        let Some(documents) = &mut self.documents else { return Ok(None) };
        if Instant::now() > self.until {
            return Err(Error::unavailable("the fallback replica was not taken in time"));
        }
        let mut chunk = std::mem::take(&mut self.head);
        while chunk.len() < STREAM_CHUNK_BYTES {
            let Some(document) = documents.try_next().await? else {
                self.documents = None;
                self.hash.update(&chunk);
                let trailer = Trailer { records: self.records, token: self.token.take(), as_of: self.as_of };
                chunk.extend(trailer.encode(std::mem::take(&mut self.hash))?);
                return Ok(Some(chunk.into()));
            };
            self.records += 1;
            chunk.extend_from_slice(document.bson());
        }
        self.hash.update(&chunk);
        Ok(Some(chunk.into()))
    }
}

impl Header {
    fn encode(&self) -> Result<Vec<u8>> {
        let Self { origin, identity, age, written } = self;
        let mut header = doc! { "replica": FORMAT, "source": &origin.source, "scope": &origin.scope };
        header.insert("identity", identity.as_deref());
        header.insert("age", to_i64(age.as_millis()));
        header.insert("written", to_i64(written.clock));
        if let Some(Uptime { boot, millis }) = &written.uptime {
            header.insert("uptime", doc! { "boot": boot, "millis": to_i64(*millis) });
        }
        encode(&header)
    }

    /// Returns the age of the replica when it was asked for, never too low.
    ///
    /// A sibling states it. The age of a file is known by two clocks: the writer's, and that of the file system, which shows
    /// in `modified`.
    pub fn age(&self, modified: Option<SystemTime>) -> Duration {
        // The time between two moments in milliseconds may be one too low.
        let age = self.age.saturating_add(Duration::from_millis(1));
        let Some(modified) = modified else { return age };
        let since =
            self.written.elapsed().zip(modified.elapsed().ok()).map(|(written, modified)| written.max(modified));
        match since {
            Some(since) => age.saturating_add(since).min(UNKNOWN_AGE),
            None => {
                tracing::warn!("the file with the replica is of the future; its age is unknown");
                UNKNOWN_AGE
            }
        }
    }

    fn decode(header: &BsonDocument) -> Option<Self> {
        let text = |name| header.get_str(name).map(str::to_owned).ok();
        let uptime = header.get_document("uptime").ok().and_then(|uptime| {
            Some(Uptime { boot: uptime.get_str("boot").ok()?.to_owned(), millis: count(uptime, "millis")? })
        });
        Some(Self {
            origin: Origin { source: text("source")?, scope: text("scope")? },
            identity: text("identity"),
            age: Duration::from_millis(count(header, "age")?),
            written: Moment { clock: count(header, "written")?, uptime },
        })
    }
}

impl Trailer {
    /// `hash` is of every byte before.
    fn encode(self, mut hash: Sha256) -> Result<Vec<u8>> {
        let binary = |bytes| Binary { subtype: BinarySubtype::Generic, bytes };
        let mut trailer = doc! { "records": to_i64(self.records) };
        trailer.insert("token", self.token.map(|token| binary(token.0.into_vec())));
        trailer.insert("clusterTime", self.as_of.map(|time| to_timestamp(time.bits())));
        trailer.insert("sha256", binary(vec![0; DIGEST_BYTES]));
        let mut trailer = encode(&trailer)?;
        let (before, digest) = split_digest(&mut trailer).ok_or_else(|| Error::broken("a trailer has no digest"))?;
        hash.update(before);
        digest.copy_from_slice(&hash.finalize());
        Ok(trailer)
    }

    /// `hash` is of every byte before.
    fn decode(trailer: &[u8], hash: Sha256) -> Option<Self> {
        let fields = BsonDocument::from_reader(trailer).ok().filter(|_| has_valid_digest(trailer, hash))?;
        let token = fields.get_binary_generic("token").ok();
        let token = token.map(|token| ResumeToken(token.as_slice().into()));
        let as_of = fields.get_timestamp("clusterTime").ok();
        let as_of = as_of.and_then(|time| ClusterTime::new(u64::from(time.time) << 32 | u64::from(time.increment)));
        Some(Self { records: count(&fields, "records")?, token, as_of })
    }
}

/// Splits a trailer into what its digest covers, and the digest. One byte ends the document.
fn split_digest(trailer: &mut [u8]) -> Option<(&[u8], &mut [u8])> {
    let digest = trailer.len().checked_sub(DIGEST_BYTES + 1)?;
    let (before, rest) = trailer.split_at_mut(digest);
    Some((before, &mut rest[..DIGEST_BYTES]))
}

fn to_timestamp(bits: u64) -> Timestamp {
    Timestamp { time: (bits >> 32) as u32, increment: bits as u32 }
}

fn to_i64(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn count(document: &BsonDocument, name: &str) -> Option<u64> {
    u64::try_from(document.get_i64(name).ok()?).ok()
}

fn encode(document: &BsonDocument) -> Result<Vec<u8>> {
    document.to_vec().map_err(|error| Error::broken("cannot write the fallback replica").with_source(error))
}

/// Returns true if `chunks` begin as a replica does, in this format or another.
pub async fn begins(chunks: impl Stream<Item = io::Result<Bytes>> + Unpin) -> bool {
    let header = Reader::new(chunks).document().await.ok();
    let header = header.and_then(|header| BsonDocument::from_reader(&*header).ok());
    header.is_some_and(|header| header.get_i32("replica").is_ok())
}

/// Why a stream is refused, or could not be read.
pub type Reason = String;

/// Reads a stream, in which nothing can be trusted before the end.
pub struct Reader<S> {
    chunks: S,
    buffer: BytesMut,
    hash: Sha256,
    last: Option<Key>,
    records: u64,
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Reader<S> {
    fn new(chunks: S) -> Self {
        Self { chunks, buffer: BytesMut::new(), hash: Sha256::new(), last: None, records: 0 }
    }

    /// Reads the header.
    pub async fn open(chunks: S) -> Result<(Self, Header), Reason> {
        let mut reader = Self::new(chunks);
        let header = reader.document().await?;
        reader.hash.update(&header);
        let fields = BsonDocument::from_reader(&*header).map_err(|_| "it is no replica")?;
        match fields.get_i32("replica") {
            Ok(FORMAT) => {}
            Ok(_) => return Err("it was written by another version, in another format".to_owned()),
            Err(_) => return Err("it is no replica".to_owned()),
        }
        let header = Header::decode(&fields).ok_or("its header is damaged")?;
        Ok((reader, header))
    }

    /// Reads the next record, or the end.
    pub async fn next(&mut self) -> Result<Item, Reason> {
        let document = self.document().await?;
        if !matches!(raw::find(&document, b"_id"), Ok(None)) {
            self.hash.update(&document);
            let record = Document::new(document.freeze()).map_err(|error| format!("it is damaged: {error}"))?;
            if self.last.as_ref().is_some_and(|last| record.key() <= last) {
                return Err("it is damaged: its records are not in order".to_owned());
            }
            self.last = Some(record.key().clone());
            self.records += 1;
            return Ok(Item::Record(record));
        }
        let trailer = Trailer::decode(&document, std::mem::take(&mut self.hash));
        let trailer = trailer.filter(|trailer| trailer.records == self.records);
        let trailer = trailer.ok_or("it is damaged: its checksum or its count is wrong")?;
        if !self.buffer.is_empty() || self.fill().await? {
            return Err("it is damaged: it goes on after its end".to_owned());
        }
        Ok(Item::End(trailer))
    }

    async fn document(&mut self) -> Result<BytesMut, Reason> {
        self.fill_to(4).await?;
        let length = self.buffer.first_chunk().map_or(0, |length| i32::from_le_bytes(*length));
        let length = usize::try_from(length).unwrap_or_default();
        if !(5..=DOCUMENT_BYTES).contains(&length) {
            return Err("it is damaged, or no replica: a document has an impossible length".to_owned());
        }
        self.fill_to(length).await?;
        Ok(self.buffer.split_to(length))
    }

    async fn fill_to(&mut self, length: usize) -> Result<(), Reason> {
        while self.buffer.len() < length {
            if !self.fill().await? {
                return Err("it is truncated".to_owned());
            }
        }
        Ok(())
    }

    /// Reads more. Returns false at the end.
    async fn fill(&mut self) -> Result<bool, Reason> {
        let chunk = self.chunks.try_next().await.map_err(|error| format!("it cannot be read: {error}"))?;
        self.buffer.extend_from_slice(chunk.as_deref().unwrap_or_default());
        Ok(chunk.is_some())
    }
}
