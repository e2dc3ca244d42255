//! Lookups through `&dyn Store`, as in the service: every embedded backend, few and many records, hits and misses, ObjectIds and
//! strings. In random order, so that the processor's caches help no more than in production.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, DateTime, doc};
use criterion::{Criterion, criterion_group, criterion_main};
use records::record::{Document, RecordId};
use records::store::{self, BACKENDS, BackendKind, Store};

const COUNTS: [u32; 2] = [1_000, 1_000_000];

/// The number of documents in one upsert.
const BATCH: u32 = 10_000;

/// Makes the `_id` of the `index`-th record, or with `there` false one of the same form that is absent.
type MakeId = fn(index: u32, there: bool) -> Bson;

const KINDS: [(&str, MakeId); 2] = [("object_id", object_id), ("string", string)];

/// Returns an ObjectId as a process makes them: they differ in the first and the last bytes only.
fn object_id(index: u32, there: bool) -> Bson {
    let mut id = [0x5f, 0, 0, 0, 0x9a, 0x3c, 0x77, 0xe1, u8::from(there), 0, 0, 0];
    id[1..4].copy_from_slice(&(index / 50).to_be_bytes()[1..]);
    id[9..].copy_from_slice(&index.to_be_bytes()[1..]);
    Bson::ObjectId(ObjectId::from_bytes(id))
}

fn string(index: u32, there: bool) -> Bson {
    let shop = if there { "berlin" } else { "lisbon" };
    Bson::String(format!("order-{index:07}-{shop}"))
}

/// About 250 bytes of JSON.
fn document(id: Bson, index: u32) -> Document {
    let fields = doc! {
        "_id": id,
        "name": "Notebook, ruled, 96 sheets",
        "number": index as i32,
        "price": f64::from(index % 10_000) / 100.0,
        "size": { "width": 21.0, "height": 29.7 },
        "tags": ["paper", "school", "office"],
        "made": DateTime::from_millis(1_441_875_347_000 + i64::from(index)),
        "note": "Élégant, and long enough to be a sentence.",
    };
    Document::new(fields.to_vec().expect("BSON")).expect("a document")
}

/// Returns the ids of all records in random order. Called before the store is filled, so that the ids are adjacent in memory: in
/// the service, the id of a request is in the processor's cache.
fn shuffled(count: u32, make: MakeId, there: bool) -> Vec<RecordId> {
    let mut order: Vec<u32> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..order.len()).rev() {
        // Knuth's generator, whose high bits are random enough to shuffle.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    let id = |index| match make(index, there) {
        Bson::String(text) => RecordId::from(text),
        Bson::ObjectId(id) => RecordId::from(id.to_hex()),
        other => unreachable!("no id of this bench: {other:?}"),
    };
    order.into_iter().map(id).collect()
}

fn fill(runtime: &tokio::runtime::Runtime, url: &str, count: u32, make: MakeId) -> Arc<dyn Store> {
    let options =
        store::Options { collection: "records".into(), timeout: Duration::from_secs(5), ..Default::default() };
    runtime.block_on(async {
        let store = store::open(url, options).await.expect("the store opens").into_store();
        for start in (0..count).step_by(BATCH as usize) {
            let end = count.min(start + BATCH);
            let documents = (start..end).map(|index| document(make(index, true), index)).collect();
            store.upsert(documents).await.expect("the store takes documents");
        }
        store
    })
}

fn lookup(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for backend in BACKENDS {
        for (kind, make) in KINDS {
            for count in COUNTS {
                let directory = tempfile::tempdir().expect("a directory");
                let url = match backend.kind {
                    BackendKind::InMemory => format!("{}:", backend.name),
                    BackendKind::Local => format!("{}:{}", backend.name, directory.path().display()),
                    BackendKind::Remote => continue,
                };
                // Filled only when a benchmark of it is run, since a million records take a while.
                let mut filled = None;
                let mut group = criterion.benchmark_group(format!("{}/{kind}/{count}", backend.name));
                for (name, there) in [("hit", true), ("miss", false)] {
                    group.bench_function(name, |bencher| {
                        let (store, hits, misses) = filled.get_or_insert_with(|| {
                            let (hits, misses) = (shuffled(count, make, true), shuffled(count, make, false));
                            (fill(&runtime, &url, count, make), hits, misses)
                        });
                        let ids = if there { hits } else { misses };
                        let mut next = ids.iter().cycle();
                        bencher.iter(|| {
                            let id = black_box(next.next()).expect("ids without end");
                            let found = store.try_get(id).expect("an embedded store answers at once");
                            assert_eq!(found.expect("an answer").document.is_some(), there);
                        });
                    });
                }
            }
        }
    }
}

criterion_group!(benches, lookup);
criterion_main!(benches);
