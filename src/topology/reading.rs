//! What Kubernetes' facts come to: who should be the primary, and whether that is about to change.

use super::{ClusterFacts, ClusterPhase, Facts, Instance, Reason};

/// What the facts say about the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// Nothing has been read.
    Nothing,
    /// This instance is the primary and stays it.
    Settled(Box<str>),
    /// The primary is replaced, or stops for a while.
    Changing {
        leaving: Option<Box<str>>,
        coming: Option<Box<str>>,
        reason: Reason,
    },
    /// There is none and none is to be expected.
    Without(Reason),
}

impl Facts {
    /// What they come to. `primary` is the instance that was the primary last; `is_old_news` says that the phase was
    /// there when it became so, and is not about what comes next.
    pub(super) fn word(&self, primary: Option<&str>, is_old_news: bool) -> Word {
        match &self.cluster {
            Some(cluster) => match &cluster.current_primary {
                _ if cluster.is_hibernated => Word::Without(Reason::Hibernated),
                Some(current) => self.word_of_cluster(cluster, current, primary, is_old_news),
                // A cluster that is just being made.
                None => self.word_of_slices(primary),
            },
            None => self.word_of_slices(primary),
        }
    }

    fn word_of_cluster(
        &self,
        cluster: &ClusterFacts,
        current: &str,
        primary: Option<&str>,
        is_old_news: bool,
    ) -> Word {
        let changing = |coming: Option<&str>, reason| Word::Changing {
            leaving: Some(current.into()),
            coming: coming.map(Into::into),
            reason,
        };
        // What is said of a primary that has just come is about how it came.
        let phase = match cluster.phase {
            _ if is_old_news || primary != Some(current) => ClusterPhase::Healthy,
            phase => phase,
        };
        let target = cluster.target_primary.as_deref();
        let other = target.filter(|target| *target != current);
        if cluster.fenced.has(current) {
            changing(None, Reason::Fenced)
        } else if cluster.is_pending && !is_old_news {
            changing(None, Reason::Failover)
        } else if let Some(target) = other.filter(|_| !is_old_news) {
            changing(Some(target), reason_for(cluster.phase))
        } else if phase == ClusterPhase::PrimaryRestart {
            changing(Some(current), Reason::Restart)
        } else if matches!(phase, ClusterPhase::Switchover | ClusterPhase::FailingOver) {
            // The phase is told before the target, and the target goes back and forth while a primary fails.
            changing(None, reason_for(phase))
        } else if self
            .instance(current)
            .is_some_and(|instance| instance.is_terminating())
        {
            changing(None, Reason::Terminating)
        } else {
            self.word_of_lease(current)
        }
    }

    /// The lease is let go of by a primary that stops, and taken by the next one before it is promoted.
    fn word_of_lease(&self, current: &str) -> Word {
        match &self.lease {
            Some(lease) if lease.holder.as_deref() != Some(current) => Word::Changing {
                leaving: Some(current.into()),
                coming: lease.holder.clone(),
                reason: Reason::Switchover,
            },
            _ => Word::Settled(current.into()),
        }
    }

    fn word_of_slices(&self, primary: Option<&str>) -> Word {
        if !self.slices_known {
            return Word::Nothing;
        }
        let changing = |coming: Option<&str>, reason| Word::Changing {
            leaving: primary.map(Into::into),
            coming: coming.map(Into::into),
            reason,
        };
        let ready = self
            .instances
            .iter()
            .filter(|instance| instance.is_ready_primary());
        let names: Vec<&str> = ready.map(|instance| &*instance.name).collect();
        match *names {
            [] => {
                let holder = self.lease.as_ref().and_then(|lease| lease.holder.as_deref());
                let holder = holder.filter(|holder| Some(*holder) != primary);
                changing(holder, Reason::NoEndpoint)
            }
            [one] => Word::Settled(one.into()),
            // For a moment both are: the old one's label goes after the new one's has come.
            ref several => {
                let new = several.iter().find(|name| Some(**name) != primary);
                changing(new.copied(), Reason::Switchover)
            }
        }
    }

    /// Whether an instance is called the primary by a source that does so only once it has been promoted; the slices do
    /// later than the `Cluster`.
    pub(super) fn announces(&self, name: &str) -> Option<Announcement> {
        let in_slice = self
            .instance(name)
            .is_some_and(|instance| instance.is_ready_primary());
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

fn reason_for(phase: ClusterPhase) -> Reason {
    match phase {
        ClusterPhase::FailingOver => Reason::Failover,
        ClusterPhase::PrimaryRestart => Reason::Restart,
        _ => Reason::Switchover,
    }
}
