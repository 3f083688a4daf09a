//! Who has a transaction open for long, who waits for what, and what is kept with its client.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::document::{Session, Waiter};
use crate::{
    pool::Pool,
    server::pins::Pins,
    session::{ClientView, Table},
    types::{PoolKey, Role},
};

/// So many of each kind are shown.
const SHOWN: usize = 20;
/// A transaction that is not open for so long is no news.
const LONG: Duration = Duration::from_secs(1);
/// The same of a client that waits; less is not measured.
const NOTICEABLE: Duration = Duration::from_millis(100);

/// What there is to say of sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) transactions: Vec<Session>,
    pub(super) waiters: Vec<Waiter>,
    /// Of each session that is pinned.
    pub(super) pins: Vec<Pins>,
}

pub(super) fn show(table: &Table, pools: &[Arc<Pool>]) -> Sessions {
    let (open, waiting) = (table.transactions(), table.waiters());
    let longest = open.iter().take(SHOWN);
    let patient = waiting
        .iter()
        .take(SHOWN)
        .filter(|client| client.since >= NOTICEABLE);
    // The same for all who wait in one queue.
    let mut causes: HashMap<&PoolKey, String> = HashMap::new();
    Sessions {
        transactions: longest.filter_map(transaction).collect(),
        waiters: patient
            .filter_map(|client| {
                let key = client.pool.as_ref()?;
                let cause = causes.entry(key).or_insert_with(|| cause(key, pools, &open));
                Some(waiter(client, cause.clone()))
            })
            .collect(),
        pins: table.pins(),
    }
}

fn transaction(client: &ClientView) -> Option<Session> {
    let open = client.transaction.filter(|open| *open >= LONG)?;
    Some(Session {
        pid: client.pid,
        database: client.identity.database.to_string(),
        user: client.identity.user.to_string(),
        application: client.application_name.clone(),
        address: client.identity.peer.to_string(),
        state: client.state.activity().to_owned(),
        seconds: open.as_secs_f64(),
        pins: client.pins.iter().map(|pin| pin.as_str().to_owned()).collect(),
    })
}

fn waiter(client: &ClientView, waits_for: String) -> Waiter {
    Waiter {
        pid: client.pid,
        database: client.identity.database.to_string(),
        user: client.identity.user.to_string(),
        application: client.application_name.clone(),
        address: client.identity.peer.to_string(),
        seconds: client.since.as_secs_f64(),
        waits_for,
    }
}

/// What the clients of a pool wait for.
fn cause(key: &PoolKey, pools: &[Arc<Pool>], open: &[ClientView]) -> String {
    let Some(pool) = pools.iter().find(|pool| pool.key() == key) else {
        return "a pool that is gone".to_owned();
    };
    let (plan, counts) = (pool.plan(), pool.counts());
    let phase = plan.target.cluster.topology().phase;
    if let Some(reason) = phase.reason().filter(|_| !phase.is_open())
        && plan.target.wish.role == Role::ReadWrite
    {
        return format!("the primary: {reason}");
    }
    if counts.connecting > 0 {
        return "a server connection that is being opened".to_owned();
    }
    let all = format!(
        "one of {} server connections of the pool, {} of which are in use",
        plan.settings.size, counts.active
    );
    // The longest transaction comes first.
    match open.iter().find(|client| client.pool.as_ref() == Some(key)) {
        Some(holder) => format!("{all}; {}", describe(holder)),
        None => all,
    }
}

fn describe(holder: &ClientView) -> String {
    let name = match &*holder.application_name {
        "" => String::new(),
        name => format!("\"{name}\" of "),
    };
    format!(
        "longest by {name}user \"{}\" (pid {}), {} for {:.1} s",
        holder.identity.user,
        holder.pid,
        holder.state.activity(),
        holder.transaction.unwrap_or_default().as_secs_f64(),
    )
}
