//! The objects that the played API server has, as the operator and the controllers of a real one write them.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// Where everything lives.
pub const NAMESPACE: &str = "db";

/// What the server knows, by the name in its URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// `discovery.k8s.io/v1`
    EndpointSlices,
    /// `postgresql.cnpg.io/v1`
    Clusters,
    /// `coordination.k8s.io/v1`
    Leases,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::EndpointSlices, Self::Clusters, Self::Leases];

    /// As RBAC and URLs call it.
    pub fn plural(self) -> &'static str {
        match self {
            Self::EndpointSlices => "endpointslices",
            Self::Clusters => "clusters",
            Self::Leases => "leases",
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::EndpointSlices => "EndpointSlice",
            Self::Clusters => "Cluster",
            Self::Leases => "Lease",
        }
    }

    /// The group of the API that it belongs to.
    pub fn group(self) -> &'static str {
        match self {
            Self::EndpointSlices => "discovery.k8s.io",
            Self::Clusters => "postgresql.cnpg.io",
            Self::Leases => "coordination.k8s.io",
        }
    }

    pub(super) fn api_version(self) -> String {
        format!("{}/v1", self.group())
    }

    /// What a bookmark carries: an object of this kind without anything in it.
    pub(super) fn bookmark(self, version: u64, is_end_of_initial: bool) -> Value {
        let mut object = json!({
            "kind": self.kind(),
            "apiVersion": self.api_version(),
            "metadata": { "resourceVersion": version.to_string() },
        });
        if is_end_of_initial {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        match self {
            Self::EndpointSlices => {
                object["addressType"] = json!("");
                object["endpoints"] = Value::Null;
                object["ports"] = Value::Null;
            }
            Self::Clusters | Self::Leases => object["spec"] = json!({}),
        }
        object
    }
}

/// The services of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// `-rw`
    Rw,
    /// `-ro`
    Ro,
    /// `-r`
    R,
}

impl Service {
    /// The service's name.
    pub fn of(self, cluster: &str) -> String {
        let suffix = match self {
            Self::Rw => "rw",
            Self::Ro => "ro",
            Self::R => "r",
        };
        format!("{cluster}-{suffix}")
    }
}

/// One endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// The pod that `targetRef` names; no `targetRef` if empty.
    pub pod: String,
    /// Its address.
    pub address: IpAddr,
    /// The port named `postgres`.
    pub port: u16,
    /// `conditions.ready`
    pub ready: bool,
    /// `conditions.serving`
    pub serving: bool,
    /// `conditions.terminating`
    pub terminating: bool,
    /// `zone`
    pub zone: Option<String>,
}

impl EndpointSpec {
    /// A pod that is ready.
    pub fn ready(pod: &str, address: impl Into<IpAddr>, port: u16) -> Self {
        Self {
            pod: pod.to_owned(),
            address: address.into(),
            port,
            ready: true,
            serving: true,
            terminating: false,
            zone: None,
        }
    }

    /// A pod that is not ready: still listed.
    pub fn unready(pod: &str, address: impl Into<IpAddr>, port: u16) -> Self {
        Self {
            ready: false,
            serving: false,
            ..Self::ready(pod, address, port)
        }
    }

    /// A pod that is being deleted while PostgreSQL in it still works.
    #[must_use]
    pub fn terminating(self) -> Self {
        Self {
            ready: false,
            terminating: true,
            ..self
        }
    }

    /// In this zone.
    #[must_use]
    pub fn zone(self, zone: &str) -> Self {
        Self {
            zone: Some(zone.to_owned()),
            ..self
        }
    }

    fn json(&self) -> Value {
        let mut endpoint = json!({
            "addresses": [self.address],
            "conditions": { "ready": self.ready, "serving": self.serving, "terminating": self.terminating },
            "nodeName": format!("node-of-{}", self.pod),
        });
        if !self.pod.is_empty() {
            endpoint["targetRef"] = json!({
                "kind": "Pod", "namespace": NAMESPACE, "name": self.pod,
                "uid": "726247e2-d702-4ec2-940a-ba6f9930ccfd",
            });
        }
        if let Some(zone) = &self.zone {
            endpoint["zone"] = json!(zone);
        }
        endpoint
    }
}

/// A slice of endpoints that all have one port; without endpoints, lists that are null, as the real controller writes.
pub(super) fn slice(name: &str, cluster: &str, service: Service, endpoints: &[EndpointSpec]) -> Value {
    let service = service.of(cluster);
    let family = match endpoints.first().map(|endpoint| endpoint.address) {
        Some(IpAddr::V6(_)) => "IPv6",
        _ => "IPv4",
    };
    let (endpoints, ports) = match endpoints.first() {
        None => (Value::Null, Value::Null),
        Some(first) => (
            endpoints.iter().map(EndpointSpec::json).collect(),
            json!([
                { "name": "metrics", "protocol": "TCP", "port": 9187 },
                { "name": "postgres", "protocol": "TCP", "port": first.port },
            ]),
        ),
    };
    json!({
        "metadata": {
            "name": name,
            "generateName": format!("{service}-"),
            "labels": {
                "app.kubernetes.io/managed-by": "cloudnative-pg",
                "cnpg.io/cluster": cluster,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": service,
            },
            "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": "2026-11-22T07:34:34Z" },
            "managedFields": [{ "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "discovery.k8s.io/v1",
                "fieldsType": "FieldsV1", "fieldsV1": { "f:endpoints": {}, "f:ports": {}, "k:{\"uid\":\"31f2\"}": {} } }],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    })
}

/// What a test says of a `Cluster` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// `status.currentPrimary`; absent if empty.
    pub current_primary: String,
    /// `status.targetPrimary`; absent if empty.
    pub target_primary: String,
    /// `status.phase`
    pub phase: String,
    /// The annotation `cnpg.io/fencedInstances`; `["*"]` is all.
    pub fenced: Vec<String>,
    /// The annotation and the condition `cnpg.io/hibernation`.
    pub hibernated: bool,
    /// `spec.replica.enabled`
    pub replica: bool,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            current_primary: String::new(),
            target_primary: String::new(),
            phase: "Cluster in healthy state".to_owned(),
            fenced: Vec::new(),
            hibernated: false,
            replica: false,
        }
    }
}

impl ClusterSpec {
    pub(super) fn json(&self, name: &str) -> Value {
        let mut annotations = Map::new();
        if !self.fenced.is_empty() {
            // A list written as a text.
            annotations.insert(
                "cnpg.io/fencedInstances".into(),
                json!(json!(self.fenced).to_string()),
            );
        }
        let mut conditions = vec![json!({ "type": "Ready", "status": "True", "reason": "ClusterIsReady" })];
        if self.hibernated {
            annotations.insert("cnpg.io/hibernation".into(), json!("on"));
            conditions
                .push(json!({ "type": "cnpg.io/hibernation", "status": "True", "reason": "Hibernated" }));
        }
        let mut status = json!({
            "phase": self.phase, "instances": 3, "readyInstances": 3, "timelineID": 1, "conditions": conditions,
        });
        for (key, value) in [
            ("currentPrimary", &self.current_primary),
            ("targetPrimary", &self.target_primary),
        ] {
            if !value.is_empty() {
                status[key] = json!(value);
            }
        }
        let mut spec = json!({ "instances": 3, "imageName": "ghcr.io/cloudnative-pg/postgresql:18" });
        if self.replica {
            spec["replica"] = json!({ "enabled": true, "source": "origin" });
        }
        json!({
            "metadata": { "name": name, "annotations": annotations, "labels": {} },
            "spec": spec,
            "status": status,
        })
    }
}

/// `renewals` makes each renewal another object, as a real one is.
pub(super) fn lease(name: &str, holder: &str, renewals: u64) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "cnpg.io/cluster": name } },
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-11-22T07:33:17.000000Z",
            "renewTime": format!("2026-11-22T07:33:17.{renewals:06}Z"),
            "leaseTransitions": 1,
        },
    })
}
