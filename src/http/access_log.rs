//! The access log: a line for each request, without anything that tells one record from another. No line has an id, a filter,
//! a query or a header other than the id of the request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use tracing::Span;

use super::metrics::InFlight;
use super::path::{LIVEZ, METRICS, NONE, READYZ, REPLICA, STATUS};
use super::problem::{Problem, Rejection};
use super::request_id::RequestId;
use super::settings::AccessLog;
use crate::auth::{Caller, Credential};
use crate::telemetry::trace;

/// Counted and logged in the place of a status if the connection closed before the response, as nginx does.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A slower response is logged by [`AccessLog::Errors`].
const SLOW: Duration = Duration::from_secs(1);

/// The routes that are asked every few seconds. They are logged as `debug`, and have no spans.
const PROBES: [&str; 5] = [LIVEZ, READYZ, METRICS, REPLICA, STATUS];

/// A request until its response begins, or its connection closes: then it is counted, and has its line.
pub struct RequestContext {
    begun: Instant,
    method: &'static str,
    route: &'static str,
    id: RequestId,
    span: Span,
    trace_id: Option<String>,
    access_log: AccessLog,
    caller: Option<Arc<Caller>>,
    /// Taken when the response begins.
    in_flight: Option<InFlight>,
}

/// Logs one event; a macro, because the level of an event is a constant.
macro_rules! log {
    ($level:ident, $message:literal, $context:expr, $status:expr, $duration:expr, $error:expr) => {
        tracing::$level!(
            request_id = $context.id.as_str(),
            method = $context.method,
            route = $context.route,
            status = $status,
            // In microseconds: more digits are noise.
            duration_ms = $duration.as_micros() as f64 / 1000.0,
            api_key = $context.caller(Credential::Key),
            subject = $context.caller(Credential::Token),
            trace_id = $context.trace_id.as_deref(),
            error = $error,
            $message
        )
    };
}

impl RequestContext {
    /// `route` is a pattern, such as `/api/v1/records/{id}`.
    pub fn new(
        request: &Request,
        id: RequestId,
        route: &'static str,
        in_flight: InFlight,
        access_log: AccessLog,
    ) -> Self {
        let method = method(request.method());
        let is_traced = !PROBES.contains(&route);
        let span = if is_traced {
            trace::request_span(request.headers(), method, (route != NONE).then_some(route))
        } else {
            Span::none()
        };
        let trace_id = trace::trace_id(&span, request.headers());
        Self {
            begun: Instant::now(),
            method,
            route,
            id,
            span,
            trace_id,
            access_log,
            caller: None,
            in_flight: Some(in_flight),
        }
    }

    pub fn id(&self) -> &RequestId {
        &self.id
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn set_caller(&mut self, caller: Arc<Caller>) {
        self.caller = Some(caller);
    }

    /// Returns the name of the caller if it has this kind of credential.
    fn caller(&self, credential: Credential) -> Option<&str> {
        self.caller
            .as_ref()
            .map(|caller| &caller.id)
            .filter(|id| id.credential == credential)
            .map(|id| id.name.as_str())
    }

    /// Disabled unless it is exported.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Counts and logs the request, with the cause of `problem`, which the client is not told.
    pub fn finish(mut self, status: StatusCode, problem: Option<&Problem>) {
        self.end(status.as_u16(), problem);
    }

    fn end(&mut self, status: u16, problem: Option<&Problem>) {
        let Some(in_flight) = self.in_flight.take() else { return };
        let duration = self.elapsed();
        in_flight.end(status, duration);
        trace::record_status(&self.span, status);
        let is_logged = match self.access_log {
            AccessLog::All => true,
            AccessLog::Errors => status >= 500 || duration >= SLOW,
            AccessLog::Off => false,
        };
        if !is_logged {
            return;
        }
        // The limiter itself says once a minute how many there were.
        let is_rate_limited = problem.and_then(Problem::rejection) == Some(Rejection::rate_limit);
        let cause = problem.and_then(Problem::cause);
        if status == CLIENT_CLOSED_REQUEST {
            log!(info, "connection closed before the response", self, status, duration, cause);
        } else if status >= 500 && !problem.is_some_and(Problem::is_intended) {
            log!(error, "request failed", self, status, duration, cause);
        } else if (PROBES.contains(&self.route) && (status < 500 || self.route == REPLICA)) || is_rate_limited {
            log!(debug, "request completed", self, status, duration, cause);
        } else {
            log!(info, "request completed", self, status, duration, cause);
        }
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        self.end(CLIENT_CLOSED_REQUEST, None);
    }
}

/// A method that a client made up is text of its own, which the log does not have.
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
