//! SHOW TOPOLOGY: a row for each server of each cluster.

use std::{sync::Arc, time::Instant};

use super::{bigint, text_column};
use crate::{
    topology::{Cluster, Hold, Seen, Server, Topology},
    wire::rows::{Column, Row},
};

pub(super) const COLUMNS: &[Column] = &[
    text_column("cluster"),
    text_column("server"),
    text_column("addr"),
    text_column("zone"),
    text_column("role"),
    text_column("state"),
    text_column("primary"),
    text_column("phase"),
    text_column("reason"),
    bigint("phase_seconds"),
    bigint("generation"),
    bigint("held_clients"),
    text_column("last_hold_reason"),
    text_column("last_hold_from"),
    text_column("last_hold_seconds"),
];

/// What a SHOW of these clusters at this time shows. One without a server is shown too.
pub(super) fn topology(clusters: &[Arc<Cluster>], now: Instant) -> Vec<Row> {
    let rows = clusters.iter().flat_map(|cluster| {
        let topology = cluster.topology();
        if topology.servers.is_empty() {
            return vec![row(cluster, &topology, None, now)];
        }
        let servers = topology.servers.iter();
        servers
            .map(|server| row(cluster, &topology, Some(server), now))
            .collect()
    });
    rows.collect()
}

fn row(cluster: &Cluster, topology: &Topology, server: Option<&Server>, now: Instant) -> Row {
    let is_primary = server.is_some_and(|server| topology.primary.as_ref() == Some(&server.endpoint));
    let seen = server.and_then(|server| server.seen);
    let role = seen.map_or("", |seen| match seen {
        Seen::Primary { .. } => "primary",
        Seen::Standby => "standby",
    });
    let hold = |show: fn(&Hold) -> String| topology.last_hold.as_ref().map(show).unwrap_or_default();
    let text = |show: fn(&Server) -> String| server.map(show).unwrap_or_default();
    let row = [
        cluster.name().to_owned(),
        text(|server| server.name.to_string()),
        text(|server| server.endpoint.to_string()),
        text(|server| server.zone.as_deref().unwrap_or_default().to_owned()),
        role.to_owned(),
        text(|server| server.state.as_str().to_owned()),
        if is_primary { "yes" } else { "no" }.to_owned(),
        topology.phase.as_str().to_owned(),
        topology
            .phase
            .reason()
            .map_or("", |reason| reason.as_str())
            .to_owned(),
        now.saturating_duration_since(topology.since)
            .as_secs()
            .to_string(),
        topology.generation.to_string(),
        cluster.held().to_string(),
        hold(|hold| hold.reason.as_str().to_owned()),
        hold(|hold| hold.from.as_ref().map(ToString::to_string).unwrap_or_default()),
        hold(|hold| format!("{:.3}", hold.took.as_secs_f64())),
    ];
    row.into_iter().map(Some).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        topology::{Observation, Rules, Services},
        types::Endpoint,
    };

    fn joined(row: &Row) -> String {
        let values: Vec<_> = row.iter().map(|value| value.as_deref().unwrap_or("-")).collect();
        values.join("|")
    }

    #[test]
    fn a_primary_and_what_is_known_of_it_are_a_row() {
        let now = Instant::now();
        let endpoint = Endpoint::Tcp {
            host: "db".to_owned(),
            port: 5432,
        };
        let rules = Rules {
            hold_timeout: Duration::from_secs(90),
            is_replica: false,
        };
        let cluster = Cluster::fixed(vec![endpoint.clone()], false, rules, now);
        let opened = Observation::Opened {
            endpoint,
            seen: Seen::Primary { timeline: None },
        };
        cluster.observe(&opened, now);
        let shown = topology(&[cluster], now + Duration::from_secs(3));
        assert_eq!(COLUMNS.len(), shown[0].len());
        let expected = "db:5432|db:5432|db:5432||primary|ready|yes|serving||3|1|0|||";
        assert_eq!(joined(&shown[0]), expected);
    }

    #[test]
    fn a_cluster_that_nothing_is_known_of_is_shown() {
        let now = Instant::now();
        let rules = Rules {
            hold_timeout: Duration::from_secs(90),
            is_replica: false,
        };
        let endpoint = Endpoint::Unix("/nowhere".into());
        let services = Services {
            rw: endpoint.clone(),
            ro: endpoint.clone(),
            r: endpoint,
        };
        let cluster = Cluster::discovered("mypg-yc", services, rules, now);
        let shown = topology(&[cluster], now);
        assert_eq!(joined(&shown[0]), "mypg-yc||||||no|holding|unknown|0|0|0|||");
    }
}
