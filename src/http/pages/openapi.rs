//! `/openapi.json`: the description of the API, [OpenAPI 3.1](https://spec.openapis.org/oas/v3.1.0), made out of what the
//! handlers use and what this server is set to.

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use serde_json::json;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, ParameterStyle, PathItemBuilder};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{
    ComponentsBuilder, Content, Header, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem,
    PathsBuilder, Ref, Required, Response, ResponseBuilder,
};

use crate::http::App;
use crate::http::accept::Form;
use crate::http::settings::Settings;
use crate::query::OPERATORS;

pub async fn openapi(State(app): State<App>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-cache")], Json(describe(&app.settings, !app.apart)))
}

/// `operations`: whether health and metrics are served at the same address.
fn describe(settings: &Settings, operations: bool) -> OpenApi {
    let info = InfoBuilder::new()
        .title("records")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "JSON records, to be read. Every answer has an `x-request-id`; every failure is `application/problem+json`, but for \
             those of requests that are not HTTP or larger than the server takes: these are a 400 or 431 and nothing more.",
        ))
        .license(Some(LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build()))
        .build();
    let record = ObjectBuilder::new()
        .property("_id", ObjectBuilder::new().schema_type(SchemaType::AnyValue))
        .required("_id")
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .description(Some("One record: any fields, and an `_id`."));
    let mut paths =
        PathsBuilder::new().path("/api/v1/records", read(list(settings))).path("/api/v1/records/{id}", read(one()));
    if operations {
        paths = with_operations(paths);
    }
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(ComponentsBuilder::new().schema("Record", record).schema("Problem", problem_schema()).build()))
        .build()
}

fn with_operations(paths: PathsBuilder) -> PathsBuilder {
    paths
        .path("/livez", read(plain("live", "Whether the process is worth keeping", "application/json")))
        .path(
            "/readyz",
            read(
                plain("ready", "Whether requests should come here", "application/json")
                    .response("503", problem("The store does not answer, or the server is about to stop", true)),
            ),
        )
        .path("/metrics", read(plain("metrics", "For Prometheus", "application/openmetrics-text")))
}

fn read(operation: OperationBuilder) -> PathItem {
    PathItemBuilder::new().operation(HttpMethod::Get, operation).build()
}

fn list(settings: &Settings) -> OperationBuilder {
    let largest = settings.largest_limit();
    let limit = integer().minimum(Some(1)).maximum(Some(largest));
    let without = match settings.implied_limit() {
        Some(implied) => format!("Without it, {implied}."),
        None => "Without it the whole list is streamed.".to_owned(),
    };
    let filters = ObjectBuilder::new().additional_properties(Some(text().max_length(Some(1024)))).property_names(Some(
        text().pattern(Some(format!(r"^[A-Za-z_][A-Za-z0-9_]*\.({})$", OPERATORS.join("|")))).build(),
    ));
    let operators = OPERATORS.join("`, `");
    let array = ArrayBuilder::new().items(Ref::from_schema_name("Record"));
    let found = ResponseBuilder::new()
        .description("The records")
        .content(Form::Json.media_type(), Content::new(Some(array)))
        .content(Form::Lines.media_type(), Content::new(Some(text().description(Some("One record a line.")))))
        .header("link", header("Where the next page is, if there is one: `<…>; rel=\"next\"`."))
        .header("etag", header("Of a page; a whole list is streamed, and has none."))
        .header("vary", header("The request's headers that the answer depends on."));
    operation("list", "The records, all or a page of them")
        .description(Some(
            "In `_id` order, or in that of `sort`. A page ends early where it would be larger than 8 MiB: follow the `Link` \
             for more.",
        ))
        .parameter(query("limit", limit, &format!("How many records to send at most, up to {largest}. {without}")))
        .parameter(query("after", text(), "Where to begin: the cursor in the `Link` of the page before."))
        .parameter(query("after_id", text(), "Where to begin: behind the record with this id. Not with `after` or `sort`."))
        .parameter(query("sort", text().min_length(Some(1)), "The path of a field, a minus before it for descending. Needs a limit."))
        .parameter(query("fields", text().min_length(Some(1)), "Which fields to send, by their paths, with commas between them. `_id` always comes."))
        .parameter(
            query(
                "filters",
                filters,
                &format!(
                    "Filters, each a parameter of its own: the path of a field, a dot and an operator (`{operators}`), as in \
                     `name.de.eq=Gold`."
                ),
            )
            .style(Some(ParameterStyle::Form))
            .explode(Some(true))
            .example(Some(json!({}))),
        )
        .parameter(if_match())
        .parameter(if_none_match())
        .response("200", found)
        .response("304", not_modified())
        .response("400", problem("A parameter is unknown or means nothing", false))
        .response("406", problem("No form that is asked for", false))
        .response("412", problem("What is here has none of the tags that are asked for", false))
        .response("500", problem("A defect", false))
        .response("503", problem("The store is away or too slow, or the server has too many requests", true))
}

fn one() -> OperationBuilder {
    let id = ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The record's `_id` as its JSON shows it, percent-encoded."))
        .schema(Some(text().min_length(Some(1))));
    let found = ResponseBuilder::new()
        .description("The record")
        .content(Form::Json.media_type(), Content::new(Some(Ref::from_schema_name("Record"))))
        .header("etag", header("A hash of the bytes; weak where they are compressed."))
        .header("vary", header("The request's headers that the answer depends on."));
    operation("one", "One record")
        .parameter(id)
        .parameter(query(
            "fields",
            text().min_length(Some(1)),
            "Which fields to send, by their paths, with commas between them.",
        ))
        .parameter(if_match())
        .parameter(if_none_match())
        .response("200", found)
        .response("204", Response::new("There is no record with this id"))
        .response("304", not_modified())
        .response("400", problem("The id cannot be decoded, or a parameter is unknown", false))
        .response("406", problem("No form that is asked for", false))
        .response("412", problem("What is here has none of the tags that are asked for", false))
        .response("500", problem("A defect", false))
        .response("503", problem("The store is away or too slow, or the server has too many requests", true))
}

fn plain(id: &str, summary: &str, content_type: &str) -> OperationBuilder {
    let schema = match content_type {
        "application/json" => ObjectBuilder::new(),
        _ => text(),
    };
    let answer = ResponseBuilder::new().description(summary).content(content_type, Content::new(Some(schema)));
    operation(id, summary).response("200", answer)
}

fn operation(id: &str, summary: &str) -> OperationBuilder {
    OperationBuilder::new().operation_id(Some(id)).summary(Some(summary))
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn integer() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
}

fn query(name: &str, schema: ObjectBuilder, description: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
}

fn if_match() -> ParameterBuilder {
    query("If-Match", text(), "The tags of which the answer must have one.").parameter_in(ParameterIn::Header)
}

fn if_none_match() -> ParameterBuilder {
    query("If-None-Match", text(), "The tags of what the client has.").parameter_in(ParameterIn::Header)
}

fn header(description: &str) -> Header {
    HeaderBuilder::new().schema(Some(text())).description(Some(description)).build()
}

fn not_modified() -> ResponseBuilder {
    ResponseBuilder::new().description("The client has it").header("etag", header("What it has."))
}

fn problem(description: &str, come_back: bool) -> ResponseBuilder {
    let answer = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", Content::new(Some(Ref::from_schema_name("Problem"))));
    match come_back {
        true => answer.header("retry-after", header("When to try again, in seconds.")),
        false => answer,
    }
}

fn problem_schema() -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some("RFC 9457: what is wrong, and what would be right."))
        .property("type", text())
        .property("title", text())
        .property("status", integer())
        .property("detail", text())
        .property("parameter", text().description(Some("Which part of the request is wrong.")))
        .property("request_id", text().description(Some("By which the operator finds the cause.")))
        .required("type")
        .required("title")
        .required("status")
        .required("detail")
        .required("request_id")
}
