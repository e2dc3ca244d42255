//! Paths: the names of fields, one inside the other.

use std::fmt;
use std::sync::Arc;

/// Each level takes stack where records are read.
const MAX_DEPTH: usize = 32;

/// The names that lead to a value. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path(Arc<[Box<str>]>);

impl Path {
    /// Reads `a.b`, with backslashes before what is to be taken literally.
    ///
    /// # Errors
    ///
    /// Says what is wrong, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::of(split(text, '.').into_iter().map(|part| literal(&part)).collect())
    }

    pub fn of(names: Vec<Box<str>>) -> Result<Self, String> {
        if names.is_empty() || (names.len() == 1 && names[0].is_empty()) {
            return Err("names no field".to_owned());
        }
        if names.len() > MAX_DEPTH {
            return Err(format!("is deeper than {MAX_DEPTH} fields"));
        }
        Ok(Self(names.into()))
    }

    pub fn names(&self) -> &[Box<str>] {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            for (at, character) in name.char_indices() {
                // A minus before the whole path would turn an order round.
                if matches!(character, '.' | '\\' | ',') || (character == '-' && index + at == 0) {
                    f.write_str("\\")?;
                }
                fmt::Write::write_char(f, character)?;
            }
        }
        Ok(())
    }
}

/// The parts between separators that no backslash precedes. The backslashes stay.
pub fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        let escapes = character == '\\' && !escaped;
        match parts.last_mut() {
            Some(part) if escaped || character != separator => part.push(character),
            _ => parts.push(String::new()),
        }
        escaped = escapes;
    }
    parts
}

/// Splits like [`split`], and ignores separators inside double quotes. Only a quote at the start of a part opens a quotation.
pub fn split_quoted(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut escaped, mut is_quoted) = (false, false);
    for character in text.chars() {
        let escapes = character == '\\' && !escaped;
        let count = parts.len();
        let part = &mut parts[count - 1];
        if character == '"' && !escaped && (is_quoted || part.is_empty()) {
            is_quoted = !is_quoted;
        }
        if escaped || is_quoted || character != separator {
            part.push(character);
        } else {
            parts.push(String::new());
        }
        escaped = escapes;
    }
    parts
}

/// Splits like [`split`], and ignores separators inside parentheses and inside double quotes; a quotation begins after a
/// separator, a parenthesis or an equals sign. `None` where a parenthesis or a quotation has no end, or a backslash is the last
/// character.
pub fn split_nested(text: &str, separator: char) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let (mut depth, mut escaped, mut is_quoted, mut last) = (0_usize, false, false, separator);
    for character in text.chars() {
        let is_open = !escaped && !is_quoted;
        match character {
            '"' if is_quoted && !escaped => is_quoted = false,
            '"' if is_open && (last == separator || matches!(last, '(' | '=')) => is_quoted = true,
            '(' if is_open => depth += 1,
            ')' if is_open => depth = depth.checked_sub(1)?,
            _ => {}
        }
        match parts.last_mut() {
            Some(part) if !is_open || depth > 0 || character != separator => part.push(character),
            _ => parts.push(String::new()),
        }
        // An escaped character opens no quotation.
        last = if escaped { '\\' } else { character };
        escaped = character == '\\' && !escaped;
    }
    (depth == 0 && !is_quoted && !escaped).then_some(parts)
}

/// Removes the backslashes that escape the character after them.
pub fn literal(text: &str) -> Box<str> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        // A trailing backslash escapes nothing and is kept.
        out.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    out.into()
}
