//! Which servers of a cluster a database's connections may go to, and what becomes of those that there are.
//!
//! Pure: it reads a topology and opens nothing.

use crate::{
    topology::{Phase, Reason, Seen, Server, ServerState, Services, Topology},
    types::{Endpoint, Role},
};

/// What a database's clients want of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// `role`
    pub role: Role,
    /// `fall_back_to_primary`: where there is no standby, the primary will do.
    pub fall_back: bool,
    /// Where the pooler is; servers there are preferred for reading.
    pub zone: Option<Box<str>>,
    /// Servers are tried in the order in which they are listed (`load_balance_hosts = "disable"`).
    pub in_order: bool,
}

/// What a connection that is open is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may be lent.
    Good,
    /// It may be lent when its server has said again what it is.
    Prove,
    /// It may be lent when the new primary is used.
    Keep,
    /// Never again.
    Close,
}

/// Whether clients get connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// They do.
    Open,
    /// They get those that there are; others cannot be opened.
    Limping(Reason),
    /// They wait.
    Held(Reason),
    /// They have waited for too long.
    Refused(Reason),
}

impl Wish {
    /// Where a new connection may go, best first. `load` is how many connections there are to a server.
    pub fn candidates(&self, topology: &Topology, load: impl Fn(&Endpoint) -> usize) -> Vec<Endpoint> {
        if self.role == Role::ReadWrite {
            return topology.candidates.clone();
        }
        if let Some(services) = &topology.services {
            return self.by_service(topology, services);
        }
        let there = topology.servers.iter();
        let there = there.filter(|server| server.state != ServerState::Leaving);
        let mut found: Vec<&Server> = there
            .clone()
            .filter(|server| self.suits(topology, server))
            .collect();
        if found.is_empty() && !self.fall_back {
            // One of them may have become what is wanted, and nobody else would find out.
            found = there.collect();
        }
        // The sort is stable: what is equally good stays in its order.
        found.sort_by_key(|server| {
            let load = if self.in_order { 0 } else { load(&server.endpoint) };
            let elsewhere = self.zone.is_some() && self.zone != server.zone;
            (server.state, elsewhere, load)
        });
        let mut found: Vec<Endpoint> = found.iter().map(|server| server.endpoint.clone()).collect();
        match &topology.primary {
            Some(primary) if self.falls_back(topology) => found.insert(0, primary.clone()),
            // What nobody lists may work all the same.
            Some(primary) if self.role == Role::Any && found.is_empty() => found.push(primary.clone()),
            _ => {}
        }
        found
    }

    /// What becomes of a connection of this generation.
    pub fn standing(&self, topology: &Topology, endpoint: &Endpoint, generation: u64) -> Standing {
        if self.role == Role::ReadWrite {
            return standing_for_writing(topology, endpoint, generation);
        }
        if let Some(services) = &topology.services {
            return match self.by_service(topology, services).contains(endpoint) {
                true => Standing::Good,
                false => Standing::Close,
            };
        }
        match topology.server(endpoint) {
            Some(server) if server.state >= ServerState::NotAccepting => Standing::Close,
            // It works, and may do so for longer than Kubernetes says that it is not ready.
            Some(server) if server.state == ServerState::NotReady && self.has_ready(topology) => {
                Standing::Close
            }
            Some(server) if self.suits(topology, server) => Standing::Good,
            Some(_) if topology.primary.as_ref() == Some(endpoint) && self.falls_back(topology) => {
                Standing::Good
            }
            None if self.role == Role::Any && topology.primary.as_ref() == Some(endpoint) => Standing::Good,
            _ => Standing::Close,
        }
    }

    /// Whether clients get connections.
    pub fn gate(&self, topology: &Topology) -> Gate {
        match (self.role, topology.phase) {
            (Role::ReadOnly, _) if !self.is_served(topology) => Gate::Limping(Reason::NoEndpoint),
            (Role::ReadOnly | Role::Any, _) | (_, Phase::Serving) => Gate::Open,
            (_, Phase::Limping(reason)) => Gate::Limping(reason),
            (_, Phase::Holding(reason)) => Gate::Held(reason),
            (_, Phase::Degraded(reason)) => Gate::Refused(reason),
        }
    }

    /// Whether even a connection that works for a client is to be closed: another server is the primary.
    pub fn is_fenced(&self, topology: &Topology, endpoint: &Endpoint) -> bool {
        let primary = topology.primary.as_ref();
        self.role == Role::ReadWrite
            && !topology.is_shared
            && topology.alias.as_ref() != Some(endpoint)
            && primary.is_some_and(|primary| primary != endpoint)
    }

    /// Where readers go as long as nobody lists the servers.
    fn by_service(&self, topology: &Topology, services: &Services) -> Vec<Endpoint> {
        let service = match self.role {
            Role::ReadWrite => &services.rw,
            Role::ReadOnly => &services.ro,
            Role::Any => &services.r,
        };
        let falls_back = self.role == Role::ReadOnly && self.fall_back && topology.phase.is_open();
        let primary = topology.primary.as_ref().filter(|_| falls_back);
        std::iter::once(service).chain(primary).cloned().collect()
    }

    fn suits(&self, topology: &Topology, server: &Server) -> bool {
        match self.role {
            Role::Any => true,
            Role::ReadWrite => false,
            Role::ReadOnly => {
                let writes = matches!(server.seen, Some(Seen::Primary { .. }));
                let is_primary = topology.primary.as_ref() == Some(&server.endpoint);
                !is_primary && (topology.is_replica || !writes)
            }
        }
    }

    /// Whether any server is known that readers may go to. Where none is, looking for one is not everybody's business.
    fn is_served(&self, topology: &Topology) -> bool {
        let mut servers = topology.servers.iter();
        topology.services.is_some()
            || servers.any(|server| server.state != ServerState::Leaving && self.suits(topology, server))
            || self.falls_back(topology)
    }

    fn falls_back(&self, topology: &Topology) -> bool {
        self.role == Role::ReadOnly && self.fall_back && topology.phase.is_open() && !self.has_ready(topology)
    }

    fn has_ready(&self, topology: &Topology) -> bool {
        let mut servers = topology.servers.iter();
        servers.any(|server| server.state == ServerState::Ready && self.suits(topology, server))
    }
}

fn standing_for_writing(topology: &Topology, endpoint: &Endpoint, generation: u64) -> Standing {
    let Some(primary) = topology.primary.as_ref().filter(|_| !topology.is_shared) else {
        let server = topology.server(endpoint);
        let writes = server.is_some_and(|server| server.seen != Some(Seen::Standby));
        let stays = server.is_some_and(|server| server.state < ServerState::NotAccepting);
        return if stays && (writes || topology.is_replica) {
            Standing::Good
        } else {
            Standing::Close
        };
    };
    if primary != endpoint {
        Standing::Close
    } else if !topology.phase.is_open() {
        if topology.is_leaving {
            Standing::Close
        } else {
            Standing::Keep
        }
    } else if generation == topology.generation {
        Standing::Good
    } else {
        Standing::Prove
    }
}

#[cfg(test)]
mod tests;
