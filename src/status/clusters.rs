//! The clusters, as people want to see them.

use std::collections::HashMap;

use super::{
    document::{Change, Cluster, Member},
    moment::Moment,
};
use crate::{
    pool::Pools,
    server::Duty,
    topology::{self, Phase, Seen, Server, Topology},
    types::Endpoint,
};

/// How many connections there are to each server, by its cluster, and how many of them work for a client.
#[derive(Debug, Default)]
pub(super) struct Connections(HashMap<(Box<str>, Endpoint), Load>);

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    open: usize,
    active: usize,
}

impl Connections {
    pub(super) fn of(pools: &Pools) -> Self {
        let mut loads = HashMap::<_, Load>::new();
        for vitals in pools.servers().into_iter().filter_map(|server| server.vitals) {
            let server = (
                vitals.target.cluster.name().into(),
                vitals.address.endpoint.clone(),
            );
            let load = loads.entry(server).or_default();
            load.open += 1;
            load.active += usize::from(matches!(vitals.duty(), Duty::Lent | Duty::Apart));
        }
        Self(loads)
    }

    fn to(&self, cluster: &topology::Cluster, endpoint: &Endpoint) -> Load {
        let server = (cluster.name().into(), endpoint.clone());
        self.0.get(&server).copied().unwrap_or_default()
    }
}

pub(super) fn show(cluster: &topology::Cluster, connections: &Connections, now: &Moment) -> Cluster {
    let topology = cluster.topology();
    let mut history = cluster.history();
    history.reverse();
    Cluster {
        name: cluster.name().to_owned(),
        phase: topology.phase.as_str().to_owned(),
        reason: reason(topology.phase),
        explanation: explanation(topology.phase),
        since: now.at(topology.since),
        generation: topology.generation,
        primary: primary(&topology),
        shared: topology.is_shared,
        held_clients: match topology.phase {
            Phase::Serving => 0,
            _ => cluster.held(),
        },
        members: topology
            .servers
            .iter()
            .map(|server| member(connections.to(cluster, &server.endpoint), &topology, server))
            .collect(),
        history: history
            .into_iter()
            .map(|change| self::change(change, now))
            .collect(),
    }
}

fn primary(topology: &Topology) -> Option<String> {
    let endpoint = topology.primary.as_ref()?;
    let server = topology.server(endpoint);
    Some(server.map_or_else(|| endpoint.to_string(), |server| server.name.to_string()))
}

fn member(load: Load, topology: &Topology, server: &Server) -> Member {
    let role = server.seen.map(|seen| match seen {
        Seen::Primary { .. } => "primary".to_owned(),
        Seen::Standby => "standby".to_owned(),
    });
    Member {
        name: server.name.to_string(),
        address: server.endpoint.to_string(),
        zone: server.zone.as_deref().map(str::to_owned),
        role,
        state: server.state.as_str().to_owned(),
        primary: topology.primary.as_ref() == Some(&server.endpoint) && !topology.is_shared,
        connections: load.open,
        active: load.active,
    }
}

fn change(change: topology::Change, now: &Moment) -> Change {
    Change {
        at: now.at(change.at),
        phase: change.phase.as_str().to_owned(),
        reason: reason(change.phase),
        explanation: explanation(change.phase),
        primary: change.primary.map(String::from),
        held_seconds: change.took.map(|took| took.as_secs_f64()),
        held_clients: change.held,
    }
}

fn reason(phase: Phase) -> Option<String> {
    phase.reason().map(|reason| reason.as_str().to_owned())
}

fn explanation(phase: Phase) -> Option<String> {
    phase.reason().map(|reason| reason.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::*;
    use crate::{
        topology::{Observation, Rules},
        types::Endpoint,
    };

    #[test]
    fn a_cluster_is_shown_with_its_servers_and_its_past() {
        let start = Instant::now();
        let host = |name: &str| Endpoint::Tcp {
            host: name.to_owned(),
            port: 5432,
        };
        let rules = Rules {
            hold_timeout: Duration::from_secs(90),
            is_replica: false,
        };
        let cluster = topology::Cluster::fixed(vec![host("a"), host("b")], false, rules, start);
        let opened = Observation::Opened {
            endpoint: host("b"),
            seen: Seen::Primary { timeline: None },
        };
        cluster.observe(&opened, start);
        let now = Moment {
            instant: start + Duration::from_secs(10),
            unix: SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
        };
        let shown = show(&cluster, &Connections::default(), &now);
        assert_eq!(shown.phase, "serving");
        assert_eq!((&shown.reason, &shown.explanation), (&None, &None));
        assert_eq!(shown.primary.as_deref(), Some("b:5432"));
        assert!((shown.since - 990.0).abs() < 1e-6);
        let primaries: Vec<_> = shown.members.iter().map(|member| member.primary).collect();
        assert_eq!(primaries, [false, true]);
        assert_eq!(shown.history[0].phase, "serving");
        assert!((shown.history[0].at - 990.0).abs() < 1e-6);
    }
}
