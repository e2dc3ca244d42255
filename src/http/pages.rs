//! Pages for browsers: one to browse the records, the OpenAPI description, and one for that. A build may leave them out.

#[cfg(feature = "pages")]
mod files;
#[cfg(feature = "pages")]
mod openapi;

use super::middleware::Routes;

/// Adds the pages of this build.
#[cfg(feature = "pages")]
pub fn add(routes: Routes) -> Routes {
    use axum::routing::get;

    routes
        .add("/", &["/"], get(files::index))
        .add("/pages/browse.js", &["/pages/browse.js"], get(files::script))
        .add("/pages/browse.css", &["/pages/browse.css"], get(files::style))
        .add("/openapi.json", &["/openapi.json"], get(openapi::openapi))
        .add("/docs", &["/docs"], get(files::redirect_to_docs))
        .add("/docs/{file}", &["/docs/", "/docs/{file}"], get(files::docs))
}

#[cfg(not(feature = "pages"))]
pub fn add(routes: Routes) -> Routes {
    routes
}
