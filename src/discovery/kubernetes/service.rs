//! Which pods are behind a service of any kind. Pure, but for what begins to watch it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{
    Resource,
    client::{Client, ClientError, Query},
    event::Object,
    metrics::Families,
    objects::EndpointSlice,
    watcher::{Board, Knowledge, follow},
};
use crate::{config::ServiceRef, lifecycle::Tasks};

/// One pod of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Its name; its address where it is none.
    pub name: Box<str>,
    /// Its address.
    pub address: IpAddr,
    /// The ports of the service, by name.
    pub ports: Vec<(Box<str>, u16)>,
}

/// Who is told the pods: each time that they have changed.
pub type Pods = Arc<dyn Fn(Vec<Pod>) + Send + Sync>;

/// The slices of one service.
#[derive(Debug)]
pub(super) struct ServiceIndex {
    name: Box<str>,
    slices: BTreeMap<String, Vec<Pod>>,
}

/// Watches the endpoints of a service until `stop` is cancelled.
///
/// # Errors
/// Its namespace is not known.
pub fn spawn_service(
    tasks: &Tasks,
    client: &Client,
    service: &ServiceRef,
    pods: Pods,
    metrics: &Families,
    stop: &CancellationToken,
) -> Result<(), ClientError> {
    let namespace = client.namespace(service.namespace.as_deref())?;
    let name = format!("{namespace}/{}", service.name);
    let board = Board::new(ServiceIndex::new(&service.name), pods);
    let query = Query {
        resource: Resource::EndpointSlices,
        namespace,
        services: vec![service.name.clone()],
        object: service.name.clone(),
    };
    follow(tasks, client, query, board, metrics, &name, stop);
    Ok(())
}

impl ServiceIndex {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            slices: BTreeMap::new(),
        }
    }
}

impl Knowledge for ServiceIndex {
    type Facts = Vec<Pod>;

    fn apply(&mut self, object: Object) {
        let Object::Slice(slice) = object else { return };
        let name = slice.metadata.name.clone();
        if slice.service() == Some(&*self.name) {
            self.slices.insert(name, pods(&slice));
        } else {
            self.slices.remove(&name);
        }
    }

    fn delete(&mut self, _: Resource, name: &str) {
        self.slices.remove(name);
    }

    fn reset(&mut self, _: Resource, objects: Vec<Object>) {
        self.slices.clear();
        objects.into_iter().for_each(|object| self.apply(object));
    }

    fn forget(&mut self, _: Resource) {
        self.slices.clear();
    }

    /// Each pod once, with an address of the first kind that it has.
    fn facts(&self) -> Vec<Pod> {
        let mut pods: BTreeMap<&str, &Pod> = BTreeMap::new();
        for pod in self.slices.values().flatten() {
            let known = pods.entry(&pod.name).or_insert(pod);
            if pod.address.is_ipv4() && known.address.is_ipv6() {
                *known = pod;
            }
        }
        pods.into_values().cloned().collect()
    }
}

/// All of them: one that is not ready has something to say, too.
fn pods(slice: &EndpointSlice) -> Vec<Pod> {
    if slice.address_type == "FQDN" {
        return Vec::new();
    }
    let ports = slice.ports.iter().flatten();
    let port =
        |port: &super::objects::Port| Some((port.name.as_deref().unwrap_or_default().into(), port.port?));
    let ports: Vec<(Box<str>, u16)> = ports.filter_map(port).collect();
    let pod = |endpoint: &super::objects::Endpoint| {
        let address: IpAddr = endpoint.addresses.as_ref()?.first()?.parse().ok()?;
        let target = endpoint.target_ref.as_ref();
        let name = target.and_then(|target| target.name.as_deref());
        Some(Pod {
            name: name.map_or_else(|| address.to_string().into(), Box::from),
            address,
            ports: ports.clone(),
        })
    };
    slice.endpoints.iter().flatten().filter_map(pod).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::discovery::kubernetes::event::List;

    fn slice(name: &str, service: &str, endpoints: &Value) -> Value {
        json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "http", "port": 9127 }],
        })
    }

    fn slices(items: &[Value]) -> Vec<Object> {
        let list = json!({
            "kind": "EndpointSliceList", "metadata": { "resourceVersion": "1" }, "items": items,
        });
        List::parse(Resource::EndpointSlices, list.to_string().as_bytes())
            .unwrap()
            .objects
    }

    fn shown(index: &ServiceIndex) -> Vec<String> {
        let show = |pod: &Pod| format!("{}@{} {:?}", pod.name, pod.address, pod.ports);
        index.facts().iter().map(show).collect()
    }

    #[test]
    fn the_pods_of_one_service_are_known_whether_ready_or_not() {
        let mut index = ServiceIndex::new("pgweir-headless");
        let endpoints = json!([
            { "addresses": ["10.0.0.2"], "targetRef": { "kind": "Pod", "name": "pgweir-b" }, "conditions": { "ready": false } },
            { "addresses": ["10.0.0.1"], "targetRef": { "kind": "Pod", "name": "pgweir-a" } },
            { "addresses": ["10.0.0.3"] },
            { "addresses": [] },
        ]);
        let other = json!([{ "addresses": ["10.0.0.9"] }]);
        index.reset(
            Resource::EndpointSlices,
            slices(&[
                slice("one", "pgweir-headless", &endpoints),
                slice("two", "pgweir", &other),
            ]),
        );
        let http = r#"[("http", 9127)]"#;
        let pods = ["10.0.0.3@10.0.0.3", "pgweir-a@10.0.0.1", "pgweir-b@10.0.0.2"];
        assert_eq!(shown(&index), pods.map(|pod| format!("{pod} {http}")));
        index.delete(Resource::EndpointSlices, "one");
        assert!(shown(&index).is_empty());
    }
}
