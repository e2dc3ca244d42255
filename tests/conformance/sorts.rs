//! Sort orders: several fields, MongoDB's order of types, and arrays by their least or greatest element.

use std::sync::Arc;

use records::document::validate;
use records::record::Key;
use records::store::{Kind, ListRequest, Store};
use records::wire;

use crate::harness::{ALL, cases, document, documents, keys_of, paged, request, rows, try_rows, upsert, upsert_texts};

cases! {
    Any by store {
        an_order_has_a_place_for_every_type,
        an_array_sorts_by_its_least_or_greatest_element,
        an_order_of_several_fields,
        an_order_may_name_the_id_in_any_place,
        an_order_goes_into_arrays_of_documents,
        an_order_may_name_a_position,
        an_order_may_name_what_a_query_cannot,
        equal_records_are_in_id_order_whatever_the_direction,
        a_row_has_its_position_in_the_order,
        a_sorted_list_ends_at_its_limit,
        parallel_arrays_are_rejected_by_their_names,
        parallel_arrays_that_are_filtered_out_are_sorted,
        a_large_sorted_list_is_whole,
    }
}

/// Returns the ids of a sorted list, and checks its pages of up to seven rows.
async fn sorted(store: &dyn Store, sort: &str) -> Vec<i64> {
    let found = paged(store, &request(&[("sort", sort)]), 1..=7).await;
    found.iter().map(|document| wire::id(document.bson()).and_then(|id| id.parse().ok()).expect("a number")).collect()
}

async fn in_order(store: &dyn Store, cases: &[(&str, &[i64])]) {
    for (sort, expected) in cases {
        assert_eq!(sorted(store, sort).await, *expected, "{sort}");
    }
}

/// Values in MongoDB's order; those on one line are equal.
const IN_ORDER: &[&[&str]] = &[
    &[r#"{"$minKey":1}"#],
    &[r#"{"$undefined":true}"#, "[]"],
    &["null", ""],
    &[r#"{"$numberDouble":"NaN"}"#, r#"{"$numberDecimal":"NaN"}"#],
    &[r#"{"$numberDouble":"-Infinity"}"#],
    &[r#"{"$numberDecimal":"-1E+400"}"#],
    &["-2.5"],
    &["0", "-0.0", r#"{"$numberDecimal":"0E-5"}"#],
    &["5", r#"{"$numberLong":"5"}"#, "5.0", r#"{"$numberDecimal":"5.00"}"#, "[5]"],
    &[r#"{"$numberLong":"9007199254740992"}"#],
    &[r#"{"$numberDecimal":"9007199254740992.5"}"#],
    &[r#"{"$numberLong":"9007199254740993"}"#],
    &[r#"{"$numberDouble":"Infinity"}"#],
    &[r#""""#],
    &[r#""B""#],
    &[r#""a""#, r#"{"$symbol":"a"}"#, r#"["a"]"#],
    &[r#""a\u0000""#],
    &[r#""b""#],
    &[r#""é""#],
    &["{}"],
    &[r#"{"x":1}"#, r#"{"x":1.0}"#],
    &[r#"{"x":1,"y":0}"#],
    &[r#"{"x":"a"}"#],
    &["[[]]"],
    &["[[1]]"],
    &[r#"[["a"]]"#],
    &[r#"{"$binary":{"base64":"AQ==","subType":"00"}}"#],
    &[r#"{"$binary":{"base64":"AAA=","subType":"00"}}"#],
    &[r#"{"$uuid":"3b241101-e2bb-4255-8caf-4136c566a962"}"#],
    &[r#"{"$oid":"507f1f77bcf86cd799439011"}"#],
    &["false"],
    &["true"],
    &[r#"{"$date":{"$numberLong":"-1"}}"#],
    &[r#"{"$date":"2015-09-10T08:55:47Z"}"#],
    &[r#"{"$timestamp":{"t":1,"i":2}}"#],
    &[r#"{"$regularExpression":{"pattern":"a","options":""}}"#],
    &[r#"{"$regularExpression":{"pattern":"a","options":"i"}}"#],
    &[r#"{"$dbPointer":{"$ref":"db.c","$id":{"$oid":"507f1f77bcf86cd799439011"}}}"#],
    &[r#"{"$code":"a"}"#],
    &[r#"{"$code":"a","$scope":{"a":1}}"#],
    &[r#"{"$maxKey":1}"#],
];

async fn an_order_has_a_place_for_every_type(store: Arc<dyn Store>) {
    let mut texts = Vec::new();
    // The ids are in another order than the values.
    let mut placed: Vec<(usize, i64)> = Vec::new();
    for (place, values) in IN_ORDER.iter().enumerate() {
        for value in *values {
            let id = (texts.len() as i64 * 37) % 101;
            let field = if value.is_empty() { String::new() } else { format!(r#","v":{value}"#) };
            texts.push(format!(r#"{{"_id":{id}{field}}}"#));
            placed.push((place, id));
        }
    }
    upsert_texts(&*store, &texts).await;
    placed.sort_unstable();
    let up: Vec<_> = placed.iter().map(|(_, id)| *id).collect();
    assert_eq!(sorted(&*store, "v").await, up);
    placed.sort_unstable_by_key(|(place, id)| (std::cmp::Reverse(*place), *id));
    let down: Vec<_> = placed.iter().map(|(_, id)| *id).collect();
    assert_eq!(sorted(&*store, "-v").await, down);
}

async fn an_array_sorts_by_its_least_or_greatest_element(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1,"v":[1,9]}"#,
            r#"{"_id":2,"v":5}"#,
            r#"{"_id":3,"v":[]}"#,
            r#"{"_id":4,"v":null}"#,
            r#"{"_id":5}"#,
            r#"{"_id":6,"v":["a",3]}"#,
            r#"{"_id":7,"v":[[0],2]}"#,
            r#"{"_id":8,"v":[4,null]}"#,
            r#"{"_id":9,"v":"b"}"#,
            r#"{"_id":10,"v":[{"$minKey":1},{"$maxKey":1}]}"#,
        ],
    )
    .await;
    in_order(&*store, &[("v", &[10, 3, 4, 5, 8, 1, 7, 6, 2, 9]), ("-v", &[10, 7, 9, 6, 1, 2, 8, 4, 5, 3])]).await;
}

async fn an_order_of_several_fields(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1,"a":1,"b":"x","c":2}"#,
            r#"{"_id":2,"a":1.0,"b":"y","c":1}"#,
            r#"{"_id":3,"a":2,"b":"x"}"#,
            r#"{"_id":4,"b":"x","c":1}"#,
            r#"{"_id":5,"a":null,"b":"y","c":[3,0]}"#,
            r#"{"_id":6,"a":{"$numberDecimal":"1.0"},"b":["x","z"]}"#,
            r#"{"_id":7,"a":"1","b":null,"c":true}"#,
            r#"{"_id":8,"a":2,"c":5}"#,
        ],
    )
    .await;
    in_order(
        &*store,
        &[
            ("a,b", &[4, 5, 1, 6, 2, 8, 3, 7]),
            ("-a,b", &[7, 8, 3, 1, 6, 2, 4, 5]),
            ("a,-b", &[5, 4, 6, 2, 1, 3, 8, 7]),
            ("-a,-b", &[7, 3, 8, 6, 2, 1, 5, 4]),
            ("b,c", &[8, 7, 3, 6, 4, 1, 5, 2]),
            ("a,b,-c", &[4, 5, 1, 6, 2, 8, 3, 7]),
            ("missing,-a", &[7, 3, 8, 1, 2, 6, 4, 5]),
        ],
    )
    .await;
}

async fn an_order_may_name_the_id_in_any_place(store: Arc<dyn Store>) {
    let texts = (0..9).map(|n| format!(r#"{{"_id":{n},"v":{}}}"#, n % 3));
    upsert_texts(&*store, &texts.collect::<Vec<_>>()).await;
    in_order(
        &*store,
        &[
            ("_id", &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
            ("-_id", &[8, 7, 6, 5, 4, 3, 2, 1, 0]),
            ("v,-_id", &[6, 3, 0, 7, 4, 1, 8, 5, 2]),
            ("-v,-_id", &[8, 5, 2, 7, 4, 1, 6, 3, 0]),
            ("-_id,v", &[8, 7, 6, 5, 4, 3, 2, 1, 0]),
            ("-v,_id", &[2, 5, 8, 1, 4, 7, 0, 3, 6]),
        ],
    )
    .await;
}

async fn an_order_goes_into_arrays_of_documents(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1,"l":[{"p":5,"q":1},{"p":1,"q":9}]}"#,
            r#"{"_id":2,"l":{"p":3,"q":4}}"#,
            r#"{"_id":3,"l":[{"q":2},7]}"#,
            r#"{"_id":4,"l":[]}"#,
            r#"{"_id":5,"l":[{"p":[0,8]}]}"#,
            r#"{"_id":6,"l":[{"p":1,"q":2},{"p":9,"q":0}]}"#,
            r#"{"_id":7}"#,
        ],
    )
    .await;
    in_order(
        &*store,
        &[
            ("l.p", &[3, 4, 7, 5, 1, 6, 2]),
            ("-l.p", &[6, 5, 1, 2, 3, 4, 7]),
            // A sort key combines values of the same element.
            ("l.p,l.q", &[3, 4, 7, 5, 6, 1, 2]),
            ("l.p,-l.q", &[3, 4, 7, 5, 1, 6, 2]),
        ],
    )
    .await;
}

async fn an_order_may_name_a_position(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1,"v":[3,1]}"#,
            r#"{"_id":2,"v":[1,9]}"#,
            r#"{"_id":3,"v":{"0":2}}"#,
            r#"{"_id":4,"v":[]}"#,
            r#"{"_id":5,"v":5}"#,
        ],
    )
    .await;
    in_order(&*store, &[("v.0", &[4, 5, 2, 3, 1]), ("-v.1", &[2, 1, 3, 4, 5])]).await;
}

async fn an_order_may_name_what_a_query_cannot(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1,"a.b":2,"a":{"b":1,"$x":[4,0]}}"#,
            r#"{"_id":2,"a.b":1,"a":{"b":2,"$x":1}}"#,
            r#"{"_id":3,"a":{"b":0,"":1}}"#,
        ],
    )
    .await;
    in_order(
        &*store,
        &[
            (r"a\.b", &[3, 2, 1]),
            (r"-a\.b", &[1, 2, 3]),
            ("a.b", &[3, 1, 2]),
            ("a.$x", &[3, 1, 2]),
            ("-a.$x", &[1, 2, 3]),
            ("-a.", &[3, 1, 2]),
            (r"c,-a\.b", &[1, 2, 3]),
        ],
    )
    .await;
    let filtered = request(&[("sort", r"-a\.b"), ("a.b.gt", "0"), ("fields", "a.b")]);
    let found = paged(&*store, &filtered, 1..=3).await;
    assert_eq!(found, [document(r#"{"_id":1,"a":{"b":1}}"#), document(r#"{"_id":2,"a":{"b":2}}"#)]);
}

async fn equal_records_are_in_id_order_whatever_the_direction(store: Arc<dyn Store>) {
    let ids = [r#""b""#, "2", r#"{"$oid":"507f1f77bcf86cd799439011"}"#, "1.5", r#"{"x":1}"#, "null", "true"];
    upsert_texts(&*store, &ids.map(|id| format!(r#"{{"_id":{id},"v":1}}"#))).await;
    let expected = documents(&*store, &ListRequest::default()).await;
    assert_eq!(expected.len(), ids.len());
    for sort in ["v", "-v", "w", "-w", "v,-w"] {
        assert_eq!(paged(&*store, &request(&[("sort", sort)]), 1..=7).await, expected, "{sort}");
    }
}

async fn a_row_has_its_position_in_the_order(store: Arc<dyn Store>) {
    let texts = (0..10).map(|n| format!(r#"{{"_id":{n},"v":[{},{n}],"w":{{"x":{}}}}}"#, n % 3, n % 2));
    let texts: Vec<_> = texts.collect();
    upsert_texts(&*store, &texts).await;
    for sort in ["v", "-w.x,v", "-_id", "missing"] {
        let whole = ListRequest { limit: Some(10), ..request(&[("sort", sort)]) };
        for fields in [None, Some("_id"), Some("w")] {
            let projection = fields.and_then(|fields| request(&[("fields", fields)]).projection);
            let listed = rows(&*store, ListRequest { projection, ..whole.clone() }).await;
            assert_eq!(listed.len(), 10);
            assert!(listed.is_sorted_by_key(|row| row.position()));
            for row in listed {
                let document = texts.iter().map(|text| document(text)).find(|each| each.key() == row.document.key());
                let expected = whole.sort.position(&document.expect("a document of these")).expect("a position");
                assert_eq!(row.position, Some(expected), "{sort}, {fields:?}");
            }
        }
    }
}

async fn a_sorted_list_ends_at_its_limit(store: Arc<dyn Store>) {
    let texts = (0..50).map(|n| format!(r#"{{"_id":{n},"v":{}}}"#, (n * 7) % 10));
    upsert_texts(&*store, &texts.collect::<Vec<_>>()).await;
    let whole = documents(&*store, &request(&[("sort", "-v")])).await;
    assert_eq!(whole.len(), 50);
    for limit in [1, 2, 49, 50, 51] {
        let limited = ListRequest { limit: Some(limit), ..request(&[("sort", "-v")]) };
        assert_eq!(documents(&*store, &limited).await, whole[..limit.min(50)]);
    }
}

async fn parallel_arrays_are_rejected_by_their_names(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[r#"{"_id":1,"tags":[1,2],"sizes":3}"#, r#"{"_id":2,"tags":1,"sizes":[3]}"#, r#"{"_id":3,"o":{"p":[1]}}"#],
    )
    .await;
    // No record has arrays in both fields.
    assert_eq!(sorted(&*store, "tags,sizes").await, [3, 1, 2]);
    upsert_texts(&*store, &[r#"{"_id":4,"tags":[1,2],"sizes":[1],"o":{"p":[]}}"#]).await;
    for (sort, names) in [
        ("tags,sizes", ["`tags`", "`sizes`"]),
        ("-sizes,tags", ["`tags`", "`sizes`"]),
        ("n,sizes,-tags", ["`tags`", "`sizes`"]),
        ("o.p,tags", ["`o.p`", "`tags`"]),
    ] {
        for fields in [None, Some(("fields", "n"))] {
            let parameters: Vec<_> = [("sort", sort)].into_iter().chain(fields).collect();
            for limit in [1, 2, 100] {
                let list = ListRequest { limit: Some(limit), ..request(&parameters) };
                let error = try_rows(&*store, list).await.expect_err("two sort fields are arrays");
                assert_eq!(error.kind(), Kind::Invalid);
                let (parameter, detail) = error.rejection().expect("a rejection");
                assert_eq!(parameter, "sort");
                assert!(names.iter().all(|name| detail.contains(name)), "{detail}");
            }
        }
    }
    // A sort by a single array field is valid.
    assert_eq!(sorted(&*store, "-sizes").await, [1, 2, 4, 3]);
}

async fn parallel_arrays_that_are_filtered_out_are_sorted(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1,"a":[1],"b":2,"n":1,"n.n":1}"#,
            r#"{"_id":2,"a":0,"b":[3],"n":1,"n.n":1}"#,
            r#"{"_id":3,"a":[1],"b":[1],"n":2}"#,
        ],
    )
    .await;
    // The second filter cannot be pushed down.
    for filter in ["n.eq", r"n\.n.eq"] {
        let found = paged(&*store, &request(&[("sort", "a,b"), (filter, "1")]), 1..=3).await;
        assert_eq!(keys_of(&found), [2, 1].map(Key::int64), "{filter}");
    }
}

/// The list is larger than a page, and larger than the memory in which the executor sorts.
async fn a_large_sorted_list_is_whole(store: Arc<dyn Store>) {
    let bytes = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![7; 60_000] };
    let with = |n: i32| {
        let fields = bson::doc! { "_id": n, "v": (n * 37) % 101, "bytes": bytes.clone() };
        validate(fields).expect("a document")
    };
    upsert(&*store, (0..400).map(with).collect()).await;
    let expected = {
        let mut ids: Vec<i32> = (0..400).collect();
        ids.sort_by_key(|n| (-((n * 37) % 101), *n));
        ids.into_iter().map(|n| Key::int64(n.into())).collect::<Vec<_>>()
    };
    let list = rows(&*store, ListRequest { limit: Some(ALL), ..request(&[("sort", "-v")]) }).await;
    assert!(list.iter().map(|row| row.document.key().clone()).eq(expected));
}
