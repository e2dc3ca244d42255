//! Serves JSON records over HTTP, out of MongoDB or out of a store in this process.
//!
//! # Modules
//!
//! Imports point one way: domain ← store ← http ← server ← command line. `docs/explanation/architecture.md` describes each module
//! and the life of a request.
//!
//! | module | responsibility |
//! |---|---|
//! | [`record`] | the domain: BSON documents, and the keys that order them as MongoDB does |
//! | [`document`] | Extended JSON to BSON |
//! | [`wire`] | BSON to the JSON that clients get |
//! | [`query`] | filters, order, projection and cursors, all on BSON |
//! | [`store`] | the [`store::Store`] trait with its contract, and a module for each backend |
//! | [`import`] | files into a store, completely or not at all |
//! | [`client`] | who counts as one client: addresses, networks, trusted proxies |
//! | [`http`] | router, middleware, handlers, and the table from errors to status codes |
//! | [`server`] | listener, limits of a connection, graceful shutdown |
//! | [`config`] | the only reader of flags and environment |
//! | [`telemetry`] | set-up of logs and traces |
//! | [`auth`], [`jwt`] | who may read: API keys, their scopes, and tokens of an issuer |
//! | [`tls`] | TLS of the listener, as far as it is compiled in |
//! | [`reload`] | values that are read again when their files change |
//! | [`healthcheck`] | a client for `/readyz`, for images without a shell |
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | record, document | a BSON document with its `_id`; *record* as clients see it, *document* inside |
//! | key | the order-preserving bytes of an `_id`; a [`record::RecordId`] is the text of one in a URL |
//! | wire | the JSON of responses |
//! | store, backend | where records are kept; a backend is an implementation that is compiled in |
//! | embedded, remote | a store in this process; a store in another process, which can be unreachable |
//! | lookup, list, page | the read of one record by its id; of several in order; a list with a limit |
//! | stream | a list without a limit, sent while it is read |
//! | cursor | a position in an order, which a page continues after (keyset pagination) |
//! | pushdown, residual filter | the part of a query that MongoDB executes; the part that is left for the executor |
//! | batch | lookups that share one command; also the documents of one reply of a list |
//! | fallback | the store made of a primary and a replica of it |
//! | primary, replica | the store whose data it is; the embedded copy of it that answers in its place |
//! | snapshot | one complete scan of the primary, from which a replica begins |
//! | change stream, resume token | the changes after a snapshot, in order; the position in them |
//! | staleness, age | the time since a replica was last known to be current |
//! | circuit breaker | decides if requests go to the primary: closed (yes), open (no), half open (on trial) |
//! | permit, reservation | the right to answer a request; memory set aside for a response |
//! | drain | the time after a signal in which requests in progress are completed |

#![forbid(unsafe_code)]

// Unit tests include the generators of tests/support, which know this crate by its name.
#[cfg(test)]
extern crate self as records;

pub mod auth;
pub mod client;
pub mod config;
pub mod document;
pub mod healthcheck;
pub mod http;
pub mod import;
pub mod jwt;
pub mod query;
pub mod record;
pub mod reload;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod wire;
