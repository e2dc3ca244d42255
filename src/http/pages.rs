//! Pages for browsers: one to browse the records, the OpenAPI description, and one for that. A build may leave them out.

#[cfg(feature = "pages")]
mod files;
#[cfg(feature = "pages")]
mod openapi;

use super::middleware::Routes;

/// This build has pages.
pub const COMPILED: bool = cfg!(feature = "pages");

/// Adds the pages of this build.
#[cfg(feature = "pages")]
pub fn add(routes: Routes) -> Routes {
    routes
        .add("/", &["/"], files::index)
        .add("/pages/browse.js", &["/pages/browse.js"], files::script)
        .add("/pages/browse.css", &["/pages/browse.css"], files::style)
        .add("/openapi.json", &["/openapi.json"], openapi::openapi)
        .add("/docs", &["/docs"], files::redirect_to_docs)
        .add("/docs/{file}", &["/docs/", "/docs/{file}"], files::docs)
}

#[cfg(not(feature = "pages"))]
pub fn add(routes: Routes) -> Routes {
    routes
}
