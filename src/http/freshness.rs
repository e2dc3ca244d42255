//! The bounds on staleness in a request: a cluster time in `Records-Not-Before`, and `Cache-Control`
//! ([RFC 9111, section 5.2.1](https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1);
//! [RFC 5861, section 4](https://www.rfc-editor.org/rfc/rfc5861#section-4)).
//!
//! An answer of the replica is a stored response, and its freshness lifetime is the `max-age` of the request; 0 without one. Where
//! the request has no bound, the operator has decided that stale responses are served.
//!
//! The `headers` crate has no `stale-if-error`, and no `max-stale` without a value.

use std::time::Duration;

use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName};

use super::problem::Problem;
use super::settings::Settings;
use crate::store::{ClusterTime, Freshness, NOT_BEFORE};

const RECORDS_NOT_BEFORE: HeaderName = HeaderName::from_static("records-not-before");

/// The greatest number of seconds ([RFC 9111, section 1.2.2](https://www.rfc-editor.org/rfc/rfc9111#section-1.2.2)).
const FOREVER: u64 = 1 << 31;

/// Returns the bounds of a request; `None` if it has none.
///
/// # Errors
///
/// 400, when the value of a directive is not a number of seconds, or a token is invalid.
pub fn parse_freshness(settings: &Settings, headers: &HeaderMap) -> Result<Option<Freshness>, Problem> {
    let has_directives = settings.request_directives && headers.contains_key(CACHE_CONTROL);
    if !has_directives && !headers.contains_key(RECORDS_NOT_BEFORE) {
        return Ok(None);
    }
    let freshness = if has_directives { Directives::parse(headers)?.freshness() } else { Freshness::default() };
    Ok(Some(Freshness { not_before: parse_not_before(headers)?, ..freshness }).filter(Freshness::is_bounded))
}

fn parse_not_before(headers: &HeaderMap) -> Result<Option<ClusterTime>, Problem> {
    let mut values = headers.get_all(RECORDS_NOT_BEFORE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|_| values.next().is_none());
    token.map(Some).ok_or_else(|| {
        let detail = "It must be one token, as in `Records-As-Of`: the seconds of a cluster time, a dot and its increment, as in \
                      1764338423.1.";
        Problem::bad(NOT_BEFORE, detail)
    })
}

#[derive(Default)]
struct Directives {
    no_cache: bool,
    only_if_cached: bool,
    max_age: Option<u64>,
    max_stale: Option<u64>,
    stale_if_error: Option<u64>,
}

impl Directives {
    /// Parses the directives. If one repeats, the strictest counts. Other directives are ignored.
    fn parse(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut directives = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            let line =
                line.to_str().map_err(|_| Problem::bad("Cache-Control", "It may have ASCII characters only."))?;
            let mut is_quoted = false;
            let parts = line.split(|character| {
                is_quoted ^= character == '"';
                character == ',' && !is_quoted
            });
            for part in parts {
                let (name, value) =
                    part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value.trim())));
                let name = name.trim().to_ascii_lowercase();
                let bound = match &*name {
                    "no-cache" => {
                        directives.no_cache = true;
                        continue;
                    }
                    "only-if-cached" => {
                        directives.only_if_cached = true;
                        continue;
                    }
                    "max-age" => &mut directives.max_age,
                    "max-stale" => &mut directives.max_stale,
                    "stale-if-error" => &mut directives.stale_if_error,
                    _ => continue,
                };
                let seconds = match value {
                    None if name == "max-stale" => FOREVER,
                    value => parse_seconds(value.unwrap_or_default()).ok_or_else(|| {
                        let detail = format!("`{name}` needs a whole number of seconds, as in {name}=60.");
                        Problem::bad("Cache-Control", detail)
                    })?,
                };
                *bound = Some(bound.map_or(seconds, |before| before.min(seconds)));
            }
        }
        Ok(directives)
    }

    fn freshness(&self) -> Freshness {
        let lifetime = self.max_age.unwrap_or(0);
        let max_staleness = match self {
            Self { no_cache: true, .. } => 0,
            Self { max_stale: Some(stale), .. } => lifetime + stale,
            Self { max_age: Some(age), .. } => *age,
            Self { stale_if_error, .. } => stale_if_error.unwrap_or(FOREVER),
        };
        let on_error = self.stale_if_error.map_or(max_staleness, |stale| max_staleness.max(lifetime + stale));
        let bound = |seconds| (seconds < FOREVER).then(|| Duration::from_secs(seconds));
        Freshness {
            max_staleness: bound(max_staleness),
            max_staleness_on_error: bound(on_error),
            only_replica: self.only_if_cached,
            not_before: None,
        }
    }
}

/// Parses a value in either form, `60` or `"60"`.
fn parse_seconds(value: &str) -> Option<u64> {
    let digits = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(FOREVER).min(FOREVER))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ANY: Option<u64> = None;

    #[rstest]
    #[case("no-cache", Some(0), Some(0))]
    #[case("max-age=0", Some(0), Some(0))]
    #[case("max-age=5", Some(5), Some(5))]
    #[case("Max-Age=\"5\"", Some(5), Some(5))]
    #[case("max-age=5, max-age=3", Some(3), Some(3))]
    #[case("max-stale=7", Some(7), Some(7))]
    #[case("max-age=5, max-stale=7", Some(12), Some(12))]
    #[case("max-age=5,max-stale", ANY, ANY)]
    #[case("max-stale", ANY, ANY)]
    #[case("stale-if-error=60", Some(60), Some(60))]
    #[case("max-age=5, stale-if-error=60", Some(5), Some(65))]
    #[case("no-cache, stale-if-error=60", Some(0), Some(60))]
    #[case("no-cache, max-age=9, max-stale", Some(0), Some(0))]
    #[case("max-stale=90, stale-if-error=60", Some(90), Some(90))]
    #[case("max-age=99999999999999999999999", ANY, ANY)]
    #[case("no-store, min-fresh=5, private, x=\"a, no-cache, b\"", ANY, ANY)]
    fn directives_are_bounds(#[case] text: &str, #[case] max: Option<u64>, #[case] on_error: Option<u64>) {
        let headers = [(CACHE_CONTROL, text.parse().unwrap())].into_iter().collect();
        let Freshness { max_staleness, max_staleness_on_error, .. } = Directives::parse(&headers).unwrap().freshness();
        assert_eq!(
            (max_staleness, max_staleness_on_error),
            (max.map(Duration::from_secs), on_error.map(Duration::from_secs))
        );
    }
}
