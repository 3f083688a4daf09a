//! Who has a transaction open for long, who waits for what, and what is kept with its client.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::document::{Queue, Session, Waiter};
use crate::{
    pool::Pool,
    server::pins::Pins,
    session::{ClientView, Table},
    types::{PoolKey, Role},
};

/// So many of each kind are shown.
const SHOWN: usize = 10;
/// A transaction that is not open for so long is no news.
const LONG: Duration = Duration::from_secs(1);
/// The same of a client that waits; less is not measured.
const NOTICEABLE: Duration = Duration::from_millis(100);

/// What there is to say of sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) transactions: Vec<Session>,
    pub(super) queues: Vec<Queue>,
    /// Of each session that is pinned.
    pub(super) pins: Vec<Pins>,
}

pub(super) fn show(table: &Table, pools: &[Arc<Pool>]) -> Sessions {
    let open = table.transactions();
    Sessions {
        transactions: open.iter().take(SHOWN).filter_map(transaction).collect(),
        queues: queues(&table.waiters(), pools, &open),
        pins: table.pins(),
    }
}

/// Those who wait, by the pool; who has waited longest comes first, here as there.
fn queues(waiting: &[ClientView], pools: &[Arc<Pool>], open: &[ClientView]) -> Vec<Queue> {
    let mut queues: Vec<Queue> = Vec::new();
    let mut places: HashMap<&PoolKey, usize> = HashMap::new();
    for client in waiting.iter().filter(|client| client.since >= NOTICEABLE) {
        let Some(key) = &client.pool else { continue };
        let place = *places.entry(key).or_insert(queues.len());
        if place == queues.len() {
            // What the others there wait for is the same.
            queues.push(queue(key, cause(key, pools, open)));
        }
        let Some(queue) = queues.get_mut(place) else {
            continue;
        };
        queue.waiting += 1;
        if queue.clients.len() < SHOWN {
            queue.clients.push(waiter(client));
        }
    }
    queues.truncate(SHOWN);
    queues
}

fn queue(key: &PoolKey, waits_for: String) -> Queue {
    Queue {
        database: key.database.to_string(),
        user: key.user.to_string(),
        role: key.role.as_str().to_owned(),
        waiting: 0,
        waits_for,
        clients: Vec::new(),
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

fn waiter(client: &ClientView) -> Waiter {
    Waiter {
        pid: client.pid,
        database: client.identity.database.to_string(),
        user: client.identity.user.to_string(),
        application: client.application_name.clone(),
        address: client.identity.peer.to_string(),
        seconds: client.since.as_secs_f64(),
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
    let (size, active) = (plan.settings.size.get(), counts.active);
    let all = match active {
        active if active >= size => {
            format!("one of the pool's {size} server connections, which are all in use")
        }
        _ => format!("one of the pool's {size} server connections, of which {active} are in use"),
    };
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
