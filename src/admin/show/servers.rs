//! SHOW SERVERS, SHOW SOCKETS and SHOW ACTIVE_SOCKETS.

use std::{
    borrow::Cow,
    time::{Instant, SystemTime},
};

use super::{
    clients::{Links, SOCKET, address, socket},
    int, maybe, moments, text,
};
use crate::{
    admin::console::Console,
    pool::{Pools, ServerView},
    server::{Duty, Vitals},
    session::{ClientState, ClientView},
    types::Endpoint,
    wire::rows::{Column, Row},
};

/// SHOW SERVERS has no more than PgBouncer.
pub(super) const COLUMNS: &[Column] = &SOCKET;

/// What PgBouncer shows of its buffers.
const BUFFERS: [Column; 7] = [
    int("recv_pos"),
    int("pkt_pos"),
    int("pkt_remain"),
    int("send_pos"),
    int("send_remain"),
    int("pkt_avail"),
    int("send_avail"),
];

pub(super) fn socket_columns() -> Cow<'static, [Column]> {
    Cow::Owned([&SOCKET[..], &BUFFERS[..]].concat())
}

pub(super) fn servers(console: &Console, now: Instant) -> Vec<Row> {
    let links = Links::of(console);
    let clock = (now, SystemTime::now());
    let row = |server: &ServerView| row(server, state(server, &console.pools, now), &links, clock);
    links.servers.iter().map(row).collect()
}

pub(super) fn sockets(console: &Console, now: Instant, is_wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let links = Links::of(console);
    let clock = (now, SystemTime::now());
    let clients = links.clients.iter().filter_map(|client| {
        let state = match client.state {
            ClientState::Waiting => "cl_waiting",
            _ => "cl_active",
        };
        is_wanted(state).then(|| socket(client, state, &links, clock.1))
    });
    let servers = links.servers.iter().filter_map(|server| {
        let state = match state(server, &console.pools, now) {
            "active" => "sv_active",
            "idle" => "sv_idle",
            "used" => "sv_used",
            "tested" => "sv_tested",
            "being_canceled" => "sv_being_canceled",
            _ => "sv_login",
        };
        is_wanted(state).then(|| row(server, state, &links, clock))
    });
    let rows = clients.chain(servers);
    // What is in a buffer belongs to one task and is gone when somebody looks.
    rows.map(|mut row| {
        row.extend(BUFFERS.iter().map(|_| text(0)));
        row
    })
    .collect()
}

/// What a connection is for, in PgBouncer's words. `used` has to be checked before it can be lent again.
pub(super) fn state(server: &ServerView, pools: &Pools, now: Instant) -> &'static str {
    let Some(vitals) = &server.vitals else {
        return "new";
    };
    match vitals.duty() {
        Duty::Lent | Duty::Apart => "active",
        Duty::Checked | Duty::Reset => "tested",
        Duty::BeingCanceled => "being_canceled",
        Duty::Idle => {
            let is_due = pools
                .check_delay(&server.pool)
                .is_some_and(|delay| now.saturating_duration_since(vitals.used()) >= delay);
            if is_due { "used" } else { "idle" }
        }
    }
}

fn row(server: &ServerView, state: &str, links: &Links, (now, clock): (Instant, SystemTime)) -> Row {
    let client = links.client_of(server);
    let vitals = server.vitals.as_deref();
    let (addr, port) = match vitals.map(|vitals| &vitals.address.endpoint) {
        Some(Endpoint::Unix(path)) => ("unix".to_owned(), unix_port(path)),
        _ => address(vitals.and_then(|vitals| vitals.peer)),
    };
    let (local, local_port) = address(vitals.and_then(|vitals| vitals.local));
    let ago = |then: Instant| moments::ago(clock, now.saturating_duration_since(then));
    let requested = match (client, vitals) {
        (Some(client), _) => moments::ago(clock, client.requested),
        (None, Some(vitals)) => ago(vitals.used()),
        (None, None) => ago(server.since),
    };
    vec![
        text("S"),
        text(&server.pool.user),
        text(&server.pool.database),
        text(client.map_or("none", |client| client.replication)),
        text(state),
        text(addr),
        text(port),
        text(local),
        text(local_port),
        text(ago(server.since)),
        text(requested),
        text(0),
        text(0),
        text(u8::from(server.close_needed)),
        text(format_args!("S{}", server.id)),
        text(client.map(link).unwrap_or_default()),
        text(vitals.map_or(0, |vitals| vitals.pid)),
        text(maybe(vitals.and_then(|vitals| vitals.cipher)).unwrap_or_default()),
        text(client.map_or("", |client| &client.application_name)),
        text(vitals.map_or(0, Vitals::prepared)),
        text(server.id),
    ]
}

fn link(client: &ClientView) -> String {
    format!("C{}", client.identity.client)
}

/// `/run/postgresql/.s.PGSQL.5432`
fn unix_port(path: &std::path::Path) -> u16 {
    let port = path.extension().and_then(|port| port.to_str());
    port.and_then(|port| port.parse().ok()).unwrap_or_default()
}
