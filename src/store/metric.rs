//! Counters and gauges of a store, independent of any metrics library.

/// A metric and its value at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// In snake case, without the suffix of its type or unit.
    pub name: &'static str,
    pub help: &'static str,
    /// `seconds` or `bytes`.
    pub unit: Option<&'static str>,
    pub value: MetricValue,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    Counter(u64),
    Gauge(f64),
    /// A counter for each value of the label.
    Counters {
        label: &'static str,
        values: Vec<(&'static str, u64)>,
    },
    /// A gauge for each value of the label.
    Gauges {
        label: &'static str,
        values: Vec<(&'static str, f64)>,
    },
    Histogram(Histogram),
}

/// Observations counted by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// The count for each bound, then the count above the last bound.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// `bounds` are the inclusive upper bounds of the buckets, in ascending order.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub fn observe(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    /// Upper bounds and the number of observations in each bucket; the last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        self.bounds.iter().copied().chain([f64::INFINITY]).zip(self.counts.iter().copied())
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum(&self) -> f64 {
        self.sum
    }
}
