//! The text of a path and a query, as far as the contract lets clients choose it.

use axum::http::Uri;
use percent_encoding::percent_decode_str;

use super::problem::Problem;
use crate::query;
use crate::record::RecordId;

/// The path of a record, without its id.
pub const RECORD_PREFIX: &str = "/api/v1/records/";

/// The id in `segment`, what stands behind the last fixed slash.
///
/// # Errors
///
/// When it is no segment of a path that can be decoded; never because no record could have such an id.
pub fn record_id(segment: &str) -> Result<RecordId, Problem> {
    let bad = |detail| Err(Problem::bad("id", detail));
    if segment.is_empty() {
        return bad("The id is empty. The list of all records is at /api/v1/records, without a slash at the end.");
    }
    if segment.contains('/') {
        return bad("The id must be one segment of the path. Write a slash that belongs to it as %2F.");
    }
    let mut escapes = segment.split('%').skip(1);
    if !escapes.all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit)) {
        return bad("The id has a percent sign without two hex digits behind it. Write a percent sign as %25.");
    }
    match percent_decode_str(segment).decode_utf8() {
        Ok(id) => Ok(RecordId::from(&*id)),
        Err(_) => bad("The id, percent-decoded, is not UTF-8."),
    }
}

/// The parameters of the query. None is ignored by who takes them: one that was meant to change the answer and does not
/// would mislead.
pub fn parameters(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    match uri.query() {
        Some(query) => Ok(query::decode(query)?),
        None => Ok(Vec::new()),
    }
}
