//! A primary that cuts its records out of large buffers, as one does that reads many at a time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use records::document::Document;
use records::query::Selection;
use records::record::{Key, Record, RecordId};
use records::store::fallback::{self, Mode, Settings};
use records::store::{Error, Found, Listing, Options, Query, Reply, Result, Share, Store, page};

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
    fn get<'a>(&'a self, _: &'a RecordId) -> Reply<'a, Found> {
        Reply::ready(Err(Error::unavailable("only the copy answers")))
    }

    fn list(&self, _: Query) -> Listing {
        let json = |id: i64| format!(r#"{{"_id":{id}}}"#).into_bytes();
        let batches = (0..100).flat_map(|batch| {
            let ids = batch * 10..(batch + 1) * 10;
            let mut buffer = Bytes::from_owner(Buffer::new(ids.clone().flat_map(json).collect(), &self.0));
            ids.map(move |id| Record::new(Key::Integer(id), buffer.split_to(json(id).len())))
        });
        stream::iter(batches.map(Ok).collect::<Vec<_>>()).boxed().into()
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
    assert_eq!(found.record.unwrap().json().as_ref(), br#"{"_id":567}"#);
    assert_eq!(there.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_page_of_few_keeps_its_records_and_not_the_batches_they_came_in() {
    let there = Arc::new(AtomicUsize::new(0));
    let filters = Selection::parse(&[("_id.in".to_owned(), "3,333,777".to_owned())]).unwrap().filters;
    let query = Query { filters, ..Query::all() };
    let page = page(&Batches(there.clone()), query, None, None, 10, &mut Share::default()).await.unwrap();
    assert_eq!(page.records.len(), 3);
    assert_eq!(there.load(Ordering::Relaxed), 0);
}
