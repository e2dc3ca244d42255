//! The cost of a lookup and a list between the parsed request and the bytes of the response: the whole service in this process,
//! without a socket.

use std::hint::black_box;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http_body_util::BodyExt;
use records::document::extended_json;
use records::http::{self, Draining};
use records::store::{self, BACKENDS, BackendKind};
use tokio::runtime::Builder;
use tower::ServiceExt;

const RECORDS: u32 = 2_500;

fn requests(criterion: &mut Criterion) {
    // A single thread, so that no switch between threads is measured.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    for backend in BACKENDS {
        let directory = tempfile::tempdir().unwrap();
        let url = match backend.kind {
            BackendKind::InMemory => format!("{}:", backend.name),
            BackendKind::Local => format!("{}:{}", backend.name, directory.path().display()),
            BackendKind::Remote => continue,
        };
        let options =
            store::Options { collection: "records".into(), timeout: Duration::from_secs(5), ..Default::default() };
        let store = runtime.block_on(store::open(&url, options)).unwrap().into_store();
        let documents = (0..RECORDS).map(|id| {
            let line = format!(
                r#"{{"_id": "{id:024x}", "name": "record {id}", "rating": {id}.5, "text": "{}"}}"#,
                "x".repeat(160)
            );
            extended_json::parse(line.as_bytes()).unwrap()
        });
        runtime.block_on(store.upsert(documents.collect())).unwrap();
        let service = http::service(store, Duration::from_secs(5), Draining::default());
        let ask = |path: &str| {
            let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
            runtime.block_on(async {
                let answer = service.clone().oneshot(request).await.unwrap();
                (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
            })
        };
        let (hit, miss) = (format!("/api/v1/records/{:024x}", 77), "/api/v1/records/nothing");
        let list = "/api/v1/records";
        assert_eq!((ask(&hit).0, ask(miss).0, ask(list).0), (StatusCode::OK, StatusCode::NO_CONTENT, StatusCode::OK));

        let mut group = criterion.benchmark_group(format!("http/{}", backend.name));
        group.bench_function("lookup", |bencher| bencher.iter(|| black_box(ask(&hit))));
        group.bench_function("lookup of nothing", |bencher| bencher.iter(|| black_box(ask(miss))));
        group.throughput(Throughput::Elements(RECORDS.into()));
        group.bench_function("list of 2500", |bencher| bencher.iter(|| black_box(ask(list))));
        group.finish();
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
