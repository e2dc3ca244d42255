//! The public keys of an issuer ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)), and the tokens that they have verified.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::auth::Caller;

/// Far more than the keys of any issuer.
pub const MAX_BYTES: usize = 256 * 1024;

/// Verified tokens that are remembered: some 3 MB. Only the issuer can fill this.
const MAX_VERIFIED: usize = 10_000;

/// The SHA-256 digest of a token.
pub type TokenDigest = [u8; 32];

/// A public key, and the one algorithm that it may be used with.
pub struct Key {
    pub algorithm: Algorithm,
    pub decoding: DecodingKey,
}

/// Keys by their id, and the tokens that they have verified. New keys start without verified tokens.
#[derive(Default)]
pub struct Keys {
    keys: HashMap<Option<String>, Key>,
    verified: RwLock<HashMap<TokenDigest, Verified>>,
}

struct Verified {
    caller: Arc<Caller>,
    /// The last second, since 1970, in which the token is accepted.
    until: u64,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Map<String, Value>>,
}

impl Keys {
    /// Parses a JWK Set. Leaves out keys that verify no signature of RS256, ES256 or EdDSA.
    ///
    /// # Errors
    ///
    /// When it is no such document, has a private key, or no key that is usable.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        if json.len() > MAX_BYTES {
            return Err(format!("it is longer than {MAX_BYTES} bytes"));
        }
        let document: Document =
            serde_json::from_slice(json).map_err(|error| format!("it is not a JWK Set, {{\"keys\": […]}}: {error}"))?;
        if document.keys.iter().any(|key| key.contains_key("d")) {
            return Err("it has a private key: list public keys alone".to_owned());
        }
        let mut keys = HashMap::new();
        for jwk in document.keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(Value::Object(jwk)) else { continue };
            if let Some(key) = usable_key(&jwk) {
                keys.entry(jwk.common.key_id).or_insert(key);
            }
        }
        if keys.is_empty() {
            return Err("it has no public key for RS256, ES256 or EdDSA".to_owned());
        }
        Ok(Self { keys, verified: RwLock::default() })
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the key with this id. A token needs none where there is only one key.
    pub fn find(&self, id: Option<String>) -> Option<&Key> {
        match (&id, self.keys.len()) {
            (None, 1) => self.keys.values().next(),
            _ => self.keys.get(&id),
        }
    }

    /// Returns the caller whose token was verified before, unless it has expired.
    pub fn verified(&self, token: &TokenDigest, now: u64) -> Option<Arc<Caller>> {
        let verified = self.verified.read().unwrap_or_else(PoisonError::into_inner);
        verified.get(token).filter(|token| now <= token.until).map(|token| Arc::clone(&token.caller))
    }

    /// Remembers a verified token.
    pub fn remember(&self, token: TokenDigest, caller: Arc<Caller>, until: u64, now: u64) {
        let mut verified = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= MAX_VERIFIED {
            verified.retain(|_, token| now <= token.until);
        }
        if verified.len() >= MAX_VERIFIED {
            // Verifying them again costs less than finding the least used ones.
            verified.clear();
        }
        verified.insert(token, Verified { caller, until });
    }
}

/// Returns the key if it is for signatures, by one of the three algorithms.
fn usable_key(jwk: &Jwk) -> Option<Key> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let common = &jwk.common;
    let is_for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let may_verify = common.key_operations.as_ref().is_none_or(|uses| uses.contains(&KeyOperations::Verify));
    let is_for_algorithm = common.key_algorithm.is_none_or(|named| named == algorithm.into());
    let decoding = DecodingKey::from_jwk(jwk).ok()?;
    (is_for_signatures && may_verify && is_for_algorithm).then_some(Key { algorithm, decoding })
}
