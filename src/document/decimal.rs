//! Decimal128: reading and writing the text form, without the arithmetic that nothing here needs.
//!
//! The text is the scientific string of the General Decimal Arithmetic specification, which
//! [MongoDB's drivers](https://github.com/mongodb/specifications/blob/master/source/bson-decimal128/decimal128.md) share.
//! A value keeps its trailing zeros: `1.50` is not `1.5`.

use std::fmt;
use std::str::FromStr;

/// The most digits a coefficient has.
const DIGITS: usize = 34;
const MIN_EXPONENT: i32 = -6176;
const MAX_EXPONENT: i32 = 6111;

/// An IEEE 754 decimal of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimal128 {
    /// `coefficient` × 10^`exponent`; the coefficient has at most 34 digits.
    Finite {
        negative: bool,
        coefficient: u128,
        exponent: i32,
    },
    Infinity {
        negative: bool,
    },
    NaN,
}

/// Not a decimal, or one that 128 bits cannot hold exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a Decimal128 is a decimal number of at most 34 digits with an exponent between -6176 and 6111, Infinity or NaN"
)]
pub struct NotADecimal;

impl FromStr for Decimal128 {
    type Err = NotADecimal;

    /// Takes what the 128 bits hold exactly; anything that would have to be rounded is refused, not changed.
    fn from_str(text: &str) -> Result<Self, NotADecimal> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest.eq_ignore_ascii_case("inf") || rest.eq_ignore_ascii_case("infinity") {
            return Ok(Self::Infinity { negative });
        }
        if rest.eq_ignore_ascii_case("nan") {
            return Ok(Self::NaN);
        }
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| NotADecimal)?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.len() + fraction.len() == 0 {
            return Err(NotADecimal);
        }
        let fraction_digits = i32::try_from(fraction.len()).map_err(|_| NotADecimal)?;
        let mut exponent = exponent.checked_sub(fraction_digits).ok_or(NotADecimal)?;
        let mut digits: Vec<u8> = Vec::with_capacity(DIGITS);
        for byte in whole.bytes().chain(fraction.bytes()) {
            if !byte.is_ascii_digit() {
                return Err(NotADecimal);
            }
            if byte != b'0' || !digits.is_empty() {
                digits.push(byte - b'0');
            }
        }
        // Zeros may move between the coefficient and the exponent as far as the limits ask, and no further.
        while (digits.len() > DIGITS || exponent < MIN_EXPONENT) && digits.last() == Some(&0) {
            digits.pop();
            exponent = exponent.checked_add(1).ok_or(NotADecimal)?;
        }
        if digits.is_empty() {
            exponent = exponent.clamp(MIN_EXPONENT, MAX_EXPONENT);
        }
        while exponent > MAX_EXPONENT && digits.len() < DIGITS {
            digits.push(0);
            exponent -= 1;
        }
        if digits.len() > DIGITS || !(MIN_EXPONENT..=MAX_EXPONENT).contains(&exponent) {
            return Err(NotADecimal);
        }
        let coefficient = digits.iter().fold(0, |sum: u128, &digit| sum * 10 + u128::from(digit));
        Ok(Self::Finite { negative, coefficient, exponent })
    }
}

impl fmt::Display for Decimal128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = |negative: bool| if negative { "-" } else { "" };
        let (negative, coefficient, exponent) = match *self {
            Self::NaN => return f.write_str("NaN"),
            Self::Infinity { negative } => return write!(f, "{}Infinity", sign(negative)),
            Self::Finite { negative, coefficient, exponent } => (negative, coefficient.to_string(), exponent),
        };
        f.write_str(sign(negative))?;
        // At most 34 digits.
        let length = coefficient.len() as i32;
        let adjusted = exponent + length - 1;
        if exponent > 0 || adjusted < -6 {
            let (first, rest) = coefficient.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            return write!(f, "{first}{point}{rest}E{adjusted:+}");
        }
        if exponent == 0 {
            return f.write_str(&coefficient);
        }
        match usize::try_from(length + exponent) {
            Ok(whole @ 1..) => write!(f, "{}.{}", &coefficient[..whole], &coefficient[whole..]),
            _ => write!(f, "0.{}{coefficient}", "0".repeat((-exponent - length) as usize)),
        }
    }
}
