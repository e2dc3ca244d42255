//! Sort order: [`Sort::position`] compared with the server's sort.

use bson::{Document as Tree, doc};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use records::query::{Position, Selection, Sort, SortError, decode};

use crate::server::{Server, check, number};
use crate::values::{NAMES, numbered_documents, path};

/// Paths; true for a descending order.
pub type SortFields = Vec<(Vec<&'static str>, bool)>;

/// Chooses up to three fields of [`values::flat_fields`](crate::values::flat_fields).
pub fn flat_sort_fields() -> impl Strategy<Value = SortFields> {
    let fields = (subsequence(vec!["a", "b", "0"], 1..=3).prop_shuffle(), any::<[bool; 3]>());
    fields.prop_map(|(names, descending)| names.into_iter().map(|name| vec![name]).zip(descending).collect())
}

/// Chooses up to three different paths, which often share a prefix.
pub fn sort_fields() -> impl Strategy<Value = SortFields> {
    let id = vec(select(NAMES), 0..2).prop_map(|rest| [vec!["_id"], rest].concat());
    let path = prop_oneof![9 => path(), 1 => id];
    vec((path, any::<bool>(), any::<bool>()), 1..4).prop_map(|fields| {
        let mut distinct = SortFields::new();
        for (mut path, descending, shares) in fields {
            if let Some((before, _)) = distinct.last()
                && shares
            {
                path[0] = before[0];
            }
            if !distinct.iter().any(|(other, _)| *other == path) {
                distinct.push((path, descending));
            }
        }
        distinct
    })
}

/// Returns the product's sort and MongoDB's.
pub fn sort(fields: &[(Vec<&str>, bool)]) -> (Sort, Tree) {
    let text =
        |(path, descending): &(Vec<&str>, bool)| format!("{}{}", if *descending { "-" } else { "" }, path.join("."));
    if fields.is_empty() {
        return (Sort::default(), doc! { "_id": 1 });
    }
    let query = format!("sort={}", fields.iter().map(text).collect::<Vec<_>>().join(","));
    let selection = decode(&query).and_then(|parameters| Selection::parse(&parameters)).expect("a sort");
    let mut sort = Tree::new();
    for (path, descending) in fields {
        sort.insert(path.join("."), if *descending { -1 } else { 1 });
    }
    if !sort.contains_key("_id") {
        sort.insert("_id", 1);
    }
    (selection.sort, sort)
}

pub fn documents_are_sorted_as_a_find_sorts_them(server: &Server) {
    let collection = server.collection();
    check(128, &(numbered_documents(), vec(sort_fields(), 1..20)), |(documents, sorts)| {
        collection.fill(&documents);
        for fields in sorts {
            let (sort, order) = sort(&fields);
            let mut ours: Vec<(Position, i32)> = Vec::new();
            let mut refused = Vec::new();
            for document in &documents {
                match sort.position(document) {
                    Ok(position) => ours.push((position, number(document))),
                    Err(SortError::Malformed(error)) => prop_assert!(false, "{}", error),
                    Err(error) => refused.push((number(document), error)),
                }
            }
            ours.sort();
            let ours: Vec<i32> = ours.into_iter().map(|(_, number)| number).collect();
            let found = collection.find_numbers(doc! { "_id": { "$in": &ours } }, order.clone());
            match found {
                Ok(found) => prop_assert_eq!(&found, &ours, "sorted by {}", order),
                Err(error) => prop_assert!(false, "sorted by {}: {}", order, error),
            }
            for (number, error) in refused {
                // Finds two documents, since the server does not sort a single one.
                let found = collection.find_numbers(doc! { "_id": { "$gte": number, "$lte": number } }, order.clone());
                prop_assert!(found.is_err(), "sorted by {}: {} is refused with `{}`", order, number, error);
            }
        }
        Ok(())
    });
}
