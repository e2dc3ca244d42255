//! The baselines of the comparison, each as short as it can be written. A baseline is this program again, started with its name.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use futures::TryStreamExt;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mongodb::bson::{Document, doc, oid::ObjectId};
use mongodb::{Client, Collection};
use records::server::{self, Limits};
use records::store::{self, Store};
use tokio::net::TcpListener;

use super::data;

const JSON: &str = "application/json";
const PREFIX: &str = "/api/v1/records/";

/// Serves the baseline `name` until the process is killed.
pub fn serve(name: &str, argument: &str) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if name == "server" {
        // The same number of threads as the service.
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        builder.worker_threads(processors.saturating_sub(1).max(1));
    }
    let runtime = builder.enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        // The parent process reads the port from standard output.
        println!("listening on http://{}", listener.local_addr().expect("an address"));
        match name {
            "hyper" => bare_hyper(listener).await,
            "axum" => bare_axum(listener, argument.parse().expect("how many records")).await,
            "driver" => driver(listener, argument).await,
            "server" => server_alone(listener).await,
            other => panic!("there is no {other}"),
        }
    });
}

fn map(count: u32) -> Arc<HashMap<String, Bytes>> {
    Arc::new(data::documents(count).map(|(id, document)| (id, data::json(&document).into())).collect())
}

async fn bare_hyper(listener: TcpListener) {
    let records = map(data::FEW);
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let records = records.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let found = request.uri().path().strip_prefix(PREFIX).and_then(|id| records.get(id)).cloned();
            async move {
                let response =
                    Response::builder().header(CONTENT_TYPE, JSON).status(if found.is_some() { 200 } else { 204 });
                Ok::<_, Infallible>(response.body(Full::new(found.unwrap_or_default())).expect("an answer"))
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn bare_axum(listener: TcpListener, count: u32) {
    async fn one(State(records): State<Arc<HashMap<String, Bytes>>>, Path(id): Path<String>) -> impl IntoResponse {
        match records.get(&id) {
            Some(record) => ([(CONTENT_TYPE, JSON)], record.clone()).into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        }
    }
    let router = Router::new().route("/api/v1/records/{id}", get(one)).with_state(map(count));
    axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| stream.set_nodelay(true).expect("no delay")),
        router,
    )
    .await
    .expect("a server");
}

/// The service's own server and store, and between them nothing: no identities, log, metrics, deadlines, entity tags.
async fn server_alone(listener: TcpListener) {
    async fn one(State(store): State<Arc<dyn Store>>, Path(id): Path<String>) -> impl IntoResponse {
        match store.get(&id.as_str().into()).await.expect("an answer").document {
            Some(document) => ([(CONTENT_TYPE, JSON)], data::json(&document)).into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        }
    }
    let store = store::open("memory:", store::Options::default()).await.expect("a store").into_store();
    store.upsert(data::documents(data::FEW).map(|(_, document)| document).collect()).await.expect("an import");
    let router = Router::new().route("/api/v1/records/{id}", get(one)).with_state(store);
    let limits = Limits {
        tls: None,
        header_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(30),
        max_connections: 10_000,
        max_connections_per_address: None,
        trusted_proxies: Default::default(),
        with_peer_address: false,
        connections: Default::default(),
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::ZERO,
    };
    server::run(listener, router, limits, futures::stream::pending(), || {}).await;
}

/// The usual service over the driver: a `find_one`, or a `find`, for each request.
async fn driver(listener: TcpListener, url: &str) {
    type Records = Collection<Document>;
    async fn one(State(records): State<Records>, Path(id): Path<String>) -> impl IntoResponse {
        let id = ObjectId::parse_str(&id).expect("an ObjectId");
        match records.find_one(doc! { "_id": id }).await.expect("an answer") {
            Some(record) => ([(CONTENT_TYPE, JSON)], serde_json::to_vec(&record).expect("JSON")).into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        }
    }
    async fn list(State(records): State<Records>) -> impl IntoResponse {
        let found = records.find(doc! {}).await.expect("an answer").try_collect::<Vec<_>>().await.expect("a list");
        ([(CONTENT_TYPE, JSON)], serde_json::to_vec(&found).expect("JSON"))
    }
    let records = collection(url).await;
    let router =
        Router::new().route("/api/v1/records/{id}", get(one)).route("/api/v1/records", get(list)).with_state(records);
    axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| stream.set_nodelay(true).expect("no delay")),
        router,
    )
    .await
    .expect("a server");
}

pub async fn collection<T: Send + Sync>(url: &str) -> Collection<T> {
    let client = Client::with_uri_str(url).await.expect("a client");
    client.default_database().expect("a database in the URL").collection("records")
}
