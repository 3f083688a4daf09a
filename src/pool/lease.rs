//! A server connection on loan, and the wait for one. Dropping either, at any await point, settles the
//! pool's account.

use std::{
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Metrics, Pool, error::LeaseError, state::Ticket};
use crate::{
    lifecycle::Tasks,
    server::{Connection, Home, state::CloseReason},
    types::PoolMode,
};

/// How long `server_reset_query` may take.
const RESET_TIMEOUT: Duration = Duration::from_secs(30);

/// A server connection that belongs to one client until it is dropped. What happens to it then is the
/// verdict of [`Connection::verdict`].
#[derive(Debug)]
pub struct Lease {
    /// Absent only while it is being dropped.
    connection: Option<Box<Connection>>,
    pool: Arc<Pool>,
}

impl Lease {
    pub(super) fn new(connection: Box<Connection>, pool: Arc<Pool>) -> Self {
        Self {
            connection: Some(connection),
            pool,
        }
    }

    /// What the pool counts.
    pub fn metrics(&self) -> &Metrics {
        self.pool.metrics()
    }

    /// The owner of what has to be done for the connection after its client is gone.
    pub fn tasks(&self) -> &Tasks {
        &self.pool.tasks
    }

    /// Gives the connection back to a pool of this mode.
    pub fn release(self, mode: PoolMode) {
        if mode == PoolMode::Session || self.pool.plan.load().settings.server_reset_query_always {
            self.reset_and_release();
        }
    }

    /// Settings that the pooler knows of are set back, `server_reset_query` cleans the rest, and only if both succeed
    /// is the connection used again.
    fn reset_and_release(mut self) {
        let pool = self.pool.clone();
        let query = pool.plan().settings.server_reset_query.clone();
        if query.is_empty() || !self.ledger().is_idle() {
            return;
        }
        pool.tasks.spawn("reset", async move {
            if self.rehome(Home::Control).is_err() {
                return;
            }
            let reset = tokio::time::timeout(RESET_TIMEOUT, self.reset(&query));
            let failure = match reset.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "timeout".to_owned(),
            };
            self.span().in_scope(|| {
                tracing::warn!(error = failure, %query, "server_reset_query failed, closing the server connection");
            });
            self.mark_broken(CloseReason::ResetFailed);
        });
    }
}

impl Deref for Lease {
    type Target = Connection;

    #[allow(clippy::expect_used, reason = "the option is emptied by drop alone")]
    fn deref(&self) -> &Connection {
        self.connection
            .as_deref()
            .expect("a lease holds its connection until it is dropped")
    }
}

impl DerefMut for Lease {
    #[allow(clippy::expect_used, reason = "the option is emptied by drop alone")]
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
            .as_deref_mut()
            .expect("a lease holds its connection until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.take_back(connection);
        }
    }
}

/// What [`Pool::lease`] has for a client.
#[derive(Debug)]
pub enum Leasing {
    /// A connection.
    Ready(Lease),
    /// A place in the queue.
    Queued(Waiting),
}

/// A place in a pool's queue; a future that ends with a connection. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Waiting {
    pub(super) reply: oneshot::Receiver<Result<Lease, LeaseError>>,
    pub(super) ticket: Ticket,
    pub(super) since: Instant,
    pub(super) pool: Arc<Pool>,
}

impl Waiting {
    /// Since when.
    pub fn since(&self) -> Instant {
        self.since
    }
}

impl Future for Waiting {
    type Output = Result<Lease, LeaseError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.reply)
            .poll(cx)
            .map(|reply| reply.unwrap_or(Err(LeaseError::Retired)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Whoever was served is no longer in the queue; asking is cheap only when one knows that.
        if !self.reply.is_terminated() {
            self.pool.withdraw(self.ticket);
        }
    }
}
