//! Limits that pools share beside what is used of them, and who has waited longest. Read when somebody looks.

use std::{
    collections::BTreeMap,
    sync::Weak,
    time::{Duration, Instant},
};

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{Families, others};
use crate::{
    metrics::{self, Kind, OTHER, Shares, Shown},
    pool::{Limit, Pools},
    types::PoolKey,
};

const LONGEST_WAIT: Shown = Shown::new(
    "longest_wait_seconds",
    "How long the client has waited that has waited longest for a server connection",
    Kind::Gauge,
);
const DATABASE_SERVERS: Shown = Shown::new(
    "database_server_connections",
    "Server connections of all pools of a database",
    Kind::Gauge,
);
const DATABASE_LIMIT: Shown = Shown::new(
    "database_max_server_connections",
    "Server connections that the pools of a database may have (max_db_connections)",
    Kind::Gauge,
);
const USER_SERVERS: Shown = Shown::new(
    "user_server_connections",
    "Server connections of all pools of a user",
    Kind::Gauge,
);
const USER_LIMIT: Shown = Shown::new(
    "user_max_server_connections",
    "Server connections that the pools of a user may have (max_user_connections)",
    Kind::Gauge,
);
const SERVERS: Shown = Shown::new(
    "server_connections",
    "Server connections of all pools, those outside of pools and those being opened and closed among them",
    Kind::Gauge,
);
const BUDGET: Shown = Shown::new(
    "server_connection_budget",
    "Server connections that all replicas together may have (server_connection_budget)",
    Kind::Gauge,
);
const ALLOWANCE: Shown = Shown::new(
    "server_connection_allowance",
    "How many server connections of the budget this replica may have now",
    Kind::Gauge,
);

/// The families of what pools share.
pub(in crate::pool) struct LimitMetrics {
    pools: Weak<Pools>,
    families: Families,
    descriptions: Vec<Desc>,
}

/// What a database or a user uses, and what it may.
type Usage<N> = (N, (usize, Option<Limit>));

impl LimitMetrics {
    pub(in crate::pool) fn new(pools: Weak<Pools>, families: Families) -> prometheus::Result<Self> {
        let all = [
            &LONGEST_WAIT,
            &DATABASE_SERVERS,
            &DATABASE_LIMIT,
            &USER_SERVERS,
            &USER_LIMIT,
            &SERVERS,
            &BUDGET,
            &ALLOWANCE,
        ];
        Ok(Self {
            pools,
            families,
            descriptions: metrics::descriptions(all)?,
        })
    }
}

impl Collector for LimitMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(pools) = self.pools.upgrade() else {
            return Vec::new();
        };
        let shares = &self.families.0;
        let mut families = vec![self.longest_waits(&pools)];
        let databases = by_name(pools.databases_used(), &shares.databases);
        families.extend(quotas(
            "database",
            &databases,
            [&DATABASE_SERVERS, &DATABASE_LIMIT],
        ));
        let users = by_name(pools.users_used(), &shares.users);
        families.extend(quotas("user", &users, [&USER_SERVERS, &USER_LIMIT]));
        families.extend(budget(pools.used()));
        families.into_iter().flatten().collect()
    }
}

impl LimitMetrics {
    fn longest_waits(&self, pools: &Pools) -> Option<MetricFamily> {
        let now = Instant::now();
        let mut longest: BTreeMap<PoolKey, Duration> = BTreeMap::new();
        for pool in pools.all() {
            let key = pool.key();
            let key = if self.families.0.shares.has(key) {
                key.clone()
            } else {
                others(key.role)
            };
            let wait = longest.entry(key).or_default();
            *wait = pool.longest_wait(now).unwrap_or_default().max(*wait);
        }
        let metrics = longest.iter().map(|(key, wait)| {
            let values = [key.database.as_str(), key.role.as_str(), key.user.as_str()];
            let labels = metrics::labels(["database", "role", "user"], values);
            LONGEST_WAIT.value(labels, wait.as_secs_f64())
        });
        LONGEST_WAIT.family(metrics.collect())
    }
}

/// What all pools use together, and what they may where there is a limit.
fn budget((used, limit): (usize, Option<Limit>)) -> [Option<MetricFamily>; 3] {
    let one = |family: &Shown, value: usize| family.family(vec![family.value(Vec::new(), value as f64)]);
    [
        one(&SERVERS, used),
        limit.and_then(|limit| one(&BUDGET, limit.whole)),
        limit.and_then(|limit| one(&ALLOWANCE, limit.here)),
    ]
}

/// The same by name; the sum of what those use that have no series of their own.
fn by_name<N: Ord + Clone + AsRef<str>>(
    all: Vec<Usage<N>>,
    shares: &Shares<N>,
) -> BTreeMap<String, (usize, Option<Limit>)> {
    let mut found = BTreeMap::new();
    for (name, (used, limit)) in all {
        if shares.has(&name) {
            found.insert(name.as_ref().to_owned(), (used, limit));
        } else {
            found.entry(OTHER.to_owned()).or_insert((0, None)).0 += used;
        }
    }
    found
}

/// What is used, and the limits where there are any.
fn quotas(
    label: &str,
    all: &BTreeMap<String, (usize, Option<Limit>)>,
    [used, limit]: [&Shown; 2],
) -> [Option<MetricFamily>; 2] {
    let labels = |name: &str| metrics::labels([label], [name]);
    let used_ones = all
        .iter()
        .map(|(name, (count, _))| used.value(labels(name), *count as f64));
    let limits = all.iter().filter_map(|(name, (_, most))| {
        let most = (*most)?.whole;
        Some(limit.value(labels(name), most as f64))
    });
    [used.family(used_ones.collect()), limit.family(limits.collect())]
}
