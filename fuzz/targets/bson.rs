//! What a server sends becomes valid JSON or an error, whatever it is; and where the `bson` crate can read it too, the same
//! JSON as the obvious way gives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mongodb::bson::Document as Tree;
use records_fuzz::{bson, obvious};

fuzz_target!(|bytes: &[u8]| {
    compare(bytes);
    // The same with the outermost length and end made right, so that the fuzzer need not find them.
    let mut framed = [&[0; 4], bytes, &[0]].concat();
    let length = framed.len() as i32;
    framed[..4].copy_from_slice(&length.to_le_bytes());
    compare(&framed);
});

fn compare(bytes: &[u8]) {
    let mut json = Vec::new();
    let read = bson::to_json(&mut json, bytes);
    if let Ok(key) = &read {
        let parsed = serde_json::from_slice::<&serde_json::value::RawValue>(&json);
        assert!(parsed.is_ok(), "{parsed:?} in {}", String::from_utf8_lossy(&json));
        // A key goes back to the server, as a bound.
        bson::from_key(key);
    }
    let Ok(tree) = Tree::from_reader(bytes) else { return };
    // What is not written back as it was has something that the tree cannot show, such as a name that stands twice.
    if !tree.to_vec().is_ok_and(|written| written == bytes) || !tree.contains_key("_id") {
        return;
    }
    assert!(read.is_ok(), "{read:?}, although it can be read: {tree:?}");
    if let Some(slow) = obvious::slow_document(&tree) {
        assert_eq!(String::from_utf8_lossy(&json), slow);
    }
}
