//! SHOW POOLS.

use std::{collections::HashMap, time::Instant};

use super::{clients::Links, int, servers, text, text_column};
use crate::{
    admin::console::Console,
    config::LoadBalance,
    pool::Pool,
    session::ClientState,
    types::PoolKey,
    wire::rows::{Column, Row},
};

pub(super) const COLUMNS: &[Column] = &[
    text_column("database"),
    text_column("user"),
    int("cl_active"),
    int("cl_waiting"),
    int("cl_active_cancel_req"),
    int("cl_waiting_cancel_req"),
    int("sv_active"),
    int("sv_active_cancel"),
    int("sv_being_canceled"),
    int("sv_idle"),
    int("sv_used"),
    int("sv_tested"),
    int("sv_login"),
    int("maxwait"),
    int("maxwait_us"),
    text_column("pool_mode"),
    text_column("load_balance_hosts"),
    text_column("role"),
    int("pool_size"),
];

/// Beside the states of connections.
const CANCELS: &str = "cancels";

pub(super) fn pools(console: &Console, now: Instant) -> Vec<Row> {
    let links = Links::of(console);
    let mut states = HashMap::<_, usize>::new();
    // Look-ups have connections of their own, and no pool.
    for server in links.servers.iter().filter(|server| !server.is_look_up) {
        let state = servers::state(server, &console.pools, now);
        *states.entry((&server.pool, state)).or_default() += 1;
        // Each is a client's connection here and one of ours to the server.
        let cancels = server.vitals.as_ref().map_or(0, |vitals| vitals.cancels());
        *states.entry((&server.pool, CANCELS)).or_default() += usize::try_from(cancels).unwrap_or(0);
    }
    let in_state = |key: &PoolKey, state| states.get(&(key, state)).copied().unwrap_or_default();
    let mut rows: Vec<_> = console
        .pools
        .all()
        .iter()
        .map(|pool| row(pool, |state| in_state(pool.key(), state), now))
        .collect();
    let visitors = links.clients.iter();
    let visitors = visitors.filter(|client| client.state == ClientState::Visiting);
    rows.push(own_row(visitors.count()));
    rows
}

fn row(pool: &Pool, servers: impl Fn(&'static str) -> usize, now: Instant) -> Row {
    let (key, plan, counts) = (pool.key(), pool.plan(), pool.counts());
    let clients = usize::try_from(pool.metrics().clients.get()).unwrap_or(0);
    let wait = pool.longest_wait(now).unwrap_or_default();
    let several = plan.target.cluster.topology().servers.len() > 1;
    let load_balance = several.then_some(match plan.target.options.load_balance {
        LoadBalance::Disable => "disable",
        LoadBalance::RoundRobin => "round-robin",
    });
    vec![
        text(&key.database),
        text(&key.user),
        text(clients.saturating_sub(counts.waiting)),
        text(counts.waiting),
        text(servers(CANCELS)),
        // None waits: each has a connection to the server at once.
        text(0),
        text(servers("active")),
        text(servers(CANCELS)),
        text(servers("being_canceled")),
        text(servers("idle")),
        text(servers("used")),
        text(servers("tested")),
        text(servers("new")),
        text(wait.as_secs()),
        text(wait.subsec_micros()),
        text(plan.settings.mode.as_str()),
        load_balance.map(str::to_owned),
        text(key.role.as_str()),
        text(plan.settings.size),
    ]
}

/// The console's own, as PgBouncer has it.
fn own_row(visitors: usize) -> Row {
    let mut row = vec![text("pgbouncer"), text("pgbouncer"), text(visitors)];
    row.extend((0..12).map(|_| text(0)));
    row.extend([text("statement"), None, None, None]);
    row
}
