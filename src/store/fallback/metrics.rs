//! The copy and the breaker, as Prometheus reads them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::breaker::{Breaker, State};
use super::copy::Copy;

struct Both {
    copy: Arc<Copy>,
    breaker: Arc<Breaker>,
}

pub fn register(registry: &mut Registry, copy: &Arc<Copy>, breaker: &Arc<Breaker>) {
    registry.register_collector(Box::new(Both { copy: copy.clone(), breaker: breaker.clone() }));
}

impl Collector for Both {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        let open = match self.breaker.state() {
            State::Closed => 0.0,
            State::HalfOpen => 0.5,
            State::Open => 1.0,
        };
        gauge(
            "store_breaker_open",
            "1: the store is not asked; 0.5: it has answered once again; 0: it is asked",
            None,
            open,
        )?;
        let answers = f64::from(u8::from(self.copy.age().is_ok()));
        gauge("store_copy_usable", "Whether the copy of the store could answer", None, answers)?;
        let kept = f64::from(u8::from(self.copy.is_kept()));
        gauge("store_copy_kept", "Whether the copy follows the store, or is made anew from time to time", None, kept)?;
        if let Ok(served) = self.copy.served() {
            let age = self.copy.age_of(&served).as_secs_f64();
            let unit = Some(&Unit::Seconds);
            gauge("store_copy_age", "Since the copy was last known to be what the store is", unit, age)?;
            gauge("store_copy_records", "Records in the copy", None, served.records() as f64)?;
            gauge("store_copy_size", "What the limit of the copy counts", Some(&Unit::Bytes), served.size() as f64)?;
        }
        for (name, help, value) in [
            ("store_copy_answers", "Lookups and lists that the copy answered", &self.copy.answers),
            ("store_copy_snapshots", "Copies of all records that became the copy", &self.copy.snapshots),
            ("store_copy_interruptions", "Failures to keep the copy, or to make one", &self.copy.interruptions),
        ] {
            let metric = ConstCounter::new(value.load(Ordering::Relaxed));
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Both {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("copy and breaker")
    }
}
