//! Arbitrary documents, out as they went in.

use std::collections::BTreeMap;

use proptest::collection::vec;
use records::record::{Key, Record};

use crate::documents;
use crate::harness::{Context, cases, get, id_of, list, upsert};

cases! {
    Any by property {
        arbitrary_documents_come_out_as_the_bytes_of_to_record,
    }
}

fn arbitrary_documents_come_out_as_the_bytes_of_to_record(context: &Context) {
    context.check(48, &vec(documents::document(), 1..12), async |store, documents| {
        upsert(&*store, documents.clone()).await;
        // The later one of a key stays.
        let expected: BTreeMap<Key, Record> =
            documents.iter().map(|document| (document.key().clone(), document.to_record())).collect();
        for document in &documents {
            let id = id_of(document);
            let addressed = id.keys().find_map(|key| expected.get(&key).cloned());
            assert!(addressed.is_some(), "{id:?} must address {:?}", document.key());
            assert_eq!(get(&*store, id.as_str()).await, addressed, "get {id:?}");
        }
        assert_eq!(list(&*store, None).await, expected.into_values().collect::<Vec<_>>());
    });
}
