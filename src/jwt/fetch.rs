//! A client for the URL of an issuer's keys.

use std::error::Error;
use std::fmt::Display;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::keys::MAX_BYTES;
use crate::tls::Stream;

/// The time for one request, its connection included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A URL, and the certificate authorities that are trusted for its server.
#[derive(Debug)]
pub struct Endpoint {
    url: Uri,
    host: String,
    /// `None` for `http`.
    tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    /// Checks the URL, and reads the authorities.
    ///
    /// # Errors
    ///
    /// When it is not `https`, except on this machine, or has a user; when the authorities cannot be used.
    pub fn new(url: &str, ca: Option<&Path>) -> Result<Self, String> {
        // The text stays out of the message: it may hold a password.
        let form = "the URL of the keys must be as in https://issuer.example/keys.json, without user";
        let url: Uri = url.parse().map_err(|_| form.to_owned())?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(form.to_owned());
        }
        let tls = match url.scheme_str() {
            Some("https") => Some(Arc::new(build_tls_config(ca)?)),
            Some("http") if is_this_machine(&host) => None,
            _ => {
                return Err("the URL of the keys must be https: someone on the way could put in keys of their own. http is for \
                            this machine alone"
                    .to_owned());
            }
        };
        Ok(Self { url, host, tls })
    }

    /// Gets the document.
    ///
    /// # Errors
    ///
    /// When it does not come in time, is too long, or comes with another status than 200. Redirects are not followed.
    pub async fn fetch(&self) -> Result<Vec<u8>, String> {
        let fetched = timeout(TIMEOUT, self.exchange()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs()).into()));
        // The query may hold a secret.
        let url = self.url.to_string();
        fetched.map_err(|error| format!("cannot fetch {}: {error}", url.split('?').next().unwrap_or_default()))
    }

    async fn exchange(&self) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let port = self.url.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let tcp = TcpStream::connect((self.host.as_str(), port)).await?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::try_from(self.host.clone())?;
                Box::new(TlsConnector::from(config.clone()).connect(name, tcp).await?)
            }
        };
        let authority = self.url.authority().map_or("", |authority| authority.as_str());
        let request = Request::get(self.url.path_and_query().map_or("/", |path| path.as_str()))
            .header(HOST, authority)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, "records")
            .body(Empty::<Bytes>::new())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            if response.status().as_u16() != 200 {
                return Err(format!("the answer is {}", response.status()).into());
            }
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await?;
            Ok(body.to_bytes().to_vec())
        };
        // The connection is driven until the exchange has ended.
        tokio::pin!(exchange);
        tokio::select! {
            result = &mut exchange => result,
            _ = connection => exchange.await,
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn build_tls_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let cannot = |error: &dyn Display| format!("{}: {error}", path.display());
            let pem = fs::read(path).map_err(|error| cannot(&error))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| cannot(&error))?;
                roots.add(certificate).map_err(|error| cannot(&error))?;
            }
            if roots.is_empty() {
                return Err(cannot(&"it has no certificate: it must be PEM"));
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
