//! The codings: which one a client prefers, and their encoders.
//!
//! Their windows are small: a window is memory that the client holds for as long as it reads, and records repeat themselves
//! within a few kilobytes.

use std::io::{self, Write};

use axum::BoxError;
use axum::body::BodyDataStream;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;
use bytes::Bytes;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt, stream};

use super::PIECE_BYTES;
use crate::http::accept::ranges;
use crate::store::MemoryReservation;

/// In ascending order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    #[cfg(feature = "compression")]
    Brotli,
    #[cfg(feature = "compression")]
    Zstd,
}

#[cfg(feature = "compression")]
const CODINGS: &[Coding] = &[Coding::Identity, Coding::Gzip, Coding::Brotli, Coding::Zstd];
#[cfg(not(feature = "compression"))]
const CODINGS: &[Coding] = &[Coding::Identity, Coding::Gzip];

/// The windows, as powers of two: 64 KiB and 128 KiB.
#[cfg(feature = "compression")]
const BROTLI_WINDOW_LOG: i32 = 16;
#[cfg(feature = "compression")]
const ZSTD_WINDOW_LOG: u32 = 17;

/// The default of 11 is far too slow for a stream, and 5 takes 34 MB for each encoder.
#[cfg(feature = "compression")]
const BROTLI_QUALITY: i32 = 4;

/// On records, 1 compresses better than the default of 3 with a small window, in less than half of the memory.
#[cfg(feature = "compression")]
const ZSTD_LEVEL: i32 = 1;

/// The buffer between Brotli's encoder and its output.
#[cfg(feature = "compression")]
const BUFFER_BYTES: usize = 4 * 1024;

/// The acceptable coding with the highest weight
/// ([RFC 9110, section 12.5.3](https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3)).
pub fn choose(headers: &HeaderMap) -> Option<Coding> {
    let weight_of = |coding: &Coding| {
        let weight = |name: &str| {
            let mut ranges = headers.get_all(ACCEPT_ENCODING).iter().flat_map(ranges);
            ranges.find(|(range, _)| range.eq_ignore_ascii_case(name)).map(|(_, weight)| weight)
        };
        let alias = (*coding == Coding::Gzip).then(|| weight("x-gzip")).flatten();
        // A client that does not mention the plain form takes it, if there is nothing that it prefers.
        let default = u16::from(*coding == Coding::Identity);
        weight(coding.name()).or(alias).or_else(|| weight("*")).unwrap_or(default)
    };
    CODINGS.iter().copied().filter(|coding| weight_of(coding) > 0).max_by_key(weight_of)
}

impl Coding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            #[cfg(feature = "compression")]
            Self::Brotli => "br",
            #[cfg(feature = "compression")]
            Self::Zstd => "zstd",
        }
    }

    /// The memory that an encoder takes, by the resident memory of many of them.
    pub fn memory_bytes(self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Gzip => 360 * 1024,
            #[cfg(feature = "compression")]
            Self::Brotli => 1600 * 1024,
            #[cfg(feature = "compression")]
            Self::Zstd => 600 * 1024,
        }
    }

    pub fn encoder(self) -> io::Result<Encoder> {
        Ok(match self {
            Self::Identity => Encoder::Identity(Vec::new()),
            Self::Gzip => Encoder::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default())),
            #[cfg(feature = "compression")]
            Self::Brotli => {
                let params = brotli::enc::BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: BROTLI_WINDOW_LOG,
                    ..Default::default()
                };
                Encoder::Brotli(Box::new(brotli::CompressorWriter::with_params(Vec::new(), BUFFER_BYTES, &params)))
            }
            #[cfg(feature = "compression")]
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW_LOG)?;
                Encoder::Zstd(encoder)
            }
        })
    }

    /// All of `bytes`, compressed.
    pub fn encode(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut encoder = self.encoder()?;
        encoder.writer().write_all(bytes)?;
        encoder.finish()
    }
}

pub enum Encoder {
    Identity(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    #[cfg(feature = "compression")]
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    #[cfg(feature = "compression")]
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Identity(out) => out,
            Self::Gzip(encoder) => encoder,
            #[cfg(feature = "compression")]
            Self::Brotli(encoder) => encoder,
            #[cfg(feature = "compression")]
            Self::Zstd(encoder) => encoder,
        }
    }

    /// The bytes that are ready to be sent.
    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Identity(out) => out,
            Self::Gzip(encoder) => encoder.get_mut(),
            #[cfg(feature = "compression")]
            Self::Brotli(encoder) => encoder.get_mut(),
            #[cfg(feature = "compression")]
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            #[cfg(feature = "compression")]
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            #[cfg(feature = "compression")]
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// The bytes of `body`, compressed a piece at a time: a record may have 16 MiB, which takes seconds.
pub fn encoded(
    body: BodyDataStream,
    encoder: Encoder,
    reservation: MemoryReservation,
) -> impl Stream<Item = Result<Bytes, BoxError>> {
    let start = Encoded { body, rest: Bytes::new(), encoder, _reservation: reservation };
    stream::try_unfold(Some(start), |state: Option<Encoded>| async move {
        let Some(mut state) = state else { return Ok(None) };
        loop {
            if state.rest.is_empty() {
                match state.body.next().await.transpose()? {
                    Some(data) => state.rest = data,
                    None => return Ok(Some((state.encoder.finish()?.into(), None))),
                }
            }
            let length = state.rest.len().min(PIECE_BYTES);
            let piece = state.rest.split_to(length);
            state.encoder.writer().write_all(&piece)?;
            tokio::task::yield_now().await;
            let output = std::mem::take(state.encoder.output());
            if !output.is_empty() {
                return Ok(Some((output.into(), Some(state))));
            }
        }
    })
}

struct Encoded {
    body: BodyDataStream,
    /// The part of the last data that is not compressed yet.
    rest: Bytes,
    encoder: Encoder,
    _reservation: MemoryReservation,
}
