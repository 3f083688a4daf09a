//! What there is to measure of clusters, read when somebody looks.

use std::{sync::Arc, time::Instant};

use prometheus::{
    Gauge, GaugeVec, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::Clusters;
use crate::topology::{Cluster, Phase, ServerState, Topology};

const PHASES: [&str; 4] = ["serving", "limping", "holding", "degraded"];

/// The families of all clusters.
pub(super) struct TopologyMetrics {
    clusters: Arc<Clusters>,
    phase: IntGaugeVec,
    reason: IntGaugeVec,
    generation: IntGaugeVec,
    seconds: GaugeVec,
    held: IntGaugeVec,
    last_hold: GaugeVec,
    servers: IntGaugeVec,
}

impl TopologyMetrics {
    pub(super) fn new(clusters: Arc<Clusters>) -> prometheus::Result<Self> {
        let gauges = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        Ok(Self {
            clusters,
            phase: gauges(
                "topology_phase",
                "1 for the phase that the cluster's primary is in",
                &["cluster", "phase"],
            )?,
            reason: gauges(
                "topology_reason",
                "1 for the reason why the cluster's primary is not serving",
                &["cluster", "reason"],
            )?,
            generation: gauges(
                "topology_generation",
                "How many primaries there were, and doubts about one",
                &["cluster"],
            )?,
            seconds: GaugeVec::new(
                Opts::new("topology_phase_seconds", "How long the phase has lasted"),
                &["cluster"],
            )?,
            held: gauges(
                "topology_held_clients",
                "Clients that wait for the primary",
                &["cluster"],
            )?,
            last_hold: GaugeVec::new(
                Opts::new(
                    "topology_last_hold_seconds",
                    "How long requests had to wait for a primary the last time",
                ),
                &["cluster"],
            )?,
            servers: gauges(
                "topology_servers",
                "Servers of the cluster, by what they are good for",
                &["cluster", "state"],
            )?,
        })
    }

    fn families(&self) -> [&dyn Collector; 7] {
        [
            &self.phase,
            &self.reason,
            &self.generation,
            &self.seconds,
            &self.held,
            &self.last_hold,
            &self.servers,
        ]
    }

    fn show(&self, cluster: &Cluster) {
        let (name, topology) = (cluster.name(), cluster.topology());
        for phase in PHASES {
            let is_it = phase == topology.phase.as_str();
            self.phase.with_label_values(&[name, phase]).set(is_it.into());
        }
        if let Some(reason) = topology.phase.reason() {
            self.reason.with_label_values(&[name, reason.as_str()]).set(1);
        }
        self.generation
            .with_label_values(&[name])
            .set(i64::try_from(topology.generation).unwrap_or(i64::MAX));
        let seconds = Instant::now().saturating_duration_since(topology.since);
        self.seconds.with_label_values(&[name]).set(seconds.as_secs_f64());
        let held = match topology.phase {
            Phase::Serving => 0,
            _ => cluster.held(),
        };
        self.held
            .with_label_values(&[name])
            .set(i64::try_from(held).unwrap_or(i64::MAX));
        if let Some(hold) = &topology.last_hold {
            let last: Gauge = self.last_hold.with_label_values(&[name]);
            last.set(hold.took.as_secs_f64());
        }
        self.show_servers(name, &topology);
    }

    fn show_servers(&self, name: &str, topology: &Topology) {
        for state in ServerState::ALL {
            let count = topology.servers.iter().filter(|server| server.state == state);
            self.servers
                .with_label_values(&[name, state.as_str()])
                .set(i64::try_from(count.count()).unwrap_or(i64::MAX));
        }
    }
}

impl Collector for TopologyMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.families().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // A cluster that is gone, or a reason that holds no more, leaves no series.
        self.phase.reset();
        self.reason.reset();
        self.generation.reset();
        self.seconds.reset();
        self.held.reset();
        self.last_hold.reset();
        self.servers.reset();
        for cluster in self.clusters.all() {
            self.show(&cluster);
        }
        self.families().into_iter().flat_map(Collector::collect).collect()
    }
}
