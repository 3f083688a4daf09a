//! What other programs know of a pooler: its lists, pools, statistics and databases.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    app::serve::Reception,
    config::{Database, Settings},
    metrics::OTHER,
    pool::{Metrics, Pool, Pools},
    types::{Endpoint, PoolMode},
};

/// Averages are over at least this (PgBouncer's `stats_period`).
const PERIOD: Duration = Duration::from_secs(60);

/// All numbers, at one moment.
pub(super) struct Numbers {
    pub(super) lists: Lists,
    /// By database and user.
    pub(super) pools: BTreeMap<(String, String), PoolNumbers>,
    /// By database.
    pub(super) statistics: BTreeMap<String, Statistics>,
    pub(super) databases: Vec<DatabaseNumbers>,
}

/// How many there are of what.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) databases: usize,
    pub(super) users: usize,
    pub(super) pools: usize,
    pub(super) used_clients: usize,
    pub(super) login_clients: usize,
    pub(super) used_servers: usize,
    pub(super) max_clients: usize,
    pub(super) max_user_connections: usize,
}

/// A pool at one moment.
#[derive(Debug, Default)]
pub(super) struct PoolNumbers {
    pub(super) clients: i64,
    pub(super) waiting: i64,
    pub(super) active: i64,
    pub(super) idle: i64,
    pub(super) connecting: i64,
    pub(super) longest_wait: Duration,
    /// Absent where it is the sum of several pools.
    pub(super) mode: Option<PoolMode>,
}

/// What the pools of a database have done since they were made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Statistics {
    pub(super) transactions: u64,
    pub(super) queries: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) transaction_micros: u64,
    pub(super) query_micros: u64,
    pub(super) wait_micros: u64,
    pub(super) waits: u64,
    pub(super) client_parses: u64,
    pub(super) server_parses: u64,
    pub(super) binds: u64,
}

/// What has been added to them, and in which time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Averages {
    pub(super) added: Statistics,
    pub(super) period: Duration,
}

/// A database and its limits.
#[derive(Debug)]
pub(super) struct DatabaseNumbers {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: String,
    pub(super) database: String,
    pub(super) force_user: String,
    pub(super) pool_mode: &'static str,
    pub(super) pool_size: usize,
    pub(super) reserve_size: usize,
    pub(super) max_connections: usize,
    pub(super) connections: usize,
}

/// Two samples of statistics; averages are over what was added since the older one.
#[derive(Debug)]
pub(super) struct Samples {
    older: Sample,
    newer: Sample,
}

#[derive(Debug, Clone)]
struct Sample {
    taken: Instant,
    statistics: BTreeMap<String, Statistics>,
}

impl Numbers {
    pub(super) fn of(reception: &Reception, now: Instant) -> Self {
        let (pools, settings) = (&*reception.pools, reception.guests.settings());
        let (mut shown, mut statistics) = (BTreeMap::<_, PoolNumbers>::new(), BTreeMap::new());
        for (key, metrics) in pools.families().all() {
            let (database, user) = (key.database.as_str().to_owned(), key.user.as_str().to_owned());
            let sum: &mut Statistics = statistics.entry(database.clone()).or_default();
            sum.add(&metrics);
            shown.entry((database, user)).or_default().add(&metrics);
        }
        for pool in pools.all() {
            let key = pool.key();
            let own = (key.database.as_str().to_owned(), key.user.as_str().to_owned());
            let is_named = shown.contains_key(&own);
            let place = if is_named {
                own
            } else {
                (OTHER.to_owned(), OTHER.to_owned())
            };
            if let Some(row) = shown.get_mut(&place) {
                let wait = pool.longest_wait(now).unwrap_or_default();
                row.longest_wait = wait.max(row.longest_wait);
                row.mode = is_named.then(|| pool.plan().settings.mode);
            }
        }
        Self {
            lists: Lists::of(reception, &settings),
            pools: shown,
            statistics,
            databases: databases(pools, &settings),
        }
    }
}

impl Lists {
    fn of(reception: &Reception, settings: &Settings) -> Self {
        let all = reception.pools.all();
        let mut users: Vec<_> = all
            .iter()
            .map(|pool| pool.key().user.as_str().to_owned())
            .collect();
        users.extend(settings.users.keys().cloned());
        users.sort_unstable();
        users.dedup();
        let used_servers = all
            .iter()
            .map(|pool: &std::sync::Arc<Pool>| pool.counts().servers());
        let max_user = settings.pool.max_user_connections;
        Self {
            databases: settings.databases.len(),
            users: users.len(),
            pools: all.len(),
            used_clients: reception.table.len(),
            login_clients: reception.door.unauthenticated(),
            used_servers: used_servers.sum(),
            max_clients: reception.door.slots.limit(),
            max_user_connections: max_user.map_or(0, std::num::NonZeroUsize::get),
        }
    }
}

impl PoolNumbers {
    fn add(&mut self, metrics: &Metrics) {
        self.clients += metrics.clients.get();
        self.waiting += metrics.waiting.get();
        self.active += metrics.active.get();
        self.idle += metrics.idle.get();
        self.connecting += metrics.connecting.get();
    }
}

impl Statistics {
    fn add(&mut self, metrics: &Metrics) {
        let (wait, query, transaction) = (
            metrics.wait.buckets(),
            metrics.query.buckets(),
            metrics.transaction.buckets(),
        );
        self.transactions += metrics.transactions.get();
        self.queries += query.count();
        self.received += metrics.received.get();
        self.sent += metrics.sent.get();
        self.transaction_micros += transaction.micros;
        self.query_micros += query.micros;
        self.wait_micros += wait.micros;
        self.waits += wait.count();
        self.client_parses += metrics.client_parses.get();
        self.server_parses += metrics.server_parses.get();
        self.binds += metrics.binds.get();
    }

    /// What of this is new. A pool that was made again counts from zero.
    fn since(&self, before: &Self) -> Self {
        let added = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self {
            transactions: added(self.transactions, before.transactions),
            queries: added(self.queries, before.queries),
            received: added(self.received, before.received),
            sent: added(self.sent, before.sent),
            transaction_micros: added(self.transaction_micros, before.transaction_micros),
            query_micros: added(self.query_micros, before.query_micros),
            wait_micros: added(self.wait_micros, before.wait_micros),
            waits: added(self.waits, before.waits),
            client_parses: added(self.client_parses, before.client_parses),
            server_parses: added(self.server_parses, before.server_parses),
            binds: added(self.binds, before.binds),
        }
    }
}

impl Averages {
    /// So many a second.
    pub(super) fn rate(&self, count: fn(&Statistics) -> u64) -> f64 {
        let seconds = self.period.as_secs_f64();
        if seconds > 0.0 {
            (count(&self.added) as f64 / seconds).floor()
        } else {
            0.0
        }
    }

    /// So much for each.
    pub(super) fn each(&self, micros: fn(&Statistics) -> u64, count: fn(&Statistics) -> u64) -> f64 {
        let each = micros(&self.added).checked_div(count(&self.added));
        each.unwrap_or_default() as f64
    }
}

impl Samples {
    /// Counts from now on.
    pub(super) fn new(now: Instant) -> Self {
        let none = Sample {
            taken: now,
            statistics: BTreeMap::new(),
        };
        Self {
            older: none.clone(),
            newer: none,
        }
    }

    /// What was done on average of late: for at least a period, once there has been one.
    pub(super) fn averages(
        &mut self,
        statistics: &BTreeMap<String, Statistics>,
        now: Instant,
    ) -> BTreeMap<String, Averages> {
        if now.saturating_duration_since(self.newer.taken) >= PERIOD {
            let newest = Sample {
                taken: now,
                statistics: statistics.clone(),
            };
            self.older = std::mem::replace(&mut self.newer, newest);
        }
        let period = now.saturating_duration_since(self.older.taken);
        let average = |(name, now): (&String, &Statistics)| {
            let before = self.older.statistics.get(name).copied().unwrap_or_default();
            let added = now.since(&before);
            (name.clone(), Averages { added, period })
        };
        statistics.iter().map(average).collect()
    }
}

/// The databases that are configured, and those of `*` that are in use and have a name.
fn databases(pools: &Pools, settings: &Settings) -> Vec<DatabaseNumbers> {
    let used: BTreeMap<String, usize> = pools
        .databases_used()
        .into_iter()
        .filter(|(name, _)| pools.families().names_database(name))
        .map(|(name, (used, _))| (name.as_str().to_owned(), used))
        .collect();
    let mut names: Vec<&String> = settings.databases.keys().filter(|name| *name != "*").collect();
    names.extend(used.keys());
    names.sort_unstable();
    names.dedup();
    let numbers = |name: &String| {
        let database = settings.database(name)?;
        Some(numbers(
            name,
            database,
            settings,
            used.get(name).copied().unwrap_or(0),
        ))
    };
    names.into_iter().filter_map(numbers).collect()
}

fn numbers(name: &str, database: &Database, settings: &Settings, connections: usize) -> DatabaseNumbers {
    let user = database.user.clone().unwrap_or_default();
    let plan = settings.pool_settings(database, &user);
    let (host, port) = match (database.servers.hosts().first(), database.servers.cluster()) {
        (Some(Endpoint::Tcp { host, port }), _) => (host.clone(), port.to_string()),
        (Some(Endpoint::Unix(path)), _) => (path.display().to_string(), String::new()),
        (None, cluster) => (
            cluster.map(ToString::to_string).unwrap_or_default(),
            String::new(),
        ),
    };
    DatabaseNumbers {
        name: name.to_owned(),
        host,
        port,
        database: database.dbname.clone().unwrap_or_else(|| name.to_owned()),
        force_user: user,
        pool_mode: plan.mode.as_str(),
        pool_size: plan.size.get(),
        reserve_size: plan.reserve_size,
        max_connections: plan.max_db_connections.map_or(0, std::num::NonZeroUsize::get),
        connections,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(transactions: u64) -> BTreeMap<String, Statistics> {
        let statistics = Statistics {
            transactions,
            transaction_micros: transactions * 300,
            ..Statistics::default()
        };
        BTreeMap::from([("d".to_owned(), statistics)])
    }

    #[test]
    fn averages_are_over_the_last_minute_or_two() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut samples = Samples::new(start);
        let mut rate = |transactions, seconds| {
            let averages = samples.averages(&statistics(transactions), at(seconds))["d"];
            let each = averages.each(|sum| sum.transaction_micros, |sum| sum.transactions);
            (averages.rate(|sum| sum.transactions), each)
        };
        assert_eq!(rate(0, 0), (0.0, 0.0));
        assert_eq!(rate(300, 30), (10.0, 300.0));
        assert_eq!(rate(600, 60), (10.0, 300.0));
        // Of the last two minutes.
        assert_eq!(rate(600, 120), (0.0, 0.0));
        assert_eq!(rate(660, 180), (1.0, 300.0));
        // It has begun again.
        assert_eq!(rate(60, 181), (0.0, 300.0));
    }
}
