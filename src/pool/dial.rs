//! Which connections a pool may begin to open, by the limits that it shares with other pools, and what makes room
//! for them.

use std::{sync::Arc, time::Instant};

use super::{
    Pool,
    attempt::Attempt,
    close,
    error::LimitReached,
    quota::{Limit, Quota, Refused, Scope, Share, Shares},
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
                    // What has been closed is room only when its server has let go of it.
                    Err((quota, Refused::Full)) if quota.leaving() < left && self.evict_another(quota) => {}
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

    fn open(self: &Arc<Self>, shares: Shares) {
        Attempt::new(self.clone(), shares).spawn();
    }

    pub(super) fn spare_shares(&self) -> Option<Shares> {
        let [database, user, budget] = &self.quotas;
        Some([database.take_spare()?, user.take_spare()?, budget.take_spare()?])
    }

    fn shares(self: &Arc<Self>, now: Instant) -> Result<Shares, (&Arc<Quota>, Refused)> {
        fn take<'a>(
            pool: &Arc<Pool>,
            quota: &'a Arc<Quota>,
            others: &[&Arc<Quota>],
            now: Instant,
        ) -> Result<Share, (&'a Arc<Quota>, Refused)> {
            quota.take(pool, now).map_err(|refused| {
                // Whoever waits for the one does not keep others from the others.
                others.iter().for_each(|other| other.leave(pool));
                (quota, refused)
            })
        }
        let [database, user, budget] = &self.quotas;
        Ok([
            take(self, database, &[user, budget], now)?,
            take(self, user, &[budget], now)?,
            take(self, budget, &[], now)?,
        ])
    }

    /// The same for a connection outside of the pool. One idle connection makes room where there is none.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn shares_apart(self: &Arc<Self>) -> Result<Shares, LimitReached> {
        let share = |quota: &Arc<Quota>| {
            let room = || {
                quota.limit().is_some() && (self.evict(CloseReason::MadeRoom) || self.evict_another(quota))
            };
            let share = quota.take_spare();
            share
                .or_else(|| room().then(|| quota.take_spare()).flatten())
                .ok_or_else(|| {
                    let none = Limit {
                        whole: usize::MAX,
                        here: usize::MAX,
                    };
                    LimitReached::Shared(quota.scope(), quota.limit().unwrap_or(none))
                })
        };
        let [database, user, budget] = &self.quotas;
        Ok([share(database)?, share(user)?, share(budget)?])
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
        longest.is_some_and(|(_, pool)| pool.evict(CloseReason::MadeRoom))
    }

    /// Closes idle connections until there are no more than there may be of a limit: those of the pool that has most,
    /// and of these the one that has been idle longest.
    pub(super) fn shed(quota: &Quota) {
        while quota.surplus() > 0 {
            let idle = |pool: &Arc<Self>| pool.counts().idle > 0;
            let most = quota.members().into_iter().filter(idle);
            let most = most.max_by_key(|pool| pool.counts().servers());
            if !most.is_some_and(|pool| pool.evict(CloseReason::Surplus)) {
                return;
            }
        }
    }

    /// Whether there are more connections than there may be of a limit that the pool shares.
    pub(super) fn is_beyond_quotas(&self) -> bool {
        self.quotas.iter().any(|quota| quota.surplus() > 0)
    }

    /// The reason to close a connection that comes back, if a limit that pools share is one.
    pub(super) fn reason_by_quotas(self: &Arc<Self>) -> Option<CloseReason> {
        if !self.quotas.iter().any(|quota| quota.is_pressed()) {
            return None;
        }
        if self.is_beyond_quotas() {
            return Some(CloseReason::Surplus);
        }
        self.must_give_way().then_some(CloseReason::MadeRoom)
    }

    fn evict(&self, reason: CloseReason) -> bool {
        let mut state = self.lock();
        let Some(connection) = state.evict() else {
            return false;
        };
        self.metrics.show(state.counts());
        drop(state);
        close(*connection, reason);
        true
    }

    /// Whether a pool that shares a limit has waited for room for long, and has no connection, or fewer than this.
    fn must_give_way(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        let mut starving = self.quotas.iter().filter_map(|quota| quota.starving(now));
        starving.any(|pool| {
            let theirs = pool.counts().servers();
            !Arc::ptr_eq(&pool, self) && (theirs == 0 || theirs + 1 < self.counts().servers())
        })
    }

    /// Leaves the queues for room when nobody waits any more.
    pub(super) fn leave_quotas(self: &Arc<Self>) {
        for quota in &self.quotas {
            quota.leave(self);
        }
    }

    pub(super) fn limit_quotas(&self, settings: &PoolSettings) {
        for quota in &self.quotas {
            let limit = match quota.scope() {
                Scope::Database => settings.max_db_connections,
                Scope::User => settings.max_user_connections,
                // It is not the pool's to know.
                Scope::Budget => continue,
            };
            quota.resize(limit.map(Limit::from));
            Self::shed(quota);
        }
    }
}
