//! The places from which an instance takes a replica: the admin addresses of its siblings, and files.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::fs::{self, File};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::scan_turn::{SCAN_HEADER, ScanState};

/// The path of a replica on the admin address.
pub const PATH: &str = "/replica";

/// The time that a sibling may take to be found, to accept a connection, and to begin its answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// A source must send this many bytes in each such time, or end.
const PROGRESS_BYTES: usize = 1024 * 1024;
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);

const FILE_CHUNK_BYTES: usize = 256 * 1024;

/// A place from which a replica is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host and the port of the admin addresses of other instances. The name may have many addresses, this instance's too.
    Siblings {
        host: String,
        port: u16,
    },
    File(PathBuf),
}

pub type Chunks = BoxStream<'static, io::Result<Bytes>>;

/// A replica that has begun to arrive.
pub struct Arriving {
    /// The place, for the log.
    pub from: String,
    pub chunks: Chunks,
    /// When the source was asked: the replica was not older then than the source states.
    pub asked: Instant,
    /// When the file was written, by the clock of its file system.
    pub modified: Option<SystemTime>,
}

/// The answer of a sibling.
pub struct Sibling {
    pub scan: Option<ScanState>,
    /// The replica, or the HTTP status of an answer without one.
    pub replica: Result<Arriving, u16>,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((scheme, _)) = text.split_once("://") else {
            let is_address = |(host, port): (&str, &str)| !host.contains('/') && port.parse::<u16>().is_ok();
            return match text {
                "" => Err("it must be a URL or a file".to_owned()),
                _ if text.rsplit_once(':').is_some_and(is_address) => {
                    Err(format!("write http://{text} for the admin address of siblings, or ./{text} for a file"))
                }
                _ => Ok(Self::File(text.into())),
            };
        };
        let wrong =
            || "it must be the admin address of siblings, as in http://records-siblings:9090, or a file".to_owned();
        if scheme.eq_ignore_ascii_case("https") {
            return Err("the admin address has no TLS: write it as in http://records-siblings:9090".to_owned());
        }
        let url: Uri = text.parse().map_err(|_| wrong())?;
        let authority = url.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let is_bare = matches!(url.path(), "" | "/" | PATH) && url.query().is_none();
        if !scheme.eq_ignore_ascii_case("http") || !is_bare {
            return Err(wrong());
        }
        let port = authority.port_u16().ok_or_else(|| format!("it has no port: {}", wrong()))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self::Siblings { host: host.to_owned(), port })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Siblings { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Siblings { host, port } => write!(f, "http://{host}:{port}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Returns the addresses of siblings in a random order, so that many instances do not ask the same one.
pub async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = timeout(CONNECT_TIMEOUT, lookup_host((host, port))).await.map_err(|_| too_slow())?;
    let mut addresses: Vec<_> = found?.collect();
    fastrand::shuffle(&mut addresses);
    Ok(addresses)
}

/// Asks a sibling for its replica.
pub async fn ask(address: SocketAddr) -> io::Result<Sibling> {
    let asked = Instant::now();
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.map_err(|_| too_slow())??;
    let answer = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(connected)).await.map_err(io::Error::other)?;
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::get(PATH).header(HOST, address.to_string()).body(String::new());
        let response = sender.send_request(request.map_err(io::Error::other)?).await;
        response.map(|response| (response, connection)).map_err(io::Error::other)
    };
    let (response, connection) = timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| too_slow())??;
    let scan = response.headers().get(SCAN_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    let replica = match response.status().as_u16() {
        200 => Ok(Arriving {
            from: format!("http://{address}"),
            chunks: require_progress(body_chunks(response, connection)),
            asked,
            modified: None,
        }),
        status => Err(status),
    };
    Ok(Sibling { scan, replica })
}

fn body_chunks(response: Response<Incoming>, connection: AbortOnDropHandle<hyper::Result<()>>) -> Chunks {
    let chunks = stream::unfold((response.into_body(), connection), async |(mut body, connection)| {
        loop {
            let frame = std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await?;
            let chunk = match frame.map(|frame| frame.into_data()) {
                Ok(Ok(chunk)) => Ok(chunk),
                // Trailers of HTTP.
                Ok(Err(_)) => continue,
                Err(error) => Err(io::Error::other(error)),
            };
            return Some((chunk, (body, connection)));
        }
    });
    chunks.boxed()
}

/// Opens a file.
pub async fn open(path: &Path) -> io::Result<Arriving> {
    let asked = Instant::now();
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).await?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let file = File::open(path).await?;
    let metadata = file.metadata().await?;
    let chunks = stream::try_unfold(file, async |mut file| {
        let mut chunk = BytesMut::with_capacity(FILE_CHUNK_BYTES);
        Ok((file.read_buf(&mut chunk).await? > 0).then(|| (chunk.freeze(), file)))
    });
    let modified = metadata.modified().ok();
    Ok(Arriving { from: path.display().to_string(), chunks: require_progress(chunks.boxed()), asked, modified })
}

/// Ends `chunks` with an error if they are slower than [`PROGRESS_BYTES`] in [`PROGRESS_TIMEOUT`].
fn require_progress(chunks: Chunks) -> Chunks {
    let state = (chunks, 0, Instant::now());
    let checked = stream::unfold(state, async |(mut chunks, mut bytes, mut since)| {
        let chunk = timeout(PROGRESS_TIMEOUT, chunks.next()).await.unwrap_or_else(|_| Some(Err(too_slow())))?;
        bytes += chunk.as_ref().map_or(0, Bytes::len);
        if since.elapsed() >= PROGRESS_TIMEOUT {
            if bytes < PROGRESS_BYTES {
                return Some((Err(too_slow()), (chunks, bytes, since)));
            }
            (bytes, since) = (0, Instant::now());
        }
        Some((chunk, (chunks, bytes, since)))
    });
    checked.boxed()
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it is too slow")
}
