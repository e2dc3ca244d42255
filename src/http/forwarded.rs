//! The client of a request that came through proxies: `Forwarded` ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)) and
//! `X-Forwarded-For`.
//!
//! A client can send both headers itself, and proxies append to them. So the hops are read from the right, and the first address
//! that is not a trusted proxy is the client. If a hop is not an address (`unknown`, an obfuscated name, garbage), the proxy that
//! reported it counts as the client. A proxy may write one of the headers and pass the other one on unchanged, so if the two name
//! different clients, the peer counts.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::header::FORWARDED;
use axum::http::{HeaderMap, HeaderName};

use crate::client::TrustedProxies;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Returns the address of the client, by the headers that the proxy at `peer` has sent if it is a trusted one.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    if !trusted.contains(peer) {
        return peer;
    }
    let by = |name: &HeaderName, hops: fn(&str) -> Vec<Option<IpAddr>>| {
        let mut values = headers.get_all(name).iter().peekable();
        values.peek().is_some().then(|| {
            // The lines of a header are one list (RFC 9110, section 5.3).
            let lines = values.flat_map(|value| value.to_str().map_or_else(|_| vec![None], hops));
            nearest_client(peer, &lines.collect::<Vec<_>>(), trusted)
        })
    };
    match (by(&FORWARDED, forwarded_hops), by(&X_FORWARDED_FOR, x_forwarded_for_hops)) {
        (Some(one), Some(other)) if one != other => peer,
        (Some(client), _) | (None, Some(client)) => client,
        (None, None) => peer,
    }
}

/// Follows `hops` from the last one, which `peer` has reported. A hop that is no address is `None`.
fn nearest_client(peer: IpAddr, hops: &[Option<IpAddr>], trusted: &TrustedProxies) -> IpAddr {
    let mut nearest = peer;
    for hop in hops.iter().rev() {
        match hop {
            Some(address) => nearest = *address,
            None => break,
        }
        if !trusted.contains(nearest) {
            break;
        }
    }
    nearest
}

fn x_forwarded_for_hops(list: &str) -> Vec<Option<IpAddr>> {
    list.split(',').map(str::trim).filter(|hop| !hop.is_empty()).map(parse_address).collect()
}

/// Returns the `for` of each element. A header with a syntax error counts as one unknown hop.
fn forwarded_hops(list: &str) -> Vec<Option<IpAddr>> {
    parse_forwarded(list).unwrap_or_else(|| vec![None])
}

fn parse_forwarded(list: &str) -> Option<Vec<Option<IpAddr>>> {
    let mut rest = list.trim();
    let mut hops = Vec::new();
    let (mut node, mut nodes, mut pairs) = (None, 0, 0);
    loop {
        let is_pair = !rest.is_empty() && !rest.starts_with([',', ';']);
        if is_pair {
            let (name, after) = split_token(rest)?;
            let (value, after) = split_value(after.strip_prefix('=')?)?;
            rest = after.trim_start();
            pairs += 1;
            if name.eq_ignore_ascii_case("for") {
                node = parse_address(&value);
                nodes += 1;
            }
        }
        match rest.chars().next() {
            Some(';') => rest = rest[1..].trim_start(),
            // Empty elements of a list do not count (RFC 9110, section 5.6.1). An element without `for`, or with two, is a
            // hop that names no address.
            end @ (Some(',') | None) => {
                if pairs > 0 {
                    hops.push(node.take().filter(|_| nodes == 1));
                }
                (node, nodes, pairs) = (None, 0, 0);
                if end.is_none() {
                    return Some(hops);
                }
                rest = rest[1..].trim_start();
            }
            Some(_) => return None,
        }
    }
}

/// Splits a token of [RFC 9110, section 5.6.2](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2) from the start of `text`.
fn split_token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Splits a token or a quoted string from the start of `text`, without its quotes.
fn split_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return split_token(text).map(|(token, rest)| (token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[index + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// Parses an address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse_address(node: &str) -> Option<IpAddr> {
    let parsed = match node.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let has_port = port.strip_prefix(':').is_some_and(is_port);
            Some(address.parse::<Ipv6Addr>().ok()?.into()).filter(|_| port.is_empty() || has_port)
        }
        None => node.parse().ok().or_else(|| {
            let (address, port) = node.split_once(':')?;
            Some(IpAddr::V4(address.parse().ok()?)).filter(|_| is_port(port))
        }),
    };
    parsed.map(|address| address.to_canonical())
}

/// A port, which may be obfuscated ([RFC 7239, section 6](https://www.rfc-editor.org/rfc/rfc7239#section-6)).
fn is_port(text: &str) -> bool {
    let is_obfuscated = text.starts_with('_') && split_token(text).is_some_and(|(_, rest)| rest.is_empty());
    is_obfuscated || (!text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    /// 10.0.0.0/8 and fd00::/8 are trusted, and the peer is 10.0.0.1.
    fn client(headers: &[(&'static str, &str)]) -> String {
        let trusted = TrustedProxies(["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).into());
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        client_address("10.0.0.1".parse().unwrap(), &headers.collect(), &trusted).to_string()
    }

    #[rstest]
    #[case("192.0.2.1", "192.0.2.1")]
    #[case("192.0.2.1:4711", "192.0.2.1")]
    #[case("2001:db8::1", "2001:db8::1")]
    #[case("[2001:db8::1]", "2001:db8::1")]
    #[case("[2001:db8::1]:80", "2001:db8::1")]
    #[case("::ffff:192.0.2.1", "192.0.2.1")]
    #[case::forged_by_the_client("6.6.6.6, 192.0.2.1", "192.0.2.1")]
    #[case::through_two_proxies("6.6.6.6, 192.0.2.1, 10.0.0.2", "192.0.2.1")]
    #[case::through_a_proxy_by_ipv6("6.6.6.6,192.0.2.1,fd00::2", "192.0.2.1")]
    #[case::only_proxies("10.0.0.3, 10.0.0.2", "10.0.0.3")]
    #[case::empty_elements(", 192.0.2.1 ,,", "192.0.2.1")]
    #[case::empty("", "10.0.0.1")]
    #[case::unknown("6.6.6.6, unknown", "10.0.0.1")]
    #[case::unknown_to_a_proxy_before("6.6.6.6, unknown, 10.0.0.2", "10.0.0.2")]
    #[case::garbage("6.6.6.6, 192.0.2.1.5", "10.0.0.1")]
    #[case::not_ascii("6.6.6.6, ü", "10.0.0.1")]
    #[case::a_port_that_is_none("192.0.2.1:http", "10.0.0.1")]
    #[case::a_bracket_that_stays_open("[2001:db8::1", "10.0.0.1")]
    #[case::a_network("192.0.2.0/24", "10.0.0.1")]
    fn x_forwarded_for_counts_from_the_right(#[case] value: &str, #[case] expected: &str) {
        assert_eq!(client(&[("x-forwarded-for", value)]), expected);
    }

    #[rstest]
    #[case("for=192.0.2.1", "192.0.2.1")]
    #[case("For=192.0.2.1;proto=https;by=203.0.113.4", "192.0.2.1")]
    #[case("proto=https; FOR=192.0.2.1", "192.0.2.1")]
    #[case(r#"for="192.0.2.1:4711""#, "192.0.2.1")]
    #[case(r#"for="[2001:db8::1]:4711""#, "2001:db8::1")]
    #[case(r#"for="[2001:db8::1]:_port""#, "2001:db8::1")]
    #[case(r#"for="\[2001:db8::1\]""#, "2001:db8::1")]
    #[case::forged_by_the_client(r#"for=6.6.6.6, for="192.0.2.1""#, "192.0.2.1")]
    #[case::through_two_proxies("for=6.6.6.6, for=192.0.2.1, for=10.0.0.2", "192.0.2.1")]
    #[case::unknown("for=6.6.6.6, for=unknown", "10.0.0.1")]
    #[case::obfuscated("for=6.6.6.6, for=_hidden", "10.0.0.1")]
    #[case::without_for("for=6.6.6.6, proto=https", "10.0.0.1")]
    #[case::twice("for=6.6.6.6;for=192.0.2.1", "10.0.0.1")]
    #[case::empty_elements(",, for=192.0.2.1,", "192.0.2.1")]
    #[case::a_quote_that_stays_open(r#"for="6.6.6.6, for=192.0.2.1"#, "10.0.0.1")]
    #[case::a_quote_that_a_proxy_closes(r#"for=6.6.6.6;x=", for="[2001:db8::1]""#, "10.0.0.1")]
    #[case::an_escape_at_the_end(r#"for="192.0.2.1\"#, "10.0.0.1")]
    #[case::ipv6_without_quotes("for=[2001:db8::1]", "10.0.0.1")]
    #[case::no_pair("192.0.2.1", "10.0.0.1")]
    #[case::nothing("for=", "10.0.0.1")]
    #[case::a_comma_in_a_quoted_value(r#"x="a,b\",c";for=192.0.2.1"#, "192.0.2.1")]
    fn forwarded_counts_from_the_right(#[case] value: &str, #[case] expected: &str) {
        assert_eq!(client(&[("forwarded", value)]), expected);
    }

    #[rstest]
    #[case::lines_are_one_list(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.1, 10.0.0.2")], "192.0.2.1")]
    #[case::both_agree(&[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=\"192.0.2.1:80\"")], "192.0.2.1")]
    #[case::one_is_forged(&[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=6.6.6.6")], "10.0.0.1")]
    #[case::the_other_is_forged(&[("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=192.0.2.1")], "10.0.0.1")]
    #[case::none(&[], "10.0.0.1")]
    fn several_headers_name_one_client(#[case] headers: &[(&'static str, &str)], #[case] expected: &str) {
        assert_eq!(client(headers), expected);
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client() {
        let headers = [(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.1"))].into_iter().collect();
        let peer = "203.0.113.1".parse().unwrap();
        assert_eq!(client_address(peer, &headers, &TrustedProxies(vec!["10.0.0.0/8".parse().unwrap()])), peer);
        assert_eq!(client_address(peer, &headers, &TrustedProxies::default()), peer);
    }
}
