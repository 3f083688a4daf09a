//! The pools, as people want to see them.

use std::{cmp::Reverse, sync::Arc};

use super::{
    document::{Budget, Pin, Pool, Servers},
    recorder::{Reading, Recorder},
};
use crate::{
    pool,
    server::pins::{self, Pins},
};

/// More pools than this are not shown one by one.
const SHOWN: usize = 100;

/// The pools with the most to do first, and how many more there are.
pub(super) fn show(pools: &[Arc<pool::Pool>], recorder: &Recorder) -> (Vec<Pool>, usize) {
    let mut all: Vec<_> = pools.iter().map(|pool| show_one(pool, recorder)).collect();
    // Stable: those that are alike stay in the order of their names.
    all.sort_by_key(|pool| Reverse((pool.waiting, pool.servers.active, pool.clients)));
    let left_out = all.len().saturating_sub(SHOWN);
    all.truncate(SHOWN);
    (all, left_out)
}

fn show_one(pool: &pool::Pool, recorder: &Recorder) -> Pool {
    let (key, plan, counts) = (pool.key(), pool.plan(), pool.counts());
    let gauge = |value: i64| usize::try_from(value).unwrap_or(0);
    Pool {
        database: key.database.to_string(),
        user: key.user.to_string(),
        role: key.role.as_str().to_owned(),
        mode: plan.settings.mode.as_str().to_owned(),
        cluster: plan.target.cluster.name().to_owned(),
        clients: gauge(pool.metrics().clients.get()),
        waiting: counts.waiting,
        servers: Servers {
            active: counts.active,
            idle: counts.idle,
            connecting: counts.connecting,
            limit: plan.settings.size.get(),
        },
        pinned: gauge(pool.metrics().pinned.get()),
        minute: recorder.minute_of(key),
    }
}

/// Server connections of all of them.
pub(super) fn servers(pools: &[Arc<pool::Pool>]) -> Servers {
    pools.iter().fold(Servers::default(), |sum, pool| {
        let counts = pool.counts();
        Servers {
            active: sum.active + counts.active,
            idle: sum.idle + counts.idle,
            connecting: sum.connecting + counts.connecting,
            limit: sum.limit + pool.plan().settings.size.get(),
        }
    })
}

/// What of `server_connection_budget` is this replica's.
pub(super) fn budget(pools: &pool::Pools) -> Option<Budget> {
    let (connections, limit) = pools.used();
    limit.map(|limit| Budget {
        connections,
        allowance: limit.here,
        whole: limit.whole,
    })
}

/// What they have counted.
pub(super) fn read(pools: &[Arc<pool::Pool>]) -> Reading {
    let mut reading = Reading::default();
    for pool in pools {
        let counts = pool.counts();
        reading.waiting += counts.waiting;
        reading.active += counts.active;
        reading.servers += counts.servers();
        reading.pools.push((pool.key().clone(), pool.metrics().totals()));
    }
    reading
}

/// The reasons for which server connections stay with their clients: for each session its own.
pub(super) fn pins(pools: &[Arc<pool::Pool>], sessions: impl Iterator<Item = Pins>) -> Vec<Pin> {
    let mut clients = [0; pins::Pin::ALL.len()];
    for pinned in sessions {
        for (count, pin) in clients.iter_mut().zip(pins::Pin::ALL) {
            *count += usize::from(pinned.contains(pin));
        }
    }
    let total = |pin| pools.iter().map(|pool| pool.metrics().pins(pin)).sum();
    let reasons = pins::Pin::ALL.into_iter().zip(clients);
    reasons
        .map(|(pin, clients)| Pin {
            reason: pin.as_str().to_owned(),
            clients,
            total: total(pin),
        })
        .collect()
}
