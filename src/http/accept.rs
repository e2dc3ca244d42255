//! Negotiation of the media type ([RFC 9110, section 12.5.1](https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1)).
//!
//! The `headers` crate has no `Accept`.

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderValue};

use super::count::split_unquoted;
use super::problem::Problem;

/// A format of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// An array.
    Json,
    /// A record a line.
    Ndjson,
    /// A row for each record; the names of the columns are the first one, or left out.
    Csv { has_header: bool },
}

impl MediaType {
    /// The first one is the default.
    pub const LIST: &[Self] =
        &[Self::Json, Self::Ndjson, Self::Csv { has_header: true }, Self::Csv { has_header: false }];
    pub const RECORD: &[Self] = &[Self::Json];

    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv { .. } => "text/csv",
        }
    }

    pub fn header_value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Csv { has_header: true } => "text/csv; charset=utf-8; header=present",
            Self::Csv { has_header: false } => "text/csv; charset=utf-8; header=absent",
            _ => self.name(),
        })
    }

    /// The one out of `available` that the client prefers.
    ///
    /// # Errors
    ///
    /// 406, when `Accept` names none of them.
    pub fn negotiate(headers: &HeaderMap, available: &[Self]) -> Result<Self, Problem> {
        preferred(headers, available).ok_or_else(|| {
            let mut names: Vec<_> = available.iter().map(|media_type| media_type.name()).collect();
            names.dedup();
            let detail = match names.as_slice() {
                [others @ .., last] if !others.is_empty() => {
                    let others = others.join(", ");
                    format!("None of the media types in `Accept` is available: use {others} or {last}.")
                }
                names => format!("The media type in `Accept` is not available: use {}.", names.concat()),
            };
            Problem::not_acceptable("Accept", detail)
        })
    }

    /// Ranks the match of `range`, from 1 to 4: `*/*`, `text/*`, by name, by name and parameter.
    fn specificity(self, range: &Range<'_>) -> Option<u8> {
        let name = range.name;
        let other_name = self == Self::Ndjson && name.eq_ignore_ascii_case("application/ndjson");
        let is_type = || {
            let (of_range, subtype) = name.split_once('/').unwrap_or_default();
            let own = self.name().split_once('/').unwrap_or_default().0;
            subtype == "*" && of_range.eq_ignore_ascii_case(own)
        };
        let is_named = || name.eq_ignore_ascii_case(self.name()) || other_name;
        match (self, range.parameter("header")) {
            // Older clients, such as Java's own one, write `*` for `*/*`.
            _ if name == "*/*" || name == "*" => Some(1),
            _ if is_type() => Some(2),
            _ if !is_named() => None,
            (Self::Csv { has_header }, Some(header)) if header.eq_ignore_ascii_case("present") => {
                has_header.then_some(4)
            }
            (Self::Csv { has_header }, Some(header)) if header.eq_ignore_ascii_case("absent") => {
                (!has_header).then_some(4)
            }
            _ => Some(3),
        }
    }
}

fn preferred(headers: &HeaderMap, available: &[MediaType]) -> Option<MediaType> {
    // An empty field names no range, and is like none at all.
    if headers.get_all(ACCEPT).iter().all(|value| value.as_bytes().iter().all(|byte| b" \t,".contains(byte))) {
        return available.first().copied();
    }
    let mut best: Option<(u16, MediaType)> = None;
    for &media_type in available {
        // The most specific range that matches decides.
        let mut closest = (0, 0);
        for range in headers.get_all(ACCEPT).iter().flat_map(parse) {
            if let Some(specificity) = media_type.specificity(&range).filter(|specificity| *specificity > closest.0) {
                closest = (specificity, range.quality);
            }
        }
        if closest.1 > best.map_or(0, |(quality, _)| quality) {
            best = Some((closest.1, media_type));
        }
    }
    best.map(|(_, media_type)| media_type)
}

/// A media range or coding.
struct Range<'a> {
    name: &'a str,
    parameters: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    fn parameter(&self, name: &str) -> Option<&'a str> {
        parameter(self.parameters, name)
    }
}

/// A value may be a token or, with the same meaning, a quoted string
/// ([RFC 9110, section 5.6.6](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.6)).
fn parameter<'a>(parameters: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = split_unquoted(parameters, ';').filter_map(|part| part.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
    let value = value.trim();
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// The ranges of one field line. Malformed ones are left out.
fn parse(value: &HeaderValue) -> impl Iterator<Item = Range<'_>> {
    split_unquoted(value.to_str().unwrap_or_default(), ',').filter_map(|item| {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let name = Some(name.trim()).filter(|name| !name.is_empty())?;
        let quality = parameter(parameters, "q").map_or(Some(1_000), thousandths)?;
        Some(Range { name, parameters, quality })
    })
}

/// The ranges or codings of one field line, each with its quality in thousandths.
pub fn ranges(value: &HeaderValue) -> impl Iterator<Item = (&str, u16)> {
    parse(value).map(|range| (range.name, range.quality))
}

/// Parses `0` to `1`, with up to three digits after the point. Java's own client, up to version 18, leaves out the zero of `0.2`
/// ([JDK-8163921](https://bugs.openjdk.org/browse/JDK-8163921)).
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "" if weight.len() > 1 => Some(fraction),
        "1" if fraction == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&[], Some(MediaType::Json))]
    #[case(&["*/*"], Some(MediaType::Json))]
    #[case(&["application/json"], Some(MediaType::Json))]
    #[case(&["application/x-ndjson"], Some(MediaType::Ndjson))]
    #[case(&["application/ndjson"], Some(MediaType::Ndjson))]
    #[case(&["Application/X-NDJSON; charset=utf-8"], Some(MediaType::Ndjson))]
    #[case(&["application/*"], Some(MediaType::Json))]
    #[case(&["text/html,application/xhtml+xml,*/*;q=0.8"], Some(MediaType::Json))]
    #[case(&["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"], Some(MediaType::Json))]
    #[case(&["*"], Some(MediaType::Json))]
    #[case(&["text/html, image/gif, *; q=.2"], Some(MediaType::Json))]
    #[case(&["*;q=0"], None)]
    #[case(&["application/x-ndjson, */*"], Some(MediaType::Json))]
    #[case(&["application/x-ndjson, */*;q=0.9"], Some(MediaType::Ndjson))]
    #[case(&["application/x-ndjson;q=0.5, application/json;q=0.4"], Some(MediaType::Ndjson))]
    #[case(&["application/json;q=0, */*"], Some(MediaType::Ndjson))]
    #[case(&["application/json;q=0"], None)]
    #[case(&["text/html", "application/x-ndjson"], Some(MediaType::Ndjson))]
    #[case(&["text/html"], None)]
    #[case::csv(&["text/csv"], Some(MediaType::Csv { has_header: true }))]
    #[case::csv(&["Text/CSV; Header=Present; charset=utf-8"], Some(MediaType::Csv { has_header: true }))]
    #[case::csv(&["text/csv;header=absent"], Some(MediaType::Csv { has_header: false }))]
    #[case::csv(&["text/csv; header=absent; q=0.5, application/json;q=0.4"], Some(MediaType::Csv { has_header: false }))]
    #[case::csv(&["text/csv;header=absent;q=0.5, text/csv"], Some(MediaType::Csv { has_header: true }))]
    #[case::csv(&["text/csv;header=present;q=0, text/csv"], Some(MediaType::Csv { has_header: false }))]
    #[case::csv(&["text/csv;q=0.5, application/json"], Some(MediaType::Json))]
    #[case::csv(&["text/*"], Some(MediaType::Csv { has_header: true }))]
    #[case::csv(&["text/html, text/*;q=0.8, */*;q=0.9"], Some(MediaType::Json))]
    #[case::csv(&["text/csv;q=0"], None)]
    #[case(&["*/*;q=0"], None)]
    #[case(&["application/json;q=2"], None)]
    #[case(&["application/json;q=0.1234"], None)]
    #[case(&["application/json;q="], None)]
    #[case(&["application/json;q=."], None)]
    #[case::empty(&[""], Some(MediaType::Json))]
    #[case::empty_twice(&["", " , "], Some(MediaType::Json))]
    #[case::empty_and_not(&["", "text/html"], None)]
    fn the_preferred_media_type_is_chosen(#[case] accept: &[&'static str], #[case] media_type: Option<MediaType>) {
        let headers = accept.iter().map(|value| (ACCEPT, HeaderValue::from_static(value))).collect();
        assert_eq!(preferred(&headers, MediaType::LIST), media_type);
    }
}
