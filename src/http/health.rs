//! `/livez` and `/readyz`: two questions, two answers.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use serde_json::json;

use super::App;
use super::problem::Problem;

/// Says that the process is alive. No I/O: a restart does not mend a database.
pub async fn live() -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], Json(json!({ "status": "alive" })))
}

/// Says whether a lookup would be answered now and the server is not about to stop. The body names what is degraded.
pub async fn ready(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    if app.draining.has_begun() {
        return Err(Problem::draining());
    }
    let begun = Instant::now();
    let health = app.store.health().await;
    app.metrics.set_health_check_duration(begun.elapsed());
    let degraded = health?.degraded;
    let degraded = degraded.or_else(|| app.settings.reloaded.iter().find_map(|value| value.degraded()));
    let body = match degraded {
        None => json!({ "status": "ready" }),
        Some(detail) => json!({ "status": "degraded", "detail": detail }),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(body)))
}
