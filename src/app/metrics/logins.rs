//! How long log-ins take, and why there were none.

use std::{sync::Arc, time::Duration};

use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{
    fault::Fault,
    metrics::{self, Errors, Histogram, Kind, Shown},
};

const SECONDS: Shown = Shown::new(
    "client_login_seconds",
    "Time from accepting a connection to a client that is logged in",
    Kind::Histogram,
);
const FAILURES: Shown = Shown::new(
    "client_login_failures_total",
    "Connections that were refused before they had a pool, by the class of the SQLSTATE and by who has to act",
    Kind::Counter,
);

/// What is counted of log-ins. Without names: those are a stranger's to choose. Clones are one.
#[derive(Debug, Clone)]
pub(in crate::app) struct LoginMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    seconds: Histogram,
    failures: Errors,
    descriptions: Vec<Desc>,
}

impl LoginMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// One of that name is registered already.
    pub(in crate::app) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self(Arc::new(Inner {
            seconds: Histogram::default(),
            failures: Errors::default(),
            descriptions: metrics::descriptions([&SECONDS, &FAILURES])?,
        }));
        registry.register(Box::new(metrics.clone()))?;
        Ok(metrics)
    }

    pub(in crate::app) fn succeeded(&self, took: Duration) {
        self.0.seconds.observe(took);
    }

    pub(in crate::app) fn failed(&self, error: &dyn Fault) {
        self.0.failures.count(error.sqlstate(), error.blame());
    }
}

impl Collector for LoginMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let seconds = SECONDS.durations(Vec::new(), &self.0.seconds.buckets());
        let mut failures = Vec::new();
        self.0.failures.for_each(|class, blame, count| {
            let labels = metrics::labels(["blame", "class"], [blame.as_str(), class]);
            failures.push(FAILURES.value(labels, count as f64));
        });
        let families = [SECONDS.family(vec![seconds]), FAILURES.family(failures)];
        families.into_iter().flatten().collect()
    }
}
