//! What Kubernetes' facts come to: who should be the primary, and whether that is about to change.

use super::{ClusterFacts, ClusterPhase, Facts, Instance, Reason};

/// Something that the facts say about the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// This instance is the primary and stays it.
    Settled(Box<str>),
    /// The primary is replaced, or stops for a while.
    Changing {
        /// The primary, where that is said: a service without endpoints does not say whose it was.
        leaving: Option<Box<str>>,
        coming: Option<Box<str>>,
        reason: Reason,
    },
    /// There is none and none is to be expected.
    Without(Reason),
}

impl Word {
    /// Whether somebody who has heard this learns nothing from another word: to say less than before is not news.
    pub(super) fn covers(&self, word: &Self) -> bool {
        match (self, word) {
            (
                Self::Changing { leaving, reason, .. },
                Self::Changing {
                    leaving: now,
                    reason: why,
                    ..
                },
            ) if word.is_vague() => leaving == now && reason == why,
            _ => self == word,
        }
    }

    /// Whether it is about the primary whoever that is.
    pub(super) fn is_of_all(&self) -> bool {
        match self {
            Self::Without(_) => true,
            Self::Changing { reason, .. } => *reason == Reason::Fenced,
            Self::Settled(_) => false,
        }
    }

    /// Whether a change is said to be made, and not which.
    pub(super) fn is_vague(&self) -> bool {
        match self {
            Self::Changing {
                leaving,
                coming,
                reason: Reason::Switchover | Reason::Failover | Reason::Restart,
            } => coming.is_none() || coming == leaving,
            _ => false,
        }
    }
}

/// What has to be known of the time before to read them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before<'a> {
    /// The instance that is used or was used last: what the phase says of one that has just come is about how it came.
    pub(super) subject: Option<&'a str>,
    /// The last primary that was seen to hold the lease: one that has not held it has not let go of it.
    pub(super) holder: Option<&'a str>,
}

impl Facts {
    /// All that they say, what weighs most first.
    pub(super) fn words(&self, before: Before<'_>) -> Vec<Word> {
        match &self.cluster {
            Some(cluster) if cluster.is_hibernated => vec![Word::Without(Reason::Hibernated)],
            Some(cluster) => match &cluster.current_primary {
                Some(current) => self.words_of_cluster(cluster, current, before),
                // A cluster that is just being made.
                None => self.words_of_slices(before),
            },
            None => self.words_of_slices(before),
        }
    }

    /// Who is called the primary, whatever is said besides.
    pub(super) fn named(&self) -> Option<&str> {
        let current = self
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.current_primary.as_deref());
        current.or_else(|| match *self.ready_primaries() {
            [one] => Some(one),
            _ => None,
        })
    }

    fn words_of_cluster(&self, cluster: &ClusterFacts, current: &str, before: Before<'_>) -> Vec<Word> {
        let fenced = cluster
            .fenced
            .has(current)
            .then(|| changing(current, None, Reason::Fenced));
        let is_terminating = self.instance(current).is_some_and(Instance::is_terminating);
        let words = [
            fenced,
            plan(cluster, current, before.subject == Some(current)),
            is_terminating.then(|| changing(current, None, Reason::Terminating)),
            self.word_of_lease(current, before),
            Some(Word::Settled(current.into())),
        ];
        words.into_iter().flatten().collect()
    }

    /// The lease is let go of by a primary that stops, and taken by the next one before it is promoted.
    fn word_of_lease(&self, current: &str, before: Before<'_>) -> Option<Word> {
        let holder = self.lease.as_ref()?.holder.as_deref();
        (holder != Some(current) && before.holder == Some(current))
            .then(|| changing(current, holder, Reason::Switchover))
    }

    fn words_of_slices(&self, before: Before<'_>) -> Vec<Word> {
        if !self.slices_known {
            return Vec::new();
        }
        match *self.ready_primaries() {
            [] => vec![Word::Changing {
                leaving: None,
                coming: self.lease.as_ref().and_then(|lease| lease.holder.clone()),
                reason: Reason::NoEndpoint,
            }],
            [one] => {
                let lease = self.word_of_lease(one, before);
                lease.into_iter().chain([Word::Settled(one.into())]).collect()
            }
            // For a moment both are: the old one's label goes after the new one's has come.
            _ => vec![Word::Changing {
                leaving: None,
                coming: None,
                reason: Reason::Switchover,
            }],
        }
    }

    fn ready_primaries(&self) -> Vec<&str> {
        let ready = self
            .instances
            .iter()
            .filter(|instance| instance.is_ready_primary());
        ready.map(|instance| &*instance.name).collect()
    }

    /// Whether an instance is called the primary by a source that does so only once it has been promoted; the slices do
    /// later than the `Cluster`.
    pub(super) fn announces(&self, name: &str) -> Option<Announcement> {
        let in_slice = self.instance(name).is_some_and(Instance::is_ready_primary);
        let current = self
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.current_primary.as_deref());
        match current {
            _ if in_slice => Some(Announcement::Service),
            Some(current) if current == name => Some(Announcement::Cluster),
            _ => None,
        }
    }

    pub(super) fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| &*instance.name == name)
    }
}

/// Who calls an instance the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announcement {
    /// `status.currentPrimary`. What follows at once is that the operator ends all connections of clients to it.
    Cluster,
    /// The service: that is over.
    Service,
}

impl Instance {
    /// Whether the pod is being deleted.
    pub(super) fn is_terminating(&self) -> bool {
        [self.rw, self.ro, self.r]
            .iter()
            .flatten()
            .any(|condition| condition.terminating)
    }

    fn is_ready_primary(&self) -> bool {
        self.rw
            .is_some_and(|condition| condition.ready && !condition.terminating)
    }
}

/// What is said by whom the operator wants as the primary, and by what it says that it does.
fn plan(cluster: &ClusterFacts, current: &str, is_subject: bool) -> Option<Word> {
    let target = cluster.target_primary.as_deref();
    if cluster.is_pending {
        return Some(changing(current, None, Reason::Failover));
    }
    if let Some(target) = target.filter(|target| *target != current) {
        return Some(changing(current, Some(target), reason_for(cluster.phase)));
    }
    match cluster.phase {
        _ if !is_subject => None,
        ClusterPhase::PrimaryRestart => Some(changing(current, Some(current), Reason::Restart)),
        // The phase is told before the target, and the target goes back and forth while a primary fails.
        phase @ (ClusterPhase::Switchover | ClusterPhase::FailingOver) => {
            Some(changing(current, None, reason_for(phase)))
        }
        ClusterPhase::Healthy | ClusterPhase::Other => None,
    }
}

fn changing(leaving: &str, coming: Option<&str>, reason: Reason) -> Word {
    Word::Changing {
        leaving: Some(leaving.into()),
        coming: coming.map(Into::into),
        reason,
    }
}

fn reason_for(phase: ClusterPhase) -> Reason {
    match phase {
        ClusterPhase::FailingOver => Reason::Failover,
        ClusterPhase::PrimaryRestart => Reason::Restart,
        _ => Reason::Switchover,
    }
}
