//! The program as a process: its output, its files and its exit status.

mod admin;
mod config;
mod config_file;
mod environment;
mod help;
mod import;
#[cfg(feature = "jwt")]
#[path = "../support/jwt.rs"]
#[allow(dead_code)]
mod jwt_support;
mod keys;
mod logs;
mod otlp;
mod output;
mod seed;
mod serve;
mod support;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
#[path = "../support/tls.rs"]
#[allow(dead_code)]
mod tls_support;
#[cfg(feature = "jwt")]
mod tokens;
