//! What Kubernetes says of one cluster, as plain values. Each source may be missing; none is believed alone.
//!
//! It knows neither Kubernetes' objects nor how they are watched, and draws no conclusion: that is the machine's.

use std::collections::BTreeSet;

use crate::types::Endpoint;

/// Everything that is known of one CloudNativePG cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The instances that any of the services `-rw`, `-ro` and `-r` lists, in order of their names.
    pub instances: Vec<Instance>,
    /// Whether the slices have been read at least once. Without it `instances` says nothing.
    pub slices_known: bool,
    /// The `Cluster` object; `None` if it is not there, may not be read, or was not read yet.
    pub cluster: Option<ClusterFacts>,
    /// The `Lease` that the primary holds; `None` as above.
    pub lease: Option<LeaseFacts>,
}

/// Where the services of a cluster listen: the way to its servers as long as nobody lists those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// Leads to the primary.
    pub rw: Endpoint,
    /// Leads to a standby.
    pub ro: Endpoint,
    /// Leads to any server.
    pub r: Endpoint,
}

/// One instance: a pod with PostgreSQL in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The pod's name, or the address where a slice names no pod.
    pub name: Box<str>,
    /// The pod's address and the port named `postgres`.
    pub endpoint: Endpoint,
    /// The zone that the slice tells.
    pub zone: Option<Box<str>>,
    /// How `-rw` lists it; `None` if it does not.
    pub rw: Option<Condition>,
    /// How `-ro` lists it.
    pub ro: Option<Condition>,
    /// How `-r` lists it.
    pub r: Option<Condition>,
}

/// The conditions of an endpoint in a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Condition {
    /// `ready`; absent means ready.
    pub ready: bool,
    /// `terminating`: the pod is being deleted.
    pub terminating: bool,
}

/// What matters of the `Cluster` object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterFacts {
    /// `status.currentPrimary`
    pub current_primary: Option<Box<str>>,
    /// `status.targetPrimary`; `None` also for `"pending"`, which is `is_pending`.
    pub target_primary: Option<Box<str>>,
    /// `status.targetPrimary` is `"pending"`: the primary is to be replaced and nobody has been chosen.
    pub is_pending: bool,
    /// `status.phase`
    pub phase: ClusterPhase,
    /// The annotation `cnpg.io/fencedInstances`.
    pub fenced: Fenced,
    /// The condition `cnpg.io/hibernation` is true, or the annotation `cnpg.io/hibernation` is `on`.
    pub is_hibernated: bool,
    /// `spec.replica.enabled`, or a `spec.replica.primary` that is another cluster: the primary is a standby itself.
    pub is_replica: bool,
}

/// `status.phase`, as far as it says something about the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClusterPhase {
    /// `Cluster in healthy state`
    Healthy,
    /// `Switchover in progress`
    Switchover,
    /// `Failing over`
    FailingOver,
    /// `Primary instance is being restarted in-place`, `Primary instance is being restarted without a switchover`
    PrimaryRestart,
    /// Anything else, in which the primary works.
    #[default]
    Other,
}

/// Which instances are fenced: stopped by a person, and not replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fenced {
    /// None.
    #[default]
    None,
    /// These.
    Some(BTreeSet<Box<str>>),
    /// All (`["*"]`).
    All,
}

impl Fenced {
    /// Whether this instance is fenced.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::Some(names) => names.contains(name),
            Self::All => true,
        }
    }
}

/// What matters of the `Lease`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseFacts {
    /// `spec.holderIdentity`; `None` when it is empty: the last holder has let go of it in good order.
    pub holder: Option<Box<str>>,
}
