//! The failures of a store, by what the caller can do about them.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::record::{Document, Malformed};

/// Each kind is a decision of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The store cannot be reached, is too slow, refuses or is overloaded: the same call may succeed later. Nothing is
    /// known about the record that was asked for.
    Unavailable,
    /// The store will not take this input, now or later: change it.
    Invalid,
    /// The store, or what it holds, is damaged, or this program is wrong: give up and tell the operator.
    Broken,
}

/// Why a call that may succeed later was refused, where the client can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Other responses hold the memory that this one needs.
    OutOfMemory,
    /// Nothing within the bounds of [`Freshness`](super::Freshness) answers.
    TooStale,
    /// The replica has no answer within the bounds, and the reader does not want the primary to be asked.
    NotInReplica,
}

/// The documents of a write that failed in part. The others were not tried.
#[derive(Clone, Debug, Default)]
pub struct WriteOutcome {
    pub stored: usize,
    pub refused: Vec<RefusedDocument>,
    /// Sent to the store, which did not say what became of them.
    pub unknown: usize,
}

/// A document that the store refused.
#[derive(Clone, Debug)]
pub struct RefusedDocument {
    pub document: Option<Document>,
    /// In the store's words, without a part of the document.
    pub reason: String,
}

/// A store's failure: its [`Kind`], what was being done, and the cause.
///
/// `Display` and the chain of sources are for logs and for the operator's terminal. They may quote the backend, so they
/// are never sent to a client, except for [`rejection`](Error::rejection). Cloning shares the cause: one failure may be
/// that of several callers.
#[derive(Clone, Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    rejected: Option<&'static str>,
    refusal: Option<Refusal>,
    remedy: Option<&'static str>,
    reason: Option<&'static str>,
    outcome: Option<Arc<WriteOutcome>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            rejected: None,
            refusal: None,
            remedy: None,
            reason: None,
            outcome: None,
            source: None,
        }
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub fn broken(message: impl Into<String>) -> Self {
        Self::new(Kind::Broken, message)
    }

    /// An error of kind `Invalid` about a parameter of the request. `detail` is for the client: it quotes no backend, and says
    /// what would be right.
    pub fn rejected(parameter: &'static str, detail: impl Into<String>) -> Self {
        Self { rejected: Some(parameter), ..Self::new(Kind::Invalid, detail) }
    }

    /// An error of kind `Unavailable`.
    pub fn refused(refusal: Refusal, message: impl Into<String>) -> Self {
        Self { refusal: Some(refusal), ..Self::new(Kind::Unavailable, message) }
    }

    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The parameter and the detail of [`Error::rejected`].
    pub fn rejection(&self) -> Option<(&'static str, &str)> {
        self.rejected.map(|parameter| (parameter, self.message.as_str()))
    }

    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// Says what would make the call succeed, where another try cannot.
    pub fn with_remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = Some(remedy);
        self
    }

    pub fn remedy(&self) -> Option<&'static str> {
        self.remedy
    }

    /// Says why the store cannot answer, to everyone who asks if it is ready.
    pub fn with_reason(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    pub fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    /// Says what became of the documents of a write.
    pub fn with_outcome(mut self, outcome: WriteOutcome) -> Self {
        self.outcome = Some(Arc::new(outcome));
        self
    }

    pub fn outcome(&self) -> Option<&WriteOutcome> {
        self.outcome.as_deref()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The error with all the causes beneath it, for a line in a log.
    pub fn report(&self) -> impl fmt::Display + '_ {
        Report(self)
    }

    pub fn is_unavailable(&self) -> bool {
        self.kind == Kind::Unavailable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

struct Report<'a>(&'a Error);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// For what this process has stored or checked. Bytes from elsewhere are not its fault.
impl From<Malformed> for Error {
    fn from(error: Malformed) -> Self {
        Self::broken("a stored document cannot be read").with_source(error)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
