//! Entity tags, and what a client asks by them
//! ([RFC 9110, sections 8.8.3 and 13](https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3)).

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

use super::problem::Problem;
use super::{answer, hex};

/// A strong tag, with its quotes: a hash of the bytes, so that the same bytes have the same tag from every server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag([u8; 18]);

impl ETag {
    /// Of a body, and of what else of the answer may change while the body does not.
    pub fn of(body: &[u8], beside: &[u8]) -> Self {
        let mut hash = rapidhash::v3::rapidhash_v3(body);
        if !beside.is_empty() {
            hash ^= rapidhash::v3::rapidhash_v3(beside).rotate_left(32);
        }
        let mut tag = [b'"'; 18];
        tag[1..17].copy_from_slice(&hex::digits(hash));
        Self(tag)
    }

    pub fn to_value(&self) -> HeaderValue {
        // Quotes and hex digits are always a value.
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static("\"\""))
    }

    /// `response`, whose body has this tag, or what the client's conditions put in its place. Compressed, it has another tag,
    /// which shows once it is there.
    ///
    /// # Errors
    ///
    /// 412, when the client wants something else or nothing.
    pub fn asked_for(&self, headers: &HeaderMap, response: Response) -> Result<Response, Problem> {
        // What a client got compressed had a weak tag, which is as good for knowing it, and no reason to insist on it.
        if headers.contains_key(IF_MATCH) && !any(headers, IF_MATCH, |list| any_of(list, &self.0, Comparison::Strong)) {
            return Err(Problem::other_than_asked());
        }
        let is_known = any(headers, IF_NONE_MATCH, |list| any_of(list, &self.0, Comparison::Weak));
        Ok(if is_known { answer::not_modified(response) } else { response })
    }
}

/// Lets pass what has no tag: a list that is streamed.
///
/// # Errors
///
/// 412, when the client wants one that has a tag.
pub fn pass_without(headers: &HeaderMap) -> Result<(), Problem> {
    let passes = !headers.contains_key(IF_MATCH) || any(headers, IF_MATCH, is_anything);
    passes.then_some(()).ok_or_else(Problem::other_than_asked)
}

/// Lets pass what is not there.
///
/// # Errors
///
/// 412, when the client wants one that is.
pub fn pass_absent(headers: &HeaderMap) -> Result<(), Problem> {
    (!headers.contains_key(IF_MATCH)).then_some(()).ok_or_else(Problem::other_than_asked)
}

/// Whether the client has anything at all: `If-None-Match: *`, the one condition that an answer without a tag can meet.
pub fn anything_is_known(headers: &HeaderMap) -> bool {
    any(headers, IF_NONE_MATCH, is_anything)
}

fn any(headers: &HeaderMap, name: HeaderName, holds: impl Fn(&[u8]) -> bool) -> bool {
    headers.get_all(name).iter().any(|value| holds(value.as_bytes()))
}

fn is_anything(list: &[u8]) -> bool {
    list.trim_ascii() == b"*"
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// A tag with `W/` is like none.
    Strong,
    Weak,
}

/// Whether `tag` is in `list`, which is `*`, or tags with commas between them, some with `W/` before them. A tag may have a
/// comma in it, so the quotes decide.
fn any_of(list: &[u8], tag: &[u8], comparison: Comparison) -> bool {
    if is_anything(list) {
        return true;
    }
    let mut rest = list;
    while let Some(begin) = memchr::memchr(b'"', rest) {
        let Some(length) = memchr::memchr(b'"', &rest[begin + 1..]) else { return false };
        let end = begin + 1 + length + 1;
        let is_weak = rest[..begin].ends_with(b"W/");
        if &rest[begin..end] == tag && (!is_weak || comparison == Comparison::Weak) {
            return true;
        }
        rest = &rest[end..];
    }
    false
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#""a""#, true, true)]
    #[case(r#"W/"a""#, true, false)]
    #[case(r#"W/"a", "a""#, true, true)]
    #[case(r#""b", W/"c,d" ,"a""#, true, true)]
    #[case(r#""b""a""#, true, true)]
    #[case("*", true, true)]
    #[case(r#""b""#, false, false)]
    #[case(r#""xa""#, false, false)]
    #[case(r#"", "a"#, false, false)]
    #[case("a", false, false)]
    #[case("", false, false)]
    fn a_tag_is_found_in_a_list(#[case] list: &str, #[case] weak: bool, #[case] strong: bool) {
        let found = |comparison| any_of(list.as_bytes(), br#""a""#, comparison);
        assert_eq!((found(Comparison::Weak), found(Comparison::Strong)), (weak, strong));
    }
}
