//! What is said about the cluster: the fields of its objects that anybody looks at, and who is told.
//!
//! It knows what the words are, not when they are true: that is the scripts' business.

use std::net::SocketAddr;

use super::support::{
    Link, Rig,
    api_server::{ApiServer, EndpointSpec, Service},
};

/// The cluster's name.
pub(super) const CLUSTER: &str = "bank";

/// Everything that is said. Pods are meant by their number.
#[derive(Debug, Clone)]
pub(super) struct Announced {
    pub(super) pods: Vec<Pod>,
    pub(super) current: usize,
    pub(super) target: Target,
    pub(super) phase: Phase,
    pub(super) lease: Lease,
    /// The annotation `cnpg.io/fencedInstances` has the current primary.
    pub(super) is_primary_fenced: bool,
}

/// One pod.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) address: SocketAddr,
    pub(super) label: Label,
    pub(super) is_ready: bool,
    pub(super) is_terminating: bool,
}

/// `cnpg.io/instanceRole`: `-rw` selects the primary, `-ro` the replicas, and `-r` does not look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Primary,
    Replica,
    Unhealthy,
}

/// `status.targetPrimary`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Pod(usize),
    Pending,
}

/// `status.phase`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Healthy,
    Switchover,
    FailingOver,
    RestartInPlace,
}

/// Who holds the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lease {
    /// This version has none.
    None,
    Held(usize),
    /// Its holder has let go of it.
    Released,
}

/// How an API server can be away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Away {
    /// It takes requests and never says anything.
    Frozen,
    /// Its connections are reset, and new ones refused.
    Killed,
}

/// Those who are told.
pub(super) struct Audience {
    /// What a ClusterIP service does: new connections lead to the endpoint, or are refused if there is none.
    service: Link,
    api_server: ApiServer,
}

impl Announced {
    /// All is well, and the first server is the primary.
    pub(super) fn healthy(rig: &Rig, has_lease: bool) -> Self {
        let pod = |index| Pod {
            address: rig.address(index),
            label: if index == 0 {
                Label::Primary
            } else {
                Label::Replica
            },
            is_ready: true,
            is_terminating: false,
        };
        Self {
            pods: (0..rig.len()).map(pod).collect(),
            current: 0,
            target: Target::Pod(0),
            phase: Phase::Healthy,
            lease: if has_lease { Lease::Held(0) } else { Lease::None },
            is_primary_fenced: false,
        }
    }

    /// Where kube-proxy sends new connections to `-rw`: a ready pod, or else one that still serves while it goes.
    fn rw(&self) -> Option<SocketAddr> {
        let pod = self.pods.iter().find(|pod| pod.label == Label::Primary)?;
        pod.is_ready.then_some(pod.address)
    }

    fn slice(&self, selects: impl Fn(Label) -> bool) -> Vec<EndpointSpec> {
        let pods = self.pods.iter().enumerate();
        pods.filter(|(_, pod)| selects(pod.label))
            .map(|(index, pod)| EndpointSpec {
                ready: pod.is_ready && !pod.is_terminating,
                serving: pod.is_ready,
                terminating: pod.is_terminating,
                ..EndpointSpec::ready(&name(index), pod.address.ip(), pod.address.port())
            })
            .collect()
    }
}

impl Phase {
    /// The operator's words.
    fn text(self) -> &'static str {
        match self {
            Self::Healthy => "Cluster in healthy state",
            Self::Switchover => "Switchover in progress",
            Self::FailingOver => "Failing over",
            Self::RestartInPlace => "Primary instance is being restarted in-place",
        }
    }
}

impl Audience {
    pub(super) fn gather(announced: &Announced) -> Self {
        let target = announced.rw().expect("a healthy cluster has a primary");
        let mut audience = Self {
            service: Link::to(target.to_string()),
            api_server: ApiServer::start(),
        };
        audience.tell(announced);
        audience
    }

    /// The address of `-rw`.
    pub(super) fn service(&self) -> String {
        self.service.address()
    }

    /// The settings of who asks the API server.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        self.api_server.settings()
    }

    /// Says everything anew; who knows it already hears nothing new.
    pub(super) fn tell(&mut self, announced: &Announced) {
        let api = &self.api_server;
        api.cluster(CLUSTER, |cluster| {
            cluster.current_primary = name(announced.current);
            cluster.target_primary = match announced.target {
                Target::Pod(index) => name(index),
                Target::Pending => "pending".to_owned(),
            };
            announced.phase.text().clone_into(&mut cluster.phase);
            let fenced = announced.is_primary_fenced.then(|| name(announced.current));
            cluster.fenced = fenced.into_iter().collect();
        });
        match announced.lease {
            Lease::None => {}
            Lease::Held(index) => api.lease(CLUSTER, &name(index)),
            Lease::Released => api.lease(CLUSTER, ""),
        }
        let role = |wanted| move |label| label == wanted;
        api.slice(CLUSTER, Service::Rw, &announced.slice(role(Label::Primary)));
        api.slice(CLUSTER, Service::Ro, &announced.slice(role(Label::Replica)));
        api.slice(CLUSTER, Service::R, &announced.slice(|_| true));
        match announced.rw() {
            Some(address) => {
                self.service.lead_to(address.to_string());
                self.service.admit();
            }
            None => self.service.refuse(),
        }
    }

    /// kube-proxy goes on with what it knows; who asks from now on gets no answer.
    pub(super) fn api_server_goes_away(&mut self, how: Away) {
        match how {
            Away::Frozen => self.api_server.freeze(),
            Away::Killed => self.api_server.kill(),
        }
    }

    pub(super) fn api_server_comes_back(&mut self) {
        self.api_server.heal();
    }

    /// How many requests the API server did not allow: more than the Role of the chart does.
    pub(super) fn refused(&self) -> usize {
        let requests = self.api_server.requests();
        requests.iter().filter(|request| request.status == 403).count()
    }
}

/// A pod's name.
fn name(index: usize) -> String {
    format!("{CLUSTER}-{}", index + 1)
}
