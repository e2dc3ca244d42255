//! Compares lookups in the replica with lookups in the memory store that such a replica is: the difference is the cost of
//! the fallback.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use records::document::extended_json;
use records::record::RecordId;
use records::store::fallback::{self, Mode, Settings};
use records::store::{self, Options, Store};

const COUNT: u32 = 100_000;

async fn replica(primary: Arc<dyn Store>) -> Arc<dyn Store> {
    let settings = Settings {
        url: "memory:".to_owned(),
        source: "bench".to_owned(),
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
    let store = fallback::over(primary, settings).await.expect("a fallback");
    while !store.health().await.is_ok_and(|health| health.degraded.is_none()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store
}

fn lookup(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let text = |id| format!(r#"{{"_id":"order-{id:07}-berlin","note":"Long enough to be a sentence of its own."}}"#);
    let documents = (0..COUNT).map(|id| extended_json::parse(text(id).as_bytes()).expect("a document")).collect();
    let memory = runtime.block_on(async {
        let memory = store::open("memory:", Options::default()).await.expect("a store").into_store();
        memory.upsert(documents).await.expect("an upsert");
        memory
    });
    let replica = runtime.block_on(replica(memory.clone()));
    // Consecutive ids are far from each other, so that the processor's caches help no more than in production.
    let ids = (0..COUNT).map(|at| RecordId::from(format!("order-{:07}-berlin", at * 7_919 % COUNT)));
    let ids: Vec<RecordId> = ids.collect();
    for (name, store) in [("memory", memory), ("replica", replica)] {
        let mut next = ids.iter().cycle();
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                let id = black_box(next.next()).expect("ids without end");
                let found = store.try_get(id).expect("an answer at once").expect("an answer");
                assert!(found.document.is_some());
            });
        });
    }
}

criterion_group!(benches, lookup);
criterion_main!(benches);
