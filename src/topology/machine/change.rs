//! From the moment that the primary may not be used to the moment that one may.

use std::time::Instant;

use super::{Machine, PATIENCE, SETTLE, UNANNOUNCED};
use crate::{
    topology::{
        ClusterPhase, Hold, Reason, Seen,
        reading::{Announcement, Word},
    },
    types::Endpoint,
};

/// The primary may not be used, or not by everybody.
#[derive(Debug)]
pub(super) struct Absence {
    pub(super) began: Instant,
    pub(super) reason: Reason,
    pub(super) from: Option<Endpoint>,
    /// Since when another primary is announced.
    pub(super) announced: Option<Instant>,
    /// One that accepts writes.
    pub(super) promise: Option<Promise>,
    /// The one that was the primary has been seen to be away.
    is_gone: bool,
}

/// A server that accepts writes and may be the next primary.
#[derive(Debug)]
pub(super) struct Promise {
    pub(super) endpoint: Endpoint,
    since: Instant,
    announced: Option<Instant>,
    announcement: Option<Announcement>,
    /// It has ended a connection since, as the operator makes a new primary do once.
    pub(super) is_dropped: bool,
}

impl Absence {
    pub(super) fn new(reason: Reason, from: Option<Endpoint>, now: Instant) -> Self {
        Self {
            began: now,
            reason,
            from,
            announced: None,
            promise: None,
            is_gone: false,
        }
    }

    /// A server takes no connections.
    pub(super) fn has_failed(&mut self, endpoint: &Endpoint) {
        self.is_gone |= self.from.as_ref() == Some(endpoint);
        if self
            .promise
            .as_ref()
            .is_some_and(|promise| promise.endpoint == *endpoint)
        {
            self.promise = None;
        }
    }

    /// Whether only Kubernetes says so.
    pub(super) fn is_hearsay(&self) -> bool {
        weight(self.reason) >= 3
    }

    /// Whether those who have a connection are well.
    pub(super) fn is_partial(&self) -> bool {
        matches!(self.reason, Reason::Unreachable | Reason::Silent) && self.announced.is_none()
    }

    /// Whether waiting is in vain.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.reason, Reason::Hibernated | Reason::ReplicaCluster)
    }
}

/// How much a reason tells. One that tells more takes the place of one that tells less.
fn weight(reason: Reason) -> u8 {
    match reason {
        Reason::Unreachable | Reason::Silent => 0,
        Reason::Unknown | Reason::NoEndpoint | Reason::NotAccepting | Reason::NotWritable => 1,
        Reason::Promoting => 2,
        Reason::Terminating | Reason::Switchover | Reason::Failover | Reason::Restart => 3,
        Reason::Fenced | Reason::Hibernated | Reason::ReplicaCluster => 4,
    }
}

impl Machine {
    pub(super) fn begin_absence(&mut self, reason: Reason, now: Instant) {
        match &mut self.absence {
            Some(absence) if absence.reason != reason && weight(absence.reason) <= weight(reason) => {
                absence.reason = reason;
            }
            Some(_) => {}
            None => self.absence = Some(Absence::new(reason, self.primary.clone(), now)),
        }
    }

    /// While the primary is looked for, a server accepts writes.
    pub(super) fn found(&mut self, endpoint: &Endpoint, now: Instant) {
        let announcement = self.announcement(endpoint);
        let is_old = self
            .absence
            .as_ref()
            .is_some_and(|absence| absence.from.as_ref() == Some(endpoint));
        let Some(absence) = &mut self.absence else { return };
        match &mut absence.promise {
            Some(promise) if promise.endpoint == *endpoint => {}
            _ => {
                absence.promise = Some(Promise {
                    endpoint: endpoint.clone(),
                    since: now,
                    announced: None,
                    announcement: None,
                    is_dropped: false,
                });
            }
        }
        let announced_before = absence.announced;
        if let Some(promise) = &mut absence.promise
            && announcement.is_some()
        {
            promise.announced = promise.announced.or(announced_before).or(Some(now));
            promise.announcement = announcement;
        }
        if !is_old {
            // What was the primary is not written to any more.
            self.appoint(endpoint.clone());
        }
        self.consider(now);
    }

    /// Another server is the primary from here on, although it is not used yet.
    pub(super) fn appoint(&mut self, endpoint: Endpoint) {
        if self.primary.as_ref() != Some(&endpoint) {
            for (other, sighting) in &mut self.sightings {
                // Whoever was the primary is something else by now.
                sighting.seen = sighting
                    .seen
                    .filter(|seen| *other == endpoint || *seen == Seen::Standby);
            }
            self.primary = Some(endpoint);
            self.generation += 1;
        }
    }

    /// When a server that accepts writes is to be used.
    pub(super) fn due(&self, promise: &Promise) -> Instant {
        let Some(absence) = &self.absence else {
            return promise.since;
        };
        if absence.from.as_ref() == Some(&promise.endpoint) {
            // It never went, or it is back.
            return match self.word() {
                Word::Changing { leaving, coming, .. }
                    if leaving.is_some() && (leaving != coming || !absence.is_gone) =>
                {
                    promise.since.max(absence.began + PATIENCE)
                }
                _ => promise.since,
            };
        }
        if promise.is_dropped || self.is_fixed() {
            return promise.since;
        }
        match (promise.announcement, promise.announced) {
            (Some(Announcement::Service), _) => promise.since,
            (Some(Announcement::Cluster), Some(announced)) => promise.since.max(announced + SETTLE),
            _ => promise.since + UNANNOUNCED,
        }
    }

    /// Whether somebody has to look again: what was found is from before the time at which it would have counted.
    pub(super) fn is_outdated(&self, promise: &Promise) -> bool {
        self.due(promise) > promise.since && self.absence_is_of(&promise.endpoint)
    }

    pub(super) fn forget_promise(&mut self) {
        if let Some(absence) = &mut self.absence {
            absence.promise = None;
        }
    }

    /// Whether this is the server that was the primary before.
    pub(super) fn absence_is_of(&self, endpoint: &Endpoint) -> bool {
        self.absence
            .as_ref()
            .is_some_and(|absence| absence.from.as_ref() == Some(endpoint))
    }

    /// Whether this is the server that is said to be the next primary.
    pub(super) fn is_coming(&self, endpoint: &Endpoint) -> bool {
        let coming = match self.word() {
            Word::Changing { coming, .. } => coming,
            Word::Settled(name) => Some(name),
            Word::Nothing | Word::Without(_) => None,
        };
        coming.is_some_and(|name| self.endpoint_of(&name).as_ref() == Some(endpoint))
    }

    /// An announced primary is known to be so only after the promise was made.
    pub(super) fn renew_promise(&mut self, now: Instant) {
        let endpoint = self.absence.as_ref().and_then(|absence| absence.promise.as_ref());
        let Some(endpoint) = endpoint.map(|promise| promise.endpoint.clone()) else {
            return;
        };
        let announcement = self.announcement(&endpoint);
        if let Some(absence) = &mut self.absence
            && let Some(promise) = &mut absence.promise
            && announcement.is_some()
        {
            promise.announced.get_or_insert(now);
            promise.announcement = announcement;
        }
    }

    /// Uses a primary.
    pub(super) fn use_primary(&mut self, endpoint: Endpoint, now: Instant) {
        if let Some(absence) = self.absence.take() {
            if absence.from.is_some() && !(absence.is_partial() && self.primary.as_ref() == Some(&endpoint)) {
                self.last_hold = Some(Hold {
                    took: now.saturating_duration_since(absence.began),
                    from: absence.from,
                    to: endpoint.clone(),
                    reason: absence.reason,
                });
            }
        }
        self.old_news = self
            .cluster_phase()
            .filter(|phase| *phase != ClusterPhase::Healthy);
        self.appoint(endpoint);
    }
}
