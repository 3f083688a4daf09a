//! What there is to show of the process.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{bigint, int, moments, text, text_column};
use crate::{
    admin::{
        console::Console,
        premises::{CertificateView, HostView},
    },
    pool::{Halted, Metrics},
    wire::rows::{Column, ColumnType, Row},
};

/// Descriptors are not handed to another process here, and nobody is shown a cancel key or a password: there are no rows.
pub(super) const FDS: &[Column] = &[
    int("fd"),
    text_column("task"),
    text_column("user"),
    text_column("database"),
    text_column("addr"),
    int("port"),
    bigint("cancel"),
    int("link"),
    text_column("client_encoding"),
    text_column("std_strings"),
    text_column("datestyle"),
    text_column("timezone"),
    text_column("password"),
    Column::new("scram_client_key", ColumnType::Bytes),
    Column::new("scram_server_key", ColumnType::Bytes),
];

pub(super) const LISTS: &[Column] = &[text_column("list"), int("items")];

pub(super) const MEM: &[Column] = &[
    text_column("name"),
    int("size"),
    int("used"),
    int("free"),
    int("memtotal"),
];

pub(super) const DNS_HOSTS: &[Column] = &[text_column("hostname"), bigint("ttl"), text_column("addrs")];

pub(super) const DNS_ZONES: &[Column] = &[text_column("zonename"), bigint("serial"), int("count")];

pub(super) const PEERS: &[Column] = &[int("peer_id"), text_column("host"), int("port"), int("pool_size")];

pub(super) const PEER_POOLS: &[Column] = &[
    int("peer_id"),
    int("cl_active_cancel_req"),
    int("cl_waiting_cancel_req"),
    int("sv_active_cancel"),
    int("sv_login"),
];

pub(super) const STATE: &[Column] = &[text_column("key"), text_column("value")];

pub(super) const VERSION: &[Column] = &[text_column("version")];

pub(super) const PREPARED: &[Column] = &[text_column("name"), bigint("value")];

pub(super) const CERTIFICATES: &[Column] = &[
    text_column("setting"),
    text_column("kind"),
    text_column("subject"),
    text_column("not_before"),
    text_column("not_after"),
    bigint("seconds_left"),
];

pub(super) fn lists(console: &Console) -> Vec<Row> {
    let pools = console.pools.all();
    let servers: usize = pools.iter().map(|pool| pool.counts().servers()).sum();
    let hosts = console.premises.hosts().len();
    [
        ("databases", console.premises.databases(&[]).len() + 1),
        ("users", console.premises.users(&[]).len()),
        ("peers", 0),
        // The console's own is among them.
        ("pools", pools.len() + 1),
        ("peer_pools", 0),
        ("free_clients", 0),
        ("used_clients", console.table.len()),
        ("login_clients", console.premises.logging_in()),
        ("free_servers", 0),
        ("used_servers", servers),
        ("dns_names", hosts),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ]
    .into_iter()
    .map(|(list, items)| vec![text(list), text(items)])
    .collect()
}

/// The parts of memory that are counted. `memtotal` is what they come to in bytes.
pub(super) fn mem(console: &Console) -> Vec<Row> {
    let statements = console.pools.statements().counts();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident: u64 = resident
        .and_then(|size| size.trim().strip_suffix("kB")?.trim_end().parse().ok())
        .unwrap_or_default();
    let row = |name: &str, used: usize, total: u64| {
        let size = total.checked_div(used as u64).unwrap_or_default();
        vec![text(name), text(size), text(used), text(0), text(total)]
    };
    vec![
        row(
            "prepared_statement_cache",
            statements.statements,
            statements.bytes as u64,
        ),
        row("process_resident", 1, resident * 1024),
    ]
}

pub(super) fn dns_hosts(console: &Console) -> Vec<Row> {
    let row = |host: &HostView| {
        let addresses: Vec<_> = host.addresses.iter().map(ToString::to_string).collect();
        vec![
            text(&host.name),
            text(host.ttl.as_secs()),
            text(addresses.join(",")),
        ]
    };
    console.premises.hosts().iter().map(row).collect()
}

pub(super) fn state(console: &Console) -> Vec<Row> {
    let halted = console.pools.halted();
    [
        ("active", Halted::No),
        ("paused", Halted::Paused),
        ("suspended", Halted::Suspended),
    ]
    .into_iter()
    .map(|(key, state)| vec![text(key), text(if halted == state { "yes" } else { "no" })])
    .collect()
}

pub(super) fn certificates(console: &Console) -> Vec<Row> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let row = |certificate: &CertificateView| {
        vec![
            text(&certificate.setting),
            text(certificate.kind),
            text(&certificate.subject),
            text(moments::at(certificate.not_before)),
            text(moments::at(certificate.not_after)),
            text(certificate.not_after.saturating_sub(now)),
        ]
    };
    console.premises.certificates().iter().map(row).collect()
}

pub(super) fn prepared(console: &Console) -> Vec<Row> {
    let counts = console.pools.statements().counts();
    let all = console.pools.all();
    let sum = |count: fn(&Metrics) -> u64| all.iter().map(|pool| count(pool.metrics())).sum::<u64>();
    [
        ("statements", counts.statements as u64),
        ("bytes", counts.bytes as u64),
        ("hits", sum(|metrics| metrics.prepared_hits.get())),
        ("misses", sum(|metrics| metrics.prepared_misses.get())),
        ("evictions", sum(|metrics| metrics.prepared_evictions.get())),
    ]
    .into_iter()
    .map(|(name, count)| vec![text(name), text(count)])
    .collect()
}
