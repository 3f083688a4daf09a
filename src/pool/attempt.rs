//! Opening a server connection: until it is open, until nobody wants it any more, or until the server has refused
//! for good.

use std::{sync::Arc, task::Context, time::Instant};

use tokio::sync::MutexGuard;

use super::{Pool, lease::Server, quota::Share, retry::Backoff};
use crate::{
    fault::{Fault, SqlState, chain},
    server::{self, ConnectError, Connection},
};

/// One connection being opened; counted as connecting until it is opened or dropped.
pub(super) struct Attempt {
    pool: Arc<Pool>,
    /// The connection's part of the limits that pools share; the connection takes it along.
    shares: Option<[Share; 2]>,
    /// An old connection ends when this one is open.
    successor: bool,
    /// The last failure was the server's having no place for another connection.
    no_room: bool,
}

impl Attempt {
    pub(super) fn new(pool: Arc<Pool>, shares: [Share; 2]) -> Self {
        Self {
            pool,
            shares: Some(shares),
            successor: false,
            no_room: false,
        }
    }

    pub(super) fn for_succession(mut self) -> Self {
        self.successor = true;
        self
    }

    /// Begins.
    pub(super) fn spawn(self) {
        let tasks = self.pool.tasks.clone();
        tasks.spawn("connect", self.run());
    }

    async fn run(mut self) {
        let pool = self.pool.clone();
        let mut backoff = Backoff::default();
        let Some(_turn) = self.wait_after_refusal(&pool, &mut backoff).await else {
            return;
        };
        loop {
            let target = pool.plan().target.clone();
            let credential = pool.credential();
            match server::connect(&target, &credential).await {
                Ok(connection) => return self.succeeded(connection),
                // A client has logged in meanwhile, with a password that has changed.
                Err(error) if !error.is_transient() && pool.credential() != credential => {}
                Err(error) => {
                    let transient = error.is_transient();
                    self.failed(error);
                    if !transient || !self.wanted() {
                        // Nobody waits for it: `min_pool_size` is tried again after a pause.
                        return pool.postpone_minimum(Instant::now());
                    }
                    if pool.quotas.iter().any(|quota| quota.is_contended()) {
                        // Others may have a server that answers; the janitor tries again in turn.
                        return;
                    }
                }
            }
            pause(&pool, &mut backoff).await;
            if !self.wanted() {
                return;
            }
        }
    }

    /// After a refusal that time alone does not mend, clients that come back at once must not make the server check
    /// a wrong password as often as they like: one attempt at a time, after a pause, finds out for all who wait.
    /// `None` when nobody waits any more.
    async fn wait_after_refusal<'a>(
        &self,
        pool: &'a Pool,
        backoff: &mut Backoff,
    ) -> Option<Option<MutexGuard<'a, ()>>> {
        let refused = || pool.last_failure().is_some_and(|error| !error.is_transient());
        if !refused() {
            return Some(None);
        }
        let wanted = self.wanted();
        let turn = pool.caution.lock().await;
        if !refused() {
            return Some(None);
        }
        pause(pool, backoff).await;
        (!wanted || self.wanted()).then_some(Some(turn))
    }

    pub(super) fn succeeded(&mut self, mut connection: Connection) {
        let Some(shares) = self.shares.take() else {
            return;
        };
        let pool = &self.pool;
        pool.metrics.connects.inc();
        connection
            .span()
            .in_scope(|| tracing::debug!("server connection opened"));
        pool.last_failure.store(None);
        let notices = connection.take_notices();
        pool.welcome.learn(connection.parameters(), notices);
        let mut connection = Box::new(Server::new(connection, shares));
        // What is said from now on is the janitor's to hear; an end is found at the first use.
        let _ = connection.check_idle(&mut Context::from_waker(&pool.waker));
        let mut state = pool.lock();
        if self.successor {
            state.successor_arrived();
        }
        let placed = state.connected(connection);
        pool.metrics.show(state.counts());
        drop(state);
        pool.settle(placed, Instant::now());
        pool.scan_functions_if_due(Instant::now());
        if self.successor {
            pool.ring();
        }
    }

    fn wanted(&self) -> bool {
        self.pool.lock().wants_connecting()
    }

    fn failed(&mut self, error: ConnectError) {
        self.no_room = error.sqlstate() == SqlState::TOO_MANY_CONNECTIONS;
        let pool = &self.pool;
        pool.metrics.connect_failures.inc();
        let error = Arc::new(error);
        let previous = pool.last_failure.swap(Some(error.clone()));
        let transient = error.is_transient();
        // The first of a series is worth a line; the rest repeat it.
        if previous.is_none_or(|previous| previous.to_string() != error.to_string()) {
            tracing::warn!(
                db = %pool.key.database, user = %pool.key.user, transient,
                error = chain(&*error),
                "cannot open a server connection"
            );
        }
        if !transient {
            pool.refuse(&error);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.shares.is_some() {
            let mut state = self.pool.lock();
            state.connecting_failed();
            if self.successor {
                state.successor_failed(self.no_room);
            }
            self.pool.metrics.show(state.counts());
        }
    }
}

async fn pause(pool: &Pool, backoff: &mut Backoff) {
    let most = pool.plan().settings.server_login_retry;
    tokio::time::sleep(backoff.next(most)).await;
}
