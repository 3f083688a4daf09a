//! What is counted of watches.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::Resource;

const LABELS: [&str; 2] = ["cluster", "resource"];
const LABELS_KIND: [&str; 3] = ["cluster", "resource", "kind"];

/// The metric families of all watches.
#[derive(Debug, Clone)]
pub struct Families {
    up: IntGaugeVec,
    heard: GaugeVec,
    lists: IntCounterVec,
    errors: IntCounterVec,
}

/// What is counted of one kind of object of one cluster, for as long as it is watched.
#[derive(Debug)]
pub(super) struct Metrics {
    families: Families,
    cluster: String,
    resource: &'static str,
    pub(super) up: IntGauge,
    pub(super) lists: IntCounter,
    heard: Gauge,
}

impl Families {
    /// Registers the families; the registry adds the prefix `pgweir_`.
    ///
    /// # Errors
    /// A family of that name is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let families = Self {
            up: IntGaugeVec::new(
                Opts::new(
                    "kubernetes_watch_up",
                    "Whether Kubernetes tells of changes of these objects",
                ),
                &LABELS,
            )?,
            heard: GaugeVec::new(
                Opts::new(
                    "kubernetes_watch_last_heard_timestamp_seconds",
                    "When Kubernetes has last said anything about these objects",
                ),
                &LABELS,
            )?,
            lists: IntCounterVec::new(
                Opts::new(
                    "kubernetes_lists_total",
                    "Times that all of these objects were listed",
                ),
                &LABELS,
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "kubernetes_watch_errors_total",
                    "Times that listing or watching these objects has failed, by what was wrong",
                ),
                &LABELS_KIND,
            )?,
        };
        registry.register(Box::new(families.up.clone()))?;
        registry.register(Box::new(families.heard.clone()))?;
        registry.register(Box::new(families.lists.clone()))?;
        registry.register(Box::new(families.errors.clone()))?;
        Ok(families)
    }

    pub(super) fn of(&self, cluster: &str, resource: Resource) -> Metrics {
        let resource = resource.plural();
        let labels = [cluster, resource];
        Metrics {
            up: self.up.with_label_values(&labels),
            lists: self.lists.with_label_values(&labels),
            heard: self.heard.with_label_values(&labels),
            cluster: cluster.to_owned(),
            resource,
            families: self.clone(),
        }
    }
}

impl Metrics {
    pub(super) fn heard(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.heard.set(now.unwrap_or_default().as_secs_f64());
    }

    pub(super) fn failed(&self, kind: &'static str) {
        let labels = [self.cluster.as_str(), self.resource, kind];
        self.families.errors.with_label_values(&labels).inc();
    }
}

impl Drop for Metrics {
    /// A cluster that is watched no more is neither up nor down. Counters stay.
    fn drop(&mut self) {
        let labels = [self.cluster.as_str(), self.resource];
        // They may be gone already.
        let _ = self.families.up.remove_label_values(&labels);
        let _ = self.families.heard.remove_label_values(&labels);
    }
}
