//! A cursor is the client's text. Arbitrary text is refused, and a cursor that was forged with a right check sum is refused or
//! is a position in the list.
#![no_main]

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use libfuzzer_sys::fuzz_target;
use records::query::{Cursor, Path, Sort, SortField};
use records::record::{Document, ValueRef, raw};

fuzz_target!(|bytes: &[u8]| {
    let field = |path, descending| SortField { path: Path::parse(path).expect("a path"), descending };
    let orders = [vec![], vec![field("a.b", true)], vec![field("a", false), field("b", true)]].map(Sort);
    for sort in &orders {
        if let Ok(text) = std::str::from_utf8(bytes) {
            check(text, sort);
        }
        let forged = forged(bytes, sort);
        check(&forged, sort);
        for other in orders.iter().filter(|other| *other != sort) {
            assert_eq!(Cursor::decode(&forged, other), None, "a cursor of another order");
        }
    }
});

/// Encodes flags and position like `src/query/cursor.rs`.
fn forged(body: &[u8], sort: &Sort) -> String {
    let sums = [rapidhash::v3::rapidhash_v3(body), rapidhash::v3::rapidhash_v3(sort.to_string().as_bytes())];
    let sum = ((sums[0] ^ sums[1].rotate_left(32)) as u32).to_le_bytes();
    BASE64_URL_SAFE_NO_PAD.encode([&[2], &sum[..], body].concat())
}

fn check(text: &str, sort: &Sort) {
    let Some(cursor) = Cursor::decode(text, sort) else { return };
    assert_eq!(Cursor::decode(&cursor.encode(sort), sort).as_ref(), Some(&cursor));
    let (values, id) = cursor.position.split(sort).expect("decoding has checked it");
    assert_eq!(values.len(), sort.0.len());
    // A document with these values and this `_id` has the same position.
    let mut bson = Vec::new();
    raw::append_document(&mut bson, |out| {
        if let Ok((kind, bytes)) = id.to_value() {
            raw::append_element(out, b"_id", ValueRef { kind, bytes: &bytes });
        }
    });
    let document = Document::new(bson).expect("a key gives BSON");
    assert_eq!(document.key(), &id);
    let position = sort.position(&document).expect("a document without arrays has a position");
    if sort.is_empty() {
        assert_eq!(position, cursor.position);
    }
}
