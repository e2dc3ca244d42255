//! The driver's errors, classified by what the caller can do. What the server says may quote filters and records, so the cause,
//! which is logged, has its code, its name and its text without the quoted parts.

use std::fmt;
use std::time::Duration;

use mongodb::bson::Document as Bdoc;
use mongodb::error::{CommandError, Error as DriverError, ErrorKind, WriteFailure};

use super::uri;
use crate::record::Document;
use crate::store::{Error, Kind, RefusedDocument, Result, WriteOutcome};

/// Codes of the server ([error_codes.yml](https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml)) about
/// the command itself: a retry would fail again.
const DUPLICATE_KEY: i32 = 11_000;
const DOCUMENT_INVALID: [i32; 4] = [2, 9, 52, 121]; // BadValue, FailedToParse, DollarPrefixedFieldName, DocumentValidationFailure
const TOO_LARGE: [i32; 2] = [10_334, 17_280]; // BSONObjectTooLarge, KeyTooLong

/// The command has exceeded its `maxTimeMS`.
const MAX_TIME_EXPIRED: i32 = 50;

/// `CommandNotSupportedOnView` and `OptionNotSupportedOnView`: the collection is a view.
const OF_A_VIEW: [i32; 2] = [166, 167];

/// An ambiguous positional path in a sort.
const AMBIGUOUS_PATH: i32 = 16_746;
const BAD_VALUE: i32 = 2;

const NO_QUERY_EXECUTION_PLANS: i32 = 291;

/// Errors of a read after a cluster time: from a member that has not seen that time, and from a standalone server.
const INVALID_OPTIONS: i32 = 72;
const ILLEGAL_OPERATION: i32 = 20;

/// Codes about a temporary state of the server: the same command may succeed later.
const TRANSIENT: [i32; 21] =
    [6, 7, 24, 50, 63, 64, 89, 91, 112, 150, 189, 202, 262, 290, 9001, 10_107, 11_600, 11_602, 13_388, 13_435, 13_436];

/// Codes about the rights of the user: Unauthorized, AuthenticationFailed, and those of Atlas.
const UNAUTHORIZED: [i32; 4] = [13, 18, 8_000, 8_030];

const IMPORT_ELSEWHERE: &str = "It is a view: name the collection that it shows";

/// An error of the server, without what it quotes.
#[derive(Debug)]
struct ServerError {
    code: i32,
    name: String,
    text: String,
}

impl ServerError {
    fn new(code: i32, name: &str, text: &str) -> Self {
        Self { code, name: name.to_owned(), text: without_quoted(text) }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}", self.code)?;
        if !self.name.is_empty() {
            write!(f, " ({})", self.name)?;
        }
        write!(f, ": {}", self.text)
    }
}

impl std::error::Error for ServerError {}

impl From<&CommandError> for ServerError {
    fn from(error: &CommandError) -> Self {
        Self::new(error.code, &error.code_name, &error.message)
    }
}

/// Removes everything from a server's text that may be data. A quotation extends from the first opening sign to the last closing
/// sign, since a value may contain such signs. Numbers and dates are removed as well, because they may be ids.
fn without_quoted(text: &str) -> String {
    let opens = |(at, sign): &(usize, char)| match sign {
        '{' | '[' | '(' | '"' | '`' => true,
        // After a letter it is an apostrophe.
        '\'' => !text[..*at].ends_with(char::is_alphanumeric),
        _ => false,
    };
    let closes = |(at, sign): &(usize, char)| match sign {
        '}' | ']' | ')' | '"' | '`' => true,
        '\'' => !text[*at + 1..].starts_with(char::is_alphanumeric),
        _ => false,
    };
    let text = match text.char_indices().find(opens) {
        None => text.to_owned(),
        Some((begin, _)) => {
            let end = text.char_indices().rev().find(closes).map_or(begin, |(end, _)| end);
            let rest = if end > begin { &text[end + 1..] } else { "" };
            format!("{}…{rest}", &text[..begin])
        }
    };
    let is_value =
        |word: &str| word.starts_with(|first: char| first.is_ascii_digit() || first == '-') && word.len() > 1;
    // These texts precede a value without quotation marks.
    let marks = ["First element:", "_id:"].iter();
    let text = marks.fold(&*text, |text, mark| text.split(mark).next().unwrap_or_default());
    let words = text.split_whitespace().map(|word| if is_value(word) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Returns the cause to log. The driver's own errors quote no records, except those about BSON that it could not read.
fn cause(error: DriverError) -> Box<dyn std::error::Error + Send + Sync> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => ServerError::from(command).into(),
        ErrorKind::Write(WriteFailure::WriteError(write)) => {
            ServerError::new(write.code, write.code_name.as_deref().unwrap_or_default(), &write.message).into()
        }
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => {
            ServerError::new(concern.code, &concern.code_name, &concern.message).into()
        }
        // The text of this kind includes the reply of the server.
        kind => without_quoted(&kind.to_string()).into(),
    }
}

fn server_error(error: &Error) -> Option<&ServerError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Returns true if the server has not heard of the cluster time that a read wants. Another member may have told the client.
pub fn is_ahead_of_cluster(error: &Error) -> bool {
    server_error(error).is_some_and(|error| error.code == INVALID_OPTIONS && error.text.contains("afterClusterTime"))
}

/// Returns true if the server has no cluster time.
pub fn has_no_cluster_time(error: &Error) -> bool {
    server_error(error).is_some_and(|error| error.code == ILLEGAL_OPERATION && error.text.contains("afterClusterTime"))
}

/// Returns true if the server refused an option because the collection is a view: a view accepts no collation but its own.
pub fn is_of_a_view(error: &Error) -> bool {
    server_error(error).is_some_and(|error| OF_A_VIEW.contains(&error.code))
}

/// Returns true if the server refused a command for good: not because of its state, or of the rights of the user.
pub fn is_refusal(error: &Error) -> bool {
    server_error(error).is_some_and(|error| !TRANSIENT.contains(&error.code) && !UNAUTHORIZED.contains(&error.code))
}

/// Returns true if the server refused to sort, because two sort fields are arrays in one document, or a number in a path is
/// both a position and a field.
pub fn is_unsortable(error: &Error) -> bool {
    server_error(error).is_some_and(|error| {
        error.code == AMBIGUOUS_PATH || (error.code == BAD_VALUE && error.text.contains("parallel arrays"))
    })
}

/// Returns true if the server refused a query because no index serves it (`notablescan`).
pub fn has_no_plan(error: &Error) -> bool {
    server_error(error).is_some_and(|error| error.code == NO_QUERY_EXECUTION_PLANS)
}

/// Returns true if the command has exceeded its `maxTimeMS`.
pub fn has_exceeded_time(error: &Error) -> bool {
    server_error(error).is_some_and(|error| error.code == MAX_TIME_EXPIRED)
}

#[derive(Debug, thiserror::Error)]
#[error("nothing came for {} ms", .0.as_millis())]
struct TimedOut(Duration);

/// Returns the error for a time-out of our own.
pub fn timed_out(message: &str, within: Duration) -> Error {
    Error::unavailable(message).with_source(TimedOut(within))
}

/// Returns true if a time limit has passed, the server's or our own.
pub fn is_timeout(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<TimedOut>()) || has_exceeded_time(error)
}

pub fn is_command(error: &DriverError, code: i32) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(command) if command.code == code)
}

pub fn classify(error: DriverError) -> Error {
    let (kind, message) = match error.kind.as_ref() {
        ErrorKind::ServerSelection { .. } => (Kind::Unavailable, "no MongoDB server can be reached"),
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => {
            (Kind::Unavailable, "the connection to MongoDB broke")
        }
        ErrorKind::DnsResolve { .. } => (Kind::Unavailable, "the DNS does not say where MongoDB is"),
        // The call itself is valid: it succeeds once the rights or the password are corrected.
        ErrorKind::Authentication { .. } => (Kind::Unavailable, "MongoDB refuses the credentials"),
        ErrorKind::Command(command) if UNAUTHORIZED.contains(&command.code) => {
            (Kind::Unavailable, "MongoDB refuses: the user lacks the right")
        }
        ErrorKind::Command(command) if is_input(command.code) => (Kind::Invalid, "MongoDB refuses the input"),
        // A temporary state of the server: time limits, elections, shutdowns, overload.
        ErrorKind::Command(_) => (Kind::Unavailable, "MongoDB could not carry the command out"),
        ErrorKind::Write(WriteFailure::WriteError(write)) if is_input(write.code) => {
            (Kind::Invalid, "MongoDB refuses the input")
        }
        ErrorKind::Write(_) => (Kind::Unavailable, "MongoDB could not write"),
        ErrorKind::InvalidTlsConfig { .. } => (Kind::Unavailable, "the TLS settings for MongoDB do not work"),
        ErrorKind::InvalidArgument { .. } => (Kind::Broken, "the MongoDB driver refuses an argument"),
        // Another server has the port, or a proxy is broken: the same call may succeed later.
        ErrorKind::InvalidResponse { .. } | ErrorKind::BsonDeserialization(_) | ErrorKind::Bson(_) => {
            (Kind::Unavailable, "MongoDB sent a reply that cannot be read")
        }
        ErrorKind::IncompatibleServer { .. } => (Kind::Broken, "this version of MongoDB is not supported"),
        // New versions of the driver add kinds. An unknown kind is logged with its cause and may be retried.
        _ => (Kind::Unavailable, "MongoDB did not answer"),
    };
    let remedy = remedy(&error);
    let error = Error::new(kind, message).with_source(cause(error));
    match remedy {
        Some(remedy) => error.with_remedy(remedy),
        None => error,
    }
}

/// Returns what the operator can do about a failed write, if a retry is no help.
fn remedy(error: &DriverError) -> Option<&'static str> {
    match error.kind.as_ref() {
        ErrorKind::Authentication { .. } => Some("Correct the user or the password in the URI"),
        ErrorKind::Command(command) if UNAUTHORIZED.contains(&command.code) => {
            Some("Grant the user the role readWrite")
        }
        ErrorKind::Command(command) if OF_A_VIEW.contains(&command.code) => Some(IMPORT_ELSEWHERE),
        ErrorKind::Command(command) if !TRANSIENT.contains(&command.code) => Some("Correct what MongoDB refuses"),
        ErrorKind::Write(WriteFailure::WriteError(write)) if !TRANSIENT.contains(&write.code) => {
            Some("Correct what MongoDB refuses")
        }
        ErrorKind::InvalidTlsConfig { .. } => Some("Correct the TLS options of the URI"),
        _ => None,
    }
}

fn is_input(code: i32) -> bool {
    code == DUPLICATE_KEY || DOCUMENT_INVALID.contains(&code) || TOO_LARGE.contains(&code)
}

/// Returns the name of a common code: the server sends no names for single writes.
fn name_of(code: i32) -> &'static str {
    match code {
        2 => "BadValue",
        61 => "ShardKeyNotFound",
        66 => "ImmutableField",
        121 => "DocumentValidationFailure",
        166 => "CommandNotSupportedOnView",
        DUPLICATE_KEY => "DuplicateKey",
        _ => "",
    }
}

/// Reads the refused documents out of the reply to a bulk command, which succeeds even if the server refused documents.
///
/// # Errors
///
/// When a document was refused, with the [`WriteOutcome`]; or when the write concern was not met.
pub fn refusals(reply: &Bdoc, documents: &[Document]) -> Result<()> {
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let mut kind = Kind::Invalid;
    let mut is_view = false;
    let mut refused = Vec::new();
    for error in errors.iter().filter_map(|error| error.as_document()) {
        let code = error.get_i32("code").unwrap_or_default();
        if TRANSIENT.contains(&code) {
            kind = Kind::Unavailable;
        }
        is_view |= OF_A_VIEW.contains(&code);
        let name = error.get_str("codeName").unwrap_or_else(|_| name_of(code));
        let text = error.get_str("errmsg").unwrap_or("no reason given");
        let index = error.get_i32("index").ok().and_then(|index| usize::try_from(index).ok());
        let reason = ServerError::new(code, name, text).to_string();
        refused.push(RefusedDocument { document: index.and_then(|index| documents.get(index)).cloned(), reason });
    }
    if !refused.is_empty() {
        let count = refused.len();
        let first = refused[0].reason.clone();
        let outcome = WriteOutcome { stored: documents.len() - count.min(documents.len()), refused, unknown: 0 };
        let error = Error::new(kind, format!("MongoDB refused {count} of the documents")).with_source(first);
        let error = error.with_outcome(outcome);
        return Err(match kind {
            Kind::Invalid if is_view => error.with_remedy(IMPORT_ELSEWHERE),
            Kind::Invalid => error.with_remedy("Correct them"),
            _ => error,
        });
    }
    match reply.get_document("writeConcernError") {
        Ok(error) => {
            let name = error.get_str("codeName").unwrap_or_default();
            let cause = ServerError::new(
                error.get_i32("code").unwrap_or_default(),
                name,
                error.get_str("errmsg").unwrap_or("no reason given"),
            );
            Err(Error::unavailable("MongoDB wrote, but not as safely as the write concern asks").with_source(cause))
        }
        Err(_) => Ok(()),
    }
}

/// Returns the driver's text about a URI, or a general one if the text repeats a part that may be secret.
pub fn redact(error: &DriverError, uri: &str) -> String {
    let text = match error.kind.as_ref() {
        ErrorKind::InvalidArgument { message, .. } => message.clone(),
        _ => error.kind.to_string(),
    };
    if uri::secrets(uri).any(|secret| text.contains(secret)) {
        "it cannot be read: write it as mongodb://USER:PASSWORD@HOST:PORT/DATABASE, with %-escapes for the signs @ : / ? # [ ] % \
         in user and password"
            .to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::without_quoted;

    #[test]
    fn a_text_of_the_server_loses_what_it_quotes() {
        for (text, shown) in [
            (
                r#"not authorized on app to execute command { find: "r", filter: { _id: "secret" }, $db: "app" }"#,
                "not authorized on app to execute command …",
            ),
            (
                r#"E11000 duplicate key error collection: x.uq index: e_1 dup key: { e: "secret" }"#,
                "E11000 duplicate key error collection: x.uq index: e_1 dup key: …",
            ),
            (
                "E11000 duplicate key error index: e_1 dup key: { : 471100 }",
                "E11000 duplicate key error index: e_1 dup key: …",
            ),
            (
                "BSONObj size: 17000000 (0x1036640) is invalid. Size must be between 0 and 16793600(16MB) First element: _id: \
                 \"secret\"",
                "BSONObj size: … …",
            ),
            ("Cannot create field 'a' in element {b: \"secret } 'x'\"}", "Cannot create field …"),
            ("the field isn't there, said user's \"sec", "the field isn't there, said user's …"),
            ("was found to have been altered to _id: 471100", "was found to have been altered to"),
            ("value 471100 and 2024-01-01T00:00:00 are -5", "value … and … are …"),
            ("cannot sort with keys that are parallel arrays", "cannot sort with keys that are parallel arrays"),
        ] {
            assert_eq!(without_quoted(text), shown, "{text}");
        }
    }
}
