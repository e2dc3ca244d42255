//! The line that the log has of every request, and nothing that tells a record from another: no id, no filter, no value of a
//! query, no header but the request's id.

use std::time::Instant;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};

use super::metrics::InFlight;
use super::path::{LIVEZ, METRICS, NONE, READYZ};
use super::problem::Problem;
use super::request_id::RequestId;
use crate::telemetry::spans::{Span, Spent, Tracer};
use crate::telemetry::traceparent::TraceParent;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What is counted and logged in the place of a status where the connection ended before there was one, as others do: nobody
/// was sent it.
const NO_ANSWER: u16 = 499;

/// A request under way. It gets its line when it is answered, or when its connection ends before that: the client has gone, or
/// the drain is over.
pub struct UnderWay {
    begun: Instant,
    method: &'static str,
    route: &'static str,
    id: RequestId,
    /// For whoever collects them.
    span: Option<Span>,
    /// Our own span, in a trace that there is already, or that we begin because traces are collected. Otherwise none is made
    /// up: nobody could find what belongs to an id that only we know, and the request's own id is for that.
    trace: Option<TraceParent>,
    /// Taken when it is answered.
    in_flight: Option<InFlight>,
}

/// One event; the level is the macro's.
macro_rules! line {
    ($level:ident, $request:expr, $took:expr, $message:literal $(, $name:ident = $value:expr)*) => {
        tracing::$level!(
            // A name of its own, so that a filter can do without these lines, or with the failures among them.
            target: "records::http::request",
            request_id = $request.id.as_str(),
            method = $request.method,
            route = $request.route,
            $($name = $value,)*
            // To the microsecond: more digits are noise.
            duration_ms = $took.as_micros() as f64 / 1000.0,
            trace_id = $request.trace.map(|own| tracing::field::display(own.trace)),
            $message
        )
    };
}

impl UnderWay {
    pub fn new(head: &Parts, id: RequestId, route: &'static str, in_flight: InFlight, tracer: &Tracer) -> Self {
        let method = method(&head.method);
        let parent = parent(&head.headers);
        // As with lines: a trace of every probe says nothing.
        let traced = !is_probe(route);
        let span = traced.then(|| tracer.begin(parent, method, (route != NONE).then_some(route))).flatten();
        let trace = span.as_ref().map(Span::context).or_else(|| parent.map(TraceParent::child));
        Self { begun: Instant::now(), method, route, id, span, trace, in_flight: Some(in_flight) }
    }

    pub fn id(&self) -> &RequestId {
        &self.id
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Whether somebody will see how long the store took.
    pub fn is_recorded(&self) -> bool {
        self.span.as_ref().is_some_and(Span::is_recorded)
    }

    /// Counts it, ends its span, and writes its line, with what the client is not told of `problem`.
    pub fn answered(mut self, status: StatusCode, problem: Option<&Problem>, store: Option<Spent>) {
        let (took, code) = (self.begun.elapsed(), status.as_u16());
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.end(code, took);
        }
        if let Some(span) = self.span.take() {
            span.end(code, store);
        }
        let cause = problem.and_then(Problem::cause);
        if problem.is_some_and(Problem::is_intended) {
            line!(info, self, took, "answered", status = code, cause = cause);
        } else if status.is_server_error() {
            line!(error, self, took, "request failed", status = code, cause = cause);
        } else if is_probe(self.route) {
            // Every few seconds one, that says nothing.
            line!(debug, self, took, "answered", status = code);
        } else {
            line!(info, self, took, "answered", status = code);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            let took = self.begun.elapsed();
            in_flight.end(NO_ANSWER, took);
            line!(info, self, took, "ended without an answer", status = NO_ANSWER);
        }
    }
}

/// Of two, neither is to be believed.
fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next()?;
    TraceParent::parse(value.as_bytes()).filter(|_| values.next().is_none())
}

/// A client can make up methods, which then are its own text.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}

/// Probes and scrapes, which come every few seconds.
fn is_probe(route: &str) -> bool {
    [LIVEZ, READYZ, METRICS].contains(&route)
}
