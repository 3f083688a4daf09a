//! What Kubernetes says, as far as it is news.

use std::time::Instant;

use super::{Machine, Source};
use crate::{
    topology::{
        Reason,
        reading::{Announcement, Before, Word},
    },
    types::Endpoint,
};

impl Machine {
    /// Takes what Kubernetes says to heart.
    pub(super) fn hear(&mut self, now: Instant) {
        self.wake_up(now);
        if self.is_unwanted_replica() {
            self.begin_absence(Reason::ReplicaCluster, now);
        } else {
            self.hear_of_another(now);
            while let Some(word) = self.news() {
                if self.is_about_others(&word) {
                    self.old_news.push(word);
                } else {
                    self.hear_word(&word, now);
                    break;
                }
            }
        }
        self.consider(now);
    }

    /// Compares what is said with what was said before.
    pub(super) fn compare_notes(&mut self) {
        let Source::Facts(facts) = &self.source else {
            return;
        };
        let named = facts.named();
        let holder = facts.lease.as_ref().and_then(|lease| lease.holder.as_deref());
        if let Some(holder) = holder.filter(|holder| named == Some(*holder)) {
            self.holder = Some(holder.into());
        }
        let is_confirmed = named.is_some() && named == self.primary_name.as_deref();
        if is_confirmed && self.outdated.take().is_some() {
            let words = self.words();
            let about_its_coming = words.into_iter().filter(Word::is_vague);
            self.old_news.extend(about_its_coming);
        }
        let words = self.words();
        self.old_news
            .retain(|old| words.iter().any(|word| old.covers(word)));
    }

    /// Notes what is said when a primary begins to be used.
    pub(super) fn note_old_news(&mut self) {
        let primary = self.primary_name.clone().map(Word::Settled);
        self.old_news = self.words();
        self.old_news.retain(|word| Some(word) != primary.as_ref());
    }

    /// Who calls this server the primary.
    pub(super) fn announcement(&self, endpoint: &Endpoint) -> Option<Announcement> {
        match &self.source {
            Source::Hosts { .. } => Some(Announcement::Service),
            // It leads to whoever has the label.
            Source::Facts(_) if self.is_service(endpoint) => Some(Announcement::Service),
            Source::Facts(facts) => {
                let name = self.name_of(endpoint)?;
                let is_outdated = self.outdated.as_ref() == Some(&name);
                facts.announces(&name).filter(|_| !is_outdated)
            }
        }
    }

    /// The server that is said to be the next primary.
    pub(super) fn coming(&self) -> Option<Endpoint> {
        let from = self.subject();
        match self.words().into_iter().next()? {
            Word::Changing { coming, reason, .. } => {
                // The lease of a primary that has failed is still its own for a while.
                let coming = coming.filter(|name| reason == Reason::Restart || Some(&**name) != from);
                self.endpoint_of(&coming?)
            }
            Word::Settled(name) => self.endpoint_of(&name),
            Word::Without(_) => None,
        }
    }

    /// Whether it is said that there will be another primary than this server, or that it stops.
    pub(super) fn is_to_leave(&self, endpoint: &Endpoint) -> bool {
        let Some(absence) = &self.absence else {
            return false;
        };
        let is_from = absence.from.as_ref() == Some(endpoint);
        match self.news() {
            Some(Word::Changing { leaving, coming, .. }) => {
                // A pod that is gone is in no list any more.
                let name = match is_from {
                    true => absence.from_name.clone(),
                    false => self.name_of(endpoint),
                };
                let stays = coming.is_some() && coming == name && absence.is_gone;
                let concerned = leaving.map_or(is_from, |leaving| name == Some(leaving));
                concerned && !stays
            }
            Some(Word::Without(_)) => is_from,
            Some(Word::Settled(_)) | None => false,
        }
    }

    /// Whether it is said that the primary goes, or stops for a while.
    pub(super) fn is_change_announced(&self) -> bool {
        matches!(
            self.words().first(),
            Some(Word::Changing { .. } | Word::Without(_))
        )
    }

    /// Whether the `Cluster` says that there will be another primary.
    pub(super) fn is_change_in_progress(&self) -> bool {
        let has_cluster = matches!(&self.source, Source::Facts(facts) if facts.cluster.is_some());
        has_cluster && matches!(self.words().first(), Some(Word::Changing { .. }))
    }

    /// Who is called the primary, whatever is said besides.
    pub(super) fn named(&self) -> Option<Box<str>> {
        match &self.source {
            Source::Facts(facts) => facts.named().map(Into::into),
            Source::Hosts { .. } => None,
        }
    }

    fn words(&self) -> Vec<Word> {
        let Source::Facts(facts) = &self.source else {
            return Vec::new();
        };
        let mut words = facts.words(Before {
            subject: self.subject(),
            holder: self.holder.as_deref(),
        });
        let outdated = self.outdated.clone().map(Word::Settled);
        words.retain(|word| Some(word) != outdated.as_ref());
        if self.services_in_use().is_some() {
            // Who goes and who comes is not known here; why there is nobody can be.
            words.retain(Word::is_of_all);
        }
        words
    }

    /// What is said that was not said before.
    fn news(&self) -> Option<Word> {
        self.words().into_iter().find(|word| !self.is_old(word))
    }

    fn is_old(&self, word: &Word) -> bool {
        self.old_news.iter().any(|old| old.covers(word))
    }

    /// The instance that is used or was used last.
    fn subject(&self) -> Option<&str> {
        match &self.absence {
            Some(absence) => absence.from_name.as_deref(),
            None => self.primary_name.as_deref(),
        }
    }

    /// What was said to be for long is over.
    fn wake_up(&mut self, now: Instant) {
        let words = self.words();
        let is_fenced = |word: &Word| {
            matches!(
                word,
                Word::Changing {
                    reason: Reason::Fenced,
                    ..
                }
            )
        };
        let is_replica = self.is_unwanted_replica();
        let is_over = |reason| match reason {
            Reason::Hibernated => !words.contains(&Word::Without(Reason::Hibernated)),
            Reason::ReplicaCluster => !is_replica,
            Reason::Fenced => !words.iter().any(is_fenced),
            _ => false,
        };
        if let Some(absence) = &mut self.absence
            && is_over(absence.reason)
        {
            absence.reason = Reason::Restart;
            absence.began = now;
        }
    }

    /// Another is called the primary: the one before is not to be written to from here on.
    fn hear_of_another(&mut self, now: Instant) {
        let Some(name) = self.named() else { return };
        let Some(endpoint) = self.endpoint_of(&name) else {
            return;
        };
        if let Some(absence) = &mut self.absence {
            absence.hear_name(&endpoint, now);
        }
        let is_known = self.primary.is_none() || self.primary.as_ref() == Some(&endpoint);
        if is_known || self.outdated.as_ref() == Some(&name) {
            return;
        }
        let is_same = self.primary_name.as_ref() == Some(&name);
        let reason = if is_same {
            Reason::Restart
        } else {
            Reason::Promoting
        };
        self.begin_absence(reason, now);
        if let Some(absence) = &mut self.absence {
            absence.hear_name(&endpoint, now);
        }
        // What it was before it was named says nothing: it stood by until it was promoted.
        self.sighting(&endpoint).seen = None;
        self.appoint(endpoint);
        self.outdated = None;
        // A cluster that was made anew begins again.
        self.timeline = None;
    }

    /// Whether it is about an instance that is not used any more.
    fn is_about_others(&self, word: &Word) -> bool {
        let Word::Changing { leaving, .. } = word else {
            return false;
        };
        match leaving.as_deref() {
            None => self.absence.is_none() && self.outdated.is_some(),
            Some(_) if self.primary_name.is_none() => false,
            leaving => leaving != self.primary_name.as_deref() && leaving != self.subject(),
        }
    }

    fn hear_word(&mut self, word: &Word, now: Instant) {
        match word {
            Word::Settled(name) => self.settled(name, now),
            Word::Without(reason) => self.doubt(*reason, now),
            Word::Changing { leaving, reason, .. } => {
                self.doubt(*reason, now);
                if let (None, Some(name)) = (&self.primary, leaving) {
                    self.adopt(name);
                }
            }
        }
    }

    /// Nobody was used before, and this one is said to go.
    fn adopt(&mut self, name: &str) {
        let endpoint = self.endpoint_of(name);
        let is_gone = endpoint.as_ref().is_some_and(|endpoint| self.is_away(endpoint));
        if let Some(absence) = &mut self.absence {
            absence.from = endpoint.clone();
            absence.is_gone = is_gone;
            absence.from_name = Some(name.into());
        }
        if let Some(endpoint) = endpoint {
            self.appoint(endpoint);
        }
    }

    fn doubt(&mut self, reason: Reason, now: Instant) {
        self.begin_absence(reason, now);
        if let Some(absence) = &mut self.absence {
            absence.doubted.get_or_insert(now);
        }
    }

    fn settled(&mut self, name: &str, now: Instant) {
        let Some(endpoint) = self.endpoint_of(name) else {
            return;
        };
        let is_primary = self.primary.as_ref() == Some(&endpoint);
        let Some(absence) = &self.absence else { return };
        let is_unknown = self.primary.is_none() && absence.reason == Reason::Unknown;
        let is_first = is_unknown && !self.is_standby(&endpoint);
        let is_called_off =
            is_primary && absence.from == self.primary && absence.is_hearsay() && !absence.is_gone;
        if is_first || is_called_off {
            self.use_primary(endpoint, now);
        } else if self.primary.is_none() {
            self.appoint(endpoint);
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
}
