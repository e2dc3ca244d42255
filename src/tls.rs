//! TLS of the listener, and of the client that checks its health. A build may leave it out.

#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod server;

#[cfg(feature = "tls")]
pub use client::connect_unverified;
#[cfg(feature = "tls")]
pub use server::Acceptor;

use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};

/// The files that TLS needs, each as PEM.
#[derive(Clone, Debug)]
pub struct Files {
    /// The server's certificate, and those of intermediate authorities after it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose clients may connect. `None`: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

#[cfg(not(feature = "tls"))]
pub use without::{Acceptor, connect_unverified};

#[cfg(not(feature = "tls"))]
mod without {
    use std::io::{self, Read, Write};
    use std::sync::Arc;

    use super::{Files, Stream};
    use crate::reload::Reload;

    const MISSING: &str = "this build has no TLS: rebuild with --features tls";

    /// Has no value in this build.
    #[derive(Clone, Debug)]
    pub enum Acceptor {}

    impl Acceptor {
        pub fn open(_: Files) -> Result<Self, String> {
            Err(MISSING.to_owned())
        }

        pub fn files(&self) -> Arc<dyn Reload> {
            match *self {}
        }

        pub async fn accept(&self, _: impl Stream + 'static) -> io::Result<Box<dyn Stream>> {
            match *self {}
        }
    }

    pub fn connect_unverified<S: Read + Write>(_: S) -> io::Result<S> {
        Err(io::Error::new(io::ErrorKind::Unsupported, MISSING))
    }
}
