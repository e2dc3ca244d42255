//! The typed values that a text in a URL can denote: ObjectId, number, date, UUID, boolean, null, and always the string.

use std::str::FromStr;

use bson::oid::ObjectId;
use bson::spec::{BinarySubtype, ElementType};
use bson::{Binary, Bson, DateTime, Decimal128};
use jiff::civil::Date;

use super::decimal::{self, Decimal};
use super::{Key, ValueRef};
use crate::wire;

pub const MILLIS_PER_DAY: i64 = 86_400_000;

/// The numbers that a text denotes.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// The smaller one.
    pub lower: Bson,
    /// The greater one, where the text has no exact double: then it denotes the nearest double and the Decimal128.
    pub upper: Option<Bson>,
}

/// The time that a text denotes, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    Instant(i64),
    /// An instant between this millisecond and the next, which no BSON date is.
    Between(i64),
    /// All of the day that begins there, in UTC.
    Day(i64),
}

/// 24 hex digits.
pub fn object_id(text: &str) -> Option<Bson> {
    (text.len() == 24).then(|| ObjectId::from_str(text).ok().map(Bson::ObjectId))?
}

/// 8-4-4-4-12 hex digits: binary data of subtype 4.
pub fn uuid(text: &str) -> Option<Bson> {
    let bytes = (text.len() == 36).then(|| wire::parse_uuid(&text.to_ascii_lowercase()))??;
    Some(Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: bytes.to_vec() }))
}

/// `true`, `false` or `null`.
pub fn literal(text: &str) -> Option<Bson> {
    match text {
        "true" => Some(Bson::Boolean(true)),
        "false" => Some(Bson::Boolean(false)),
        "null" => Some(Bson::Null),
        _ => None,
    }
}

/// A number in JSON's grammar ([RFC 8259, section 6](https://www.rfc-editor.org/rfc/rfc8259#section-6)).
///
/// `None` also for one that neither a double nor a Decimal128 can hold.
pub fn number(text: &str) -> Option<Number> {
    if !is_json_number(text) {
        return None;
    }
    let one = |value| Some(Number { lower: value, upper: None });
    if let Ok(integer) = text.parse::<i64>() {
        return one(Bson::Int64(integer));
    }
    let double = text.parse::<f64>().ok().filter(|double| double.is_finite());
    let exact = Decimal128::from_str(text).ok();
    let (double, exact) = match (double, exact) {
        (Some(double), Some(exact)) => (double, exact),
        (Some(double), None) => return one(Bson::Double(double)),
        (None, exact) => return exact.and_then(|exact| one(Bson::Decimal128(exact))),
    };
    let Decimal::Finite { negative, coefficient, exponent } = Decimal::from_bytes(exact.bytes()) else { return None };
    if coefficient == 0 {
        return one(Bson::Double(0.0));
    }
    let (coefficient, exponent) = decimal::without_zeros(coefficient, exponent);
    let magnitude = decimal::compare_magnitude(coefficient, exponent, double.abs());
    let (double, exact) = (Bson::Double(double), Bson::Decimal128(exact));
    if magnitude.is_eq() {
        one(double)
    } else if magnitude.is_lt() == negative {
        Some(Number { lower: double, upper: Some(exact) })
    } else {
        Some(Number { lower: exact, upper: Some(double) })
    }
}

fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// A date and time of [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339), with any offset and any number of fraction
/// digits; the wire form of a date outside the years 0 to 9999; or a date alone.
///
/// Read by hand: `jiff` takes further forms of ISO 8601, nine digits of a fraction at most, and no instant of the last day of
/// the year 9999, where many a data set puts "never".
pub fn time(text: &str) -> Option<Time> {
    if let Some(millis) = wire::parse_date(text) {
        return Some(Time::Instant(millis));
    }
    let (date, rest) = text.split_at_checked(10)?;
    let is_dated = date.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    let date = date.parse::<Date>().ok().filter(|_| is_dated)?;
    let start = date.duration_since(Date::constant(1970, 1, 1)).as_secs() * 1_000;
    if rest.is_empty() {
        return Some(Time::Day(start));
    }
    let [b'T' | b't' | b' ', clock @ ..] = rest.as_bytes() else { return None };
    let (minutes, rest) = hours_and_minutes(clock)?;
    // No leap second: a BSON date has no place for one.
    let [b':', tens, ones, rest @ ..] = rest else { return None };
    let seconds = two_digits(*tens, *ones, 60)?;
    let (fraction, offset) = match rest {
        [b'.', rest @ ..] => rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count()),
        _ => (&b"0"[..], rest),
    };
    let offset = match offset {
        [b'Z' | b'z'] => 0,
        // In a URL, a plus that is not percent-encoded is a space.
        [sign @ (b'+' | b'-' | b' '), offset @ ..] => {
            let (minutes, rest) = hours_and_minutes(offset)?;
            if !rest.is_empty() {
                return None;
            }
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    if fraction.is_empty() {
        return None;
    }
    let (first, rest) = fraction.split_at(fraction.len().min(3));
    let milli = first.iter().chain(b"00").take(3).fold(0, |milli, digit| milli * 10 + i64::from(digit - b'0'));
    let millis = start + ((minutes - offset) * 60 + seconds) * 1_000 + milli;
    let is_exact = rest.iter().all(|digit| *digit == b'0');
    Some(if is_exact { Time::Instant(millis) } else { Time::Between(millis) })
}

/// `hh:mm` in minutes, and what follows.
fn hours_and_minutes(text: &[u8]) -> Option<(i64, &[u8])> {
    let [h, hours, b':', m, minutes, rest @ ..] = text else { return None };
    Some((two_digits(*h, *hours, 24)? * 60 + two_digits(*m, *minutes, 60)?, rest))
}

/// A number below `end`.
fn two_digits(tens: u8, ones: u8, end: i64) -> Option<i64> {
    let digit = |byte: u8| (byte as char).to_digit(10).map(i64::from);
    Some(digit(tens)? * 10 + digit(ones)?).filter(|number| *number < end)
}

/// Returns true for the texts that records show for a Decimal128 without a number.
pub fn is_beyond_json(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity")
}

/// Every value that `text` can denote besides the string. A date alone denotes a range, and is not among them.
pub fn typed(text: &str) -> Vec<Bson> {
    let mut values: Vec<Bson> = object_id(text).into_iter().collect();
    match number(text) {
        // The exact value first: a lookup takes the first one that is there.
        Some(Number { lower, upper: Some(upper @ Bson::Decimal128(_)) }) => values.extend([upper, lower]),
        Some(Number { lower, upper }) => values.extend(std::iter::once(lower).chain(upper)),
        None => {}
    }
    if is_beyond_json(text) {
        values.extend(Decimal128::from_str(text).ok().map(Bson::Decimal128));
    }
    if let Some(Time::Instant(millis)) = time(text) {
        values.push(Bson::DateTime(DateTime::from_millis(millis)));
    }
    values.extend(uuid(text));
    values.extend(literal(text));
    values
}

/// The key of a value that a text denotes.
pub fn key(value: &Bson) -> Key {
    // A value of a fixed width, and binary data, can be read.
    let of = |kind, bytes: &[u8]| Key::new(ValueRef { kind, bytes }).unwrap_or_default();
    match value {
        Bson::Int64(value) => Key::int64(*value),
        Bson::String(text) => Key::string(text),
        Bson::ObjectId(id) => Key::object_id(id.bytes()),
        Bson::Null => Key::null(),
        Bson::Double(value) => of(ElementType::Double, &value.to_le_bytes()),
        Bson::Decimal128(value) => of(ElementType::Decimal128, &value.bytes()),
        Bson::Boolean(value) => of(ElementType::Boolean, &[u8::from(*value)]),
        Bson::DateTime(time) => of(ElementType::DateTime, &time.timestamp_millis().to_le_bytes()),
        Bson::Binary(Binary { subtype, bytes }) => {
            let length = (bytes.len() as i32).to_le_bytes();
            of(ElementType::Binary, &[&length[..], &[u8::from(*subtype)], bytes].concat())
        }
        // No text denotes a value of another type.
        _ => Key::default(),
    }
}
