//! [`Key`]s as bytes that sort as the keys compare.

use crate::record::{Key, rank};

/// After the rank: whether the rest is a value of the rank's known type, or opaque.
const KNOWN: u8 = 0;
const OPAQUE: u8 = 1;

/// Bytes that sort as keys compare: the rank of the type, then a form of the value that sorts.
pub fn encode(key: &Key) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.extend_from_slice(&[key.rank(), if matches!(key, Key::Opaque { .. }) { OPAQUE } else { KNOWN }]);
    match key {
        Key::Integer(value) => {
            // The largest double that is not greater, then what is left: so integers and doubles sort among each other
            // although an i64 has more digits than a double.
            let mut below = *value as f64;
            if below as i128 > i128::from(*value) {
                below = below.next_down();
            }
            let rest = (i128::from(*value) - below as i128) as u16;
            out.extend_from_slice(&sortable(below).to_be_bytes());
            out.extend_from_slice(&rest.to_be_bytes());
        }
        Key::Double(value) => {
            out.extend_from_slice(&sortable(*value).to_be_bytes());
            out.extend_from_slice(&[0; 2]);
        }
        Key::String(text) => out.extend_from_slice(text.as_bytes()),
        Key::Uuid(bytes) => out.extend_from_slice(bytes),
        Key::ObjectId(bytes) => out.extend_from_slice(bytes),
        Key::Bool(value) => out.push(u8::from(*value)),
        Key::Date(millis) => out.extend_from_slice(&(*millis as u64 ^ 1 << 63).to_be_bytes()),
        Key::Opaque { bytes, .. } => out.extend_from_slice(bytes),
    }
    out
}

pub fn decode(bytes: &[u8]) -> Option<Key> {
    Some(match bytes {
        [rank, OPAQUE, rest @ ..] => Key::Opaque { rank: *rank, bytes: rest.into() },
        [rank::NUMBER, KNOWN, rest @ ..] => {
            let (sorted, rest) = rest.split_first_chunk::<8>()?;
            let below = unsortable(u64::from_be_bytes(*sorted));
            match u16::from_be_bytes(rest.try_into().ok()?) {
                0 => Key::double(below),
                rest => Key::Integer(below as i64 + i64::from(rest)),
            }
        }
        [rank::STRING, KNOWN, rest @ ..] => Key::String(std::str::from_utf8(rest).ok()?.into()),
        [rank::BINARY, KNOWN, rest @ ..] => Key::Uuid(rest.try_into().ok()?),
        [rank::OBJECT_ID, KNOWN, rest @ ..] => Key::ObjectId(rest.try_into().ok()?),
        [rank::BOOL, KNOWN, value] => Key::Bool(*value != 0),
        [rank::DATE, KNOWN, rest @ ..] => Key::Date((u64::from_be_bytes(rest.try_into().ok()?) ^ 1 << 63) as i64),
        _ => return None,
    })
}

const SIGN: u64 = 1 << 63;

/// IEEE 754 doubles sort as sign-magnitude integers; NaN goes before them all.
fn sortable(value: f64) -> u64 {
    match value.to_bits() {
        _ if value.is_nan() => 0,
        bits if bits & SIGN == 0 => bits | SIGN,
        bits => !bits,
    }
}

fn unsortable(sorted: u64) -> f64 {
    match sorted {
        0 => f64::NAN,
        sorted if sorted & SIGN != 0 => f64::from_bits(sorted & !SIGN),
        sorted => f64::from_bits(!sorted),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Key> {
        prop_oneof![
            any::<i64>().prop_map(Key::Integer),
            any::<i32>().prop_map(|value| Key::Integer(value.into())),
            // Where doubles and integers meet at the limit of precision.
            (any::<i8>(), 50..63_u32).prop_map(|(near, power)| Key::Integer((1 << power) + i64::from(near))),
            (any::<i8>(), 50..65_i32).prop_map(|(near, power)| Key::double(2_f64.powi(power) + f64::from(near))),
            any::<f64>().prop_map(Key::double),
            any::<String>().prop_map(|text| Key::String(text.into())),
            any::<[u8; 16]>().prop_map(Key::Uuid),
            any::<[u8; 12]>().prop_map(Key::ObjectId),
            any::<bool>().prop_map(Key::Bool),
            any::<i64>().prop_map(Key::Date),
            (any::<u8>(), any::<Vec<u8>>()).prop_map(|(rank, bytes)| Key::Opaque { rank, bytes: bytes.into() }),
        ]
    }

    proptest! {
        #[test]
        fn encoded_keys_sort_as_keys_compare(a in keys(), b in keys()) {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
        }

        #[test]
        fn a_key_comes_back_from_its_encoding(key in keys()) {
            prop_assert_eq!(decode(&encode(&key)), Some(key));
        }
    }
}
