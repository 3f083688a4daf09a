//! The servers of a cluster, and what each of them has shown.

use super::{Machine, Source};
use crate::{
    topology::{
        Failure, Seen, Server, ServerState,
        facts::{Condition, Instance},
    },
    types::Endpoint,
};

/// What a server has shown last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sighting {
    pub(super) seen: Option<Seen>,
    /// Nobody could log in, since somebody could.
    pub(super) failure: Option<Failure>,
}

impl Machine {
    pub(super) fn sighting(&mut self, endpoint: &Endpoint) -> &mut Sighting {
        self.sightings.entry(endpoint.clone()).or_default()
    }

    /// Forgets servers that are no longer part of the cluster.
    pub(super) fn forget_strangers(&mut self) {
        if let Source::Facts(facts) = &self.source {
            let known = |endpoint: &Endpoint| facts.instances.iter().any(|one| one.endpoint == *endpoint);
            let primary = self.primary.as_ref();
            self.sightings
                .retain(|endpoint, _| known(endpoint) || primary == Some(endpoint));
        }
    }

    /// Whether none of the servers takes connections.
    pub(super) fn all_fail(&self) -> bool {
        let failing = |endpoint: &Endpoint| {
            let sighting = self.sightings.get(endpoint);
            sighting.is_some_and(|sighting| sighting.failure.is_some())
        };
        match &self.source {
            Source::Hosts { hosts, .. } => hosts.iter().all(failing),
            Source::Facts(facts) => facts.instances.iter().all(|one| failing(&one.endpoint)),
        }
    }

    /// Whether a server was a standby the last time that somebody was there.
    pub(super) fn is_standby(&self, endpoint: &Endpoint) -> bool {
        let sighting = self.sightings.get(endpoint);
        sighting.is_some_and(|sighting| sighting.seen == Some(Seen::Standby))
    }

    /// Whether a server was no primary the last time that somebody looked.
    pub(super) fn is_away(&self, endpoint: &Endpoint) -> bool {
        let sighting = self.sightings.get(endpoint);
        self.is_standby(endpoint) || sighting.is_some_and(|sighting| sighting.failure.is_some())
    }

    pub(super) fn endpoint_of(&self, name: &str) -> Option<Endpoint> {
        match &self.source {
            Source::Facts(facts) => Some(facts.instance(name)?.endpoint.clone()),
            Source::Hosts { .. } => None,
        }
    }

    pub(super) fn name_of(&self, endpoint: &Endpoint) -> Option<Box<str>> {
        match &self.source {
            Source::Facts(facts) => {
                let instance = facts.instances.iter().find(|one| one.endpoint == *endpoint)?;
                Some(instance.name.clone())
            }
            Source::Hosts { .. } => Some(endpoint.to_string().into()),
        }
    }

    /// Where the primary may be found, best first: who is said to come, whoever else there is, who leaves.
    pub(super) fn candidates(&self) -> Vec<Endpoint> {
        let mut found: Vec<Endpoint> = Vec::new();
        let mut add = |endpoint: Option<Endpoint>| {
            if let Some(endpoint) = endpoint
                && !found.contains(&endpoint)
            {
                found.push(endpoint);
            }
        };
        let promise = self.absence.as_ref().and_then(|absence| absence.promise.as_ref());
        let promise = promise.map(|promise| &promise.endpoint);
        // It has been asked, and goes on for the moment.
        let asked = promise.filter(|endpoint| self.is_to_leave(endpoint));
        add(promise.filter(|_| asked.is_none()).cloned());
        match &self.source {
            Source::Hosts { hosts, is_shared } => {
                let first = self.primary.clone().filter(|_| !is_shared);
                add(first);
                hosts.iter().for_each(|host| add(Some(host.clone())));
            }
            Source::Facts(facts) => match &self.absence {
                None => add(self.primary.clone()),
                Some(absence) => {
                    add(self.coming());
                    let mut others: Vec<_> = facts.instances.iter().collect();
                    others.sort_by_key(|one| {
                        let is_from = absence.from.as_ref() == Some(&one.endpoint);
                        (is_from, self.instance(one).state)
                    });
                    let endpoints = others.iter().map(|one| &one.endpoint);
                    endpoints
                        .filter(|endpoint| asked != Some(*endpoint))
                        .for_each(|endpoint| add(Some(endpoint.clone())));
                    add(self.services_in_use().map(|services| services.rw.clone()));
                }
            },
        }
        let is_unlisted = self.absence.is_some() && asked.is_none() && !self.is_change_announced();
        if found.is_empty() && asked.is_none() || is_unlisted {
            // What nobody lists may work all the same.
            found.extend(self.primary.clone().filter(|primary| !found.contains(primary)));
        }
        found
    }

    pub(super) fn servers(&self) -> Vec<Server> {
        match &self.source {
            Source::Hosts { hosts, .. } => hosts.iter().map(|host| self.host(host)).collect(),
            Source::Facts(facts) => {
                let service = self.services_in_use().map(|services| self.host(&services.rw));
                let instances = facts.instances.iter().map(|one| self.instance(one));
                service.into_iter().chain(instances).collect()
            }
        }
    }

    fn host(&self, endpoint: &Endpoint) -> Server {
        let sighting = self.sightings.get(endpoint).copied().unwrap_or_default();
        Server {
            name: endpoint.to_string().into(),
            endpoint: endpoint.clone(),
            zone: None,
            state: state(sighting),
            seen: sighting.seen,
        }
    }

    fn instance(&self, instance: &Instance) -> Server {
        let host = self.host(&instance.endpoint);
        let listed = [instance.r, instance.ro, instance.rw];
        let is_ready = |condition: &Condition| condition.ready && !condition.terminating;
        let state = if instance.is_terminating() {
            ServerState::Leaving
        } else if listed.iter().flatten().any(is_ready) {
            host.state
        } else {
            host.state.max(ServerState::NotReady)
        };
        Server {
            name: instance.name.clone(),
            zone: instance.zone.clone(),
            state,
            ..host
        }
    }
}

fn state(sighting: Sighting) -> ServerState {
    match sighting.failure {
        None => ServerState::Ready,
        Some(Failure::CannotConnectNow) => ServerState::NotAccepting,
        Some(Failure::Unreachable | Failure::Silent) => ServerState::Failing,
    }
}
