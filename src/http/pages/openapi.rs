//! `/openapi.json`: the description of the API ([OpenAPI 3.1](https://spec.openapis.org/oas/v3.1.0)), from the file of that
//! name, with the settings of this server.

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::http::App;
use crate::http::authorize::Credentials;
use crate::http::path::{LIST, LIVEZ, METRICS, READYZ, RECORD};
use crate::http::settings::Settings;

pub async fn openapi(State(app): State<App>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-cache")], Json(describe(&app.settings, app.separate_admin)))
}

fn describe(settings: &Settings, separate_admin: bool) -> Value {
    // The tests read it too, so it is JSON.
    let mut openapi: Value = serde_json::from_str(include_str!("openapi.json")).unwrap_or_default();
    openapi["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    // Relative to this description: a proxy may serve the API under a prefix.
    openapi["servers"] = json!([{ "url": settings.public_url.as_deref().unwrap_or(".") }]);
    let largest = settings.largest_limit();
    let without = match settings.implied_limit() {
        Some(implied) => format!("The default is {implied}."),
        None => "Without it, all records are streamed.".to_owned(),
    };
    let limit = &mut openapi["paths"][LIST]["get"]["parameters"][0];
    limit["schema"]["maximum"] = largest.into();
    limit["description"] = format!("The number of records to send at most, up to {largest}. {without}").into();
    if let Some(schema) = &settings.record_schema {
        openapi["components"]["schemas"]["Record"] = schema.clone();
    }
    if Credentials::new(settings).is_some() {
        openapi["components"]["securitySchemes"]["bearer"] = json!({ "type": "http", "scheme": "bearer" });
        for path in [LIST, RECORD, METRICS] {
            openapi["paths"][path]["get"]["security"] = json!([{ "bearer": [] }]);
        }
    }
    if let (true, Some(paths)) = (separate_admin, openapi["paths"].as_object_mut()) {
        paths.retain(|path, _| ![LIVEZ, READYZ, METRICS].contains(&path.as_str()));
    }
    openapi
}
