//! The same under the names that other programs have made known, so that dashboards for them go on working.
//!
//! What PgBouncer counts and this pooler does not have is zero where the name is expected, and left out where it would be
//! a lie.

mod cnpg;
mod exporter;
mod numbers;

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use arc_swap::ArcSwap;
use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::{LabelPair, MetricFamily},
};

use self::numbers::{Numbers, Samples};
use crate::{app::serve::Reception, config::Compatibility, metrics::Shown};

/// Families and what each shows of one thing.
type Table<T> = [(Shown, fn(&T) -> f64)];

/// The families, as far as they are wanted. Clones are one.
#[derive(Clone)]
pub(in crate::app) struct CompatibilityMetrics(Arc<Inner>);

struct Inner {
    reception: Weak<Reception>,
    wanted: ArcSwap<Vec<Compatibility>>,
    samples: Mutex<Samples>,
    descriptions: Vec<Desc>,
}

impl CompatibilityMetrics {
    /// Registers the families with a registry that adds no prefix.
    ///
    /// # Errors
    /// One of that name is registered already.
    pub(in crate::app) fn register(
        reception: &Arc<Reception>,
        wanted: Vec<Compatibility>,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let all = cnpg::all().chain(exporter::all());
        let metrics = Self(Arc::new(Inner {
            reception: Arc::downgrade(reception),
            wanted: ArcSwap::from_pointee(wanted),
            samples: Mutex::new(Samples::new(Instant::now())),
            descriptions: crate::metrics::descriptions(all)?,
        }));
        registry.register(Box::new(metrics.clone()))?;
        Ok(metrics)
    }

    /// These names are wanted from now on.
    pub(in crate::app) fn set(&self, wanted: Vec<Compatibility>) {
        self.0.wanted.store(Arc::new(wanted));
    }
}

impl std::fmt::Debug for CompatibilityMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CompatibilityMetrics")
            .field(&self.0.wanted)
            .finish()
    }
}

impl Collector for CompatibilityMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let wanted = self.0.wanted.load();
        let reception = self.0.reception.upgrade();
        let Some(reception) = reception.filter(|_| !wanted.is_empty()) else {
            return Vec::new();
        };
        let now = Instant::now();
        let numbers = Numbers::of(&reception, now);
        let mut families = Vec::new();
        if wanted.contains(&Compatibility::Cnpg) {
            let mut samples = self.0.samples.lock().unwrap_or_else(PoisonError::into_inner);
            let averages = samples.averages(&numbers.statistics, now);
            drop(samples);
            cnpg::collect(&numbers, &averages, &mut families);
        }
        if wanted.contains(&Compatibility::PgbouncerExporter) {
            exporter::collect(&numbers, &mut families);
        }
        families
    }
}

/// The families of a table, a metric for each row.
fn add<T>(table: &Table<T>, rows: &[(Vec<LabelPair>, &T)], families: &mut Vec<MetricFamily>) {
    for (shown, value) in table {
        let metrics = rows
            .iter()
            .map(|(labels, row)| shown.value(labels.clone(), value(row)));
        families.extend(shown.family(metrics.collect()));
    }
}
