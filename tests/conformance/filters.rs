//! Filters, by the values that their texts denote, as MongoDB matches them.

use std::sync::Arc;

use records::store::Store;
use records::wire;

use crate::harness::{cases, ids, pages, request, upsert_texts};

cases! {
    Any by store {
        a_filter_finds_every_value_that_its_text_denotes,
        numbers_are_equal_by_value_across_their_types,
        a_number_without_an_exact_double_is_two_numbers,
        a_date_is_an_instant_in_any_spelling,
        a_date_alone_is_a_day,
        a_text_in_quotes_is_a_string_only,
        null_matches_a_missing_field,
        a_range_is_within_one_type,
        a_range_of_numbers_crosses_their_types,
        a_range_of_dates_includes_strings_that_begin_with_a_digit,
        two_bounds_may_hold_for_two_elements,
        a_negation_finds_what_is_missing_too,
        a_field_exists_although_it_is_null,
        a_path_goes_through_arrays,
        a_path_may_name_a_position,
        a_path_may_name_what_a_query_cannot,
        an_id_is_filtered_as_any_field,
        filters_hold_together,
        a_prefix_finds_the_strings_that_begin_with_it,
        a_prefix_is_one_of_a_single_element,
        pages_by_a_prefix_are_full,
        one_filter_of_an_or_is_enough,
        an_or_holds_together_with_other_filters,
        texts_in_an_or_may_have_any_character,
        no_value_is_an_operator,
    }
    Undefined by store {
        null_does_not_match_undefined,
    }
}

async fn a_prefix_finds_the_strings_that_begin_with_it(store: Arc<dyn Store>) {
    let values = [
        r#""Ab""#,
        r#""Abc""#,
        r#""Ac""#,
        r#""ab""#,
        r#""A""#,
        r#""A\u007f""#,
        r#""A\u0080""#,
        r#""A\udbff\udfff!""#,
        r#""B""#,
        "5",
        r#""5 of""#,
        "null",
        r#"{"$regularExpression":{"pattern":"^Ab","options":""}}"#,
        r#""\u0000x""#,
    ];
    with_values(&*store, &values).await;
    find(
        &*store,
        &[
            (&[("v.starts", "Ab")], &[0, 1]),
            (&[("v.starts", "A")], &[0, 1, 2, 4, 5, 6, 7]),
            (&[("v.starts", "A\u{7f}")], &[5]),
            (&[("v.starts", "A\u{10ffff}")], &[7]),
            (&[("v.starts", "5")], &[10]),
            (&[("v.starts", "null")], &[]),
            (&[("v.starts", "^A")], &[]),
            (&[("v.starts", ".")], &[]),
            (&[("v.starts", "\"Ab\"")], &[0, 1]),
            (&[("v.starts", "\"Ab")], &[]),
            (&[("v.starts", "\0")], &[13]),
            (&[("v.starts", "")], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 13]),
            (&[("v.starts", "A"), ("v.starts", "Abc")], &[1]),
            (&[("v.starts", "A"), ("v.gt", "Abc")], &[2, 5, 6, 7]),
        ],
    )
    .await;
}

async fn a_prefix_is_one_of_a_single_element(store: Arc<dyn Store>) {
    with_values(
        &*store,
        &[
            r#"["Aa","Ac"]"#,
            r#"["Aa","Ab1"]"#,
            r#"[["Ab"]]"#,
            r#"[{"w":"Aa"},{"w":"Ac"}]"#,
            r#"[{"w":"Zz"},{"w":["Ab"]}]"#,
            r#"{"w":"Abc"}"#,
        ],
    )
    .await;
    find(
        &*store,
        &[(&[("v.starts", "Ab")], &[1]), (&[("v.w.starts", "Ab")], &[4, 5]), (&[("v.0.starts", "A")], &[0, 1])],
    )
    .await;
}

/// With MongoDB, a prefix becomes a range, which admits some of these records.
async fn pages_by_a_prefix_are_full(store: Arc<dyn Store>) {
    let values = (0..60).map(|n| match n % 3 {
        0 => r#"["Aa","Ac"]"#,
        _ => r#""Ab""#,
    });
    with_values(&*store, &values.collect::<Vec<_>>()).await;
    let matching: Vec<String> = (0..60).filter(|n| n % 3 > 0).map(|n| n.to_string()).collect();
    let prefix = [("v.starts", "Ab")];
    for also in [&[][..], &[("sort", "v")], &[("sort", "-v")], &[("sort", "absent"), ("fields", "absent")]] {
        let all = pages(&*store, &request(&[&prefix, also].concat()), 7).await;
        let (last, full) = all.split_last().expect("pages");
        assert!(full.iter().all(|page| page.len() == 7) && last.len() == 5, "{also:?}: {all:?}");
        let found = all.concat();
        let found = found.iter().map(|document| wire::id(document.bson()).expect("an _id"));
        assert_eq!(found.collect::<Vec<_>>(), matching, "{also:?}");
    }
}

async fn one_filter_of_an_or_is_enough(store: Arc<dyn Store>) {
    let texts = [
        r#"{"_id":0,"a":1,"b":1}"#,
        r#"{"_id":1,"a":2,"b":2}"#,
        r#"{"_id":2,"a":"1","b":[9,0]}"#,
        r#"{"_id":3,"a.b":7,"b":1}"#,
        r#"{"_id":4,"a":"one"}"#,
    ];
    upsert_texts(&*store, &texts.map(str::to_owned)).await;
    find(
        &*store,
        &[
            (&[("or", "(a.eq=1,b.gt=8)")], &[0, 2]),
            (&[("or", "(a.eq=1)")], &[0, 2]),
            (&[("or", "(a.in=(1,2),a.starts=o)")], &[0, 1, 2, 4]),
            (&[("or", "(a.ne=1,b.eq=1)")], &[0, 1, 3, 4]),
            (&[("or", "(b.exists=false,b.gt=1)")], &[1, 2, 4]),
            // The two filters must not be merged into one range.
            (&[("or", "(b.lt=1,b.gt=1)")], &[1, 2]),
            (&[("or", r"(a\.b.eq=7,a.eq=2)")], &[1, 3]),
            (&[("or", r"(a\.b.eq=7,a.starts=o)")], &[3, 4]),
            (&[("or", "(absent.eq=1,absent.gt=5)")], &[]),
        ],
    )
    .await;
}

async fn an_or_holds_together_with_other_filters(store: Arc<dyn Store>) {
    let texts: Vec<_> =
        (0..8).map(|id| format!(r#"{{"_id":{id},"a":{},"b":{},"c":{}}}"#, id & 1, id >> 1 & 1, id >> 2)).collect();
    upsert_texts(&*store, &texts).await;
    find(
        &*store,
        &[
            (&[("or", "(a.eq=1,b.eq=1)"), ("c.eq", "1")], &[5, 6, 7]),
            (&[("or", "(a.eq=1,b.eq=1)"), ("or", "(a.eq=0,c.eq=1)")], &[2, 5, 6, 7]),
            (&[("_id.gte", "2"), ("or", "(a.eq=0,a.gt=5)"), ("_id.lt", "6")], &[2, 4]),
        ],
    )
    .await;
}

async fn texts_in_an_or_may_have_any_character(store: Arc<dyn Store>) {
    let values = ["a,b", "(c)", "d\\e", "f\"g", "h=i", "\"j\"", "k,(l)\\\"m", ""];
    let json: Vec<String> = values.iter().map(|value| serde_json::to_string(value).expect("JSON")).collect();
    with_values(&*store, &json.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for (id, (value, json)) in values.iter().zip(&json).enumerate() {
        let id = [id.to_string()];
        let or = format!("(v.eq={json},x.eq=1)");
        assert_eq!(ids(&*store, &[("or", &or)]).await, id, "{or}");
        let or = format!("(x.eq=1,v.in=(unequal,{json}))");
        assert_eq!(ids(&*store, &[("or", &or)]).await, id, "{or}");
        if !value.starts_with('"') {
            let special = |character: char| ",()\\\"".contains(character);
            let escaped: String =
                value.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect();
            let or = format!("(x.eq=1,v.eq={escaped})");
            assert_eq!(ids(&*store, &[("or", &or)]).await, id, "{or}");
        }
    }
}

type Filters<'a> = &'a [(&'a str, &'a str)];

/// Stores the documents `{"_id": 0, "v": …}` and so on.
async fn with_values(store: &dyn Store, values: &[&str]) {
    let texts = values.iter().enumerate().map(|(id, value)| format!(r#"{{"_id":{id},"v":{value}}}"#));
    upsert_texts(store, &texts.collect::<Vec<_>>()).await;
}

async fn find(store: &dyn Store, cases: &[(Filters<'_>, &[i32])]) {
    for (filters, expected) in cases {
        let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(ids(store, filters).await, expected, "{filters:?}");
    }
}

/// Values, each with a text that denotes it, and with a text that does not although the record shows it.
const DENOTED: &[(&str, &str)] = &[
    (r#"{"$numberInt":"5"}"#, "5"),
    (r#"{"$numberLong":"5"}"#, "5.0"),
    (r#"{"$numberDouble":"5.0"}"#, "5e0"),
    (r#"{"$numberDecimal":"5.00"}"#, "5"),
    (r#"{"$numberLong":"9007199254740993"}"#, "9007199254740993"),
    (r#""Gold""#, "Gold"),
    (r#""5""#, "5"),
    (r#""""#, ""),
    (r#""a\u0000b""#, "a\0b"),
    (r#""$where""#, "$where"),
    (r#""true""#, "true"),
    ("true", "true"),
    ("false", "false"),
    ("null", "null"),
    (r#"{"$numberDecimal":"1.50"}"#, "1.5"),
    (r#"{"$numberDouble":"NaN"}"#, "NaN"),
    (r#"{"$numberDouble":"-Infinity"}"#, "-Infinity"),
    (r#"{"$numberDecimal":"NaN"}"#, "NaN"),
    (r#"{"$numberDecimal":"Infinity"}"#, "Infinity"),
    (r#"{"$oid":"507f1f77bcf86cd799439011"}"#, "507f1f77bcf86cd799439011"),
    (r#"{"$oid":"507f1f77bcf86cd799439011"}"#, "507F1F77BCF86CD799439011"),
    (r#"{"$uuid":"3b241101-e2bb-4255-8caf-4136c566a962"}"#, "3b241101-e2bb-4255-8caf-4136c566a962"),
    (r#"{"$date":"2015-09-10T08:55:47Z"}"#, "2015-09-10T08:55:47.000Z"),
    (r#"{"$symbol":"s"}"#, "s"),
];

/// Values that no text denotes, with the text that a record shows.
const UNTOLD: &[(&str, &str)] = &[
    (r#"{"$binary":{"base64":"AQID","subType":"80"}}"#, "AQID"),
    (r#"{"$regularExpression":{"pattern":"^a","options":"i"}}"#, "/^a/i"),
    (r#"{"$code":"x"}"#, "x"),
    (r#"{"$minKey":1}"#, "MinKey"),
    (r#"{"$maxKey":1}"#, "MaxKey"),
    (r#"{"a":1}"#, r#"{"a":1}"#),
];

async fn a_filter_finds_every_value_that_its_text_denotes(store: Arc<dyn Store>) {
    let values = DENOTED.iter().chain(UNTOLD);
    let texts: Vec<String> = values
        .enumerate()
        .map(|(id, (value, _))| format!(r#"{{"_id":{id},"v":{value},"in":{{"list":[[1],"no",{value}]}}}}"#))
        .collect();
    upsert_texts(&*store, &texts).await;
    for (id, (value, text)) in DENOTED.iter().enumerate() {
        let choice = format!("unequal,{}", text.replace(',', "\\,"));
        for filter in [("v.eq", *text), ("in.list.eq", *text), ("v.in", &choice)] {
            assert!(ids(&*store, &[filter]).await.contains(&id.to_string()), "{filter:?} must find {value}");
        }
        assert!(!ids(&*store, &[("v.ne", text)]).await.contains(&id.to_string()), "{text} must not leave {value}");
    }
    for (at, (value, text)) in UNTOLD.iter().enumerate() {
        let id = (DENOTED.len() + at).to_string();
        assert!(!ids(&*store, &[("v.eq", text)]).await.contains(&id), "{text} must not find {value}");
        assert!(ids(&*store, &[("v.ne", text)]).await.contains(&id), "{text} must leave {value}");
    }
    find(
        &*store,
        &[
            (&[("v.eq", "5")], &[0, 1, 2, 3, 6]),
            (&[("v.eq", "5.0")], &[0, 1, 2, 3]),
            (&[("v.eq", "true")], &[10, 11]),
            (&[("v.eq", "9007199254740992")], &[]),
            (&[("v.eq", "gold")], &[]),
            (&[("v.in", "Gold,5.0,true")], &[0, 1, 2, 3, 5, 10, 11]),
            (&[("v.in", r"Gold\,5")], &[]),
            (&[("in.list.eq", "1")], &[]),
        ],
    )
    .await;
}

async fn numbers_are_equal_by_value_across_their_types(store: Arc<dyn Store>) {
    with_values(
        &*store,
        &[
            r#"{"$numberLong":"9007199254740993"}"#,
            r#"{"$numberDouble":"9007199254740992"}"#,
            r#"{"$numberDecimal":"9007199254740993"}"#,
            r#"{"$numberDouble":"-0.0"}"#,
            "0",
            r#"{"$numberDecimal":"0E+3"}"#,
            r#"{"$numberDecimal":"1E+400"}"#,
            "1e300",
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[("v.eq", "9007199254740993")], &[0, 2]),
            (&[("v.eq", "9007199254740992.0")], &[1]),
            (&[("v.eq", "0")], &[3, 4, 5]),
            (&[("v.eq", "-0.0")], &[3, 4, 5]),
            (&[("v.eq", "1e400")], &[6]),
            (&[("v.eq", "1E+300")], &[7]),
            (&[("v.ne", "0")], &[0, 1, 2, 6, 7]),
        ],
    )
    .await;
}

async fn a_number_without_an_exact_double_is_two_numbers(store: Arc<dyn Store>) {
    // The double of 0.1 is greater than the decimal; that of 0.3 is smaller.
    with_values(
        &*store,
        &[
            "0.1",
            r#"{"$numberDecimal":"0.1"}"#,
            "0.3",
            r#"{"$numberDecimal":"0.3"}"#,
            "-0.1",
            r#"{"$numberDecimal":"-0.1"}"#,
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[("v.eq", "0.1")], &[0, 1]),
            (&[("v.eq", "0.3")], &[2, 3]),
            (&[("v.ne", "0.1")], &[2, 3, 4, 5]),
            (&[("v.gt", "0.1")], &[2, 3]),
            (&[("v.gte", "0.1")], &[0, 1, 2, 3]),
            (&[("v.lt", "0.1")], &[4, 5]),
            (&[("v.lte", "0.1")], &[0, 1, 4, 5]),
            (&[("v.lt", "0.3")], &[0, 1, 4, 5]),
            (&[("v.gt", "-0.1")], &[0, 1, 2, 3]),
            (&[("v.lte", "-0.1")], &[4, 5]),
            (&[("v.gt", "0.1"), ("v.lt", "0.3")], &[]),
        ],
    )
    .await;
}

async fn a_date_is_an_instant_in_any_spelling(store: Arc<dyn Store>) {
    with_values(
        &*store,
        &[
            r#"{"$date":"2024-01-31T22:30:00Z"}"#,
            r#"{"$date":"2024-01-31T22:30:00.001Z"}"#,
            r#"{"$date":"2024-01-31T22:29:59.999Z"}"#,
            r#"{"$date":{"$numberLong":"253402300800000"}}"#,
        ],
    )
    .await;
    for spelling in [
        "2024-01-31T22:30:00Z",
        "2024-01-31T22:30:00.000Z",
        "2024-01-31T22:30:00.0000000Z",
        "2024-02-01T00:30:00+02:00",
        "2024-01-31T15:00:00.0-07:30",
        "2024-01-31t22:30:00z",
        "2024-01-31 22:30:00Z",
        "2024-01-31T22:30:00-00:00",
    ] {
        find(
            &*store,
            &[
                (&[("v.eq", spelling)], &[0]),
                (&[("v.in", spelling)], &[0]),
                (&[("v.gt", spelling)], &[1, 3]),
                (&[("v.gte", spelling)], &[0, 1, 3]),
                (&[("v.lt", spelling)], &[2]),
                (&[("v.lte", spelling)], &[0, 2]),
            ],
        )
        .await;
    }
    find(
        &*store,
        &[
            // An instant between two milliseconds.
            (&[("v.eq", "2024-01-31T22:30:00.0001Z")], &[]),
            (&[("v.gt", "2024-01-31T22:30:00.0001Z")], &[1, 3]),
            (&[("v.gte", "2024-01-31T22:30:00.0001Z")], &[1, 3]),
            (&[("v.lt", "2024-01-31T22:30:00.0001Z")], &[0, 2]),
            (&[("v.lte", "2024-01-31T22:30:00.0001Z")], &[0, 2]),
            // The wire form of a year with five digits.
            (&[("v.eq", "+010000-01-01T00:00:00.000Z")], &[3]),
            (&[("v.eq", "2024-01-31T22:30:00")], &[]),
        ],
    )
    .await;
}

async fn a_date_alone_is_a_day(store: Arc<dyn Store>) {
    with_values(
        &*store,
        &[
            r#"{"$date":"2024-01-30T23:59:59.999Z"}"#,
            r#"{"$date":"2024-01-31T00:00:00Z"}"#,
            r#"{"$date":"2024-01-31T23:59:59.999Z"}"#,
            r#"{"$date":"2024-02-01T00:00:00Z"}"#,
            r#""2024-01-31""#,
            r#"[{"$date":"2024-01-31T12:00:00Z"},{"$date":"2025-01-01T00:00:00Z"}]"#,
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[("v.eq", "2024-01-31")], &[1, 2, 4, 5]),
            (&[("v.ne", "2024-01-31")], &[0, 3]),
            // An element of the array is after the start of February 1, another one before its end.
            (&[("v.in", "2024-01-30,2024-02-01")], &[0, 3, 5]),
            (&[("v.gt", "2024-01-31")], &[3, 5]),
            (&[("v.gte", "2024-01-31")], &[1, 2, 3, 4, 5]),
            (&[("v.lt", "2024-01-31")], &[0]),
            (&[("v.lte", "2024-01-31")], &[0, 1, 2, 4, 5]),
            (&[("v.eq", "2024-02-30")], &[]),
        ],
    )
    .await;
}

async fn a_text_in_quotes_is_a_string_only(store: Arc<dyn Store>) {
    with_values(&*store, &["10000", r#""10000""#, r#""9""#, r#""\"q\"""#, r#""a,b""#, "null", r#""null""#]).await;
    find(
        &*store,
        &[
            (&[("v.eq", "10000")], &[0, 1]),
            (&[("v.eq", r#""10000""#)], &[1]),
            (&[("v.gte", r#""10000""#), ("v.lte", r#""99999""#)], &[1, 2]),
            (&[("v.gte", "10000")], &[0]),
            (&[("v.eq", r#""\"q\"""#)], &[3]),
            (&[("v.eq", r#""q"#)], &[]),
            (&[("v.in", r#""a,b","9""#)], &[2, 4]),
            (&[("v.in", r#"a\,b,null"#)], &[4, 5, 6]),
            (&[("v.eq", r#""null""#)], &[6]),
            (&[("v.eq", r#""\u0039""#)], &[2]),
        ],
    )
    .await;
}

async fn null_matches_a_missing_field(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":0,"v":null}"#,
            r#"{"_id":1}"#,
            r#"{"_id":2,"v":[1,null]}"#,
            r#"{"_id":3,"v":[]}"#,
            r#"{"_id":4,"v":{"w":1}}"#,
            r#"{"_id":5,"v":[{"w":null},{"w":1}]}"#,
            r#"{"_id":6,"v":[{"w":1},{}]}"#,
            r#"{"_id":7,"v":"null"}"#,
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[("v.eq", "null")], &[0, 1, 2, 7]),
            (&[("v.in", "null,1")], &[0, 1, 2, 7]),
            (&[("v.ne", "null")], &[3, 4, 5, 6]),
            (&[("v.w.eq", "null")], &[0, 1, 5, 6, 7]),
            (&[("v.w.ne", "null")], &[2, 3, 4]),
            (&[("x.eq", "null")], &[0, 1, 2, 3, 4, 5, 6, 7]),
            (&[("v.gte", "null")], &[7]),
        ],
    )
    .await;
}

async fn null_does_not_match_undefined(store: Arc<dyn Store>) {
    with_values(&*store, &[r#"{"$undefined":true}"#, "null", r#"[{"$undefined":true}]"#]).await;
    find(
        &*store,
        &[
            (&[("v.eq", "null")], &[1]),
            (&[("v.in", "null,a")], &[1]),
            (&[("v.ne", "null")], &[0, 2]),
            (&[("v.exists", "true")], &[0, 1, 2]),
        ],
    )
    .await;
}

async fn a_range_is_within_one_type(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":0,"v":4}"#,
            r#"{"_id":1,"v":4.5}"#,
            r#"{"_id":2,"v":"4"}"#,
            r#"{"_id":3,"v":"Not yet rated"}"#,
            r#"{"_id":4,"v":null}"#,
            r#"{"_id":5}"#,
            r#"{"_id":6,"v":[1,9]}"#,
            r#"{"_id":7,"v":{"$date":"2015-09-10T08:55:47Z"}}"#,
            r#"{"_id":8,"v":{"$oid":"507f1f77bcf86cd799439011"}}"#,
            r#"{"_id":9,"v":true}"#,
            r#"{"_id":10,"v":"é"}"#,
            r#"{"_id":11,"v":{"$uuid":"3b241101-e2bb-4255-8caf-4136c566a962"}}"#,
            r#"{"_id":12,"v":{"$minKey":1}}"#,
            r#"{"_id":13,"v":{"$maxKey":1}}"#,
            r#"{"_id":14,"v":{"$numberDouble":"NaN"}}"#,
            r#"{"_id":15,"v":{"a":4}}"#,
            r#"{"_id":16,"v":"true"}"#,
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[("v.gte", "4")], &[0, 1, 6]),
            (&[("v.gt", "4")], &[1, 6]),
            (&[("v.lt", "4.5")], &[0, 6]),
            (&[("v.lt", "-1e300")], &[]),
            (&[("v.gte", "Not")], &[3, 10, 16]),
            (&[("v.lt", "O")], &[2, 3]),
            (&[("v.gt", "507f1f77bcf86cd799439010")], &[8]),
            (&[("v.lte", "507f1f77bcf86cd799439011")], &[8]),
            (&[("v.gt", "507f1f77bcf86cd79943901")], &[3, 10, 16]),
            (&[("v.gte", "3b241101-e2bb-4255-8caf-4136c566a962")], &[11]),
            (&[("v.gt", "2015-01-01T00:00:00Z")], &[2, 7]),
            // Booleans have no ranges, so the text is a string.
            (&[("v.gte", "true")], &[10, 16]),
            (&[("v.lte", "")], &[]),
            (&[("v.gte", "")], &[2, 3, 10, 16]),
        ],
    )
    .await;
}

async fn a_range_of_numbers_crosses_their_types(store: Arc<dyn Store>) {
    with_values(
        &*store,
        &[
            r#"{"$numberDecimal":"-1E+400"}"#,
            "-1e300",
            r#"{"$numberLong":"9007199254740993"}"#,
            r#"{"$numberDouble":"9007199254740992"}"#,
            r#"{"$numberDecimal":"9007199254740992.5"}"#,
            r#"{"$numberDouble":"Infinity"}"#,
            r#"{"$numberDouble":"NaN"}"#,
            r#"{"$numberDecimal":"NaN"}"#,
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[("v.gt", "9007199254740992")], &[2, 4, 5]),
            (&[("v.gt", "9007199254740992.5")], &[2, 5]),
            (&[("v.gte", "9007199254740993")], &[2, 5]),
            (&[("v.lt", "9007199254740993")], &[0, 1, 3, 4]),
            (&[("v.lt", "-1e300")], &[0]),
            (&[("v.lte", "-1e400")], &[0]),
            (&[("v.gt", "1e6000")], &[5]),
            (&[("v.gt", "9007199254740992"), ("v.lt", "9007199254740993")], &[4]),
        ],
    )
    .await;
}

async fn a_range_of_dates_includes_strings_that_begin_with_a_digit(store: Arc<dyn Store>) {
    with_values(
        &*store,
        &[
            r#"{"$date":"2024-05-01T10:00:00Z"}"#,
            r#""2024-05-01T10:00:00.000Z""#,
            r#""2024-05-01""#,
            r#""2023""#,
            r#""never""#,
            r#"" 2024-06-01""#,
            r#"{"$date":"2023-05-01T10:00:00Z"}"#,
            r#""99 bottles""#,
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[("v.gt", "2024-01-01")], &[0, 1, 2, 7]),
            (&[("v.gte", "2024-05-01")], &[0, 1, 2, 7]),
            (&[("v.gt", "2024-05-01")], &[1, 7]),
            (&[("v.lt", "2024-01-01")], &[3, 6]),
            (&[("v.gte", "2024-01-01"), ("v.lt", "2025-01-01")], &[0, 1, 2]),
            (&[("v.gte", "2024-05-01T10:00:00.000Z")], &[0, 1, 7]),
            // Strings are compared with the text as the client wrote it.
            (&[("v.gte", "2024-05-01T12:00:00+02:00"), ("v.lt", "2025-01-01")], &[0]),
        ],
    )
    .await;
}

async fn two_bounds_may_hold_for_two_elements(store: Arc<dyn Store>) {
    with_values(&*store, &["[1,9]", "[4,5]", "4.5", "[1,2]", r#"["a",5]"#, "[[4.5]]", "[]"]).await;
    find(
        &*store,
        &[
            (&[("v.gt", "4"), ("v.lt", "5")], &[0, 1, 2]),
            (&[("v.gt", "4"), ("v.lt", "4")], &[0]),
            (&[("v.gte", "4"), ("v.lte", "5"), ("v.gt", "4")], &[0, 1, 2, 4]),
        ],
    )
    .await;
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
            r#"{"_id":6,"v":"1"}"#,
            r#"{"_id":7,"v":1.0}"#,
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[("v.ne", "1")], &[2, 3, 5]),
            (&[("v.ne", r#""1""#)], &[1, 2, 3, 4, 5, 7]),
            (&[("v.ne", "null")], &[1, 4, 5, 6, 7]),
            (&[("v.ne", "1"), ("v.ne", "null")], &[5]),
            (&[("v.w.ne", "1")], &[1, 2, 3, 4, 5, 6, 7]),
        ],
    )
    .await;
}

async fn a_field_exists_although_it_is_null(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1,"v":{"w":null}}"#,
            r#"{"_id":2,"v":null}"#,
            r#"{"_id":3}"#,
            r#"{"_id":4,"v":[]}"#,
            r#"{"_id":5,"v":[{"w":1},{}]}"#,
            r#"{"_id":6,"v":[{}]}"#,
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[("v.exists", "true")], &[1, 2, 4, 5, 6]),
            (&[("v.exists", "false")], &[3]),
            (&[("v.w.exists", "true")], &[1, 5]),
            (&[("v.w.exists", "false")], &[2, 3, 4, 6]),
            (&[("_id.exists", "false")], &[]),
        ],
    )
    .await;
}

async fn a_path_goes_through_arrays(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1,"lines":[{"price":5},{"price":{"$numberInt":"50"}}]}"#,
            r#"{"_id":2,"lines":{"price":5}}"#,
            r#"{"_id":3,"lines":[[{"price":5}]]}"#,
            r#"{"_id":4,"lines":[7,{"price":[5,6]}]}"#,
            r#"{"_id":5,"lines":[{"price":[[5]]}]}"#,
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[("lines.price.eq", "5")], &[1, 2, 4]),
            (&[("lines.price.gt", "10")], &[1]),
            (&[("lines.price.eq", "6")], &[4]),
            (&[("lines.eq", "7")], &[4]),
            (&[("lines.price.ne", "5")], &[3, 5]),
            (&[("lines.price.exists", "true")], &[1, 2, 4, 5]),
        ],
    )
    .await;
}

async fn a_path_may_name_a_position(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1,"v":[5,6]}"#,
            r#"{"_id":2,"v":[6,5]}"#,
            r#"{"_id":3,"v":{"0":5}}"#,
            r#"{"_id":4,"v":[{"0":5}]}"#,
            r#"{"_id":5,"v":[{"w":5},{"w":6}]}"#,
            r#"{"_id":6,"v":[[5,6],[7]]}"#,
            r#"{"_id":7,"0":{"1":5}}"#,
            r#"{"_id":8,"0":[0,5]}"#,
            r#"{"_id":9,"v":[{"00":5}]}"#,
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[("v.0.eq", "5")], &[1, 3, 4]),
            (&[("v.1.eq", "5")], &[2]),
            (&[("v.0.w.eq", "5")], &[5]),
            (&[("v.1.w.eq", "5")], &[]),
            (&[("v.1.w.gte", "6")], &[5]),
            (&[("v.0.0.eq", "5")], &[4, 6]),
            (&[("v.1.exists", "true")], &[1, 2, 5, 6]),
            (&[("v.00.eq", "5")], &[9]),
            (&[("0.1.eq", "5")], &[7, 8]),
        ],
    )
    .await;
}

async fn a_path_may_name_what_a_query_cannot(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1,"a.b":5,"a":{"":{"$x":5},"c":1}}"#,
            r#"{"_id":2,"a":{"b":5}}"#,
            r#"{"_id":3,"a":{"b.c":[5,6]}}"#,
            r#"{"_id":4,"limit":{"eq":5},"a\\b":5}"#,
            r#"{"_id":5,"c":{"$code":"c","$scope":{"x":5}},"t":{"$timestamp":{"t":7,"i":8}}}"#,
        ],
    )
    .await;
    find(
        &*store,
        &[
            (&[(r"a\.b.eq", "5")], &[1]),
            (&[(r"a\.b.ne", "5")], &[2, 3, 4, 5]),
            (&[("a.b.eq", "5")], &[2]),
            (&[(r"a.b\.c.gt", "5")], &[3]),
            (&[("a..$x.eq", "5")], &[1]),
            (&[(r"a\.b.eq", "5"), ("a.c.eq", "1")], &[1]),
            (&[(r"a\.b.exists", "true"), ("a.c.eq", "2")], &[]),
            (&[("limit.eq.eq", "5")], &[4]),
            (&[(r"a\\b.eq", "5")], &[4]),
            // Neither is a document.
            (&[("c.x.exists", "true")], &[]),
            (&[("c.scope.x.exists", "true")], &[]),
            (&[("t.t.exists", "true")], &[]),
            (&[(r"a\.b.ne", "5"), ("sort", "-_id")], &[5, 4, 3, 2]),
        ],
    )
    .await;
}

async fn an_id_is_filtered_as_any_field(store: Arc<dyn Store>) {
    upsert_texts(
        &*store,
        &[
            r#"{"_id":1}"#,
            r#"{"_id":2}"#,
            r#"{"_id":"2"}"#,
            r#"{"_id":"a"}"#,
            r#"{"_id":{"a":2}}"#,
            r#"{"_id":{"$oid":"507f1f77bcf86cd799439011"}}"#,
        ],
    )
    .await;
    for (filters, expected) in [
        (&[("_id.eq", "2")][..], &["2", r#""2""#][..]),
        (&[("_id.in", r#"1,"a",507f1f77bcf86cd799439011"#)], &["1", r#""a""#, r#""507f1f77bcf86cd799439011""#]),
        (&[("_id.gt", "1")], &["2"]),
        (&[("_id.gte", r#""2""#)], &[r#""2""#, r#""a""#]),
        (&[("_id.ne", "2")], &["1", r#""a""#, r#"{"a":2}"#, r#""507f1f77bcf86cd799439011""#]),
        (&[("_id.a.eq", "2")], &[r#"{"a":2}"#]),
    ] {
        assert_eq!(ids(&*store, filters).await, expected, "{filters:?}");
    }
}

async fn filters_hold_together(store: Arc<dyn Store>) {
    let texts = (0..30).map(|n| format!(r#"{{"_id":{n},"a":{},"b":"{}","c":[{n}]}}"#, n % 2, n % 3));
    upsert_texts(&*store, &texts.collect::<Vec<_>>()).await;
    find(
        &*store,
        &[
            (&[("a.eq", "1"), ("b.eq", "2"), ("c.lt", "20")], &[5, 11, 17]),
            (&[("a.eq", "1"), ("a.eq", "0")], &[]),
            (&[("b.in", "0,1"), ("b.ne", "0"), ("_id.gte", "20"), ("a.exists", "true")], &[22, 25, 28]),
            (&[("c.gt", "3"), ("c.gt", "25"), ("c.lte", "100"), ("c.lte", "27")], &[26, 27]),
        ],
    )
    .await;
}

async fn no_value_is_an_operator(store: Arc<dyn Store>) {
    upsert_texts(&*store, &[r#"{"_id":1,"v":"a"}"#, r#"{"_id":2,"v":{"$gt":""}}"#]).await;
    for value in ["/.*/", r#"{"$gt":""}"#, "$v", "{$ne:1}", "function(){return true}", "*", ".*", "a|b"] {
        for name in ["v.eq", "v.in"] {
            assert_eq!(ids(&*store, &[(name, value)]).await, [""; 0], "{name}={value}");
        }
        assert_eq!(ids(&*store, &[("v.ne", value)]).await, ["1", "2"]);
    }
    for path in ["$where", "$or", "$expr", "$v", "\u{1}", "$$ROOT"] {
        assert_eq!(ids(&*store, &[(&format!("{path}.eq"), "1")]).await, [""; 0], "{path}");
        assert_eq!(ids(&*store, &[(&format!("{path}.exists"), "true")]).await, [""; 0], "{path}");
        assert_eq!(ids(&*store, &[("sort", &format!("-{path}"))]).await, ["1", "2"], "{path}");
    }
    assert_eq!(ids(&*store, &[("v.$gt.eq", "")]).await, ["2"]);
}
