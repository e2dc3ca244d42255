//! Projection: [`Projection::apply`] compared byte for byte with the server's inclusive projection.

use bson::{Document as Tree, doc};
use proptest::collection::vec;
use proptest::prelude::*;
use records::query::{Projection, Selection, decode};

use crate::server::{Server, check};
use crate::values::{numbered_documents, path};

/// Returns the product's projection and MongoDB's. The latter refuses a field together with a part of it.
pub fn projection(paths: &[Vec<&str>]) -> (Projection, Tree) {
    let query = format!("fields={}", paths.iter().map(|path| path.join(".")).collect::<Vec<_>>().join(","));
    let selection = decode(&query).and_then(|parameters| Selection::parse(&parameters)).expect("fields");
    let is_whole = |path: &Vec<&str>| !paths.iter().any(|other| other.len() < path.len() && path.starts_with(other));
    let kept = paths.iter().filter(|path| is_whole(path));
    let tree = kept.map(|path| (path.join("."), bson::Bson::Int32(1))).collect();
    (selection.projection.expect("a projection"), tree)
}

pub fn fields_are_kept_as_a_find_keeps_them(server: &Server) {
    let collection = server.collection();
    check(128, &(numbered_documents(), vec(vec(path(), 1..5), 1..20)), |(documents, projections)| {
        collection.fill(&documents);
        for paths in projections {
            let (projection, tree) = projection(&paths);
            let found = collection.find(doc! {}, doc! { "_id": 1 }, Some(tree.clone())).expect("a find");
            prop_assert_eq!(found.len(), documents.len());
            for (document, found) in documents.iter().zip(found) {
                let ours = projection.apply(document).expect("BSON");
                prop_assert_eq!(&ours, &found, "{} of {:?}", tree, document);
            }
        }
        Ok(())
    });
}
