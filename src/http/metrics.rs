//! `/metrics`: counters and measurements for Prometheus, as
//! [OpenMetrics text](https://prometheus.io/docs/specs/om/open_metrics_spec/).
//!
//! No id, record, text of a request or secret is part of it. Every label has few values.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::App;
use super::problem::{Problem, Rejection};
use super::settings::Settings;
use crate::auth::{Caller, Credential};
use crate::jwt::Tokens;
use crate::reload::Reload;
use crate::store::{Error, MemoryPool, Metric, MetricValue, Store};
use crate::telemetry::{ErrorCounter, VERSION, resident_memory};

/// Upper bounds in seconds: a lookup in memory, in a MongoDB nearby, and in trouble.
const SECONDS: [f64; 13] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 2.5, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRoute {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    reason: Rejection,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKey {
    key: String,
}

/// Counters of requests, and the registry that also holds what the store counts.
pub struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    seconds: Family<OfRoute, Histogram>,
    rejected: Family<Rejected, Counter>,
    by_key: Family<OfKey, Counter>,
    in_flight: Gauge,
    streams: Gauge,
    aborted: Counter,
    health_check: Arc<Mutex<Option<Duration>>>,
}

impl Metrics {
    pub fn new(store: Arc<dyn Store>, settings: &Settings, memory: &MemoryPool) -> Self {
        let mut registry = Registry::with_prefix("records");
        let (requests, rejected) = (Family::default(), Family::default());
        let seconds = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        let (in_flight, streams, aborted) = (Gauge::default(), Gauge::default(), Counter::default());
        registry.register("build", "Version of this process", Info::new([("version", VERSION)]));
        registry.register(
            "http_requests",
            "Requests, by route and status; 499: the connection ended before the response",
            requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time from the head of a request to the head of its response, or to the end of the connection, by route",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register("http_requests_in_flight", "Requests whose response has not begun", in_flight.clone());
        registry.register("http_list_streams", "Lists that are being streamed to clients", streams.clone());
        let help = "Streamed lists that failed after their status was sent";
        registry.register("http_streams_aborted", help, aborted.clone());
        let help = "Requests that were answered 503 or, for rate_limit, 429 at once, by the limit that was reached";
        registry.register("http_requests_rejected", help, rejected.clone());
        for reason in
            [Rejection::max_requests, Rejection::max_streams, Rejection::response_memory, Rejection::rate_limit]
        {
            drop(rejected.get_or_create(&Rejected { reason }));
        }
        let by_key = Family::default();
        registry.register(
            "http_requests_by_key",
            "Requests with a valid API key, by its name; all tokens count as `(token)`",
            by_key.clone(),
        );
        if let Some(connections) = &settings.connections {
            connections.register(&mut registry);
        }
        let health_check = Arc::default();
        registry.register_collector(Box::new(Current {
            store,
            health_check: Arc::clone(&health_check),
            responses: memory.clone(),
            memory_limit: settings.process_memory_limit,
            files: settings.reloaded.clone(),
            tokens: settings.tokens.clone(),
            dropped_lines: settings.dropped_lines.clone(),
        }));
        Self { registry, requests, seconds, rejected, by_key, in_flight, streams, aborted, health_check }
    }

    /// The counters of the route with this pattern.
    pub fn route(&self, pattern: &'static str) -> RouteMetrics {
        let seconds = self.seconds.get_or_create_owned(&OfRoute { route: pattern });
        RouteMetrics { pattern, requests: self.requests.clone(), seconds, in_flight: self.in_flight.clone() }
    }

    pub fn count_rejection(&self, reason: Rejection) {
        self.rejected.get_or_create(&Rejected { reason }).inc();
    }

    /// `None` if the store did not answer the check.
    pub fn set_health_check_duration(&self, duration: Option<Duration>) {
        *self.health_check.lock().unwrap_or_else(PoisonError::into_inner) = duration;
    }

    pub fn count_caller(&self, caller: &Caller) {
        let key = match caller.id.credential {
            Credential::Key => &caller.id.name,
            // All tokens together: there is no bound on their subjects. No key has this name.
            Credential::Token => "(token)",
        };
        caller.requests.get_or_init(|| self.by_key.get_or_create_owned(&OfKey { key: key.to_owned() })).inc();
    }

    /// Counts a streamed list until the result is dropped.
    pub fn stream(&self) -> Streaming {
        self.streams.inc();
        Streaming { streams: self.streams.clone(), aborted: self.aborted.clone() }
    }
}

/// Read at each scrape.
#[derive(Debug)]
struct Current {
    store: Arc<dyn Store>,
    health_check: Arc<Mutex<Option<Duration>>>,
    responses: MemoryPool,
    /// The memory that the process may use, in bytes.
    memory_limit: Option<u64>,
    files: Vec<Arc<dyn Reload>>,
    tokens: Option<Arc<Tokens>>,
    /// Counted by the writer of the log.
    dropped_lines: Option<ErrorCounter>,
}

impl Current {
    fn metrics(&self) -> Vec<Metric> {
        let gauge = |name, help, unit, value| Metric { name, help, unit, value: MetricValue::Gauge(value) };
        let bytes = |name, help, bytes: Option<u64>| Some(gauge(name, help, Some("bytes"), bytes? as f64));
        let stale = self.files.iter().filter(|file| file.degraded().is_some()).count();
        let health_check = *self.health_check.lock().unwrap_or_else(PoisonError::into_inner);
        let keys_age = self.tokens.as_ref().and_then(|tokens| tokens.age());
        let lost = |lines: &ErrorCounter| Metric {
            name: "log_lines_lost",
            help: "Log lines dropped because standard error was too slow",
            unit: None,
            value: MetricValue::Counter(lines.dropped_lines() as u64),
        };
        let own = [
            bytes(
                "http_response_memory",
                "Memory reserved for responses until they are sent",
                Some(self.responses.reserved() as u64),
            ),
            bytes(
                "http_response_memory_limit",
                "Memory that may be reserved for responses",
                Some(self.responses.capacity() as u64),
            ),
            bytes("process_resident_memory", "Memory of the process that is in RAM", resident_memory()),
            bytes(
                "process_memory_limit",
                "Memory that the process may use: the limit of its cgroup, or that of the machine",
                self.memory_limit,
            ),
            Some(gauge(
                "config_files_stale",
                "Files that have changed and cannot be used, so that their last contents stay in effect",
                None,
                stale as f64,
            )),
            health_check.map(|duration| {
                let help = "Time of the last check of readiness, if the store answered it";
                gauge("store_health_check_duration", help, Some("seconds"), duration.as_secs_f64())
            }),
            keys_age.map(|age| {
                let help = "Time since the keys of tokens were fetched, or since the start";
                gauge("jwt_keys_age", help, Some("seconds"), age.as_secs_f64())
            }),
            self.dropped_lines.as_ref().map(lost),
        ];
        own.into_iter().flatten().chain(self.store.metrics()).collect()
    }
}

impl Collector for Current {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        for Metric { name, help, unit, value } in self.metrics() {
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

/// A list that is being streamed.
pub struct Streaming {
    streams: Gauge,
    aborted: Counter,
}

impl Streaming {
    /// Counts the list as one that failed after its status was sent.
    pub fn abort(&self) {
        self.aborted.inc();
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.streams.dec();
    }
}

/// The counters of one route.
pub struct RouteMetrics {
    pub pattern: &'static str,
    requests: Family<Outcome, Counter>,
    seconds: Histogram,
    in_flight: Gauge,
}

impl RouteMetrics {
    /// Counts a request as in flight until [`InFlight::end`] counts how it ended.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.inc();
        InFlight(self.clone())
    }
}

/// A request whose response has not begun.
pub struct InFlight(Arc<RouteMetrics>);

impl InFlight {
    pub fn end(self, status: u16, duration: Duration) {
        let route = &self.0;
        route.requests.get_or_create(&Outcome { route: route.pattern, status }).inc();
        route.seconds.observe(duration.as_secs_f64());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

pub async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let mut body = String::new();
    text::encode(&mut body, &app.metrics.registry)
        .map_err(|error| Error::broken("cannot write the metrics").with_source(error))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], body))
}
