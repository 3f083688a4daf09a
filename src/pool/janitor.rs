//! What happens to a pool without a client's asking: idle connections that ended or are too old, waiters
//! that have waited too long, the minimum size.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Pool, close,
    error::{LeaseError, LimitReached},
    lease::Lease,
    plan::Plan,
    state::Counts,
    succession::{self, Steps},
};
use crate::{
    server::{Connection, state::CloseReason},
    topology::Cluster,
};

/// How often a pool is looked at when nothing happens to it, and when clients wait in it.
const TICK: Duration = Duration::from_secs(1);
const WAITING_TICK: Duration = Duration::from_millis(100);

/// Wakes a pool's janitor when an idle connection has something to say, or when somebody begins to wait.
#[derive(Debug, Default)]
pub(super) struct Bell {
    notify: Notify,
    /// The janitor looks again after the longer time only: it has seen nobody wait.
    resting: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.notify.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify.notify_one();
    }
}

impl Bell {
    /// Says that somebody waits. Rings once for all who begin to wait before the janitor has looked: a wake-up
    /// of another thread for each would cost more than the query.
    pub(super) fn somebody_waits(&self) {
        if self.resting.load(Ordering::Relaxed) && self.resting.swap(false, Ordering::Relaxed) {
            self.notify.notify_one();
        }
    }

    /// Looks after a pool until it is dropped, or `stop`.
    pub(super) async fn answer(self: Arc<Self>, pool: Weak<Pool>, stop: CancellationToken) {
        let mut followed: Option<Followed> = None;
        loop {
            let Some((tick, cluster)) = pool
                .upgrade()
                .map(|pool| (pool.sweep(Instant::now()), pool.plan().target.cluster.clone()))
            else {
                return;
            };
            let followed = Followed::renew(&mut followed, cluster);
            self.resting.store(tick == TICK, Ordering::Relaxed);
            // Whoever has begun to wait in between has not rung.
            if tick == TICK && pool.upgrade().is_some_and(|pool| pool.counts().waiting > 0) {
                continue;
            }
            // Either way there is something to look at.
            let rung = async {
                tokio::select! {
                    () = self.notify.notified() => {}
                    _ = followed.changes.changed() => {}
                }
            };
            let rung = tokio::time::timeout(tick, rung);
            if stop.run_until_cancelled(rung).await.is_none() {
                return;
            }
        }
    }
}

/// The cluster that a pool goes by, whose changes are the janitor's to carry out.
struct Followed {
    cluster: Arc<Cluster>,
    changes: watch::Receiver<u64>,
}

impl Followed {
    /// The same, unless it is another cluster by now.
    fn renew(followed: &mut Option<Self>, cluster: Arc<Cluster>) -> &mut Self {
        let same = followed
            .take()
            .filter(|followed| Arc::ptr_eq(&followed.cluster, &cluster));
        followed.insert(same.unwrap_or_else(|| Self {
            changes: cluster.changes(),
            cluster,
        }))
    }
}

impl Pool {
    /// One look at everything. Returns when to look again at the latest.
    fn sweep(self: &Arc<Self>, now: Instant) -> Duration {
        let plan = self.plan();
        let waker = Waker::from(self.bell.clone());
        let mut cx = Context::from_waker(&waker);
        let mut state = self.lock();
        let limits = state.limits();
        let keeps = state.keeps_servers();
        let mut old = false;
        let mut removed = state.sweep(|connection, others| {
            if !keeps || others >= limits.size.get() {
                return Some(CloseReason::Surplus);
            }
            let ended = connection.check_idle(&mut cx).err();
            ended
                .or_else(|| Self::unrouted(&plan, connection))
                .or_else(|| self.overdue(connection, &plan, others, now))
                .or_else(|| {
                    let is_old = succession::is_old(connection, &plan, now);
                    let needed = succession::is_needed(connection, others, &plan, now);
                    old |= is_old && needed;
                    (is_old && !needed).then_some(CloseReason::Lifetime)
                })
        });
        let timeout = plan.settings.query_wait_timeout;
        let expired = if timeout.is_zero() {
            Vec::new()
        } else {
            state.expire(now, timeout)
        };
        let steps = if old {
            self.succeed_idle(&mut state, now)
        } else {
            Steps::default()
        };
        let given = self.wake_rested(&mut state, &plan, now);
        let refused = self.refuse_held(&mut state, &plan, now);
        let lifetime = |(_, reason): &(_, CloseReason)| *reason == CloseReason::Lifetime;
        if keeps && !removed.iter().all(lifetime) {
            // A server that is going away is not asked for replacements that nobody waits for.
            self.postpone_minimum(now);
        }
        removed.extend(steps.ended);
        let errands = self.errands(&mut state, now);
        let mut spare = steps.dial;
        if self.minimum_is_due(now) {
            spare += state.begin_minimum();
        }
        let counts = state.counts();
        drop(state);
        if steps.open_successor {
            self.dial_successor();
        }
        self.metrics().show(counts);
        for (seat, connection) in given {
            drop(seat.grant(Lease::new(connection, self.clone()), now));
        }
        self.tell_held(&plan, counts);
        self.look_at_primary(&plan, counts, now);
        self.search_unasked(&plan, counts, now);
        for seat in expired {
            seat.refuse(self.timeout_error(timeout, counts));
        }
        if let Some((seats, error)) = refused {
            seats.iter().for_each(|seat| seat.refuse(error.clone()));
        }
        for (connection, reason) in removed {
            close(*connection, reason);
        }
        self.run_errands(errands);
        self.scan_functions_if_due(now);
        self.dial_spare(spare);
        self.next_look(counts)
    }

    /// Closes what is beyond a limit that pools share. Returns when to look again, if so many wait.
    fn next_look(self: &Arc<Self>, counts: Counts) -> Duration {
        self.quotas.iter().for_each(|quota| Self::shed(quota));
        if counts.waiting > 0 {
            return WAITING_TICK;
        }
        self.leave_quotas();
        if self.counts().waiting > 0 {
            self.ring();
        }
        TICK
    }

    /// What a client that has waited for this long is waiting for, in the words of the error that it may come to.
    pub fn why_waiting(self: &Arc<Self>, waited: Duration) -> LeaseError {
        self.timeout_error(waited, self.counts())
    }

    /// Tells a waiter what it has waited for: a place in the pool, or a server that answers.
    fn timeout_error(self: &Arc<Self>, waited: Duration, counts: Counts) -> LeaseError {
        if let Some(error) = self.reason_held(&self.plan()) {
            return error;
        }
        match self.last_failure() {
            // There was room for one more, and it could not be opened: the size is not what they waited for.
            Some(error)
                if counts.idle + counts.active < self.plan().settings.size.get()
                    && !self.lock().is_halted() =>
            {
                LeaseError::Connect(error)
            }
            _ => LeaseError::Timeout {
                pool: self.key().clone(),
                waited,
                limit: self.limit_reached(),
                active: counts.active,
                waiting: counts.waiting,
            },
        }
    }
}

impl Pool {
    /// Why an idle connection is not kept, with so many others.
    fn overdue(
        &self,
        connection: &Connection,
        plan: &Plan,
        others: usize,
        now: Instant,
    ) -> Option<CloseReason> {
        let settings = &plan.settings;
        let passed = |since: Instant, limit: Duration| {
            !limit.is_zero() && now.saturating_duration_since(since) >= limit
        };
        if self.is_stale(connection.vitals()) || !plan.target.is_same(connection.target()) {
            Some(CloseReason::Outdated)
        } else if connection.has_moved() {
            Some(CloseReason::Moved)
        } else if others >= settings.min_size && passed(connection.idle_since(), settings.server_idle_timeout)
        {
            Some(CloseReason::Idle)
        } else {
            None
        }
    }

    /// The limit that keeps waiters waiting.
    fn limit_reached(self: &Arc<Self>) -> LimitReached {
        if self.lock().is_halted() {
            return LimitReached::Paused;
        }
        let shared = self.quotas.iter().find(|quota| quota.is_awaited_by(self));
        match shared.and_then(|quota| Some((quota.scope(), quota.limit()?))) {
            Some((scope, limit)) => LimitReached::Shared(scope, limit),
            None => LimitReached::PoolSize(self.plan().settings.size.get()),
        }
    }
}
