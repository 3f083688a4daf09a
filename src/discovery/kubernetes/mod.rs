//! What Kubernetes says of a CloudNativePG cluster: its EndpointSlices, its `Cluster` object and its Lease.
//!
//! `index` is what has been said, without IO; `source` keeps one kind of object current; `watcher` puts the three
//! together. Whatever happens to the API server, what was known last stays known.

mod backoff;
mod client;
mod error;
mod event;
mod index;
mod lines;
mod metrics;
mod objects;
mod service;
mod source;
#[cfg(test)]
mod tests;
mod watcher;

pub use self::{
    client::{Client, ClientError},
    metrics::Families,
    service::{Pod, Pods, spawn_service},
    watcher::{Sink, spawn},
};

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Resource {
    /// `discovery.k8s.io`
    EndpointSlices,
    /// `postgresql.cnpg.io`
    Clusters,
    /// `coordination.k8s.io`
    Leases,
}

impl Resource {
    const ALL: [Self; 3] = [Self::EndpointSlices, Self::Clusters, Self::Leases];

    /// As RBAC and URLs call it.
    fn plural(self) -> &'static str {
        match self {
            Self::EndpointSlices => "endpointslices",
            Self::Clusters => "clusters",
            Self::Leases => "leases",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::EndpointSlices => "discovery.k8s.io",
            Self::Clusters => "postgresql.cnpg.io",
            Self::Leases => "coordination.k8s.io",
        }
    }

    /// What a list of them says that it is.
    fn list_kind(self) -> &'static str {
        match self {
            Self::EndpointSlices => "EndpointSliceList",
            Self::Clusters => "ClusterList",
            Self::Leases => "LeaseList",
        }
    }
}
