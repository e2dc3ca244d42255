//! Code that the fuzz targets share.

#[path = "../../tests/support/obvious.rs"]
pub mod obvious;
