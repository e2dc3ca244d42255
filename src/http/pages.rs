//! Pages for browsers: one to browse the records, the OpenAPI description, and one for that. A build may leave them out.

#[cfg(feature = "pages")]
mod files;
#[cfg(feature = "pages")]
mod openapi;

use super::middleware::Routes;

/// This build has pages.
pub const COMPILED: bool = cfg!(feature = "pages");

/// Adds the pages of this build. They are open to everyone: a browser sends no key when it opens a page, whose script then asks
/// for one.
#[cfg(feature = "pages")]
pub fn add(routes: Routes) -> Routes {
    routes
        .add("/", &["/"], None, files::index)
        .add("/pages/browse.js", &["/pages/browse.js"], None, files::script)
        .add("/pages/browse.css", &["/pages/browse.css"], None, files::style)
        .add("/openapi.json", &["/openapi.json"], None, openapi::openapi)
        .add("/docs", &["/docs"], None, files::redirect_to_docs)
        .add("/docs/{file}", &["/docs/", "/docs/{file}"], None, files::docs)
}

#[cfg(not(feature = "pages"))]
pub fn add(routes: Routes) -> Routes {
    routes
}
