//! Families that are put together when somebody looks.

use std::collections::HashMap;

use prometheus::{
    core::Desc,
    proto::{
        Bucket, Counter, Gauge, Histogram as HistogramProto, LabelPair, Metric, MetricFamily, MetricType,
    },
};

use super::{BOUNDS, Buckets};

/// A family: its name without the prefix, and what it says.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// The name.
    pub name: &'static str,
    /// For people.
    pub help: &'static str,
    /// What its values are.
    pub kind: Kind,
}

/// What values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// Durations.
    Histogram,
}

impl Shown {
    /// A family of this name.
    pub const fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self { name, help, kind }
    }

    /// The family with these metrics; without any it is left out.
    pub fn family(&self, metrics: Vec<Metric>) -> Option<MetricFamily> {
        if metrics.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(metrics);
        Some(family)
    }

    /// A value with these labels.
    pub fn value(&self, labels: Vec<LabelPair>, value: f64) -> Metric {
        let mut metric = Metric::from_label(labels);
        if self.kind == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }

    /// Durations with these labels.
    pub fn durations(&self, labels: Vec<LabelPair>, buckets: &Buckets) -> Metric {
        let mut below = 0;
        let bounds = BOUNDS.iter().zip(buckets.counts);
        let cumulative = bounds.map(|(bound, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(below);
            bucket.set_upper_bound(*bound);
            bucket
        });
        let mut histogram = HistogramProto::default();
        histogram.set_bucket(cumulative.collect());
        histogram.set_sample_count(buckets.count());
        histogram.set_sample_sum(buckets.micros as f64 / 1e6);
        let mut metric = Metric::from_label(labels);
        metric.set_histogram(histogram);
        metric
    }
}

/// Labels and their values.
pub fn labels<const N: usize>(names: [&str; N], values: [&str; N]) -> Vec<LabelPair> {
    let pairs = names.into_iter().zip(values);
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    pairs.map(pair).collect()
}

/// What a registry is told of families, so that no two have one name.
///
/// # Errors
/// A name is none.
pub fn descriptions<'a>(families: impl IntoIterator<Item = &'a Shown>) -> prometheus::Result<Vec<Desc>> {
    let describe = |family: &Shown| {
        let (name, help) = (family.name.to_owned(), family.help.to_owned());
        Desc::new(name, help, Vec::new(), HashMap::new())
    };
    families.into_iter().map(describe).collect()
}
