//! The transcoder, which is private to its backend, as the fuzz targets see it: the very file, and no way in for anybody
//! else.

#[allow(dead_code)]
#[path = "../../src/store/mongodb/bson.rs"]
pub mod bson;
#[path = "../../tests/support/obvious.rs"]
pub mod obvious;

// What the transcoder finds at the root of its own crate.
use records::{document, record, wire};
