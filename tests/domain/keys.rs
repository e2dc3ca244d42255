//! The order of keys, which is the order of lists.

use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;
use proptest::sample::select;
use records::record::{Key, rank};
use rstest::rstest;

use crate::documents::{date, double, text};

/// Few different keys, so that equal ones and near ones meet often.
fn key() -> impl Strategy<Value = Key> {
    let near_limits = (select(vec![0, 52, 53, 54, 62]), -3..=3_i64).prop_flat_map(|(power, near)| {
        let value = (1_i64 << power) + near;
        select(vec![Key::Integer(value), Key::Integer(-value), Key::double(value as f64), Key::double(-value as f64)])
    });
    let limits = select(vec![
        Key::Integer(i64::MAX),
        Key::Integer(i64::MIN),
        Key::double(9_223_372_036_854_775_808.0),
        Key::double(-9_223_372_036_854_775_808.0),
        Key::double(9_223_372_036_854_777_856.0),
        Key::double(-9_223_372_036_854_777_856.0),
        Key::double(f64::NAN),
        Key::double(-f64::NAN),
        Key::double(f64::INFINITY),
        Key::double(f64::NEG_INFINITY),
        Key::double(-0.0),
        Key::double(0.5),
        Key::double(-0.5),
    ]);
    prop_oneof![
        3 => near_limits,
        3 => limits,
        1 => double().prop_map(Key::double),
        1 => any::<i64>().prop_map(Key::Integer),
        1 => text().prop_map(|text| Key::String(text.into())),
        1 => "[ab]{0,2}".prop_map(|text| Key::String(text.into())),
        1 => (0..3_u8).prop_map(|byte| Key::Uuid([byte; 16])),
        1 => (0..3_u8).prop_map(|byte| Key::ObjectId([byte; 12])),
        1 => any::<bool>().prop_map(Key::Bool),
        1 => date().prop_map(Key::Date),
        1 => (select(vec![rank::NULL, rank::NUMBER, rank::STRING, rank::BINARY, rank::MAX_KEY]), 0..3_u8)
            .prop_map(|(rank, byte)| Key::Opaque { rank, bytes: [byte].into() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_order_is_antisymmetric_and_agrees_with_equality(a in key(), b in key()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
        prop_assert_eq!(a.partial_cmp(&b), Some(a.cmp(&b)));
        prop_assert_eq!(a.cmp(&a), Ordering::Equal);
    }

    #[test]
    fn the_order_is_transitive(mut keys in [key(), key(), key()]) {
        keys.sort();
        prop_assert!(keys[0] <= keys[1] && keys[1] <= keys[2] && keys[0] <= keys[2], "{:?}", keys);
    }

    #[test]
    fn equal_keys_have_equal_hashes(a in key(), b in key()) {
        if a == b {
            let hasher = RandomState::new();
            prop_assert_eq!(hasher.hash_one(&a), hasher.hash_one(&b));
        }
    }

    #[test]
    fn numbers_compare_by_their_exact_value(integer: i64, near in -3..=3_i32) {
        // The double next to the integer, or a few further on.
        let mut double = integer as f64;
        for _ in 0..near.abs() {
            double = if near > 0 { double.next_up() } else { double.next_down() };
        }
        let (whole, fraction) = (double.floor() as i128, double - double.floor());
        let exact = i128::from(integer).cmp(&whole).then(0.0.partial_cmp(&fraction).unwrap());
        prop_assert_eq!(Key::Integer(integer).cmp(&Key::double(double)), exact);
    }
}

#[rstest]
#[case::whole(5.0, 5)]
#[case::negative_zero(-0.0, 0)]
#[case::where_precision_ends(9_007_199_254_740_992.0, 9_007_199_254_740_992)]
#[case::least(-9_223_372_036_854_775_808.0, i64::MIN)]
#[case::largest_below_the_limit(9_223_372_036_854_774_784.0, 9_223_372_036_854_774_784)]
fn a_whole_double_is_the_key_of_the_integer(#[case] double: f64, #[case] integer: i64) {
    assert!(matches!(Key::double(double), Key::Integer(value) if value == integer));
}

#[test]
fn types_come_in_the_order_of_mongodb() {
    let opaque = |rank| Key::Opaque { rank, bytes: [0].into() };
    let in_order = [
        opaque(rank::MIN_KEY),
        opaque(rank::NULL),
        Key::double(f64::NAN),
        Key::double(f64::NEG_INFINITY),
        Key::double(-9_223_372_036_854_777_856.0),
        Key::Integer(i64::MIN),
        Key::Integer(-1),
        Key::double(-0.5),
        Key::Integer(0),
        Key::double(0.5),
        Key::Integer(9_007_199_254_740_992),
        Key::Integer(9_007_199_254_740_993),
        Key::Integer(i64::MAX),
        Key::double(9_223_372_036_854_775_808.0),
        Key::double(f64::INFINITY),
        Key::String("".into()),
        Key::String("10".into()),
        Key::String("9".into()),
        Key::String("Z".into()),
        Key::String("a".into()),
        Key::String("é".into()),
        Key::String("\u{ffff}".into()),
        Key::String("\u{10000}".into()),
        opaque(rank::DOCUMENT),
        Key::Uuid([0; 16]),
        opaque(rank::BINARY),
        Key::ObjectId([0; 12]),
        Key::Bool(false),
        Key::Bool(true),
        Key::Date(i64::MIN),
        Key::Date(0),
        opaque(rank::TIMESTAMP),
        opaque(rank::OTHER),
        opaque(rank::MAX_KEY),
    ];
    for pair in in_order.windows(2) {
        assert!(pair[0] < pair[1], "{:?} comes before {:?}", pair[0], pair[1]);
    }
}
