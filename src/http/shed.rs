//! Overload: what would only wait is refused at once, so that what is let in stays fast.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::App;
use super::metrics::Route;
use super::problem::Problem;

/// Lets so many requests for records in as there are places, each until its answer begins. Health and metrics need none:
/// they are what an operator looks at then.
pub async fn shed(State(app): State<App>, request: Request, next: Next) -> Result<Response, Problem> {
    let _place = match Route::of(request.uri().path()) {
        Route::record | Route::records => Some(app.places.try_acquire().map_err(|_| Problem::overloaded())?),
        Route::operation | Route::none => None,
    };
    Ok(next.run(request).await)
}
