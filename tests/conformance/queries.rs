//! Filters and orders: every store answers what reading every record by hand answers.

use std::cmp::Ordering;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use records::document::Document;
use records::query::sort::PREFIX;
use records::query::{After, Cursor, Fields, Path, Selection};
use records::record::{Key, Record};
use records::store::{Query, Share, Store, page};
use serde_json::Value;

use crate::documents;
use crate::harness::{Context, cases, chain, json, upsert, upsert_texts};

cases! {
    Any by store {
        a_filter_finds_what_shows_as_the_text,
        a_range_compares_numbers_with_numbers_and_strings_with_strings,
        a_negation_finds_what_is_missing_too,
        a_path_goes_through_arrays,
        no_value_is_an_operator,
        an_order_has_a_place_for_every_type,
    }
    Any by property {
        any_query_finds_what_reading_by_hand_finds,
        any_values_are_in_the_order_of_their_json,
    }
}

/// What the parameters ask for, page by page.
async fn ask(store: &dyn Store, parameters: &[(&str, &str)], limit: usize) -> Vec<Record> {
    let owned: Vec<_> = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let selection = Selection::parse(&owned).unwrap_or_else(|bad| panic!("{parameters:?}: {bad:?}"));
    let mut after: Option<Cursor> = None;
    let mut all = Vec::new();
    loop {
        let sort = selection.sort.as_ref();
        let query = Query { filters: selection.filters.clone(), fields: selection.fields.clone(), ..Query::all() };
        let page = page(store, query, sort, after, limit, &mut Share::default()).await;
        let page = page.unwrap_or_else(|error| panic!("{parameters:?}: {}", chain(&error)));
        assert!(page.records.len() <= limit);
        all.extend(page.records);
        let Some(next) = page.next else { return all };
        assert!(all.len() % limit == 0, "a page that is not the last is full");
        // By way of the client.
        let again = Selection::parse(&[
            ("sort".to_owned(), sort.map_or("_id".to_owned(), ToString::to_string)),
            ("after".to_owned(), next.encode(sort)),
        ]);
        if sort.is_some() {
            assert_eq!(again.unwrap().after, Some(After::Cursor(next.clone())));
        }
        after = Some(next);
    }
}

async fn ids(store: &dyn Store, parameters: &[(&str, &str)]) -> Vec<String> {
    let records = ask(store, parameters, 100).await;
    records.iter().map(|record| serde_json::from_str::<Value>(&json(record)).unwrap()["_id"].to_string()).collect()
}

/// Of everything that shows as something, one; and what looks like it and is not.
const SHOWN: &[(&str, &str)] = &[
    (r#"{"$numberInt":"5"}"#, "5"),
    (r#"{"$numberLong":"5"}"#, "5.0"),
    (r#"{"$numberDouble":"5.0"}"#, "5"),
    (r#"{"$numberLong":"9007199254740993"}"#, "9007199254740993"),
    (r#""Gold""#, "Gold"),
    (r#""5""#, "5"),
    (r#""""#, ""),
    (r#""a\u0000b""#, "a\0b"),
    (r#""$where""#, "$where"),
    ("true", "true"),
    (r#""false""#, "false"),
    ("null", "null"),
    (r#"{"$undefined":true}"#, "null"),
    (r#"{"$numberDouble":"NaN"}"#, "null"),
    (r#"{"$numberDouble":"-Infinity"}"#, "null"),
    (r#"{"$numberDecimal":"1.50"}"#, "1.50"),
    (r#"{"$numberDecimal":"NaN"}"#, "NaN"),
    (r#"{"$oid":"507f1f77bcf86cd799439011"}"#, "507f1f77bcf86cd799439011"),
    (r#"{"$uuid":"3b241101-e2bb-4255-8caf-4136c566a962"}"#, "3b241101-e2bb-4255-8caf-4136c566a962"),
    (r#"{"$binary":{"base64":"AQID","subType":"80"}}"#, "AQID"),
    (r#"{"$date":"2015-09-10T08:55:47Z"}"#, "2015-09-10T08:55:47.000Z"),
    (r#"{"$regularExpression":{"pattern":"^a","options":"i"}}"#, "/^a/i"),
    (r#"{"$code":"x"}"#, "x"),
    (r#"{"$symbol":"s"}"#, "s"),
    (r#"{"$minKey":1}"#, "MinKey"),
    (r#"{"$maxKey":1}"#, "MaxKey"),
];

async fn a_filter_finds_what_shows_as_the_text(store: Arc<dyn Store>) {
    let texts: Vec<String> = SHOWN
        .iter()
        .enumerate()
        .map(|(id, (value, _))| format!(r#"{{"_id":{id},"v":{value},"in":{{"list":[[1],"no",{value}]}}}}"#))
        .collect();
    upsert_texts(&*store, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for (id, (value, text)) in SHOWN.iter().enumerate() {
        let id = id.to_string();
        for filter in
            [("v.eq", *text), ("in.list.eq", *text), ("v.in", &format!("nothing,{}", text.replace(',', "\\,")))]
        {
            assert!(ids(&*store, &[filter]).await.contains(&id), "{filter:?} must find {value}");
        }
    }
    assert_eq!(ids(&*store, &[("v.eq", "5")]).await, ["0", "1", "2", "5"]);
    assert_eq!(ids(&*store, &[("v.eq", "1.5")]).await, [""; 0], "a Decimal128 is a string");
    assert_eq!(ids(&*store, &[("v.eq", "9007199254740992")]).await, [""; 0]);
    assert_eq!(ids(&*store, &[("v.eq", "gold")]).await, [""; 0]);
    assert_eq!(ids(&*store, &[("v.eq", "5"), ("v.gt", "4"), ("_id.lt", "2")]).await, ["0", "1"]);
    assert_eq!(ids(&*store, &[("in.list.eq", "1")]).await, [""; 0], "an array in an array is not entered");
}

async fn a_range_compares_numbers_with_numbers_and_strings_with_strings(store: Arc<dyn Store>) {
    let texts = [
        r#"{"_id":1,"v":{"$numberInt":"4"}}"#,
        r#"{"_id":2,"v":4.5}"#,
        r#"{"_id":3,"v":"4"}"#,
        r#"{"_id":4,"v":"Not yet rated"}"#,
        r#"{"_id":5,"v":null}"#,
        r#"{"_id":6}"#,
        r#"{"_id":7,"v":[1,9]}"#,
        r#"{"_id":8,"v":{"$date":"2015-09-10T08:55:47Z"}}"#,
        r#"{"_id":9,"v":{"$date":"1999-01-01T00:00:00Z"}}"#,
        r#"{"_id":10,"v":{"$oid":"507f1f77bcf86cd799439011"}}"#,
        r#"{"_id":11,"v":true}"#,
        r#"{"_id":12,"v":"é"}"#,
    ];
    upsert_texts(&*store, &texts).await;
    for (filters, expected) in [
        (&[("v.gte", "4")][..], &["1", "2", "7"][..]),
        (&[("v.gt", "4")], &["2", "7"]),
        (&[("v.lt", "4.5")], &["1", "7"]),
        (&[("v.gt", "4"), ("v.lt", "4")], &["7"]),
        (&[("v.gte", "Not")], &["4", "12"]),
        (&[("v.gt", "2000-01-01")], &["3", "4", "8", "10", "12"]),
        (&[("v.gt", "2000-01-01"), ("v.lt", "2016-01")], &["8"]),
        (&[("v.lte", "1999-01-01T00:00:00.000Z")], &["9"]),
        (&[("v.lt", "1999-01-01T00:00:00.000Z")], &[]),
        (&[("v.gte", "507f"), ("v.lt", "507g")], &["10"]),
        (&[("v.lte", "é")], &["3", "4", "8", "9", "10", "12"]),
    ] {
        assert_eq!(ids(&*store, filters).await, expected, "{filters:?}");
    }
}

async fn a_negation_finds_what_is_missing_too(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1,"v":1}"#,
            r#"{"_id":2,"v":null}"#,
            r#"{"_id":3}"#,
            r#"{"_id":4,"v":[1,2]}"#,
            r#"{"_id":5,"v":[]}"#,
        ],
    )
    .await;
    for (filter, expected) in [
        (("v.ne", "1"), &["2", "3", "5"][..]),
        (("v.ne", "null"), &["1", "3", "4", "5"]),
        (("v.eq", "null"), &["2"]),
        (("v.exists", "true"), &["1", "2", "4", "5"]),
        (("v.exists", "false"), &["3"]),
        (("v.w.exists", "false"), &["1", "2", "3", "4", "5"]),
    ] {
        assert_eq!(ids(&*store, &[filter]).await, expected, "{filter:?}");
    }
}

async fn a_path_goes_through_arrays(store: Arc<dyn Store>) {
    let texts = [
        r#"{"_id":1,"lines":[{"price":5},{"price":{"$numberInt":"50"}}]}"#,
        r#"{"_id":2,"lines":{"price":5}}"#,
        r#"{"_id":3,"lines":[[{"price":5}]]}"#,
        r#"{"_id":4,"lines":[7,{"price":[5,6]}]}"#,
        r#"{"_id":5,"a.b":5,"a":{"":{"$x":5}}}"#,
        r#"{"_id":6,"c":{"$code":"c","$scope":{"x":5}},"t":{"$timestamp":{"t":7,"i":8}},"0":{"1":5}}"#,
        r#"{"_id":7,"0":[0,5],"limit":{"eq":5}}"#,
    ];
    upsert_texts(&*store, &texts).await;
    for (filter, expected) in [
        (("lines.price.eq", "5"), &["1", "2", "4"][..]),
        (("lines.price.gt", "10"), &["1"]),
        ((r"a\.b.eq", "5"), &["5"]),
        ((r"a..$x.eq", "5"), &["5"]),
        (("c.scope.x.eq", "5"), &["6"]),
        (("c.code.eq", "c"), &["6"]),
        (("t.t.eq", "7"), &["6"]),
        (("0.1.eq", "5"), &["6"]),
        (("limit.eq.eq", "5"), &["7"]),
        (("lines.0.price.exists", "true"), &[]),
    ] {
        assert_eq!(ids(&*store, &[filter]).await, expected, "{filter:?}");
    }
}

async fn no_value_is_an_operator(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":1,"v":"a"}"#, r#"{"_id":2,"v":{"$gt":""}}"#]).await;
    for value in ["/.*/", "{\"$gt\":\"\"}", "$v", "{$ne:1}", "function(){return true}", "*", ".*", "a|b"] {
        for name in ["v.eq", "v.in"] {
            assert_eq!(ids(&*store, &[(name, value)]).await, [""; 0], "{name}={value}");
        }
    }
    for path in ["$where", "$or", "$expr", "v.$gt", "$v", "\u{1}"] {
        ids(&*store, &[(&format!("{path}.eq"), "1")]).await;
    }
}

async fn an_order_has_a_place_for_every_type(store: Arc<dyn Store>) {
    let texts = [
        r#"{"_id":1,"v":true}"#,
        r#"{"_id":2,"v":"b"}"#,
        r#"{"_id":3,"v":5}"#,
        r#"{"_id":4}"#,
        r#"{"_id":5,"v":{"x":1}}"#,
        r#"{"_id":6,"v":[1]}"#,
        r#"{"_id":7,"v":null}"#,
        r#"{"_id":8,"v":{"$numberDouble":"-2.5"}}"#,
        r#"{"_id":9,"v":"a"}"#,
        r#"{"_id":10,"v":{"$numberLong":"5"}}"#,
        r#"{"_id":11,"v":false}"#,
    ];
    upsert_texts(&*store, &texts).await;
    let up = ["4", "7", "8", "3", "10", "9", "2", "5", "6", "11", "1"];
    let down = ["1", "11", "6", "5", "2", "9", "3", "10", "8", "4", "7"];
    assert_eq!(ids(&*store, &[("sort", "v")]).await, up);
    assert_eq!(ids(&*store, &[("sort", "-v")]).await, down);
    for limit in 1..4 {
        let paged = ask(&*store, &[("sort", "-v")], limit).await;
        let ids: Vec<_> = paged.iter().map(|record| record.key().clone()).collect();
        assert_eq!(ids, down.map(|id| Key::Integer(id.parse().unwrap())));
    }
}

/// Every path of a record with the text of every value, as far as the contract defines it.
fn shown(value: &Value, path: &str, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            out.push((path.to_owned(), "{}".to_owned()));
            for (name, value) in fields {
                let name = name.replace('\\', "\\\\").replace('.', "\\.");
                shown(value, &if path.is_empty() { name } else { format!("{path}.{name}") }, out);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| shown(value, path, out)),
        Value::String(text) => out.push((path.to_owned(), text.clone())),
        other => out.push((path.to_owned(), other.to_string())),
    }
}

/// The values that a path reaches, written as plainly as can be.
fn reached<'a>(value: &'a Value, path: &[String], in_array: bool) -> Vec<&'a Value> {
    match (value, path) {
        (Value::Array(values), _) if !in_array => {
            let mut all: Vec<_> = values.iter().flat_map(|value| reached(value, path, true)).collect();
            if path.is_empty() {
                all.push(value);
            }
            all
        }
        (_, []) => vec![value],
        (Value::Object(fields), [name, rest @ ..]) => {
            fields.get(name).map(|value| reached(value, rest, false)).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn number(text: &str) -> Option<Key> {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Number(number)) if !text.contains(char::is_whitespace) => Some(key(&number)),
        // Beyond the doubles, and so beyond every number of a record.
        Err(error) if error.to_string().starts_with("number out of range") => text.parse().map(Key::double).ok(),
        _ => None,
    }
}

fn key(number: &serde_json::Number) -> Key {
    number.as_i64().map_or_else(|| Key::double(number.as_f64().unwrap()), Key::Integer)
}

fn passes(value: &Value, operator: &str, text: &str) -> bool {
    let allows = |ordering: Ordering| match operator {
        "gt" => ordering.is_gt(),
        "gte" => ordering.is_ge(),
        "lt" => ordering.is_lt(),
        _ => ordering.is_le(),
    };
    match (operator, value) {
        ("exists", _) => true,
        ("in", value) => choices(text).iter().any(|choice| passes(value, "eq", choice)),
        ("eq" | "ne", Value::Number(value)) => number(text) == Some(key(value)),
        ("eq" | "ne", Value::String(value)) => value == text,
        ("eq" | "ne", Value::Null) => text == "null",
        ("eq" | "ne", Value::Bool(value)) => text.parse() == Ok(*value),
        ("eq" | "ne", _) => false,
        (_, Value::Number(value)) => number(text).is_some_and(|bound| allows(key(value).cmp(&bound))),
        (_, Value::String(value)) => number(text).is_none() && allows(value.as_str().cmp(text)),
        _ => false,
    }
}

/// One of several values with commas between them.
fn choice(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,")
}

/// Undoes what `choice` wrote.
fn choices(text: &str) -> Vec<String> {
    let mut choices = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => choices.last_mut().unwrap().extend(characters.next()),
            ',' => choices.push(String::new()),
            other => choices.last_mut().unwrap().push(other),
        }
    }
    choices
}

fn place(value: &Value, path: &[String]) -> (u8, Option<Key>, String, bool) {
    let mut value = Some(value);
    for name in path {
        value = match value {
            Some(Value::Object(fields)) => fields.get(name),
            Some(Value::Array(_)) => break,
            _ => None,
        };
    }
    match value {
        None | Some(Value::Null) => (0, None, String::new(), false),
        Some(Value::Number(number)) => (1, Some(key(number)), String::new(), false),
        Some(Value::String(text)) => {
            let end = (PREFIX.min(text.len())..).find(|end| text.is_char_boundary(*end));
            (2, None, text[..end.unwrap_or_default()].to_owned(), false)
        }
        Some(Value::Object(_)) => (3, None, String::new(), false),
        Some(Value::Array(_)) => (4, None, String::new(), false),
        Some(Value::Bool(value)) => (5, None, String::new(), *value),
    }
}

fn names(path: &str) -> Vec<String> {
    // Undoes what `shown` wrote.
    let mut names = vec![String::new()];
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => names.last_mut().unwrap().extend(characters.next()),
            '.' => names.push(String::new()),
            other => names.last_mut().unwrap().push(other),
        }
    }
    names
}

/// The path as one of several with commas between them.
fn listed(path: &str) -> String {
    path.replace(',', "\\,")
}

#[derive(Debug)]
struct Asked {
    filters: Vec<(Index, Index, &'static str, u8)>,
    sort: Option<(Index, bool)>,
    fields: Option<Vec<Index>>,
    limit: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    let operator = select(vec!["eq", "eq", "ne", "gt", "gte", "lt", "lte", "in", "exists"]);
    let filters = vec((any::<Index>(), any::<Index>(), operator, 0..6_u8), 0..3);
    let sort = proptest::option::of((any::<Index>(), any::<bool>()));
    let fields = proptest::option::of(vec(any::<Index>(), 1..3));
    (filters, sort, fields, 1..8_usize).prop_map(|(filters, sort, fields, limit)| Asked {
        filters,
        sort,
        fields,
        limit,
    })
}

fn any_query_finds_what_reading_by_hand_finds(context: &Context) {
    let values = (vec(documents::document(), 1..12), vec(asked(), 1..16));
    context.check(96, &values, async |store, (documents, queries): (Vec<Document>, Vec<Asked>)| {
        upsert(&*store, documents.clone()).await;
        let mut kept: std::collections::BTreeMap<Key, (Value, Record)> = std::collections::BTreeMap::new();
        let mut paths = Vec::new();
        for document in &documents {
            let record = document.to_record();
            let value: Value = serde_json::from_slice(record.json()).unwrap();
            shown(&value, "", &mut paths);
            kept.insert(record.key().clone(), (value, record));
        }
        paths.retain(|(path, _)| !path.is_empty());
        for asked in queries {
            let mut filters = Vec::new();
            for (at, other, operator, how) in &asked.filters {
                let (path, text) = at.get(&paths);
                let text = match (*operator, how) {
                    ("exists", how) => if how % 2 == 0 { "true" } else { "false" }.to_owned(),
                    ("in", 0) => choice(text),
                    ("in", _) => format!("{},{}", choice(text), choice(&other.get(&paths).1)),
                    // Its own value, another's, a part of its own.
                    (_, 0..3) => text.clone(),
                    (_, 3) => text.chars().take(other.index(text.chars().count() + 1)).collect(),
                    _ => other.get(&paths).1.clone(),
                };
                filters.push((path.clone(), *operator, text));
            }
            let mut expected: Vec<&(Value, Record)> = kept
                .values()
                .filter(|(value, _)| {
                    filters.iter().all(|(path, operator, text)| {
                        let any =
                            reached(value, &names(path), false).into_iter().any(|value| passes(value, operator, text));
                        any != (*operator == "ne" || (*operator == "exists" && text == "false"))
                    })
                })
                .collect();
            let mut parameters: Vec<(String, String)> =
                filters.iter().map(|(path, operator, text)| (format!("{path}.{operator}"), text.clone())).collect();
            if let Some((at, descending)) = &asked.sort {
                let path = &at.get(&paths).0;
                let names = names(path);
                expected.sort_by(|(a, _), (b, _)| {
                    let ordering = place(a, &names).cmp(&place(b, &names));
                    if *descending { ordering.reverse() } else { ordering }
                });
                // A minus that begins the path would be read as such.
                let path = listed(path);
                let path = if path.starts_with('-') { format!("\\{path}") } else { path };
                parameters.push(("sort".to_owned(), format!("{}{path}", if *descending { "-" } else { "" })));
            }
            let mut fields = None;
            if let Some(some) = &asked.fields {
                let paths: Vec<&str> = some.iter().map(|at| &*at.get(&paths).0).collect();
                let texts: Vec<String> = paths.iter().map(|path| listed(path)).collect();
                parameters.push(("fields".to_owned(), texts.join(",")));
                let paths: Vec<Path> = paths.iter().map(|path| Path::parse(path).expect("a path")).collect();
                fields = Some(Fields::of(&paths));
            }
            let parameters: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let found = ask(&*store, &parameters, asked.limit).await;
            let found: Vec<_> = found.iter().map(json).collect();
            // What `fields` keeps of a record is tests/api's matter; here, that it is the same whatever the store left out.
            let kept = |record: &Record| match &fields {
                Some(fields) => String::from_utf8(fields.kept(record.json())).expect("UTF-8"),
                None => json(record),
            };
            let expected: Vec<_> = expected.into_iter().map(|(_, record)| kept(record)).collect();
            assert_eq!(found, expected, "{parameters:?}, {} at a time", asked.limit);
        }
    });
}

fn any_values_are_in_the_order_of_their_json(context: &Context) {
    let path = select(vec!["v", "v", "v", "v.t", "v.scope.a", "v.code"]);
    let asked = (path, any::<bool>(), 1..8_usize, select(vec![None, None, Some("exists"), Some("gte")]));
    let values = (vec(documents::mixed(), 1..40), vec(asked, 1..6));
    context.check(160, &values, async |store, (values, queries): (Vec<Option<_>>, Vec<_>)| {
        let documents: Vec<Document> = values
            .into_iter()
            .enumerate()
            .map(|(index, value)| {
                // Not in the order in which they are stored.
                let id = records::document::Value::Int32((index as i32 * 37) % 41);
                let fields = value.map(|value| ("v".into(), value));
                Document::new([("_id".into(), id)].into_iter().chain(fields).collect()).expect("a document")
            })
            .collect();
        upsert(&*store, documents.clone()).await;
        let mut all: Vec<(Value, Record)> = documents
            .iter()
            .map(Document::to_record)
            .map(|record| (serde_json::from_slice(record.json()).unwrap(), record))
            .collect();
        all.sort_by(|(_, a), (_, b)| a.key().cmp(b.key()));
        for (path, descending, limit, operator) in queries {
            let names = names(path);
            let passes = |(value, _): &&(Value, Record)| match operator {
                Some(operator) => reached(value, &names, false).into_iter().any(|value| passes(value, operator, "b")),
                None => true,
            };
            let mut expected: Vec<&(Value, Record)> = all.iter().filter(passes).collect();
            expected.sort_by(|(a, _), (b, _)| {
                let ordering = place(a, &names).cmp(&place(b, &names));
                if descending { ordering.reverse() } else { ordering }
            });
            let expected: Vec<_> = expected.into_iter().map(|(_, record)| record.clone()).collect();
            let sort = format!("{}{path}", if descending { "-" } else { "" });
            let mut parameters = vec![("sort", &*sort)];
            let name = operator.map(|operator| format!("{path}.{operator}"));
            if let (Some(name), Some(operator)) = (&name, operator) {
                parameters.push((name, if operator == "exists" { "true" } else { "b" }));
            }
            assert_eq!(ask(&*store, &parameters, limit).await, expected, "{parameters:?}, {limit} a page");
        }
    });
}
