//! The HTTP contract, over real connections: what stands on the wire for every request, with the memory store behind it
//! and with a store that fails on purpose.

mod errors;
mod limits;
mod metrics;
mod records;
mod shutdown;
mod support;
