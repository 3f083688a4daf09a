//! What has been said of one cluster, object by object, and what that comes to. Pure.
//!
//! A service can have several slices for a while, and two of them may tell different things of one pod: the one that was
//! written later counts.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Resource,
    event::Object,
    objects::{self, EndpointSlice, Port},
    watcher::Knowledge,
};
use crate::{
    topology::{ClusterFacts, Condition, Facts, Instance, LeaseFacts},
    types::Endpoint,
};

const PORT_NAME: &str = "postgres";
/// A slice without a port says nothing about it.
const DEFAULT_PORT: u16 = 5432;

/// The services of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Rw,
    Ro,
    R,
}

/// One slice, as far as it tells of servers.
#[derive(Debug, Clone)]
struct Slice {
    service: Service,
    /// Slices that were written later have larger ones.
    order: u64,
    members: Vec<Member>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone)]
struct Member {
    name: Box<str>,
    address: IpAddr,
    port: u16,
    zone: Option<Box<str>>,
    condition: Condition,
}

/// The objects of one cluster.
#[derive(Debug)]
pub(super) struct Index {
    cluster_name: Box<str>,
    slices: BTreeMap<String, Slice>,
    slices_known: bool,
    cluster: Option<ClusterFacts>,
    lease: Option<LeaseFacts>,
    written: u64,
}

impl Index {
    /// Nothing is known of this cluster.
    pub(super) fn new(cluster_name: &str) -> Self {
        Self {
            cluster_name: cluster_name.into(),
            slices: BTreeMap::new(),
            slices_known: false,
            cluster: None,
            lease: None,
            written: 0,
        }
    }

    /// The names of its services, as slices are labelled with them.
    pub(super) fn services(cluster_name: &str) -> [String; 3] {
        ["rw", "ro", "r"].map(|service| format!("{cluster_name}-{service}"))
    }
}

impl Knowledge for Index {
    type Facts = Facts;

    fn apply(&mut self, object: Object) {
        match object {
            Object::Slice(slice) => self.apply_slice(&slice),
            Object::Cluster(cluster) if *cluster.metadata.name == *self.cluster_name => {
                self.cluster = Some(cluster.facts());
            }
            Object::Lease(lease) if *lease.metadata.name == *self.cluster_name => {
                self.lease = Some(lease.facts());
            }
            Object::Cluster(_) | Object::Lease(_) => {}
        }
    }

    fn delete(&mut self, resource: Resource, name: &str) {
        match resource {
            Resource::EndpointSlices => {
                self.slices.remove(name);
            }
            Resource::Clusters if *name == *self.cluster_name => self.cluster = None,
            Resource::Leases if *name == *self.cluster_name => self.lease = None,
            Resource::Clusters | Resource::Leases => {}
        }
    }

    fn reset(&mut self, resource: Resource, mut objects: Vec<Object>) {
        self.forget(resource);
        self.slices_known |= resource == Resource::EndpointSlices;
        objects.sort_by_key(version);
        for object in objects {
            self.apply(object);
        }
    }

    fn forget(&mut self, resource: Resource) {
        match resource {
            Resource::EndpointSlices => {
                self.slices.clear();
                self.slices_known = false;
            }
            Resource::Clusters => self.cluster = None,
            Resource::Leases => self.lease = None,
        }
    }

    fn facts(&self) -> Facts {
        let mut slices: Vec<&Slice> = self.slices.values().collect();
        slices.sort_by_key(|slice| slice.order);
        let mut instances: BTreeMap<&str, Instance> = BTreeMap::new();
        for slice in slices {
            for member in &slice.members {
                let instance = instances.entry(&member.name).or_insert_with(|| member.instance());
                member.update(instance, slice.service);
            }
        }
        Facts {
            instances: instances.into_values().collect(),
            slices_known: self.slices_known,
            cluster: self.cluster.clone(),
            lease: self.lease.clone(),
        }
    }
}

impl Index {
    fn apply_slice(&mut self, slice: &EndpointSlice) {
        let name = slice.metadata.name.clone();
        let Some(service) = self.service(slice) else {
            // Its label has been changed: it is not one of ours any more.
            self.slices.remove(&name);
            return;
        };
        self.written += 1;
        let slice = Slice {
            service,
            order: self.written,
            members: members(slice),
        };
        self.slices.insert(name, slice);
    }

    fn service(&self, slice: &EndpointSlice) -> Option<Service> {
        match slice.service()?.strip_prefix(&*self.cluster_name)? {
            "-rw" => Some(Service::Rw),
            "-ro" => Some(Service::Ro),
            "-r" => Some(Service::R),
            _ => None,
        }
    }
}

impl Member {
    fn instance(&self) -> Instance {
        Instance {
            name: self.name.clone(),
            endpoint: self.endpoint(),
            zone: None,
            rw: None,
            ro: None,
            r: None,
        }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp {
            host: self.address.to_string(),
            port: self.port,
        }
    }

    /// Says of the instance what this slice says of it.
    fn update(&self, instance: &mut Instance, service: Service) {
        let place = match service {
            Service::Rw => &mut instance.rw,
            Service::Ro => &mut instance.ro,
            Service::R => &mut instance.r,
        };
        *place = Some(self.condition);
        instance.zone = self.zone.clone().or(instance.zone.take());
        // A pod with an address of each kind is in a slice for each: it keeps the first kind.
        if self.address.is_ipv4() || is_ipv6(&instance.endpoint) {
            instance.endpoint = self.endpoint();
        }
    }
}

fn is_ipv6(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Tcp { host, .. } if host.contains(':'))
}

/// Versions are numbers. Should they ever be something else, the order does not matter.
fn version(object: &Object) -> u64 {
    let metadata = match object {
        Object::Slice(slice) => &slice.metadata,
        Object::Cluster(cluster) => &cluster.metadata,
        Object::Lease(lease) => &lease.metadata,
    };
    metadata.resource_version.parse().unwrap_or(0)
}

/// The endpoints that can be dialled: pods without an address, and names in place of addresses, cannot.
fn members(slice: &EndpointSlice) -> Vec<Member> {
    if slice.address_type == "FQDN" {
        return Vec::new();
    }
    let Some(port) = port(slice.ports.as_deref().unwrap_or_default()) else {
        return Vec::new();
    };
    let endpoints = slice.endpoints.iter().flatten();
    endpoints.filter_map(|endpoint| member(endpoint, port)).collect()
}

fn member(endpoint: &objects::Endpoint, port: u16) -> Option<Member> {
    // Slices that controllers write have one address for each endpoint.
    let address = endpoint.addresses.as_ref()?.first()?;
    let address: IpAddr = address.parse().ok()?;
    let pod = endpoint.target_ref.as_ref().filter(|target| {
        let kind = target.kind.as_deref();
        kind.is_none_or(|kind| kind == "Pod")
    });
    let name = pod
        .and_then(|pod| pod.name.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| address.to_string());
    let conditions = endpoint.conditions.unwrap_or_default();
    Some(Member {
        name: name.into(),
        address,
        port,
        zone: endpoint.zone.as_deref().map(Into::into),
        condition: Condition {
            ready: conditions.ready.unwrap_or(true),
            terminating: conditions.terminating.unwrap_or(false),
        },
    })
}

/// The one that is called so, or the only one; their order is not fixed.
fn port(ports: &[Port]) -> Option<u16> {
    let named = ports.iter().find(|port| port.name.as_deref() == Some(PORT_NAME));
    match (named, ports) {
        (Some(port), _) | (None, [port]) => port.port,
        (None, []) => Some(DEFAULT_PORT),
        (None, _) => None,
    }
}
