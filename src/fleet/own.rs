//! Which of the replicas is this one.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use super::Found;
use crate::net;

/// What this replica knows of itself.
#[derive(Debug, Clone)]
pub struct Own {
    /// What its HTTP server is bound to.
    bound: SocketAddr,
    /// In Kubernetes, the name of its pod.
    host_name: Option<String>,
}

/// The same, with the addresses that it has at this moment.
pub(super) struct OwnNow<'a> {
    own: &'a Own,
    addresses: Vec<IpAddr>,
}

impl Own {
    /// A replica whose HTTP server is bound to `bound`, on a host of this name.
    pub fn new(bound: SocketAddr, host_name: Option<String>) -> Self {
        Self { bound, host_name }
    }

    /// The name of the host as the kernel has it: in a pod, the pod's.
    pub fn host_name() -> Option<String> {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        let name = name.trim();
        (!name.is_empty()).then(|| name.to_owned())
    }

    pub(super) fn port(&self) -> u16 {
        self.bound.port()
    }

    pub(super) fn now(&self) -> OwnNow<'_> {
        // Without them it is found by its name, or is one to be asked like any other.
        let interfaces = net::interfaces().unwrap_or_default();
        OwnNow {
            own: self,
            addresses: interfaces.into_iter().map(|(address, _)| address).collect(),
        }
    }
}

impl OwnNow<'_> {
    /// Whether that is where its HTTP server is reached.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        let Own { bound, .. } = self.own;
        let ip = address.ip().to_canonical();
        let is_here = if bound.ip().is_unspecified() {
            ip.is_loopback() || self.addresses.contains(&ip)
        } else {
            bound.ip().to_canonical() == ip
        };
        is_here && address.port() == bound.port()
    }

    /// Whether that is this one.
    pub(super) fn is(&self, found: &Found) -> bool {
        self.is_at(found.address) || self.is_called(&found.name)
    }

    /// Whether that is the name of its pod.
    pub(super) fn is_called(&self, pod: &str) -> bool {
        self.own.host_name.as_deref() == Some(pod)
    }

    /// Whether that name and port are its own.
    pub(super) fn is_named(&self, host: &str, port: u16) -> bool {
        self.is_called(host) && port == self.own.port()
    }

    /// What it is called where nobody else names it.
    pub(super) fn name(&self) -> String {
        self.own
            .host_name
            .clone()
            .unwrap_or_else(|| self.own.bound.to_string())
    }
}
