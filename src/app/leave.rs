//! The ways in which the console's SHUTDOWN ends the process.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::serve::Reception;
use crate::session::{ClientState, Order};

/// How often it is looked whether it can end.
const LOOK: Duration = Duration::from_millis(20);
/// How long clients may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Waits until no server connection is in use; who waits for one is sent away, and nobody gets another (PgBouncer's
/// `SHUTDOWN WAIT_FOR_SERVERS`).
pub(super) async fn wait_for_servers(reception: &Arc<Reception>) {
    // Somebody may have halted it already, which comes to the same.
    let _ = reception.pools.pause(None);
    while !reception.pools.are_empty(None) {
        reception
            .table
            .kill(|client| client.state == ClientState::Waiting);
        sleep(LOOK).await;
    }
    reception.table.tell_all(|| Order::Kill);
    let deadline = Instant::now() + LAST_WORDS;
    let _ = timeout_at(deadline, wait_for_clients(reception)).await;
}

/// Waits until all clients have left, but for the console's (PgBouncer's `SHUTDOWN WAIT_FOR_CLIENTS`).
pub(super) async fn wait_for_clients(reception: &Reception) {
    while reception.table.len() > reception.table.visitors() {
        sleep(LOOK).await;
    }
}
