//! Keys out of BSON: what MongoDB takes for one `_id` has one key, whatever types it is written in.
//!
//! MongoDB compares numbers by value, those deep in an `_id` too, and lets a replacement write an `_id` that compares equal in
//! other types. Of that a change stream tells the new form alone. Had it a key of its own, a copy would keep what was replaced
//! for ever. So a key holds a value in one form: a number is an integer where that has its value, else a double, else a decimal
//! without zeros at its end. Inside of documents and arrays a symbol is a string.

use std::borrow::Cow;

use mongodb::bson::Decimal128;

use super::*;
use crate::document::decimal::Decimal128 as Decimal;
use crate::record::rank;

/// More digits than any double has.
const DIGITS_OF_DOUBLES: usize = 770;

pub fn key(kind: u8, value: &[u8]) -> Result<Key> {
    Ok(match kind {
        INT32 | INT64 | DOUBLE | DECIMAL128 => number(kind, value)?,
        STRING => match std::str::from_utf8(text(value)?) {
            Ok(text) => Key::String(text.into()),
            Err(_) => opaque(kind, value)?,
        },
        OBJECT_ID => Key::ObjectId(fixed(value)?),
        BOOL => Key::Bool(value != [0]),
        DATE => Key::Date(i64::from_le_bytes(fixed(value)?)),
        BINARY => match binary(value)? {
            (4, uuid) => uuid.try_into().map_or_else(|_| opaque(kind, value), |uuid| Ok(Key::Uuid(uuid)))?,
            _ => opaque(kind, value)?,
        },
        _ => opaque(kind, value)?,
    })
}

fn number(kind: u8, value: &[u8]) -> Result<Key> {
    Ok(match kind {
        INT32 => Key::Integer(i32::from_le_bytes(fixed(value)?).into()),
        INT64 => Key::Integer(i64::from_le_bytes(fixed(value)?)),
        DOUBLE => Key::double(f64::from_le_bytes(fixed(value)?)),
        _ => decimal(fixed(value)?),
    })
}

/// An integer or a double that has this value, or else the decimal.
fn decimal(packed: [u8; 16]) -> Key {
    let as_it_is = |packed: [u8; 16]| opaque_of(rank::NUMBER, DECIMAL128, &packed);
    let (negative, mut coefficient, mut exponent) = match Decimal128::from_bytes(packed).to_string().parse() {
        Ok(Decimal::Finite { negative, coefficient, exponent }) => (negative, coefficient, exponent),
        Ok(Decimal::Infinity { negative: false }) => return Key::Double(f64::INFINITY),
        Ok(Decimal::Infinity { negative: true }) => return Key::Double(f64::NEG_INFINITY),
        Ok(Decimal::NaN) => return Key::Double(f64::NAN),
        Err(_) => return as_it_is(packed),
    };
    if coefficient == 0 {
        return Key::Integer(0);
    }
    while coefficient % 10 == 0 {
        (coefficient, exponent) = (coefficient / 10, exponent + 1);
    }
    let sign = if negative { "-" } else { "" };
    let one_form = format!("{sign}{coefficient}E{exponent}");
    let power = u32::try_from(exponent).ok().and_then(|exponent| 10_i128.checked_pow(exponent));
    // 34 digits fit.
    let whole = power.and_then(|power| power.checked_mul(coefficient as i128));
    if let Some(whole) = whole.and_then(|whole| i64::try_from(if negative { -whole } else { whole }).ok()) {
        return Key::Integer(whole);
    }
    match one_form.parse() {
        Ok(double) if is_exactly(double, coefficient, exponent) => Key::double(double),
        // Not where the zeros were needed to write it at all.
        _ => as_it_is(one_form.parse::<Decimal128>().map_or(packed, |decimal| decimal.bytes())),
    }
}

/// Whether the amount of `double` is `coefficient` × 10^`exponent`. The coefficient has no zeros at its end.
fn is_exactly(double: f64, coefficient: u128, exponent: i32) -> bool {
    let all = format!("{:.DIGITS_OF_DOUBLES$e}", double.abs());
    let Some((digits, power)) = all.split_once('e') else { return false };
    let digits = digits.replace('.', "");
    let digits = digits.trim_end_matches('0');
    let power = power.parse::<i32>().map(|power| power + 1 - digits.len() as i32);
    digits == coefficient.to_string() && power == Ok(exponent)
}

/// The type and the bytes of the value in its one form, which [`from_key`] turns back into a value.
pub fn opaque(kind: u8, value: &[u8]) -> Result<Key> {
    let rank = match kind {
        MIN_KEY => rank::MIN_KEY,
        NULL | UNDEFINED => rank::NULL,
        STRING | SYMBOL => rank::STRING,
        DOCUMENT => rank::DOCUMENT,
        BINARY => rank::BINARY,
        TIMESTAMP => rank::TIMESTAMP,
        MAX_KEY => rank::MAX_KEY,
        _ => rank::OTHER,
    };
    match kind {
        DOCUMENT | ARRAY => {
            let (kind, value) = one_form(kind, value, 0)?;
            Ok(opaque_of(rank, kind, &value))
        }
        _ => Ok(opaque_of(rank, kind, value)),
    }
}

fn opaque_of(rank: u8, kind: u8, value: &[u8]) -> Key {
    Key::Opaque { rank, bytes: std::iter::once(kind).chain(value.iter().copied()).collect() }
}

/// The type and the bytes that stand for all values equal to this one.
fn one_form(kind: u8, value: &[u8], depth: usize) -> Result<(u8, Cow<'_, [u8]>)> {
    if depth > MAX_DEPTH {
        return Err(Malformed("it nests too deep"));
    }
    Ok(match kind {
        INT32 | INT64 | DOUBLE | DECIMAL128 => match number(kind, value)? {
            Key::Integer(value) => (INT64, value.to_le_bytes().to_vec().into()),
            Key::Double(value) if value.is_nan() => (DOUBLE, f64::NAN.to_le_bytes().to_vec().into()),
            Key::Double(value) => (DOUBLE, value.to_le_bytes().to_vec().into()),
            Key::Opaque { bytes, .. } => (kind, bytes[1..].to_vec().into()),
            _ => (kind, value.into()),
        },
        SYMBOL => (STRING, value.into()),
        DOCUMENT | ARRAY => {
            let mut elements = Elements::of(value)?;
            let mut fields = Vec::with_capacity(value.len());
            while let Some((kind, name, value)) = elements.next()? {
                let (kind, value) = one_form(kind, value, depth + 1)?;
                fields.push(kind);
                fields.extend_from_slice(name);
                fields.push(0);
                fields.extend_from_slice(&value);
            }
            let mut document = Vec::with_capacity(fields.len() + 5);
            with_length(&mut document, |out| out.extend_from_slice(&fields));
            (kind, document.into())
        }
        _ => (kind, value.into()),
    })
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Bson, Document, doc};

    use super::*;

    fn key_of_id(id: impl Into<Bson>) -> Key {
        let document: Document = doc! { "_id": id.into() };
        key_of(&document.to_vec().expect("bytes")).expect("a key")
    }

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse().expect("a decimal"))
    }

    #[test]
    fn a_decimal_has_the_key_of_the_number_that_it_equals() {
        for (text, number) in [
            ("9", Bson::Int32(9)),
            ("9.00", Bson::Double(9.0)),
            ("-0E+3", Bson::Int32(0)),
            ("1.2E+3", Bson::Int64(1200)),
            ("-9223372036854775808", Bson::Int64(i64::MIN)),
            ("9223372036854775808", Bson::Double(9_223_372_036_854_775_808.0)),
            ("-0.50", Bson::Double(-0.5)),
            ("1E+20", Bson::Double(1e20)),
            ("Infinity", Bson::Double(f64::INFINITY)),
            ("-Infinity", Bson::Double(f64::NEG_INFINITY)),
            ("NaN", Bson::Double(f64::NAN)),
        ] {
            assert_eq!(key_of_id(decimal(text)), key_of_id(number), "{text}");
        }
        // Near to a double, and not equal to it.
        for (text, number) in [("0.1", 0.1), ("1E+23", 1e23), ("1E-300", 1e-300)] {
            let key = key_of_id(decimal(text));
            assert!(matches!(key, Key::Opaque { rank: rank::NUMBER, .. }), "{text}: {key:?}");
            assert_ne!(key, key_of_id(number));
        }
        assert_eq!(key_of_id(decimal("0.1")), key_of_id(decimal("0.1000")));
        assert_ne!(key_of_id(decimal("0.1")), key_of_id(decimal("-0.1")));
    }

    #[test]
    fn documents_that_compare_equal_have_one_key() {
        let key = key_of_id(doc! { "a": 1, "b": [2, { "c": 0.5 }], "s": "text" });
        let same = doc! { "a": 1.0, "b": [decimal("2.0"), { "c": decimal("0.50") }], "s": Bson::Symbol("text".into()) };
        assert_eq!(key_of_id(same), key);
        for other in [
            doc! { "b": [2, { "c": 0.5 }], "a": 1, "s": "text" },
            doc! { "a": 1, "b": [2, { "c": 0.25 }], "s": "text" },
        ] {
            assert_ne!(key_of_id(other), key);
        }
    }
}
