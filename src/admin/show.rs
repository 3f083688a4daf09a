//! What each SHOW shows. Columns have the names that PgBouncer's users know.

use std::time::Instant;

use super::{command::Topic, console::Console, topology};
use crate::{
    pool::{Metrics, Pools},
    session::{ClientView, Table},
};

/// A result: column names and rows of text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) columns: &'static [&'static str],
    pub(super) rows: Vec<Vec<String>>,
}

pub(super) fn show(topic: Topic, console: &Console) -> Shown {
    let (pools, table) = (&*console.pools, &*console.table);
    match topic {
        Topic::Help => help(),
        Topic::Clients => clients(table),
        Topic::PreparedStatements => prepared_statements(pools),
        Topic::Lists => lists(pools, table),
        Topic::Pools => self::pools(pools),
        Topic::Topology => topology::topology(&console.clusters, Instant::now()),
        Topic::Version => Shown {
            columns: &["version"],
            rows: vec![vec![format!("pgweir {}", env!("CARGO_PKG_VERSION"))]],
        },
    }
}

fn help() -> Shown {
    let rows = Topic::ALL
        .into_iter()
        .map(|topic| vec![format!("SHOW {}", topic.word())]);
    Shown {
        columns: &["command"],
        rows: rows.collect(),
    }
}

/// What keeps a client's server connection with it is in `pinned`, which PgBouncer does not have.
fn clients(table: &Table) -> Shown {
    let row = |client: ClientView| {
        vec![
            "C".to_owned(),
            client.identity.user.to_string(),
            client.identity.database.to_string(),
            client.state.as_str().to_owned(),
            client.identity.peer.to_string(),
            client.pid.to_string(),
            client.application_name,
            client.pins.to_string(),
        ]
    };
    Shown {
        columns: &[
            "type",
            "user",
            "database",
            "state",
            "addr",
            "pid",
            "application_name",
            "pinned",
        ],
        rows: table.clients().into_iter().map(row).collect(),
    }
}

fn prepared_statements(pools: &Pools) -> Shown {
    let counts = pools.statements().counts();
    let mut rows = vec![
        vec!["statements".to_owned(), counts.statements.to_string()],
        vec!["bytes".to_owned(), counts.bytes.to_string()],
    ];
    let all = pools.all();
    let sum = |count: fn(&Metrics) -> u64| all.iter().map(|pool| count(pool.metrics())).sum::<u64>();
    for (name, count) in [
        ("hits", sum(|metrics| metrics.prepared_hits.get())),
        ("misses", sum(|metrics| metrics.prepared_misses.get())),
        ("evictions", sum(|metrics| metrics.prepared_evictions.get())),
    ] {
        rows.push(vec![name.to_owned(), count.to_string()]);
    }
    Shown {
        columns: &["name", "value"],
        rows,
    }
}

fn lists(pools: &Pools, table: &Table) -> Shown {
    let all = pools.all();
    let counts = all.iter().map(|pool| pool.counts());
    let (free, used) = counts.fold((0, 0), |(free, used), counts| {
        (free + counts.idle, used + counts.active)
    });
    let rows = [
        ("pools", all.len()),
        ("used_clients", table.len()),
        ("free_servers", free),
        ("used_servers", used),
    ];
    Shown {
        columns: &["list", "items"],
        rows: rows
            .into_iter()
            .map(|(list, items)| vec![list.to_owned(), items.to_string()])
            .collect(),
    }
}

fn pools(pools: &Pools) -> Shown {
    let row = |pool: &std::sync::Arc<crate::pool::Pool>| {
        let (key, plan, counts) = (pool.key(), pool.plan(), pool.counts());
        let clients = usize::try_from(pool.metrics().clients.get()).unwrap_or(0);
        vec![
            key.database.to_string(),
            key.user.to_string(),
            key.role.as_str().to_owned(),
            clients.saturating_sub(counts.waiting).to_string(),
            counts.waiting.to_string(),
            counts.active.to_string(),
            counts.idle.to_string(),
            counts.connecting.to_string(),
            plan.settings.size.to_string(),
            plan.settings.mode.as_str().to_owned(),
        ]
    };
    Shown {
        columns: &[
            "database",
            "user",
            "role",
            "cl_active",
            "cl_waiting",
            "sv_active",
            "sv_idle",
            "sv_login",
            "pool_size",
            "pool_mode",
        ],
        rows: pools.all().iter().map(row).collect(),
    }
}
