//! What a pool's server connections are good for, as the cluster stands: which may be lent, which have to prove
//! themselves, and what becomes of those who wait.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Guard, Plan, Pool,
    check::{self, Check},
    error::LeaseError,
    lease::{Handover, Server},
    seat::Seat,
    state::Counts,
};
use crate::{
    routing::{Gate, Standing},
    server::{self, Target, state::CloseReason},
    topology::{self, Cluster, Failure, Observation, Reason, ServerState, Topology},
    types::{Endpoint, Role},
};

/// Whoever comes when the primary has been away for too long waits for a search this long, beside the pause before it.
const SEARCH: Duration = Duration::from_secs(2);

/// What was found out last about whether requests wait.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The topology's version, twice; one more if they do.
    seen: AtomicU64,
    /// What a cluster was told of those who wait.
    told: Mutex<Option<Told>>,
}

/// So many clients count as held in a cluster, for as long as this lives.
#[derive(Debug)]
struct Told {
    cluster: Arc<Cluster>,
    count: usize,
}

impl Told {
    fn change(&mut self, count: usize) {
        self.cluster.change_held(self.count, count);
        self.count = count;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.change(0);
    }
}

impl Held {
    /// Forgets what was found out in another cluster.
    pub(super) fn forget(&self) {
        self.seen.store(0, Ordering::Relaxed);
    }

    fn tell(&self, cluster: &Arc<Cluster>, count: usize) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told
            .as_ref()
            .is_some_and(|told| count == 0 || !Arc::ptr_eq(&told.cluster, cluster))
        {
            *told = None;
        }
        if count > 0 {
            let cluster = cluster.clone();
            told.get_or_insert(Told { cluster, count: 0 }).change(count);
        }
    }
}

impl Pool {
    /// What a connection is good for. Costs two loads while nothing changes.
    pub(super) fn standing(plan: &Plan, connection: &mut Server) -> Standing {
        let target = &plan.target;
        if connection.judged == target.cluster.version() && !connection.doubts_role() {
            return Standing::Good;
        }
        let topology = target.cluster.topology();
        let standing = target
            .wish
            .standing(&topology, connection.endpoint(), connection.generation);
        match standing {
            Standing::Good if lets_go(target, &topology, connection.endpoint()) => Standing::Close,
            Standing::Good if connection.doubts_role() => Standing::Prove,
            Standing::Good => {
                connection.judged = topology.version;
                Standing::Good
            }
            other => other,
        }
    }

    /// The reason to close an idle connection, if its server is not used any more.
    pub(super) fn unrouted(plan: &Plan, connection: &mut Server) -> Option<CloseReason> {
        (Self::standing(plan, connection) == Standing::Close).then_some(CloseReason::Unrouted)
    }

    /// Whether requests wait for the primary.
    pub(super) fn is_held(&self, plan: &Plan) -> bool {
        let cluster = &plan.target.cluster;
        let (version, seen) = (cluster.version(), self.held.seen.load(Ordering::Relaxed));
        if seen >> 1 == version {
            return seen & 1 == 1;
        }
        let topology = cluster.topology();
        let is_held = match plan.target.wish.gate(&topology) {
            Gate::Held(_) => true,
            Gate::Refused(_) => !topology.phase.is_open(),
            Gate::Open | Gate::Limping(_) => false,
        };
        self.held
            .seen
            .store(topology.version << 1 | u64::from(is_held), Ordering::Relaxed);
        is_held
    }

    /// Asks the primary from time to time whether it takes connections. A server that shuts down in the smart way takes
    /// none, and waits for those that it has: nobody would notice as long as they are enough.
    pub(super) fn look_at_primary(&self, plan: &Plan, counts: Counts, now: Instant) {
        let target = &plan.target;
        let topology = target.cluster.topology();
        let (Gate::Open, Some(primary)) = (target.wish.gate(&topology), &topology.primary) else {
            return;
        };
        let works = target.wish.role == Role::ReadWrite && counts.active + counts.idle > 0;
        let interval = plan.settings.primary_check_interval;
        if !works || interval.is_zero() || !target.cluster.begin_look(now, interval) {
            return;
        }
        let (target, endpoint) = (target.clone(), primary.clone());
        self.tasks.spawn("look", async move {
            // Whether it can be reached is found out by those who need it.
            let looking = tokio::time::timeout(interval, server::look(&target, &endpoint));
            if let Ok(Some(failure @ Failure::CannotConnectNow)) = looking.await {
                let failed = Observation::Failed { endpoint, failure };
                target.cluster.observe(&failed, Instant::now());
            }
        });
    }

    /// Has a lent connection that came back prove itself.
    pub(super) fn recheck(self: &Arc<Self>, connection: Box<Server>) {
        let mut state = self.lock();
        state.check_lent();
        self.metrics.show(state.counts());
        drop(state);
        self.tasks
            .spawn("check", Check::new(self.clone(), connection).run());
    }

    /// Gives connections that rested until now to those who wait, if they may have them as they are.
    pub(super) fn wake_rested(&self, state: &mut Guard<'_>, plan: &Plan, now: Instant) -> Vec<Handover> {
        if self.is_held(plan) {
            return Vec::new();
        }
        state.wake_rested(|connection| {
            Self::standing(plan, connection) == Standing::Good
                && !check::is_due(connection, &plan.settings, now)
        })
    }

    /// What those who wait are refused with, if the primary has been away for long enough. Nobody is, before the primary
    /// was looked for once more: it may have come back while nobody asked.
    pub(super) fn refuse_held(
        &self,
        state: &mut Guard<'_>,
        plan: &Plan,
        now: Instant,
    ) -> Option<(Vec<Arc<Seat>>, LeaseError)> {
        let (target, counts) = (&plan.target, state.counts());
        let topology = target.cluster.topology();
        let Gate::Refused(reason) = target.wish.gate(&topology) else {
            return None;
        };
        if counts.waiting == 0 || (counts.active + counts.idle > 0 && topology.phase.is_open()) {
            return None;
        }
        let is_final = matches!(reason, Reason::Hibernated | Reason::ReplicaCluster);
        // A search that takes longer has asked whoever answers more than once.
        let enough = now.checked_sub(SEARCH + plan.settings.server_login_retry);
        let searched = target.cluster.last_search().max(enough);
        let came_until = if is_final { Some(now) } else { searched };
        let seats = state.dismiss_until(came_until?);
        (!seats.is_empty()).then(|| (seats, self.held_error(plan, reason)))
    }

    /// Has the primary looked for while it is away, although nobody may wait for it: the pool is in use, and what is known
    /// of the primary would not change otherwise.
    pub(super) fn search_unasked(self: &Arc<Self>, plan: &Plan, counts: Counts, now: Instant) {
        let target = &plan.target;
        let interval = plan.settings.primary_check_interval;
        let is_used = counts.servers() > 0 || self.metrics.clients.get() > 0;
        if target.wish.role != Role::ReadWrite || !is_used || interval.is_zero() {
            return;
        }
        let is_away = target.wish.gate(&target.cluster.topology()) != Gate::Open;
        // A wrong password is not tried for as long as it takes.
        let refused = || self.last_failure().is_some_and(|error| !error.is_transient());
        if !is_away || refused() || !target.cluster.begin_search(now, interval) {
            return;
        }
        let (pool, target) = (self.clone(), target.clone());
        self.tasks.spawn("search", async move {
            let Some(_turn) = target.cluster.try_scout() else {
                return;
            };
            let begun = Instant::now();
            match server::search(&target, &pool.credential()).await {
                Ok(Some(connection)) => connection.close(),
                Ok(None) => {}
                Err(error) if error.is_transient() => {}
                Err(error) => pool.last_failure.store(Some(Arc::new(error))),
            }
            target.cluster.note_search(begun);
            pool.ring();
        });
    }

    /// The same for whoever has waited for as long as it may.
    pub(super) fn reason_held(&self, plan: &Plan) -> Option<LeaseError> {
        match plan.target.wish.gate(&plan.target.cluster.topology()) {
            Gate::Held(reason) | Gate::Refused(reason) => Some(self.held_error(plan, reason)),
            Gate::Open | Gate::Limping(_) => None,
        }
    }

    fn held_error(&self, plan: &Plan, reason: Reason) -> LeaseError {
        let cluster = &plan.target.cluster;
        LeaseError::Held {
            cluster: cluster.name().into(),
            reason,
            since: Instant::now().saturating_duration_since(cluster.topology().since),
            last: self.last_failure(),
        }
    }

    /// Tells the cluster how many wait for its primary.
    pub(super) fn tell_held(&self, plan: &Plan, counts: Counts) {
        let now = if self.is_held(plan) { counts.waiting } else { 0 };
        self.held.tell(&plan.target.cluster, now);
    }
}

/// Whether a connection that nobody uses is closed because the primary is leaving: a server that shuts down waits for it,
/// whoever it is for, and another can be opened when one is needed. Those for writing are closed in any case.
fn lets_go(target: &Target, topology: &Topology, endpoint: &Endpoint) -> bool {
    target.wish.role != Role::ReadWrite
        && topology.is_leaving
        && !topology.phase.is_open()
        && topology.primary.as_ref() == Some(endpoint)
}

/// Whether the server of a connection outside of all pools is not to be kept waiting, or not to be used, and there is
/// another.
pub(super) fn is_left(target: &Target, endpoint: &Endpoint) -> bool {
    let topology = target.cluster.topology();
    let standing = |endpoint: &Endpoint| target.wish.standing(&topology, endpoint, topology.generation);
    let is_closing =
        |server: &topology::Server| server.endpoint == *endpoint && server.state == ServerState::NotAccepting;
    lets_go(target, &topology, endpoint)
        || topology.servers.iter().any(is_closing)
        || (standing(endpoint) == Standing::Close
            && topology
                .servers
                .iter()
                .any(|server| standing(&server.endpoint) != Standing::Close))
}

/// Closes a connection, and tells the cluster what its end means.
pub(super) fn close(connection: Server, reason: CloseReason) {
    connection
        .span()
        .in_scope(|| tracing::debug!(?reason, "closing server connection"));
    if reason == CloseReason::Dismissed {
        let endpoint = connection.endpoint().clone();
        let cluster: &Cluster = &connection.target().cluster;
        cluster.observe(&Observation::Dropped { endpoint }, Instant::now());
    }
    if reason == CloseReason::Unrouted {
        // It may be a server that is gone; those who go to another one do not wait for its word.
        connection.abandon();
    } else {
        connection.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients were held when the configuration was changed to another cluster, which was then told of minus so many.
    #[test]
    fn clients_count_as_held_where_they_are() {
        let cluster = |name: &str| Cluster::only(&Endpoint::Unix(name.into()), Instant::now());
        let (old, new, held) = (cluster("old"), cluster("new"), Held::default());
        held.tell(&old, 3);
        held.tell(&old, 2);
        assert_eq!((old.held(), new.held()), (2, 0));
        held.tell(&new, 2);
        assert_eq!((old.held(), new.held()), (0, 2));
        held.tell(&new, 0);
        assert_eq!((old.held(), new.held()), (0, 0));
        held.tell(&old, 1);
        drop(held);
        assert_eq!(old.held(), 0, "nobody of a pool that is gone waits");
    }
}
