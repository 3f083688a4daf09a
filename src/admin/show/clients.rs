//! SHOW CLIENTS, and what it has in common with SHOW SERVERS.

use std::{
    borrow::Cow,
    collections::HashMap,
    time::{Duration, SystemTime},
};

use super::{bigint, int, maybe, moments, text, text_column};
use crate::{
    admin::console::Console,
    net::PeerAddress,
    pool::ServerView,
    server::Duty,
    session::{ClientState, ClientView},
    wire::rows::{Column, Row},
};

/// What PgBouncer shows of clients and servers.
pub(super) const SOCKET: [Column; 21] = [
    text_column("type"),
    text_column("user"),
    text_column("database"),
    text_column("replication"),
    text_column("state"),
    text_column("addr"),
    int("port"),
    text_column("local_addr"),
    int("local_port"),
    text_column("connect_time"),
    text_column("request_time"),
    int("wait"),
    int("wait_us"),
    int("close_needed"),
    text_column("ptr"),
    text_column("link"),
    int("remote_pid"),
    text_column("tls"),
    text_column("application_name"),
    int("prepared_statements"),
    int("id"),
];

/// What this pooler knows besides: the process id that the client was told, what keeps its server connection with it,
/// and for how long its transaction has been open.
const OURS: [Column; 4] = [
    int("pid"),
    text_column("pinned"),
    text_column("activity"),
    bigint("transaction_us"),
];

pub(super) fn columns() -> Cow<'static, [Column]> {
    Cow::Owned([&SOCKET[..], &OURS[..]].concat())
}

pub(super) fn clients(console: &Console) -> Vec<Row> {
    let links = Links::of(console);
    let now = SystemTime::now();
    let row = |client: &ClientView| {
        let mut row = socket(client, client.state.as_str(), &links, now);
        row.extend([
            text(client.pid),
            text(client.pins),
            text(client.state.activity()),
            maybe(client.transaction.map(|time| time.as_micros())),
        ]);
        row
    };
    links.clients.iter().map(row).collect()
}

/// Who works for whom.
pub(super) struct Links {
    pub(super) clients: Vec<ClientView>,
    pub(super) servers: Vec<ServerView>,
    /// The index of the client that was told a process id.
    told: HashMap<i32, usize>,
    /// The number of the server connection that is the client's that was told a process id.
    served: HashMap<i32, u64>,
}

impl Links {
    pub(super) fn of(console: &Console) -> Self {
        let (clients, servers) = (console.table.clients(), console.pools.servers());
        let holds = |client: &&ClientView| client.server.is_some();
        let holders = clients.iter().enumerate().filter(|(_, client)| holds(client));
        let told: HashMap<_, _> = holders.map(|(index, client)| (client.pid, index)).collect();
        let served = servers
            .iter()
            .filter_map(|server| {
                let vitals = server.vitals.as_ref()?;
                let is_lent = vitals.duty() == Duty::Lent && told.contains_key(&vitals.client());
                is_lent.then(|| (vitals.client(), server.id))
            })
            .collect();
        Self {
            clients,
            servers,
            told,
            served,
        }
    }

    /// Whose a server connection is.
    pub(super) fn client_of(&self, server: &ServerView) -> Option<&ClientView> {
        let vitals = server.vitals.as_ref()?;
        match vitals.duty() {
            Duty::Lent => self.clients.get(*self.told.get(&vitals.client())?),
            Duty::Apart => self.clients.iter().find(|client| {
                client.state == ClientState::Replicating
                    && client.server == Some(vitals.pid)
                    && client.pool.as_ref() == Some(&server.pool)
            }),
            _ => None,
        }
    }

    fn server_of(&self, client: &ClientView) -> Option<u64> {
        match client.state {
            ClientState::Replicating => {
                let own = |server: &&ServerView| {
                    let vitals = server.vitals.as_ref();
                    vitals.is_some_and(|vitals| Some(vitals.pid) == client.server)
                };
                Some(self.servers.iter().find(own)?.id)
            }
            _ => self.served.get(&client.pid).copied(),
        }
    }
}

/// A client in PgBouncer's columns.
pub(super) fn socket(client: &ClientView, state: &str, links: &Links, now: SystemTime) -> Row {
    let (address, port) = address(Some(client.identity.peer));
    let (local, local_port) = self::address(client.origin.local);
    let waits = match client.state {
        ClientState::Waiting => client.since,
        _ => Duration::ZERO,
    };
    vec![
        text("C"),
        text(&client.identity.user),
        text(&client.identity.database),
        text(client.replication),
        text(state),
        text(address),
        text(port),
        text(local),
        text(local_port),
        text(moments::ago(now, client.connected)),
        text(moments::ago(now, client.requested)),
        text(waits.as_secs()),
        text(waits.subsec_micros()),
        text(0),
        text(format_args!("C{}", client.identity.client)),
        text(
            links
                .server_of(client)
                .map(|id| format!("S{id}"))
                .unwrap_or_default(),
        ),
        text(0),
        text(maybe(client.origin.cipher).unwrap_or_default()),
        text(&client.application_name),
        text(client.prepared),
        text(client.identity.client),
    ]
}

/// Address and port as PgBouncer shows them.
pub(super) fn address(address: Option<PeerAddress>) -> (String, u16) {
    match address {
        Some(PeerAddress::Ip(ip, port)) => (ip.to_string(), port),
        Some(PeerAddress::Local) => ("unix".to_owned(), 0),
        None => (String::new(), 0),
    }
}
