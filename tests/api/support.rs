//! A server in this process, a client that shows every byte, and a store that fails on purpose. No value of a request may be in
//! the log.

#[path = "../support/log.rs"]
pub mod log;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use log::Requests;
use records::document::extended_json;
use records::http::{self, Draining, Settings};
use records::record::{Document, RecordId};
use records::server::{self, AdminServer, Limits};
use records::store::{self, CHUNK_DOCUMENTS, EmbeddedStore, Error, GetResult, ListRequest, ListResult, Opened, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The longest wait of a test, so that a hang becomes a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A time limit of a server that no test reaches: it would hide a hang if it were shorter than [`PATIENCE`].
pub const LIMIT: Duration = Duration::from_secs(120);

pub struct Server {
    pub address: SocketAddr,
    stops: mpsc::UnboundedSender<()>,
    pub draining: Arc<Notify>,
    task: JoinHandle<usize>,
}

pub fn limits() -> Limits {
    Limits {
        tls: None,
        header_timeout: LIMIT,
        write_timeout: LIMIT,
        max_connections: 1_000,
        max_connections_per_address: None,
        trusted_proxies: Default::default(),
        with_peer_address: false,
        connections: Default::default(),
        drain_delay: Duration::ZERO,
        drain_timeout: LIMIT,
    }
}

impl Server {
    pub async fn over(store: Arc<dyn Store>) -> Self {
        Self::start(store, LIMIT, limits()).await
    }

    /// Starts a server with settings that `set` changes.
    pub async fn start_with(store: Arc<dyn Store>, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::from(LIMIT);
        set(&mut settings);
        Self::start(store, settings, limits()).await
    }

    pub async fn start(store: Arc<dyn Store>, settings: impl Into<Settings>, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stops, mut received) = mpsc::unbounded_channel();
        let received = stream::poll_fn(move |context| received.poll_recv(context));
        let state = Draining::default();
        let draining = Arc::new(Notify::new());
        let begun = draining.clone();
        let mut settings = settings.into();
        settings.connections = Some(limits.connections.clone());
        let service = http::service(store, settings, state.clone());
        let task = tokio::spawn(async move {
            let begin = || {
                state.begin();
                begun.notify_one();
            };
            server::run(listener, service, limits, received, begin).await
        });
        Self { address, stops, draining, task }
    }

    /// Starts the records on one address, and health and metrics on another, as the binary does.
    pub async fn start_with_admin(store: Arc<dyn Store>, limits: Limits) -> (Self, SocketAddr) {
        Self::start_with_admin_and(store, Settings::from(LIMIT), limits).await
    }

    pub async fn start_with_admin_and(
        store: Arc<dyn Store>,
        mut settings: Settings,
        limits: Limits,
    ) -> (Self, SocketAddr) {
        let (listener, admin) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (address, admin_address) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
        let (stops, mut received) = mpsc::unbounded_channel();
        let received = stream::poll_fn(move |context| received.poll_recv(context));
        let state = Draining::default();
        let draining = Arc::new(Notify::new());
        let begun = draining.clone();
        settings.connections = Some(limits.connections.clone());
        let (service, operations) = http::services(store, settings, state.clone());
        let admin_server = AdminServer::start(admin, operations, limits.clone());
        let task = tokio::spawn(async move {
            let begin = || {
                state.begin();
                begun.notify_one();
            };
            let cut = server::run(listener, service, limits, received, begin).await;
            cut + admin_server.stop().await
        });
        (Self { address, stops, draining, task }, admin_address)
    }

    /// Stops the server as a SIGTERM does.
    pub fn stop(&self) {
        self.stops.send(()).unwrap();
    }

    /// Waits until the server has stopped, and returns the number of connections that were cut.
    pub async fn wait(self) -> usize {
        timeout(PATIENCE, self.task).await.expect("the server did not stop").unwrap()
    }

    pub async fn connect(&self) -> Connection {
        Connection::to(self.address).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "").await
    }

    /// Sends a request on a new connection. `headers` are whole lines.
    pub async fn request(&self, method: &str, path: &str, headers: &str) -> Answer {
        request_at(self.address, method, path, headers).await
    }
}

/// Sends a request like [`Server::request`] to any address.
pub async fn request_at(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let answer = try_request_at(address, method, path, headers).await;
    answer.unwrap_or_else(|| panic!("{method} {path}: closed without an answer"))
}

/// Sends a request like [`request_at`]. Returns `None` if the connection is closed without a response.
pub async fn try_request_at(address: SocketAddr, method: &str, path: &str, headers: &str) -> Option<Answer> {
    let mut connection = Connection::to(address).await;
    connection.send(&format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n")).await;
    let answer = connection.read_to_end().await;
    (!answer.is_empty()).then(|| Answer::parse(&answer, method))
}

pub struct Connection(TcpStream, Requests);

impl Connection {
    async fn to(address: SocketAddr) -> Self {
        let requests = Requests::new();
        Self(TcpStream::connect(address).await.unwrap(), requests)
    }

    pub async fn send(&mut self, text: &str) {
        self.1.push(text);
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends like [`send`](Self::send) to a server that may have closed the connection.
    pub async fn try_send(&mut self, text: &str) {
        self.1.push(text);
        let _ = self.0.write_all(text.as_bytes()).await;
    }

    /// Closes the sending half of the connection; the client can still read.
    pub async fn close_sending_half(&mut self) {
        self.0.shutdown().await.unwrap();
    }

    /// Resets the connection, as the system does when a process is killed with unread bytes.
    pub fn reset(self) {
        self.0.set_zero_linger().unwrap();
    }

    /// Returns true if the connection is open and the client has received nothing.
    pub fn has_received_nothing(&self) -> bool {
        self.0.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Reads until the server closes or resets the connection.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // After a reset, `bytes` still has everything that came before.
        let _ =
            timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("the server neither answered nor closed");
        self.1.receive(&bytes);
        bytes
    }

    /// Reads like [`read_to_end`](Self::read_to_end), and returns true if the server closed the connection, false after a reset.
    pub async fn read_to_end_or_reset(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await;
        let read = read.expect("the server neither answered nor closed");
        self.1.receive(&bytes);
        (bytes, read.is_ok())
    }

    /// Reads up to and including `end`.
    pub async fn read_until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            let byte = timeout(PATIENCE, self.0.read_u8()).await.expect("the server does not answer");
            bytes.push(byte.expect("the server closed the connection"));
        }
        self.1.receive(&bytes);
        String::from_utf8(bytes).unwrap()
    }
}

/// A parsed response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// True if the body is as long as its framing says, so that the client can trust it.
    pub is_complete: bool,
}

impl Answer {
    fn parse(bytes: &[u8], method: &str) -> Self {
        let text = String::from_utf8(bytes.to_vec())
            // Tests decode compressed bodies themselves. Until then each byte becomes a character, which keeps the length.
            .unwrap_or_else(|_| {
                bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect()
            });
        let (head, raw) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.into()))
            .collect();
        let mut answer = Self { status, headers, body: raw.to_owned(), is_complete: true };
        if method == "HEAD" || status == 204 || status == 304 {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            (answer.body, answer.is_complete) = unchunk(raw);
        } else {
            answer.is_complete = answer.header("content-length") == Some(raw.len().to_string().as_str());
        }
        answer
    }

    /// Returns the path of the next page from the `Link` header.
    pub fn next(&self) -> Option<String> {
        let link = self.header("link")?;
        let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        let query = target.filter(|target| target.starts_with('?'));
        Some(format!("/api/v1/records{}", query.unwrap_or_else(|| panic!("not a link to the next page: {link}"))))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// Checks that the body is problem+json, and returns it.
    pub fn problem(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        problem
    }
}

/// Decodes a chunked body, and returns true if its last, empty chunk has come.
fn unchunk(mut raw: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, rest)) = raw.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = rest.get(..size) else { return (body + rest, false) };
        body += chunk;
        raw = rest.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}

pub fn documents(lines: &[&str]) -> Vec<Document> {
    lines.iter().map(|line| extended_json::parse(line.as_bytes()).unwrap()).collect()
}

/// Returns a memory store with the documents in `lines`.
pub async fn memory(lines: &[&str]) -> Arc<dyn Store> {
    let store = embedded().await;
    store.upsert(documents(lines)).await.unwrap();
    store
}

pub async fn embedded() -> Arc<dyn EmbeddedStore> {
    let options = store::Options { collection: "records".into(), timeout: LIMIT, ..Default::default() };
    match store::open("memory:", options).await {
        Ok(Opened::Embedded(store)) => store,
        other => panic!("{other:?}"),
    }
}

/// A store that fails or waits as a test wants.
pub struct Failing {
    pub get: Box<dyn Fn() -> BoxFuture<'static, store::Result<Option<Document>>> + Send + Sync>,
    /// The records of a scan, in `_id` order.
    pub list: Arc<dyn Fn() -> BoxStream<'static, store::Result<Document>> + Send + Sync>,
}

/// Text of a backend that no client may see.
pub const SECRET: &str = "mongodb://user:hunter2@10.0.0.7 said: not master";

pub fn unavailable() -> Error {
    Error::unavailable("the primary is away").with_source(SECRET)
}

pub fn broken() -> Error {
    Error::broken("page 7 is damaged").with_source(SECRET)
}

impl Failing {
    /// Returns a store whose calls all fail with `error`.
    pub fn with(error: fn() -> Error) -> Arc<dyn Store> {
        Arc::new(Self {
            get: Box::new(move || Box::pin(async move { Err(error()) })),
            list: Arc::new(move || stream::iter([Err(error())]).boxed()),
        })
    }

    /// Returns a store whose lists fail after `count` records.
    pub fn after(count: i64) -> Arc<dyn Store> {
        Arc::new(Self {
            get: Box::new(|| Box::pin(async { Ok(None) })),
            list: Arc::new(move || {
                stream::iter(0..count).map(|id| Ok(record(id))).chain(stream::iter([Err(broken())])).boxed()
            }),
        })
    }

    /// Returns a store that answers a lookup once `go` is notified.
    pub fn until(go: Arc<Notify>, asked: Arc<Notify>) -> Arc<dyn Store> {
        Arc::new(Self {
            get: Box::new(move || {
                let (go, asked) = (go.clone(), asked.clone());
                Box::pin(async move {
                    asked.notify_one();
                    go.notified().await;
                    Ok(Some(record(1)))
                })
            }),
            list: Arc::new(|| stream::pending().boxed()),
        })
    }
}

pub fn record(id: i64) -> Document {
    Document::new(doc! { "_id": id }.to_vec().unwrap()).unwrap()
}

impl Store for Failing {
    fn get<'a>(&'a self, _: &'a RecordId) -> BoxFuture<'a, store::Result<GetResult>> {
        let found = (self.get)();
        Box::pin(async { found.await.map(GetResult::from) })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, store::Result<ListResult>> {
        let list = self.list.clone();
        let chunks = move |_, _| {
            let chunks = list().ready_chunks(CHUNK_DOCUMENTS).flat_map(|results| {
                let documents = results.iter().flatten().cloned().collect();
                let failure = results.into_iter().find_map(Result::err);
                stream::iter([Ok(documents)].into_iter().chain(failure.map(Err)))
            });
            chunks.boxed()
        };
        Box::pin(store::execute(Arc::new(chunks), request))
    }

    fn upsert(&self, _: Vec<Document>) -> BoxFuture<'_, store::Result<()>> {
        Box::pin(async { Err(broken()) })
    }

    fn ping(&self) -> BoxFuture<'_, store::Result<()>> {
        let get = (self.get)();
        Box::pin(async { get.await.map(drop) })
    }
}

impl fmt::Debug for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failing store")
    }
}
