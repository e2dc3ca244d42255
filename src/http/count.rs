//! The number of records in a list, which clients ask for by `Prefer: count=exact` or `count=estimated`
//! ([RFC 7240](https://www.rfc-editor.org/rfc/rfc7240)).
//!
//! A preference may be ignored: a list whose records cannot be counted in time is answered without their number.

use axum::http::header::VARY;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use tokio::time::timeout;

use super::App;
use crate::store::{CountResult, ListRequest, Precision};

pub const PREFER: HeaderName = HeaderName::from_static("prefer");
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
pub const RECORDS_COUNT: HeaderName = HeaderName::from_static("records-count");

/// The largest number that a count with a filter reaches, and an exact one without.
const COUNT_MAX: usize = 1_000_000;

/// The count that the client wants to know of `list`.
pub fn preferred(headers: &HeaderMap, list: &ListRequest) -> Option<(ListRequest, Precision)> {
    let precision = precision(headers)?;
    Some((ListRequest { limit: Some(COUNT_MAX), ..list.clone() }, precision))
}

pub async fn count(app: &App, preferred: Option<(ListRequest, Precision)>) -> Option<CountResult> {
    let (list, precision) = preferred?;
    let count = app.store.count(list, precision);
    // The records themselves still have to be answered before the deadline.
    match timeout(app.settings.deadline / 2, count).await {
        Ok(Ok(count)) => count,
        Ok(Err(error)) => {
            tracing::warn!(cause = %error.report(), "records could not be counted");
            None
        }
        Err(_) => None,
    }
}

pub fn set_count_headers(response: &mut Response, count: Option<CountResult>) {
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("prefer"));
    if let Some(count) = count {
        let applied = if count.is_exact { "count=exact" } else { "count=estimated" };
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static(applied));
        headers.insert(RECORDS_COUNT, count.number.into());
    }
}

/// The first `count` counts, as RFC 7240 has it; one with another value is no preference.
fn precision(headers: &HeaderMap) -> Option<Precision> {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let count = preferences.flat_map(preferences_of).find(|(name, _)| name.eq_ignore_ascii_case("count"));
    match count {
        Some((_, value)) if value.eq_ignore_ascii_case("exact") => Some(Precision::Exact),
        Some((_, value)) if value.eq_ignore_ascii_case("estimated") => Some(Precision::Estimated),
        _ => None,
    }
}

/// The preferences of a field line, without their parameters.
fn preferences_of(line: &str) -> impl Iterator<Item = (&str, &str)> {
    split_unquoted(line, ',').map(|preference| {
        let preference = split_unquoted(preference, ';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        (name.trim(), value.trim().trim_matches('"'))
    })
}

/// The parts between separators outside of quoted strings.
pub fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character| {
        let is_separator = character == separator && !is_quoted;
        is_quoted ^= character == '"' && !is_escaped;
        is_escaped = is_quoted && character == '\\' && !is_escaped;
        is_separator
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&["count=exact"], Some(Precision::Exact))]
    #[case(&["count=estimated"], Some(Precision::Estimated))]
    #[case(&["Count = \"Exact\""], Some(Precision::Exact))]
    #[case(&["respond-async, wait=10, count=exact; why=\"a, b\""], Some(Precision::Exact))]
    #[case(&["handling=lenient", "count=estimated"], Some(Precision::Estimated))]
    #[case::the_first_counts(&["count=exact, count=estimated"], Some(Precision::Exact))]
    #[case::the_first_counts_even_if_it_is_none(&["count=some, count=estimated"], None)]
    #[case::inside_of_quotes(&["foo=\"bar, count=exact\""], None)]
    #[case::after_an_escaped_quote(&["foo=\"bar\\\", count=exact\", count=estimated"], Some(Precision::Estimated))]
    #[case::a_parameter(&["foo; count=exact"], None)]
    #[case(&["counts=exact"], None)]
    #[case(&["count"], None)]
    #[case(&["", ","], None)]
    #[case(&[], None)]
    fn the_preference_is_found(#[case] lines: &[&'static str], #[case] wanted: Option<Precision>) {
        let headers = lines.iter().map(|line| (PREFER, HeaderValue::from_static(line))).collect();
        assert_eq!(precision(&headers), wanted);
    }
}
