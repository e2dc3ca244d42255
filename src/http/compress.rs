//! Content codings: gzip, Brotli, Zstandard, as far as they are compiled in.
//!
//! tower-http's `CompressionLayer` does not bound the memory of its encoders, and never answers 406. Called by the handlers and
//! not a layer: a response to `HEAD` has the headers of `GET` only while it still has its body.

#[cfg(feature = "gzip")]
mod encoder;

use axum::body::HttpBody;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use axum::response::Response;

use super::accept::ranges;
use super::problem::Problem;
use crate::store::MemoryPool;

/// A smaller body gains nothing: it fits into one packet with its head, and the codings have heads of their own.
const MIN_BYTES: u64 = 1024;

/// In ascending order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    #[cfg(feature = "gzip")]
    Gzip,
    #[cfg(feature = "compression")]
    Brotli,
    #[cfg(feature = "compression")]
    Zstd,
}

const CODINGS: &[Coding] = &[
    Coding::Identity,
    #[cfg(feature = "gzip")]
    Coding::Gzip,
    #[cfg(feature = "compression")]
    Coding::Brotli,
    #[cfg(feature = "compression")]
    Coding::Zstd,
];

impl Coding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            #[cfg(feature = "gzip")]
            Self::Gzip => "gzip",
            #[cfg(feature = "compression")]
            Self::Brotli => "br",
            #[cfg(feature = "compression")]
            Self::Zstd => "zstd",
        }
    }

    /// The weight that the client gives to this coding, in thousandths; 0 when it does not accept it
    /// ([RFC 9110, section 12.5.3](https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3)).
    pub fn weight(self, headers: &HeaderMap) -> u16 {
        let weight = |name: &str| {
            let mut ranges = headers.get_all(ACCEPT_ENCODING).iter().flat_map(ranges);
            ranges.find(|(range, _)| range.eq_ignore_ascii_case(name)).map(|(_, weight)| weight)
        };
        let alias = (self.name() == "gzip").then(|| weight("x-gzip")).flatten();
        // A client that does not mention the identity accepts it, as the last resort.
        let default = u16::from(self == Self::Identity);
        weight(self.name()).or(alias).or_else(|| weight("*")).unwrap_or(default)
    }
}

/// The response in the coding that the client prefers.
///
/// A body of one piece is compressed at once. A larger one is compressed while it is sent; `memory` then counts what the
/// encoder needs.
///
/// # Errors
///
/// 406, when the client accepts no coding of this build and no identity; 503, when the memory for responses is used up.
#[cfg_attr(not(feature = "gzip"), expect(unused_variables))]
pub fn compressed(memory: &MemoryPool, headers: &HeaderMap, response: Response) -> Result<Response, Problem> {
    if !headers.contains_key(ACCEPT_ENCODING) || response.headers().contains_key(CONTENT_ENCODING) {
        return Ok(response);
    }
    let is_small = response.body().size_hint().exact().is_some_and(|size| size < MIN_BYTES);
    let acceptable = CODINGS.iter().map(|coding| (*coding, coding.weight(headers))).filter(|(_, weight)| *weight > 0);
    let preferred = acceptable.max_by_key(|&(coding, weight)| (is_small && coding == Coding::Identity, weight));
    match preferred {
        Some((Coding::Identity, _)) => Ok(response),
        #[cfg(feature = "gzip")]
        Some((coding, _)) => encoder::encode_response(coding, memory, response),
        None => {
            let names: Vec<_> = CODINGS.iter().map(|coding| coding.name()).collect();
            let detail = format!("None of the codings in `Accept-Encoding` is available: use {}.", names.join(", "));
            Err(Problem::not_acceptable("Accept-Encoding", detail))
        }
    }
}
