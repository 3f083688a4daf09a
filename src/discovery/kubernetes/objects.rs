//! The parts of Kubernetes' objects that say something about servers. Everything else in them is ignored.
//!
//! What a server may leave out or write as null is optional here.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::topology::{ClusterFacts, ClusterPhase, Fenced, LeaseFacts};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const FENCED: &str = "cnpg.io/fencedInstances";
const HIBERNATION: &str = "cnpg.io/hibernation";
/// `status.targetPrimary` while a new primary has to be chosen.
const PENDING: &str = "pending";

/// What all objects have.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) resource_version: String,
    pub(super) labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

/// `discovery.k8s.io/v1` EndpointSlice
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointSlice {
    pub(super) metadata: Metadata,
    pub(super) address_type: String,
    pub(super) endpoints: Option<Vec<Endpoint>>,
    pub(super) ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) addresses: Option<Vec<String>>,
    pub(super) conditions: Option<Conditions>,
    pub(super) target_ref: Option<TargetRef>,
    pub(super) zone: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct TargetRef {
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Port {
    pub(super) name: Option<String>,
    pub(super) port: Option<u16>,
}

/// `postgresql.cnpg.io/v1` Cluster
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cluster {
    pub(super) metadata: Metadata,
    spec: Option<ClusterSpec>,
    status: Option<ClusterStatus>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ClusterSpec {
    replica: Option<Replica>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Replica {
    enabled: Option<bool>,
    /// Which cluster of a distributed topology is the primary one.
    primary: Option<String>,
    /// What this one is called in it; its own name if it is not said.
    #[serde(rename = "self")]
    own: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClusterStatus {
    current_primary: Option<String>,
    target_primary: Option<String>,
    phase: Option<String>,
    conditions: Option<Vec<ClusterCondition>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ClusterCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// `coordination.k8s.io/v1` Lease
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Lease {
    pub(super) metadata: Metadata,
    spec: Option<LeaseSpec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LeaseSpec {
    holder_identity: Option<String>,
}

impl EndpointSlice {
    /// The service that it belongs to.
    pub(super) fn service(&self) -> Option<&str> {
        let labels = self.metadata.labels.as_ref()?;
        labels.get(SERVICE_LABEL).map(String::as_str)
    }
}

impl Metadata {
    fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

impl Cluster {
    pub(super) fn facts(&self) -> ClusterFacts {
        let status = self.status.clone().unwrap_or_default();
        let target = status.target_primary.filter(|target| !target.is_empty());
        let current = status.current_primary.filter(|current| !current.is_empty());
        ClusterFacts {
            current_primary: current.map(Into::into),
            is_pending: target.as_deref() == Some(PENDING),
            target_primary: target.filter(|target| target != PENDING).map(Into::into),
            phase: phase(&status.phase.unwrap_or_default()),
            fenced: self.metadata.annotation(FENCED).map(fenced).unwrap_or_default(),
            is_hibernated: self.metadata.annotation(HIBERNATION) == Some("on")
                || status
                    .conditions
                    .iter()
                    .flatten()
                    .any(ClusterCondition::hibernates),
            is_replica: self.is_replica(),
        }
    }

    fn is_replica(&self) -> bool {
        let replica = self.spec.as_ref().and_then(|spec| spec.replica.as_ref());
        let Some(replica) = replica else { return false };
        let own = replica.own.as_deref().unwrap_or(&self.metadata.name);
        let follows = |primary: &String| !primary.is_empty() && primary != own;
        replica
            .enabled
            .unwrap_or_else(|| replica.primary.as_ref().is_some_and(follows))
    }
}

impl ClusterCondition {
    fn hibernates(&self) -> bool {
        self.kind == HIBERNATION && self.status == "True"
    }
}

impl Lease {
    pub(super) fn facts(&self) -> LeaseFacts {
        let spec = self.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        LeaseFacts {
            holder: holder.map(Into::into),
        }
    }
}

fn phase(text: &str) -> ClusterPhase {
    match text {
        "Cluster in healthy state" => ClusterPhase::Healthy,
        "Switchover in progress" => ClusterPhase::Switchover,
        "Failing over" => ClusterPhase::FailingOver,
        "Primary instance is being restarted in-place"
        | "Primary instance is being restarted without a switchover" => ClusterPhase::PrimaryRestart,
        _ => ClusterPhase::Other,
    }
}

/// The annotation is a list of names, written as JSON. The operator fences nothing by a text that is none.
fn fenced(text: &str) -> Fenced {
    let names: Vec<Box<str>> = serde_json::from_str(text).unwrap_or_default();
    if names.iter().any(|name| &**name == "*") {
        Fenced::All
    } else if names.is_empty() {
        Fenced::None
    } else {
        Fenced::Some(names.into_iter().collect())
    }
}
