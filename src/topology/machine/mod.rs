//! The decisions: facts, observations and time go in, a [`Topology`] comes out.
//!
//! What servers say of themselves is believed before what anybody says of them, with one exception: a server that
//! accepts writes is not the primary for that reason alone.

mod change;
mod hearing;
mod members;
mod seeing;
mod services;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use self::{change::Absence, members::Sighting};
use super::{
    Hold, Observation, Phase, Services, Timeline, TimelineAsked, Topology, facts::Facts, reading::Word,
};
use crate::types::Endpoint;

/// How long after `status.currentPrimary` has changed the operator may still be ending connections.
const SETTLE: Duration = Duration::from_millis(300);
/// How long after the first connection that a new primary ends the last one may still be ended.
const SCATTER: Duration = Duration::from_millis(50);
/// A server that accepts writes and that nobody announces is taken after this long.
const UNANNOUNCED: Duration = Duration::from_secs(2);
/// The same while a change is announced: the operator announces its end after a checkpoint, and then ends connections.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// A primary that is to be replaced, and goes on answering for this long, is used again meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kubernetes has this long to list the servers before the services are asked for them.
const UNLISTED: Duration = Duration::from_secs(1);

/// Where the servers of a cluster come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A list. With `is_shared` all of them may be written to.
    Hosts { hosts: Vec<Endpoint>, is_shared: bool },
    /// Kubernetes.
    Facts(Facts),
}

/// What a machine goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// `hold_timeout`
    pub hold_timeout: Duration,
    /// `replica_cluster`
    pub is_replica: bool,
}

/// One cluster.
#[derive(Debug)]
pub(super) struct Machine {
    source: Source,
    rules: Rules,
    primary: Option<Endpoint>,
    /// Its instance.
    primary_name: Option<Box<str>>,
    generation: u64,
    /// The primary is not there, or not for everybody.
    absence: Option<Absence>,
    sightings: HashMap<Endpoint, Sighting>,
    /// The latest timeline that a primary was seen on.
    timeline: Option<Timeline>,
    /// What was already said when the primary began to be used: it has come in spite of that, or by it.
    old_news: Vec<Word>,
    /// The instance before, while Kubernetes still calls that one the primary.
    outdated: Option<Box<str>>,
    /// The last primary that was seen to hold the lease.
    holder: Option<Box<str>>,
    last_hold: Option<Hold>,
    /// The way to the servers while nobody lists them.
    services: Option<Services>,
    /// Somebody has had the time to list them.
    is_list_overdue: bool,
    /// The service that led to the primary before it was listed.
    alias: Option<Endpoint>,
    shown: Option<Topology>,
}

impl Machine {
    pub(super) fn new(source: Source, rules: Rules, now: Instant) -> Self {
        let unknown = matches!(source, Source::Facts(_));
        Self {
            source,
            rules,
            primary: None,
            primary_name: None,
            generation: 0,
            absence: unknown.then(|| Absence::unknown(now)),
            sightings: HashMap::new(),
            timeline: None,
            old_news: Vec::new(),
            outdated: None,
            holder: None,
            last_hold: None,
            services: None,
            is_list_overdue: false,
            alias: None,
            shown: None,
        }
    }

    /// Kubernetes has said something.
    pub(super) fn learn(&mut self, facts: Facts, now: Instant) {
        let Source::Facts(known) = &mut self.source else {
            return;
        };
        if *known != facts {
            *known = facts;
            self.forget_strangers();
            self.leave_service();
            self.forget_promise_of_the_gone();
            self.compare_notes();
            self.hear(now);
        }
    }

    /// A server has shown something.
    pub(super) fn observe(&mut self, observation: &Observation, now: Instant) {
        if self.is_of_many(observation.endpoint()) {
            return;
        }
        match observation {
            Observation::Opened { endpoint, seen } => self.opened(endpoint, *seen, now),
            Observation::Failed { endpoint, failure } => self.failed(endpoint, *failure, now),
            Observation::Dropped { endpoint } => self.dropped(endpoint, now),
            Observation::Demoted { endpoint } => self.demoted(endpoint, now),
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        self.is_list_overdue |= self.list_due().is_some_and(|due| due <= now);
        self.consider(now);
    }

    /// Other rules hold.
    pub(super) fn set_rules(&mut self, rules: Rules, now: Instant) {
        self.rules = rules;
        self.hear(now);
    }

    /// When [`Machine::tick`] has something to decide at the latest.
    pub(super) fn next_tick(&self, now: Instant) -> Option<Instant> {
        let absence = self.absence.as_ref()?;
        let dues = [
            absence.began.checked_add(self.rules.hold_timeout),
            absence.promise.as_ref().map(|promise| self.due(promise)),
            self.list_due(),
        ];
        dues.into_iter().flatten().filter(|due| *due > now).min()
    }

    /// The topology that everything begins with.
    pub(super) fn first(&mut self, now: Instant) -> Topology {
        let first = self.now(now);
        self.shown = Some(first.clone());
        first
    }

    /// The topology now, if it is another than the last time.
    pub(super) fn show(&mut self, now: Instant) -> Option<Topology> {
        let mut topology = self.now(now);
        if self.shown.as_ref() == Some(&topology) {
            return None;
        }
        topology.version += 1;
        self.shown = Some(topology.clone());
        Some(topology)
    }

    fn now(&self, now: Instant) -> Topology {
        let phase = self.phase(now);
        let shown = self.shown.as_ref();
        Topology {
            version: shown.map_or(1, |shown| shown.version),
            generation: self.generation,
            phase,
            since: shown
                .filter(|shown| shown.phase == phase)
                .map_or(now, |shown| shown.since),
            primary: self.primary.clone(),
            is_leaving: self.is_leaving(),
            candidates: self.candidates(),
            servers: self.servers(),
            services: self.services_in_use().cloned(),
            alias: self.alias.clone(),
            is_shared: self.is_shared(),
            is_replica: self.rules.is_replica,
            timeline_asked: self.timeline_asked(),
            last_hold: self.last_hold.clone(),
        }
    }

    fn phase(&self, now: Instant) -> Phase {
        match &self.absence {
            None => Phase::Serving,
            Some(absence) if absence.is_final() => Phase::Degraded(absence.reason),
            Some(absence) if now.saturating_duration_since(absence.began) >= self.rules.hold_timeout => {
                Phase::Degraded(absence.reason)
            }
            Some(absence) if self.is_partial(absence) => Phase::Limping(absence.reason),
            Some(absence) => Phase::Holding(absence.reason),
        }
    }

    fn is_leaving(&self) -> bool {
        let from = self.absence.as_ref().map(|absence| absence.from.as_ref());
        from.is_some_and(|from| from == self.primary.as_ref())
    }

    /// Timelines tell who was promoted last, where there is more than one server to be so.
    fn timeline_asked(&self) -> Option<TimelineAsked> {
        let several = match &self.source {
            Source::Hosts { hosts, is_shared } => hosts.len() > 1 && !is_shared,
            Source::Facts(_) => true,
        };
        let is_asked = several && (self.timeline.is_none() || self.absence.is_some());
        is_asked.then_some(TimelineAsked {
            at_least: self.timeline,
        })
    }

    fn is_shared(&self) -> bool {
        matches!(self.source, Source::Hosts { is_shared: true, .. })
    }

    fn is_fixed(&self) -> bool {
        matches!(self.source, Source::Hosts { .. })
    }
}

#[cfg(test)]
mod tests;
