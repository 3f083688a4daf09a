//! Where a database's servers are known from, and how Kubernetes is asked.
//!
//! Values only: nothing is looked up.

use std::{fmt, path::PathBuf};

use crate::types::Endpoint;

/// `hosts` or `cluster` of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// `hosts`: tried in order; `"host"`, `"host:port"`, `"[::1]:5432"`, `"unix:/run/postgresql"` (a
    /// directory, port 5432) or `"unix:/run/postgresql/.s.PGSQL.5433"`. Port 5432 if none is given.
    Hosts(Vec<Endpoint>),
    /// `cluster`
    Cluster(ClusterRef),
}

/// A CloudNativePG cluster: `"name"` or `"namespace/name"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterRef {
    /// The namespace, where one is given; otherwise `kubernetes.namespace`, or that of the pod.
    pub namespace: Option<String>,
    /// The name of the `Cluster` object, from which those of its services are made.
    pub name: String,
}

/// `[kubernetes]`: how the API server is reached; without it, as from any pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Kubernetes {
    /// `namespace`: of clusters that name none; without it, the pod's own.
    pub namespace: Option<String>,
    /// `api_server`: a URL; without it, the service that every pod is told of.
    pub api_server: Option<String>,
    /// `ca_file`: the CAs that sign its certificate; without it, the service account's.
    pub ca_file: Option<PathBuf>,
    /// `token_file`: what it is shown; without it, the service account's.
    pub token_file: Option<PathBuf>,
    /// `zone`: where this pooler is; readers go to servers in the same zone first.
    pub zone: Option<String>,
}

impl Servers {
    /// The hosts; none for a cluster.
    pub fn hosts(&self) -> &[Endpoint] {
        match self {
            Self::Hosts(hosts) => hosts,
            Self::Cluster(_) => &[],
        }
    }

    /// The cluster, if it is one.
    pub fn cluster(&self) -> Option<&ClusterRef> {
        match self {
            Self::Hosts(_) => None,
            Self::Cluster(cluster) => Some(cluster),
        }
    }
}

impl fmt::Display for ClusterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}
