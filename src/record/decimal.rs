//! The value of a Decimal128, for comparing. The `bson` crate reads and writes its text, and keeps the rest to itself.

use std::cmp::Ordering;

use bson::Decimal128;

/// More digits than any double has.
const DIGITS_OF_DOUBLES: usize = 770;

/// The greatest coefficient: 34 digits.
const COEFFICIENT_MAX: u128 = 9_999_999_999_999_999_999_999_999_999_999_999;

const EXPONENT_BIAS: i32 = 6176;

/// A Decimal128 taken apart ([IEEE 754-2008](https://ieeexplore.ieee.org/document/4610935), binary integer encoding).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimal {
    /// `coefficient` × 10^`exponent`.
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

impl Decimal {
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let bits = u128::from_le_bytes(bytes);
        let negative = bits >> 127 == 1;
        match (bits >> 122) & 0b11111 {
            0b11111 => Self::NaN,
            0b11110 => Self::Infinity { negative },
            // The second form has coefficients beyond 34 digits only, which count as zero.
            form if form >> 3 == 0b11 => {
                Self::Finite { negative, coefficient: 0, exponent: ((bits >> 111) & 0x3fff) as i32 - EXPONENT_BIAS }
            }
            _ => {
                let coefficient = Some(bits & ((1 << 113) - 1)).filter(|coefficient| *coefficient <= COEFFICIENT_MAX);
                let exponent = ((bits >> 113) & 0x3fff) as i32 - EXPONENT_BIAS;
                Self::Finite { negative, coefficient: coefficient.unwrap_or(0), exponent }
            }
        }
    }

    /// `None` for what a Decimal128 cannot hold.
    pub fn to_bytes(self) -> Option<[u8; 16]> {
        let text = match self {
            Self::NaN => "NaN".to_owned(),
            Self::Infinity { negative } => format!("{}Infinity", if negative { "-" } else { "" }),
            Self::Finite { negative, coefficient, exponent } => text(negative, coefficient, exponent),
        };
        Some(text.parse::<Decimal128>().ok()?.bytes())
    }
}

fn text(negative: bool, coefficient: u128, exponent: i32) -> String {
    format!("{}{coefficient}E{exponent}", if negative { "-" } else { "" })
}

/// The same value with the shortest coefficient.
pub fn without_zeros(mut coefficient: u128, mut exponent: i32) -> (u128, i32) {
    while coefficient != 0 && coefficient.is_multiple_of(10) {
        (coefficient, exponent) = (coefficient / 10, exponent + 1);
    }
    (coefficient, exponent)
}

/// The double that is nearest to the value; beyond the range of finite doubles, infinity.
pub fn nearest_double(negative: bool, coefficient: u128, exponent: i32) -> f64 {
    text(negative, coefficient, exponent).parse().unwrap_or(f64::NAN)
}

/// The value as an integer of 64 bits, if it is one.
pub fn to_int64(negative: bool, coefficient: u128, exponent: i32) -> Option<i64> {
    let power = 10_i128.checked_pow(u32::try_from(exponent).ok()?)?;
    let magnitude = i128::try_from(coefficient).ok()?.checked_mul(power)?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// Compares `coefficient` × 10^`exponent` with `double`, exactly. Neither is negative, the coefficient is not 0 and has no
/// zeros at its end.
pub fn compare_magnitude(coefficient: u128, exponent: i32, double: f64) -> Ordering {
    if double == 0.0 {
        return Ordering::Greater;
    }
    if double.is_infinite() {
        return Ordering::Less;
    }
    // A double is a binary fraction, so its decimal digits end.
    let all = format!("{double:.DIGITS_OF_DOUBLES$e}");
    let (digits, power) = all.split_once('e').unwrap_or((&all, "0"));
    let digits = digits.replace('.', "");
    let ours = coefficient.to_string();
    let first = exponent + ours.len() as i32 - 1;
    first.cmp(&power.parse().unwrap_or(0)).then_with(|| ours.as_str().cmp(digits.trim_end_matches('0')))
}
