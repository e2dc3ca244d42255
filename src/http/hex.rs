//! Numbers in hexadecimal digits, for headers that every answer has: `format!` takes ten times as long.

pub fn digits(number: u64) -> [u8; 16] {
    std::array::from_fn(|index| b"0123456789abcdef"[(number >> (60 - 4 * index)) as usize & 15])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::digits;

    proptest! {
        #[test]
        fn the_digits_are_those_of_the_formatter(number in any::<u64>()) {
            prop_assert_eq!(digits(number).to_vec(), format!("{number:016x}").into_bytes());
        }
    }
}
