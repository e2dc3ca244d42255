//! The server: accepts connections within limits, and drains them when it stops.
//!
//! `axum::serve` has no time-out for a request's head and no limit of connections, and one half-sent head holds its graceful
//! shutdown for ever.

mod client_stream;
mod connection;
mod http2;
mod open_files;
mod per_address;
mod small_frames;
mod unacknowledged;
mod usage;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, Stream};
use futures::{FutureExt, StreamExt};
use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::coop::unconstrained;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::client::{PeerAddress, TrustedProxies};
use crate::telemetry::Connections;
use crate::tls::Acceptor;
pub use open_files::connections_within;
use per_address::PerAddress;

/// The pause when the system has no file descriptor for a connection. Other connections close meanwhile.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Connection limit of the admin server. Its connections need some of the reserved open files.
const ADMIN_MAX_CONNECTIONS: usize = 64;

/// Drain timeout of the admin server: enough for a scrape, and short compared with what a supervisor allows for a stop.
const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The minimum of each step of a drain: first the server still accepts connections that were under way when it was told to
/// stop, then it still reads requests from connections that were just accepted.
const DRAIN_GRACE: Duration = Duration::from_millis(100);

/// The unsent bytes that the kernel buffers for each connection: two chunks of a list, so that one is always ready to send.
const UNSENT_BYTES: u32 = 128 * 1024;

/// The connections that may wait to be accepted, if the system allows that many. It drops others, whose clients try again after
/// a second. A load balancer that starts to use this server opens more than the usual 128.
const BACKLOG: u32 = 4_096;

/// The interval between log lines about the connection limit.
const LIMIT_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The limits of the server's connections, and their TLS.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Begins TLS on each connection. `None`: HTTP without TLS.
    pub tls: Option<Acceptor>,
    /// The time that a client may take to send the head of a request or for the TLS handshake, and that a connection may be
    /// idle between two requests.
    pub header_timeout: Duration,
    /// The time that a client may read nothing of a response.
    pub write_timeout: Duration,
    /// Connections that are served at once. More wait in the system's queue.
    pub max_connections: usize,
    /// Connections that are served of one address at once; more are closed. `None`: any number.
    pub max_connections_per_address: Option<usize>,
    /// Proxies, whose connections are those of many clients.
    pub trusted_proxies: TrustedProxies,
    /// Adds a [`PeerAddress`] to the extensions of each request.
    pub with_peer_address: bool,
    /// Counts connections.
    pub connections: Connections,
    /// The time after the signal to stop in which the server still accepts requests although it is not ready, so that load
    /// balancers notice.
    pub drain_delay: Duration,
    /// The time that requests may take after that. The remaining connections are then closed.
    pub drain_timeout: Duration,
}

/// Binds `address`. Clients cannot connect before [`listen`].
///
/// # Errors
///
/// When the system refuses, because another process listens there, for example.
pub fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Lets a new process listen although connections of the old one linger, as `TcpListener::bind` does.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Lets clients connect, with a backlog that holds a burst of them.
///
/// # Errors
///
/// When the system refuses, because another process bound the same address and was quicker to listen, for example.
pub fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// Serves `service` on `listener` until the first item of `stops`, then drains: calls `draining`, goes on for
/// [`Limits::drain_delay`], closes the listener, and gives the connections that are left [`Limits::drain_timeout`].
///
/// The second item of `stops` ends the delay, or the wait for connections. Returns the number of connections that were cut: 0
/// after a complete drain.
pub async fn run<S, B>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    mut stops: impl Stream<Item = ()> + Unpin,
    draining: impl FnOnce(),
) -> usize
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let (drain_delay, drain_timeout) = (limits.drain_delay.max(DRAIN_GRACE), limits.drain_timeout);
    let mut server = Server::new(service, limits);
    server.accept_until(&listener, next(&mut stops)).await;
    draining();
    let mut hurried = false;
    let delay = async {
        tokio::select! {
            () = sleep(drain_delay) => {}
            () = next(&mut stops) => hurried = true,
        }
    };
    server.accept_until(&listener, delay).await;
    server.accept_waiting(&listener);
    drop(listener);
    server.drain(if hurried { Duration::ZERO } else { drain_timeout }, next(&mut stops)).await
}

/// The server of health and metrics on its own address. It answers until [`stop`](Self::stop) is called, and then stops at once.
#[derive(Debug)]
pub struct AdminServer {
    stop: CancellationToken,
    task: JoinHandle<usize>,
}

impl AdminServer {
    /// Serves `service` on `listener` within `limits`, without TLS, with its own limits on connections and on the drain.
    pub fn start<S, B>(listener: TcpListener, service: S, limits: Limits) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let stop = CancellationToken::new();
        let stops = stream::once(stop.clone().cancelled_owned()).chain(stream::pending()).boxed();
        let limits = Limits {
            // Probes and scrapers of a cluster's network ask it.
            tls: None,
            // The metrics count connections of clients of the API.
            connections: Connections::default(),
            max_connections: limits.max_connections.min(ADMIN_MAX_CONNECTIONS),
            max_connections_per_address: None,
            with_peer_address: false,
            drain_delay: Duration::ZERO,
            drain_timeout: ADMIN_DRAIN_TIMEOUT,
            ..limits
        };
        let task = tokio::spawn(run(listener, service, limits, stops, || {}));
        Self { stop, task }
    }

    /// Completes the requests in progress, for little more than a second. Returns the number of connections that were cut.
    pub async fn stop(self) -> usize {
        self.stop.cancel();
        self.task.await.unwrap_or_default()
    }
}

/// Waits for the next item. A stream that has ended never stops the server.
async fn next(stops: &mut (impl Stream<Item = ()> + Unpin)) {
    if stops.next().await.is_none() {
        std::future::pending().await
    }
}

struct Server<S> {
    service: S,
    limits: Arc<Limits>,
    permits: Arc<Semaphore>,
    per_address: Option<PerAddress>,
    /// When the log last said that the connection limit is reached.
    warned: Option<Instant>,
    connections: JoinSet<()>,
    draining: CancellationToken,
}

impl<S, B> Server<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    fn new(service: S, limits: Limits) -> Self {
        limits.connections.bounded_by(limits.max_connections);
        Self {
            service,
            permits: Arc::new(Semaphore::new(limits.max_connections)),
            per_address: limits.max_connections_per_address.map(PerAddress::new),
            limits: Arc::new(limits),
            warned: None,
            connections: JoinSet::new(),
            draining: CancellationToken::new(),
        }
    }

    async fn accept_until(&mut self, listener: &TcpListener, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            if self.permits.available_permits() == 0 {
                self.warn_of_the_limit();
            }
            let next = accept(listener, self.permits.clone());
            tokio::select! {
                biased;
                () = &mut end => return,
                // Frees the tasks of connections as they end.
                Some(_) = self.connections.join_next() => {}
                (stream, peer, permit) = next => self.serve(stream, peer, permit),
            }
        }
    }

    /// Logs that the connection limit is reached: new clients wait without an answer, and no other log line explains that.
    fn warn_of_the_limit(&mut self) {
        if self.warned.is_none_or(|warned| warned.elapsed() >= LIMIT_WARNING_INTERVAL) {
            self.warned = Some(Instant::now());
            let connections = self.limits.max_connections;
            tracing::warn!(connections, "--max-connections reached: more connections wait until others end");
        }
    }

    /// Accepts the clients that connected before the listener closes: closing it would reset them.
    fn accept_waiting(&mut self, listener: &TcpListener) {
        // Unconstrained: tokio's cooperative budget would end the loop after 128 of them.
        while let Some((stream, peer, permit)) = unconstrained(accept(listener, self.permits.clone())).now_or_never() {
            self.serve(stream, peer, permit);
        }
    }

    fn serve(&mut self, stream: TcpStream, peer: IpAddr, permit: OwnedSemaphorePermit) {
        let per_address = self.per_address.as_mut().filter(|_| !self.limits.trusted_proxies.contains(peer));
        let address_permit = match per_address.map(|per_address| per_address.try_acquire(peer)) {
            Some(None) => return self.limits.connections.count_rejection(),
            Some(permit) => permit,
            None => None,
        };
        // A response is written in one piece; waiting for more to fill the packet would only delay it. If the option cannot be
        // set, the connection is broken, which serving it will show.
        let _ = stream.set_nodelay(true);
        set_notsent_lowat(&stream);
        let open = self.limits.connections.open();
        let peer = self.limits.with_peer_address.then_some(PeerAddress(peer));
        let (service, limits, draining) = (self.service.clone(), self.limits.clone(), self.draining.clone());
        self.connections.spawn(async move {
            let _held = (permit, open, address_permit);
            // The future is made here: one that was moved in would take its 4 KB twice.
            connection::serve(stream, peer, service, limits, draining).await;
        });
    }

    async fn drain(mut self, within: Duration, hurry: impl Future<Output = ()>) -> usize {
        self.draining.cancel();
        let all = async { while self.connections.join_next().await.is_some() {} };
        tokio::select! {
            _ = timeout(within, all) => {}
            () = hurry => {}
        }
        let cut = self.connections.len();
        self.connections.shutdown().await;
        cut
    }
}

/// Bounds the kernel's send buffer, which otherwise grows to megabytes for each client that reads slowly.
fn set_notsent_lowat(stream: &TcpStream) {
    // Other systems have no such option, and bounds of their own.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, UNSENT_BYTES);
}

/// Accepts the next connection once there is a permit for it. Dropping this future loses none.
async fn accept(listener: &TcpListener, permits: Arc<Semaphore>) -> (TcpStream, IpAddr, OwnedSemaphorePermit) {
    // The semaphore is never closed.
    let Ok(permit) = permits.acquire_owned().await else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer.ip(), permit),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections: trying again");
                sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

/// Returns true if the error concerns only the connection that was being accepted, and not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Returns a stream with an item for every SIGTERM, SIGINT and SIGHUP from now on. SIGHUP is left out if the process was started
/// to survive its terminal, by `nohup`, for example.
///
/// # Errors
///
/// When the system does not let the process listen to signals.
pub fn signals() -> io::Result<impl Stream<Item = ()> + Unpin> {
    let mut kinds = vec![SignalKind::terminate(), SignalKind::interrupt()];
    if !hangup_is_ignored() {
        kinds.push(SignalKind::hangup());
    }
    let mut signals = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
    Ok(stream::poll_fn(move |context| {
        let received = signals.iter_mut().map(|signal| signal.poll_recv(context)).find(Poll::is_ready);
        received.unwrap_or(Poll::Pending)
    }))
}

/// Returns true if the process was started with SIGHUP ignored: a listener would undo that. Also returns true where the system
/// does not tell.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is signal 1, the lowest bit.
    ignored.is_none_or(|mask| mask & 1 == 1)
}
