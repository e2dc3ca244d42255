//! API keys: the file that lists them, and the scopes that keys and tokens grant.
//!
//! A key is 256 random bits, so one round of SHA-256 protects it: the file holds digests, and a leaked file opens nothing.
//! Keys are found by their digest in a hash map. A comparison that leaks timing tells an attacker about digests, which
//! cannot be turned back into keys.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use sha2::{Digest, Sha256};

use crate::reload::Reloaded;

/// The start of every key, by which scanners for leaked secrets recognise it.
pub const KEY_PREFIX: &str = "records_key_";

const DIGEST_BYTES: usize = 32;

/// Bounds the memory that a file can take, and with it the number of label values in metrics.
const MAX_KEYS: usize = 10_000;

type KeyDigest = [u8; DIGEST_BYTES];

/// A permission that a key or token can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The records and the pages.
    RecordsRead,
    /// `/metrics`, where it shares the port with the records.
    MetricsRead,
}

impl Scope {
    const ALL: [Self; 2] = [Self::RecordsRead, Self::MetricsRead];

    pub fn name(self) -> &'static str {
        match self {
            Self::RecordsRead => "records:read",
            Self::MetricsRead => "metrics:read",
        }
    }

    /// Returns the scope with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// A client that may send requests, as its key or token names it.
#[derive(Debug)]
pub struct Caller {
    pub id: CallerId,
    pub scopes: Scopes,
    /// Counts the requests; set by the first one. A look-up by name would cost each request an allocation and a lock that all
    /// threads share.
    pub requests: OnceLock<Counter>,
}

impl Caller {
    pub const fn new(id: CallerId, scopes: Scopes) -> Self {
        Self { id, scopes, requests: OnceLock::new() }
    }
}

/// The identity of a caller. A token's subject may have the name of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallerId {
    pub credential: Credential,
    /// The name of the key, or the subject of the token. Stands in the access log.
    pub name: String,
}

/// The kind of a bearer token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    Key,
    Token,
}

/// Keys by their SHA-256 digest.
#[derive(Debug, Default)]
pub struct ApiKeys(HashMap<KeyDigest, Arc<Caller>>);

/// The keys of a file that is read again when it changes.
pub type KeyFile = Reloaded<ApiKeys>;

impl ApiKeys {
    /// Parses `name:sha256-hex[:scope,…]` lines. Blank lines and lines that start with `#` are ignored. A line without scopes
    /// grants `records:read`.
    ///
    /// # Errors
    ///
    /// The number of the first wrong line, from 1, and the form it should have. The text never quotes the line.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut keys = HashMap::new();
        let mut names = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let (digest, key) = parse_line(line).map_err(|reason| (number, reason))?;
            if let Some(first) = names.insert(key.id.name.clone(), number) {
                return Err((number, format!("its name is that of line {first}: give each key its own name")));
            }
            if keys.insert(digest, Arc::new(key)).is_some() {
                return Err((number, "its digest is listed twice: a key has one line".to_owned()));
            }
            if keys.len() > MAX_KEYS {
                return Err((number, format!("a file has at most {MAX_KEYS} keys")));
            }
        }
        Ok(Self(keys))
    }

    /// Returns the key that `secret` is.
    pub fn find(&self, secret: &str) -> Option<&Arc<Caller>> {
        self.0.get(&digest(secret))
    }
}

fn digest(secret: &str) -> KeyDigest {
    Sha256::digest(secret.as_bytes()).into()
}

fn parse_line(line: &str) -> Result<(KeyDigest, Caller), String> {
    let form = || "write it as name:sha256-hex[:scope,…]; `records keys new NAME` prints such a line".to_owned();
    if line.starts_with(KEY_PREFIX) {
        return Err(
            "this is a key itself, which does not belong into the file: its line has the SHA-256 digest".to_owned()
        );
    }
    let (name, rest) = line.split_once(':').ok_or_else(form)?;
    check_name(name)?;
    // Scopes have colons too, so only the first one after the digest separates.
    let (hex, scopes) = rest.split_once(':').map_or((rest, None), |(hex, scopes)| (hex, Some(scopes)));
    let digest = parse_digest(hex).ok_or_else(form)?;
    let scopes = match scopes {
        None => Scopes::from_iter([Scope::RecordsRead]),
        Some(scopes) => scopes.split(',').map(|scope| parse_scope(scope.trim())).collect::<Result<_, _>>()?,
    };
    Ok((digest, Caller::new(CallerId { credential: Credential::Key, name: name.to_owned() }, scopes)))
}

/// Checks the name of a key, which is a label in metrics and a field in the log.
fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=64).contains(&name.len()) && name.bytes().all(is_plain) {
        return Ok(());
    }
    Err("the name of a key has 1 to 64 letters, digits, `-`, `_` or `.`".to_owned())
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    let names = || Scope::ALL.map(Scope::name).join(", ");
    Scope::parse(text).ok_or_else(|| format!("a scope is one of {}", names()))
}

fn parse_digest(hex: &str) -> Option<KeyDigest> {
    if hex.len() != 2 * DIGEST_BYTES || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; DIGEST_BYTES];
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

/// A new key and its line for the file.
pub struct NewKey {
    pub secret: String,
    pub line: String,
}

/// Makes a key of 256 random bits.
///
/// # Errors
///
/// If the name is not one that a key can have, or the system has no random numbers.
pub fn new_key(name: &str) -> Result<NewKey, String> {
    check_name(name)?;
    let mut random = [0; DIGEST_BYTES];
    getrandom::fill(&mut random).map_err(|error| format!("the system provides no random numbers: {error}"))?;
    let secret = format!("{KEY_PREFIX}{}", Hex(&random));
    let line = format!("{name}:{}:{}", Hex(&digest(&secret)), Scope::RecordsRead.name());
    Ok(NewKey { secret, line })
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl KeyFile {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, has a wrong line, or no key.
    pub fn open(path: PathBuf) -> Result<Self, String> {
        let shown = path.display().to_string();
        Self::from_files("API keys", vec![path], move |contents| {
            let text = std::str::from_utf8(&contents[0]).map_err(|_| format!("{shown} is not a text in UTF-8"))?;
            let keys = ApiKeys::parse(text).map_err(|(line, reason)| format!("line {line} of {shown}: {reason}"))?;
            if keys.0.is_empty() {
                return Err(format!("{shown} has no API key: add the line that `records keys new NAME` prints"));
            }
            Ok(keys)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_found_by_its_line() {
        let key = new_key("reader").unwrap();
        let keys = ApiKeys::parse(&format!("# readers\n\n{}\n", key.line)).unwrap();
        let found = keys.find(&key.secret).expect("the key");
        assert_eq!(found.id.name, "reader");
        assert!(found.scopes.contains(Scope::RecordsRead) && !found.scopes.contains(Scope::MetricsRead));
        assert!(keys.find(&key.secret[1..]).is_none() && !key.line.contains(&key.secret));
        assert_ne!(new_key("reader").unwrap().secret, key.secret);
    }

    #[test]
    fn a_wrong_line_is_refused_with_its_number_and_without_its_text() {
        let hex = "ab".repeat(32);
        for (line, reason) in [
            ("secret".to_owned(), "name:sha256-hex"),
            (format!("a b:{hex}"), "name of a key"),
            (format!("a:{}", &hex[1..]), "name:sha256-hex"),
            (format!("a:{hex}:records:write"), "records:read, metrics:read"),
            (format!("{KEY_PREFIX}{hex}"), "a key itself"),
            (format!("first:{}", "cd".repeat(32)), "line 1"),
            (format!("second:{}", "ef".repeat(32)), "listed twice"),
        ] {
            let (number, text) = ApiKeys::parse(&format!("first:{}\n{line}\n", "ef".repeat(32))).unwrap_err();
            assert_eq!(number, 2);
            assert!(text.contains(reason) && !text.contains(&hex), "{text}");
        }
    }
}
