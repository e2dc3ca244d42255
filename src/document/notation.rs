//! Texts that resemble JSON: numbers that JSON does not have, and the notations of other languages.

/// The words for numbers that JSON does not have, as `mongoexport` writes them.
const SPECIAL_NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

const BEFORE: &[u8] = br#"{"$numberDouble":""#;
const AFTER: &[u8] = br#""}"#;

/// A text in which type wrappers stand for special numbers.
pub struct Quoted {
    pub text: Vec<u8>,
    /// For each wrapper: its start in `text`, then the start and the end of the replaced word in the original.
    wrappers: Vec<(usize, usize, usize)>,
}

impl Quoted {
    /// Converts an offset in `text` into one in the original.
    pub fn offset_before(&self, offset: usize) -> usize {
        let Some(&(begin, word, end)) = self.wrappers.iter().take_while(|(begin, ..)| *begin < offset).last() else {
            return offset;
        };
        let length = BEFORE.len() + (end - word) + AFTER.len();
        if offset < begin + length { word } else { offset - begin - length + end }
    }
}

/// Replaces special numbers outside of strings by type wrappers, in the first object or array: many others may follow on the line.
/// Returns `None` if it has no such number.
pub fn quote_special_numbers(text: &[u8]) -> Option<Quoted> {
    let mut quoted = Quoted { text: Vec::new(), wrappers: Vec::new() };
    let (mut in_string, mut escaped, mut may_begin, mut copied) = (false, false, true, 0);
    let (mut at, mut depth, mut is_whole) = (0, 0_usize, false);
    while let Some(&byte) = text.get(at).filter(|_| !is_whole) {
        let rest = &text[at..];
        let word = SPECIAL_NUMBERS.into_iter().find(|word| {
            let after = rest.strip_prefix(*word).map(|after| (after.first(), after.trim_ascii_start().first()));
            // A letter after it makes it part of another word; a colon makes it a name.
            !in_string
                && may_begin
                && after.is_some_and(|(next, sign)| !next.is_some_and(u8::is_ascii_alphanumeric) && sign != Some(&b':'))
        });
        if let Some(word) = word {
            quoted.text.extend_from_slice(&text[copied..at]);
            quoted.wrappers.push((quoted.text.len(), at, at + word.len()));
            for part in [BEFORE, word, AFTER] {
                quoted.text.extend_from_slice(part);
            }
            at += word.len();
            copied = at;
            may_begin = false;
            continue;
        }
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else {
            in_string = byte == b'"';
            may_begin = matches!(byte, b':' | b'[' | b',') || (may_begin && byte.is_ascii_whitespace());
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    is_whole = depth == 0;
                }
                _ => {}
            }
        }
        at += 1;
    }
    quoted.text.extend_from_slice(&text[copied..at]);
    (!quoted.wrappers.is_empty()).then_some(quoted)
}

const PYTHON: &str =
    "this is Python, not JSON, which has true, false and null: write the file by json.dumps of bson.json_util";
const SHELL: &str =
    "this is the notation of the MongoDB shell, not JSON: write the file by mongoexport or EJSON.stringify";
const JAVASCRIPT: &str =
    "this is JavaScript, not JSON: field names have double quotes there, and JSON has no `undefined`";
const QUOTES: &str = "this is Python or JavaScript, not JSON: strings have double quotes";
const TYPOGRAPHY: &str = "JSON has straight quotation marks and plain spaces: these are those of a text processor";
pub const COMMENT: &str = "JSON has no comments";
const NUMBER: &str = "a number begins with a digit or a minus sign in JSON, and has no leading zeros";

/// The functions of the shell whose calls stand for values.
const SHELL_FUNCTIONS: &[&[u8]] = &[
    b"ObjectId",
    b"ISODate",
    b"Date",
    b"NumberInt",
    b"NumberLong",
    b"NumberDecimal",
    b"Int32",
    b"Long",
    b"Double",
    b"Decimal128",
    b"BinData",
    b"HexData",
    b"UUID",
    b"Timestamp",
    b"DBRef",
    b"DBPointer",
    b"RegExp",
    b"MinKey",
    b"MaxKey",
    b"Code",
    b"BSONRegExp",
    b"Binary",
];

/// Quotation marks and a space that text processors put in the place of those of JSON.
const TYPOGRAPHIC: [&str; 5] = ["“", "”", "‘", "’", "\u{a0}"];

/// Recognises the notation of another language at `offset`, where the JSON parser stopped. Returns a message, and the offset
/// at which that notation begins.
pub fn explain(text: &[u8], offset: usize) -> Option<(&'static str, usize)> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
    let before = &text[..offset.min(text.len())];
    let at = before.len() - before.iter().rev().take_while(|byte| is_word(byte)).count();
    let rest = &text[at..];
    let (word, after) = rest.split_at(rest.iter().take_while(|byte| is_word(byte)).count());
    let next = after.iter().find(|byte| !byte.is_ascii_whitespace());
    let in_object = matches!(text[..at].trim_ascii_end().last(), Some(b'{' | b','));
    let reason = match (word, rest) {
        (b"True" | b"False" | b"None" | b"datetime" | b"nan" | b"inf", _) => PYTHON,
        (b"", [b'\'' | b'`', ..]) => QUOTES,
        (b"", rest) if TYPOGRAPHIC.iter().any(|sign| rest.starts_with(sign.as_bytes())) => TYPOGRAPHY,
        (b"", [b'/', b'/' | b'*', ..] | [b'#', ..]) => COMMENT,
        (b"", [b'/', ..]) => SHELL,
        (b"", [b'+' | b'.', b'0'..=b'9', ..]) => NUMBER,
        (b"new", _) => SHELL,
        (word, _) if SHELL_FUNCTIONS.contains(&word) && matches!(next, Some(b'(' | b',' | b'}' | b']')) => SHELL,
        (b"undefined", _) => JAVASCRIPT,
        ([b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$', ..], _) if next == Some(&b':') && in_object => JAVASCRIPT,
        ([b'0', b'0'..=b'9' | b'x', ..], _) => NUMBER,
        _ => return None,
    };
    Some((reason, at))
}

/// Returns the offset of bytes that are not UTF-8, if they stopped the JSON parser at `offset`.
pub fn invalid_utf8(text: &[u8], offset: usize) -> Option<usize> {
    let valid = std::str::from_utf8(text).err()?.valid_up_to();
    (valid <= offset).then_some(valid)
}
