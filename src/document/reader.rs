//! Splits a file into documents, in bounded memory: one Extended JSON document per line, which is what `mongoexport`
//! writes, or one JSON array (`mongoexport --jsonArray`). The first byte that is not white space decides which.

use std::fmt;
use std::io::{self, BufRead};

use super::extended_json::{self, Error as JsonError};
use crate::record::Document;

/// The longest text of one document, in bytes. Canonical Extended JSON of a document of 16 MiB fits; a file that is one
/// endless line does not take the memory with it.
pub const MAX_TEXT_BYTES: usize = 128 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A text that is no document, and its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDocument {
    /// Counted from 1.
    pub line: u64,
    /// Counted in bytes from 1, where the reason is one place in the line.
    pub column: Option<usize>,
    pub reason: String,
}

impl fmt::Display for InvalidDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column {
            Some(column) => write!(f, "line {}, column {column}: {}", self.line, self.reason),
            None => write!(f, "line {}: {}", self.line, self.reason),
        }
    }
}

/// Iterates over the documents in the order of the file. The outer error is the input's (it cannot be read on); the inner
/// one is a single invalid text, after which reading goes on.
pub struct Documents<R> {
    input: R,
    line: u64,
    /// The number of bytes before the line.
    line_start: u64,
    bytes: u64,
    text: Vec<u8>,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Only white space was read so far.
    Unknown,
    Lines,
    /// Inside the array; `first` until its first element, after which a comma stands before each.
    Array {
        first: bool,
    },
    Ended,
}

impl<R: BufRead> Documents<R> {
    pub fn new(input: R) -> Self {
        Self { input, line: 1, line_start: 0, bytes: 0, text: Vec::new(), form: Form::Unknown }
    }

    /// Bytes of the input read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Skips the first `count` bytes of the buffer, which the caller has just filled.
    fn consume(&mut self, count: usize) -> io::Result<()> {
        let passed = &self.input.fill_buf()?[..count];
        if let Some(last) = memchr::memrchr(b'\n', passed) {
            self.line += memchr::memchr_iter(b'\n', passed).count() as u64;
            self.line_start = self.bytes + last as u64 + 1;
        }
        self.input.consume(count);
        self.bytes += count as u64;
        Ok(())
    }

    /// The place of the next byte: its line, and the number of bytes before it in that line.
    fn here(&self) -> (u64, usize) {
        (self.line, (self.bytes - self.line_start) as usize)
    }

    /// Skips white space, and returns the byte after it without consuming it.
    fn skip_white_space(&mut self) -> io::Result<Option<u8>> {
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let white = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let next = buffer.get(white).copied();
            self.consume(white)?;
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    /// Appends to `text` up to the place that `end` finds in a buffer, or to the end of the input.
    fn take_until(&mut self, mut end: impl FnMut(&[u8]) -> Option<usize>) -> io::Result<()> {
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            let found = end(buffer);
            let count = found.unwrap_or(buffer.len());
            // Beyond the limit the bytes are counted, not kept.
            let room = (MAX_TEXT_BYTES + 1).saturating_sub(self.text.len());
            self.text.extend_from_slice(&buffer[..count.min(room)]);
            self.consume(count)?;
            if found.is_some() {
                return Ok(());
            }
        }
    }

    /// Parses `text`, which began at `line` after `before` bytes of it, and clears it.
    fn parse(&mut self, (line, before): (u64, usize)) -> Result<Document, InvalidDocument> {
        if self.text.len() > MAX_TEXT_BYTES {
            // Frees the memory: the next line is hardly as long.
            self.text = Vec::new();
            return Err(InvalidDocument {
                line,
                column: None,
                reason: format!("it is longer than {MAX_TEXT_BYTES} bytes"),
            });
        }
        let parsed = extended_json::parse(&self.text);
        self.text.clear();
        parsed.map_err(|error| match error {
            JsonError::Syntax { reason, line: within, column } => {
                let place = match (within, column) {
                    (0 | 1, column) => (line, Some(before + column.max(1))),
                    // The end of the line before.
                    (_, 0) => (line + within as u64 - 2, None),
                    (_, column) => (line + within as u64 - 1, Some(column)),
                };
                InvalidDocument { line: place.0, column: place.1, reason }
            }
            other => InvalidDocument { line, column: None, reason: other.to_string() },
        })
    }

    fn start(&mut self) -> io::Result<()> {
        // Byte by byte: a pipe may give the mark in pieces.
        for (read, byte) in BYTE_ORDER_MARK.iter().enumerate() {
            if self.input.fill_buf()?.first() != Some(byte) {
                // Half a mark is none, but part of a first line, which is no JSON.
                self.text.extend_from_slice(&BYTE_ORDER_MARK[..read]);
                break;
            }
            self.consume(1)?;
        }
        self.line_start = self.bytes;
        if !self.text.is_empty() {
            self.form = Form::Lines;
            return Ok(());
        }
        self.form = match self.skip_white_space()? {
            None => Form::Ended,
            Some(b'[') => {
                self.consume(1)?;
                Form::Array { first: true }
            }
            Some(_) => Form::Lines,
        };
        Ok(())
    }

    fn next_line(&mut self) -> io::Result<Option<Result<Document, InvalidDocument>>> {
        if self.text.is_empty() && self.skip_white_space()?.is_none() {
            self.form = Form::Ended;
            return Ok(None);
        }
        let here = self.here();
        self.take_until(|buffer| memchr::memchr(b'\n', buffer))?;
        Ok(Some(self.parse(here)))
    }

    fn next_element(&mut self, first: bool) -> io::Result<Option<Result<Document, InvalidDocument>>> {
        let next = self.skip_white_space()?;
        let bad = |this: &mut Self, reason: &str| {
            // The commas are no longer certain, and a guess could make documents up.
            this.form = Form::Ended;
            Ok(Some(Err(InvalidDocument { line: this.line, column: None, reason: reason.to_owned() })))
        };
        match next {
            None => return bad(self, "the file ends before the array does: `]` is missing"),
            Some(b']') => {
                self.consume(1)?;
                return match self.skip_white_space()? {
                    None => {
                        self.form = Form::Ended;
                        Ok(None)
                    }
                    Some(_) => bad(self, "something stands after the end of the array"),
                };
            }
            Some(b',') if !first => {
                self.consume(1)?;
                self.skip_white_space()?;
            }
            Some(_) if !first => return bad(self, "a comma is missing between two elements of the array"),
            Some(_) => {}
        }
        self.form = Form::Array { first: false };
        let here = self.here();
        let mut nesting = Nesting::default();
        self.take_until(|buffer| buffer.iter().position(|&byte| nesting.ends_before(byte)))?;
        Ok(Some(self.parse(here)))
    }
}

/// Finds the end of an array's element: the first comma or bracket that is in no string and no deeper value.
#[derive(Default)]
struct Nesting {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    fn ends_before(&mut self, byte: u8) -> bool {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

impl<R: BufRead> Iterator for Documents<R> {
    type Item = io::Result<Result<Document, InvalidDocument>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.form == Form::Unknown
            && let Err(error) = self.start()
        {
            return Some(Err(error));
        }
        match self.form {
            Form::Unknown | Form::Ended => Ok(None),
            Form::Lines => self.next_line(),
            Form::Array { first } => self.next_element(first),
        }
        .transpose()
    }
}
