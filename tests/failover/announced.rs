//! What is said about the cluster: the fields of its objects that anybody looks at, and who is told.
//!
//! It knows what the words are, not when they are true: that is the scripts' business.

use std::net::SocketAddr;

use super::support::{Link, Rig};

/// One pod.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) address: SocketAddr,
    pub(super) is_ready: bool,
    pub(super) is_terminating: bool,
}

/// `status.targetPrimary`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Pod(usize),
    Pending,
}

/// `status.phase`, in the operator's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Healthy,
    Switchover,
    FailingOver,
    RestartInPlace,
}

/// Everything that is said. Pods are meant by their number.
#[derive(Debug, Clone)]
pub(super) struct Announced {
    pub(super) pods: Vec<Pod>,
    /// The pod with the label of a primary, which `-rw` selects; the others are `-ro`'s.
    pub(super) labelled: Option<usize>,
    pub(super) current: usize,
    pub(super) target: Target,
    pub(super) phase: Phase,
    /// Who holds the lease; nobody, if it was let go, or in versions without one.
    pub(super) lease: Option<usize>,
}

/// Those who are told.
pub(super) struct Audience {
    /// What a ClusterIP service does: new connections lead to the endpoint, or are refused if there is none.
    service: Link,
}

impl Announced {
    /// All is well, and the first server is the primary.
    pub(super) fn healthy(rig: &Rig, has_lease: bool) -> Self {
        let pod = |index| Pod {
            address: rig.address(index),
            is_ready: true,
            is_terminating: false,
        };
        Self {
            pods: (0..rig.len()).map(pod).collect(),
            labelled: Some(0),
            current: 0,
            target: Target::Pod(0),
            phase: Phase::Healthy,
            lease: has_lease.then_some(0),
        }
    }

    /// Where kube-proxy sends new connections to `-rw`: a ready pod, or else one that still serves while it goes.
    fn rw(&self) -> Option<SocketAddr> {
        let pod = &self.pods[self.labelled?];
        (pod.is_ready || pod.is_terminating).then_some(pod.address)
    }
}

impl Audience {
    pub(super) fn gather(announced: &Announced) -> Self {
        let target = announced.rw().expect("a healthy cluster has a primary");
        Self {
            service: Link::to(target.to_string()),
        }
    }

    /// The address of `-rw`.
    pub(super) fn service(&self) -> String {
        self.service.address()
    }

    /// Says everything anew; who knows it already hears nothing new.
    pub(super) fn tell(&mut self, announced: &Announced) {
        match announced.rw() {
            Some(address) => {
                self.service.lead_to(address.to_string());
                self.service.admit();
            }
            None => self.service.refuse(),
        }
    }

    /// kube-proxy goes on with what it knows and is told, as always.
    pub(super) fn api_server_goes_away(&mut self) {}

    pub(super) fn api_server_comes_back(&mut self) {}
}
