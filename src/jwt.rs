//! Tokens of an issuer (JSON Web Tokens, [RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)) in place of API keys. A build may leave
//! them out.

#[cfg(feature = "jwt")]
mod crypto;
#[cfg(feature = "jwt")]
mod fetch;
#[cfg(feature = "jwt")]
mod keys;
#[cfg(feature = "jwt")]
mod tokens;

#[cfg(feature = "jwt")]
pub use tokens::Tokens;

use std::path::PathBuf;

/// The tokens that are accepted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The issuer's public keys (a JWK Set): the path of a file, or an `https` URL.
    pub jwks: String,
    /// The `iss` that a token must have.
    pub issuer: String,
    /// The `aud` that a token must have, perhaps among others.
    pub audience: String,
    /// The certificate authorities that are trusted for the server of a URL, as PEM. `None`: the public ones.
    pub ca: Option<PathBuf>,
}

/// The reason why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The text is for the client.
    Invalid(&'static str),
    /// The issuer's keys could not be fetched yet.
    NoKeys,
}

#[cfg(not(feature = "jwt"))]
pub use without::Tokens;

#[cfg(not(feature = "jwt"))]
mod without {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Rejection, Settings};
    use crate::auth::Caller;
    use crate::reload::Reload;

    /// Has no value in this build.
    #[derive(Debug)]
    pub enum Tokens {}

    impl Tokens {
        pub fn open(_: Settings) -> Result<Self, String> {
            Err("this build reads no tokens: rebuild with --features jwt".to_owned())
        }

        pub fn verify(&self, _: &str) -> Result<Arc<Caller>, Rejection> {
            match *self {}
        }

        pub fn keys(&self) -> Arc<dyn Reload> {
            match *self {}
        }

        pub fn age(&self) -> Option<Duration> {
            match *self {}
        }

        pub async fn refresh(&self) {
            match *self {}
        }

        pub async fn follow(&self) {
            match *self {}
        }
    }
}
