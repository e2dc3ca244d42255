//! What only this backend has: BSON, byte for byte against the driver's own reader, the plans of the server, and
//! the pool of connections.

#[path = "../../../tests/support/documents.rs"]
mod documents;
#[path = "../../../tests/support/obvious.rs"]
mod obvious;
#[path = "../../../tests/support/servers.rs"]
mod servers;

mod bytes;
mod connections;
mod failures;
mod lists;
mod lookups;
mod names;
mod plans;
