//! An issuer of tokens for tests, which signs whatever it is told to.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as RsaKeyPair, PublicKeyComponents};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "records";

/// `ring` makes no RSA keys. This one protects nothing.
const RSA: &str = include_str!("rsa-test-key.pem");

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of a token that is accepted for the next minutes.
pub fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": now() + 300, "sub": "alice", "scope": "records:read" })
}

/// An issuer with a key of each kind; the ids are `RS256`, `ES256` and `EdDSA`.
pub struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Issuer {
    /// Its keys for ES256 and EdDSA are new ones.
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let rsa = PrivateKeyDer::from_pem_slice(RSA.as_bytes()).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            rsa: RsaKeyPair::from_pkcs8(rsa.secret_der()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
        }
    }

    /// The public key for this algorithm, as a JWK.
    pub fn jwk(&self, algorithm: &str) -> Value {
        let mut key = match algorithm {
            "RS256" => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
                json!({ "kty": "RSA", "n": encode(n), "e": encode(e) })
            }
            "ES256" => {
                let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            _ => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(self.ed.public_key()) }),
        };
        key["kid"] = algorithm.into();
        key
    }

    pub fn jwks(&self) -> String {
        let keys = ["RS256", "ES256", "EdDSA"].map(|algorithm| self.jwk(algorithm));
        json!({ "keys": keys }).to_string()
    }

    /// The signature of `message` by the key with this id.
    pub fn signature(&self, id: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match id {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            "ES256" => self.ec.sign(&random, message).unwrap().as_ref().to_vec(),
            _ => self.ed.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with this header and these claims as they stand here, signed by the key with this id.
    pub fn sign_text(&self, id: &str, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.signature(id, message.as_bytes());
        format!("{message}.{}", encode(signature))
    }

    /// A token by this algorithm.
    pub fn token(&self, algorithm: &str, claims: &Value) -> String {
        self.sign_text(algorithm, &json!({ "alg": algorithm, "kid": algorithm }).to_string(), &claims.to_string())
    }
}
