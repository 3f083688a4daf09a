//! The last changes of a cluster's primary, for people who ask later what has happened.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Phase, Topology};

/// So many changes are remembered; a switchover makes two or three.
const LENGTH: usize = 32;

/// A change of phase, or of the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When it was.
    pub at: Instant,
    /// The phase that began, or went on with another primary.
    pub phase: Phase,
    /// The primary by then, or the server that was it last: the pod's name, or the endpoint.
    pub primary: Option<Box<str>>,
    /// How long requests had to wait, where the change has ended that.
    pub took: Option<Duration>,
    /// How many clients waited.
    pub held: usize,
}

/// The last changes, oldest first.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<Change>>);

impl Change {
    /// What has changed from one topology to the next, if it is worth a line.
    pub(super) fn between(old: &Topology, new: &Topology, held: usize, at: Instant) -> Option<Self> {
        if old.phase == new.phase && old.primary == new.primary {
            return None;
        }
        let has_waited = old.phase.reason().is_some() && new.phase.reason().is_none();
        let hold = new.last_hold.as_ref().filter(|_| has_waited);
        let name = |endpoint| {
            let server = new.server(endpoint);
            server.map_or_else(|| endpoint.to_string().into(), |server| server.name.clone())
        };
        Some(Self {
            at,
            phase: new.phase,
            primary: new.primary.as_ref().map(name),
            took: hold.map(|hold| hold.took),
            held,
        })
    }
}

impl History {
    pub(super) fn note(&self, change: Change) {
        let mut changes = self.lock();
        if changes.len() == LENGTH {
            changes.pop_front();
        }
        changes.push_back(change);
    }

    pub(super) fn changes(&self) -> Vec<Change> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Change>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        topology::{Cluster, Observation, Rules, Seen},
        types::Endpoint,
    };

    #[test]
    fn a_cluster_remembers_its_primaries_and_how_long_it_had_none() {
        let start = Instant::now();
        let host = |name: &str| Endpoint::Tcp {
            host: name.to_owned(),
            port: 5432,
        };
        let rules = Rules {
            hold_timeout: Duration::from_secs(90),
            is_replica: false,
        };
        let cluster = Cluster::fixed(vec![host("a"), host("b")], false, rules, start);
        let opened = |name| Observation::Opened {
            endpoint: host(name),
            seen: Seen::Primary { timeline: None },
        };
        cluster.observe(&opened("a"), start);
        let demoted = Observation::Demoted { endpoint: host("a") };
        let lost = start + Duration::from_secs(5);
        cluster.observe(&demoted, lost);
        let found = lost + Duration::from_secs(2);
        cluster.observe(&opened("b"), found);
        cluster.tick(found + Duration::from_secs(3));
        let changes = cluster.history();
        let last = changes.last().unwrap();
        assert_eq!(last.phase, Phase::Serving, "{changes:?}");
        assert_eq!(last.primary.as_deref(), Some("b:5432"));
        assert!(last.took.unwrap() >= Duration::from_secs(2), "{changes:?}");
        assert!(changes.iter().any(|change| change.at == lost), "{changes:?}");
    }

    #[test]
    fn the_oldest_change_makes_room() {
        let history = History::default();
        for held in 0..LENGTH + 3 {
            history.note(Change {
                at: Instant::now(),
                phase: Phase::Serving,
                primary: None,
                took: None,
                held,
            });
        }
        let changes = history.changes();
        assert_eq!(changes.len(), LENGTH);
        assert_eq!((changes[0].held, changes[LENGTH - 1].held), (3, LENGTH + 2));
    }
}
