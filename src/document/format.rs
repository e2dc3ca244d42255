//! Detects the format of a file by its first bytes, and decodes UTF-16.

use std::io::{self, Read};

use bson::spec::ElementType;

use super::MAX_BYTES_WITH_ID;

/// The number of bytes to look at: the signature of a tar archive ends after 262.
pub const HEAD_BYTES: usize = 512;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Extended JSON in UTF-8, as far as the first bytes say.
    Json,
    /// UTF-8 after a byte order mark of this many bytes.
    Marked(usize),
    Utf16 {
        big_endian: bool,
    },
    Bson,
    Gzip,
    Zstd,
    /// A format that the importer cannot read; the text names it, and says what to do.
    Unsupported(&'static str),
}

use Format::{Gzip, Marked, Unsupported, Utf16, Zstd};

/// The signatures of files: an offset, the bytes there, and the format. The first match counts.
const SIGNATURES: &[(usize, &[u8], Format)] = &[
    (0, b"\xef\xbb\xbf", Marked(3)),
    (0, b"\xff\xfe\0\0", Unsupported("UTF-32: convert it to UTF-8")),
    (0, b"\0\0\xfe\xff", Unsupported("UTF-32: convert it to UTF-8")),
    (0, b"\xff\xfe", Utf16 { big_endian: false }),
    (0, b"\xfe\xff", Utf16 { big_endian: true }),
    (0, b"\x1f\x8b", Gzip),
    (0, b"\x28\xb5\x2f\xfd", Zstd),
    // A skippable frame, with which pzstd begins.
    (1, b"\x2a\x4d\x18", Zstd),
    (0, b"PK\x03\x04", Unsupported("a ZIP archive (or a spreadsheet in one): unpack it first")),
    (0, b"PK\x05\x06", Unsupported("an empty ZIP archive")),
    (0, b"BZh", Unsupported("compressed by bzip2: decompress it first")),
    (0, b"\xfd7zXZ\0", Unsupported("compressed by xz: decompress it first")),
    (0, b"\x04\x22\x4d\x18", Unsupported("compressed by lz4: decompress it first")),
    (0, b"\xff\x06\0\0sNaPpY", Unsupported("compressed by snappy: decompress it first")),
    (0, b"\x1f\x9d", Unsupported("compressed by compress: decompress it first")),
    (0, b"LZIP", Unsupported("compressed by lzip: decompress it first")),
    (0, b"7z\xbc\xaf\x27\x1c", Unsupported("a 7z archive: unpack it first")),
    (0, b"Rar!\x1a\x07", Unsupported("a RAR archive: unpack it first")),
    (257, b"ustar", Unsupported("a tar archive: unpack it first")),
    (0, b"SQLite format 3\0", Unsupported("an SQLite database: export its tables as JSON (sqlite3 -json)")),
    (0, b"PAR1", Unsupported("a Parquet file: convert it to JSON first")),
    (0, b"ORC", Unsupported("an ORC file: convert it to JSON first")),
    (0, b"Obj\x01", Unsupported("an Avro file: convert it to JSON first (avro tojson)")),
    (0, b"ARROW1", Unsupported("an Arrow file: convert it to JSON first")),
    (0, b"FEA1", Unsupported("a Feather file: convert it to JSON first")),
    (0, b"\x89HDF\r\n", Unsupported("an HDF5 file: convert it to JSON first")),
    (0, b"\x93NUMPY", Unsupported("a NumPy array: convert it to JSON first")),
    (0, b"\x80\x03", Unsupported("a Python pickle: write it as JSON instead")),
    (0, b"\x80\x04\x95", Unsupported("a Python pickle: write it as JSON instead")),
    (0, b"\x80\x05\x95", Unsupported("a Python pickle: write it as JSON instead")),
    (0, b"\x6d\xe2\x99\x81", Unsupported("an archive of mongodump: use mongorestore, or mongodump without --archive")),
    (0, b"\xd0\xcf\x11\xe0", Unsupported("an Office document: export it as JSON first")),
    (0, b"{\\rtf", Unsupported("a rich text document (RTF): save it as plain text")),
    (0, b"%PDF", Unsupported("a PDF document")),
    (0, b"\x89PNG", Unsupported("a picture (PNG)")),
    (0, b"\xff\xd8\xff", Unsupported("a picture (JPEG)")),
    (0, b"GIF8", Unsupported("a picture (GIF)")),
    (0, b"\x7fELF", Unsupported("a program")),
    (0, b"version https://git-lfs", Unsupported("a pointer of Git LFS, not the file itself: run git lfs pull")),
    (0, b"<", Unsupported("XML or HTML: convert it to JSON first")),
    (0, b"---\n", Unsupported(YAML)),
    (0, b"---\r\n", Unsupported(YAML)),
    (0, b"--- ", Unsupported(YAML)),
    (0, b"%YAML", Unsupported(YAML)),
    (0, b"- ", Unsupported(YAML)),
    (0, b"-- ", Unsupported(SQL)),
    (0, b"--\n", Unsupported(SQL)),
    (0, b"INSERT INTO", Unsupported(SQL)),
    (0, b"CREATE ", Unsupported(SQL)),
    (0, b"DROP ", Unsupported(SQL)),
    (0, b"BEGIN;", Unsupported(SQL)),
    (0, b"BEGIN TRANSACTION", Unsupported(SQL)),
    (0, b"PRAGMA ", Unsupported(SQL)),
    (0, b"/*!", Unsupported(SQL)),
    (0, b"const ", Unsupported(PROGRAM)),
    (0, b"let ", Unsupported(PROGRAM)),
    (0, b"var ", Unsupported(PROGRAM)),
    (0, b"export ", Unsupported(PROGRAM)),
    (0, b"import ", Unsupported(PROGRAM)),
    (0, b"from ", Unsupported(PROGRAM)),
    (0, b"module.exports", Unsupported(PROGRAM)),
    (0, b"#!", Unsupported(PROGRAM)),
    (0, b"HTTP/", Unsupported("an HTTP response: save its body alone")),
    (0, b"db.", Unsupported(SCRIPT)),
    (0, b"use ", Unsupported(SCRIPT)),
];

const YAML: &str = "YAML: convert it to JSON first";
const SQL: &str = "SQL: export the tables as JSON instead";
const PROGRAM: &str = "a program, not data: write its data as JSON";
const SCRIPT: &str = "a script of the MongoDB shell: run it by mongosh, and export by mongoexport";
const CSV: &str = "CSV or another table of text: convert it to JSON first (mongoimport --type=csv takes it)";
const TEXT: &str = "a text without documents: in JSON a document begins with {";
const BINARY: &str = "a binary file of an unknown kind: Extended JSON and BSON are taken";

/// The longest document that is read from a BSON file: a little more than MongoDB stores, so that a too large document gets a
/// message about its size.
pub const MAX_BSON_BYTES: usize = MAX_BYTES_WITH_ID;

impl Format {
    /// Detects the format from the first [`HEAD_BYTES`], or from all bytes if there are fewer.
    pub fn detect(head: &[u8]) -> Self {
        let matches = |offset: usize, bytes: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(bytes));
        // Only texts may begin with white space.
        let text = head.trim_ascii_start();
        // The length at the beginning of BSON may look like any signature, but hardly like the first three bytes of gzip.
        if bson_name(head).is_some_and(|name| !name.is_empty()) && !head.starts_with(b"\x1f\x8b\x08") {
            return Self::Bson;
        }
        let signature = SIGNATURES.iter().find(|(offset, bytes, format)| {
            let is_text = matches!(format, Unsupported(_)) && bytes.is_ascii() && !bytes.contains(&0) && *offset == 0;
            matches(*offset, bytes) || (is_text && text.starts_with(bytes))
        });
        match signature {
            Some((.., format)) => *format,
            None => match utf16_without_mark(head) {
                Some(big_endian) => Utf16 { big_endian },
                None if is_bson(head) => Self::Bson,
                None if is_binary(head) => Unsupported(BINARY),
                None if is_table(text) => Unsupported(CSV),
                None if is_text_without_documents(text) => Unsupported(TEXT),
                None => Self::Json,
            },
        }
    }
}

/// Returns true if the head has a plausible document length and element type, which no text has.
fn is_bson(head: &[u8]) -> bool {
    head.starts_with(b"\x05\0\0\0\0") || bson_name(head).is_some()
}

/// Returns the name of the first element; `None` if the head is no BSON, or an empty document.
fn bson_name(head: &[u8]) -> Option<&str> {
    let [a, b, c, d, kind, rest @ ..] = head else { return None };
    let length = usize::try_from(i32::from_le_bytes([*a, *b, *c, *d])).ok()?;
    ElementType::from(*kind).filter(|_| (6..=MAX_BSON_BYTES).contains(&length))?;
    let end = memchr::memchr(0, rest)?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    (!name.bytes().any(|byte| byte.is_ascii_control())).then_some(name)
}

/// Returns the byte order if the head is ASCII in UTF-16 that begins a JSON text. BSON is not mistaken for it: after a length that
/// looks like two such characters come a type and a name.
fn utf16_without_mark(head: &[u8]) -> Option<bool> {
    let begins = |byte: u8| matches!(byte, b'{' | b'[' | b' ' | b'\n' | b'\r' | b'\t');
    match head {
        [first, 0, second, 0, _, 0, ..] if begins(*first) && *second != 0 => Some(false),
        [0, first, 0, second, ..] if begins(*first) && *second != 0 => Some(true),
        _ => None,
    }
}

fn is_binary(head: &[u8]) -> bool {
    let is_control = |byte: &u8| *byte < b' ' && !byte.is_ascii_whitespace();
    // Escape sequences and record separators occur in texts as well.
    head.iter().filter(|byte| is_control(byte)).any(|byte| !matches!(byte, 0x1b | 0x1e | 0x0b | 0x08))
        && !matches!(head.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Returns true for two lines with a separator each, or one line with several.
fn is_table(text: &[u8]) -> bool {
    if matches!(text.first(), None | Some(b'{' | b'[' | b'\'')) {
        return false;
    }
    let separators = |line: &[u8]| line.iter().filter(|byte| matches!(byte, b',' | b';' | b'\t' | b'|')).count();
    let has_bracket = |line: &[u8]| line.iter().any(|byte| matches!(byte, b'{' | b'['));
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| (separators(line), has_bracket(line)));
    match (lines.next(), lines.next()) {
        (Some((first, false)), Some((second, _))) => first > 0 && second > 0,
        (Some((first, false)), None) => first > 1,
        _ => false,
    }
}

/// Returns true for lines without a bracket. A single one may be followed by documents, and so may a comment; other texts that begin
/// as values do have an error of their own.
fn is_text_without_documents(text: &[u8]) -> bool {
    let begins_as_text = text.first().is_some_and(|first| !matches!(first, b'"' | b'/' | b'#' | b'-' | b'0'..=b'9'));
    begins_as_text && text.trim_ascii_end().contains(&b'\n') && !text.iter().any(|byte| matches!(byte, b'{' | b'['))
}

/// Reads UTF-16 as UTF-8.
pub struct Utf16Reader<R> {
    input: R,
    big_endian: bool,
    /// Bytes that are not decoded yet.
    raw: Vec<u8>,
    text: Vec<u8>,
    /// The number of bytes of `text` that were returned.
    passed: usize,
}

impl<R> Utf16Reader<R> {
    pub fn new(input: R, big_endian: bool) -> Self {
        Self { input, big_endian, raw: Vec::new(), text: Vec::new(), passed: 0 }
    }

    /// Decodes the bytes read so far, except an incomplete pair of surrogates. `is_end` tells that nothing follows.
    fn decode(&mut self, is_end: bool) -> io::Result<()> {
        let unit = |pair: &[u8]| {
            let pair = [pair[0], pair[1]];
            if self.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
        };
        let mut units: Vec<u16> = self.raw.chunks_exact(2).map(unit).collect();
        if !is_end && units.last().is_some_and(|last| (0xd800..0xdc00).contains(last)) {
            units.pop();
        }
        if is_end && !self.raw.len().is_multiple_of(2) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the UTF-16 text ends in the middle of a character",
            ));
        }
        self.raw.drain(..units.len() * 2);
        self.text.clear();
        self.passed = 0;
        for character in char::decode_utf16(units) {
            let character = character.map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, "the UTF-16 text has half a pair of surrogates in it")
            })?;
            self.text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}

impl<R: Read> Read for Utf16Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.passed == self.text.len() {
            let mut raw = [0; 64 * 1024];
            let count = self.input.read(&mut raw)?;
            self.raw.extend_from_slice(&raw[..count]);
            self.decode(count == 0)?;
            if count == 0 && self.text.is_empty() {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.text.len() - self.passed);
        buffer[..count].copy_from_slice(&self.text[self.passed..self.passed + count]);
        self.passed += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, MAX_BSON_BYTES};

    #[test]
    fn bson_is_known_whatever_its_length_looks_like() {
        // The beginning of gzip.
        let is_ambiguous = |length: usize| length & 0xff_ffff == 0x08_8b1f;
        let lengths = (13..=70_000).chain((70_000..MAX_BSON_BYTES).step_by(101));
        for length in lengths.filter(|length| !is_ambiguous(*length)) {
            let head = [&(length as i32).to_le_bytes(), &b"\x02_id\0\x02\0\0\0x\0"[..]].concat();
            assert_eq!(Format::detect(&head), Format::Bson, "{length} bytes");
        }
    }

    #[test]
    fn what_begins_like_the_length_of_bson_is_still_known() {
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        for (head, format) in [
            (b"\x1f\x8b\x08\0\x02\x61\x62\x63\0\x03".to_vec(), Format::Gzip),
            (utf16("{\n\"_id\":1}"), Format::Utf16 { big_endian: false }),
            (utf16("\u{feff}{\n\"_id\":1}"), Format::Utf16 { big_endian: false }),
            (utf16("\u{feff}[\r\n{\"_id\":1}]"), Format::Utf16 { big_endian: false }),
            (b"\x05\0\0\0\0".to_vec(), Format::Bson),
        ] {
            assert_eq!(Format::detect(&head), format, "{head:?}");
        }
    }
}
