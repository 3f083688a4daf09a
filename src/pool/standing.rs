//! What a pool's server connections are good for, as the cluster stands: which may be lent, which have to prove
//! themselves, and what becomes of those who wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::{
    Guard, Plan, Pool,
    check::{self, Check},
    error::LeaseError,
    lease::{Handover, Server},
    state::Counts,
};
use crate::{
    routing::{Gate, Standing},
    server::{self, state::CloseReason},
    topology::{Cluster, Failure, Observation, Reason},
    types::Role,
};

/// What was found out last about whether requests wait.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The topology's version, twice; one more if they do.
    seen: AtomicU64,
    /// How many of those who wait the cluster has been told of.
    told: AtomicUsize,
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
            if let Some(failure @ Failure::CannotConnectNow) = server::look(&target, &endpoint).await {
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

    /// What those who wait are refused with, if they have waited long enough for the primary.
    pub(super) fn refusal(&self, plan: &Plan, counts: Counts) -> Option<LeaseError> {
        let topology = plan.target.cluster.topology();
        match plan.target.wish.gate(&topology) {
            Gate::Refused(reason) if counts.active + counts.idle == 0 || !topology.phase.is_open() => {
                Some(self.held_error(plan, reason))
            }
            _ => None,
        }
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
        let before = self.held.told.swap(now, Ordering::Relaxed);
        plan.target.cluster.change_held(before, now);
    }
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
    connection.close();
}
