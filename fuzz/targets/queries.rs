//! Query strings: a selection or what is wrong with it; and whatever was selected, judging a record by it never fails, and
//! what is kept of the record is JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use records::query::{Path, Selection, decode};

const RECORD: &[u8] =
    br#"{"_id":1,"a":{"b":[{"c":5},{"c":5.5},[{"c":6}]],"":null},"a.b":"x","a":true,"s":"\u0041\n","n":-1e-7}"#;

fuzz_target!(|text: &str| {
    if let Ok(path) = Path::parse(text) {
        assert_eq!(Path::parse(&path.to_string()), Ok(path), "a path reads as it is written");
    }
    let Ok(parameters) = decode(text) else { return };
    let _ = Selection::fields_alone(&parameters);
    let selection = match Selection::parse(&parameters) {
        Ok(selection) => selection,
        Err(bad) => {
            // An answer repeats little of what a client wrote.
            assert!(bad.parameter.chars().count() <= 64 && bad.detail.chars().count() < 1_000, "{bad:?}");
            return;
        }
    };
    assert_eq!(Selection::parse(&parameters).as_ref(), Ok(&selection));
    let each = selection.filters.iter().all(|filter| filter.holds(RECORD));
    assert_eq!(selection.filters.hold(RECORD), each);
    if let Some(fields) = &selection.fields {
        let kept: serde_json::Value = serde_json::from_slice(&fields.kept(RECORD)).expect("JSON");
        assert_eq!(kept["_id"], 1);
    }
    if let Some(sort) = &selection.sort {
        sort.value(RECORD);
    }
});
