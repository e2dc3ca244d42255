//! Export of spans to a collector, by [OTLP](https://opentelemetry.io/docs/specs/otlp/) as protobuf over HTTP.
//!
//! The SDK reads its own variables, such as `OTEL_TRACES_SAMPLER`.

use std::time::Duration;

use futures::future::BoxFuture;
use hyper::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::{Url, blocking};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use super::VERSION;

/// Time for one export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the last export.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Exports spans in batches, on a thread of its own, until it is dropped: then it exports the last ones.
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Starts the export to the collector at `endpoint`, a URL without the path that OTLP defines.
    ///
    /// # Errors
    ///
    /// When `endpoint` is not such a URL, holds a secret, or needs certificates that the system does not have.
    pub fn start(endpoint: &str) -> Result<Self, String> {
        let url = Url::parse(endpoint).ok().filter(is_collector).ok_or(
            "--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) must be the URL of a collector, as in http://127.0.0.1:4318 or \
             https://collector.example:4318, without a password",
        )?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client(&url).map_err(|error| error_chain(&error))?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", url.as_str().trim_end_matches('/')))
            .build()
            .map_err(|error| error_chain(&error))?;
        // The last detector wins: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
        let resource = Resource::builder_empty()
            .with_service_name(env!("CARGO_PKG_NAME"))
            .with_attribute(KeyValue::new("service.version", VERSION))
            .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())])
            .build();
        Ok(Self(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build()))
    }

    /// Collects the spans of `target`, without the threads and source lines that tracing-opentelemetry would add.
    pub fn layer<S>(&self, target: &str) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(env!("CARGO_PKG_NAME")))
            .with_context_activation(false)
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(target, LevelFilter::INFO))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(SHUTDOWN_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

fn is_collector(url: &Url) -> bool {
    let has_secret = !url.username().is_empty() || url.password().is_some() || url.query().is_some();
    matches!(url.scheme(), "http" | "https") && url.has_host() && !has_secret && url.fragment().is_none()
}

/// An HTTP client whose errors include their causes, such as an untrusted certificate. The exporter logs only the outermost error.
#[derive(Debug)]
struct Client(blocking::Client);

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> BoxFuture<'b, Result<Response<Bytes>, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async { self.0.send_bytes(request).await.map_err(|error| error_chain(&*error).into()) })
    }
}

/// Returns a client that trusts the system's certificate authorities, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn client(url: &Url) -> reqwest::Result<Client> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = blocking::Client::builder().timeout(EXPORT_TIMEOUT);
    let client = match url.scheme() {
        "https" => client.build()?,
        // Without TLS no certificates are needed: an image may have none.
        _ => client.tls_certs_only([]).build()?,
    };
    Ok(Client(client))
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Puts `span` into the trace that the headers of its request name.
pub fn set_parent(span: &Span, headers: &HeaderMap) {
    if !span.is_disabled() {
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
        // This fails for a span that has started, or that is not exported.
        let _ = span.set_parent(parent);
    }
}

/// Returns the id of the trace that `span` is in; `None` for a span that is not exported.
pub fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let trace_id = context.span().span_context().trace_id();
    (trace_id != opentelemetry::TraceId::INVALID).then(|| trace_id.to_string())
}
