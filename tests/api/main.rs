//! The HTTP contract over real connections: the bytes of each response, with the memory store and with a store that fails on
//! purpose.

mod admin;
mod authorization;
mod browse;
mod caching;
mod cors;
mod counts;
mod errors;
mod exposure;
mod formats;
mod http2;
#[cfg(all(feature = "jwt", feature = "tls"))]
#[path = "../support/jwt.rs"]
mod jwt_support;
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
#[cfg(all(feature = "jwt", feature = "tls"))]
mod tokens;
mod tracing;
