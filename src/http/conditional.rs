//! Entity tags and conditional requests
//! ([RFC 9110, sections 8.8.3 and 13](https://www.rfc-editor.org/rfc/rfc9110#section-13)).

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headers::{ETag, Header, HeaderMapExt, IfMatch, IfNoneMatch};

use super::problem::Problem;

/// A strong entity tag: a hash of `body`, and of `metadata` that may change while the body does not. Every server has the same
/// tag for the same bytes.
pub fn entity_tag(body: &[u8], metadata: &[u8]) -> HeaderValue {
    let mut hash = rapidhash::v3::rapidhash_v3(body);
    if !metadata.is_empty() {
        hash ^= rapidhash::v3::rapidhash_v3(metadata).rotate_left(32);
    }
    // Eight bytes are eleven characters, between quotes.
    let mut tag = *b"\"-----------\"";
    let _ = URL_SAFE_NO_PAD.encode_slice(hash.to_be_bytes(), &mut tag[1..12]);
    // Base64 between quotes is always a value.
    HeaderValue::from_bytes(&tag).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The current state of what was asked for.
#[derive(Clone, Copy, Debug)]
pub enum Current<'a> {
    Absent,
    /// There is something that has no tag, such as a list that is streamed.
    Untagged,
    Tagged(&'a HeaderValue),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Perform,
    NotModified,
}

/// Evaluates `If-Match`, then `If-None-Match`, in the order of
/// [RFC 9110, section 13.2.2](https://www.rfc-editor.org/rfc/rfc9110#section-13.2.2).
///
/// # Errors
///
/// 412, when `If-Match` is not met.
pub fn evaluate_preconditions(request: &HeaderMap, current: Current<'_>) -> Result<Outcome, Problem> {
    // Decoding copies the tag, which most requests do not ask about.
    let tag = || match current {
        Current::Tagged(tag) => ETag::decode(&mut std::iter::once(tag)).ok(),
        _ => None,
    };
    let exists = !matches!(current, Current::Absent);
    if let Some(if_match) = request.typed_get::<IfMatch>()
        && !(exists && tag().map_or(if_match.is_any(), |tag| if_match.precondition_passes(&tag)))
    {
        return Err(Problem::precondition_failed());
    }
    let is_known = |if_none_match: IfNoneMatch| match tag() {
        Some(tag) => !if_none_match.precondition_passes(&tag),
        None => if_none_match == IfNoneMatch::any(),
    };
    let not_modified = exists && request.typed_get::<IfNoneMatch>().is_some_and(is_known);
    Ok(if not_modified { Outcome::NotModified } else { Outcome::Perform })
}

#[cfg(test)]
mod tests {
    use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#""a""#, true, true)]
    #[case(r#"W/"a""#, true, false)]
    #[case(r#"W/"a", "a""#, true, true)]
    #[case(r#""b", W/"c,d" ,"a""#, true, true)]
    #[case("*", true, true)]
    #[case(r#""b""#, false, false)]
    #[case(r#""xa""#, false, false)]
    #[case(r#"w/"a""#, false, false)]
    #[case(r#""a b""#, false, false)]
    #[case(r#"", "a"#, false, false)]
    #[case(r#""*""#, false, false)]
    #[case("a", false, false)]
    #[case("", false, false)]
    fn a_tag_is_found_in_a_list(#[case] list: &'static str, #[case] weak: bool, #[case] strong: bool) {
        let tag = HeaderValue::from_static(r#""a""#);
        let evaluate = |name, current| {
            evaluate_preconditions(&[(name, HeaderValue::from_static(list))].into_iter().collect(), current)
        };
        assert_eq!(evaluate(IF_NONE_MATCH, Current::Tagged(&tag)).unwrap() == Outcome::NotModified, weak);
        assert_eq!(evaluate(IF_MATCH, Current::Tagged(&tag)).is_ok(), strong);
        assert_eq!(evaluate(IF_MATCH, Current::Untagged).is_ok(), list == "*");
        assert_eq!(evaluate(IF_NONE_MATCH, Current::Untagged).unwrap() == Outcome::NotModified, list == "*");
        assert!(evaluate(IF_MATCH, Current::Absent).is_err());
        assert_eq!(evaluate(IF_NONE_MATCH, Current::Absent).unwrap(), Outcome::Perform);
    }

    #[test]
    fn tags_on_several_lines_are_one_list() {
        let tag = HeaderValue::from_static(r#""a""#);
        for name in [IF_MATCH, IF_NONE_MATCH] {
            let lines = [r#""b""#, r#"W/"c", "a""#].map(|line| (name.clone(), HeaderValue::from_static(line)));
            let outcome = evaluate_preconditions(&lines.into_iter().collect(), Current::Tagged(&tag)).unwrap();
            assert_eq!(outcome == Outcome::NotModified, name == IF_NONE_MATCH);
        }
    }
}
