//! Leaving without taking anyone's work along.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::{
    config::Shutdown,
    session::{Order, Table},
};

/// Clients are asked to go this far apart, so that they do not all come back to the others at once.
const SPACING: Duration = Duration::from_millis(5);
/// How long the last clients may take to be told that the deadline has passed.
const LAST_WORDS: Duration = Duration::from_secs(6);
/// How often it is looked whether everybody has left.
const LOOK: Duration = Duration::from_millis(10);

/// When nobody is accepted any more: each client ends with 57P01 when it is between
/// transactions, and at the deadline all the same.
pub(super) async fn see_off(shutdown: Shutdown, table: &Arc<Table>) {
    let start = Instant::now();
    let deadline = start + shutdown.drain_timeout;
    let clients = table.controls();
    let window = shutdown.drain_timeout / 2;
    let spacing = SPACING.min(window / u32::try_from(clients.len().max(1)).unwrap_or(u32::MAX));
    for (control, index) in clients.iter().zip(0u32..) {
        sleep_until(start + spacing * index).await;
        control.give(Order::Drain);
    }
    // Whoever logged in meanwhile, or still does.
    table.drain();
    if timeout_at(deadline, all_gone(table)).await.is_ok() {
        return;
    }
    tracing::warn!(
        clients = table.len(),
        "drain_timeout has passed, ending the remaining clients"
    );
    table.tell_all(|| Order::Kill);
    let _ = timeout_at(Instant::now() + LAST_WORDS, all_gone(table)).await;
}

async fn all_gone(table: &Table) {
    while !table.is_empty() {
        sleep(LOOK).await;
    }
}
