//! A cluster, shared by whoever routes to it, hears from it or watches it.
//!
//! Whoever learns something says it here; the decision is made at once, under a short lock, and published. The clock is
//! an argument, and nothing waits here but scouts for their turn.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};

use super::{
    Change, Facts, Observation, Reason, Services, Topology,
    history::History,
    machine::{Machine, Rules, Source},
};
use crate::types::Endpoint;

/// One cluster of servers that hold the same databases.
pub struct Cluster {
    name: Box<str>,
    machine: Mutex<Machine>,
    topology: ArcSwap<Topology>,
    version: AtomicU64,
    changes: watch::Sender<u64>,
    /// Something is due at another time.
    rescheduled: Notify,
    scouts: Semaphore,
    held: AtomicUsize,
    /// How often each reason has begun to keep clients from the primary.
    absences: [AtomicU64; Reason::ALL.len()],
    looked: Mutex<Option<Instant>>,
    scouted: Mutex<Scouted>,
    loads: Mutex<HashMap<Endpoint, Arc<Load>>>,
    history: History,
}

/// How much one server has to do for this pooler.
#[derive(Debug, Default)]
pub struct Load {
    open: AtomicUsize,
    lent: AtomicUsize,
}

/// When the primary was looked for.
#[derive(Debug, Clone, Copy, Default)]
struct Scouted {
    /// The last search that has ended began then.
    ended: Option<Instant>,
    /// The last search that nobody waited for began then.
    unasked: Option<Instant>,
}

/// The turn to look for the primary. One connection at a time is opened to find it, whichever pool it is for.
#[derive(Debug)]
pub struct Scout<'a> {
    _turn: Option<SemaphorePermit<'a>>,
}

impl Cluster {
    /// A list of servers. With `is_shared` all of them may be written to.
    pub fn fixed(hosts: Vec<Endpoint>, is_shared: bool, rules: Rules, now: Instant) -> Arc<Self> {
        let name = hosts
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",");
        let machine = Machine::new(Source::Hosts { hosts, is_shared }, rules, now);
        Self::new(&name, machine, now)
    }

    /// One server by itself.
    pub fn only(endpoint: &Endpoint, now: Instant) -> Arc<Self> {
        let rules = Rules {
            hold_timeout: Duration::MAX,
            is_replica: false,
        };
        Self::fixed(vec![endpoint.clone()], false, rules, now)
    }

    /// A cluster that Kubernetes says everything of, with [`Cluster::learn`]. Until it does, the services lead there.
    pub fn discovered(name: &str, services: Services, rules: Rules, now: Instant) -> Arc<Self> {
        let machine = Machine::new(Source::Facts(Facts::default()), rules, now);
        Self::new(name, machine.reached_by(services), now)
    }

    fn new(name: &str, mut machine: Machine, now: Instant) -> Arc<Self> {
        let first = machine.first(now);
        let (changes, _) = watch::channel(first.version);
        Arc::new(Self {
            name: name.into(),
            version: AtomicU64::new(first.version),
            topology: ArcSwap::from_pointee(first),
            machine: Mutex::new(machine),
            changes,
            rescheduled: Notify::new(),
            scouts: Semaphore::new(1),
            held: AtomicUsize::new(0),
            absences: Default::default(),
            looked: Mutex::default(),
            scouted: Mutex::default(),
            loads: Mutex::default(),
            history: History::default(),
        })
    }

    /// `namespace/name`, or the hosts.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known now.
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// The last changes of the primary and of its phase, oldest first.
    pub fn history(&self) -> Vec<Change> {
        self.history.changes()
    }

    /// The version of [`Cluster::topology`], at the price of one load.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes what Kubernetes says.
    pub fn learn(&self, facts: Facts, now: Instant) {
        self.decide(now, |machine| machine.learn(facts, now));
    }

    /// Takes what a server has shown.
    pub fn observe(&self, observation: &Observation, now: Instant) {
        // Others do not show whether the primary takes connections.
        if let Observation::Opened { endpoint, .. } = observation
            && self.topology.load().primary.as_ref() == Some(endpoint)
        {
            *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
        self.decide(now, |machine| machine.observe(observation, now));
    }

    /// Goes by other rules.
    pub fn set_rules(&self, rules: Rules, now: Instant) {
        self.decide(now, |machine| machine.set_rules(rules, now));
    }

    /// Lets time pass, and says when it wants to be called again.
    pub fn tick(&self, now: Instant) -> Option<Instant> {
        self.decide(now, |machine| machine.tick(now));
        self.lock().next_tick(now)
    }

    /// Waits for the turn to look for the primary. Cancel-safe.
    pub async fn scout(&self) -> Scout<'_> {
        Scout {
            _turn: self.scouts.acquire().await.ok(),
        }
    }

    /// The turn to look for the primary, if nobody does.
    pub fn try_scout(&self) -> Option<Scout<'_>> {
        let turn = self.scouts.try_acquire().ok()?;
        Some(Scout { _turn: Some(turn) })
    }

    /// Counts clients that wait for the primary: one that knew of `before` knows of `now`.
    pub fn change_held(&self, before: usize, now: usize) {
        if now > before {
            self.held.fetch_add(now - before, Ordering::Relaxed);
        } else if now < before {
            self.held.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// Whether it is time to ask the primary whether it takes connections, which those that are open do not show. Once for
    /// all pools in `interval`.
    pub fn begin_look(&self, now: Instant, interval: Duration) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *looked.get_or_insert(now);
        let is_due = now.saturating_duration_since(since) >= interval;
        if is_due {
            *looked = Some(now);
        }
        is_due
    }

    /// Notes that a search for the primary that began at `begun` has ended.
    pub fn note_search(&self, begun: Instant) {
        let mut scouted = self.scouted();
        scouted.ended = scouted.ended.max(Some(begun));
    }

    /// When the last search that has ended was begun.
    pub fn last_search(&self) -> Option<Instant> {
        self.scouted().ended
    }

    /// Whether it is time to look for the primary although nobody waits for it: nobody has for `interval`.
    pub fn begin_search(&self, now: Instant, interval: Duration) -> bool {
        let mut scouted = self.scouted();
        let last = scouted
            .ended
            .max(scouted.unasked)
            .max(Some(self.topology.load().since));
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if is_due {
            scouted.unasked = Some(now);
        }
        is_due
    }

    fn scouted(&self) -> MutexGuard<'_, Scouted> {
        self.scouted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a server has to do.
    pub fn load(&self, endpoint: &Endpoint) -> Arc<Load> {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = loads.get(endpoint) {
            return load.clone();
        }
        // Servers come and go with their addresses.
        loads.retain(|_, load| Arc::strong_count(load) > 1);
        loads.entry(endpoint.clone()).or_default().clone()
    }

    /// How many clients wait for the primary.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Waits until something is due at another time than [`Cluster::tick`] has said. Cancel-safe.
    pub async fn rescheduled(&self) {
        self.rescheduled.notified().await;
    }

    /// How often each reason has begun to keep clients from the primary.
    pub fn absences(&self) -> impl Iterator<Item = (Reason, u64)> {
        let counts = self.absences.iter().map(|count| count.load(Ordering::Relaxed));
        Reason::ALL.into_iter().zip(counts)
    }

    fn decide(&self, now: Instant, change: impl FnOnce(&mut Machine)) {
        let mut machine = self.lock();
        let due = machine.next_tick(now);
        change(&mut machine);
        if machine.next_tick(now) != due {
            self.rescheduled.notify_one();
        }
        if let Some(topology) = machine.show(now) {
            let before = self.topology.load();
            self.count(&before, &topology);
            self.report(&before, &topology);
            if let Some(change) = Change::between(&before, &topology, self.held(), now) {
                self.history.note(change);
            }
            let version = topology.version;
            self.topology.store(Arc::new(topology));
            self.version.store(version, Ordering::Release);
            // Still under the lock, so that the last one told is the last one.
            self.changes.send_replace(version);
        }
    }

    fn count(&self, old: &Topology, new: &Topology) {
        let reason = new
            .phase
            .reason()
            .filter(|reason| old.phase.reason() != Some(*reason));
        if let Some(count) = reason.and_then(|reason| self.absences.get(reason as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One line for each change that matters.
    fn report(&self, old: &Topology, new: &Topology) {
        let cluster = &*self.name;
        let primary = new.primary.as_ref().map(ToString::to_string);
        let reason = new.phase.reason().map(Reason::as_str);
        let (phase, generation) = (new.phase.as_str(), new.generation);
        if old.phase != new.phase {
            let last = (new.phase.reason().is_none())
                .then_some(new.last_hold.as_ref())
                .flatten();
            let took = last
                .filter(|_| old.phase.reason().is_some())
                .map(|hold| hold.took.as_secs_f64());
            tracing::info!(
                cluster,
                phase,
                reason,
                primary,
                generation,
                took,
                held = self.held(),
                "topology"
            );
        } else if old.primary != new.primary {
            tracing::info!(cluster, phase, reason, primary, generation, "primary changed");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // No decision leaves the machine half changed.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// How many connections to it are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many of them work for a client.
    pub fn lent(&self) -> usize {
        self.lent.load(Ordering::Relaxed)
    }

    /// Notes that one was opened; [`Load::note_closed`] follows.
    pub fn note_opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that one was closed.
    pub fn note_closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that one is lent; [`Load::note_returned`] follows.
    pub fn note_lent(&self) {
        self.lent.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that one has come back.
    pub fn note_returned(&self) {
        self.lent.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{ClusterFacts, Condition, Instance, Seen};

    /// `a` and `b`, and who is called the primary.
    fn facts(primary: &str) -> Facts {
        let instance = |name: &str| Instance {
            name: name.into(),
            endpoint: endpoint(name),
            zone: None,
            rw: None,
            ro: None,
            r: Some(Condition {
                ready: true,
                terminating: false,
            }),
        };
        Facts {
            instances: ["a", "b"].map(instance).into(),
            slices_known: true,
            cluster: Some(ClusterFacts {
                current_primary: Some(primary.into()),
                target_primary: Some("b".into()),
                ..ClusterFacts::default()
            }),
            lease: None,
        }
    }

    fn endpoint(name: &str) -> Endpoint {
        Endpoint::Tcp {
            host: name.to_owned(),
            port: 5432,
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_the_next_decision_hears_when_it_is_due_at_another_time() {
        // The new primary accepted writes before anybody said that it may. When it was said, nothing of what is shown
        // was another, and the decision came when it would have come without a word.
        let now = Instant::now();
        let rules = Rules {
            hold_timeout: Duration::from_secs(90),
            is_replica: false,
        };
        let services = Services {
            rw: endpoint("mypg-rw"),
            ro: endpoint("mypg-ro"),
            r: endpoint("mypg-r"),
        };
        let cluster = Cluster::discovered("mypg", services, rules, now);
        cluster.learn(facts("a"), now);
        let endpoint = endpoint("b");
        let seen = Seen::Primary { timeline: None };
        cluster.observe(&Observation::Opened { endpoint, seen }, now);
        let first = cluster.tick(now).expect("something is due");
        cluster.rescheduled().await;
        let version = cluster.version();
        cluster.learn(facts("b"), now);
        assert_eq!(cluster.version(), version, "nothing is shown");
        cluster.rescheduled().await;
        assert!(cluster.tick(now).expect("something is due") < first);
    }

    #[test]
    fn the_primary_is_looked_for_by_one_of_all_who_would() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let cluster = Cluster::only(&Endpoint::Unix("/nowhere".into()), start);
        assert_eq!(cluster.last_search(), None);
        assert!(!cluster.begin_search(start, second), "nobody has had time to");
        assert!(cluster.begin_search(start + second, second));
        assert!(!cluster.begin_search(start + second, second), "somebody does");
        cluster.note_search(start + second * 2);
        assert!(!cluster.begin_search(start + second * 2, second), "somebody did");
        assert!(cluster.begin_search(start + second * 3, second));
        cluster.note_search(start + second);
        assert_eq!(cluster.last_search(), Some(start + second * 2));
    }
}
