//! A server in this process, a client that shows every byte, and a store that fails on purpose.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
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

/// What no test waits longer for: a failure, not a hang.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    pub address: SocketAddr,
    stops: mpsc::UnboundedSender<()>,
    pub draining: Arc<Notify>,
    task: JoinHandle<usize>,
}

pub fn limits() -> Limits {
    Limits {
        tls: None,
        header_timeout: PATIENCE,
        write_timeout: PATIENCE,
        max_connections: 1_000,
        max_connections_per_address: None,
        trusted_proxies: Default::default(),
        with_peer_address: false,
        connections: Default::default(),
        drain_delay: Duration::ZERO,
        drain_timeout: PATIENCE,
    }
}

impl Server {
    pub async fn over(store: Arc<dyn Store>) -> Self {
        Self::start(store, PATIENCE, limits()).await
    }

    /// With settings changed by `set`.
    pub async fn set(store: Arc<dyn Store>, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::from(PATIENCE);
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

    /// The records on one address, health and metrics on another, as the binary runs them.
    pub async fn apart(store: Arc<dyn Store>, limits: Limits) -> (Self, SocketAddr) {
        Self::apart_with(store, Settings::from(PATIENCE), limits).await
    }

    pub async fn apart_with(store: Arc<dyn Store>, mut settings: Settings, limits: Limits) -> (Self, SocketAddr) {
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

    /// As one SIGTERM would.
    pub fn stop(&self) {
        self.stops.send(()).unwrap();
    }

    /// How many connections were cut, when it has stopped.
    pub async fn stopped(self) -> usize {
        timeout(PATIENCE, self.task).await.expect("the server did not stop").unwrap()
    }

    pub async fn connect(&self) -> Connection {
        Connection(TcpStream::connect(self.address).await.unwrap())
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "").await
    }

    /// One request on a connection of its own. `headers` are whole lines.
    pub async fn request(&self, method: &str, path: &str, headers: &str) -> Answer {
        request_at(self.address, method, path, headers).await
    }
}

/// As [`Server::request`], at any address.
pub async fn request_at(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let answer = try_request_at(address, method, path, headers).await;
    answer.unwrap_or_else(|| panic!("{method} {path}: closed without an answer"))
}

/// The same, but nothing when the connection is closed without an answer.
pub async fn try_request_at(address: SocketAddr, method: &str, path: &str, headers: &str) -> Option<Answer> {
    let mut connection = Connection(TcpStream::connect(address).await.unwrap());
    connection.send(&format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n")).await;
    let answer = connection.read_to_end().await;
    (!answer.is_empty()).then(|| Answer::parse(&answer, method))
}

pub struct Connection(TcpStream);

impl Connection {
    pub async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// As [`send`](Self::send), to a server that may have closed the connection.
    pub async fn try_send(&mut self, text: &str) {
        let _ = self.0.write_all(text.as_bytes()).await;
    }

    /// Ends what this client sends; it goes on reading.
    pub async fn close_sending_half(&mut self) {
        self.0.shutdown().await.unwrap();
    }

    /// Ends the connection by a reset, as a process does that is killed with unread bytes.
    pub fn reset(self) {
        self.0.set_zero_linger().unwrap();
    }

    /// Whether nothing has come so far, not even an end.
    pub fn has_received_nothing(&self) -> bool {
        self.0.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// All that comes until the server closes; a reset ends it like a close.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // What was read before a reset stays in `bytes`.
        let _ =
            timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("the server neither answered nor closed");
        bytes
    }

    /// As [`read_to_end`](Self::read_to_end), and whether that was where the server ended it in order.
    pub async fn read_to_an_end(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await;
        let read = read.expect("the server neither answered nor closed");
        (bytes, read.is_ok())
    }

    /// What is there until `end` turns up.
    pub async fn read_until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            let byte = timeout(PATIENCE, self.0.read_u8()).await.expect("the server does not answer");
            bytes.push(byte.expect("the server closed the connection"));
        }
        String::from_utf8(bytes).unwrap()
    }
}

/// An answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Whether the body is as long as its framing says: what a client can trust.
    pub whole: bool,
}

impl Answer {
    fn parse(bytes: &[u8], method: &str) -> Self {
        let text = String::from_utf8(bytes.to_vec())
            // What is compressed is taken apart by other means: a character for each byte keeps the lengths.
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
        let mut answer = Self { status, headers, body: raw.to_owned(), whole: true };
        if method == "HEAD" || status == 204 || status == 304 {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            (answer.body, answer.whole) = unchunk(raw);
        } else {
            answer.whole = answer.header("content-length") == Some(raw.len().to_string().as_str());
        }
        answer
    }

    /// The path of the next page, by the `Link` of a list.
    pub fn next(&self) -> Option<String> {
        let link = self.header("link")?;
        let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        let query = target.filter(|target| target.starts_with('?'));
        Some(format!("/api/v1/records{}", query.unwrap_or_else(|| panic!("not a link to the next page: {link}"))))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as problem+json, after checking that it is one.
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

/// The body out of its chunks, and whether the last, empty chunk came.
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

/// A memory store that holds what `lines` say.
pub async fn memory(lines: &[&str]) -> Arc<dyn Store> {
    let store = embedded().await;
    store.upsert(documents(lines)).await.unwrap();
    store
}

pub async fn embedded() -> Arc<dyn EmbeddedStore> {
    let options = store::Options { collection: "records".into(), timeout: PATIENCE, ..Default::default() };
    match store::open("memory:", options).await {
        Ok(Opened::Embedded(store)) => store,
        other => panic!("{other:?}"),
    }
}

/// A store that does what it is told, which is never the right thing.
pub struct Failing {
    pub get: Box<dyn Fn() -> BoxFuture<'static, store::Result<Option<Document>>> + Send + Sync>,
    /// The records of a scan, in `_id` order.
    pub list: Arc<dyn Fn() -> BoxStream<'static, store::Result<Document>> + Send + Sync>,
}

/// Words of a backend that no client must ever see.
pub const SECRET: &str = "mongodb://user:hunter2@10.0.0.7 said: not master";

pub fn unavailable() -> Error {
    Error::unavailable("the primary is away").with_source(SECRET)
}

pub fn broken() -> Error {
    Error::broken("page 7 is damaged").with_source(SECRET)
}

impl Failing {
    /// Every call fails with what `error` makes.
    pub fn with(error: fn() -> Error) -> Arc<dyn Store> {
        Arc::new(Self {
            get: Box::new(move || Box::pin(async move { Err(error()) })),
            list: Arc::new(move || stream::iter([Err(error())]).boxed()),
        })
    }

    /// Lists `count` records, then fails.
    pub fn after(count: i64) -> Arc<dyn Store> {
        Arc::new(Self {
            get: Box::new(|| Box::pin(async { Ok(None) })),
            list: Arc::new(move || {
                stream::iter(0..count).map(|id| Ok(record(id))).chain(stream::iter([Err(broken())])).boxed()
            }),
        })
    }

    /// Answers a lookup when `go` says so.
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
