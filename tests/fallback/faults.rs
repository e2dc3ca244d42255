pub const CASES: &[crate::Case] = &[];
