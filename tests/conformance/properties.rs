//! Arbitrary documents are returned unchanged, and arbitrary requests return what the definition says.

use std::collections::BTreeMap;

use bson::{Bson, Document as Tree};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use records::query::{Path, SortError};
use records::record::{Document, Key};
use records::store::{ListRequest, Opened, Store};
use records::wire;

use crate::documents;
use crate::harness::{ALL, Context, cases, get, id_of, list, paged, request, try_rows, upsert};

cases! {
    Any by property {
        arbitrary_documents_come_out_as_they_went_in,
        any_request_finds_what_reading_every_document_finds,
        any_values_are_in_their_order,
    }
    Undefined by property {
        any_request_over_undefined_finds_what_reading_every_document_finds,
    }
}

/// Returns true if some text denotes the value.
fn is_addressable(id: &Bson) -> bool {
    match id {
        Bson::Double(value) => value.is_finite(),
        Bson::Decimal128(value) => !matches!(value.to_string().as_str(), "NaN" | "Infinity" | "-Infinity"),
        Bson::Binary(binary) => u8::from(binary.subtype) == 4 && binary.bytes.len() == 16,
        Bson::String(_) | Bson::Symbol(_) | Bson::ObjectId(_) | Bson::Boolean(_) | Bson::DateTime(_) => true,
        Bson::Int32(_) | Bson::Int64(_) => true,
        _ => false,
    }
}

fn tree(document: &Document) -> Tree {
    Tree::from_reader(&document.bson()[..]).expect("BSON")
}

fn arbitrary_documents_come_out_as_they_went_in(context: &Context) {
    context.check(48, &vec(documents::document(), 1..12), async |opened: Opened, documents| {
        let store = opened.into_store();
        upsert(&*store, documents.clone()).await;
        // The last document of each key stays.
        let expected: BTreeMap<Key, Document> =
            documents.iter().map(|document| (document.key().clone(), document.clone())).collect();
        for document in expected.values() {
            let id = id_of(document);
            let keys = id.keys();
            if tree(document).get("_id").is_some_and(is_addressable) {
                assert!(keys.contains(document.key()), "{id:?} must denote {:?}", document.key());
            }
            let addressed = keys.iter().find_map(|key| expected.get(key).cloned());
            assert_eq!(get(&*store, id.as_str()).await, addressed, "get {id:?}");
        }
        assert_eq!(list(&*store, None).await, expected.into_values().collect::<Vec<_>>());
    });
}

/// A request whose paths and values are taken from the stored documents.
#[derive(Debug)]
struct Asked {
    filters: Vec<(Index, Index, &'static str, u8)>,
    sort: Vec<(Index, bool)>,
    fields: Option<Vec<Index>>,
    limit: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    let operator = select(vec!["eq", "eq", "ne", "gt", "gte", "lt", "lte", "in", "exists"]);
    let filters = vec((any::<Index>(), any::<Index>(), operator, 0..7_u8), 0..3);
    let sort = prop_oneof![
        2 => Just(Vec::new()),
        3 => vec((any::<Index>(), any::<bool>()), 1),
        2 => vec((any::<Index>(), any::<bool>()), 2..4),
    ];
    let fields = proptest::option::of(vec(any::<Index>(), 1..3));
    (filters, sort, fields, 1..8_usize).prop_map(|(filters, sort, fields, limit)| Asked {
        filters,
        sort,
        fields,
        limit,
    })
}

/// Collects every path of a document, as in a parameter, with the text of its value.
fn shown(value: &Bson, path: &str, depth: usize, out: &mut Vec<(String, String)>) {
    if !path.is_empty() {
        out.push((path.to_owned(), text_of(value)));
    }
    // Paths do not reach into code with scope.
    match value {
        Bson::Document(fields) if depth < 8 => {
            for (name, value) in fields {
                let name = escaped(name);
                shown(value, &if path.is_empty() { name } else { format!("{path}.{name}") }, depth + 1, out);
            }
        }
        Bson::Array(values) if depth < 8 => {
            for (index, value) in values.iter().enumerate() {
                shown(value, path, depth + 1, out);
                shown(value, &format!("{path}.{index}"), depth + 1, out);
            }
        }
        _ => {}
    }
}

fn escaped(name: &str) -> String {
    let escape = |character| match character {
        '\\' | '.' | ',' | '-' | '*' => vec!['\\', character],
        character => vec![character],
    };
    name.chars().flat_map(escape).collect()
}

/// Returns the text of the value in the JSON of the record.
fn text_of(value: &Bson) -> String {
    let mut json = Vec::new();
    let document = bson::doc! { "v": value.clone() }.to_vec().expect("BSON");
    wire::document(&mut json, &document).expect("BSON");
    let fields: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let raw = String::from_utf8(json).expect("UTF-8");
    match &fields["v"] {
        serde_json::Value::String(text) => text.clone(),
        _ => raw[r#"{"v":"#.len()..raw.len() - 1].to_owned(),
    }
}

/// Returns the text, or another one if it would be refused: text in quotes must be a JSON string.
fn accepted(text: &str) -> &str {
    if text.starts_with('"') && serde_json::from_str::<String>(text).is_err() { "a" } else { text }
}

fn choice(text: &str) -> String {
    accepted(text).replace('\\', "\\\\").replace(',', "\\,")
}

fn parameters(asked: &Asked, paths: &[(String, String)]) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    for (at, other, operator, how) in &asked.filters {
        let (path, text) = at.get(paths);
        let text = match (*operator, how) {
            ("exists", how) => if how % 2 == 0 { "true" } else { "false" }.to_owned(),
            ("in", 0) => choice(text),
            ("in", 1) => format!("{},null", choice(text)),
            ("in", _) => format!("{},{}", choice(text), choice(&other.get(paths).1)),
            // The value at the path, another value, a part of the value, or the string.
            (_, 0..3) => text.clone(),
            (_, 3) => text.chars().take(other.index(text.chars().count() + 1)).collect(),
            (_, 4) => serde_json::to_string(text).expect("text is JSON"),
            _ => other.get(paths).1.clone(),
        };
        let text = if *operator == "in" { &*text } else { accepted(&text) };
        parameters.push((format!("{path}.{operator}"), text.to_owned()));
    }
    let mut sorted: Vec<(&str, bool)> = Vec::new();
    for (at, descending) in &asked.sort {
        let path = &*at.get(paths).0;
        if sorted.iter().all(|(other, _)| *other != path) {
            sorted.push((path, *descending));
        }
    }
    let fields: Vec<_> =
        sorted.iter().map(|(path, descending)| format!("{}{path}", if *descending { "-" } else { "" })).collect();
    if !fields.is_empty() {
        parameters.push(("sort".to_owned(), fields.join(",")));
    }
    if let Some(fields) = &asked.fields {
        let paths: Vec<_> = fields.iter().map(|at| &*at.get(paths).0).collect();
        parameters.push(("fields".to_owned(), paths.join(",")));
    }
    parameters
}

/// Computes the expected result over all documents with the crate's own matcher, sort and projection, but without its executor.
/// The suite `oracle` compares those with MongoDB.
fn expected(all: &BTreeMap<Key, Document>, request: &ListRequest) -> Result<Vec<Document>, SortError> {
    let matching = all.values().filter(|document| request.filter.matches(document.bson()).expect("BSON"));
    let mut rows: Vec<_> =
        matching.map(|document| Ok((request.sort.position(document)?, document))).collect::<Result<_, SortError>>()?;
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let projected = rows.into_iter().map(|(_, document)| match &request.projection {
        Some(projection) => projection.apply(document).expect("BSON"),
        None => document.clone(),
    });
    Ok(projected.collect())
}

async fn answers_as_expected(store: &dyn Store, all: &BTreeMap<Key, Document>, request: &ListRequest, limit: usize) {
    match expected(all, request) {
        Ok(expected) => assert_eq!(paged(store, request, [limit]).await, expected, "{request:?}"),
        Err(_) => {
            let rejected = try_rows(store, ListRequest { limit: Some(ALL), ..request.clone() }).await;
            let error = rejected.expect_err("two sort fields are arrays");
            assert_eq!(error.rejection().map(|(parameter, _)| parameter), Some("sort"), "{}", error.report());
        }
    }
}

async fn check_requests(opened: Opened, documents: Vec<Document>, requests: Vec<Asked>) {
    let store = opened.into_store();
    upsert(&*store, documents.clone()).await;
    let all: BTreeMap<_, _> = documents.iter().map(|document| (document.key().clone(), document.clone())).collect();
    let mut paths = Vec::new();
    all.values().for_each(|document| shown(&Bson::Document(tree(document)), "", 0, &mut paths));
    paths.retain(|(path, _)| Path::parse(path).is_ok());
    for asked in requests {
        let parameters = parameters(&asked, &paths);
        let borrowed: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        answers_as_expected(&*store, &all, &request(&borrowed), asked.limit).await;
    }
}

fn without_undefined(value: Bson) -> Bson {
    match value {
        Bson::Undefined => Bson::MinKey,
        Bson::Document(fields) => {
            Bson::Document(fields.into_iter().map(|(name, value)| (name, without_undefined(value))).collect())
        }
        Bson::Array(values) => Bson::Array(values.into_iter().map(without_undefined).collect()),
        other => other,
    }
}

fn any_request_finds_what_reading_every_document_finds(context: &Context) {
    let fields = documents::fields().prop_map(|fields| match without_undefined(Bson::Document(fields)) {
        Bson::Document(fields) => documents::stored(&fields),
        _ => unreachable!("a document stays one"),
    });
    context.check(96, &(vec(fields, 1..12), vec(asked(), 1..16)), async |opened, (documents, requests)| {
        check_requests(opened, documents, requests).await;
    });
}

fn any_request_over_undefined_finds_what_reading_every_document_finds(context: &Context) {
    let values = (vec(documents::document(), 1..12), vec(asked(), 1..16));
    context.check(96, &values, async |opened, (documents, requests)| {
        check_requests(opened, documents, requests).await;
    });
}

fn any_values_are_in_their_order(context: &Context) {
    let sort = select(vec!["v", "v", "-v", "v.t", "v,w", "-v,w", "w,-v", "v,-_id", "-_id", "_id,v", "v.a,-v.b", "v.0"]);
    let filter = select(vec![None, None, Some(("v.exists", "true")), Some(("v.gte", "b")), Some(("w.ne", "1"))]);
    let is_pointer = |value: &Bson| matches!(value, Bson::DbPointer(_));
    let has_pointer = move |value: &Bson| documents::contains(value, &is_pointer);
    let value = move || {
        let mixed = documents::mixed();
        mixed.prop_filter("MongoDB's sort ignores a part of DBPointers", move |value| {
            !value.as_ref().is_some_and(has_pointer)
        })
    };
    let values = (value(), prop_oneof![2 => Just(None), 1 => value()]);
    let values = (vec(values, 1..40), vec((sort, filter, 1..8_usize), 1..6));
    context.check(160, &values, async |opened: Opened, (values, requests): (Vec<_>, Vec<_>)| {
        let store = opened.into_store();
        let mut all = BTreeMap::new();
        for (index, (v, w)) in values.into_iter().enumerate() {
            // The order of the ids differs from that of the values.
            let mut tree = bson::doc! { "_id": (index as i32 * 37) % 41 };
            let fields = [("v", v), ("w", w)].into_iter().filter_map(|(name, value)| Some((name, value?)));
            fields.for_each(|(name, value)| drop(tree.insert(name, value)));
            let document = documents::stored(&tree);
            all.insert(document.key().clone(), document);
        }
        upsert(&*store, all.values().cloned().collect()).await;
        for (sort, filter, limit) in requests {
            let parameters: Vec<_> = [("sort", sort)].into_iter().chain(filter).collect();
            answers_as_expected(&*store, &all, &request(&parameters), limit).await;
        }
    });
}
