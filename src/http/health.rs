//! `/livez` and `/readyz`: two questions, two answers.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::App;
use super::problem::Problem;
use crate::store::AuditReport;

/// Says that the process is alive. No I/O: a restart does not mend a database.
pub async fn live() -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], Json(json!({ "status": "alive" })))
}

/// The last audit of the replica, and the last one that found differences, with the ids of the records that differ.
pub async fn audits(State(app): State<App>) -> impl IntoResponse {
    let [last, different] = app.store.audits().map(|report| {
        let AuditReport { finished, records, differences, ids } = report?;
        let ids: Vec<_> = ids.iter().map(|id| serde_json::from_str(id).unwrap_or(Value::from(id.as_str()))).collect();
        Some(json!({ "age": finished.elapsed().as_secs(), "records": records, "differences": differences, "ids": ids }))
    });
    ([(CACHE_CONTROL, "no-store")], Json(json!({ "last": last, "different": different })))
}

/// Says whether a lookup would be answered now and the server is not about to stop. The body names what is degraded.
pub async fn ready(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    if app.draining.has_begun() {
        return Err(Problem::draining());
    }
    let begun = Instant::now();
    let health = app.store.health().await;
    let has_answered = health.as_ref().is_ok_and(|health| !health.is_from_replica);
    app.metrics.set_health_check_duration(has_answered.then(|| begun.elapsed()));
    let degraded = health?.degraded;
    let degraded = degraded.or_else(|| app.settings.reloaded.iter().find_map(|value| value.degraded()));
    let body = match degraded {
        None => json!({ "status": "ready" }),
        Some(detail) => json!({ "status": "degraded", "detail": detail }),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(body)))
}
