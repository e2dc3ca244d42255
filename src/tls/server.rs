//! TLS for the connections of clients.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::{Files, Stream};
use crate::reload::{Reload, Reloaded};

/// The encrypted bytes that a connection buffers for a client that does not read: two TLS records. The memory of the response is
/// released before they are sent.
const UNSENT_BYTES: usize = 32 * 1024;

/// Accepts TLS connections with the certificate that the files have now.
#[derive(Clone, Debug)]
pub struct Acceptor(Arc<Reloaded<ServerConfig>>);

impl Acceptor {
    /// Reads the certificate and its key, and the authorities of clients.
    ///
    /// # Errors
    ///
    /// The file that cannot be used, and the reason.
    pub fn open(files: Files) -> Result<Self, String> {
        let paths = [&files.cert, &files.key].into_iter().chain(&files.client_ca).cloned().collect();
        let reloaded = Reloaded::from_files("TLS certificates", paths, move |contents| build_config(&files, contents));
        Ok(Self(Arc::new(reloaded?)))
    }

    pub fn files(&self) -> Arc<dyn Reload> {
        self.0.clone()
    }

    /// Shakes hands with the client on `stream`. The caller bounds the time.
    ///
    /// # Errors
    ///
    /// When the client does not speak TLS, offers nothing that the server accepts, or lacks a certificate.
    pub async fn accept(&self, stream: impl Stream + 'static) -> io::Result<Box<dyn Stream>> {
        let acceptor = TlsAcceptor::from(self.0.get());
        let stream = acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(UNSENT_BYTES))).await?;
        Ok(Box::new(stream))
    }
}

fn build_config(files: &Files, contents: &[Vec<u8>]) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let certificates = parse_certificates(&files.cert, &contents[0])?;
    let key = PrivateKeyDer::from_pem_slice(&contents[1]).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            format!("{} has no private key: it must be PEM, and not encrypted", files.key.display())
        }
        error => in_file(&files.key, error),
    })?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13, &TLS12]);
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match (&files.client_ca, contents.get(2)) {
        (Some(path), Some(content)) => {
            let mut roots = RootCertStore::empty();
            for certificate in parse_certificates(path, content)? {
                roots.add(certificate).map_err(|error| in_file(path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| in_file(path, error))?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(|error| {
        format!("{} and {} cannot be used together: {error}", files.cert.display(), files.key.display())
    })?;
    config.alpn_protocols = ["h2", "http/1.1"].map(Into::into).into();
    Ok(config)
}

fn parse_certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| in_file(path, error))?;
    if certificates.is_empty() {
        return Err(format!("{} has no certificate: it must be PEM", path.display()));
    }
    // Otherwise only clients would notice a damaged one after the first.
    for certificate in &certificates {
        ParsedCertificate::try_from(certificate).map_err(|error| in_file(path, error))?;
    }
    Ok(certificates)
}

fn in_file(path: &Path, error: impl Display) -> String {
    format!("{}: {error}", path.display())
}
