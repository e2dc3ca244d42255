//! The HTTP contract, over real connections: what stands on the wire for every request, with the memory store behind it
//! and with a store that fails on purpose.

mod admin;
mod authorization;
mod browse;
mod caching;
mod cors;
mod counts;
mod errors;
mod formats;
mod http2;
mod limits;
mod metrics;
mod pages;
mod prefix;
mod queries;
mod rate_limits;
mod records;
mod shutdown;
mod support;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
#[path = "../support/tls.rs"]
mod tls_support;
mod tracing;
