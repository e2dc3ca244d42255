//! Tests of this backend alone: BSON compared byte for byte with the driver's own reader, query plans, unusual collections, and
//! the connection pool.

#[path = "../../../tests/support/documents.rs"]
mod documents;
#[path = "../../../tests/support/obvious.rs"]
mod obvious;
#[path = "../../../tests/support/servers.rs"]
mod servers;

mod bytes;
mod connections;
mod counts;
mod failures;
mod lists;
mod lookups;
mod names;
mod plans;
