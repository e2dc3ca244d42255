//! The order of values: [`Key`] compared with the server's sort and its index of `_id`.

use std::cmp::Ordering;

use bson::{Bson, doc};
use proptest::collection::vec;
use proptest::prelude::*;
use records::record::{Document, Key, raw};

use crate::documents::{self, stored};
use crate::server::{self, Server, check};
use crate::values;

fn any_value() -> impl Strategy<Value = Bson> {
    let no_pointer = |value: &Bson| !documents::contains(value, &|value| matches!(value, Bson::DbPointer(_)));
    let any = documents::value().prop_filter("the server's sort ignores a part of DBPointers", no_pointer);
    prop_oneof![4 => values::value(), 2 => values::scalar(), 1 => values::number(), 2 => any]
}

fn key(value: &Bson) -> Key {
    let bytes = doc! { "v": value.clone() }.to_vec().expect("a value can be written");
    Key::new(raw::find(&bytes, b"v").expect("BSON").expect("the value")).expect("a key")
}

/// Returns the indexes of the keys in ascending order, with equal keys in the order of `of_equal`.
fn sorted(keys: &[Key], of_equal: fn(&usize, &usize) -> Ordering) -> Vec<i32> {
    let mut places: Vec<usize> = (0..keys.len()).collect();
    places.sort_by(|a, b| keys[*a].cmp(&keys[*b]).then(of_equal(a, b)));
    places.into_iter().map(|place| place as i32).collect()
}

/// Compares values of every type inside a document, where the server compares arrays as a whole.
pub fn keys_compare_as_values_do(server: &Server) {
    let collection = server.collection();
    check(96, &vec(any_value(), 1..40), |values| {
        let documents: Vec<Document> =
            (0..).zip(&values).map(|(n, v)| stored(&doc! { "_id": n, "v": { "v": v.clone() } })).collect();
        collection.fill(&documents);
        let keys: Vec<Key> = values.iter().map(key).collect();
        // The second sort reverses the order of equal values only.
        for (id, of_equal) in [(1, Ord::cmp as fn(&usize, &usize) -> Ordering), (-1, |a: &usize, b: &usize| b.cmp(a))] {
            let found = collection.find_numbers(doc! {}, doc! { "v": 1, "_id": id }).expect("a sorted find");
            let ours = sorted(&keys, of_equal);
            if found != ours {
                let at = found.iter().zip(&ours).position(|(a, b)| a != b).unwrap_or_default();
                let show =
                    |place: i32| format!("{:?} ({:02x?})", values[place as usize], keys[place as usize].as_bytes());
                prop_assert!(false, "the server has {} where {} is here", show(found[at]), show(ours[at]));
            }
        }
        Ok(())
    });
}

/// Compares values that can be an `_id` by the index of `_id`.
pub fn keys_compare_as_ids_do(server: &Server) {
    let collection = server.collection();
    // Includes documents, without the names that an `_id` may not have.
    let id = prop_oneof![values::value().prop_filter("no _id", values::is_id), documents::id()];
    check(96, &vec(id, 1..40), |values| {
        let documents: Vec<Document> =
            (0..).zip(&values).map(|(n, v)| stored(&doc! { "_id": v.clone(), "n": n })).collect();
        let taken = collection.fill_distinct(&documents);
        let mut ours: Vec<(&Key, usize)> = Vec::new();
        for (place, document) in documents.iter().enumerate() {
            if !ours.iter().any(|(key, _)| *key == document.key()) {
                ours.push((document.key(), place));
            }
        }
        let places: Vec<usize> = ours.iter().map(|(_, place)| *place).collect();
        let shown: Vec<_> =
            values.iter().enumerate().filter(|(place, _)| taken.contains(place) != places.contains(place)).collect();
        prop_assert_eq!(&taken, &places, "duplicates: {:?} of {:?}", shown, values);
        ours.sort();
        let ours: Vec<&Bson> = ours.iter().map(|(_, place)| &values[*place]).collect();
        let found = collection.find(doc! {}, doc! { "_id": 1 }, None).expect("a find in the order of _id");
        let found: Vec<&Bson> =
            found.iter().map(|d| &values[server::raw(d).get_i32("n").expect("n") as usize]).collect();
        prop_assert_eq!(format!("{found:#?}"), format!("{ours:#?}"));
        for document in &documents {
            let (kind, bytes) = document.key().to_value().expect("a value");
            let mut query = Vec::new();
            raw::append_document(&mut query, |out| {
                raw::append_name(out, b"_id", bson::spec::ElementType::EmbeddedDocument);
                raw::append_document(out, |out| {
                    raw::append_element(out, b"$eq", records::record::ValueRef { kind, bytes: &bytes })
                });
            });
            let filter = bson::deserialize_from_slice(&query).expect("a filter");
            let found = collection.find(filter, doc! {}, None).expect("a find by _id");
            prop_assert_eq!(found.len(), 1, "found by the value of {:?}", document.key());
            prop_assert_eq!(found[0].key(), document.key());
        }
        Ok(())
    });
}

/// Compares values that only a view can have as `_id`.
pub fn keys_compare_as_the_ids_of_a_view_do(server: &Server) {
    let collection = server.collection();
    let name = format!("{}_view", collection.collection.name());
    let stages = vec![doc! { "$project": { "_id": { "v": "$v" }, "n": "$_id" } }];
    let view = server.database().collection::<bson::RawDocumentBuf>(&name);
    server.block_on(async {
        server
            .database()
            .create_collection(&name)
            .view_on(collection.collection.name())
            .pipeline(stages)
            .await
            .expect("a view");
    });
    check(16, &vec(any_value(), 1..20), |values| {
        let documents: Vec<Document> =
            (0..).zip(&values).map(|(n, v)| stored(&doc! { "_id": n, "v": v.clone() })).collect();
        collection.fill(&documents);
        let found = server.block_on(async {
            use futures::TryStreamExt;
            let found = view.find(doc! {}).sort(doc! { "_id": 1, "n": 1 }).await.expect("a find");
            found.try_collect::<Vec<_>>().await.expect("documents")
        });
        let found: Vec<i32> = found.iter().map(|raw| raw.get_i32("n").expect("n")).collect();
        let keys: Vec<Key> = values.iter().map(key).collect();
        prop_assert_eq!(found, sorted(&keys, Ord::cmp));
        Ok(())
    });
}
