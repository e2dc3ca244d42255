//! A primary whose records are slices of large buffers, like those of a store that reads batches.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use records::document::extended_json;
use records::query::Selection;
use records::record::{Document, RecordId};
use records::store::fallback::{self, Mode, Settings};
use records::store::{Error, GetResult, ListRequest, ListResult, MemoryPool, Options, Result, Store, execute, page};

/// A buffer that is counted as long as a slice of it exists.
struct Buffer {
    bytes: Vec<u8>,
    there: Arc<AtomicUsize>,
}

impl Buffer {
    fn new(bytes: Vec<u8>, there: &Arc<AtomicUsize>) -> Self {
        there.fetch_add(1, Ordering::Relaxed);
        Self { bytes, there: there.clone() }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.there.fetch_sub(1, Ordering::Relaxed);
    }
}

fn document(id: i64) -> Document {
    extended_json::parse(format!(r#"{{"_id":{id},"n":{}}}"#, 999 - id).as_bytes()).expect("a document")
}

struct Batches(Arc<AtomicUsize>);

impl Batches {
    fn batches(there: &Arc<AtomicUsize>) -> Vec<Result<Vec<Document>>> {
        let batch = |number: i64| {
            let documents: Vec<_> = (number * 10..(number + 1) * 10).map(document).collect();
            let bytes = documents.iter().flat_map(|document| document.bson().to_vec()).collect();
            let mut buffer = Bytes::from_owner(Buffer::new(bytes, there));
            let cut = |document: &Document| {
                Document::new(buffer.split_to(document.bson().len())).expect("the bytes of a document")
            };
            Ok(documents.iter().map(cut).collect())
        };
        (0..100).map(batch).collect()
    }
}

impl Store for Batches {
    fn get<'a>(&'a self, _: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        Box::pin(async { Err(Error::unavailable("only the copy answers")) })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        let there = self.0.clone();
        Box::pin(execute(Arc::new(move |_, _| stream::iter(Self::batches(&there)).boxed()), request))
    }

    fn upsert(&self, _: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Error::broken("the test does not write")) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("batches")
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_in_memory_keeps_its_records_and_not_the_batches_they_came_in() {
    let there = Arc::new(AtomicUsize::new(0));
    let settings = Settings {
        url: "memory:".to_owned(),
        source: "simulation".to_owned(),
        scope: String::new(),
        mode: Mode::Replica,
        timeout: Duration::from_millis(250),
        max_age: None,
        first_snapshot_within: Duration::ZERO,
        snapshot_interval: Duration::from_secs(3_600),
        audit_interval: Duration::ZERO,
        size_limit: u64::MAX,
        from: Vec::new(),
        save: None,
        options: Options::default(),
    };
    let store = fallback::over(Arc::new(Batches(there.clone())), settings).await.unwrap();
    while store.health().await.unwrap().degraded.is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let found = store.get(&"567".into()).await.unwrap();
    assert_eq!(found.document, Some(document(567)));
    assert_eq!(there.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_sorted_page_keeps_its_records_and_not_the_batches_they_came_in() {
    let there = Arc::new(AtomicUsize::new(0));
    let parameters = [("_id.in", "3,333,777"), ("sort", "n")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let Selection { filter, sort, .. } = Selection::parse(&parameters).unwrap();
    let request = ListRequest { filter, sort, ..ListRequest::default() };
    let mut reservation = MemoryPool::new(1 << 20).reservation();
    let page = page(&Batches(there.clone()), &request, 10, &mut reservation).await.unwrap();
    assert_eq!(page.documents, [777, 333, 3].map(document));
    assert_eq!(there.load(Ordering::Relaxed), 0);
}
