//! `hosts` and `cluster` of a database, and `[kubernetes]`: where servers are known from.
//!
//! It resolves no name and asks nobody.

use std::net::IpAddr;

use crate::{
    config::{
        address,
        reader::Table,
        settings::{ClusterRef, Kubernetes, Servers},
    },
    types::{Endpoint, Role},
};

/// What the operator allows: names of pods and services are made from it.
const LONGEST_CLUSTER: usize = 50;
/// A DNS label.
const LONGEST_LABEL: usize = 63;
const LABEL: &str = "small letters, digits and \"-\", with a letter or a digit first and last";

/// Why a text names no cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum NameError {
    #[error("is not the name of a cluster")]
    Cluster,
    #[error("is not a namespace and the name of a cluster")]
    Namespace,
    #[error("is longer than the {LONGEST_CLUSTER} characters that a cluster's name may have")]
    LongCluster,
    #[error("is a host, not the name of a cluster")]
    Host,
}

impl NameError {
    fn hint(self) -> String {
        match self {
            Self::Cluster => format!("such as \"mypg\" or \"namespace/mypg\": {LABEL}"),
            Self::Namespace => format!("one \"/\" at most, and on both sides {LABEL}"),
            Self::LongCluster => "it is the name of the Cluster object".to_owned(),
            Self::Host => {
                "set it as hosts, or name the Cluster object: role says which of its services is meant"
                    .to_owned()
            }
        }
    }
}

/// What a database has of `hosts` and `cluster`.
pub(super) fn servers(table: &Table<'_>) -> Servers {
    let hosts = table.has("hosts").then(|| hosts(table));
    let cluster = table.has("cluster").then(|| cluster(table));
    match (hosts, cluster) {
        (Some(hosts), None) => Servers::Hosts(hosts),
        (None, Some(cluster)) => {
            only_with_hosts(table);
            cluster.map_or(Servers::Hosts(Vec::new()), Servers::Cluster)
        }
        (Some(hosts), Some(_)) => {
            let hint = "servers are listed in hosts, or found by the name of their cluster";
            table.problem(
                "cluster",
                "cannot be set together with hosts",
                Some(hint.to_owned()),
            );
            Servers::Hosts(hosts)
        }
        (None, None) => {
            let hint = "such as hosts = \"127.0.0.1:5432\", or cluster = \"mypg\" in Kubernetes";
            table.missing("hosts", "is required", hint);
            Servers::Hosts(Vec::new())
        }
    }
}

/// `fall_back_to_primary` and `replica_cluster`.
pub(super) fn primary(table: &Table<'_>, role: Role) -> (bool, bool) {
    let falls_back = table.flag("fall_back_to_primary").unwrap_or(false);
    if falls_back && role != Role::ReadOnly && table.is_sound(&["role"]) {
        let hint = "set role = \"ro\", or leave it out";
        table.problem(
            "fall_back_to_primary",
            "is for databases with role \"ro\"",
            Some(hint.to_owned()),
        );
    }
    let is_replica = table.flag("replica_cluster").unwrap_or(false);
    if is_replica && table.has("hosts") {
        let hint = "set role = \"r\" to use hosts that are standbys";
        table.problem("replica_cluster", "needs cluster", Some(hint.to_owned()));
    }
    (falls_back, is_replica)
}

pub(super) fn kubernetes(table: &Table<'_>) -> Kubernetes {
    let api_server = table
        .nonempty_string("api_server")
        .filter(|url| is_api_server(table, url));
    let namespace = table.nonempty_string("namespace").filter(|name| {
        if !is_label(name) {
            let message = format!("{name:?} is not a namespace");
            table.problem("namespace", message, Some(LABEL.to_owned()));
        }
        is_label(name)
    });
    Kubernetes {
        namespace,
        api_server,
        ca_file: table.file("ca_file"),
        token_file: table.file("token_file"),
        zone: table.nonempty_string("zone"),
    }
}

fn hosts(table: &Table<'_>) -> Vec<Endpoint> {
    let base = table.report().base();
    let texts = table.strings("hosts").unwrap_or_default();
    let endpoints = texts.iter().filter_map(|text| {
        address::endpoint(&text.text, base)
            .map_err(|error| {
                let hint = error.hint().map(str::to_owned);
                table.problem_in("hosts", text, format!("{:?} {error}", text.text), hint);
            })
            .ok()
    });
    endpoints.collect()
}

fn cluster(table: &Table<'_>) -> Option<ClusterRef> {
    let text = table.string("cluster")?;
    cluster_ref(&text)
        .map_err(|error| table.problem("cluster", format!("{text:?} {error}"), Some(error.hint())))
        .ok()
}

fn cluster_ref(text: &str) -> Result<ClusterRef, NameError> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    if namespace.is_some_and(|namespace| !is_label(namespace) || name.contains('/')) {
        return Err(NameError::Namespace);
    }
    if name.contains('.') {
        return Err(NameError::Host);
    }
    if name.len() > LONGEST_CLUSTER {
        return Err(NameError::LongCluster);
    }
    if !is_label(name) {
        return Err(NameError::Cluster);
    }
    Ok(ClusterRef {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    })
}

pub(super) fn is_label(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty()
        && name.len() <= LONGEST_LABEL
        && name.bytes().all(inside)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// In Kubernetes servers are chosen by how busy they are.
fn only_with_hosts(table: &Table<'_>) {
    if table.has("load_balance_hosts") {
        let hint = "leave it out: in a cluster readers go to the server that is least busy";
        table.problem("load_balance_hosts", "is for hosts", Some(hint.to_owned()));
    }
}

/// The token is shown to whoever answers: without TLS, only on this machine.
fn is_api_server(table: &Table<'_>, url: &str) -> bool {
    let (host, is_plain) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(host), _) => (host, false),
        (_, Some(host)) => (host, true),
        _ => ("", false),
    };
    let authority = host.trim_end_matches('/');
    let Ok(host) = address::host(authority) else {
        let hint = "such as \"https://10.96.0.1:443\"".to_owned();
        table.problem(
            "api_server",
            format!("{url:?} is not the URL of a server"),
            Some(hint),
        );
        return false;
    };
    let is_here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if is_plain && !is_here {
        let message = "must be https:// except on this machine";
        let hint = "the token would be sent for everybody to read".to_owned();
        table.problem("api_server", message, Some(hint));
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clusters() {
        let good = |text: &str| cluster_ref(text).map(|cluster| cluster.to_string());
        for text in ["mypg", "mypg-yc", "my-rw", "db/mypg-yc", "0", &"x".repeat(50)] {
            assert_eq!(good(text), Ok(text.to_owned()), "{text}");
        }
        for (text, error) in [
            ("", NameError::Cluster),
            ("MyPg", NameError::Cluster),
            ("my_pg", NameError::Cluster),
            ("-pg", NameError::Cluster),
            ("pg-", NameError::Cluster),
            ("pg,pg2", NameError::Cluster),
            ("db/", NameError::Cluster),
            ("/pg", NameError::Namespace),
            ("a/b/c", NameError::Namespace),
            ("pg-rw.db.svc", NameError::Host),
            (&"x".repeat(51), NameError::LongCluster),
        ] {
            assert_eq!(cluster_ref(text), Err(error), "{text}");
        }
    }
}
