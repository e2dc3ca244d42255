//! Decompression, as far as the build has the libraries: the ones that compress responses.

use std::io::{self, Read};

use super::format::Format::{self, Gzip, Zstd};

#[cfg(feature = "gzip")]
const BUFFER_BYTES: usize = 256 * 1024;

/// Decompresses `input`.
///
/// # Errors
///
/// When this build cannot, or when the beginning is damaged.
pub fn decompress<'a>(format: Format, input: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    match format {
        #[cfg(feature = "gzip")]
        Gzip => Ok(Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(BUFFER_BYTES, input)))),
        // The memory of a window is at most 128 MiB, the decoder's own limit.
        #[cfg(feature = "compression")]
        Zstd => Ok(Box::new(zstd::Decoder::new(input)?)),
        _ => Ok(input),
    }
}

/// The feature that this build lacks to decompress the format.
pub fn missing_feature(format: Format) -> Option<&'static str> {
    match format {
        Gzip if !cfg!(feature = "gzip") => Some(
            "compressed by gzip, which this build does not read: decompress it (gunzip), or build with --features gzip",
        ),
        Zstd if !cfg!(feature = "compression") => Some(
            "compressed by Zstandard, which this build does not read: decompress it (unzstd), or build with --features \
             compression",
        ),
        _ => None,
    }
}
