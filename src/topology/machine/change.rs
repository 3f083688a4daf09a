//! From the moment that the primary may not be used to the moment that one may.

use std::time::Instant;

use super::{CHECKPOINT, Machine, PATIENCE, SCATTER, SETTLE, Source, UNANNOUNCED, seeing::Found};
use crate::{
    topology::{Hold, Reason, Seen, reading::Announcement},
    types::Endpoint,
};

/// The weight of reasons that Kubernetes gives.
const HEARSAY: u8 = 4;

/// The primary may not be used, or not by everybody.
#[derive(Debug)]
pub(super) struct Absence {
    pub(super) began: Instant,
    pub(super) reason: Reason,
    /// Who was the primary.
    pub(super) from: Option<Endpoint>,
    pub(super) from_name: Option<Box<str>>,
    /// Since when Kubernetes says that it goes, or that there is none.
    pub(super) doubted: Option<Instant>,
    /// The server that works.
    pub(super) promise: Option<Promise>,
    /// The one that was the primary has been seen to be away, or to be a standby.
    pub(super) is_gone: bool,
    /// Who is called the primary, and since when.
    named: Option<(Endpoint, Instant)>,
}

/// A server that works, and may be the next primary.
#[derive(Debug)]
pub(super) struct Promise {
    pub(super) endpoint: Endpoint,
    since: Instant,
    /// When it has ended a connection since, as the operator makes a new primary do once.
    pub(super) dropped: Option<Instant>,
}

impl Absence {
    /// Nothing has been heard yet.
    pub(super) fn unknown(now: Instant) -> Self {
        Self {
            began: now,
            reason: Reason::Unknown,
            from: None,
            from_name: None,
            doubted: None,
            promise: None,
            is_gone: false,
            named: None,
        }
    }

    /// A server takes no connections, or is a standby.
    pub(super) fn has_failed(&mut self, endpoint: &Endpoint) {
        self.is_gone |= self.from.as_ref() == Some(endpoint);
        self.promise.take_if(|promise| promise.endpoint == *endpoint);
    }

    /// Kubernetes calls this one the primary.
    pub(super) fn hear_name(&mut self, endpoint: &Endpoint, now: Instant) {
        if self.named.as_ref().is_none_or(|(named, _)| named != endpoint) {
            self.named = Some((endpoint.clone(), now));
        }
    }

    /// Whether only Kubernetes says so.
    pub(super) fn is_hearsay(&self) -> bool {
        weight(self.reason) >= HEARSAY
    }

    /// Whether waiting is in vain.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.reason, Reason::Hibernated | Reason::ReplicaCluster)
    }
}

/// How much a reason tells.
fn weight(reason: Reason) -> u8 {
    match reason {
        Reason::Unknown => 0,
        Reason::Unreachable | Reason::Silent => 1,
        Reason::NoEndpoint | Reason::NotAccepting | Reason::NotWritable => 2,
        Reason::Promoting => 3,
        Reason::Terminating | Reason::Switchover | Reason::Failover | Reason::Restart => HEARSAY,
        Reason::Fenced | Reason::Hibernated | Reason::ReplicaCluster => HEARSAY + 1,
    }
}

/// Whether one reason takes the place of another. What is seen does not say why; the first will do.
fn takes_place(new: Reason, old: Reason) -> bool {
    let (new, old) = (weight(new), weight(old));
    new > old || new == old && new >= HEARSAY
}

impl Machine {
    pub(super) fn begin_absence(&mut self, reason: Reason, now: Instant) {
        let is_gone = self.primary.as_ref().is_some_and(|primary| self.is_away(primary));
        let is_doubtful = reason == Reason::Silent && !self.is_shared();
        match &mut self.absence {
            Some(absence) if takes_place(reason, absence.reason) => absence.reason = reason,
            Some(_) => {}
            None => {
                // Those that are open may lead nowhere as well.
                self.generation += u64::from(is_doubtful);
                self.absence = Some(Absence {
                    reason,
                    from: self.primary.clone(),
                    from_name: self.primary_name.clone(),
                    is_gone,
                    ..Absence::unknown(now)
                });
            }
        }
    }

    /// Whether those who have a connection are well.
    pub(super) fn is_partial(&self, absence: &Absence) -> bool {
        matches!(absence.reason, Reason::Unreachable | Reason::Silent) && self.primary == absence.from
    }

    /// While the primary is looked for, a server works.
    pub(super) fn found(&mut self, endpoint: &Endpoint, found: Found, now: Instant) {
        let is_announced = self.announcement(endpoint).is_some();
        let named = self.named();
        let Some(absence) = &mut self.absence else { return };
        let is_old = absence.from.as_ref() == Some(endpoint);
        match &absence.promise {
            Some(promise) if promise.endpoint == *endpoint => {}
            // Another was there before, and this one is no better.
            Some(promise)
                if absence.from.as_ref() != Some(&promise.endpoint)
                    && !found.is_promoted
                    && !is_announced => {}
            _ => {
                absence.promise = Some(Promise {
                    endpoint: endpoint.clone(),
                    since: now,
                    dropped: None,
                });
                let before = absence.from_name.clone().or(named);
                if !is_old && self.primary.as_ref() != Some(endpoint) {
                    if !is_announced {
                        self.outdated = before;
                    }
                    // What was the primary is not written to any more.
                    self.appoint(endpoint.clone());
                }
            }
        }
        self.consider(now);
    }

    /// Another server is the primary from here on, although it is not used yet.
    pub(super) fn appoint(&mut self, endpoint: Endpoint) {
        if self.primary.as_ref() == Some(&endpoint) {
            return;
        }
        if let Some(absence) = &mut self.absence {
            absence.promise.take_if(|promise| promise.endpoint != endpoint);
        }
        self.alias = None;
        for (other, sighting) in &mut self.sightings {
            // Whoever was the primary is something else by now.
            sighting.seen = sighting
                .seen
                .filter(|seen| *other == endpoint || *seen == Seen::Standby);
        }
        self.primary_name = match self.is_fixed() {
            true => None,
            false => self.name_of(&endpoint),
        };
        if self.primary_name.is_some() {
            self.outdated
                .take_if(|name| self.primary_name.as_ref() == Some(name));
        }
        self.primary = Some(endpoint);
        self.generation += 1;
    }

    /// When a server that works is to be used.
    pub(super) fn due(&self, promise: &Promise) -> Instant {
        let (Some(absence), since) = (&self.absence, promise.since) else {
            return promise.since;
        };
        let is_old = absence.from.as_ref() == Some(&promise.endpoint);
        let due = match self.announcement(&promise.endpoint) {
            // It never went, or it is back.
            _ if is_old => since,
            Some(Announcement::Service) => since,
            _ if promise.dropped.is_some() => promise.dropped.map_or(since, |at| at + SCATTER),
            Some(Announcement::Cluster) => match &absence.named {
                Some((named, at)) if *named == promise.endpoint => since.max(*at + SETTLE),
                _ => since,
            },
            None if self.is_change_in_progress() => since + CHECKPOINT,
            None => since + UNANNOUNCED,
        };
        if self.is_to_leave(&promise.endpoint) {
            due.max(absence.doubted.unwrap_or(absence.began) + PATIENCE)
        } else {
            due
        }
    }

    /// Ends an absence whose end is due.
    pub(super) fn consider(&mut self, now: Instant) {
        let absence = self.absence.as_ref();
        let Some(promise) = absence.and_then(|absence| absence.promise.as_ref()) else {
            return;
        };
        let due = self.due(promise);
        if due > now {
            return;
        }
        // Somebody has to look again where what was found is from before the time at which it would have counted.
        let is_stale = due > promise.since && self.is_to_leave(&promise.endpoint);
        let endpoint = promise.endpoint.clone();
        if !is_stale {
            self.use_primary(endpoint, now);
        } else if let Some(absence) = &mut self.absence {
            absence.promise = None;
        }
    }

    /// A server that was the primary, and whose pod has gone, works no more whatever it did when it was asked.
    pub(super) fn forget_promise_of_the_gone(&mut self) {
        let (Some(absence), Source::Facts(facts)) = (&mut self.absence, &self.source) else {
            return;
        };
        let from = &absence.from;
        let is_listed = |endpoint: &Endpoint| facts.instances.iter().any(|one| one.endpoint == *endpoint);
        absence
            .promise
            .take_if(|promise| from.as_ref() == Some(&promise.endpoint) && !is_listed(&promise.endpoint));
    }

    /// Uses a primary.
    pub(super) fn use_primary(&mut self, endpoint: Endpoint, now: Instant) {
        if let Some(absence) = self.absence.take() {
            let is_same = absence.from.as_ref() == Some(&endpoint);
            if is_same && (self.is_fixed() || self.is_service(&endpoint)) {
                // A name may lead to another server than before.
                self.generation += 1;
            }
            let is_blip = is_same && self.is_partial(&absence);
            if absence.from.is_some() && !is_blip {
                self.last_hold = Some(Hold {
                    took: now.saturating_duration_since(absence.began),
                    from: absence.from,
                    to: endpoint.clone(),
                    reason: absence.reason,
                });
            }
        }
        self.appoint(endpoint);
        self.note_wrong_name();
        self.note_old_news();
    }

    /// Who is called the primary and has shown since that it is not, is no news the next time that anything is said.
    fn note_wrong_name(&mut self) {
        let Some(name) = self
            .named()
            .filter(|name| self.primary_name.as_ref() != Some(name))
        else {
            return;
        };
        let endpoint = self.endpoint_of(&name);
        if endpoint.is_some_and(|endpoint| self.is_standby(&endpoint)) {
            self.outdated = Some(name);
        }
    }
}
