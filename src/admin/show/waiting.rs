//! SHOW WAITERS, SHOW TRANSACTIONS and SHOW PINS: who holds what, and who waits for it.

use super::{bigint, int, maybe, text, text_column};
use crate::{
    admin::console::Console,
    fault::Fault,
    pool::LeaseError,
    session::ClientView,
    wire::rows::{Column, Row},
};

pub(super) const WAITERS: &[Column] = &[
    int("id"),
    text_column("user"),
    text_column("database"),
    text_column("pool_user"),
    text_column("addr"),
    text_column("application_name"),
    bigint("wait_us"),
    text_column("reason"),
];

pub(super) const TRANSACTIONS: &[Column] = &[
    int("id"),
    text_column("user"),
    text_column("database"),
    text_column("pool_user"),
    text_column("addr"),
    text_column("application_name"),
    bigint("transaction_us"),
    text_column("activity"),
    bigint("activity_us"),
    int("server_pid"),
];

pub(super) const PINS: &[Column] = &[
    int("id"),
    text_column("user"),
    text_column("database"),
    text_column("pool_user"),
    text_column("addr"),
    text_column("application_name"),
    text_column("pinned"),
    bigint("pinned_us"),
    int("server_pid"),
];

/// Who waits for a server connection, longest first, and for what.
pub(super) fn waiters(console: &Console) -> Vec<Row> {
    let pools = console.pools.all();
    let row = |client: &ClientView| {
        let pool = pools.iter().find(|pool| Some(pool.key()) == client.pool.as_ref());
        let reason = pool.map(|pool| reason(&pool.why_waiting(client.since)));
        let mut row = who(client);
        row.extend([text(client.since.as_micros()), reason]);
        row
    };
    console.table.waiters().iter().map(row).collect()
}

/// Who has a transaction open, longest first.
pub(super) fn transactions(console: &Console) -> Vec<Row> {
    let row = |client: &ClientView| {
        let mut row = who(client);
        row.extend([
            maybe(client.transaction.map(|time| time.as_micros())),
            text(client.state.activity()),
            text(client.since.as_micros()),
            maybe(client.server),
        ]);
        row
    };
    console.table.transactions().iter().map(row).collect()
}

/// Whose server connection stays with it between transactions, longest first.
pub(super) fn pins(console: &Console) -> Vec<Row> {
    let mut clients = console.table.clients();
    clients.retain(|client| client.pinned.is_some());
    clients.sort_by_key(|client| std::cmp::Reverse(client.pinned));
    let row = |client: &ClientView| {
        let mut row = who(client);
        row.extend([
            text(client.pins),
            maybe(client.pinned.map(|time| time.as_micros())),
            maybe(client.server),
        ]);
        row
    };
    clients.iter().map(row).collect()
}

/// What is missing: a limit that is reached is told by its numbers.
fn reason(why: &LeaseError) -> String {
    let detail = match why {
        LeaseError::Timeout { .. } => why.detail(),
        _ => None,
    };
    detail.unwrap_or_else(|| why.client_message()).into_owned()
}

fn who(client: &ClientView) -> Row {
    vec![
        text(client.identity.client),
        text(&client.identity.user),
        text(&client.identity.database),
        maybe(client.pool.as_ref().map(|pool| &pool.user)),
        text(client.identity.peer),
        text(&client.application_name),
    ]
}
