//! How a server connection that is past `server_lifetime` makes way for a new one: the new one is opened first where the
//! pool has room for both, so that no client waits for a log-in because of a lifetime.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Guard, Plan, Pool, lease::Server, state::Succession};
use crate::server::{Connection, state::CloseReason};

/// A connection that was used within this time is one that the pool needs.
const RECENTLY: Duration = Duration::from_secs(60);

/// When certificates are replaced, connections made with the old ones end within this time, as far as they can be
/// replaced in it.
pub(super) const RENEWAL: Duration = Duration::from_secs(10);

/// Whether a connection is past its lifetime, or was made with certificates that were replaced.
pub(super) fn is_old(connection: &Connection, plan: &Plan, now: Instant) -> bool {
    connection.has_outlived(plan.settings.server_lifetime, now)
        || (connection.has_old_certificates(&plan.target, RENEWAL, now) && may_renew(plan))
}

/// Whether connections may end because of new certificates: a pool's only place is not given up for some that no
/// server has accepted.
fn may_renew(plan: &Plan) -> bool {
    plan.target.connector.is_proven() || plan.settings.size.get() > 1
}

/// Whether the pool, which has `others` besides, would miss the connection: also if it is not known that another can be
/// opened.
pub(super) fn is_needed(connection: &Connection, others: usize, plan: &Plan, now: Instant) -> bool {
    !plan.target.connector.is_proven()
        || others < plan.settings.min_size
        || now.saturating_duration_since(connection.idle_since()) < RECENTLY
}

/// What the succession of idle connections comes to, once the lock is released.
#[derive(Debug, Default)]
#[allow(
    clippy::vec_box,
    reason = "the queues hold boxes: moving one is moving a pointer"
)]
pub(super) struct Steps {
    pub(super) ended: Vec<(Box<Server>, CloseReason)>,
    pub(super) open_successor: bool,
    pub(super) dial: usize,
}

impl Pool {
    /// What to do about an old connection that is needed. Nothing while servers are not to be asked for anything that
    /// nobody waits for.
    fn succession(&self, state: &mut Guard<'_>, now: Instant) -> Succession {
        if self.minimum_is_due(now) {
            state.succeed()
        } else {
            Succession::Awaited
        }
    }

    /// Carries on with the idle connections that are past their lifetime and needed; there is at least one.
    pub(super) fn succeed_idle(&self, state: &mut Guard<'_>, now: Instant) -> Steps {
        let mut steps = Steps::default();
        let succession = self.succession(state, now);
        steps.open_successor = succession == Succession::Open;
        if let Succession::End | Succession::Exchange = succession {
            let plan = self.plan();
            let mut found = false;
            steps.ended = state.sweep(|connection, _| {
                let next = !found && is_old(connection, &plan, now);
                found |= next;
                next.then_some(CloseReason::Lifetime)
            });
        }
        if succession == Succession::Exchange {
            steps.dial = state.begin_successor();
        }
        steps
    }

    /// Takes back a lent connection that is past its lifetime. `None` when that was its end.
    pub(super) fn take_back_old(
        self: &Arc<Self>,
        connection: Box<Server>,
        now: Instant,
    ) -> Option<Box<Server>> {
        let mut state = self.lock();
        let succession = self.succession(&mut state, now);
        drop(state);
        match succession {
            Succession::Awaited => Some(connection),
            Succession::Open => {
                self.dial_successor();
                Some(connection)
            }
            Succession::End => {
                self.discard(connection, CloseReason::Lifetime);
                None
            }
            Succession::Exchange => {
                self.discard(connection, CloseReason::Lifetime);
                let mut state = self.lock();
                // Unless a waiter has one on its way already.
                let begin = if state.counts().connecting == 0 {
                    state.begin_successor()
                } else {
                    0
                };
                drop(state);
                self.dial_spare(begin);
                None
            }
        }
    }
}
