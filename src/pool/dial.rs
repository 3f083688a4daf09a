//! Which connections a pool may begin to open, by the limits that it shares with other pools, and what makes room
//! for them.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use super::{
    Pool,
    attempt::Attempt,
    close,
    error::LimitReached,
    quota::{Quota, Refused, Scope, Share},
};
use crate::{config::PoolSettings, server::state::CloseReason};

impl Pool {
    /// Opens connections that the state has counted as connecting and that somebody waits for, as far as the
    /// limits that are shared with other pools have room. Idle connections of those make room.
    pub(super) fn dial(self: &Arc<Self>, count: usize) {
        // So it is nearly always, and the clock is not read for nothing.
        if count == 0 {
            return;
        }
        let now = Instant::now();
        for left in (1..=count).rev() {
            let shares = loop {
                match self.shares(now) {
                    Ok(shares) => break shares,
                    Err((quota, Refused::Full)) if self.evict_another(quota) => {}
                    // The bell rings when there is room.
                    Err(_) => return self.give_up_connecting(left),
                }
            };
            self.open(shares);
        }
    }

    /// The same for connections that nobody waits for, which take no room from others.
    pub(super) fn dial_spare(self: &Arc<Self>, count: usize) {
        for left in (1..=count).rev() {
            match self.spare_shares() {
                Some(shares) => Attempt::new(self.clone(), shares).unasked().spawn(),
                None => return self.give_up_connecting(left),
            }
        }
    }

    /// Opens the successor of an old connection, which the state has counted as connecting.
    pub(super) fn dial_successor(self: &Arc<Self>) {
        match self.spare_shares() {
            Some(shares) => Attempt::new(self.clone(), shares).for_succession().spawn(),
            None => {
                self.lock().successor_failed(true);
                self.give_up_connecting(1);
            }
        }
    }

    fn open(self: &Arc<Self>, shares: [Share; 2]) {
        Attempt::new(self.clone(), shares).spawn();
    }

    pub(super) fn spare_shares(&self) -> Option<[Share; 2]> {
        let [database, user] = &self.quotas;
        Some([database.take_spare()?, user.take_spare()?])
    }

    fn shares(self: &Arc<Self>, now: Instant) -> Result<[Share; 2], (&Arc<Quota>, Refused)> {
        let [database, user] = &self.quotas;
        Ok([
            database.take(self, now).map_err(|refused| {
                // Whoever waits for the one does not keep others from the other.
                user.leave(self);
                (database, refused)
            })?,
            user.take(self, now).map_err(|refused| (user, refused))?,
        ])
    }

    /// The same for a connection outside of the pool. One idle connection makes room where there is none.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn shares_apart(self: &Arc<Self>) -> Result<[Share; 2], LimitReached> {
        let share = |quota: &Arc<Quota>| {
            let room = || quota.limit().is_some() && (self.evict() || self.evict_another(quota));
            let share = quota.take_spare();
            share
                .or_else(|| room().then(|| quota.take_spare()).flatten())
                .ok_or_else(|| {
                    let limit = quota.limit().map_or(usize::MAX, NonZeroUsize::get);
                    LimitReached::Shared(quota.scope(), limit)
                })
        };
        let [database, user] = &self.quotas;
        Ok([share(database)?, share(user)?])
    }

    fn give_up_connecting(&self, count: usize) {
        let mut state = self.lock();
        for _ in 0..count {
            state.connecting_failed();
        }
        self.metrics.show(state.counts());
    }

    /// Closes the connection that has been idle longest in the other pools of a limit.
    fn evict_another(self: &Arc<Self>, quota: &Arc<Quota>) -> bool {
        let others = quota
            .members()
            .into_iter()
            .filter(|pool| !Arc::ptr_eq(pool, self));
        let longest = others
            .filter_map(|pool| {
                let since = pool.lock().least_recently_used()?.idle_since();
                Some((since, pool))
            })
            .min_by_key(|(since, _)| *since);
        longest.is_some_and(|(_, pool)| pool.evict())
    }

    fn evict(&self) -> bool {
        let mut state = self.lock();
        let Some(connection) = state.evict() else {
            return false;
        };
        self.metrics.show(state.counts());
        drop(state);
        close(*connection, CloseReason::MadeRoom);
        true
    }

    /// Whether a pool that shares a limit has waited for room for long, and has fewer connections than this.
    pub(super) fn must_give_way(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        let mut starving = self.quotas.iter().filter_map(|quota| quota.starving(now));
        starving
            .any(|pool| !Arc::ptr_eq(&pool, self) && pool.counts().servers() + 1 < self.counts().servers())
    }

    /// Leaves the queues for room when nobody waits any more.
    pub(super) fn leave_quotas(self: &Arc<Self>) {
        for quota in &self.quotas {
            quota.leave(self);
        }
    }

    pub(super) fn limit_quotas(&self, settings: &PoolSettings) {
        for quota in &self.quotas {
            quota.resize(match quota.scope() {
                Scope::Database => settings.max_db_connections,
                Scope::User => settings.max_user_connections,
            });
        }
    }
}
