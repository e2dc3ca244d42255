//! The spans of requests, and the trace that a request is part of.

use hyper::header::{HeaderMap, HeaderName};
use tracing::Span;
use tracing::field::Empty;

/// True if this build can export spans.
pub const CAN_EXPORT: bool = cfg!(feature = "otlp");

/// The target of every span: the exporter takes them all, and the log none.
pub const TARGET: &str = "records::trace";

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Starts the span of a request, in the trace that the request's headers name or in a new one. Disabled unless spans are
/// exported.
///
/// Attributes are those of the [semantic conventions](https://opentelemetry.io/docs/specs/semconv/http/http-spans/) without
/// `url.path`, which has the ids of records.
#[cfg_attr(not(feature = "otlp"), expect(unused_variables))]
pub fn request_span(headers: &HeaderMap, method: &str, route: Option<&str>) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        "request",
        otel.name = span_name(method, route).as_str(),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.response.status_code = Empty,
        http.route = route,
        url.scheme = "http",
        "error.type" = Empty,
    );
    #[cfg(feature = "otlp")]
    super::otlp::set_parent(&span, headers);
    span
}

/// Returns the name that the conventions define: it has no text that a client chooses, such as an unknown method or a path.
fn span_name(method: &str, route: Option<&str>) -> String {
    let method = if method == "_OTHER" { "HTTP" } else { method };
    route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
}

/// Records the status of the response in the span of its request.
pub fn record_status(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("error.type", status.to_string().as_str());
        span.record("otel.status_code", "ERROR");
    }
}

/// Starts the span of a call to the store within `request`.
pub fn store_span(request: &Span) -> Span {
    tracing::info_span!(target: TARGET, parent: request, "store")
}

/// Returns the id of the trace that `span` belongs to; for a span that is not exported, the id in the request's `traceparent`.
#[cfg_attr(not(feature = "otlp"), expect(unused_variables))]
pub fn trace_id(span: &Span, headers: &HeaderMap) -> Option<String> {
    #[cfg(feature = "otlp")]
    if let Some(id) = super::otlp::trace_id(span) {
        return Some(id);
    }
    parent_trace_id(headers.get(TRACEPARENT)?.to_str().ok()?).map(str::to_owned)
}

/// Returns the trace id in a `traceparent`, if that is valid ([W3C](https://www.w3.org/TR/trace-context/#traceparent-header)).
fn parent_trace_id(traceparent: &str) -> Option<&str> {
    let is_hex =
        |text: &str, digits| text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |text: &str, digits| is_hex(text, digits) && text.bytes().any(|digit| digit != b'0');
    let fields: Vec<&str> = traceparent.split('-').collect();
    let [version, trace_id, parent_id, flags, later @ ..] = &*fields else { return None };
    // A later version may have more fields.
    let is_version = is_hex(version, 2) && *version != "ff" && (*version != "00" || later.is_empty());
    (is_version && is_id(trace_id, 32) && is_id(parent_id, 16) && is_hex(flags, 2)).then_some(trace_id)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::parent_trace_id;

    #[rstest]
    #[case::example_of_the_specification("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true)]
    #[case::not_sampled("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true)]
    #[case::unknown_flags("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", true)]
    #[case::later_version("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true)]
    #[case::later_version_with_more_fields("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", true)]
    #[case::later_version_with_longer_flags("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01what", false)]
    #[case::version_00_with_more_fields("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", false)]
    #[case::invalid_version("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false)]
    #[case::trace_id_of_zeros("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false)]
    #[case::parent_id_of_zeros("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false)]
    #[case::upper_case("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false)]
    #[case::other_dashes("00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01", false)]
    #[case::other_digits("00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", false)]
    #[case::short("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", false)]
    #[case::empty("", false)]
    fn a_trace_id_comes_from_a_valid_traceparent_only(#[case] value: &str, #[case] is_valid: bool) {
        assert_eq!(parent_trace_id(value), is_valid.then(|| &value[3..35]));
    }
}
