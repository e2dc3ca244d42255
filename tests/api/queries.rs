//! Asking for less. What filters and orders mean is a matter of the conformance suite; here, that they get through.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64};

use futures::StreamExt;
use futures::stream;
use records::query::{Fields, Path};
use rstest::rstest;
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
#[case("fields=lines.a", r#"{"_id":"Ag","lines":[{"a":1},{}]}"#)]
#[case("fields=z,lines.b", r#"{"_id":"Ag","z":47,"lines":[{"b":[2]},{}]}"#)]
#[tokio::test]
async fn fields_are_kept_in_the_order_of_the_record(#[case] query: &str, #[case] body: &str) {
    let server = Server::over(memory(LINES).await).await;
    assert_eq!(server.get(&format!("/api/v1/records/Ag?{query}")).await.body, body);
    assert_eq!(server.get(&format!("/api/v1/records?{query}&_id.eq=Ag")).await.body, format!("[{body}]"));
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

/// More than is looked at before others have had their turn.
const MANY: i64 = 1_000_000;

#[rstest]
#[case::a_filter_that_finds_nothing("v.eq=1")]
#[case::an_order_that_is_of_all("sort=v&limit=1")]
#[tokio::test]
async fn a_look_at_many_records_lets_others_through(#[case] query: &str) {
    let (begun, done, seen) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let store = Failing {
        get: Box::new(|| Box::pin(async { Ok(Some(record(1))) })),
        list: Box::new({
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

#[rstest]
#[case("a", r#"{"_id":1}"#, r#"{"_id":1}"#)]
#[case(r"a\,b", r#"{"a,b":1,"_id":1,"a":2}"#, r#"{"a,b":1,"_id":1}"#)]
#[case("a.b.c", r#"{"_id":1,"a":{"b":5}}"#, r#"{"_id":1,"a":{}}"#)]
#[case("é", r#"{"_id":{"x":[1]},"\u00e9":"\ud83d\ude00"}"#, r#"{"_id":{"x":[1]},"é":"\ud83d\ude00"}"#)]
fn a_projection_keeps(#[case] path: &str, #[case] json: &str, #[case] kept: &str) {
    let mut out = b"before".to_vec();
    Fields::of([&Path::parse(path).unwrap()]).project(&mut out, json.as_bytes());
    assert_eq!(String::from_utf8(out).unwrap(), format!("before{kept}"));
}
