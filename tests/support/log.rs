//! The log of this process, and the values of requests, which no line may have.

#![allow(dead_code)]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use memchr::memmem;
use percent_encoding::percent_decode_str;
use records::telemetry::parse_filter;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

fn lines() -> MutexGuard<'static, Vec<Line>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the fields of every event and span, at every level that an operator can ask for.
struct Capture;

impl<S: Subscriber> Layer<S> for Capture {
    fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut line = Line::default();
        span.record(&mut line);
        lines().push(line);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        lines().push(line);
    }
}

#[derive(Clone, Debug, Default)]
struct Line {
    request_id: String,
    text: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "request_id" => self.request_id = format!("{value:?}").trim_matches('"').to_owned(),
            // A client chooses the first one for the log. The others are numbers of the response.
            "trace_id" | "status" | "duration_ms" => {}
            name => self.text += &format!("{name}={value:?} "),
        }
    }
}

/// The requests of a client, and the part of the log since its first one.
pub struct Requests {
    sent: String,
    ids: Vec<String>,
    since: usize,
}

impl Requests {
    pub fn new() -> Self {
        static CAPTURE: Once = Once::new();
        CAPTURE.call_once(|| {
            let filter = parse_filter("debug,records=trace").expect("a filter");
            let subscriber = tracing_subscriber::registry().with(Capture.with_filter(filter));
            tracing::subscriber::set_global_default(subscriber).expect("no other log");
        });
        Self { sent: String::new(), ids: Vec::new(), since: lines().len() }
    }

    /// Adds bytes that the client has sent.
    pub fn push(&mut self, text: &str) {
        self.sent += text;
    }

    /// Adds the ids of the requests, which the client has received.
    pub fn receive(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let ids = text.lines().filter_map(|line| line.strip_prefix("x-request-id: "));
        self.ids.extend(ids.map(str::to_owned));
    }
}

/// Checks the log once the client has its answers.
impl Drop for Requests {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let lines = lines()[self.since..].to_vec();
            // Requests of other tests also have lines, whose words may be the same as a short value.
            let own: Vec<&Line> = lines.iter().filter(|line| self.ids.contains(&line.request_id)).collect();
            let text: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
            let text = text.join("\n");
            let has = |value: &str| match is_distinctive(value) {
                true => has_word(&text, value),
                false => own.iter().any(|line| has_word(&line.text, value)),
            };
            assert_none(&self.sent, has, &lines);
        }
    }
}

/// Panics if a value of one of the requests is a word of the log of another process.
pub fn assert_logs_no_value(log: &str, requests: &str) {
    assert_none(requests, |value| is_distinctive(value) && has_word(log, value), &log);
}

/// Returns false for a short value and for a number such as a generated one, which a line or a frame may have by chance.
fn is_distinctive(value: &str) -> bool {
    value.len() > if value.parse::<f64>().is_ok() { 10 } else { 3 }
}

fn assert_none(requests: &str, has: impl Fn(&str) -> bool, log: &dyn Debug) {
    let requests: BTreeSet<_> = requests.split("\r\n\r\n").collect();
    let values = requests.iter().flat_map(|request| values(request).into_iter().map(move |value| (value, request)));
    let found: Vec<_> = values.filter(|(value, _)| has(value)).collect();
    assert!(found.is_empty(), "the log has values of requests: {found:#?} in {log:#?}");
}

fn has_word(text: &str, word: &str) -> bool {
    // In a debug build far faster than `str::match_indices`.
    memmem::find_iter(text.as_bytes(), word).any(|at| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric)
    })
}

/// Words that are no values: the names in routes, and of parameters.
const NAMES: [&str; 22] = [
    "api",
    "v1",
    "records",
    "livez",
    "readyz",
    "metrics",
    "status",
    "settings",
    "replica",
    "audits",
    "pages",
    "docs",
    "openapi.json",
    "browse.js",
    "browse.css",
    "none",
    "limit",
    "sort",
    "fields",
    "after",
    "after_id",
    "or",
];

/// Returns everything in the head of a request that the client chose: ids, parameters, operands and headers, as they were sent
/// and decoded.
fn values(head: &str) -> Vec<String> {
    let mut lines = head.lines();
    let target = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // The absolute form begins with a scheme and a host.
    let path = path.split_once("://").map_or(path, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let parameters = query.split('&').flat_map(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        [name, value].into_iter().chain(value.split(['(', ')', ',', '=']))
    });
    let headers = lines.filter_map(|line| line.split_once(':')).flat_map(|(name, value)| {
        let name = name.to_lowercase();
        let is_chosen = !["host", "connection", "content-length", "x-request-id", "traceparent"].contains(&&*name)
            && !name.starts_with("access-control-request-");
        let value = if is_chosen { value.trim() } else { "" };
        [value].into_iter().chain(value.split_once(' ').map(|(_, credentials)| credentials))
    });
    let sent = path.split('/').chain(parameters).chain(headers);
    let both = sent.flat_map(|value| [value.to_owned(), percent_decode_str(value).decode_utf8_lossy().into_owned()]);
    both.filter(|value| value.chars().any(char::is_alphanumeric) && !NAMES.contains(&&**value)).collect()
}
