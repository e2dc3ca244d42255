//! Queries over HTTP. The conformance suite tests the meaning of filters and sort orders; these tests check that they are passed
//! on.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64};

use futures::StreamExt;
use futures::stream;
use rstest::rstest;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::support::{Failing, Server, memory, record};

const LINES: &[&str] = &[
    r#"{"_id":"Ag","name":{"en":"Silver","de":"Silber"},"z":47,"lines":[{"a":1,"b":[2]},3,[{"a":4}],{"c":5}]}"#,
    r#"{"_id":"Au","name":{"en":"Gold","de":"Gold"},"z":79,"a.b":true}"#,
    r#"{"_id":"H","name":{"en":"Hydrogen"},"z":1,"limit":7}"#,
];

#[rstest]
#[case("name.de.eq=Gold", &["Au"])]
#[case("name.de.exists=false", &["H"])]
#[case("z.gt=40&z.lt=50", &["Ag"])]
#[case("z.in=1,79", &["Au", "H"])]
#[case("name.en.ne=Gold&fields=z", &["Ag", "H"])]
#[case("name.en.eq=Hydro+gen", &[])]
#[case("limit.eq=7", &["H"])]
#[case(r"a%5C.b.eq=true", &["Au"])]
#[case("sort=z&limit=3", &["H", "Ag", "Au"])]
#[case("sort=-name.de&limit=3", &["Ag", "Au", "H"])]
#[case("_id.gte=Au", &["Au", "H"])]
#[case("name.en.starts=Hy", &["H"])]
#[case("name.en.starts=%22Go%22", &["Au"])]
#[case("or=(z.eq=1,name.de.eq=Gold)", &["Au", "H"])]
#[case("or=%28z.eq%3D1%2Cname.de.eq%3DGold%29", &["Au", "H"])]
#[case("or=(z.in=(1,79),z.eq=2)&or=(limit.eq=7,z.lt=0)", &["H"])]
#[case("or=(name.en.eq=Hydro+gen,z.eq=79)", &["Au"])]
#[tokio::test]
async fn a_query_finds(#[case] query: &str, #[case] ids: &[&str]) {
    let server = Server::over(memory(LINES).await).await;
    let answer = server.get(&format!("/api/v1/records?{query}")).await;
    let list: Vec<serde_json::Value> = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(list.iter().map(|record| record["_id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
}

#[rstest]
#[case("fields=z", r#"{"_id":"Ag","z":47}"#)]
#[case("fields=name.de", r#"{"_id":"Ag","name":{"de":"Silber"}}"#)]
#[case("fields=name.de,name", r#"{"_id":"Ag","name":{"en":"Silver","de":"Silber"}}"#)]
#[case("fields=nothing,z.x", r#"{"_id":"Ag"}"#)]
#[case("fields=name.fr", r#"{"_id":"Ag","name":{}}"#)]
#[case("fields=lines.a", r#"{"_id":"Ag","lines":[{"a":1},[{"a":4}],{}]}"#)]
#[case("fields=z,lines.b", r#"{"_id":"Ag","z":47,"lines":[{"b":[2]},[{}],{}]}"#)]
#[tokio::test]
async fn fields_are_kept_in_the_order_of_the_record(#[case] query: &str, #[case] body: &str) {
    let server = Server::over(memory(LINES).await).await;
    assert_eq!(server.get(&format!("/api/v1/records/Ag?{query}")).await.body, body);
    assert_eq!(server.get(&format!("/api/v1/records?{query}&_id.eq=Ag")).await.body, format!("[{body}]"));
}

#[rstest]
#[case::in_an_or(r#"or=(t.eq=\"x\")"#, &[1])]
#[case::in_a_list(r#"t.in=\"x\",y"#, &[1])]
#[case::in_a_list_of_an_or(r#"or=(t.in=(\"x\",y))"#, &[1])]
#[case::at_the_beginning_alone(r#"or=(t.starts=\"x)"#, &[1])]
#[case::without_a_backslash(r#"or=(t.eq="x")"#, &[2])]
#[tokio::test]
async fn a_quote_after_a_backslash_belongs_to_the_text(#[case] query: &str, #[case] expected: &[i64]) {
    let server = Server::over(memory(&[r#"{"_id":1,"t":"\"x\""}"#, r#"{"_id":2,"t":"x"}"#]).await).await;
    let query = query.replace('"', "%22").replace('\\', "%5C");
    assert_eq!(found::<i64>(&server, &query).await, expected, "{query}");
}

#[rstest]
#[case::no_parentheses("z.eq=1,z.eq=2", "in parentheses")]
#[case::not_closed("(z.eq=1", "in parentheses")]
#[case::empty("()", "is not a filter")]
#[case::an_empty_one("(z.eq=1,)", "is not a filter")]
#[case::no_operator("(z=1)", "a field and an operator")]
#[case::an_unknown_operator("(z.like=1)", "Operators are")]
#[case::another_or("(or=(z.eq=1),z.eq=2)", "no other `or`")]
#[case::a_list_without_parentheses("(z.in=1,2)", "`z.in=(1,2)`")]
#[case::a_parenthesis_in_a_text("(name.en.eq=Gold (Au))", "double quotes")]
#[case::no_counterpart("(name.en.eq=Gold\\), name.en.eq=(x)", "no counterpart")]
#[case::no_counterpart_of_a_quote("(name.en.eq=%22Gold)", "no counterpart")]
#[case::no_json_string("(name.en.eq=%22a%5Cq%22)", "JSON string")]
#[case::exists_what("(z.exists=yes)", "`true` or `false`")]
#[tokio::test]
async fn an_or_that_means_nothing_is_refused(#[case] or: &str, #[case] says: &str) {
    let server = Server::over(memory(LINES).await).await;
    let answer = server.get(&format!("/api/v1/records?or={}", or.replace(' ', "+").replace('\\', "%5C"))).await;
    assert_eq!((answer.status, answer.problem()["parameter"].as_str()), (400, Some("or")), "{or}");
    let detail = answer.problem()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(says), "{or}: {detail}");
}

#[tokio::test]
async fn the_filters_of_an_or_count_like_others() {
    let server = Server::over(memory(LINES).await).await;
    let or = |filters| format!("or=({})", vec!["z.eq=1"; filters].join(","));
    assert_eq!(found::<String>(&server, &format!("{}&{}&z.lt=5", or(15), or(16))).await, ["H"]);
    let answer = server.get(&format!("/api/v1/records?{}&{}&z.lt=5", or(16), or(16))).await;
    assert_eq!(answer.status, 400);
    assert!(answer.problem()["detail"].as_str().unwrap().contains("32 filters"));
}

#[tokio::test]
async fn an_or_stays_in_the_links_of_its_pages() {
    let server = Server::over(memory(LINES).await).await;
    let mut path = Some("/api/v1/records?limit=1&or=(name.en.eq=%22Si,(l%5C%22%22,z.gte=1)&fields=z".to_owned());
    let mut walked = Vec::new();
    while let Some(here) = path {
        let answer = server.get(&here).await;
        walked.extend(ids_of::<String>(&answer.body));
        path = answer.next();
        assert!(walked.len() <= 3, "the links do not end");
    }
    assert_eq!(walked, ["Ag", "Au", "H"]);
}

#[tokio::test]
async fn a_single_record_has_no_other_parameter() {
    let server = Server::over(memory(LINES).await).await;
    for (query, parameter) in [
        ("limit=1", "limit"),
        ("fields=z&z.eq=1", "z.eq"),
        ("colour=red&fields=z", "colour"),
        ("fields=z&fields=z", "fields"),
    ] {
        let answer = server.get(&format!("/api/v1/records/Ag?{query}")).await;
        assert_eq!((answer.status, answer.problem()["parameter"].as_str()), (400, Some(parameter)));
    }
}

/// Many times the records that a scan reads before it yields to other tasks.
const MANY: i64 = 1_000_000;

#[rstest]
#[case::a_filter_that_finds_nothing("v.eq=1")]
#[case::an_order_that_is_of_all("sort=v&limit=1")]
#[tokio::test]
async fn a_look_at_many_records_lets_others_through(#[case] query: &str) {
    let (begun, done, seen) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let store = Failing {
        get: Box::new(|| Box::pin(async { Ok(Some(record(1))) })),
        list: Arc::new({
            let (begun, done, seen) = (begun.clone(), done.clone(), seen.clone());
            move || {
                begun.notify_one();
                let (done, seen) = (done.clone(), seen.clone());
                let records = (0..MANY).take_while(move |_| !done.load(Relaxed));
                stream::iter(records.map(move |id| {
                    seen.store(id + 1, Relaxed);
                    Ok(record(id))
                }))
                .boxed()
            }
        }),
    };
    let server = Server::over(Arc::new(store)).await;
    let other = async {
        begun.notified().await;
        assert_eq!(server.get("/api/v1/records/1").await.status, 200);
        done.store(true, Relaxed);
    };
    let path = format!("/api/v1/records?{query}");
    let (list, ()) = tokio::join!(server.get(&path), other);
    assert_eq!(list.status, 200);
    assert!(seen.load(Relaxed) < MANY, "the other request was answered after the list");
}

const DATES: &[&str] = &[
    r#"{"_id":1,"t":{"$date":"2024-01-01T12:00:00.000Z"}}"#,
    r#"{"_id":2,"t":{"$date":"2024-01-02T00:00:00.000Z"}}"#,
    r#"{"_id":3,"t":{"$date":"2024-01-02T00:00:00.500Z"}}"#,
    r#"{"_id":4,"t":"2024-01-02"}"#,
];

#[rstest]
#[case("t.gte=2024-01-02T00:00:00Z", &[2, 3])]
#[case("t.lte=2024-01-02T00:00:00Z", &[1, 2, 4])]
#[case("t.eq=2024-01-02T00:00:00Z", &[2])]
#[case("t.in=2024-01-02T00:00:00.500000Z,2024-01-01T12:00:00Z", &[1, 3])]
#[case("t.gte=2024-01-01T23:00:00-05:00", &[4])]
#[case("t.gte=2024-01-02T01:00:00%2B01:00", &[2, 3])]
#[case::a_plus_that_is_not_encoded("t.gte=2024-01-02T01:00:00+01:00", &[2, 3])]
#[case("t.gt=2024-01-02T00:00:00.4999Z", &[3])]
#[case("t.lte=2024-01-02", &[1, 2, 3, 4])]
#[case("t.gt=2024-01-01", &[2, 3, 4])]
#[case("t.lt=2024-01-02", &[1])]
#[case("t.eq=2024-01-02", &[2, 3, 4])]
#[tokio::test]
async fn dates_compare_as_instants_however_they_are_written(#[case] query: &str, #[case] ids: &[i64]) {
    let server = Server::over(memory(DATES).await).await;
    assert_eq!(found::<i64>(&server, query).await, ids);
}

const ZIPS: &[&str] = &[
    r#"{"_id":"02134","zip":"02134","price":{"$numberDecimal":"317.00"}}"#,
    r#"{"_id":"10025","zip":"10025","price":{"$numberDecimal":"80.00"}}"#,
    r#"{"_id":"94103","zip":"94103","price":{"$numberDecimal":"1000.00"}}"#,
];

#[rstest]
#[case::no_number_in_json("zip.gte=02000", &["02134", "10025", "94103"])]
#[case::a_number("zip.gte=10000", &[])]
#[case::a_string("zip.gte=%2210000%22", &["10025", "94103"])]
#[case::a_string_as_an_id("_id.gte=%2210000%22", &["10025", "94103"])]
#[case::both("zip.eq=10025", &["10025"])]
#[case::a_string_alone("zip.eq=%2210025%22", &["10025"])]
#[case::several("zip.in=%2210025%22,02134", &["02134", "10025"])]
#[case::a_decimal_above("price.gt=100", &["02134", "94103"])]
#[case::a_decimal("price.eq=80", &["10025"])]
#[case::a_decimal_is_no_string("price.eq=%2280.00%22", &[])]
#[case::decimals_in_order("sort=price&limit=9", &["10025", "02134", "94103"])]
#[tokio::test]
async fn quotes_make_a_string_and_decimals_are_numbers(#[case] query: &str, #[case] ids: &[&str]) {
    let server = Server::over(memory(ZIPS).await).await;
    assert_eq!(found::<String>(&server, query).await, ids);
}

const SORTED: &[&str] = &[
    r#"{"_id":1,"a":2,"b":"x"}"#,
    r#"{"_id":2,"a":1,"b":"x"}"#,
    r#"{"_id":3,"a":1,"b":"y"}"#,
    r#"{"_id":4,"b":"x"}"#,
    r#"{"_id":5,"a":[0,3],"b":"z"}"#,
];

#[rstest]
#[case("a,-b", &[4, 5, 3, 2, 1])]
#[case("-a,b", &[5, 1, 2, 3, 4])]
#[case("b,-_id", &[4, 2, 1, 3, 5])]
#[case("-b,a", &[5, 3, 4, 2, 1])]
#[tokio::test]
async fn several_fields_sort_and_page(#[case] sort: &str, #[case] ids: &[i64], #[values(1, 2, 9)] limit: usize) {
    let server = Server::over(memory(SORTED).await).await;
    let mut path = Some(format!("/api/v1/records?sort={sort}&limit={limit}"));
    let mut walked = Vec::new();
    while let Some(here) = path {
        let answer = server.get(&here).await;
        walked.extend(ids_of::<i64>(&answer.body));
        path = answer.next();
        assert!(walked.len() <= ids.len(), "the links do not end");
    }
    assert_eq!(walked, ids);
}

#[tokio::test]
async fn two_arrays_in_one_record_cannot_be_sorted_by() {
    let server = Server::over(memory(&[r#"{"_id":1,"a":[1,2],"b":{"c":[3]}}"#]).await).await;
    let answer = server.get("/api/v1/records?sort=a,-b.c&limit=5").await;
    let problem = answer.problem();
    assert_eq!((answer.status, problem["parameter"].as_str()), (400, Some("sort")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("`a`") && detail.contains("`b.c`"), "{detail}");
    assert_eq!(server.get("/api/v1/records?sort=a,b&limit=5").await.status, 200, "one array can");
}

#[tokio::test]
async fn ids_of_any_kind_are_listed_and_paged() {
    let lines = [
        r#"{"_id":{"$minKey":1}}"#,
        r#"{"_id":null}"#,
        r#"{"_id":{"$numberDecimal":"1.5"}}"#,
        r#"{"_id":{"a":1,"b":"x"}}"#,
        r#"{"_id":{"$binary":{"base64":"AQID","subType":"00"}}}"#,
        r#"{"_id":{"$timestamp":{"t":1,"i":2}}}"#,
        r#"{"_id":{"$maxKey":1}}"#,
    ];
    let json = [
        r#"{"_id":"MinKey"}"#,
        r#"{"_id":null}"#,
        r#"{"_id":"1.5"}"#,
        r#"{"_id":{"a":1,"b":"x"}}"#,
        r#"{"_id":"AQID"}"#,
        r#"{"_id":{"t":1,"i":2}}"#,
        r#"{"_id":"MaxKey"}"#,
    ];
    let server = Server::over(memory(&lines).await).await;
    assert_eq!(server.get("/api/v1/records").await.body, format!("[{}]", json.join(",")));
    for order in ["", "&sort=nothing"] {
        let mut path = Some(format!("/api/v1/records?limit=1{order}"));
        for record in json {
            let answer = server.get(&path.unwrap()).await;
            assert_eq!(answer.body, format!("[{record}]"));
            path = answer.next();
        }
        assert_eq!(path, None);
    }
    assert_eq!(server.get("/api/v1/records/1.5").await.body, json[2]);
}

#[rstest]
#[case("nothing", r#"{"_id":1}"#)]
#[case("a", r#"{"_id":1,"a":{"b":5}}"#)]
#[case("a%5C,b", r#"{"_id":1,"a,b":1}"#)]
#[case("a.b.c", r#"{"_id":1,"a":{}}"#)]
#[case("%C3%A9", r#"{"_id":1,"é":"😀"}"#)]
#[tokio::test]
async fn a_projection_keeps(#[case] fields: &str, #[case] kept: &str) {
    let server = Server::over(memory(&[r#"{"_id":1,"a,b":1,"a":{"b":5},"é":"\ud83d\ude00"}"#]).await).await;
    assert_eq!(server.get(&format!("/api/v1/records/1?fields={fields}")).await.body, kept);
    assert_eq!(server.get(&format!("/api/v1/records?fields={fields}")).await.body, format!("[{kept}]"));
}

async fn found<T: DeserializeOwned>(server: &Server, query: &str) -> Vec<T> {
    let answer = server.get(&format!("/api/v1/records?{query}&fields=_id")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    ids_of(&answer.body)
}

fn ids_of<T: DeserializeOwned>(body: &str) -> Vec<T> {
    let list: Vec<serde_json::Value> = serde_json::from_str(body).unwrap();
    list.into_iter().map(|record| serde_json::from_value(record["_id"].clone()).unwrap()).collect()
}

#[rstest]
#[tokio::test]
async fn fields_are_names_and_no_wildcards_or_exclusions(
    #[values("*", "-name", "name,-z", "*,name", "name.*", "*.de", "-*", "-name.de")] fields: &str,
    #[values("/api/v1/records/Ag?", "/api/v1/records?", "/api/v1/records?limit=1&")] path: &str,
) {
    let server = Server::over(memory(LINES).await).await;
    let answer = server.get(&format!("{path}fields={fields}")).await;
    assert_eq!((answer.status, answer.problem()["parameter"].as_str()), (400, Some("fields")));
    let detail = answer.problem()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("fields=name,address.city") && detail.contains("leave it out"), "{detail}");
}

#[tokio::test]
async fn a_field_with_an_odd_name_is_written_with_a_backslash() {
    let server = Server::over(memory(&[r#"{"_id":1,"-x":2,"*":3,"a*":4,"a":{"-x":5,"*":6}}"#]).await).await;
    for (fields, body) in [
        (r"%5C-x", r#"{"_id":1,"-x":2}"#),
        (r"%5C*", r#"{"_id":1,"*":3}"#),
        ("a*", r#"{"_id":1,"a*":4}"#),
        ("a.-x", r#"{"_id":1,"a":{"-x":5}}"#),
        (r"a.%5C*", r#"{"_id":1,"a":{"*":6}}"#),
    ] {
        assert_eq!(server.get(&format!("/api/v1/records/1?fields={fields}")).await.body, body);
    }
}
