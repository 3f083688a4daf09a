//! What servers are seen to do.

use std::time::Instant;

use super::{Machine, change::Absence};
use crate::{
    topology::{Failure, Reason, Seen},
    types::Endpoint,
};

/// What is known of a server that works as a primary does.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    /// It accepts writes. A replica cluster's primary does not.
    pub(super) writes: bool,
    /// Its timeline is later than any before.
    pub(super) is_promoted: bool,
    /// It did not accept writes the last time.
    is_news: bool,
}

impl Machine {
    pub(super) fn opened(&mut self, endpoint: &Endpoint, seen: Seen, now: Instant) {
        let was = self.sighting(endpoint);
        let before = was.seen.replace(seen);
        was.failure = None;
        match seen {
            Seen::Standby if self.rules.is_replica => self.works(endpoint, Found::default(), now),
            Seen::Standby => self.stands_by(endpoint, before, now),
            // It was the primary once, and does not know that another has been promoted.
            Seen::Primary { timeline } if timeline.is_some() && timeline < self.timeline => {
                self.sighting(endpoint).seen = Some(Seen::Standby);
                self.stands_by(endpoint, before, now);
            }
            Seen::Primary { timeline } => {
                let found = Found {
                    writes: true,
                    is_promoted: self.timeline.is_some() && timeline > self.timeline,
                    is_news: !matches!(before, Some(Seen::Primary { .. })),
                };
                self.timeline = timeline.or(self.timeline);
                self.works(endpoint, found, now);
            }
        }
    }

    pub(super) fn failed(&mut self, endpoint: &Endpoint, failure: Failure, now: Instant) {
        self.sighting(endpoint).failure = Some(failure);
        let concerned = match &self.primary {
            Some(primary) => primary == endpoint,
            None => self.is_fixed() && self.all_fail(),
        };
        if concerned && (!self.is_shared() || self.all_fail()) {
            let reason = match failure {
                Failure::CannotConnectNow => Reason::NotAccepting,
                Failure::Unreachable => Reason::Unreachable,
                Failure::Silent => Reason::Silent,
            };
            self.begin_absence(reason, now);
        }
        if let Some(absence) = &mut self.absence {
            absence.has_failed(endpoint);
        }
    }

    pub(super) fn dropped(&mut self, endpoint: &Endpoint, now: Instant) {
        let Some(absence) = &mut self.absence else { return };
        let is_old = absence.from.as_ref() == Some(endpoint);
        let promise = absence
            .promise
            .as_mut()
            .filter(|promise| promise.endpoint == *endpoint);
        if let Some(promise) = promise.filter(|promise| promise.dropped.is_none()) {
            promise.dropped = Some(now);
            // Others were opened before, and are ended too although nobody has heard it yet.
            self.generation += u64::from(!is_old);
        }
        self.consider(now);
    }

    pub(super) fn demoted(&mut self, endpoint: &Endpoint, now: Instant) {
        if self.rules.is_replica || self.is_shared() {
            self.sighting(endpoint).seen = Some(Seen::Standby);
            return;
        }
        let before = self.sighting(endpoint).seen.replace(Seen::Standby);
        if self.is_fixed() && self.primary.is_none() {
            self.begin_absence(Reason::NotWritable, now);
        }
        self.stands_by(endpoint, before, now);
    }

    /// A server is a standby, where nobody wants one as the primary.
    fn stands_by(&mut self, endpoint: &Endpoint, before: Option<Seen>, now: Instant) {
        if self.is_shared() {
            self.absence
                .take_if(|absence| absence.reason != Reason::NotWritable);
        } else if self.primary.as_ref() == Some(endpoint) {
            // Once is enough to make all its connections prove themselves.
            if before != Some(Seen::Standby) || self.absence.is_none() {
                self.generation += 1;
            }
            self.begin_absence(Reason::NotWritable, now);
        } else if self.is_fixed() && self.primary.is_none() {
            // Nobody asks for more than that, unless somebody wants to write.
            self.absence
                .take_if(|absence| absence.reason != Reason::NotWritable);
        }
        if let Some(absence) = &mut self.absence {
            absence.has_failed(endpoint);
        }
    }

    /// A server works as a primary does.
    fn works(&mut self, endpoint: &Endpoint, found: Found, now: Instant) {
        let is_primary = self.primary.as_ref() == Some(endpoint);
        if self.is_shared() {
            self.absence = None;
        } else if let Some(absence) = &self.absence {
            if self.is_believed(endpoint, found, absence) {
                self.found(endpoint, found, now);
            }
        } else if self.primary.is_none() {
            self.use_primary(endpoint.clone(), now);
        } else if !is_primary && found.is_promoted {
            self.begin_absence(Reason::Promoting, now);
            self.found(endpoint, found, now);
        } else if !is_primary && found.is_news {
            // There is a second one. The connections to the first have to show that it is still what it was.
            self.generation += 1;
        }
    }

    /// Who is not the primary in Kubernetes' eyes has to come later in the database's history to be believed, or there
    /// has to be nobody else.
    fn is_believed(&self, endpoint: &Endpoint, found: Found, absence: &Absence) -> bool {
        let is_vacant = self
            .primary
            .as_ref()
            .is_some_and(|primary| self.is_standby(primary));
        if absence.from.as_ref() == Some(endpoint) {
            // Unless another has been promoted since, and is a primary still.
            return self.primary == absence.from || is_vacant;
        }
        let is_alone = is_vacant || absence.is_gone || absence.from.is_none();
        found.is_promoted
            || self.is_fixed()
            || self.primary.as_ref() == Some(endpoint)
            || self.announcement(endpoint).is_some()
            || found.writes && (is_alone || self.coming().as_ref() == Some(endpoint))
    }
}
