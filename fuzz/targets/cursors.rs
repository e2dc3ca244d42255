//! A cursor is the client's text: one that nobody made is refused, and one that was forged with a right check sum means a
//! place in the list or nothing, in every store.
#![no_main]

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use libfuzzer_sys::fuzz_target;
use records::query::{Cursor, Path, Sort};
use records_fuzz::bson;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        check(text, None);
    }
    let sort = Sort { path: Path::parse("a.b").expect("a path"), descending: true };
    check(&forged(bytes, None), None);
    check(&forged(bytes, Some(&sort)), Some(&sort));
    assert_eq!(Cursor::decode(&forged(bytes, None), Some(&sort)), None, "a cursor of another order");
});

/// As `src/query/cursor.rs` makes them.
fn forged(body: &[u8], sort: Option<&Sort>) -> String {
    let order = sort.map(ToString::to_string).unwrap_or_default();
    let sums = [rapidhash::v3::rapidhash_v3(body), rapidhash::v3::rapidhash_v3(order.as_bytes())];
    let sum = ((sums[0] ^ sums[1].rotate_left(32)) as u32).to_le_bytes();
    BASE64_URL_SAFE_NO_PAD.encode([&[1], &sum[..], body].concat())
}

fn check(text: &str, sort: Option<&Sort>) {
    let Some(cursor) = Cursor::decode(text, sort) else { return };
    bson::from_key(&cursor.key);
    assert!(cursor.key.cmp(&cursor.key.clone()).is_eq());
    if let Some(value) = &cursor.value {
        let place = (value, &cursor.key);
        assert!(sort.is_some_and(|sort| sort.compare(place, place).is_eq()));
    }
    // What was read is what is written: an integer written as a double comes back as the integer.
    let again = Cursor::decode(&cursor.encode(sort), sort);
    assert_eq!(again, Some(cursor));
}
