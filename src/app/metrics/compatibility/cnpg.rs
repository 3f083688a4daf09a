//! `cnpg_pgbouncer_*`, as CloudNativePG's Pooler has it: all of them gauges, times in microseconds.

use std::collections::BTreeMap;

use prometheus::proto::MetricFamily;

use super::{
    Table, add,
    numbers::{Averages, Lists, Numbers, PoolNumbers, Statistics},
};
use crate::{
    metrics::{self, Kind, Shown},
    types::PoolMode,
};

const LISTS: &Table<Lists> = &[
    (
        gauge("cnpg_pgbouncer_lists_databases", "Databases in the configuration"),
        |lists| lists.databases as f64,
    ),
    (
        gauge(
            "cnpg_pgbouncer_lists_users",
            "Users that are configured or have a pool",
        ),
        |lists| lists.users as f64,
    ),
    (gauge("cnpg_pgbouncer_lists_pools", "Pools"), |lists| {
        lists.pools as f64
    }),
    (gauge("cnpg_pgbouncer_lists_free_clients", NO_LIST), |_| 0.0),
    (gauge("cnpg_pgbouncer_lists_used_clients", "Clients"), |lists| {
        lists.used_clients as f64
    }),
    (
        gauge(
            "cnpg_pgbouncer_lists_login_clients",
            "Clients that have not logged in",
        ),
        |lists| lists.login_clients as f64,
    ),
    (gauge("cnpg_pgbouncer_lists_free_servers", NO_LIST), |_| 0.0),
    (
        gauge("cnpg_pgbouncer_lists_used_servers", "Server connections"),
        |lists| lists.used_servers as f64,
    ),
    (gauge("cnpg_pgbouncer_lists_dns_names", NO_LIST), |_| 0.0),
    (gauge("cnpg_pgbouncer_lists_dns_zones", NO_LIST), |_| 0.0),
    (gauge("cnpg_pgbouncer_lists_dns_queries", NO_LIST), |_| 0.0),
    (gauge("cnpg_pgbouncer_lists_dns_pending", NO_LIST), |_| 0.0),
    (
        gauge(
            "cnpg_pgbouncer_last_collection_error",
            "Whether the last look has failed: it has not",
        ),
        |_| 0.0,
    ),
];

const POOLS: &Table<PoolNumbers> = &[
    (
        gauge("cnpg_pgbouncer_pools_cl_active", "Clients that do not wait"),
        |pool| (pool.clients - pool.waiting).max(0) as f64,
    ),
    (
        gauge(
            "cnpg_pgbouncer_pools_cl_waiting",
            "Clients that wait for a server connection",
        ),
        |pool| pool.waiting as f64,
    ),
    (gauge("cnpg_pgbouncer_pools_cl_cancel_req", NO_STATE), |_| 0.0),
    (
        gauge("cnpg_pgbouncer_pools_cl_active_cancel_req", NO_STATE),
        |_| 0.0,
    ),
    (
        gauge("cnpg_pgbouncer_pools_cl_waiting_cancel_req", NO_STATE),
        |_| 0.0,
    ),
    (
        gauge(
            "cnpg_pgbouncer_pools_sv_active",
            "Server connections that are lent",
        ),
        |pool| pool.active as f64,
    ),
    (gauge("cnpg_pgbouncer_pools_sv_active_cancel", NO_STATE), |_| 0.0),
    (gauge("cnpg_pgbouncer_pools_sv_wait_cancels", NO_STATE), |_| 0.0),
    (
        gauge(
            "cnpg_pgbouncer_pools_sv_idle",
            "Server connections that nobody uses",
        ),
        |pool| pool.idle as f64,
    ),
    (
        gauge("cnpg_pgbouncer_pools_sv_used", "Counted among the idle ones"),
        |_| 0.0,
    ),
    (
        gauge(
            "cnpg_pgbouncer_pools_sv_tested",
            "Counted among those that log in",
        ),
        |_| 0.0,
    ),
    (
        gauge(
            "cnpg_pgbouncer_pools_sv_login",
            "Server connections that are being opened or checked",
        ),
        |pool| pool.connecting as f64,
    ),
    (
        gauge(
            "cnpg_pgbouncer_pools_maxwait",
            "How long the client has waited that has waited longest, in seconds",
        ),
        |pool| pool.longest_wait.as_secs() as f64,
    ),
    (
        gauge("cnpg_pgbouncer_pools_maxwait_us", "The microseconds of that"),
        |pool| f64::from(pool.longest_wait.subsec_micros()),
    ),
    (
        gauge(
            "cnpg_pgbouncer_pools_pool_mode",
            "1 for session, 2 for transaction, 3 for statement, -1 for several",
        ),
        |pool| match pool.mode {
            Some(PoolMode::Session) => 1.0,
            Some(PoolMode::Transaction) => 2.0,
            Some(PoolMode::Statement) => 3.0,
            None => -1.0,
        },
    ),
    (gauge("cnpg_pgbouncer_pools_load_balance_hosts", NO_STATE), |_| {
        0.0
    }),
];

const TOTALS: &Table<Statistics> = &[
    (
        gauge("cnpg_pgbouncer_stats_total_xact_count", "Transactions"),
        |sum| sum.transactions as f64,
    ),
    (
        gauge("cnpg_pgbouncer_stats_total_query_count", "Queries"),
        |sum| sum.queries as f64,
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_total_received",
            "Bytes received from clients",
        ),
        |sum| sum.received as f64,
    ),
    (
        gauge("cnpg_pgbouncer_stats_total_sent", "Bytes received from servers"),
        |sum| sum.sent as f64,
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_total_xact_time",
            "Microseconds that server connections were lent",
        ),
        |sum| sum.transaction_micros as f64,
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_total_query_time",
            "Microseconds that servers worked for queries",
        ),
        |sum| sum.query_micros as f64,
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_total_wait_time",
            "Microseconds that clients waited for server connections",
        ),
        |sum| sum.wait_micros as f64,
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_total_server_assignment_count",
            "Times that a server connection was lent",
        ),
        |sum| sum.waits as f64,
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_total_client_parse_count",
            "Parse messages of clients",
        ),
        |sum| sum.client_parses as f64,
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_total_server_parse_count",
            "Parse messages to servers for clients",
        ),
        |sum| sum.server_parses as f64,
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_total_bind_count",
            "Bind messages of clients",
        ),
        |sum| sum.binds as f64,
    ),
];

const AVERAGES: &Table<Averages> = &[
    (
        gauge("cnpg_pgbouncer_stats_avg_xact_count", "Transactions a second"),
        |of| of.rate(|sum| sum.transactions),
    ),
    (
        gauge("cnpg_pgbouncer_stats_avg_query_count", "Queries a second"),
        |of| of.rate(|sum| sum.queries),
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_avg_recv",
            "Bytes received from clients a second",
        ),
        |of| of.rate(|sum| sum.received),
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_avg_sent",
            "Bytes received from servers a second",
        ),
        |of| of.rate(|sum| sum.sent),
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_avg_xact_time",
            "Microseconds of a transaction",
        ),
        |of| of.each(|sum| sum.transaction_micros, |sum| sum.transactions),
    ),
    (
        gauge("cnpg_pgbouncer_stats_avg_query_time", "Microseconds of a query"),
        |of| of.each(|sum| sum.query_micros, |sum| sum.queries),
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_avg_wait_time",
            "Microseconds of a wait for a server connection",
        ),
        |of| of.each(|sum| sum.wait_micros, |sum| sum.waits),
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_avg_server_assignment_count",
            "Times a second that a server connection was lent",
        ),
        |of| of.rate(|sum| sum.waits),
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_avg_client_parse_count",
            "Parse messages of clients a second",
        ),
        |of| of.rate(|sum| sum.client_parses),
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_avg_server_parse_count",
            "Parse messages to servers a second",
        ),
        |of| of.rate(|sum| sum.server_parses),
    ),
    (
        gauge(
            "cnpg_pgbouncer_stats_avg_bind_count",
            "Bind messages of clients a second",
        ),
        |of| of.rate(|sum| sum.binds),
    ),
];

const NO_LIST: &str = "There is no such list here";
const NO_STATE: &str = "There is no such state here";

const fn gauge(name: &'static str, help: &'static str) -> Shown {
    Shown::new(name, help, Kind::Gauge)
}

pub(super) fn all() -> impl Iterator<Item = &'static Shown> {
    let lists = LISTS.iter().map(|(shown, _)| shown);
    let pools = POOLS.iter().map(|(shown, _)| shown);
    let totals = TOTALS.iter().map(|(shown, _)| shown);
    let averages = AVERAGES.iter().map(|(shown, _)| shown);
    lists.chain(pools).chain(totals).chain(averages)
}

pub(super) fn collect(
    numbers: &Numbers,
    averages: &BTreeMap<String, Averages>,
    families: &mut Vec<MetricFamily>,
) {
    add(LISTS, &[(Vec::new(), &numbers.lists)], families);
    let pools: Vec<_> = numbers
        .pools
        .iter()
        .map(|((database, user), row)| (metrics::labels(["database", "user"], [database, user]), row))
        .collect();
    add(POOLS, &pools, families);
    let of = |database: &str| metrics::labels(["database"], [database]);
    let totals: Vec<_> = numbers
        .statistics
        .iter()
        .map(|(name, row)| (of(name), row))
        .collect();
    add(TOTALS, &totals, families);
    let averages: Vec<_> = averages.iter().map(|(name, row)| (of(name), row)).collect();
    add(AVERAGES, &averages, families);
}
