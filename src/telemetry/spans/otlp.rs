//! Spans by [OpenTelemetry](https://opentelemetry.io/docs/specs/otel/trace/), exported by OTLP as protobuf over HTTP.
//!
//! By its own interface and not by way of `tracing`'s spans: a request has one span, or two, and nothing inside of it needs
//! to find them. What the SDK reads from the environment itself, such as the sampler, stands.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceState,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, trace};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span as SdkSpan};

use super::Spent;
use super::client::Client;
use crate::telemetry::VERSION;
use crate::telemetry::traceparent::{TraceId, TraceParent};

/// Whether this build can export traces.
pub const COMPILED: bool = true;

/// How long to try to export what is left at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where spans begin. Without a collector there are none.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<SdkTracer>);

/// A request's span. Ends when it is dropped, at the latest.
#[derive(Debug)]
pub struct Span {
    span: SdkSpan,
    tracer: SdkTracer,
}

/// The export, by a thread of its own, for as long as this lives: dropping it exports what is left, for at most two seconds.
#[derive(Debug)]
#[must_use = "the export ends when it is dropped"]
pub struct Exporting(SdkTracerProvider);

/// Begins to export to the collector at `endpoint`, the URL that OTLP's own path comes behind.
///
/// # Errors
///
/// When it is no URL, or the SDK finds a mistake in its own variables.
pub fn start(endpoint: &str) -> Result<(Tracer, Exporting), String> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .map_err(|error| format!("cannot export traces to {endpoint}: {error}"))?;
    // In this order: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
    let resource = Resource::builder_empty()
        .with_service_name("records")
        .with_attribute(KeyValue::new("service.version", VERSION))
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())])
        .build();
    let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
    Ok((Tracer(Some(provider.tracer("records"))), Exporting(provider)))
}

impl Drop for Exporting {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FAREWELL) {
            tracing::warn!(%error, "not all spans were exported");
        }
    }
}

impl Tracer {
    /// The span of a request that is part of `parent`'s trace, or begins one. By HTTP's
    /// [semantic conventions](https://opentelemetry.io/docs/specs/semconv/http/http-spans/), but for `url.path`: it would
    /// tell the ids of records.
    pub fn begin(
        &self,
        parent: Option<TraceParent>,
        method: &'static str,
        route: Option<&'static str>,
    ) -> Option<Span> {
        let tracer = self.0.as_ref()?;
        // The name of a method that a client made up is HTTP.
        let verb = if method == "_OTHER" { "HTTP" } else { method };
        let name = route.map_or_else(|| verb.into(), |route| format!("{verb} {route}").into());
        let mut attributes = vec![KeyValue::new("http.request.method", method), KeyValue::new("url.scheme", "http")];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
        let builder =
            SpanBuilder { span_kind: Some(SpanKind::Server), name, attributes: Some(attributes), ..Default::default() };
        let context =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(remote(parent)));
        Some(Span { span: builder.start_with_context(tracer, &context), tracer: tracer.clone() })
    }
}

impl Span {
    /// Where it stands in its trace.
    pub fn context(&self) -> TraceParent {
        let context = self.span.span_context();
        TraceParent {
            trace: TraceId(u128::from_be_bytes(context.trace_id().to_bytes())),
            span: u64::from_be_bytes(context.span_id().to_bytes()),
            flags: context.trace_flags().to_u8(),
        }
    }

    /// Whether it will be exported.
    pub fn is_recorded(&self) -> bool {
        self.span.is_recording()
    }

    /// Ends it, with what was answered, and with a span inside of it for the store.
    pub fn end(mut self, status: u16, store: Option<Spent>) {
        if let Some(store) = store {
            let begun = SystemTime::now() - store.begun.elapsed();
            let context = Context::new().with_remote_span_context(self.span.span_context().clone());
            let builder = SpanBuilder::from_name("store").with_kind(SpanKind::Internal).with_start_time(begun);
            builder.start_with_context(&self.tracer, &context).end_with_timestamp(begun + store.took);
        }
        self.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            self.span.set_attribute(KeyValue::new("error.type", status.to_string()));
            self.span.set_status(Status::error(""));
        }
        self.span.end();
    }
}

fn remote(parent: TraceParent) -> SpanContext {
    let (trace, span) = (trace::TraceId::from(parent.trace.0), SpanId::from(parent.span));
    SpanContext::new(trace, span, TraceFlags::new(parent.flags), true, TraceState::NONE)
}
