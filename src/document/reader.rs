//! Splits a file into documents, in bounded memory: Extended JSON (documents on lines, over several lines or several on one
//! line, and arrays of them), or BSON as `mongodump` or a fallback replica has it; in UTF-8 or UTF-16, plain or compressed.
//! The first bytes decide: see `format`.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Cursor, Read};
use std::rc::Rc;

use super::decompress::{self, Damage};
use super::extended_json::{self, Error as JsonError};
use super::format::{Format, HEAD_BYTES, MAX_BSON_BYTES, Utf16Reader};
use super::replica_file::{Part, ReplicaCheck};
use super::{MissingId, ValidationError, validate_bson};
use crate::record::Document;

/// The longest text of one document, in bytes. Canonical Extended JSON of a document of 16 MiB fits; a file that is one
/// endless line, or unpacks to one, does not take the memory with it.
pub const MAX_TEXT_BYTES: usize = 128 * 1024 * 1024;

/// The size of a read, and the memory for documents of a usual size.
const BUFFER_BYTES: usize = 256 * 1024;

/// The longest line that is read as a whole. The end of a document on a longer line is found by its brackets.
const LINE_BYTES: usize = 1024 * 1024;

/// The deepest nesting of brackets that is followed to find the end of a document. A deeper document is invalid anyway.
const MAX_BRACKETS: usize = 1_000_000;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Both count from 1. The column counts bytes; `None` if the reason concerns the whole line.
    Line { line: u64, column: Option<usize> },
    /// The offset of a document in a BSON file.
    Byte(u64),
    /// The file as a whole.
    File,
}

/// A text that is no document, and its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDocument {
    pub place: Place,
    pub reason: String,
}

impl fmt::Display for InvalidDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = &self.reason;
        match self.place {
            Place::Line { line, column: Some(column) } => write!(f, "line {line}, column {column}: {reason}"),
            Place::Line { line, column: None } => write!(f, "line {line}: {reason}"),
            Place::Byte(offset) => write!(f, "the document at byte {offset}: {reason}"),
            Place::File => write!(f, "the file: {reason}"),
        }
    }
}

/// Iterates over the documents in the order of the file. The outer error is the input's (it cannot be read on); the inner
/// one is a single invalid document. Reading goes on after it, if the next document is certain to be one.
pub struct Documents<'a> {
    window: Window<'a>,
    is_compressed: bool,
    form: Form,
    missing_id: MissingId,
    /// Set in the stream of a replica, once its header was read.
    replica: Option<ReplicaCheck>,
    /// True once a document was accepted.
    has_documents: bool,
    /// True once a document had several lines, so that the end of a line is not the end of a document.
    has_long_documents: bool,
    /// The number of documents until now, with the invalid ones.
    count: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Nothing was read yet.
    Unknown,
    Documents,
    /// Inside an array; `first` until its first element, after which a comma stands before each.
    Array {
        first: bool,
    },
    Bson,
    Ended,
}

/// The end of the document at the start of a text.
enum Extent {
    Closed(usize),
    /// The brackets do not match, or the text ends before they do.
    Open,
    TooLong,
}

/// The damage of a replica, and the remedy.
const TRUNCATED: (&str, &str) = ("truncated", decompress::GET_WHOLE);
const DAMAGED: (&str, &str) = ("corrupted, which shows", decompress::GET_ANOTHER);

/// The outcome of one document.
type Outcome = Result<Document, InvalidDocument>;

impl<'a> Documents<'a> {
    pub fn new(input: impl Read + 'a) -> Self {
        Self::with_missing_id(input, MissingId::Refuse)
    }

    pub fn with_missing_id(input: impl Read + 'a, missing_id: MissingId) -> Self {
        Self {
            window: Window::new(input),
            is_compressed: false,
            form: Form::Unknown,
            missing_id,
            replica: None,
            has_documents: false,
            has_long_documents: false,
            count: 0,
        }
    }

    /// Returns the number of bytes read from the input, which may be compressed.
    pub fn bytes(&self) -> u64 {
        self.window.raw_bytes.get()
    }

    /// Returns true if a document got a generated `_id`, which would be another one in a second import.
    pub fn has_generated_ids(&self) -> bool {
        matches!(self.missing_id, MissingId::Generate { count: 1.. })
    }

    /// Returns true for a replica that lacks fields or records, which its service did not show.
    pub fn is_partial(&self) -> bool {
        self.replica.as_ref().is_some_and(|replica| replica.is_partial)
    }

    /// Detects the format, and sets up its decoder.
    fn start(&mut self) -> io::Result<Option<InvalidDocument>> {
        loop {
            self.window.fill_head();
            let head = &self.window.rest()[..self.window.rest().len().min(HEAD_BYTES)];
            let format = Format::detect(head);
            let unsupported = match format {
                Format::Unsupported(what) => Some(what.to_owned()),
                Format::Gzip | Format::Zstd if self.is_compressed => {
                    Some("compressed twice: decompress it once".to_owned())
                }
                _ => decompress::missing_feature(format).map(str::to_owned),
            };
            if let Some(what) = unsupported {
                // Damaged data may look like anything.
                if let Some(failure) = self.window.failure.take() {
                    return Err(failure);
                }
                self.form = Form::Ended;
                let of = if self.is_compressed { "what is compressed in it" } else { "this" };
                return Ok(Some(InvalidDocument { place: Place::File, reason: format!("{of} is {what}") }));
            }
            match format {
                Format::Gzip | Format::Zstd => {
                    self.is_compressed = true;
                    self.window.decode(|input| decompress::decompress(format, input))?;
                    continue;
                }
                Format::Utf16 { big_endian } => {
                    self.window.decode(|input| Ok(Box::new(Utf16Reader::new(input, big_endian))))?;
                    self.window.fill_head();
                    let mark = "\u{feff}".as_bytes();
                    if self.window.rest().starts_with(mark) {
                        self.window.skip(mark.len());
                    }
                }
                Format::Marked(mark) => {
                    self.window.skip(mark);
                    continue;
                }
                _ => {}
            }
            self.form = if format == Format::Bson { Form::Bson } else { Form::Documents };
            return Ok(None);
        }
    }

    /// Returns an error of compressed data as one of the file, with the place.
    fn explain(&self, error: io::Error) -> io::Result<InvalidDocument> {
        let Some(Damage { format, problem, remedy }) = error.get_ref().and_then(|inner| inner.downcast_ref()) else {
            return Err(error);
        };
        let bytes = self.window.bytes + self.window.rest().len() as u64;
        let reason = format!(
            "the {format} data is {problem} after {} documents ({bytes} bytes decompressed): {remedy}",
            self.count
        );
        Ok(InvalidDocument { place: Place::File, reason })
    }

    fn next_document(&mut self) -> io::Result<Option<Outcome>> {
        match self.window.skip_white_space()? {
            None => {
                self.form = Form::Ended;
                Ok(None)
            }
            Some(b'[') => {
                self.window.consume(1);
                self.form = Form::Array { first: true };
                self.next_element(true)
            }
            Some(b',') => {
                let place = self.window.place_at(0, true);
                self.window.consume(1);
                let reason = "a comma stands between documents: put them into an array, or leave it out".to_owned();
                Ok(Some(Err(InvalidDocument { place, reason })))
            }
            Some(_) => self.read_object(false).map(Some),
        }
    }

    fn next_element(&mut self, first: bool) -> io::Result<Option<Outcome>> {
        let next = self.window.skip_white_space()?;
        match next {
            None => return self.end("the file ends before the array does: `]` is missing"),
            Some(b']') => {
                self.window.consume(1);
                self.form = Form::Documents;
                return self.next_document();
            }
            Some(b',') if !first => {
                let place = self.window.place_at(0, true);
                self.window.consume(1);
                if self.window.skip_white_space()? == Some(b']') {
                    let reason = "a comma stands before the end of the array: JSON has no trailing commas".to_owned();
                    return Ok(Some(Err(InvalidDocument { place, reason })));
                }
            }
            Some(b'{') if !first => {
                self.form = Form::Array { first: true };
                let place = self.window.place_at(0, true);
                let reason = "a comma is missing before this element of the array".to_owned();
                return Ok(Some(Err(InvalidDocument { place, reason })));
            }
            Some(_) if !first => {
                return self.end("a comma is missing between two elements of the array: nothing after it was read");
            }
            Some(_) => {}
        }
        self.form = Form::Array { first: false };
        if self.window.skip_white_space()? == Some(b',') {
            let reason = "an element is missing before this comma: leave the comma out".to_owned();
            return Ok(Some(Err(InvalidDocument { place: self.window.place_at(0, true), reason })));
        }
        self.read_object(true).map(Some)
    }

    /// Reports the last error. Reading on would be a guess, which could produce documents that the file does not have.
    fn end(&mut self, reason: &str) -> io::Result<Option<Outcome>> {
        self.form = Form::Ended;
        let place = Place::Line { line: self.window.line, column: None };
        Ok(Some(Err(InvalidDocument { place, reason: reason.to_owned() })))
    }

    /// Reads the object that begins here.
    fn read_object(&mut self, in_array: bool) -> io::Result<Outcome> {
        // Most documents end on the line that they begin on.
        let line = self.window.line_len(LINE_BYTES)?;
        if let Ok((fields, length)) = extended_json::parse_first(&self.window.rest()[..line]) {
            let place = self.window.place_at(0, false);
            self.window.consume(length);
            return Ok(self.accept(&fields, place));
        }
        match self.extent(in_array)? {
            Extent::Closed(length) => {
                let place = self.window.place_at(0, false);
                let begin = self.window.line;
                let parsed = extended_json::parse_whole(&self.window.rest()[..length]);
                let parsed = parsed.map_err(|error| self.invalid(error));
                self.window.consume(length);
                self.has_long_documents |= self.window.line > begin;
                Ok(parsed.and_then(|fields| self.accept(&fields, place)))
            }
            Extent::Open => {
                let text = &self.window.rest()[..line];
                let is_one_bracket = text.trim_ascii().len() == 1;
                let error = match extended_json::parse_whole(text) {
                    Err(error) => self.invalid(error),
                    Ok(_) => InvalidDocument {
                        place: self.window.place_at(0, false),
                        reason: "its brackets do not match".into(),
                    },
                };
                if in_array || self.has_long_documents || is_one_bracket {
                    self.form = Form::Ended;
                    let reason = format!(
                        "{}, and where the document ends is not certain: nothing after it was read",
                        error.reason
                    );
                    return Ok(Err(InvalidDocument { reason, ..error }));
                }
                self.window.skip_line()?;
                Ok(Err(error))
            }
            Extent::TooLong => {
                let place = self.window.place_at(0, false);
                let mut reason = format!("it is longer than {MAX_TEXT_BYTES} bytes");
                if in_array || self.has_long_documents {
                    self.form = Form::Ended;
                    reason += ": nothing after it was read";
                } else {
                    self.window.skip_line()?;
                }
                Ok(Err(InvalidDocument { place, reason }))
            }
        }
    }

    fn accept(&mut self, fields: &bson::Document, place: Place) -> Outcome {
        let bytes = fields.to_vec().map_err(|error| ValidationError::NotBson(error.to_string()));
        let document = bytes.and_then(|bytes| validate_bson(bytes, &mut self.missing_id));
        self.has_documents |= document.is_ok();
        document.map_err(|error| InvalidDocument { place, reason: error.to_string() })
    }

    /// Returns the error of the text that begins here, and skips that text.
    fn invalid(&mut self, error: JsonError) -> InvalidDocument {
        let place = match error {
            JsonError::Syntax { offset, .. } => self.window.place_at(offset, true),
            _ => self.window.place_at(0, false),
        };
        // A file that begins in another notation has hardly any JSON in it: one message is enough.
        if matches!(error, JsonError::Syntax { is_foreign: true, .. }) && !self.has_documents {
            self.form = Form::Ended;
            return InvalidDocument { place, reason: format!("{error}. Nothing after it was read") };
        }
        InvalidDocument { place, reason: error.to_string() }
    }

    /// Finds the end of the text that begins here.
    fn extent(&mut self, in_array: bool) -> io::Result<Extent> {
        let mut brackets = Brackets::default();
        let mut at = 0;
        loop {
            let rest = self.window.rest();
            loop {
                at += brackets.plain(&rest[at..]);
                let Some(byte) = rest.get(at) else { break };
                match brackets.next(*byte, in_array) {
                    Step::Inside => at += 1,
                    Step::Last => return Ok(Extent::Closed(at + 1)),
                    Step::After => return Ok(Extent::Closed(at)),
                    Step::Broken => return Ok(Extent::Open),
                }
            }
            if rest.len() > MAX_TEXT_BYTES {
                return Ok(Extent::TooLong);
            }
            if !self.window.grow()? {
                return Ok(if brackets.is_balanced() { Extent::Closed(at) } else { Extent::Open });
            }
        }
    }

    fn next_bson(&mut self) -> io::Result<Option<Outcome>> {
        self.window.fill(4)?;
        let place = Place::Byte(self.window.bytes);
        let last = |this: &mut Self, reason: String| {
            this.form = Form::Ended;
            Ok(Some(Err(InvalidDocument { place, reason })))
        };
        let Some(length) = self.window.rest().first_chunk().map(|bytes| i32::from_le_bytes(*bytes)) else {
            return match self.window.rest().len() {
                _ if self.replica.is_some() => self.end_replica(TRUNCATED),
                0 => {
                    self.form = Form::Ended;
                    Ok(None)
                }
                _ => last(self, "the file ends in the middle of it".into()),
            };
        };
        let length = match usize::try_from(length) {
            Ok(length @ 5..=MAX_BSON_BYTES) => length,
            _ if self.replica.is_some() => return self.end_replica(DAMAGED),
            _ => {
                return last(
                    self,
                    format!("its length cannot be {length} bytes, so the rest of the file was not read"),
                );
            }
        };
        self.window.fill(length)?;
        let Some(bytes) = self.window.rest().get(..length).map(<[u8]>::to_vec) else {
            return match self.replica {
                Some(_) => self.end_replica(TRUNCATED),
                None => last(self, "the file ends in the middle of it".into()),
            };
        };
        self.window.skip(length);
        match &mut self.replica {
            None if self.count == 0 => match ReplicaCheck::begin(&bytes) {
                Some(Ok(replica)) => {
                    self.replica = Some(replica);
                    return self.next_bson();
                }
                Some(Err(what)) => return self.end_file(format!("this is {what}")),
                None => {}
            },
            None => {}
            Some(replica) => {
                if let Part::Trailer { is_valid } = replica.next(&bytes) {
                    self.window.fill(1)?;
                    if !is_valid || !self.window.rest().is_empty() {
                        return self.end_replica(DAMAGED);
                    }
                    self.form = Form::Ended;
                    return Ok(None);
                }
            }
        }
        let document = validate_bson(bytes, &mut self.missing_id);
        Ok(Some(document.map_err(|error| InvalidDocument { place, reason: error.to_string() })))
    }

    /// Reports the damage of a replica: what it is, and the remedy.
    fn end_replica(&mut self, (problem, remedy): (&str, &str)) -> io::Result<Option<Outcome>> {
        self.end_file(format!("the fallback replica is {problem} after {} documents: {remedy}", self.count))
    }

    /// Reports an error of the file as a whole.
    fn end_file(&mut self, reason: String) -> io::Result<Option<Outcome>> {
        self.form = Form::Ended;
        Ok(Some(Err(InvalidDocument { place: Place::File, reason })))
    }
}

impl Iterator for Documents<'_> {
    type Item = io::Result<Outcome>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = match self.form {
            Form::Unknown => match self.start() {
                Ok(None) => return self.next(),
                Ok(Some(unsupported)) => Ok(Some(Err(unsupported))),
                Err(error) => Err(error),
            },
            Form::Ended => Ok(None),
            Form::Documents => self.next_document(),
            Form::Array { first } => self.next_element(first),
            Form::Bson => self.next_bson(),
        };
        let ends_early = self.form == Form::Ended && matches!(item, Ok(Some(_)));
        let item = match item {
            // A document may be wrong because the compressed data is corrupted, which the checksum at its end tells.
            Ok(_) if ends_early && self.is_compressed => self.window.skip_rest().and(item),
            item => item,
        };
        let item = item.or_else(|error| {
            self.form = Form::Ended;
            self.explain(error).map(|invalid| Some(Err(invalid)))
        });
        self.count += 1;
        item.transpose()
    }
}

/// The part of the input that is in memory: it begins with the next document.
struct Window<'a> {
    input: Box<dyn Read + 'a>,
    raw_bytes: Rc<Cell<u64>>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    is_at_end: bool,
    /// The error of the input, which is returned after the documents before it.
    failure: Option<io::Error>,
    /// The decoded bytes before the window.
    bytes: u64,
    line: u64,
    /// The bytes of the line before the window.
    column: usize,
}

impl<'a> Window<'a> {
    fn new(input: impl Read + 'a) -> Self {
        let raw_bytes = Rc::default();
        Self {
            input: Box::new(CountingReader { input, bytes: Rc::clone(&raw_bytes) }),
            raw_bytes,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            is_at_end: false,
            failure: None,
            bytes: 0,
            line: 1,
            column: 0,
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Puts a decoder in front of the input and of the bytes that the window holds already.
    fn decode(&mut self, decoder: impl FnOnce(Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>>) -> io::Result<()> {
        let head = Cursor::new(self.rest().to_vec());
        let input = std::mem::replace(&mut self.input, Box::new(io::empty()));
        self.input = decoder(Box::new(head.chain(input)))?;
        (self.start, self.end, self.is_at_end) = (0, 0, false);
        Ok(())
    }

    /// Reads more; false at the end of the input.
    fn grow(&mut self) -> io::Result<bool> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.is_at_end {
            return Ok(false);
        }
        if self.start == self.end && self.buffer.len() > 4 * LINE_BYTES {
            // Frees the memory of a large document: the next one is hardly as large.
            self.buffer = Vec::new();
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < self.end + BUFFER_BYTES {
                self.buffer.resize((self.buffer.len() * 2).max(2 * BUFFER_BYTES), 0);
            }
        }
        loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.end += count;
                    self.is_at_end = count == 0;
                    return Ok(count > 0);
                }
            }
        }
    }

    /// Reads until the window has `count` bytes, or the input ends.
    fn fill(&mut self, count: usize) -> io::Result<()> {
        while self.rest().len() < count && self.grow()? {}
        Ok(())
    }

    /// Reads to the end of the input.
    fn skip_rest(&mut self) -> io::Result<()> {
        loop {
            self.skip(self.rest().len());
            if !self.grow()? {
                return Ok(());
            }
        }
    }

    /// Reads the bytes that identify the format.
    fn fill_head(&mut self) {
        self.failure = self.fill(HEAD_BYTES).err();
    }

    /// Skips bytes that do not count in the column: a byte order mark, or BSON.
    fn skip(&mut self, count: usize) {
        self.start += count;
        self.bytes += count as u64;
    }

    fn consume(&mut self, count: usize) {
        let passed = &self.buffer[self.start..self.start + count];
        match memchr::memrchr(b'\n', passed) {
            Some(last) => {
                self.line += memchr::memchr_iter(b'\n', passed).count() as u64;
                self.column = count - last - 1;
            }
            None => self.column += count,
        }
        self.skip(count);
    }

    /// Returns the place of the byte at `offset` in the window.
    fn place_at(&self, offset: usize, has_column: bool) -> Place {
        let before = &self.rest()[..offset.min(self.rest().len())];
        let lines = memchr::memchr_iter(b'\n', before).count() as u64;
        let column = match memchr::memrchr(b'\n', before) {
            Some(last) => before.len() - last,
            None => self.column + before.len() + 1,
        };
        Place::Line { line: self.line + lines, column: has_column.then_some(column) }
    }

    /// Skips white space, and returns the byte after it without consuming it.
    fn skip_white_space(&mut self) -> io::Result<Option<u8>> {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        loop {
            // A record separator stands before each text of RFC 7464.
            let is_white = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x1e;
            let white = self.rest().iter().take_while(|byte| is_white(byte)).count();
            self.consume(white);
            if self.rest().first() == MARK.first() {
                self.fill(MARK.len())?;
            }
            if self.rest().starts_with(MARK) {
                // Several files in one have the marks of each.
                self.skip(MARK.len());
                continue;
            }
            if let Some(next) = self.rest().first() {
                return Ok(Some(*next));
            }
            if !self.grow()? {
                return Ok(None);
            }
        }
    }

    /// Returns the length of the line without its end, or of the part that was read once that has `most` bytes.
    fn line_len(&mut self, most: usize) -> io::Result<usize> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.rest()[searched..]) {
                return Ok(searched + end);
            }
            searched = self.rest().len();
            if searched >= most || !self.grow()? {
                return Ok(self.rest().len());
            }
        }
    }

    /// Consumes the rest of the line, however long it is.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let line = self.line_len(LINE_BYTES)?;
            self.consume(line);
            if !self.rest().is_empty() || !self.grow()? {
                return Ok(());
            }
        }
    }
}

/// Counts the bytes that pass through it.
struct CountingReader<R> {
    input: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.bytes.set(self.bytes.get() + count as u64);
        Ok(count)
    }
}

enum Step {
    Inside,
    /// The byte is the last one.
    Last,
    /// The byte before was the last one.
    After,
    /// The byte cannot follow in any JSON text.
    Broken,
}

/// Finds the end of a document by its brackets, and the place where a truncated one runs into the next.
#[derive(Default)]
struct Brackets {
    open: Vec<u8>,
    in_string: bool,
    escaped: bool,
    /// The last byte that is not white space.
    last: Option<u8>,
}

impl Brackets {
    fn is_balanced(&self) -> bool {
        self.open.is_empty() && !self.in_string
    }

    /// Returns the number of bytes at the start of `text` that cannot change anything. Most of a long document is in strings.
    fn plain(&self, text: &[u8]) -> usize {
        if !self.in_string || self.escaped {
            return 0;
        }
        memchr::memchr3(b'\n', b'\\', b'"', text).unwrap_or(text.len())
    }

    fn next(&mut self, byte: u8, in_array: bool) -> Step {
        if self.in_string {
            match byte {
                // A JSON string cannot hold the end of a line.
                b'\n' => return Step::Broken,
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Step::Inside;
        }
        match byte {
            b',' | b']' if in_array && self.open.is_empty() => return Step::After,
            b'\n' if !in_array && self.open.is_empty() => return Step::After,
            _ if byte.is_ascii_whitespace() => return Step::Inside,
            b'"' => self.in_string = true,
            b'{' | b'[' => {
                let may_open = match (self.open.last(), self.last) {
                    (Some(b'{'), last) => last == Some(b':'),
                    (Some(_), last) => matches!(last, Some(b'[' | b',')),
                    (None, last) => last.is_none() || !in_array,
                };
                if !may_open || self.open.len() == MAX_BRACKETS {
                    return Step::Broken;
                }
                self.open.push(byte);
            }
            b'}' | b']' => {
                let opening = if byte == b'}' { b'{' } else { b'[' };
                if self.open.pop() != Some(opening) {
                    return Step::Broken;
                }
                if self.open.is_empty() && !in_array {
                    return Step::Last;
                }
            }
            _ => {}
        }
        self.last = Some(byte);
        Step::Inside
    }
}
