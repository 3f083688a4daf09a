//! What each SHOW shows. Columns have the names, types and order that PgBouncer 1.25 gives them; what only this pooler
//! knows stands at the end.

mod clients;
mod configured;
mod fleet;
mod moments;
mod pools;
mod process;
mod servers;
mod statistics;
mod topology;
mod waiting;

use std::{borrow::Cow, time::Instant};

use super::{
    command::{Command, Topic},
    console::Console,
    premises::{ReplicaView, SettingView},
};
use crate::wire::rows::{Column, ColumnType, Row};

/// A result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) columns: Cow<'static, [Column]>,
    pub(super) rows: Vec<Row>,
}

/// Settings of PostgreSQL's that drivers ask for.
const PRETENDED: [(&str, &str); 8] = [
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO"),
    ("default_transaction_isolation", "read committed"),
    ("search_path", ""),
    ("server_version", env!("CARGO_PKG_VERSION")),
    ("standard_conforming_strings", "on"),
    ("timezone", "GMT"),
    ("transaction_isolation", "read committed"),
];

/// What PgBouncer says to SHOW HELP, and what is ours.
pub(super) fn help() -> String {
    let topics: Vec<_> = Topic::ALL.iter().map(|(word, _)| *word).collect();
    format!(
        "Console usage\n\tSHOW {}\n\tSHOW name\n\tSET name = value\n\tRELOAD\n\tPAUSE [db]\n\tRESUME [db]\n\tDISABLE db\
         \n\tENABLE db\n\tRECONNECT [db]\n\tKILL [db]\n\tKILL_CLIENT id\n\tSUSPEND\n\tSHUTDOWN\n\tSHUTDOWN \
         WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS\n\tWAIT_CLOSE [db]",
        topics.join("|")
    )
}

/// The columns that a command's answer has; `None` where it is no table.
pub(super) fn columns(command: &Command) -> Option<Cow<'static, [Column]>> {
    let topic = match command {
        Command::Show(topic) => *topic,
        Command::ShowSetting(name) => return Some(Cow::Owned(vec![setting_column(name)])),
        _ => return None,
    };
    let columns = match topic {
        Topic::Help => return None,
        Topic::Clients => return Some(clients::columns()),
        Topic::Servers => servers::COLUMNS,
        Topic::Sockets | Topic::ActiveSockets => return Some(servers::socket_columns()),
        Topic::Pools => pools::COLUMNS,
        Topic::Databases => configured::DATABASES,
        Topic::Users => configured::USERS,
        Topic::Config => configured::CONFIG,
        Topic::Stats => statistics::STATS,
        Topic::StatsTotals => statistics::STATS_TOTALS,
        Topic::StatsAverages => statistics::STATS_AVERAGES,
        Topic::Totals => statistics::TOTALS,
        Topic::Fleet => fleet::COLUMNS,
        Topic::Fds => process::FDS,
        Topic::Lists => process::LISTS,
        Topic::Mem => process::MEM,
        Topic::DnsHosts => process::DNS_HOSTS,
        Topic::DnsZones => process::DNS_ZONES,
        Topic::Peers => process::PEERS,
        Topic::PeerPools => process::PEER_POOLS,
        Topic::State => process::STATE,
        Topic::Version => process::VERSION,
        Topic::Certificates => process::CERTIFICATES,
        Topic::Prepared | Topic::PreparedStatements => process::PREPARED,
        Topic::Pins => waiting::PINS,
        Topic::Transactions => waiting::TRANSACTIONS,
        Topic::Waiters => waiting::WAITERS,
        Topic::Topology => topology::COLUMNS,
    };
    Some(Cow::Borrowed(columns))
}

/// What there is to show of the replicas.
pub(super) fn show_fleet(replicas: &[ReplicaView]) -> Shown {
    Shown {
        columns: Cow::Borrowed(fleet::COLUMNS),
        rows: fleet::fleet(replicas),
    }
}

/// What there is to show of a topic, but for the replicas, who have to be asked.
pub(super) fn show(topic: Topic, console: &Console) -> Shown {
    let now = Instant::now();
    let rows = match topic {
        Topic::Help | Topic::Fleet | Topic::Fds | Topic::DnsZones | Topic::Peers | Topic::PeerPools => {
            Vec::new()
        }
        Topic::Clients => clients::clients(console),
        Topic::Servers => servers::servers(console, now),
        Topic::Sockets => servers::sockets(console, now, |_| true),
        Topic::ActiveSockets => servers::sockets(console, now, |state| {
            matches!(
                state,
                "cl_active" | "cl_waiting" | "sv_active" | "sv_tested" | "sv_login"
            )
        }),
        Topic::Pools => pools::pools(console, now),
        Topic::Databases => configured::databases(console),
        Topic::Users => configured::users(console),
        Topic::Config => configured::config(&console.premises.settings()),
        Topic::Stats | Topic::StatsTotals | Topic::StatsAverages => statistics::stats(console, topic, now),
        Topic::Totals => statistics::totals(console, now),
        Topic::Lists => process::lists(console),
        Topic::Mem => process::mem(console),
        Topic::DnsHosts => process::dns_hosts(console),
        Topic::State => process::state(console),
        Topic::Version => vec![vec![text(format!("pgweir {}", env!("CARGO_PKG_VERSION")))]],
        Topic::Certificates => process::certificates(console),
        Topic::Prepared | Topic::PreparedStatements => process::prepared(console),
        Topic::Pins => waiting::pins(console),
        Topic::Transactions => waiting::transactions(console),
        Topic::Waiters => waiting::waiters(console),
        Topic::Topology => topology::topology(&console.premises.clusters(), now),
    };
    Shown {
        columns: columns(&Command::Show(topic)).unwrap_or_default(),
        rows,
    }
}

/// One setting, by PostgreSQL's, PgBouncer's or its own name; `None` if there is none of that name.
pub(super) fn setting(name: &str, settings: &[SettingView]) -> Option<Shown> {
    let pretended = PRETENDED
        .iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known));
    let value = match pretended {
        Some((_, value)) => Some((*value).to_owned()),
        None => configured::find(name, settings)?.value.clone(),
    };
    Some(Shown {
        columns: Cow::Owned(vec![setting_column(name)]),
        rows: vec![vec![value]],
    })
}

fn setting_column(name: &str) -> Column {
    Column {
        name: Cow::Owned(name.to_lowercase()),
        kind: ColumnType::Text,
    }
}

const fn text_column(name: &'static str) -> Column {
    Column::new(name, ColumnType::Text)
}

const fn int(name: &'static str) -> Column {
    Column::new(name, ColumnType::Int4)
}

const fn bigint(name: &'static str) -> Column {
    Column::new(name, ColumnType::Int8)
}

const fn numeric(name: &'static str) -> Column {
    Column::new(name, ColumnType::Numeric)
}

/// A value that is there.
#[allow(
    clippy::unnecessary_wraps,
    clippy::needless_pass_by_value,
    reason = "a row has values that may be NULL, and most are made for it"
)]
fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

/// A value that may be NULL.
fn maybe(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}
