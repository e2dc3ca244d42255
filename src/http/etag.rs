//! Entity tags, and what a client does with them
//! ([RFC 9110, sections 8.8.3 and 13.1.2](https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3)).

use axum::http::header::IF_NONE_MATCH;
use axum::http::{HeaderMap, HeaderValue};

use super::hex;

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

    /// Whether the client has this already. What it got compressed had a weak tag; the comparison is weak.
    pub fn is_known(&self, headers: &HeaderMap) -> bool {
        headers.get_all(IF_NONE_MATCH).iter().any(|value| any_of(value.as_bytes(), &self.0))
    }
}

/// Whether the client has anything at all: `If-None-Match: *`, the one condition that an answer without a tag can meet.
pub fn anything_is_known(headers: &HeaderMap) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|value| value.as_bytes().trim_ascii() == b"*")
}

/// Whether `tag` is in `list`, which is `*`, or tags with commas between them, some with `W/` before them. A tag may have a
/// comma in it, so the quotes decide.
fn any_of(list: &[u8], tag: &[u8]) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let mut rest = list;
    while let Some(begin) = memchr::memchr(b'"', rest) {
        let Some(length) = memchr::memchr(b'"', &rest[begin + 1..]) else { return false };
        let end = begin + 1 + length + 1;
        if &rest[begin..end] == tag {
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
    #[case(r#""a""#, true)]
    #[case(r#"W/"a""#, true)]
    #[case(r#""b", W/"c,d" ,"a""#, true)]
    #[case(r#""b""a""#, true)]
    #[case("*", true)]
    #[case(r#""b""#, false)]
    #[case(r#""xa""#, false)]
    #[case(r#"", "a"#, false)]
    #[case("a", false)]
    #[case("", false)]
    fn a_tag_is_found_in_a_list(#[case] list: &str, #[case] found: bool) {
        assert_eq!(any_of(list.as_bytes(), br#""a""#), found);
    }
}
