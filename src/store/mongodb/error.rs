//! The driver's errors, sorted by what the caller can do. The driver's own text may quote the server's reply, so it stays
//! in the cause, which is logged and never sent.

use std::time::Duration;

use mongodb::bson::Document;
use mongodb::error::{CommandError, Error as DriverError, ErrorKind, WriteFailure};

use crate::store::{Error, Kind, Result};

/// Codes of the server ([error_codes.yml](https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml)) that
/// say something about the command, not about the server's state: it would fail again.
const DUPLICATE_KEY: i32 = 11_000;
const DOCUMENT_INVALID: [i32; 4] = [2, 9, 52, 121]; // BadValue, FailedToParse, DollarPrefixedFieldName, DocumentValidationFailure
const TOO_LARGE: [i32; 2] = [10_334, 17_280]; // BSONObjectTooLarge, KeyTooLong

/// Of a find, by which the server has used up the time that it may take.
const MAX_TIME_EXPIRED: i32 = 50;

/// `CommandNotSupportedOnView` and `OptionNotSupportedOnView`: the collection is a view.
const OF_A_VIEW: [i32; 2] = [166, 167];

/// An ambiguous positional path in a sort.
const AMBIGUOUS_PATH: i32 = 16_746;
const BAD_VALUE: i32 = 2;

const NO_QUERY_EXECUTION_PLANS: i32 = 291;

/// The server's error behind one of ours.
fn command(error: &Error) -> Option<&CommandError> {
    let cause: &DriverError = std::error::Error::source(error)?.downcast_ref()?;
    match cause.kind.as_ref() {
        ErrorKind::Command(command) => Some(command),
        _ => None,
    }
}

/// Whether the server refused an option because the collection is a view: one with a collation takes no other.
pub fn is_of_a_view(error: &Error) -> bool {
    command(error).is_some_and(|command| OF_A_VIEW.contains(&command.code))
}

/// Whether the server refused to sort because two sort fields are arrays in one document, or a position is a field too.
pub fn is_unsortable(error: &Error) -> bool {
    command(error).is_some_and(|command| {
        command.code == AMBIGUOUS_PATH || (command.code == BAD_VALUE && command.message.contains("parallel arrays"))
    })
}

/// Whether the server refuses what no index serves (`notablescan`).
pub fn has_no_plan(error: &Error) -> bool {
    command(error).is_some_and(|command| command.code == NO_QUERY_EXECUTION_PLANS)
}

/// Whether the server has used up the time that a command may take.
pub fn has_exceeded_time(error: &Error) -> bool {
    command(error).is_some_and(|command| command.code == MAX_TIME_EXPIRED)
}

#[derive(Debug, thiserror::Error)]
#[error("nothing came for {} ms", .0.as_millis())]
struct TimedOut(Duration);

/// An error after a time-out of our own.
pub fn timed_out(message: &str, within: Duration) -> Error {
    Error::unavailable(message).with_source(TimedOut(within))
}

/// Whether time has run out, here or for the server.
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
        // Whoever changes the rights, or the password, makes the same call succeed: nothing is wrong with the call.
        ErrorKind::Authentication { .. } => (Kind::Unavailable, "MongoDB refuses the credentials"),
        ErrorKind::Command(command) if command.code == 13 || command.code == 18 => {
            (Kind::Unavailable, "MongoDB refuses: the user lacks the right")
        }
        ErrorKind::Command(command) if is_input(command.code) => (Kind::Invalid, "MongoDB refuses the input"),
        // Time limits, elections, shutdowns, overload: the server's state, which passes.
        ErrorKind::Command(_) => (Kind::Unavailable, "MongoDB could not carry the command out"),
        ErrorKind::Write(WriteFailure::WriteError(write)) if is_input(write.code) => {
            (Kind::Invalid, "MongoDB refuses the input")
        }
        ErrorKind::Write(_) => (Kind::Unavailable, "MongoDB could not write"),
        ErrorKind::InvalidTlsConfig { .. } => (Kind::Unavailable, "the TLS settings for MongoDB do not work"),
        ErrorKind::InvalidArgument { .. } => (Kind::Broken, "the MongoDB driver refuses an argument"),
        ErrorKind::InvalidResponse { .. } | ErrorKind::BsonDeserialization(_) | ErrorKind::Bson(_) => {
            (Kind::Broken, "MongoDB sent a reply that cannot be read")
        }
        ErrorKind::IncompatibleServer { .. } => (Kind::Broken, "this version of MongoDB is not supported"),
        // The enum grows with the driver. What is new is logged with its cause, and tried again.
        _ => (Kind::Unavailable, "MongoDB did not answer"),
    };
    Error::new(kind, message).with_source(error)
}

fn is_input(code: i32) -> bool {
    code == DUPLICATE_KEY || DOCUMENT_INVALID.contains(&code) || TOO_LARGE.contains(&code)
}

/// A bulk command succeeds even when every single write of it failed: the failures stand in its reply.
pub fn refusals(reply: &Document) -> Result<()> {
    let text = |error: &Document| error.get_str("errmsg").unwrap_or("no reason given").to_owned();
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    if let Some(first) = errors.first().and_then(|error| error.as_document()) {
        let kind = if is_input(first.get_i32("code").unwrap_or_default()) { Kind::Invalid } else { Kind::Unavailable };
        let count = errors.len();
        return Err(Error::new(kind, format!("MongoDB refused {count} of the documents")).with_source(text(first)));
    }
    match reply.get_document("writeConcernError") {
        Ok(error) => {
            Err(Error::unavailable("MongoDB wrote, but not as safely as the write concern asks")
                .with_source(text(error)))
        }
        Err(_) => Ok(()),
    }
}

/// What the driver says of a URI, unless it repeats a part of it that may be secret: the user, the password, and the values
/// of options. A password with an unescaped `/` or `@` can turn up as what it takes for a host.
pub fn redact(error: &DriverError, uri: &str) -> String {
    let text = match error.kind.as_ref() {
        ErrorKind::InvalidArgument { message, .. } => message.clone(),
        _ => error.kind.to_string(),
    };
    let after_scheme = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let (rest, options) = after_scheme.split_once('?').unwrap_or((after_scheme, ""));
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    let values = options.split('&').filter_map(|option| option.split_once('=')).map(|(_, value)| value);
    let secrets = std::iter::once(user).chain(values).flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
    // Shorter parts stand in any text, and give nothing away.
    if secrets.filter(|part| part.len() > 2).any(|part| text.contains(part)) {
        "write it as mongodb://USER:PASSWORD@HOST:PORT/DATABASE, with %-escapes in user and password".to_owned()
    } else {
        text
    }
}
