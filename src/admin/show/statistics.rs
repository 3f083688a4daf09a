//! SHOW STATS and its like. PgBouncer has a vocabulary of its own for each of them.

use std::time::Instant;

use super::{numeric, text, text_column};
use crate::{
    admin::{command::Topic, console::Console, stats::Statistics},
    types::DatabaseName,
    wire::rows::{Column, Row},
};

pub(super) const STATS: &[Column] = &[
    text_column("database"),
    numeric("total_server_assignment_count"),
    numeric("total_xact_count"),
    numeric("total_query_count"),
    numeric("total_received"),
    numeric("total_sent"),
    numeric("total_xact_time"),
    numeric("total_query_time"),
    numeric("total_wait_time"),
    numeric("total_client_parse_count"),
    numeric("total_server_parse_count"),
    numeric("total_bind_count"),
    numeric("total_client_login_count"),
    numeric("avg_server_assignment_count"),
    numeric("avg_xact_count"),
    numeric("avg_query_count"),
    numeric("avg_recv"),
    numeric("avg_sent"),
    numeric("avg_xact_time"),
    numeric("avg_query_time"),
    numeric("avg_wait_time"),
    numeric("avg_client_parse_count"),
    numeric("avg_server_parse_count"),
    numeric("avg_bind_count"),
    numeric("avg_client_login_count"),
    // As PgBouncer 1.7 called the queries, for exporters of that time.
    numeric("total_requests"),
];

pub(super) const STATS_TOTALS: &[Column] = &[
    text_column("database"),
    numeric("server_assignment_count"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("client_parse_count"),
    numeric("server_parse_count"),
    numeric("bind_count"),
    numeric("client_login_count"),
];

pub(super) const STATS_AVERAGES: &[Column] = &[
    text_column("database"),
    numeric("server_assignment_count"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("avg_client_parse_count"),
    numeric("avg_server_parse_count"),
    numeric("avg_bind_count"),
    numeric("avg_client_login_count"),
];

pub(super) const TOTALS: &[Column] = &[text_column("name"), numeric("value")];

/// The names in SHOW TOTALS, after `total_` and `avg_`.
const NAMES: [&str; 12] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "client_bytes",
    "server_bytes",
    "xact_time",
    "query_time",
    "wait_time",
    "ps_client_parse_count",
    "ps_server_parse_count",
    "ps_bind_count",
    "client_login_count",
];

/// A row for each database, the console's among them, as PgBouncer has it.
pub(super) fn stats(console: &Console, topic: Topic, now: Instant) -> Vec<Row> {
    let mut databases = console.sampler.by_database(&console.pools, now);
    databases.entry("pgbouncer".into()).or_default();
    let row = |(database, statistics): (&DatabaseName, &Statistics)| {
        let (totals, averages) = (statistics.totals.values(), statistics.averages());
        let values = match topic {
            Topic::StatsTotals => totals.to_vec(),
            Topic::StatsAverages => averages.to_vec(),
            _ => [&totals[..], &averages[..], &[statistics.totals.queries]].concat(),
        };
        let mut row = vec![text(database)];
        row.extend(values.into_iter().map(text));
        row
    };
    databases.iter().map(row).collect()
}

/// A row for each number, of all databases together.
pub(super) fn totals(console: &Console, now: Instant) -> Vec<Row> {
    let mut sum = Statistics::default();
    for statistics in console.sampler.by_database(&console.pools, now).values() {
        sum.add(statistics);
    }
    let rows = |prefix: &'static str, values: [u64; 12]| {
        let named = NAMES.into_iter().zip(values);
        named.map(move |(name, value)| vec![text(format_args!("{prefix}_{name}")), text(value)])
    };
    rows("total", sum.totals.values())
        .chain(rows("avg", sum.averages()))
        .collect()
}
