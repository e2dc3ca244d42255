//! The verification of tokens.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Validation, decode, decode_header, get_current_timestamp};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::crypto::PROVIDER;
use super::fetch::Endpoint;
use super::keys::Keys;
use super::{Rejection, Settings};
use crate::auth::{Caller, CallerId, Credential, Scope};
use crate::reload::{Reload, Reloaded};

/// The greatest difference between the clocks of the issuer and of this machine, in seconds.
const LEEWAY: u64 = 60;

/// A longer token is refused unread.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The characters of a subject that count. Those of Kubernetes service accounts have up to 148.
const MAX_SUBJECT_CHARS: usize = 200;

/// The time between two requests for the keys; after a failure; and the least, for a token whose key is unknown.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);
const RETRY_INTERVAL: Duration = Duration::from_secs(15);
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(10);

/// Verifies tokens by the keys of their issuer.
pub struct Tokens {
    keys: Arc<Reloaded<Keys>>,
    /// The endpoint of the keys, unless a file has them.
    endpoint: Option<Endpoint>,
    fetched: Mutex<Fetched>,
    /// Wakes [`follow`](Self::follow) when a token has an unknown key.
    wanted: Notify,
    validation: Validation,
}

/// The times of the last requests for the keys; at first, the start.
#[derive(Clone, Copy)]
struct Fetched {
    last: Instant,
    last_good: Instant,
}

/// The claims of a token that are used here. jsonwebtoken checks the others, and both refuse a claim that stands there twice.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
    #[serde(default)]
    sub: Option<String>,
    /// The claim of RFC 8693: names with spaces between them.
    #[serde(default)]
    scope: Option<ScopeClaim>,
    /// The name of the claim with some issuers.
    #[serde(default)]
    scp: Option<ScopeClaim>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ScopeClaim {
    Text(String),
    List(Vec<String>),
}

impl ScopeClaim {
    fn names(&self) -> impl Iterator<Item = &str> {
        let texts = match self {
            Self::Text(text) => std::slice::from_ref(text),
            Self::List(texts) => texts,
        };
        texts.iter().flat_map(|text| text.split(' '))
    }
}

impl Tokens {
    /// Reads the keys if they are in a file. Those of a URL are fetched by [`refresh`](Self::refresh).
    ///
    /// # Errors
    ///
    /// When the file or the URL cannot be used.
    pub fn open(settings: Settings) -> Result<Self, String> {
        // It fails if it was installed before.
        let _ = PROVIDER.install_default();
        let mut validation = Validation { leeway: LEEWAY, validate_nbf: true, ..Validation::default() };
        validation.set_issuer(&[settings.issuer]);
        validation.set_audience(&[settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let shown = settings.jwks.clone();
        let parse = move |contents: &[Vec<u8>]| Keys::parse(&contents[0]).map_err(|error| format!("{shown}: {error}"));
        let name = "keys of tokens";
        let (keys, endpoint) = match settings.jwks.contains("://") {
            true => {
                let endpoint = Endpoint::new(&settings.jwks, settings.ca.as_deref())?;
                (Reloaded::from_value(name, Keys::default(), parse), Some(endpoint))
            }
            false => (Reloaded::from_files(name, vec![PathBuf::from(settings.jwks)], parse)?, None),
        };
        let now = Instant::now();
        let fetched = Mutex::new(Fetched { last: now, last_good: now });
        Ok(Self { keys: Arc::new(keys), endpoint, fetched, wanted: Notify::new(), validation })
    }

    pub fn keys(&self) -> Arc<dyn Reload> {
        self.keys.clone()
    }

    /// Returns the time since the keys were fetched last, or since the start; `None` if they are in a file.
    pub fn age(&self) -> Option<Duration> {
        self.endpoint.as_ref().map(|_| self.fetched().last_good.elapsed())
    }

    fn fetched(&self) -> MutexGuard<'_, Fetched> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the keys, unless they are in a file.
    pub async fn refresh(&self) {
        let Some(endpoint) = &self.endpoint else { return };
        let document = endpoint.fetch().await;
        self.keys.update(document.map(|document| vec![document]));
        let mut fetched = self.fetched();
        fetched.last = Instant::now();
        if self.keys.degraded().is_none() {
            fetched.last_good = fetched.last;
        }
    }

    /// Fetches the keys again and again, unless they are in a file. The last good ones stay while the issuer is away.
    pub async fn follow(&self) {
        while self.endpoint.is_some() {
            let interval = if self.keys.degraded().is_some() { RETRY_INTERVAL } else { REFRESH_INTERVAL };
            tokio::select! {
                () = sleep(interval) => {}
                () = self.wanted.notified() => {
                    let earliest = self.fetched().last + UNKNOWN_KEY_INTERVAL;
                    sleep_until(earliest).await;
                }
            }
            self.refresh().await;
        }
    }

    /// Returns the caller that the token names.
    ///
    /// # Errors
    ///
    /// Unless the issuer has signed it for this audience, and for now.
    pub fn verify(&self, token: &str) -> Result<Arc<Caller>, Rejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Rejection::Invalid("The token is too long."));
        }
        let keys = self.keys.get();
        if keys.is_empty() {
            return Err(Rejection::NoKeys);
        }
        let (digest, now) = (Sha256::digest(token).into(), get_current_timestamp());
        if let Some(caller) = keys.verified(&digest, now) {
            return Ok(caller);
        }
        let header = decode_header(token).map_err(|error| rejection(&error))?;
        let Some(key) = keys.find(header.kid) else {
            self.wanted.notify_one();
            return Err(Rejection::Invalid("The token is signed by a key that is not known."));
        };
        let validation = Validation { algorithms: vec![key.algorithm], ..self.validation.clone() };
        let claims = decode::<Claims>(token, &key.decoding, &validation).map_err(|error| rejection(&error))?.claims;
        let names = claims.scope.iter().chain(&claims.scp).flat_map(ScopeClaim::names);
        let scopes = names.filter_map(Scope::parse).collect();
        let name = claims.sub.unwrap_or_default().chars().take(MAX_SUBJECT_CHARS).collect();
        let caller = Arc::new(Caller::new(CallerId { credential: Credential::Token, name }, scopes));
        // Saturates: a token may be valid for longer than a number of seconds can say.
        keys.remember(digest, Arc::clone(&caller), (claims.exp as u64).saturating_add(LEEWAY), now);
        Ok(caller)
    }
}

/// Returns the text for the client. It names a wrong claim only after the signature was verified.
fn rejection(error: &Error) -> Rejection {
    Rejection::Invalid(match error.kind() {
        ErrorKind::ExpiredSignature => "The token has expired.",
        ErrorKind::ImmatureSignature => "The token is not valid yet.",
        ErrorKind::InvalidIssuer => "The token is of another issuer.",
        ErrorKind::InvalidAudience => "The token is for another audience.",
        ErrorKind::MissingRequiredClaim(_) => "The token lacks one of the claims `exp`, `iss` and `aud`.",
        ErrorKind::InvalidAlgorithm => "The token is signed by another algorithm than its key is for.",
        _ => "The token is not valid.",
    })
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("keys", &self.keys).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
