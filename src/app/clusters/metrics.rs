//! What there is to measure of clusters, read when somebody looks.

use std::{sync::Arc, time::Instant};

use prometheus::{
    core::{Collector, Desc},
    proto::{Metric, MetricFamily},
};

use super::Clusters;
use crate::{
    metrics::{self, Kind, Shown},
    topology::{Cluster, Phase, Reason, ServerState, Topology},
};

const PHASES: [&str; 4] = ["serving", "limping", "holding", "degraded"];

/// What a family shows of a cluster.
type Show = fn(&Shown, &Cluster, &Topology) -> Vec<Metric>;

/// The families, and what of a cluster each one shows.
const FAMILIES: [(Shown, Show); 9] = [
    (
        gauge(
            "topology_phase",
            "1 for the phase that the cluster's primary is in",
        ),
        phases,
    ),
    (
        gauge(
            "topology_reason",
            "1 for the reason why the cluster's primary is not serving",
        ),
        reason,
    ),
    (
        gauge(
            "topology_generation",
            "How many primaries there were, and doubts about one",
        ),
        |shown, cluster, topology| one(shown, cluster, topology.generation as f64),
    ),
    (
        gauge("topology_phase_seconds", "How long the phase has lasted"),
        |shown, cluster, topology| {
            let lasted = Instant::now().saturating_duration_since(topology.since);
            one(shown, cluster, lasted.as_secs_f64())
        },
    ),
    (
        gauge("topology_held_clients", "Clients that wait for the primary"),
        |shown, cluster, topology| {
            let held = match topology.phase {
                Phase::Serving => 0,
                _ => cluster.held(),
            };
            one(shown, cluster, held as f64)
        },
    ),
    (
        gauge(
            "topology_last_hold_seconds",
            "How long requests had to wait for a primary the last time",
        ),
        |shown, cluster, topology| {
            let last = topology.last_hold.as_ref();
            last.map_or(Vec::new(), |hold| one(shown, cluster, hold.took.as_secs_f64()))
        },
    ),
    (
        gauge(
            "topology_servers",
            "Servers of the cluster, by what they are good for",
        ),
        servers,
    ),
    (
        gauge(
            "topology_primary_info",
            "The server that is the primary, or was it last; the value is always 1",
        ),
        primary,
    ),
    (
        Shown::new(
            "topology_changes_total",
            "Times that something began to keep clients from the primary, by what it was",
            Kind::Counter,
        ),
        changes,
    ),
];

const fn gauge(name: &'static str, help: &'static str) -> Shown {
    Shown::new(name, help, Kind::Gauge)
}

/// The families of all clusters.
pub(super) struct TopologyMetrics {
    clusters: Arc<Clusters>,
    descriptions: Vec<Desc>,
}

impl TopologyMetrics {
    pub(super) fn new(clusters: Arc<Clusters>) -> prometheus::Result<Self> {
        Ok(Self {
            clusters,
            descriptions: metrics::descriptions(FAMILIES.iter().map(|(shown, _)| shown))?,
        })
    }
}

impl Collector for TopologyMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut all = self.clusters.all();
        // Two databases may reach the same servers in two ways.
        all.dedup_by(|a, b| a.name() == b.name());
        let topologies: Vec<_> = all.iter().map(|cluster| cluster.topology()).collect();
        let family = |(shown, show): &(Shown, Show)| {
            let clusters = all.iter().zip(&topologies);
            let metrics = clusters.flat_map(|(cluster, topology)| show(shown, cluster, topology));
            shown.family(metrics.collect())
        };
        FAMILIES.iter().filter_map(family).collect()
    }
}

fn one(shown: &Shown, cluster: &Cluster, value: f64) -> Vec<Metric> {
    let labels = metrics::labels(["cluster"], [cluster.name()]);
    vec![shown.value(labels, value)]
}

fn phases(shown: &Shown, cluster: &Cluster, topology: &Topology) -> Vec<Metric> {
    let metric = |phase| {
        let labels = metrics::labels(["cluster", "phase"], [cluster.name(), phase]);
        let is_it = phase == topology.phase.as_str();
        shown.value(labels, f64::from(u8::from(is_it)))
    };
    PHASES.map(metric).into()
}

fn reason(shown: &Shown, cluster: &Cluster, topology: &Topology) -> Vec<Metric> {
    let metric = |reason: Reason| {
        let labels = metrics::labels(["cluster", "reason"], [cluster.name(), reason.as_str()]);
        shown.value(labels, 1.0)
    };
    topology.phase.reason().map(metric).into_iter().collect()
}

fn servers(shown: &Shown, cluster: &Cluster, topology: &Topology) -> Vec<Metric> {
    let metric = |state: ServerState| {
        let count = topology
            .servers
            .iter()
            .filter(|server| server.state == state)
            .count();
        let labels = metrics::labels(["cluster", "state"], [cluster.name(), state.as_str()]);
        shown.value(labels, count as f64)
    };
    ServerState::ALL.map(metric).into()
}

fn primary(shown: &Shown, cluster: &Cluster, topology: &Topology) -> Vec<Metric> {
    let Some(primary) = &topology.primary else {
        return Vec::new();
    };
    let endpoint = primary.to_string();
    let server = topology.server(primary).map_or(&*endpoint, |server| &server.name);
    let values = [cluster.name(), endpoint.as_str(), server];
    let labels = metrics::labels(["cluster", "endpoint", "server"], values);
    vec![shown.value(labels, 1.0)]
}

fn changes(shown: &Shown, cluster: &Cluster, _: &Topology) -> Vec<Metric> {
    let metric = |(reason, count): (Reason, u64)| {
        let labels = metrics::labels(["cluster", "reason"], [cluster.name(), reason.as_str()]);
        shown.value(labels, count as f64)
    };
    cluster.absences().map(metric).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        topology::{Failure, Observation, Rules, Seen},
        types::Endpoint,
    };

    fn endpoint(host: &str) -> Endpoint {
        Endpoint::Tcp {
            host: host.to_owned(),
            port: 5432,
        }
    }

    #[test]
    fn what_has_kept_clients_from_a_primary_is_counted_and_the_primary_named() {
        let (now, hosts) = (Instant::now(), ["a", "b"].map(endpoint).into());
        let rules = Rules {
            hold_timeout: Duration::from_secs(90),
            is_replica: false,
        };
        let cluster = Cluster::fixed(hosts, false, rules, now);
        let count = |reason: Reason| {
            let mut counts = cluster.absences();
            counts.find(|(other, _)| *other == reason).unwrap().1
        };
        let opened = Observation::Opened {
            endpoint: endpoint("a"),
            seen: Seen::Primary { timeline: None },
        };
        let failed = Observation::Failed {
            endpoint: endpoint("a"),
            failure: Failure::CannotConnectNow,
        };
        for _ in 0..2 {
            cluster.observe(&opened, now);
            cluster.observe(&failed, now);
            cluster.observe(&failed, now);
        }
        assert_eq!(count(Reason::NotAccepting), 2);
        assert_eq!(count(Reason::Fenced), 0);
        let topology = cluster.topology();
        let shown = primary(&FAMILIES[7].0, &cluster, &topology);
        let values: Vec<_> = shown[0]
            .get_label()
            .iter()
            .map(prometheus::proto::LabelPair::value)
            .collect();
        assert_eq!(values, ["a:5432,b:5432", "a:5432", "a:5432"]);
    }
}
