//! The part of the driver that the transcoder names.
pub use bson;
