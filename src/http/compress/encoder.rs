//! Encoders. Their windows are small: a window is memory that the client holds for as long as it reads, and records repeat
//! themselves within a few kilobytes.

use std::io::{self, Write};

use axum::BoxError;
use axum::body::{Body, BodyDataStream, HttpBody};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG};
use axum::response::Response;
use bytes::Bytes;
use flate2::write::GzEncoder;
use futures::{FutureExt, Stream, StreamExt, stream};

use super::Coding;
use crate::http::problem::Problem;
use crate::store::{self, MemoryPool, MemoryReservation};

/// The bytes that are compressed at a time: some milliseconds of work. Other tasks run between two pieces.
const PIECE_BYTES: usize = 64 * 1024;

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

pub fn encode_response(coding: Coding, memory: &MemoryPool, response: Response) -> Result<Response, Problem> {
    let failed = |error: io::Error| store::Error::broken("a response cannot be compressed").with_source(error);
    let size = response.body().size_hint().exact();
    let (mut head, body) = response.into_parts();
    let mut body = body.into_data_stream();
    let body = if size.is_some_and(|size| size <= PIECE_BYTES as u64) {
        // A body with a known size is one chunk, which is ready.
        let whole = body.next().now_or_never().flatten().and_then(Result::ok).unwrap_or_default();
        let mut encoder = coding.encoder().map_err(failed)?;
        Body::from(encoder.write_all(&whole).and_then(|()| encoder.finish()).map_err(failed)?)
    } else {
        let mut reservation = memory.reservation();
        reservation.try_grow(coding.memory_bytes())?;
        Body::from_stream(encoded(body, coding.encoder().map_err(failed)?, reservation))
    };
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    if let Some(tag) = head.headers.get(ETAG)
        // The body is no longer the same byte for byte.
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        head.headers.insert(ETAG, weak);
    }
    Ok(Response::from_parts(head, body))
}

impl Coding {
    /// The memory that an encoder takes, measured as resident memory of many of them.
    fn memory_bytes(self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Gzip => 360 * 1024,
            #[cfg(feature = "compression")]
            Self::Brotli => 1600 * 1024,
            #[cfg(feature = "compression")]
            Self::Zstd => 600 * 1024,
        }
    }

    fn encoder(self) -> io::Result<Box<dyn Encoder>> {
        Ok(match self {
            Self::Identity => Box::new(Vec::new()),
            Self::Gzip => Box::new(GzEncoder::new(Vec::new(), flate2::Compression::default())),
            #[cfg(feature = "compression")]
            Self::Brotli => {
                let params = brotli::enc::BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: BROTLI_WINDOW_LOG,
                    ..Default::default()
                };
                Box::new(brotli::CompressorWriter::with_params(Vec::new(), BUFFER_BYTES, &params))
            }
            #[cfg(feature = "compression")]
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW_LOG)?;
                Box::new(encoder)
            }
        })
    }
}

trait Encoder: Write + Send {
    /// The bytes that are ready to be sent.
    fn output(&mut self) -> &mut Vec<u8>;

    /// The rest of the bytes.
    fn finish(self: Box<Self>) -> io::Result<Vec<u8>>;
}

macro_rules! encoder {
    ($encoder:ty, $output:ident, $finish:expr) => {
        impl Encoder for $encoder {
            fn output(&mut self) -> &mut Vec<u8> {
                self.$output()
            }

            fn finish(self: Box<Self>) -> io::Result<Vec<u8>> {
                $finish(*self)
            }
        }
    };
}

encoder!(Vec<u8>, as_mut, Ok);
encoder!(GzEncoder<Vec<u8>>, get_mut, Self::finish);
#[cfg(feature = "compression")]
encoder!(brotli::CompressorWriter<Vec<u8>>, get_mut, |encoder: Self| Ok(encoder.into_inner()));
#[cfg(feature = "compression")]
encoder!(zstd::stream::write::Encoder<'static, Vec<u8>>, get_mut, Self::finish);

/// The bytes of `body`, compressed a piece at a time: a record may have 16 MiB, which takes seconds.
fn encoded(
    body: BodyDataStream,
    encoder: Box<dyn Encoder>,
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
            state.encoder.write_all(&piece)?;
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
    encoder: Box<dyn Encoder>,
    _reservation: MemoryReservation,
}
