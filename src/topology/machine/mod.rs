//! The decisions: facts, observations and time go in, a [`Topology`] comes out.
//!
//! What servers say of themselves is believed before what anybody says of them, with one exception: a server that
//! accepts writes is not the primary for that reason alone.

mod change;
mod members;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use self::{change::Absence, members::Sighting};
use super::{
    Failure, Hold, Observation, Phase, Reason, Seen, Topology,
    facts::{ClusterPhase, Facts},
    reading::{Announcement, Word},
};
use crate::types::Endpoint;

/// How long after `status.currentPrimary` has changed the operator may still be ending connections.
const SETTLE: Duration = Duration::from_millis(300);
/// A server that accepts writes and that nobody announces is taken after this long.
const UNANNOUNCED: Duration = Duration::from_secs(2);
/// A primary that is to be replaced, and goes on answering for this long, is used again meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// What is known of a server that says that it accepts writes.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// Its timeline is later than any before.
    is_promoted: bool,
    /// It did not say so the last time.
    is_news: bool,
}

/// One cluster.
#[derive(Debug)]
pub(super) struct Machine {
    source: Source,
    rules: Rules,
    primary: Option<Endpoint>,
    generation: u64,
    /// The primary is not there, or not for everybody.
    absence: Option<Absence>,
    sightings: HashMap<Endpoint, Sighting>,
    /// The latest timeline that a primary was seen on.
    timeline: Option<u32>,
    /// What `status.phase` was when the primary was used last; it tells nothing new.
    old_news: Option<ClusterPhase>,
    last_hold: Option<Hold>,
    shown: Option<Topology>,
}

impl Machine {
    pub(super) fn new(source: Source, rules: Rules, now: Instant) -> Self {
        let unknown = matches!(source, Source::Facts(_));
        Self {
            source,
            rules,
            primary: None,
            generation: 0,
            absence: unknown.then(|| Absence::new(Reason::Unknown, None, now)),
            sightings: HashMap::new(),
            timeline: None,
            old_news: None,
            last_hold: None,
            shown: None,
        }
    }

    /// Kubernetes has said something.
    pub(super) fn learn(&mut self, facts: Facts, now: Instant) {
        let Source::Facts(known) = &mut self.source else {
            return;
        };
        if *known == facts {
            return;
        }
        *known = facts;
        let phase = self.cluster_phase();
        if self.old_news.is_some() && self.old_news != phase {
            self.old_news = None;
        }
        self.forget_strangers();
        self.hear_word(now);
    }

    /// A server has shown something.
    pub(super) fn observe(&mut self, observation: &Observation, now: Instant) {
        match observation {
            Observation::Opened { endpoint, seen } => self.opened(endpoint, *seen, now),
            Observation::Failed { endpoint, failure } => self.failed(endpoint, *failure, now),
            Observation::Dropped { endpoint } => self.dropped(endpoint, now),
            Observation::Demoted { endpoint } => self.demoted(endpoint, now),
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        self.consider(now);
    }

    /// Other rules hold.
    pub(super) fn set_rules(&mut self, rules: Rules, now: Instant) {
        self.rules = rules;
        self.hear_word(now);
    }

    /// When [`Machine::tick`] has something to decide at the latest.
    pub(super) fn next_tick(&self, now: Instant) -> Option<Instant> {
        let absence = self.absence.as_ref()?;
        let dues = [
            absence.began.checked_add(self.rules.hold_timeout),
            absence.promise.as_ref().map(|promise| self.due(promise)),
        ];
        dues.into_iter().flatten().filter(|due| *due > now).min()
    }

    fn opened(&mut self, endpoint: &Endpoint, seen: Seen, now: Instant) {
        let was = self.sighting(endpoint);
        let before = was.seen.replace(seen);
        was.failure = None;
        match seen {
            Seen::Standby if self.primary.as_ref() == Some(endpoint) => self.demoted(endpoint, now),
            // Nobody asks for more than that.
            Seen::Standby if self.is_fixed() && self.primary.is_none() => {
                self.absence
                    .take_if(|absence| absence.reason != Reason::NotWritable);
            }
            Seen::Standby => {}
            Seen::Primary { timeline } => {
                if timeline < self.timeline && timeline.is_some() {
                    // It was the primary once, and does not know that another has been promoted.
                    self.sighting(endpoint).seen = Some(Seen::Standby);
                    return;
                }
                let found = Found {
                    is_promoted: self.timeline.is_some() && timeline > self.timeline,
                    is_news: !matches!(before, Some(Seen::Primary { .. })),
                };
                self.timeline = timeline.or(self.timeline);
                self.writable(endpoint, found, now);
            }
        }
    }

    /// A server says that it accepts writes.
    fn writable(&mut self, endpoint: &Endpoint, found: Found, now: Instant) {
        let is_primary = self.primary.as_ref() == Some(endpoint);
        // Who is not the primary in Kubernetes' eyes has to come later in the database's history to be believed.
        let believed = found.is_promoted || self.is_fixed() || self.announcement(endpoint).is_some();
        if self.is_shared() {
            self.absence = None;
        } else if self.absence.is_some() {
            if believed || self.is_coming(endpoint) || self.absence_is_of(endpoint) {
                self.found(endpoint, now);
            }
        } else if self.primary.is_none() {
            self.use_primary(endpoint.clone(), now);
        } else if !is_primary && found.is_promoted {
            self.begin_absence(Reason::Promoting, now);
            self.found(endpoint, now);
        } else if !is_primary && found.is_news {
            // There is a second one. The connections to the first have to show that it is still what it was.
            self.generation += 1;
        }
    }

    fn failed(&mut self, endpoint: &Endpoint, failure: Failure, now: Instant) {
        self.sighting(endpoint).failure = Some(failure);
        if let Some(absence) = &mut self.absence {
            absence.has_failed(endpoint);
        }
        let concerned = match &self.primary {
            Some(primary) => primary == endpoint,
            None => self.is_fixed() && self.all_fail(),
        };
        if !concerned || (self.is_shared() && !self.all_fail()) {
            return;
        }
        let reason = match failure {
            Failure::CannotConnectNow => Reason::NotAccepting,
            Failure::Unreachable => Reason::Unreachable,
            Failure::Silent => Reason::Silent,
        };
        self.begin_absence(reason, now);
    }

    fn dropped(&mut self, endpoint: &Endpoint, now: Instant) {
        let promise = self.absence.as_mut().and_then(|absence| absence.promise.as_mut());
        if let Some(promise) = promise.filter(|promise| promise.endpoint == *endpoint) {
            promise.is_dropped = true;
        }
        self.consider(now);
    }

    fn demoted(&mut self, endpoint: &Endpoint, now: Instant) {
        self.sighting(endpoint).seen = Some(Seen::Standby);
        let concerned = match &self.primary {
            Some(primary) => primary == endpoint,
            None => self.is_fixed(),
        };
        if self.rules.is_replica || self.is_shared() || !concerned {
            return;
        }
        self.generation += 1;
        self.begin_absence(Reason::NotWritable, now);
    }

    /// Takes what Kubernetes says to heart.
    fn hear_word(&mut self, now: Instant) {
        match self.word() {
            Word::Nothing => {}
            Word::Settled(name) => self.settled(&name, now),
            Word::Changing { reason, .. } => {
                // Who fails, or is demoted, is not better known by the facts that follow from it.
                self.begin_absence(reason, now);
            }
            Word::Without(reason) => self.begin_absence(reason, now),
        }
        if self.is_unwanted_replica() {
            self.begin_absence(Reason::ReplicaCluster, now);
        }
        self.consider(now);
    }

    fn settled(&mut self, name: &str, now: Instant) {
        let Some(endpoint) = self.endpoint_of(name) else {
            return;
        };
        let is_primary = self.primary.as_ref() == Some(&endpoint);
        let unknown = |absence: &Absence| absence.reason == Reason::Unknown;
        let is_called_off = |absence: &Absence| is_primary && absence.is_hearsay();
        if self
            .absence
            .as_ref()
            .is_some_and(|absence| unknown(absence) || is_called_off(absence))
        {
            return self.use_primary(endpoint, now);
        }
        if !is_primary && self.primary.is_some() {
            // The promotion is visible: the other one is not to be written to from here on.
            self.begin_absence(Reason::Promoting, now);
        }
        if let Some(absence) = &mut self.absence
            && !is_primary
        {
            absence.announced.get_or_insert(now);
            self.appoint(endpoint);
        }
        self.renew_promise(now);
    }

    /// Ends an absence whose end is due, and gives up on one that has lasted too long.
    fn consider(&mut self, now: Instant) {
        let Some(absence) = &self.absence else { return };
        let Some(promise) = &absence.promise else { return };
        if self.due(promise) > now {
            return;
        }
        if self.is_outdated(promise) {
            self.forget_promise();
        } else {
            let endpoint = promise.endpoint.clone();
            self.use_primary(endpoint, now);
        }
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
            is_shared: self.is_shared(),
            is_replica: self.rules.is_replica,
            timeline: self.timeline,
            asks_timeline: self.asks_timeline(),
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
            Some(absence) if absence.is_partial() => Phase::Limping(absence.reason),
            Some(absence) => Phase::Holding(absence.reason),
        }
    }

    fn word(&self) -> Word {
        match &self.source {
            Source::Hosts { .. } => Word::Nothing,
            Source::Facts(facts) => {
                let primary = self.primary_name();
                facts.word(primary.as_deref(), self.old_news.is_some())
            }
        }
    }

    fn announcement(&self, endpoint: &Endpoint) -> Option<Announcement> {
        match &self.source {
            Source::Hosts { .. } => Some(Announcement::Service),
            Source::Facts(facts) => facts.announces(&self.name_of(endpoint)?),
        }
    }

    fn cluster_phase(&self) -> Option<ClusterPhase> {
        match &self.source {
            Source::Facts(facts) => facts.cluster.as_ref().map(|cluster| cluster.phase),
            Source::Hosts { .. } => None,
        }
    }

    fn is_unwanted_replica(&self) -> bool {
        match &self.source {
            Source::Facts(facts) => {
                let is_replica = facts.cluster.as_ref().is_some_and(|cluster| cluster.is_replica);
                is_replica && !self.rules.is_replica
            }
            Source::Hosts { .. } => false,
        }
    }

    fn is_leaving(&self) -> bool {
        let from = self.absence.as_ref().map(|absence| absence.from.as_ref());
        from.is_some_and(|from| from == self.primary.as_ref())
    }

    /// Timelines tell who was promoted last, where there is more than one server to be so.
    fn asks_timeline(&self) -> bool {
        let several = match &self.source {
            Source::Hosts { hosts, is_shared } => hosts.len() > 1 && !is_shared,
            Source::Facts(_) => true,
        };
        several && (self.timeline.is_none() || self.absence.is_some())
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
