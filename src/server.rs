//! Connections: from the listener to the service, within limits, and to a graceful end.
//!
//! Not `axum::serve`: it has no time-out for a request's head and no limit of connections, and one half-sent head holds
//! its graceful shutdown for ever.

mod files;
mod progress;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::stream::{self, Stream};
use futures::{FutureExt, StreamExt};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::coop::unconstrained;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::telemetry::Connections;
pub use files::connections_within;
use progress::{Ends, Progress};

/// The longest head of a request (request line and headers), in bytes; a longer one is answered 431. Enough for an id of
/// several kilobytes and the cookies of a careless neighbour, too little to fill the memory with.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// How long to wait when the system has no file descriptor left for a connection. They come back when others close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections it has at most: enough for all who watch a process, and a part of what is kept of its files.
const BESIDE_CONNECTIONS: usize = 64;

/// How long a server that stands [`Beside`] another may take for what is under way when both stop: enough for a scrape, and
/// nothing beside what a supervisor allows for the drain.
const BESIDE_DRAIN: Duration = Duration::from_secs(1);
/// How long to go on for those who were quicker than the signal, at the least: first with connections that wait to be taken,
/// then with requests that wait to be read.
const SETTLE: Duration = Duration::from_millis(100);

/// What the system keeps of an answer before it is on its way: two chunks of a list, so that there is always one to send.
const UNSENT_BYTES: u32 = 128 * 1024;

/// How many connections wait to be accepted, if the system lets that many; it drops others, whose clients try again after a
/// second. The usual 128 are fewer than a load balancer opens when it has just found this server.
const BACKLOG: u32 = 4_096;

/// How long after it was said that there is no place for a connection this is said again.
const FULL_AGAIN: Duration = Duration::from_secs(60);

/// What a client may take of the server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a client may take for the head of a request, and how long it may keep a connection idle between two.
    pub header_timeout: Duration,
    /// How long a client may take no byte of its answer.
    pub write_timeout: Duration,
    /// How many connections are served at once. More wait in the system's queue.
    pub max_connections: usize,
    /// Where those that there are now are counted.
    pub connections: Connections,
    /// How long to go on as before, but not ready, when told to stop: until the load balancers have noticed.
    pub drain_delay: Duration,
    /// How long requests under way may take after that. What is left then is cut.
    pub drain_timeout: Duration,
}

/// Takes `address`, on which nobody can connect before [`listen`].
///
/// # Errors
///
/// When the system does not let it: somebody listens there, say.
pub fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` has it: a new process may listen although connections of the old one linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Lets clients connect, with a queue for those that are not accepted yet which a burst does not overflow.
///
/// # Errors
///
/// When the system does not let it: somebody else has taken the same address and was quicker to listen, say.
pub fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// Serves `service` on `listener` until `stops` says so, then drains: `draining` is called, connections go on for
/// [`Limits::drain_delay`], no new ones are taken after that, and those that are left get [`Limits::drain_timeout`].
///
/// The second item of `stops` ends the delay, or the wait for those that are left. Returns how many connections were cut: 0
/// after a drain that was whole.
pub async fn run<S, B>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    mut stops: impl Stream<Item = ()> + Unpin,
    draining: impl FnOnce(),
) -> usize
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut server = Server::new(service, &limits);
    server.accept_until(&listener, next(&mut stops)).await;
    draining();
    let mut hurried = false;
    let delay = async {
        tokio::select! {
            () = sleep(limits.drain_delay.max(SETTLE)) => {}
            () = next(&mut stops) => hurried = true,
        }
    };
    server.accept_until(&listener, delay).await;
    server.accept_waiting(&listener);
    drop(listener);
    let within = if hurried { Duration::ZERO } else { limits.drain_timeout };
    server.finish(within, next(&mut stops)).await
}

/// A server beside another one, for those who watch it: it answers until it is told to stop, and keeps nobody waiting then.
#[derive(Debug)]
pub struct Beside {
    stop: CancellationToken,
    task: JoinHandle<usize>,
}

impl Beside {
    /// Serves `service` on `listener` within `limits`, but for those of a drain: it has none of its own.
    pub fn start<S, B>(listener: TcpListener, service: S, limits: Limits) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let stops = stream::once(stop.clone().cancelled_owned()).chain(stream::pending()).boxed();
        // Its connections are no clients', and what the process may have open is theirs.
        let (connections, max_connections) = (Connections::default(), limits.max_connections.min(BESIDE_CONNECTIONS));
        let limits =
            Limits { connections, max_connections, drain_delay: Duration::ZERO, drain_timeout: BESIDE_DRAIN, ..limits };
        let task = tokio::spawn(run(listener, service, limits, stops, || {}));
        Self { stop, task }
    }

    /// Ends it, after what is under way, within little more than a second. Returns how many connections were cut.
    pub async fn stop(self) -> usize {
        self.stop.cancel();
        self.task.await.unwrap_or_default()
    }
}

/// Done at the next item. A stream that has ended says nothing more.
async fn next(stops: &mut (impl Stream<Item = ()> + Unpin)) {
    if stops.next().await.is_none() {
        std::future::pending().await
    }
}

struct Server<S> {
    http: http1::Builder,
    service: S,
    write_timeout: Duration,
    places: Arc<Semaphore>,
    max_connections: usize,
    count: Connections,
    /// When it was last said that all places are taken.
    full: Option<Instant>,
    connections: JoinSet<()>,
    finishing: CancellationToken,
}

impl<S, B> Server<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    fn new(service: S, limits: &Limits) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(HEAD_MAX_BYTES);
        limits.connections.bounded_by(limits.max_connections);
        Self {
            http,
            service,
            write_timeout: limits.write_timeout,
            places: Arc::new(Semaphore::new(limits.max_connections)),
            max_connections: limits.max_connections,
            count: limits.connections.clone(),
            full: None,
            connections: JoinSet::new(),
            finishing: CancellationToken::new(),
        }
    }

    async fn accept_until(&mut self, listener: &TcpListener, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            if self.places.available_permits() == 0 {
                self.say_that_it_is_full();
            }
            let next = accept(listener, self.places.clone());
            tokio::select! {
                biased;
                () = &mut end => return,
                // Connections that have ended are forgotten as they end.
                Some(_) = self.connections.join_next() => {}
                (stream, place) = next => self.serve(stream, place),
            }
        }
    }

    /// Whoever comes now waits, and sees a server that does not answer, of which nothing else in the log would tell.
    fn say_that_it_is_full(&mut self) {
        if self.full.is_none_or(|full| full.elapsed() >= FULL_AGAIN) {
            self.full = Some(Instant::now());
            let connections = self.max_connections;
            tracing::warn!(connections, "--max-connections reached: more connections wait until others end");
        }
    }

    /// Takes what had connected before the listener closes: closing it would reset them.
    fn accept_waiting(&mut self, listener: &TcpListener) {
        // Unconstrained: tokio would say that there is nothing more after 128 of them, to give other tasks a turn.
        while let Some((stream, place)) = unconstrained(accept(listener, self.places.clone())).now_or_never() {
            self.serve(stream, place);
        }
    }

    fn serve(&mut self, stream: TcpStream, place: OwnedSemaphorePermit) {
        // An answer is written in one piece; waiting for more to fill the packet would only delay it. Where the option
        // cannot be set the connection is broken, which serving it will show.
        let _ = stream.set_nodelay(true);
        keep_little_unsent(&stream);
        let ends = Ends::default();
        let stream = TokioIo::new(Progress::new(stream, self.write_timeout, ends.clone()));
        let service = TowerToHyperService::new(self.service.clone().map_request(move |request: Request<Incoming>| {
            if request.version() < Version::HTTP_11 {
                ends.with_the_connection();
            }
            request
        }));
        let connection = self.http.serve_connection(stream, service);
        let finishing = self.finishing.clone();
        let open = self.count.open();
        self.connections.spawn(async move {
            let _place = (place, open);
            let mut connection = pin!(connection);
            // A connection on which nothing was read yet would be closed at once, and the request that waits on it lost.
            let settled = finishing.cancelled_owned().then(|()| sleep(SETTLE));
            let result = tokio::select! {
                biased;
                result = connection.as_mut() => result,
                () = settled => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                // The client's doing nearly always: it hung up, was too slow, or does not speak HTTP. A list that the
                // store cut was logged where it happened.
                tracing::debug!(%error, "connection ended early");
            }
        });
    }

    async fn finish(mut self, within: Duration, hurry: impl Future<Output = ()>) -> usize {
        self.finishing.cancel();
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

/// Bounds what the system keeps for a client that reads slowly, which else grows to megabytes for each. A write then waits
/// for the client rather than for a third of those megabytes, so slowness is not taken for a standstill.
fn keep_little_unsent(stream: &TcpStream) {
    // Where there is no such option, that bound is the system's.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, UNSENT_BYTES);
}

/// The next connection, once there is a place for it. Dropping this future loses none.
async fn accept(listener: &TcpListener, places: Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    // Nobody closes the semaphore; if it were closed there would be no place, for ever.
    let Ok(place) = places.acquire_owned().await else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections: trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the error is about the connection that was being accepted, and the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// An item at every SIGTERM, SIGINT and SIGHUP from now on. A process that was started to survive its terminal, by `nohup`, say,
/// does not hear the last of them.
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
        let heard = signals.iter_mut().map(|signal| signal.poll_recv(context)).find(Poll::is_ready);
        heard.unwrap_or(Poll::Pending)
    }))
}

/// Whether the process was started with SIGHUP ignored, which to listen to it would undo. Where the system does not tell, that
/// is taken for granted.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // It is the first of the signals.
    ignored.is_none_or(|mask| mask & 1 == 1)
}
