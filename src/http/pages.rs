//! What people open in a browser: a page to browse the records, the OpenAPI description, a page for that. A build may do
//! without them.

#[cfg(feature = "pages")]
mod files;
#[cfg(feature = "pages")]
mod openapi;

use axum::Router;

use super::App;

/// The router with the pages that this build has.
#[cfg(feature = "pages")]
pub fn add(router: Router<App>) -> Router<App> {
    use super::reads;
    use axum::routing::get;

    router
        .route("/", reads(get(files::index)))
        .route("/pages/{name}", reads(get(files::own)))
        .route("/openapi.json", reads(get(openapi::openapi)))
        .route("/docs", reads(get(files::to_docs)))
        .route("/docs/", reads(get(files::docs)))
        .route("/docs/{name}", reads(get(files::docs)))
}

#[cfg(not(feature = "pages"))]
pub fn add(router: Router<App>) -> Router<App> {
    router
}
