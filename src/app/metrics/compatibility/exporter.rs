//! `pgbouncer_*`, as Prometheus' community exporter has it.

use prometheus::proto::MetricFamily;

use super::{
    Table, add,
    numbers::{DatabaseNumbers, Lists, Numbers, PoolNumbers, Statistics},
};
use crate::metrics::{self, Kind, Shown};

const LISTS: &Table<Lists> = &[
    (gauge("pgbouncer_up", "Whether it answers: it does"), |_| 1.0),
    (
        gauge("pgbouncer_databases", "Databases in the configuration"),
        |lists| lists.databases as f64,
    ),
    (
        gauge("pgbouncer_users", "Users that are configured or have a pool"),
        |lists| lists.users as f64,
    ),
    (gauge("pgbouncer_pools", "Pools"), |lists| lists.pools as f64),
    (
        gauge("pgbouncer_free_clients", "There is no such list here"),
        |_| 0.0,
    ),
    (gauge("pgbouncer_used_clients", "Clients"), |lists| {
        lists.used_clients as f64
    }),
    (
        gauge("pgbouncer_login_clients", "Clients that have not logged in"),
        |lists| lists.login_clients as f64,
    ),
    (
        gauge("pgbouncer_free_servers", "There is no such list here"),
        |_| 0.0,
    ),
    (gauge("pgbouncer_used_servers", "Server connections"), |lists| {
        lists.used_servers as f64
    }),
    (
        gauge("pgbouncer_config_max_client_connections", "max_client_conn"),
        |lists| lists.max_clients as f64,
    ),
    (
        gauge(
            "pgbouncer_config_max_user_connections",
            "max_user_connections; 0 is no limit",
        ),
        |lists| lists.max_user_connections as f64,
    ),
];

const POOLS: &Table<PoolNumbers> = &[
    (
        gauge(
            "pgbouncer_pools_client_active_connections",
            "Clients that do not wait",
        ),
        |pool| (pool.clients - pool.waiting).max(0) as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_client_waiting_connections",
            "Clients that wait for a server connection",
        ),
        |pool| pool.waiting as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_client_active_cancel_connections",
            "There is no such state here",
        ),
        |_| 0.0,
    ),
    (
        gauge(
            "pgbouncer_pools_client_waiting_cancel_connections",
            "There is no such state here",
        ),
        |_| 0.0,
    ),
    (
        gauge(
            "pgbouncer_pools_server_active_connections",
            "Server connections that are lent",
        ),
        |pool| pool.active as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_server_active_cancel_connections",
            "There is no such state here",
        ),
        |_| 0.0,
    ),
    (
        gauge(
            "pgbouncer_pools_server_being_canceled_connections",
            "There is no such state here",
        ),
        |_| 0.0,
    ),
    (
        gauge(
            "pgbouncer_pools_server_idle_connections",
            "Server connections that nobody uses",
        ),
        |pool| pool.idle as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_server_used_connections",
            "Counted among the idle ones",
        ),
        |_| 0.0,
    ),
    (
        gauge(
            "pgbouncer_pools_server_testing_connections",
            "Counted among those that log in",
        ),
        |_| 0.0,
    ),
    (
        gauge(
            "pgbouncer_pools_server_login_connections",
            "Server connections that are being opened or checked",
        ),
        |pool| pool.connecting as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_client_maxwait_seconds",
            "How long the client has waited that has waited longest",
        ),
        |pool| pool.longest_wait.as_secs_f64(),
    ),
];

const STATISTICS: &Table<Statistics> = &[
    (
        counter("pgbouncer_stats_queries_pooled_total", "Queries"),
        |sum| sum.queries as f64,
    ),
    (
        counter(
            "pgbouncer_stats_queries_duration_seconds_total",
            "Time that servers worked for queries",
        ),
        |sum| seconds(sum.query_micros),
    ),
    (
        counter(
            "pgbouncer_stats_received_bytes_total",
            "Bytes received from clients",
        ),
        |sum| sum.received as f64,
    ),
    (
        counter("pgbouncer_stats_sent_bytes_total", "Bytes received from servers"),
        |sum| sum.sent as f64,
    ),
    (
        counter(
            "pgbouncer_stats_client_wait_seconds_total",
            "Time that clients waited for server connections",
        ),
        |sum| seconds(sum.wait_micros),
    ),
    (
        counter("pgbouncer_stats_sql_transactions_pooled_total", "Transactions"),
        |sum| sum.transactions as f64,
    ),
    (
        counter(
            "pgbouncer_stats_server_in_transaction_seconds_total",
            "Time that server connections were lent",
        ),
        |sum| seconds(sum.transaction_micros),
    ),
    (
        counter("pgbouncer_stats_client_parses_total", "Parse messages of clients"),
        |sum| sum.client_parses as f64,
    ),
    (
        counter(
            "pgbouncer_stats_server_parses_total",
            "Parse messages to servers for clients",
        ),
        |sum| sum.server_parses as f64,
    ),
    (
        counter("pgbouncer_stats_binds_total", "Bind messages of clients"),
        |sum| sum.binds as f64,
    ),
];

const DATABASES: &Table<DatabaseNumbers> = &[
    (
        gauge(
            "pgbouncer_databases_pool_size",
            "Server connections that a pool may have",
        ),
        |of| of.pool_size as f64,
    ),
    (
        gauge(
            "pgbouncer_databases_reserve_pool",
            "And beyond those, for who has waited long",
        ),
        |of| of.reserve_size as f64,
    ),
    (
        gauge(
            "pgbouncer_databases_max_connections",
            "max_db_connections; 0 is no limit",
        ),
        |of| of.max_connections as f64,
    ),
    (
        gauge(
            "pgbouncer_databases_current_connections",
            "Server connections of the database",
        ),
        |of| of.connections as f64,
    ),
];

const VERSION: Shown = gauge(
    "pgbouncer_version_info",
    "The running version; the value is always 1",
);

const fn gauge(name: &'static str, help: &'static str) -> Shown {
    Shown::new(name, help, Kind::Gauge)
}

const fn counter(name: &'static str, help: &'static str) -> Shown {
    Shown::new(name, help, Kind::Counter)
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

pub(super) fn all() -> impl Iterator<Item = &'static Shown> {
    let lists = LISTS.iter().map(|(shown, _)| shown);
    let pools = POOLS.iter().map(|(shown, _)| shown);
    let statistics = STATISTICS.iter().map(|(shown, _)| shown);
    let databases = DATABASES.iter().map(|(shown, _)| shown);
    lists
        .chain(pools)
        .chain(statistics)
        .chain(databases)
        .chain([&VERSION])
}

pub(super) fn collect(numbers: &Numbers, families: &mut Vec<MetricFamily>) {
    add(LISTS, &[(Vec::new(), &numbers.lists)], families);
    let pools: Vec<_> = numbers
        .pools
        .iter()
        .map(|((database, user), row)| (metrics::labels(["database", "user"], [database, user]), row))
        .collect();
    add(POOLS, &pools, families);
    let statistics: Vec<_> = numbers
        .statistics
        .iter()
        .map(|(database, row)| (metrics::labels(["database"], [database]), row))
        .collect();
    add(STATISTICS, &statistics, families);
    let databases: Vec<_> = numbers
        .databases
        .iter()
        .map(|row| {
            let names = ["database", "force_user", "host", "name", "pool_mode", "port"];
            let values = [
                &row.database,
                &row.force_user,
                &row.host,
                &row.name,
                row.pool_mode,
                &row.port,
            ];
            (metrics::labels(names, values), row)
        })
        .collect();
    add(DATABASES, &databases, families);
    let version = concat!("pgweir ", env!("CARGO_PKG_VERSION"));
    let version = VERSION.value(metrics::labels(["version"], [version]), 1.0);
    families.extend(VERSION.family(vec![version]));
}
