//! What only this backend has: BSON, byte for byte against the driver's own reader, and the plans of the server.

#[path = "../../../tests/support/documents.rs"]
mod documents;
#[path = "../../../tests/support/obvious.rs"]
mod obvious;
#[path = "../../../tests/support/servers.rs"]
mod servers;

mod bytes;
mod plans;
