//! Query strings: a selection, or the parameter that is wrong. Filtering, sorting and projecting a record by any selection
//! does not fail.
#![no_main]

use std::sync::LazyLock;

use bson::{Bson, doc};
use libfuzzer_sys::fuzz_target;
use records::query::{Path, Selection, SortError, decode};
use records::record::Document;

static RECORD: LazyLock<Document> = LazyLock::new(|| {
    let tree = doc! {
        "_id": 1,
        "a": { "b": [{ "c": 5 }, { "c": 5.5 }, [{ "c": 6_i64 }]], "": Bson::Null, "0": { "b": true } },
        "a.b": "x",
        "s": "A\n",
        "n": -1e-7,
        "d": bson::DateTime::from_millis(1_441_875_347_000),
        "m": [Bson::MinKey, "1e400".parse::<bson::Decimal128>().expect("a decimal")],
    };
    Document::new(tree.to_vec().expect("bytes")).expect("BSON")
});

fuzz_target!(|text: &str| {
    if let Ok(path) = Path::parse(text) {
        assert_eq!(Path::parse(&path.to_string()), Ok(path), "a path reads as it is written");
    }
    let Ok(parameters) = decode(text) else { return };
    let _ = Selection::parse_projection(&parameters);
    let selection = match Selection::parse(&parameters) {
        Ok(selection) => selection,
        Err(error) => {
            // A response repeats little of the client's text.
            assert!(error.parameter.chars().count() <= 64 && error.detail.chars().count() < 1_000, "{error:?}");
            return;
        }
    };
    assert_eq!(Selection::parse(&parameters).as_ref(), Ok(&selection));
    let each = selection.filter.clauses().iter().all(|clause| clause.matches(RECORD.bson()).expect("BSON"));
    assert_eq!(selection.filter.matches(RECORD.bson()), Ok(each));
    if let Some(projection) = &selection.projection {
        let kept = projection.apply(&RECORD).expect("BSON");
        assert_eq!(Document::new(kept.bson().clone()).as_ref(), Ok(&kept), "a document with the same `_id`");
        assert_eq!(projection.apply(&kept).as_ref(), Ok(&kept), "twice is as once");
    }
    match selection.sort.position(&RECORD) {
        Ok(position) => drop(position.split(&selection.sort).expect("a position in this order")),
        Err(SortError::Malformed(error)) => panic!("{error}"),
        Err(_) => {}
    }
});
