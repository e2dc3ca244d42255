//! Settings of the HTTP service.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::uri::{Scheme, Uri};
use axum::http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::auth::KeyFile;
use crate::client::TrustedProxies;
use crate::jwt::Tokens;
use crate::query::Exposure;
use crate::reload::Reload;
use crate::telemetry::{Connections, ErrorCounter};

/// The largest limit of a page when the operator sets no maximum: a page is gathered in memory before it is sent. Longer lists
/// are streamed.
pub const PAGE_MAX: usize = 10_000;

/// The request headers that pages of other origins may send by default: those that the API or a gateway reads, and those of
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/) and [Baggage](https://www.w3.org/TR/baggage/).
pub const CORS_HEADERS: &[&str] = &[
    "accept",
    "authorization",
    "baggage",
    "cache-control",
    "content-type",
    "if-match",
    "if-none-match",
    "prefer",
    "records-not-before",
    "traceparent",
    "tracestate",
    "x-request-id",
];

/// The requests that have a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AccessLog {
    /// Every request.
    All,
    /// Requests with a status of 500 or more, and those that took longer than a second.
    #[default]
    Errors,
    Off,
}

/// The requests of one client in a window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub requests: NonZeroU32,
    pub window: Duration,
    /// The requests that may come at once. `None`: those of a whole window.
    pub burst: Option<NonZeroU32>,
}

impl FromStr for RateLimit {
    type Err = &'static str;

    /// Parses a number of requests and a unit of time, as in `100/s`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('/').and_then(|(requests, unit)| {
            let seconds = match unit {
                "s" => 1,
                "min" => 60,
                "h" => 60 * 60,
                _ => return None,
            };
            let requests = requests.parse().ok().filter(|requests: &NonZeroU32| requests.get() <= RATE_MAX)?;
            Some(Self { requests, window: Duration::from_secs(seconds), burst: None })
        });
        parsed.ok_or("it must be a number of requests, from 1 to 1000000, and s, min or h, as in 100/s")
    }
}

/// The most requests in a window, and in a burst.
pub const RATE_MAX: u32 = 1_000_000;

#[derive(Clone, Debug)]
pub struct Settings {
    /// A response begins within this time, or is a 503.
    pub deadline: Duration,
    /// The limit of a list without a `limit`. `None`: all records.
    pub default_limit: Option<usize>,
    /// The largest limit of any list. `None`: [`PAGE_MAX`] for a list with a `limit`, no maximum for one without.
    pub max_limit: Option<usize>,
    /// The `Cache-Control` of responses with records.
    pub cache_control: Option<HeaderValue>,
    /// A `Cache-Control` of a request bounds the staleness of the response.
    pub request_directives: bool,
    /// The origins whose pages may read the responses; `*` is all of them.
    pub cors_origins: Vec<HeaderValue>,
    /// The request headers that those pages may send. `None`: any.
    pub cors_headers: Option<Vec<HeaderName>>,
    /// The URL that clients know this service by, without a slash at the end, for links that must be absolute.
    pub public_url: Option<String>,
    /// The JSON Schema of a record, for the served description. Its references lead to the place that it has there.
    pub record_schema: Option<Value>,
    /// Requests for records that are answered at once.
    pub max_requests: usize,
    /// Lists that are streamed at once.
    pub max_streams: usize,
    /// The memory that all responses together may hold until they are sent, in bytes. Small ones do not count.
    pub response_memory_limit: usize,
    /// The keys that a request needs one of. Without keys and tokens, the records are open to every client.
    pub api_keys: Option<Arc<KeyFile>>,
    /// The tokens that a request may have in place of a key.
    pub tokens: Option<Arc<Tokens>>,
    /// Values whose files may change, for `/readyz`.
    pub reloaded: Vec<Arc<dyn Reload>>,
    /// The part of the records that is shown: parameters cannot name anything else.
    pub exposure: Arc<Exposure>,
    /// The requests that each client may send: each API key, or else each address. `None`: any number.
    pub rate_limit: Option<RateLimit>,
    /// The proxies whose `Forwarded` and `X-Forwarded-For` name the addresses of clients.
    pub trusted_proxies: TrustedProxies,
    /// Adds `Server-Timing` to responses. It shows every client how busy the store is, and if a record was cached.
    pub server_timing: bool,
    /// The requests that have a line in the log.
    pub access_log: AccessLog,
    /// The settings of the process as text, without secrets, for the page of its status.
    pub description: String,
    /// The memory that the process may use, in bytes, for the metrics.
    pub process_memory_limit: Option<u64>,
    /// The lines that the log has dropped, for the metrics.
    pub dropped_lines: Option<ErrorCounter>,
    /// Connections of the server, for the metrics.
    pub connections: Option<Connections>,
}

/// Far more than a store answers at once, and requests that wait for it still take little memory.
const MAX_REQUESTS: usize = 1_024;

/// Half of the memory for responses, if none is compressed: the other half is left for pages and large records.
const MAX_STREAMS: usize = 48;

/// Eight of the largest pages, or two hundred of a thousand records of 250 bytes.
const RESPONSE_MEMORY_LIMIT: usize = 64 * 1024 * 1024;

impl Settings {
    /// Returns true if requests need an API key or a token.
    pub const fn needs_credentials(&self) -> bool {
        self.api_keys.is_some() || self.tokens.is_some()
    }

    /// Sets the `Cache-Control`; an empty text omits the header.
    ///
    /// # Errors
    ///
    /// When it is no value of a header.
    pub fn cache_control(mut self, text: &str) -> Result<Self, String> {
        let value = HeaderValue::from_str(text).map_err(|_| format!("{text:?} cannot stand in a Cache-Control"))?;
        self.cache_control = Some(value).filter(|value| !value.is_empty());
        Ok(self)
    }

    /// Adds origins, as browsers write them.
    ///
    /// # Errors
    ///
    /// When one is no origin.
    pub fn cors_origins<'a>(mut self, origins: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        for origin in origins {
            let origin = origin.trim();
            // A browser sends it in lower case, and it is compared byte for byte.
            let strange = |c: char| c.is_whitespace() || c.is_uppercase() || "/?#@*,".contains(c);
            let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
                [scheme, host].iter().all(|part| !part.is_empty() && !part.contains(strange))
            });
            let default_port = match origin.split_once("://") {
                Some(("https", _)) => ":443",
                Some(("http", _)) => ":80",
                _ => "/",
            };
            if let Some(right) = origin.strip_suffix(default_port).filter(|_| is_origin) {
                return Err(format!("a browser leaves out the port of {origin:?}: write it as in {right}"));
            }
            if !is_origin && origin != "*" && origin != "null" {
                return Err(format!("{origin:?} is not an origin: write it as in https://example.com, or * for all"));
            }
            let value = HeaderValue::from_str(origin).map_err(|_| format!("{origin:?} is not an origin"))?;
            self.cors_origins.push(value);
        }
        Ok(self)
    }

    /// Sets the request headers that pages of other origins may send, in place of [`CORS_HEADERS`]; `*` is any.
    ///
    /// # Errors
    ///
    /// When one is no name of a header.
    pub fn cors_headers<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let names: Vec<_> = names.into_iter().map(str::trim).collect();
        let parse = |name: &&str| {
            name.parse()
                .map_err(|_| format!("{name:?} is not the name of a header: write it as in X-Tenant, or * for any"))
        };
        self.cors_headers = match names.contains(&"*") {
            true => None,
            false => Some(names.iter().map(parse).collect::<Result<_, String>>()?),
        };
        Ok(self)
    }

    /// Sets the URL that clients know this service by.
    ///
    /// # Errors
    ///
    /// When it is not an absolute `http` or `https` URL, or has a user, a query or a fragment.
    pub fn public_url(mut self, text: &str) -> Result<Self, String> {
        let parsed: Option<Uri> = text.parse().ok();
        let is_url = parsed.is_some_and(|uri| {
            let is_http = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
            is_http && uri.host().is_some_and(|host| !host.is_empty()) && !text.contains(['@', '?', '#', '<', '>', '"'])
        });
        if !is_url {
            // The text stays out of the message: it may hold a password.
            return Err(
                "it must be the URL that clients use, as in https://example.com/shop, without user or query".into()
            );
        }
        self.public_url = Some(text.trim_end_matches('/').to_owned());
        Ok(self)
    }

    /// Sets the JSON Schema of a record.
    ///
    /// # Errors
    ///
    /// When the text is not JSON, or not a schema of objects, or refers to another file.
    pub fn record_schema(mut self, json: &[u8]) -> Result<Self, String> {
        let mut schema: Value = serde_json::from_slice(json).map_err(|error| format!("it is not JSON: {error}"))?;
        let Some(object) = schema.as_object_mut() else {
            return Err(
                "it is not a JSON Schema: that is an object, as in {\"type\": \"object\", \"properties\": {…}}".into(),
            );
        };
        let is_object = match object.get("type") {
            None => true,
            Some(Value::Array(types)) => types.iter().any(|kind| kind == "object"),
            Some(kind) => kind == "object",
        };
        if !is_object {
            return Err("it does not describe a record: its `type` must be \"object\"".into());
        }
        // Its own base would hide the place where it stands in the description.
        object.remove("$id");
        let file = schema.clone();
        rebase_references(&mut schema, &file)?;
        self.record_schema = Some(schema);
        Ok(self)
    }

    /// The limit of a list without one.
    pub fn implied_limit(&self) -> Option<usize> {
        self.default_limit.or(self.max_limit)
    }

    /// The largest limit that may be asked for.
    pub fn largest_limit(&self) -> usize {
        self.max_limit.unwrap_or(PAGE_MAX)
    }
}

/// Rewrites the references within `schema`, which is a part of `file`, for the place of the file in the description.
fn rebase_references(schema: &mut Value, file: &Value) -> Result<(), String> {
    match schema {
        Value::Array(items) => items.iter_mut().try_for_each(|item| rebase_references(item, file)),
        Value::Object(object) => object.iter_mut().try_for_each(|(name, value)| match value {
            Value::String(reference) if name == "$ref" => {
                let Some(pointer) = reference.strip_prefix('#') else {
                    return Err(format!(
                        "its `$ref` {reference:?} leads out of the file: copy what it names into `$defs`"
                    ));
                };
                if file.pointer(&percent_decode_str(pointer).decode_utf8_lossy()).is_none() {
                    return Err(format!("its `$ref` {reference:?} leads nowhere: write it as in \"#/$defs/name\""));
                }
                *reference = format!("#/components/schemas/Record{pointer}");
                Ok(())
            }
            _ => rebase_references(value, file),
        }),
        _ => Ok(()),
    }
}

impl From<Duration> for Settings {
    fn from(deadline: Duration) -> Self {
        Self {
            deadline,
            default_limit: None,
            max_limit: None,
            cache_control: Some(HeaderValue::from_static("no-cache")),
            request_directives: true,
            cors_origins: Vec::new(),
            cors_headers: Some(CORS_HEADERS.iter().map(|name| HeaderName::from_static(name)).collect()),
            public_url: None,
            record_schema: None,
            max_requests: MAX_REQUESTS,
            max_streams: MAX_STREAMS,
            response_memory_limit: RESPONSE_MEMORY_LIMIT,
            api_keys: None,
            tokens: None,
            reloaded: Vec::new(),
            exposure: Arc::default(),
            rate_limit: None,
            trusted_proxies: TrustedProxies::default(),
            server_timing: false,
            access_log: AccessLog::default(),
            description: String::new(),
            process_memory_limit: None,
            dropped_lines: None,
            connections: None,
        }
    }
}
