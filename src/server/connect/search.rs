//! One search for a server: what it goes by, and when that is overtaken by what has become of the cluster.
//!
//! Pure but for the cluster that it reads.

use std::sync::Arc;

use super::target::Target;
use crate::{
    routing::Gate,
    topology::Topology,
    types::{Endpoint, Role},
};

/// What a search goes by.
pub(super) struct Search<'a> {
    target: &'a Target,
    /// What was known of the cluster when it began.
    pub(super) topology: Arc<Topology>,
    /// The servers that it tries.
    pub(super) endpoints: Vec<Endpoint>,
}

impl<'a> Search<'a> {
    pub(super) fn new(target: &'a Target) -> Self {
        let topology = target.cluster.topology();
        Self {
            target,
            endpoints: target.in_turn(&topology),
            topology,
        }
    }

    /// Ends when the search is overtaken.
    pub(super) async fn overtaken(&self) {
        let cluster = &self.target.cluster;
        let mut changes = cluster.changes();
        loop {
            let topology = cluster.topology();
            if topology.version != self.topology.version && self.is_overtaken(&topology) {
                return;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Whether a server's refusal for good is everybody's: it is the primary, or the only one, or no primary is looked for.
    /// Any other may be behind the primary, or may have got the address of one that has gone.
    pub(super) fn has_last_word(&self, endpoint: &Endpoint) -> bool {
        let (topology, wish) = (&self.topology, &self.target.wish);
        let is_known = matches!(wish.gate(topology), Gate::Open | Gate::Limping(_));
        wish.role != Role::ReadWrite
            || topology.is_shared
            || self.endpoints.len() == 1
            || (is_known && topology.primary.as_ref() == Some(endpoint))
    }

    /// Whether a new search would go elsewhere, as the cluster stands now.
    fn is_overtaken(&self, now: &Topology) -> bool {
        let wish = &self.target.wish;
        let candidates = wish.candidates(now, |_| 0);
        let is_tried = |endpoint: &Endpoint| self.endpoints.contains(endpoint);
        if !self.endpoints.is_empty() && !candidates.iter().any(is_tried) {
            return true;
        }
        if wish.role != Role::ReadWrite || now.is_shared {
            return false;
        }
        if now.primary != self.topology.primary && now.primary.as_ref().is_some_and(|one| !is_tried(one)) {
            return true;
        }
        match (wish.gate(&self.topology), wish.gate(now)) {
            // From now on one connection at a time looks for the primary.
            (Gate::Open | Gate::Limping(_), Gate::Held(_)) => true,
            (Gate::Held(_) | Gate::Refused(_), _) => candidates.iter().any(|endpoint| !is_tried(endpoint)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicUsize,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{
        routing::Wish,
        server::fuzzing,
        topology::{Phase, Reason},
    };

    const HELD: Phase = Phase::Holding(Reason::Failover);
    const LIMPING: Phase = Phase::Limping(Reason::Silent);

    fn server(name: char) -> Endpoint {
        Endpoint::Tcp {
            host: name.to_string(),
            port: 5432,
        }
    }

    /// A cluster of the servers `candidates`, each a letter, the primary among them or not.
    fn topology(phase: Phase, primary: char, candidates: &str) -> Topology {
        let candidates: Vec<_> = candidates.chars().map(server).collect();
        Topology {
            version: 1,
            generation: 1,
            phase,
            since: Instant::now(),
            primary: Some(server(primary)),
            is_leaving: false,
            servers: Vec::new(),
            candidates,
            services: None,
            alias: None,
            is_shared: false,
            is_replica: false,
            timeline_asked: None,
            last_hold: None,
        }
    }

    fn writer() -> Target {
        Target {
            wish: Wish::default(),
            begun: AtomicUsize::default(),
            ..fuzzing::target()
        }
    }

    fn search(target: &Target, topology: Topology) -> Search<'_> {
        Search {
            target,
            endpoints: topology.candidates.clone(),
            topology: Arc::new(topology),
        }
    }

    /// The node of the primary hangs: a log-in that was begun there takes 15 seconds to fail, and as many clients as there
    /// were such log-ins waited for them when another had long been appointed.
    #[test]
    fn a_search_ends_where_there_is_nothing_to_be_found_any_more() {
        let target = writer();
        for (before, after, is_overtaken) in [
            // Another is the primary.
            (
                topology(Phase::Serving, 'a', "a"),
                topology(Phase::Serving, 'b', "b"),
                true,
            ),
            // From now on one at a time looks.
            (
                topology(Phase::Serving, 'a', "a"),
                topology(HELD, 'a', "bca"),
                true,
            ),
            // Somebody else could not log in: that is no reason for those who may.
            (
                topology(Phase::Serving, 'a', "a"),
                topology(LIMPING, 'a', "abc"),
                false,
            ),
            // The pods have got other addresses.
            (topology(HELD, 'a', "ab"), topology(HELD, 'a', "xy"), true),
            (topology(HELD, 'a', "ab"), topology(HELD, 'a', "xab"), true),
            // It is being tried already, in whichever order.
            (topology(HELD, 'a', "ab"), topology(HELD, 'a', "ba"), false),
            (topology(HELD, 'a', "ab"), topology(HELD, 'a', "b"), false),
            (
                topology(HELD, 'a', "ab"),
                topology(Phase::Serving, 'b', "b"),
                false,
            ),
            (
                topology(HELD, 'a', "ab"),
                topology(Phase::Degraded(Reason::Failover), 'a', "ab"),
                false,
            ),
        ] {
            let (was, is) = (format!("{before:?}"), format!("{after:?}"));
            let search = search(&target, before);
            assert_eq!(search.is_overtaken(&after), is_overtaken, "{was} -> {is}");
        }
    }

    /// While a failover was under way a standby was asked that did not have the database yet, and everybody who waited was
    /// told that there was no such database.
    #[test]
    fn only_the_primary_speaks_for_all() {
        let target = writer();
        let speaks = |topology: Topology, name| search(&target, topology).has_last_word(&server(name));
        assert!(speaks(topology(Phase::Serving, 'a', "abc"), 'a'));
        assert!(!speaks(topology(Phase::Serving, 'a', "abc"), 'b'));
        assert!(speaks(topology(LIMPING, 'a', "abc"), 'a'));
        assert!(!speaks(topology(HELD, 'a', "abc"), 'a') && !speaks(topology(HELD, 'a', "abc"), 'b'));
        assert!(speaks(topology(HELD, 'a', "a"), 'a'), "there is no other");
        let reader = fuzzing::target();
        assert!(search(&reader, topology(HELD, 'a', "abc")).has_last_word(&server('b')));
    }

    #[tokio::test]
    async fn nothing_is_overtaken_while_nothing_changes() {
        let target = writer();
        let search = Search::new(&target);
        let waited = tokio::time::timeout(Duration::from_millis(20), search.overtaken());
        assert!(waited.await.is_err());
    }
}
