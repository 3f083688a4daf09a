//! Proving that an idle server connection still has a server behind it, before a client's request is given to it
//! (PgBouncer's `server_check_delay`). An end that the peer has told is found without this; a peer that vanished without
//! a word is found by asking.
//!
//! A connection that is asked counts as connecting: it is on its way to whoever waits.

use std::{
    sync::Arc,
    task::Context,
    time::{Duration, Instant},
};

use super::{Plan, Pool, lease::Server};
use crate::{
    config::PoolSettings,
    routing::Standing,
    server::{self, Connection, Duty, Home, SettleError, state::Verdict},
    topology::Observation,
    types::Role,
};

/// A server that lives answers at once; one that needs longer than this is not worth the client's wait.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether a connection has been idle for so long that it must prove itself.
pub(super) fn is_due(connection: &Connection, settings: &PoolSettings, now: Instant) -> bool {
    settings.server_check_query.is_some()
        && now.saturating_duration_since(connection.idle_since()) >= settings.server_check_delay
}

/// One connection being asked; counted as connecting until it is placed or dropped.
pub(super) struct Check {
    pool: Arc<Pool>,
    connection: Option<Box<Server>>,
}

/// How a connection failed to prove itself.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Settle(#[from] SettleError),
    #[error("not fit for another client")]
    Unfit,
    #[error("its server is not what it was")]
    Demoted,
}

impl Check {
    pub(super) fn new(pool: Arc<Pool>, connection: Box<Server>) -> Self {
        connection.vitals().set_duty(Duty::Checked);
        Self {
            pool,
            connection: Some(connection),
        }
    }

    pub(super) async fn run(mut self) {
        let plan = self.pool.plan();
        let query = plan.settings.server_check_query.as_deref().unwrap_or_default();
        let limit = plan.settings.server_connect_timeout.min(LIMIT);
        let Some(connection) = self.connection.as_deref_mut() else {
            return;
        };
        let outcome = match connection.rehome(Home::Control) {
            Ok(()) => match tokio::time::timeout(limit, prove(connection, &plan, query)).await {
                Ok(Ok(())) if connection.verdict() == Verdict::Reuse => Ok(()),
                Ok(Ok(())) => Err(Failure::Unfit),
                Ok(Err(failure)) => Err(failure),
                Err(_) => Err(Failure::Silent(limit)),
            },
            Err(error) => Err(SettleError::from(error).into()),
        };
        match outcome {
            Ok(()) => self.passed(),
            Err(failure) => self.failed(&failure),
        }
    }

    fn passed(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let pool = &self.pool;
        let held = match Pool::standing(&pool.plan(), &mut connection) {
            Standing::Close => {
                self.connection = Some(connection);
                return self.failed(&Failure::Demoted);
            }
            standing => standing != Standing::Good,
        };
        connection.note_idle(Instant::now());
        // What is said from now on is the janitor's to hear; an end is found at the first use.
        let _ = connection.check_idle(&mut Context::from_waker(&pool.waker));
        let mut state = pool.lock();
        state.end_check();
        let placed = if held {
            state.rest(connection)
        } else {
            state.connected(connection)
        };
        pool.metrics.show(state.counts());
        drop(state);
        pool.settle(placed, Instant::now());
    }

    fn failed(&mut self, failure: &Failure) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        connection.span().in_scope(
            || tracing::info!(error = %failure, "a server connection does not prove itself, closing it"),
        );
        let pool = &self.pool;
        let (settings, now) = (&pool.plan().settings, Instant::now());
        let mut state = pool.lock();
        state.end_check();
        state.connecting_failed();
        // What made this one silent has most likely hit the others too, and each would cost a client the same wait.
        let silent = match failure {
            Failure::Silent(_) => state.sweep(|other, _| {
                let same = other.endpoint() == connection.endpoint();
                (same && is_due(other, settings, now)).then_some(())
            }),
            _ => Vec::new(),
        };
        let errands = pool.errands(&mut state, now);
        pool.metrics.show(state.counts());
        drop(state);
        connection.close();
        for (connection, ()) in silent {
            connection.close();
        }
        pool.run_errands(errands);
    }
}

/// Has the server show that it is there, and that it is what it was if there is reason to doubt that.
async fn prove(connection: &mut Server, plan: &Plan, query: &str) -> Result<(), Failure> {
    let target = plan.target.clone();
    let topology = target.cluster.topology();
    let role = target.wish.role;
    let is_outdated = role != Role::Any && connection.generation != topology.generation;
    if !connection.doubts_role() && !is_outdated {
        return Ok(connection.prove(query).await?);
    }
    let endpoint = connection.endpoint().clone();
    let seen = connection.prove_role().await?;
    if role == Role::Any {
        // It is as good as before, and may be the new primary.
        let opened = Observation::Opened { endpoint, seen };
        target.cluster.observe(&opened, Instant::now());
    } else if !server::suits(target.role(&topology), seen) {
        let observation = match role {
            Role::ReadWrite => Observation::Demoted { endpoint },
            _ => Observation::Opened { endpoint, seen },
        };
        target.cluster.observe(&observation, Instant::now());
        return Err(Failure::Demoted);
    }
    connection.generation = topology.generation;
    Ok(())
}

impl Drop for Check {
    fn drop(&mut self) {
        if self.connection.is_some() {
            let mut state = self.pool.lock();
            state.end_check();
            state.connecting_failed();
            self.pool.metrics.show(state.counts());
        }
    }
}
