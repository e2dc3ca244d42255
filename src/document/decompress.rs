//! Decompression, as far as the build has the libraries: the ones that compress responses.

use std::io::{self, Read};
#[cfg(feature = "gzip")]
use std::io::{BufRead, BufReader};

use super::format::Format::{self, Gzip, Zstd};

#[cfg(feature = "gzip")]
const BUFFER_BYTES: usize = 256 * 1024;

/// The remedies of damage.
pub const GET_WHOLE: &str = "the file ends early, or is corrupted: get the whole file, and import that";
pub const GET_ANOTHER: &str = "any value in it may be wrong, so get another copy of the file, and import that";

/// The reason why compressed data cannot be read on.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the {format} data is {problem}: {remedy}")]
pub struct Damage {
    pub format: &'static str,
    pub problem: &'static str,
    pub remedy: &'static str,
}

/// Decompresses `input`. Errors of the compressed data, other than those of `input`, hold a [`Damage`].
///
/// # Errors
///
/// When the library cannot start.
pub fn decompress<'a>(format: Format, input: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    #[cfg(feature = "gzip")]
    if let Gzip | Zstd = format {
        return Ok(Box::new(Members {
            format,
            member: Some(Member::new(format, BufReader::with_capacity(BUFFER_BYTES, input))?),
        }));
    }
    let _ = format;
    Ok(input)
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

/// A compressed file: members of gzip, or frames of Zstandard, one after the other.
#[cfg(feature = "gzip")]
struct Members<R: BufRead> {
    format: Format,
    /// `None` after the last one.
    member: Option<Member<R>>,
}

#[cfg(feature = "gzip")]
enum Member<R: BufRead> {
    Gzip(flate2::bufread::GzDecoder<R>),
    #[cfg(feature = "compression")]
    Zstd(zstd::Decoder<'static, R>),
}

#[cfg(feature = "gzip")]
impl<R: BufRead> Member<R> {
    fn new(format: Format, input: R) -> io::Result<Self> {
        Ok(match format {
            // The memory of a window is at most 128 MiB, the decoder's own limit.
            #[cfg(feature = "compression")]
            Zstd => Self::Zstd(zstd::Decoder::with_buffer(input)?.single_frame()),
            _ => Self::Gzip(flate2::bufread::GzDecoder::new(input)),
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            #[cfg(feature = "compression")]
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }

    fn input(&mut self) -> &mut R {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            #[cfg(feature = "compression")]
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }

    fn into_input(self) -> R {
        match self {
            Self::Gzip(decoder) => decoder.into_inner(),
            #[cfg(feature = "compression")]
            Self::Zstd(decoder) => decoder.finish(),
        }
    }
}

#[cfg(feature = "gzip")]
impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer).map_err(|error| damage(self.format, error))?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match (self.format, member.input().fill_buf()?.first()) {
                (_, None) => self.member = None,
                (Gzip, Some(0x1f)) | (Zstd, Some(0x28 | 0x50..=0x5f)) => {
                    let input = self.member.take().map(Member::into_input);
                    self.member = input.map(|input| Member::new(self.format, input)).transpose()?;
                }
                _ => return Err(damaged(self.format, "followed by other bytes", "remove them")),
            }
        }
        Ok(0)
    }
}

/// Explains an error of a decoder. Errors of the input under it stay as they are.
#[cfg(feature = "gzip")]
fn damage(format: Format, error: io::Error) -> io::Error {
    let text = error.to_string();
    match error.kind() {
        _ if error.raw_os_error().is_some() => error,
        io::ErrorKind::UnexpectedEof => damaged(format, "truncated", GET_WHOLE),
        // The texts of the Zstandard library, which has no codes for them here.
        _ if text.contains("Dictionary") => {
            damaged(format, "compressed with a dictionary", "decompress it first (unzstd -D)")
        }
        _ if text.contains("too much memory") => {
            damaged(format, "compressed with a window of more than 128 MiB", "decompress it first (unzstd --long=31)")
        }
        // The checksum is at the end, so that nothing before it is certain.
        _ => damaged(format, "corrupted, which shows", GET_ANOTHER),
    }
}

#[cfg(feature = "gzip")]
fn damaged(format: Format, problem: &'static str, remedy: &'static str) -> io::Error {
    let format = if format == Zstd { "Zstandard" } else { "gzip" };
    io::Error::new(io::ErrorKind::InvalidData, Damage { format, problem, remedy })
}
