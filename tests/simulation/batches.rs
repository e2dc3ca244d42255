//! A primary that cuts its records out of large buffers, as one does that reads many at a time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use records::document::extended_json;
use records::record::{Document, RecordId};
use records::store::fallback::{self, Mode, Settings};
use records::store::{Error, GetResult, ListRequest, ListResult, Options, Result, Store};

/// A buffer that is counted as long as there is anything of it.
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

struct Batches(Arc<AtomicUsize>);

impl Store for Batches {
    fn get<'a>(&'a self, _: &'a RecordId) -> BoxFuture<'a, Result<GetResult>> {
        Box::pin(async { Err(Error::unavailable("only the copy answers")) })
    }

    fn list(&self, _: ListRequest) -> BoxFuture<'_, Result<ListResult>> {
        let bson = |id: i64| {
            let document = extended_json::parse(format!(r#"{{"_id":{id}}}"#).as_bytes()).expect("a document");
            document.bson().to_vec()
        };
        let batches = (0..100).flat_map(|batch| {
            let ids = batch * 10..(batch + 1) * 10;
            let mut buffer = Bytes::from_owner(Buffer::new(ids.clone().flat_map(bson).collect(), &self.0));
            ids.map(move |id| Document::new(buffer.split_to(bson(id).len())).expect("a document"))
        });
        let rows = batches.map(|document| Ok(document.into())).collect::<Vec<_>>();
        Box::pin(async { Ok(stream::iter(rows).boxed().into()) })
    }

    fn upsert(&self, _: Vec<Document>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Error::broken("nobody writes here")) })
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
        copy: "memory:".to_owned(),
        source: "simulation".to_owned(),
        mode: Mode::Replica,
        after: Duration::from_millis(250),
        max_age: None,
        refresh: Duration::from_secs(3_600),
        max_bytes: u64::MAX,
        options: Options::default(),
    };
    let store = fallback::over(Arc::new(Batches(there.clone())), settings).await.unwrap();
    while store.health().await.unwrap().degraded.is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let found = store.get(&"567".into()).await.unwrap();
    assert!(found.document.is_some());
    assert_eq!(there.load(Ordering::Relaxed), 0);
}
