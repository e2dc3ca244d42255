//! Texts that may hold a password.

use std::fmt;

use crate::auth::KEY_PREFIX;
use crate::store::{self, BackendKind};

/// A text that may hold a password: only [`Secret::expose`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    /// Shows the URL of a store without user, password and options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            if let Some(BackendKind::InMemory | BackendKind::Local) = store::kind(&self.0) {
                return f.write_str(&self.0);
            }
            // The text may be a mistyped URL of a server, with a password.
            let place = self.0.split('?').next().unwrap_or_default();
            return match place.rsplit_once('@') {
                Some((_, place)) => write!(f, "***@{place}"),
                None => f.write_str(place),
            };
        };
        let (user_info, place) = rest.split_at(store::url::user_info_len(rest));
        let secret = if user_info.is_empty() { "" } else { "***@" };
        let place = place.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{secret}{place}")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns `text` as it can be shown, where it may be the URL of a store or an API key; `None` for any other text.
pub fn without_secrets(text: &str) -> Option<String> {
    if text.contains(KEY_PREFIX) {
        return Some(format!("{KEY_PREFIX}***"));
    }
    text.contains("://").then(|| Secret::new(text.to_owned()).to_string())
}
