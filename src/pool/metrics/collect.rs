//! From what pools have counted to families.

use std::collections::BTreeMap;

use prometheus::{
    core::{Collector, Desc},
    proto::{LabelPair, Metric, MetricFamily},
};

use super::{
    Families,
    reading::{COUNTERS, ERRORS, GAUGES, HISTOGRAMS, PINS, Reading, SERVERS, STATES},
};
use crate::{
    metrics::{self, Shown},
    server::pins::Pin,
    types::PoolKey,
};

pub(super) fn descriptions() -> prometheus::Result<Vec<Desc>> {
    let families = COUNTERS.iter().chain(&GAUGES).chain(&HISTOGRAMS);
    metrics::descriptions(families.chain([&SERVERS, &PINS, &ERRORS]))
}

impl Collector for Families {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let readings: Vec<_> = self
            .readings()
            .into_iter()
            .map(|(key, reading)| (Labels::of(&key), reading))
            .collect();
        let mut families = Vec::new();
        for (at, shown) in COUNTERS.iter().enumerate() {
            families.push(each(&readings, shown, |reading| {
                reading.counters.get(at).map(|count| *count as f64)
            }));
        }
        for (at, shown) in GAUGES.iter().enumerate() {
            families.push(each(&readings, shown, |reading| {
                reading.gauges.get(at).map(|value| *value as f64)
            }));
        }
        for (at, shown) in HISTOGRAMS.iter().enumerate() {
            let metrics = readings.iter().filter_map(|(labels, reading)| {
                let buckets = reading.histograms.get(at)?;
                Some(shown.durations(labels.pool(), buckets))
            });
            families.push(shown.family(metrics.collect()));
        }
        families.extend([servers(&readings), pins(&readings), errors(&readings)]);
        families.into_iter().flatten().collect()
    }
}

impl Families {
    /// The numbers of each pool that has series of its own, and the sum of all others.
    fn readings(&self) -> BTreeMap<PoolKey, Reading> {
        let mut readings: BTreeMap<PoolKey, Reading> = BTreeMap::new();
        for (key, metrics) in self.all() {
            let reading = Reading::of(&metrics);
            match readings.get_mut(&key) {
                Some(sum) => sum.add(&reading),
                None => {
                    readings.insert(key, reading);
                }
            }
        }
        readings
    }
}

/// The labels of a pool. Families are the same again and again but for one more label.
struct Labels(Vec<LabelPair>);

impl Labels {
    fn of(key: &PoolKey) -> Self {
        // In the order of their names, as a registry sorts them.
        Self(metrics::labels(
            ["database", "role", "user"],
            [key.database.as_str(), key.role.as_str(), key.user.as_str()],
        ))
    }

    fn pool(&self) -> Vec<LabelPair> {
        self.0.clone()
    }

    fn and<const N: usize>(&self, names: [&str; N], values: [&str; N]) -> Vec<LabelPair> {
        let mut all = self.pool();
        all.extend(metrics::labels(names, values));
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }
}

type Readings = [(Labels, Reading)];

fn each(readings: &Readings, shown: &Shown, value: impl Fn(&Reading) -> Option<f64>) -> Option<MetricFamily> {
    let metrics = readings.iter().filter_map(|(labels, reading)| {
        let value = value(reading)?;
        Some(shown.value(labels.pool(), value))
    });
    shown.family(metrics.collect())
}

fn servers(readings: &Readings) -> Option<MetricFamily> {
    let of = |(labels, reading): &(Labels, Reading)| -> Vec<Metric> {
        let states = STATES.iter().zip(reading.servers);
        let metric =
            |(state, count): (&&str, i64)| SERVERS.value(labels.and(["state"], [state]), count as f64);
        states.map(metric).collect()
    };
    SERVERS.family(readings.iter().flat_map(of).collect())
}

fn pins(readings: &Readings) -> Option<MetricFamily> {
    let of = |(labels, reading): &(Labels, Reading)| -> Vec<Metric> {
        let pins = Pin::ALL.iter().zip(reading.pins);
        let metric =
            |(pin, count): (&Pin, u64)| PINS.value(labels.and(["reason"], [pin.as_str()]), count as f64);
        pins.map(metric).collect()
    };
    PINS.family(readings.iter().flat_map(of).collect())
}

fn errors(readings: &Readings) -> Option<MetricFamily> {
    let mut metrics = Vec::new();
    for (labels, reading) in readings {
        reading.errors.for_each(|class, blame, count| {
            let labels = labels.and(["blame", "class"], [blame.as_str(), class]);
            metrics.push(ERRORS.value(labels, count as f64));
        });
    }
    ERRORS.family(metrics)
}
