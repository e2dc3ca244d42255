//! Documents in the shapes that applications give them: each shape with lookups, filters and orders, the same from every store.

use std::sync::Arc;

use records::store::{ListRequest, Precision, Store};

use crate::harness::{cases, get_json, ids, request, upsert_texts};

cases! {
    Any by store {
        places_as_geojson,
        orders_with_lines,
        attributes_as_pairs,
        arrays_of_arrays,
        one_field_of_many_types,
        names_in_any_script,
        names_that_are_empty,
        numbers_that_are_large,
        dates_as_dates_and_as_texts,
        references_to_other_collections,
        ids_that_are_uuids,
        ids_that_are_documents,
        rows_full_of_nulls,
        documents_of_an_object_mapper,
    }
}

/// Parameters of a list, and the `_id`s that it must have, as JSON and in this order.
type Query<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

async fn serves(store: &dyn Store, documents: &[&str], lookups: &[(&str, &str)], queries: &[Query<'_>]) {
    upsert_texts(store, documents).await;
    for (id, json) in lookups {
        assert_eq!(get_json(store, id).await.as_deref(), Some(*json), "{id}");
    }
    for (parameters, expected) in queries {
        assert_eq!(ids(store, parameters).await, *expected, "{parameters:?}");
        let all = ListRequest { limit: Some(documents.len()), ..request(parameters) };
        let count = store.count(all, Precision::Exact).await.expect("a count").expect("a number in time");
        assert_eq!((count.number, count.is_exact), (expected.len() as u64, true), "{parameters:?}");
    }
}

async fn places_as_geojson(store: Arc<dyn Store>) {
    serves(
        &*store,
        &[
            r#"{"_id":"berlin","location":{"type":"Point","coordinates":[13.4,52.5]}}"#,
            r#"{"_id":"quito","location":{"type":"Point","coordinates":[-78.5,-0.2]}}"#,
            r#"{"_id":"park","location":{"type":"Polygon","coordinates":[[[0,0],[60,0],[60,60],[0,0]]]}}"#,
            r#"{"_id":"nowhere","location":null}"#,
        ],
        &[("park", r#"{"_id":"park","location":{"type":"Polygon","coordinates":[[[0,0],[60,0],[60,60],[0,0]]]}}"#)],
        &[
            (&[("location.type.eq", "Point")], &[r#""berlin""#, r#""quito""#]),
            (&[("location.coordinates.gt", "50")], &[r#""berlin""#]),
            (&[("location.coordinates.0.lt", "0")], &[r#""quito""#]),
            (&[("location.coordinates.0.1.0.eq", "60")], &[r#""park""#]),
            (&[("location.type.exists", "false")], &[r#""nowhere""#]),
            (&[("sort", "location.coordinates.1")], &[r#""nowhere""#, r#""park""#, r#""quito""#, r#""berlin""#]),
        ],
    )
    .await;
}

async fn orders_with_lines(store: Arc<dyn Store>) {
    serves(
        &*store,
        &[
            r#"{"_id":1,"customer":{"name":"Ada","address":{"city":"Köln"}},"lines":[{"sku":"A-1","price":{"$numberDecimal":"9.90"}},{"sku":"B-2","price":120}]}"#,
            r#"{"_id":2,"customer":{"name":"Bo","address":{"city":"Oslo"}},"lines":[{"sku":"A-2","price":5}]}"#,
            r#"{"_id":3,"customer":{"name":"Cy"},"lines":[]}"#,
            r#"{"_id":4,"customer":{"name":"Di"}}"#,
        ],
        &[],
        &[
            (&[("lines.price.gt", "100")], &["1"]),
            (&[("lines.price.eq", "9.9")], &["1"]),
            (&[("lines.sku.starts", "A-")], &["1", "2"]),
            (&[("lines.0.sku.eq", "B-2")], &[]),
            (&[("lines.1.sku.eq", "B-2")], &["1"]),
            // Two conditions may hold for two lines.
            (&[("lines.sku.eq", "A-1"), ("lines.price.gt", "100")], &["1"]),
            (&[("or", "(customer.address.city.eq=Oslo,lines.exists=false)")], &["2", "4"]),
            (&[("sort", "-lines.price")], &["1", "2", "3", "4"]),
            (&[("sort", "customer.address.city")], &["3", "4", "1", "2"]),
        ],
    )
    .await;
}

async fn attributes_as_pairs(store: Arc<dyn Store>) {
    serves(
        &*store,
        &[
            r#"{"_id":"shirt","attributes":[{"k":"colour","v":"red"},{"k":"size","v":42}]}"#,
            r#"{"_id":"shoe","attributes":[{"k":"size","v":"42"},{"k":"sole","v":{"of":"rubber"}}]}"#,
            r#"{"_id":"hat","attributes":{"k":"colour","v":"blue"}}"#,
        ],
        &[("hat", r#"{"_id":"hat","attributes":{"k":"colour","v":"blue"}}"#)],
        &[
            (&[("attributes.k.eq", "colour")], &[r#""hat""#, r#""shirt""#]),
            (&[("attributes.v.eq", "42")], &[r#""shirt""#, r#""shoe""#]),
            (&[("attributes.v.eq", r#""42""#)], &[r#""shoe""#]),
            (&[("attributes.v.of.exists", "true")], &[r#""shoe""#]),
            (&[("attributes.k.ne", "size")], &[r#""hat""#]),
        ],
    )
    .await;
}

async fn arrays_of_arrays(store: Arc<dyn Store>) {
    serves(
        &*store,
        &[
            r#"{"_id":1,"matrix":[[1,2],[3,4]]}"#,
            r#"{"_id":2,"matrix":[[[1]],[]]}"#,
            r#"{"_id":3,"matrix":[{"row":[1,2]},{"row":[[3]]}]}"#,
            r#"{"_id":4,"matrix":[]}"#,
        ],
        &[("2", r#"{"_id":2,"matrix":[[[1]],[]]}"#)],
        &[
            (&[("matrix.eq", "1")], &[]),
            (&[("matrix.0.0.eq", "1")], &["1"]),
            (&[("matrix.1.1.gte", "4")], &["1"]),
            (&[("matrix.row.eq", "2")], &["3"]),
            (&[("matrix.row.eq", "3")], &[]),
            (&[("matrix.0.exists", "false")], &["4"]),
        ],
    )
    .await;
}

async fn one_field_of_many_types(store: Arc<dyn Store>) {
    serves(
        &*store,
        &[
            r#"{"_id":1,"v":5}"#,
            r#"{"_id":2,"v":"5"}"#,
            r#"{"_id":3,"v":true}"#,
            r#"{"_id":4,"v":null}"#,
            r#"{"_id":5,"v":[7,"x"]}"#,
            r#"{"_id":6,"v":{"x":5}}"#,
            r#"{"_id":7}"#,
            r#"{"_id":8,"v":{"$date":"2024-01-31T10:00:00Z"}}"#,
            r#"{"_id":9,"v":{"$oid":"507f1f77bcf86cd799439011"}}"#,
        ],
        &[],
        &[
            (&[("v.eq", "5")], &["1", "2"]),
            (&[("v.gt", "1")], &["1", "5"]),
            (&[("v.gt", "\"1\"")], &["2", "5"]),
            (&[("v.in", "true,null")], &["3", "4", "7"]),
            (&[("v.x.eq", "5")], &["6"]),
            (&[("v.gt", "2024-01-01")], &["2", "8"]),
            (&[("sort", "v")], &["4", "7", "1", "5", "2", "6", "9", "3", "8"]),
            (&[("sort", "-v")], &["8", "3", "9", "6", "5", "2", "1", "4", "7"]),
        ],
    )
    .await;
}

async fn names_in_any_script(store: Arc<dyn Store>) {
    let composed = "{\"_id\":3,\"caf\u{e9}\":1}";
    let decomposed = "{\"_id\":4,\"cafe\u{301}\":1}";
    serves(
        &*store,
        &[
            r#"{"_id":1,"größe":1,"数":{"値":"あ"},"🙂":true,"имя поля":"с пробелом"}"#,
            r#"{"_id":2,"größe":2,"数":{"値":"い"}}"#,
            composed,
            decomposed,
        ],
        &[("3", composed), ("4", decomposed)],
        &[
            (&[("größe.gte", "2")], &["2"]),
            (&[("数.値.eq", "あ")], &["1"]),
            (&[("🙂.exists", "true")], &["1"]),
            (&[("имя поля.starts", "с ")], &["1"]),
            (&[("caf\u{e9}.eq", "1")], &["3"]),
            (&[("cafe\u{301}.eq", "1")], &["4"]),
            (&[("sort", "-数.値")], &["2", "1", "3", "4"]),
        ],
    )
    .await;
}

async fn names_that_are_empty(store: Arc<dyn Store>) {
    serves(
        &*store,
        &[
            r#"{"_id":1,"":"root","a":{"":{"b":1}}}"#,
            r#"{"_id":2,"a":{"b":1," ":2}}"#,
            r#"{"_id":3,"a":[{"":{"b":2}}]}"#,
        ],
        &[("1", r#"{"_id":1,"":"root","a":{"":{"b":1}}}"#)],
        &[
            (&[("a..b.eq", "1")], &["1"]),
            (&[("a..b.gt", "0")], &["1", "3"]),
            (&[("a. .eq", "2")], &["2"]),
            (&[("sort", "-a..b")], &["3", "1", "2"]),
        ],
    )
    .await;
}

async fn numbers_that_are_large(store: Arc<dyn Store>) {
    serves(
        &*store,
        &[
            r#"{"_id":1,"n":{"$numberLong":"9007199254740993"}}"#,
            r#"{"_id":2,"n":{"$numberDouble":"9007199254740992"}}"#,
            r#"{"_id":3,"n":{"$numberDecimal":"1234567890123456789012345678901234"}}"#,
            r#"{"_id":4,"n":{"$numberLong":"-9223372036854775808"}}"#,
            r#"{"_id":5,"n":{"$numberDouble":"1e308"}}"#,
            r#"{"_id":6,"n":{"$numberDecimal":"1E+6000"}}"#,
        ],
        &[("3", r#"{"_id":3,"n":"1234567890123456789012345678901234"}"#)],
        &[
            (&[("n.eq", "9007199254740993")], &["1"]),
            (&[("n.gt", "9007199254740992")], &["1", "3", "5", "6"]),
            (&[("n.eq", "1234567890123456789012345678901234")], &["3"]),
            (&[("n.lt", "0")], &["4"]),
            (&[("sort", "n")], &["4", "2", "1", "3", "5", "6"]),
        ],
    )
    .await;
}

async fn dates_as_dates_and_as_texts(store: Arc<dyn Store>) {
    serves(
        &*store,
        &[
            r#"{"_id":1,"at":{"$date":"2024-01-31T23:59:59.999Z"}}"#,
            r#"{"_id":2,"at":"2024-01-31"}"#,
            r#"{"_id":3,"at":"2024-01-31T10:00:00+02:00"}"#,
            r#"{"_id":4,"at":{"$date":"2024-02-01T00:00:00Z"}}"#,
            r#"{"_id":5,"at":"31.01.2024"}"#,
            r#"{"_id":6,"at":{"$numberLong":"1706659200000"}}"#,
            r#"{"_id":7,"at":{"$date":{"$numberLong":"-62167219200001"}}}"#,
        ],
        &[("7", r#"{"_id":7,"at":"-000001-12-31T23:59:59.999Z"}"#)],
        &[
            (&[("at.eq", "2024-01-31")], &["1", "2"]),
            (&[("at.gte", "2024-01-31"), ("at.lt", "2024-02-01")], &["1", "2", "3"]),
            (&[("at.starts", "2024-01-31")], &["2", "3"]),
            (&[("at.lt", "0001-01-01T00:00:00Z")], &["7"]),
            (&[("sort", "at")], &["6", "2", "3", "5", "7", "1", "4"]),
        ],
    )
    .await;
}

async fn references_to_other_collections(store: Arc<dyn Store>) {
    serves(
        &*store,
        &[
            r#"{"_id":1,"owner":{"$ref":"users","$id":{"$oid":"507f1f77bcf86cd799439011"},"$db":"accounts"}}"#,
            r#"{"_id":2,"owner":{"$ref":"groups","$id":7}}"#,
            r#"{"_id":3,"owner":{"$oid":"507f1f77bcf86cd799439011"}}"#,
        ],
        &[("2", r#"{"_id":2,"owner":{"$ref":"groups","$id":7}}"#)],
        &[
            (&[("owner.$ref.eq", "users")], &["1"]),
            (&[("owner.$id.eq", "507f1f77bcf86cd799439011")], &["1"]),
            (&[("owner.$id.gt", "5")], &["2"]),
            (&[("owner.eq", "507f1f77bcf86cd799439011")], &["3"]),
            (&[("or", "(owner.$ref.starts=gr,owner.eq=507f1f77bcf86cd799439011)")], &["2", "3"]),
            (&[("sort", "-owner.$ref")], &["1", "2", "3"]),
        ],
    )
    .await;
}

async fn ids_that_are_uuids(store: Arc<dyn Store>) {
    let uuid = "3b241101-e2bb-4255-8caf-4136c566a962";
    serves(
        &*store,
        &[
            r#"{"_id":{"$uuid":"3b241101-e2bb-4255-8caf-4136c566a962"},"n":1}"#,
            r#"{"_id":{"$binary":{"base64":"OyQRAeK7QlWMr0E2xWapYg==","subType":"03"}},"n":2}"#,
            r#"{"_id":"3b241101-e2bb-4255-8caf-4136c566a963","n":3}"#,
        ],
        &[
            (uuid, r#"{"_id":"3b241101-e2bb-4255-8caf-4136c566a962","n":1}"#),
            (&uuid.to_uppercase(), r#"{"_id":"3b241101-e2bb-4255-8caf-4136c566a962","n":1}"#),
            ("3b241101-e2bb-4255-8caf-4136c566a963", r#"{"_id":"3b241101-e2bb-4255-8caf-4136c566a963","n":3}"#),
        ],
        &[
            (&[("_id.eq", uuid)], &[r#""3b241101-e2bb-4255-8caf-4136c566a962""#]),
            (&[("n.eq", "2")], &[r#""OyQRAeK7QlWMr0E2xWapYg==""#]),
            (&[("_id.starts", "3b24")], &[r#""3b241101-e2bb-4255-8caf-4136c566a963""#]),
        ],
    )
    .await;
}

async fn ids_that_are_documents(store: Arc<dyn Store>) {
    let [a, b, c] =
        [r#"{"country":"DE","zip":"10115"}"#, r#"{"country":"DE","zip":"20095"}"#, r#"{"country":"NO","zip":"0150"}"#];
    let documents = [c, a, b].map(|id| format!(r#"{{"_id":{id},"n":{}}}"#, id.len()));
    let documents = documents.each_ref().map(String::as_str);
    serves(
        &*store,
        &documents,
        &[],
        &[
            (&[], &[a, b, c]),
            (&[("_id.country.eq", "DE")], &[a, b]),
            (&[("_id.zip.starts", "0")], &[c]),
            (&[("sort", "-_id.country,_id.zip")], &[c, a, b]),
            (&[("sort", "-_id")], &[c, b, a]),
        ],
    )
    .await;
}

async fn rows_full_of_nulls(store: Arc<dyn Store>) {
    serves(
        &*store,
        &[
            r#"{"_id":1,"a":null,"b":null,"c":{"d":null}}"#,
            r#"{"_id":2,"a":1,"b":null,"c":null}"#,
            r#"{"_id":3,"b":""}"#,
            r#"{"_id":4,"a":[],"c":[null]}"#,
        ],
        &[("1", r#"{"_id":1,"a":null,"b":null,"c":{"d":null}}"#)],
        &[
            (&[("a.eq", "null")], &["1", "3"]),
            (&[("a.exists", "true"), ("a.eq", "null")], &["1"]),
            (&[("b.ne", "null")], &["3"]),
            (&[("c.eq", "null")], &["2", "3", "4"]),
            (&[("c.d.exists", "true")], &["1"]),
            (&[("c.d.eq", "null")], &["1", "2", "3"]),
            (&[("sort", "-a")], &["2", "1", "3", "4"]),
        ],
    )
    .await;
}

async fn documents_of_an_object_mapper(store: Arc<dyn Store>) {
    serves(
        &*store,
        &[
            r#"{"_id":{"$oid":"65b9a4f0e4b0a1c2d3e4f501"},"_class":"com.example.Dog","__v":0,"constructor":"x","toString":1}"#,
            r#"{"_id":{"$oid":"65b9a4f0e4b0a1c2d3e4f502"},"_class":"com.example.cats.Cat","__v":3}"#,
        ],
        &[(
            "65b9a4f0e4b0a1c2d3e4f501",
            r#"{"_id":"65b9a4f0e4b0a1c2d3e4f501","_class":"com.example.Dog","__v":0,"constructor":"x","toString":1}"#,
        )],
        &[
            (&[("_class.starts", "com.example.c")], &[r#""65b9a4f0e4b0a1c2d3e4f502""#]),
            (&[("__v.gt", "0")], &[r#""65b9a4f0e4b0a1c2d3e4f502""#]),
            (&[("constructor.eq", "x"), ("toString.eq", "1")], &[r#""65b9a4f0e4b0a1c2d3e4f501""#]),
            (&[("_id.gt", "65b9a4f0e4b0a1c2d3e4f501")], &[r#""65b9a4f0e4b0a1c2d3e4f502""#]),
        ],
    )
    .await;
}
