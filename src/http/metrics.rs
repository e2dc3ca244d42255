//! `/metrics`: what the service has counted and measured, for Prometheus.
//!
//! [OpenMetrics text](https://prometheus.io/docs/specs/om/open_metrics_spec/). Never part of it: an id, a record, a
//! request's text, a secret. Every label has few values, fixed here.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::App;
use super::problem::Problem;
use super::settings::Settings;
use crate::store::{Error, MemoryPool, Metric, MetricValue, Store};
use crate::telemetry::{Lost, VERSION};

/// Upper bounds in seconds: what a lookup takes in memory, in a MongoDB nearby, and in trouble.
const SECONDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)]
pub enum Route {
    /// One record.
    record,
    /// The list.
    records,
    /// Health and metrics.
    operation,
    /// No route of ours.
    none,
}

impl Route {
    /// `records`, `operations`: whether records, and health and metrics, are served where this was asked.
    pub fn of(path: &str, records: bool, operations: bool) -> Self {
        match path {
            path if records && path.starts_with(super::path::RECORD_PREFIX) => Self::record,
            "/api/v1/records" if records => Self::records,
            "/livez" | "/readyz" | "/metrics" if operations => Self::operation,
            _ => Self::none,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    route: Route,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRoute {
    route: Route,
}

/// What is counted about requests, and the registry that also holds what the store counts.
pub struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    seconds: Family<OfRoute, Histogram>,
    /// Those of `requests` and `seconds` that a lookup needs, at hand: finding them takes longer than counting.
    lookups: Lookups,
    in_flight: Gauge,
    streams: Gauge,
    cut: Counter,
    shed: Counter,
}

#[derive(Default)]
struct Lookups {
    found: OnceLock<Counter>,
    nothing: OnceLock<Counter>,
    seconds: OnceLock<Histogram>,
}

impl Metrics {
    pub fn of(store: Arc<dyn Store>, settings: &Settings, memory: &MemoryPool) -> Arc<Self> {
        let mut registry = Registry::with_prefix("records");
        let requests = Family::default();
        let seconds = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        let (in_flight, streams) = (Gauge::default(), Gauge::default());
        let (cut, shed) = (Counter::default(), Counter::default());
        registry.register("build", "Which version runs", Info::new([("version", VERSION)]));
        registry.register(
            "http_requests",
            "Requests, by route and status; 499: the connection ended before the answer",
            requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time from the request's head to the head of the answer, or to the end of the connection, by route",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register("http_requests_in_flight", "Requests whose answer has not begun", in_flight.clone());
        registry.register("http_list_streams", "Lists that are being streamed to clients", streams.clone());
        registry.register("http_lists_cut", "Lists that failed half way, after their status was sent", cut.clone());
        let help = "Requests refused since enough others were under way, or enough lists were being streamed";
        registry.register("http_requests_shed", help, shed.clone());
        if let Some(connections) = &settings.connections {
            connections.register(&mut registry);
        }
        registry.register_collector(Box::new(ResponseMemory(memory.clone())));
        if let Some(lost) = &settings.lost_lines {
            registry.register_collector(Box::new(LostLines(lost.clone())));
        }
        registry.register_collector(Box::new(StoreMetrics(store)));
        Arc::new(Self { registry, requests, seconds, lookups: Lookups::default(), in_flight, streams, cut, shed })
    }

    /// Counts a request that has come, until [`InFlight::ended`] counts how it ended.
    pub fn begin(self: &Arc<Self>, route: Route) -> InFlight {
        self.in_flight.inc();
        InFlight { metrics: self.clone(), route }
    }

    /// Counts a request that is refused for others.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// Counts a list until what is returned is dropped.
    pub fn stream(&self) -> Streaming {
        self.streams.inc();
        Streaming { streams: self.streams.clone(), cut: self.cut.clone() }
    }
}

/// Counted where lines are lost, which is not here.
#[derive(Debug)]
struct LostLines(Lost);

impl Collector for LostLines {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let lines = ConstCounter::new(self.0.lines());
        let help = "Lines of the log that came faster than they could be written";
        lines.encode(encoder.encode_descriptor("log_lines_lost", help, None, lines.metric_type())?)
    }
}

/// Known to the pool itself.
#[derive(Debug)]
struct ResponseMemory(MemoryPool);

impl Collector for ResponseMemory {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        for (name, help, bytes) in [
            ("http_response_memory", "Memory reserved for responses until they are sent", self.0.reserved()),
            ("http_response_memory_limit", "Memory that may be reserved for responses", self.0.capacity()),
        ] {
            let metric = ConstGauge::new(bytes as f64);
            metric.encode(encoder.encode_descriptor(name, help, Some(&Unit::Bytes), metric.metric_type())?)?;
        }
        Ok(())
    }
}

/// Read from the store at each scrape.
#[derive(Debug)]
struct StoreMetrics(Arc<dyn Store>);

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        for Metric { name, help, unit, value } in self.0.metrics() {
            let unit = unit.map(|unit| match unit {
                "seconds" => Unit::Seconds,
                "bytes" => Unit::Bytes,
                other => Unit::Other(other.to_owned()),
            });
            let kind = match value {
                MetricValue::Counter(_) | MetricValue::Counters { .. } => MetricType::Counter,
                MetricValue::Gauge(_) | MetricValue::Gauges { .. } => MetricType::Gauge,
                MetricValue::Histogram(_) => MetricType::Histogram,
            };
            encode_value(encoder.encode_descriptor(name, help, unit.as_ref(), kind)?, value)?;
        }
        Ok(())
    }
}

fn encode_value(mut encoder: MetricEncoder<'_>, value: MetricValue) -> std::fmt::Result {
    match value {
        MetricValue::Counter(count) => encoder.encode_counter::<NoLabelSet, _, u64>(&count, None),
        MetricValue::Gauge(value) => encoder.encode_gauge(&value),
        MetricValue::Counters { label, values } => values.into_iter().try_for_each(|(value, count)| {
            encoder.encode_family(&[(label, value)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)
        }),
        MetricValue::Gauges { label, values } => values
            .into_iter()
            .try_for_each(|(value, number)| encoder.encode_family(&[(label, value)])?.encode_gauge(&number)),
        MetricValue::Histogram(histogram) => {
            let buckets: Vec<_> = histogram.buckets().collect();
            encoder.encode_histogram::<NoLabelSet>(histogram.sum(), histogram.count(), &buckets, None)
        }
    }
}

/// A list under way.
pub struct Streaming {
    streams: Gauge,
    cut: Counter,
}

impl Streaming {
    /// Counts it as one that failed half way.
    pub fn cut(&self) {
        self.cut.inc();
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.streams.dec();
    }
}

/// A request under way.
pub struct InFlight {
    metrics: Arc<Metrics>,
    route: Route,
}

impl InFlight {
    pub fn ended(self, status: u16, took: Duration) {
        let Self { metrics, route } = &self;
        let (outcome, of_route) = (Outcome { route: *route, status }, OfRoute { route: *route });
        let at_hand = match (route, status) {
            (Route::record, 200) => Some(&metrics.lookups.found),
            (Route::record, 204) => Some(&metrics.lookups.nothing),
            _ => None,
        };
        match at_hand {
            Some(counter) => counter.get_or_init(|| metrics.requests.get_or_create_owned(&outcome)).inc(),
            None => metrics.requests.get_or_create(&outcome).inc(),
        };
        let took = took.as_secs_f64();
        match route {
            Route::record => {
                metrics.lookups.seconds.get_or_init(|| metrics.seconds.get_or_create_owned(&of_route)).observe(took)
            }
            _ => metrics.seconds.get_or_create(&of_route).observe(took),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
    }
}

pub async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let mut body = String::new();
    text::encode(&mut body, &app.metrics.registry)
        .map_err(|error| Error::broken("cannot write the metrics").with_source(error))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], body))
}
