//! Which form of an answer a client wants ([RFC 9110, section 12.5.1](https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1)).

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderValue};

use super::problem::Problem;

/// How records can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One array.
    Json,
    /// One record a line.
    Lines,
}

impl Form {
    /// What is sent to whoever has no preference comes first.
    pub const LIST: &[Self] = &[Self::Json, Self::Lines];
    pub const RECORD: &[Self] = &[Self::Json];

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
        }
    }

    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(self.media_type())
    }

    /// How well `range` fits, from 1 to 3: `*/*`, `application/*`, by name.
    fn fit(self, range: &str) -> Option<u8> {
        let other_name = self == Self::Lines && range.eq_ignore_ascii_case("application/ndjson");
        match range {
            "*/*" => Some(1),
            _ if range.eq_ignore_ascii_case("application/*") => Some(2),
            _ if range.eq_ignore_ascii_case(self.media_type()) || other_name => Some(3),
            _ => None,
        }
    }
}

/// The form out of `forms` that the client prefers.
///
/// # Errors
///
/// When it takes none of them.
pub fn choose(headers: &HeaderMap, forms: &[Form]) -> Result<Form, Problem> {
    preferred(headers, forms).ok_or_else(|| {
        let types: Vec<_> = forms.iter().map(|form| form.media_type()).collect();
        Problem::not_acceptable(
            "Accept",
            format!("`Accept` takes nothing that there is: ask for {}.", types.join(" or ")),
        )
    })
}

fn preferred(headers: &HeaderMap, forms: &[Form]) -> Option<Form> {
    if !headers.contains_key(ACCEPT) {
        return forms.first().copied();
    }
    let mut best: Option<(u16, Form)> = None;
    for &form in forms {
        // Of all ranges that fit, the closest says how much the form is wanted.
        let mut closest = (0, 0);
        for (range, quality) in headers.get_all(ACCEPT).iter().flat_map(ranges) {
            if let Some(fit) = form.fit(range).filter(|fit| *fit > closest.0) {
                closest = (fit, quality);
            }
        }
        if closest.1 > best.map_or(0, |(quality, _)| quality) {
            best = Some((closest.1, form));
        }
    }
    best.map(|(_, form)| form)
}

/// The ranges or codings of one field line, each with its quality in thousandths. What cannot be read wants nothing.
pub fn ranges(value: &HeaderValue) -> impl Iterator<Item = (&str, u16)> {
    value.to_str().unwrap_or_default().split(',').filter_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let range = parts.next().filter(|range| !range.is_empty())?;
        let weight =
            parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
        let quality = weight.map_or(Some(1_000), |(_, weight)| thousandths(weight.trim()));
        quality.map(|quality| (range, quality))
    })
}

/// `0`, `1`, and up to three digits behind a point between them. Java's own client, up to version 18, leaves out the zero
/// of `0.2` ([JDK-8163921](https://bugs.openjdk.org/browse/JDK-8163921)).
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
    #[case(&[], Some(Form::Json))]
    #[case(&["*/*"], Some(Form::Json))]
    #[case(&["application/json"], Some(Form::Json))]
    #[case(&["application/x-ndjson"], Some(Form::Lines))]
    #[case(&["application/ndjson"], Some(Form::Lines))]
    #[case(&["Application/X-NDJSON; charset=utf-8"], Some(Form::Lines))]
    #[case(&["application/*"], Some(Form::Json))]
    #[case(&["text/html,application/xhtml+xml,*/*;q=0.8"], Some(Form::Json))]
    #[case(&["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"], Some(Form::Json))]
    #[case(&["application/x-ndjson, */*"], Some(Form::Json))]
    #[case(&["application/x-ndjson, */*;q=0.9"], Some(Form::Lines))]
    #[case(&["application/x-ndjson;q=0.5, application/json;q=0.4"], Some(Form::Lines))]
    #[case(&["application/json;q=0, */*"], Some(Form::Lines))]
    #[case(&["application/json;q=0"], None)]
    #[case(&["text/html", "application/x-ndjson"], Some(Form::Lines))]
    #[case(&["text/html"], None)]
    #[case(&["*/*;q=0"], None)]
    #[case(&["application/json;q=2"], None)]
    #[case(&["application/json;q=0.1234"], None)]
    #[case(&["application/json;q="], None)]
    #[case(&["application/json;q=."], None)]
    #[case(&[""], None)]
    fn the_form_that_is_wanted_most_is_chosen(#[case] accept: &[&'static str], #[case] form: Option<Form>) {
        let headers = accept.iter().map(|value| (ACCEPT, HeaderValue::from_static(value))).collect();
        assert_eq!(preferred(&headers, Form::LIST), form);
    }
}
