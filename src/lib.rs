//! Serves JSON records over HTTP, out of MongoDB or out of a store in this process.
//!
//! # The rooms
//!
//! Imports lead leftwards only: domain ← store ← http ← server and main.
//!
//! | room | what it is |
//! |---|---|
//! | [`record`] | the domain: BSON documents, and the keys that order them as MongoDB does |
//! | [`document`] | Extended JSON into BSON |
//! | [`wire`] | BSON into the JSON that clients get |
//! | [`query`] | filters, order, projection and cursors, all on BSON |
//! | [`store`] | where records live: the trait with its contract, and one file per backend |
//! | [`import`] | files into a store, whole or not at all |
//! | [`http`] | the router, the handlers, the one table from errors to status codes |
//! | [`server`] | the listener, the limits of a connection, the graceful stop |
//! | [`config`] | the only reader of flags and environment |
//! | [`telemetry`] | where logs and traces go; knows no other room, and may be named by all to the right of the store |
//! | [`healthcheck`] | asks a running server how it is, for images without a shell |
//!
//! # The life of a request
//!
//! [`server`] accepts a connection and parses the head within its limits. [`http`] gives the request an id, routes it,
//! reads the record's id out of the path and asks the [`store`], under the request's deadline. The store finds a
//! [`record::Document`], the BSON bytes that MongoDB or an import gave it; [`http`] applies the projection, has [`wire`]
//! encode the JSON and sends that. A failure comes back as a [`store::Error`] of one of three kinds; [`http`] turns the kind
//! into a status and a short text for the client, and logs the cause once, in the one line that every request has.

#![forbid(unsafe_code)]

// Unit tests include the generators of tests/support, which know this crate by its name.
#[cfg(test)]
extern crate self as records;

pub mod config;
pub mod document;
pub mod healthcheck;
pub mod http;
pub mod import;
pub mod query;
pub mod record;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod wire;
