//! Paths and queries: the patterns of the routes, and the text that a client chooses.

use axum::http::Uri;
use percent_encoding::percent_decode_str;

use super::problem::Problem;
use crate::query;
use crate::record::RecordId;

// The patterns of the routes, which also name them in metrics, logs and spans.
pub const LIST: &str = "/api/v1/records";
pub const RECORD: &str = "/api/v1/records/{id}";
pub const LIVEZ: &str = "/livez";
pub const READYZ: &str = "/readyz";
pub const METRICS: &str = "/metrics";
pub const STATUS: &str = "/status";
pub const REPLICA: &str = "/replica";
/// Served apart from the records alone: it names ids.
pub const AUDITS: &str = "/audits";
/// Names the requests that no route matches.
pub const NONE: &str = "none";

/// The path of a record, without its id.
pub const RECORD_PREFIX: &str = "/api/v1/records/";

/// The id in the path of a record.
///
/// # Errors
///
/// 400, when it is not one segment that can be decoded. Every other id is well-formed, also if no record can have it.
pub fn record_id(path: &str) -> Result<RecordId, Problem> {
    let segment = path.strip_prefix(RECORD_PREFIX).unwrap_or_default();
    let bad = |detail| Err(Problem::bad("id", detail));
    if segment.is_empty() {
        return bad("The id is empty. The list of all records is at /api/v1/records, without a slash at the end.");
    }
    if segment.contains('/') {
        return bad("The id must be one segment of the path. Write a slash that belongs to it as %2F.");
    }
    if !query::has_valid_escapes(segment) {
        return bad("The id has a percent sign without two hex digits after it. Write a percent sign as %25.");
    }
    match percent_decode_str(segment).decode_utf8() {
        Ok(id) => Ok(RecordId::from(&*id)),
        Err(_) => bad("The id, percent-decoded, is not UTF-8."),
    }
}

/// The parameters of the query. Handlers refuse parameters that they do not know: one that was meant to change the response
/// and does not would mislead.
pub fn parameters(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    Ok(uri.query().map(query::decode).transpose()?.unwrap_or_default())
}
