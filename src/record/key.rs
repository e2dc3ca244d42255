//! [`Key`]: bytes that sort as MongoDB sorts values.
//!
//! One encoding defines the order of values in this program: ids, sort keys and range filters all compare these bytes.
//! MongoDB's order is in [its manual](https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/); what
//! the manual leaves out (binary data by length, then subtype, then bytes; documents by type, name, value of each field)
//! was read off a real server, which the tests compare with.
//!
//! | type | encoding |
//! |---|---|
//! | all | one byte for the rank of the type |
//! | number | the greatest double that is not greater, in 8 sortable bytes; then 0, or 1 and the decimal digits where the double is not exact |
//! | string, symbol, code | the bytes, 0 as `00 FF`, then `00 00` |
//! | document | the elements (rank, name, value), then 0 |
//! | array | the elements (rank, value), then 0 |
//! | binary data, DBPointer | length in 4 bytes, then the bytes |
//! | ObjectId, boolean, date, timestamp | the value, big endian, with the sign flipped where it has one |
//! | regular expression | pattern, 0, options, 0 |
//!
//! Every encoding ends by itself, so that a sequence of them sorts as the sequence of values does. Numbers are equal by
//! value, whatever their type, and so are a string and a symbol; [`Key::to_value`] gives back one of the equal values.

use std::borrow::Borrow;
use std::fmt;

use bson::spec::ElementType;
use smallvec::SmallVec;

use super::decimal::{self, Decimal};
use super::raw::{self, Malformed, Result, ValueRef};

/// The depth of the deepest value that MongoDB stores, unless its parameter `maxBSONDepth` is raised. A query refuses 200 levels, and
/// the operators around a value need some of them.
const MAX_DECODED_DEPTH: usize = 180;

/// Large enough for the usual `_id`s: an ObjectId takes 13 bytes, a UUID 22.
pub type KeyBytes = SmallVec<[u8; 24]>;

/// The place of a value in MongoDB's order. Empty for a document that has no `_id`.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(KeyBytes);

impl Clone for Key {
    // The clone of a `SmallVec` copies byte by byte.
    fn clone(&self) -> Self {
        Self(KeyBytes::from_slice(&self.0))
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Key {
    /// # Errors
    ///
    /// When the bytes are not a BSON value.
    pub fn new(value: ValueRef<'_>) -> Result<Self> {
        let mut bytes = KeyBytes::new();
        encode(&mut bytes, value)?;
        Ok(Self(bytes))
    }

    /// Takes bytes that [`Key::as_bytes`] gave, perhaps in another process.
    ///
    /// # Errors
    ///
    /// When they are not the encoding of a value.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let key = Self(KeyBytes::from_slice(bytes));
        if !bytes.is_empty() {
            let (kind, value) = key.to_value()?;
            if Self::new(ValueRef { kind, bytes: &value })? != key {
                return Err(MALFORMED_KEY);
            }
        }
        Ok(key)
    }

    /// Takes bytes that a store of this program has written, without looking at them again.
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty()).then(|| Self(KeyBytes::from_slice(bytes)))
    }

    pub fn object_id(id: [u8; 12]) -> Self {
        let mut bytes = KeyBytes::new();
        bytes.push(rank(ElementType::ObjectId));
        bytes.extend_from_slice(&id);
        Self(bytes)
    }

    pub fn string(text: &str) -> Self {
        let mut bytes = KeyBytes::new();
        bytes.push(rank(ElementType::String));
        push_text(&mut bytes, text.as_bytes());
        Self(bytes)
    }

    pub fn int64(value: i64) -> Self {
        let mut bytes = KeyBytes::new();
        bytes.push(rank(ElementType::Int64));
        push_int64(&mut bytes, value);
        Self(bytes)
    }

    /// The key of MinKey, the least of all.
    pub fn min() -> Self {
        let mut bytes = KeyBytes::new();
        bytes.push(rank(ElementType::MinKey));
        Self(bytes)
    }

    pub fn null() -> Self {
        let mut bytes = KeyBytes::new();
        bytes.push(rank(ElementType::Null));
        Self(bytes)
    }

    /// Returns true if the document has no `_id`.
    pub fn is_missing(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The rank of the value's type; 0 where the `_id` is missing.
    pub fn rank(&self) -> u8 {
        self.0.first().copied().unwrap_or(0)
    }

    /// A value with this key, as its type and its BSON bytes.
    ///
    /// # Errors
    ///
    /// When the key is missing, or its bytes came from elsewhere and are no encoding.
    pub fn to_value(&self) -> Result<(ElementType, Vec<u8>)> {
        let mut rest = self.0.as_slice();
        let mut out = Vec::with_capacity(rest.len());
        let kind = decode(&mut rest, &mut out, 0)?;
        if rest.is_empty() { Ok((kind, out)) } else { Err(MALFORMED_KEY) }
    }

    /// Splits the first key off a sequence of encodings.
    ///
    /// # Errors
    ///
    /// When the sequence does not begin with an encoding.
    pub fn split_first(bytes: &mut &[u8]) -> Result<Self> {
        let start = *bytes;
        decode(bytes, &mut Vec::new(), 0)?;
        Self::from_bytes(&start[..start.len() - bytes.len()])
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_value();
        let value = value.as_ref().ok().and_then(|(kind, bytes)| to_bson(ValueRef { kind: *kind, bytes }));
        match value {
            Some(value) => write!(f, "Key({value})"),
            None => write!(f, "Key({:02x?})", self.0),
        }
    }
}

/// The value as the tree type of the `bson` crate; `None` for what that crate refuses, such as strings that are not UTF-8.
pub fn to_bson(value: ValueRef<'_>) -> Option<bson::Bson> {
    let mut document = Vec::with_capacity(value.bytes.len() + 16);
    raw::append_document(&mut document, |out| raw::append_element(out, b"v", value));
    // The crate's tree follows any nesting until the stack ends.
    raw::validate(&document).ok()?;
    let document = bson::RawDocumentBuf::from_bytes(document).ok()?;
    bson::Bson::try_from(document.get("v").ok()??).ok()
}

const MALFORMED_KEY: Malformed = Malformed("a key is no encoding of a value");

/// The end of a document or an array: less than every rank.
const END: u8 = 0;

/// The rank of a type in MongoDB's order. Types with one rank compare by value.
pub fn rank(kind: ElementType) -> u8 {
    use ElementType::{
        Array, Binary, Boolean, DateTime, DbPointer, Decimal128, Double, EmbeddedDocument, Int32, Int64,
        JavaScriptCode, JavaScriptCodeWithScope, MaxKey, MinKey, Null, ObjectId, RegularExpression, String, Symbol,
        Timestamp, Undefined,
    };
    match kind {
        MinKey => 1,
        Undefined => 5,
        Null => 10,
        Double | Int32 | Int64 | Decimal128 => 20,
        String | Symbol => 30,
        EmbeddedDocument => 40,
        Array => 50,
        Binary => 60,
        ObjectId => 70,
        Boolean => 80,
        DateTime => 90,
        Timestamp => 100,
        RegularExpression => 110,
        DbPointer => 120,
        JavaScriptCode => 130,
        JavaScriptCodeWithScope => 140,
        MaxKey => 255,
    }
}

/// Returns a type with this rank.
fn kind_of(rank: u8) -> Option<ElementType> {
    use ElementType::{
        Array, Binary, Boolean, DateTime, DbPointer, Double, EmbeddedDocument, JavaScriptCode, JavaScriptCodeWithScope,
        MaxKey, MinKey, Null, ObjectId, RegularExpression, String, Timestamp, Undefined,
    };
    Some(match rank {
        1 => MinKey,
        5 => Undefined,
        10 => Null,
        20 => Double,
        30 => String,
        40 => EmbeddedDocument,
        50 => Array,
        60 => Binary,
        70 => ObjectId,
        80 => Boolean,
        90 => DateTime,
        100 => Timestamp,
        110 => RegularExpression,
        120 => DbPointer,
        130 => JavaScriptCode,
        140 => JavaScriptCodeWithScope,
        255 => MaxKey,
        _ => return None,
    })
}

/// Appends the encoding of `value` to `out`.
///
/// # Errors
///
/// When the bytes are not a BSON value; `out` then ends in a part of it.
pub fn encode(out: &mut KeyBytes, value: ValueRef<'_>) -> Result<()> {
    out.push(rank(value.kind));
    encode_value(out, value, 0)
}

fn encode_value(out: &mut KeyBytes, value: ValueRef<'_>, depth: usize) -> Result<()> {
    if depth > raw::MAX_DEPTH {
        return Err(Malformed("it nests too deep"));
    }
    match value.kind {
        ElementType::MinKey | ElementType::Undefined | ElementType::Null | ElementType::MaxKey => {}
        ElementType::Double => push_double(out, f64::from_le_bytes(value.fixed()?)),
        ElementType::Int32 => push_int64(out, i32::from_le_bytes(value.fixed()?).into()),
        ElementType::Int64 => push_int64(out, i64::from_le_bytes(value.fixed()?)),
        ElementType::Decimal128 => push_decimal(out, Decimal::from_bytes(value.fixed()?)),
        ElementType::String | ElementType::Symbol | ElementType::JavaScriptCode => push_text(out, value.text()?),
        ElementType::EmbeddedDocument => push_elements(out, value.bytes, true, depth)?,
        ElementType::Array => push_elements(out, value.bytes, false, depth)?,
        ElementType::Binary => {
            // The length counts the payload alone, the subtype stands before it.
            out.extend_from_slice(&(value.bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(value.bytes.get(4..).unwrap_or_default());
        }
        ElementType::ObjectId => out.extend_from_slice(&value.fixed::<12>()?),
        ElementType::Boolean => out.push(u8::from(value.bytes != [0])),
        ElementType::DateTime => {
            out.extend_from_slice(&(i64::from_le_bytes(value.fixed()?) as u64 ^ SIGN).to_be_bytes());
        }
        ElementType::Timestamp => out.extend_from_slice(&u64::from_le_bytes(value.fixed()?).to_be_bytes()),
        ElementType::RegularExpression => {
            let (pattern, options) = value.regex()?;
            for part in [pattern, options] {
                out.extend_from_slice(part);
                out.push(0);
            }
        }
        ElementType::DbPointer => {
            value.db_pointer()?;
            out.extend_from_slice(&(value.bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(value.bytes);
        }
        ElementType::JavaScriptCodeWithScope => {
            let (code, scope) = value.code_with_scope()?;
            push_text(out, code);
            push_elements(out, scope, true, depth)?;
        }
    }
    Ok(())
}

fn push_elements(out: &mut KeyBytes, document: &[u8], named: bool, depth: usize) -> Result<()> {
    for element in raw::Elements::new(document)? {
        let (name, value) = element?;
        out.push(rank(value.kind));
        if named {
            push_text(out, name);
        }
        encode_value(out, value, depth + 1)?;
    }
    out.push(END);
    Ok(())
}

fn push_text(out: &mut KeyBytes, text: &[u8]) {
    // Hardly any text has a NUL.
    for (index, part) in text.split(|byte| *byte == 0).enumerate() {
        if index > 0 {
            out.extend_from_slice(&[0, 0xff]);
        }
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[0, 0]);
}

const SIGN: u64 = 1 << 63;

/// 2^63, the first double above every `i64`.
const ABOVE_INT64: f64 = 9_223_372_036_854_775_808.0;

/// IEEE 754 doubles sort as sign-magnitude integers; MongoDB has NaN before them all.
fn sortable(value: f64) -> [u8; 8] {
    match value.to_bits() {
        _ if value.is_nan() => 0,
        _ if value == 0.0 => SIGN,
        bits if bits & SIGN == 0 => bits | SIGN,
        bits => !bits,
    }
    .to_be_bytes()
}

fn unsortable(bytes: [u8; 8]) -> f64 {
    match u64::from_be_bytes(bytes) {
        0 => f64::NAN,
        bits if bits & SIGN != 0 => f64::from_bits(bits & !SIGN),
        bits => f64::from_bits(!bits),
    }
}

const EXACT: u8 = 0;
const INEXACT: u8 = 1;

fn push_double(out: &mut KeyBytes, value: f64) {
    out.extend_from_slice(&sortable(value));
    out.push(EXACT);
}

fn push_int64(out: &mut KeyBytes, value: i64) {
    let nearest = value as f64;
    if nearest as i128 == i128::from(value) {
        push_double(out, nearest);
    } else {
        let below = if nearest as i128 > i128::from(value) { nearest.next_down() } else { nearest };
        let (coefficient, exponent) = decimal::without_zeros(value.unsigned_abs().into(), 0);
        push_inexact(out, below, value < 0, coefficient, exponent);
    }
}

fn push_decimal(out: &mut KeyBytes, value: Decimal) {
    let (negative, coefficient, exponent) = match value {
        Decimal::NaN => return push_double(out, f64::NAN),
        Decimal::Infinity { negative } => {
            return push_double(out, if negative { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        Decimal::Finite { coefficient: 0, .. } => return push_double(out, 0.0),
        Decimal::Finite { negative, coefficient, exponent } => (negative, coefficient, exponent),
    };
    let (coefficient, exponent) = decimal::without_zeros(coefficient, exponent);
    let nearest = decimal::nearest_double(negative, coefficient, exponent);
    match decimal::compare_magnitude(coefficient, exponent, nearest.abs()) {
        std::cmp::Ordering::Equal => push_double(out, nearest),
        magnitude => {
            let is_below = magnitude.is_lt() != negative;
            push_inexact(out, if is_below { nearest.next_down() } else { nearest }, negative, coefficient, exponent);
        }
    }
}

/// The exponent of the first digit lies between -6176 and 6144.
const EXPONENT_BIAS: i32 = 7000;

/// `below` is the greatest double that is not greater. The coefficient has no zeros at its end.
fn push_inexact(out: &mut KeyBytes, below: f64, negative: bool, coefficient: u128, exponent: i32) {
    out.extend_from_slice(&sortable(below));
    out.push(INEXACT);
    let start = out.len();
    let digits = coefficient.to_string();
    let first = (exponent + digits.len() as i32 - 1 + EXPONENT_BIAS) as u16;
    out.extend_from_slice(&first.to_be_bytes());
    for pair in digits.as_bytes().chunks(2) {
        out.push((pair[0] - b'0') * 10 + pair.get(1).map_or(0, |digit| digit - b'0') + 1);
    }
    out.push(END);
    if negative {
        complement(&mut out[start..]);
    }
}

/// Turns the order of encodings round.
pub fn complement(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(MALFORMED_KEY)?;
    *bytes = rest;
    Ok(taken)
}

fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(MALFORMED_KEY)?;
    *bytes = rest;
    Ok(taken)
}

/// Reads one encoding: appends the value's BSON bytes to `out`, and returns its type.
fn decode(bytes: &mut &[u8], out: &mut Vec<u8>, depth: usize) -> Result<ElementType> {
    let [rank] = *take(bytes)?;
    decode_value(rank, bytes, out, depth)
}

fn decode_value(rank: u8, bytes: &mut &[u8], out: &mut Vec<u8>, depth: usize) -> Result<ElementType> {
    if depth > MAX_DECODED_DEPTH {
        return Err(MALFORMED_KEY);
    }
    let kind = kind_of(rank).ok_or(MALFORMED_KEY)?;
    match kind {
        ElementType::MinKey | ElementType::Undefined | ElementType::Null | ElementType::MaxKey => {}
        ElementType::Double => return decode_number(bytes, out),
        ElementType::String | ElementType::JavaScriptCode => append_text(out, &take_text(bytes)?),
        ElementType::EmbeddedDocument => decode_elements(bytes, out, true, depth)?,
        ElementType::Array => decode_elements(bytes, out, false, depth)?,
        ElementType::Binary => {
            // At least the length and the subtype.
            let length = (u32::from_be_bytes(*take(bytes)?) as usize).checked_sub(4).filter(|length| *length > 0);
            let rest = take_slice(bytes, length.ok_or(MALFORMED_KEY)?)?;
            out.extend_from_slice(&(rest.len() as i32 - 1).to_le_bytes());
            out.extend_from_slice(rest);
        }
        ElementType::ObjectId => out.extend_from_slice(take::<12>(bytes)?),
        ElementType::Boolean => out.extend_from_slice(take::<1>(bytes)?),
        ElementType::DateTime => out.extend_from_slice(&(u64::from_be_bytes(*take(bytes)?) ^ SIGN).to_le_bytes()),
        ElementType::Timestamp => out.extend_from_slice(&u64::from_be_bytes(*take(bytes)?).to_le_bytes()),
        ElementType::RegularExpression => {
            for _ in 0..2 {
                let end = bytes.iter().position(|byte| *byte == 0).ok_or(MALFORMED_KEY)?;
                out.extend_from_slice(take_slice(bytes, end + 1)?);
            }
        }
        ElementType::DbPointer => {
            let length = u32::from_be_bytes(*take(bytes)?) as usize;
            let start = out.len();
            out.extend_from_slice(take_slice(bytes, length)?);
            ValueRef { kind, bytes: &out[start..] }.db_pointer()?;
        }
        ElementType::JavaScriptCodeWithScope => {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            append_text(out, &take_text(bytes)?);
            decode_elements(bytes, out, true, depth)?;
            let length = (out.len() - start) as i32;
            out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        }
        // `kind_of` names one type for each rank.
        _ => return Err(MALFORMED_KEY),
    }
    Ok(kind)
}

fn decode_elements(bytes: &mut &[u8], out: &mut Vec<u8>, named: bool, depth: usize) -> Result<()> {
    let mut decoded = Ok(());
    raw::append_document(out, |out| decoded = decode_each(bytes, out, named, depth));
    decoded
}

fn decode_each(bytes: &mut &[u8], out: &mut Vec<u8>, named: bool, depth: usize) -> Result<()> {
    for index in 0.. {
        let [rank] = *take(bytes)?;
        if rank == END {
            break;
        }
        let name = if named { take_text(bytes)? } else { itoa::Buffer::new().format(index).as_bytes().to_vec() };
        if name.contains(&0) {
            return Err(MALFORMED_KEY);
        }
        let start = out.len();
        // The type is known once the value is read.
        raw::append_name(out, &name, ElementType::Null);
        let kind = decode_value(rank, bytes, out, depth + 1)?;
        out[start] = kind as u8;
    }
    Ok(())
}

fn take_text(bytes: &mut &[u8]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let end = bytes.iter().position(|byte| *byte == 0).ok_or(MALFORMED_KEY)?;
        text.extend_from_slice(take_slice(bytes, end)?);
        match take::<2>(bytes)? {
            [_, 0] => return Ok(text),
            [_, 0xff] => text.push(0),
            _ => return Err(MALFORMED_KEY),
        }
    }
}

fn append_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as i32 + 1).to_le_bytes());
    out.extend_from_slice(text);
    out.push(0);
}

fn decode_number(bytes: &mut &[u8], out: &mut Vec<u8>) -> Result<ElementType> {
    let below = unsortable(*take(bytes)?);
    let [exactness] = *take(bytes)?;
    if exactness == EXACT {
        if below.fract() == 0.0 && (-ABOVE_INT64..ABOVE_INT64).contains(&below) {
            out.extend_from_slice(&(below as i64).to_le_bytes());
            return Ok(ElementType::Int64);
        }
        out.extend_from_slice(&below.to_le_bytes());
        return Ok(ElementType::Double);
    }
    let negative = below < 0.0;
    let sign = if negative { 0xff } else { 0 };
    let first = u16::from_be_bytes(take::<2>(bytes)?.map(|byte| byte ^ sign));
    let mut coefficient: u128 = 0;
    let mut digits = 0;
    loop {
        let [pair] = take(bytes)?.map(|byte: u8| byte ^ sign);
        match pair {
            END => break,
            1..=100 if digits < 34 => {
                coefficient = coefficient * 100 + u128::from(pair - 1);
                digits += 2;
            }
            _ => return Err(MALFORMED_KEY),
        }
    }
    let exponent = i32::from(first) - EXPONENT_BIAS - digits + 1;
    let (coefficient, exponent) = decimal::without_zeros(coefficient, exponent);
    if let Some(whole) = decimal::to_int64(negative, coefficient, exponent) {
        out.extend_from_slice(&whole.to_le_bytes());
        return Ok(ElementType::Int64);
    }
    let value = Decimal::Finite { negative, coefficient, exponent };
    out.extend_from_slice(&value.to_bytes().ok_or(MALFORMED_KEY)?);
    Ok(ElementType::Decimal128)
}
