//! Opening a server connection: until it is open, until nobody wants it any more, or until the server has refused
//! for good.

use std::{
    sync::Arc,
    task::Context,
    time::{Duration, Instant},
};

use tokio::sync::MutexGuard;

use super::{
    Pool, check::Check, lease::Server, quota::Shares, register::Registered, retry::Backoff, standing,
};
use crate::{
    auth::server_login::ServerCredential,
    fault::{Fault, SqlState, chain},
    routing::{Gate, Standing},
    server::{self, ConnectError, Connection, Target, state::CloseReason},
    topology::{Observation, Scout},
    types::Role,
};

/// The least time between two looks for a primary, whatever happens meanwhile.
const LEAST_PAUSE: Duration = Duration::from_millis(20);

/// What became of one attempt.
struct Look<'a> {
    /// Nothing when the servers are to be tried again at once, as the cluster has changed.
    found: Result<Option<Connection>, ConnectError>,
    /// What it was tried with.
    credential: ServerCredential,
    _turn: Option<Scout<'a>>,
}

/// One connection being opened; counted as connecting until it is opened or dropped.
pub(super) struct Attempt {
    pool: Arc<Pool>,
    /// The connection's part of the limits that pools share; the connection takes it along.
    shares: Option<Shares>,
    /// An old connection ends when this one is open.
    successor: bool,
    /// Nobody waits for it.
    spare: bool,
    /// The last failure was the server's having no place for another connection.
    no_room: bool,
    _registered: Registered,
}

impl Attempt {
    pub(super) fn new(pool: Arc<Pool>, shares: Shares) -> Self {
        Self {
            _registered: pool.register.enter(&pool.key, None),
            pool,
            shares: Some(shares),
            successor: false,
            spare: false,
            no_room: false,
        }
    }

    pub(super) fn for_succession(mut self) -> Self {
        self.successor = true;
        self.unasked()
    }

    pub(super) fn unasked(mut self) -> Self {
        self.spare = true;
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
        while !pool.lock().is_retired() {
            let target = pool.plan().target.clone();
            let looked = tokio::select! {
                biased;
                looked = self.look(&target) => looked,
                // Whoever waits does not wait for that server any more.
                () = pool.replanned(&target) => continue,
            };
            // The turn is given back after the pause: the next one to look waits for as long, whichever pool it is for.
            let Some(Look {
                found,
                credential,
                _turn,
            }) = looked
            else {
                return self.give_up();
            };
            match found {
                Ok(Some(connection)) => match self.succeeded(connection) {
                    None => return,
                    // It is not the one to use: only looking at it was of use.
                    Some(connection) => close(connection, CloseReason::Unrouted),
                },
                Ok(None) if self.spare || self.wanted() => continue,
                Ok(None) => return,
                // A client has logged in meanwhile, with a password that has changed.
                Err(error) if !error.is_transient() && pool.credential() != credential => {}
                Err(error) => {
                    if !self.goes_on_after(error) {
                        return;
                    }
                }
            }
            pause(&pool, &target, &mut backoff).await;
            if !self.wanted() {
                return self.give_up();
            }
        }
    }

    /// Notes a failure, and says whether it is tried again.
    fn goes_on_after(&mut self, error: ConnectError) -> bool {
        let transient = error.is_transient();
        self.failed(error);
        if !transient || !self.wanted() {
            // Nobody waits for it: `min_pool_size` is tried again after a pause.
            self.pool.postpone_minimum(Instant::now());
            return false;
        }
        // Others may have a server that answers; the janitor tries again in turn.
        !self.pool.quotas.iter().any(|quota| quota.is_pressed())
    }

    /// Tries the servers once, when it is this one's turn. `None` when nobody waits for it any more.
    async fn look<'a>(&self, target: &'a Arc<Target>) -> Option<Look<'a>> {
        let turn = self.take_turn(target).await?;
        let (begun, credential) = (Instant::now(), self.pool.credential());
        let found = server::search(target, &credential).await;
        if turn.is_some() && !matches!(found, Ok(None)) {
            target.cluster.note_search(begun);
            // Whoever has waited for that has waited long enough, if the primary is away for long.
            self.pool.ring();
        }
        Some(Look {
            found,
            credential,
            _turn: turn,
        })
    }

    /// Leaves `min_pool_size` alone for a while, if that is what it was for.
    fn give_up(&self) {
        if self.spare {
            self.pool.postpone_minimum(Instant::now());
        }
    }

    /// Where the primary is not known, one connection at a time is opened to find it. `None` when nobody waits for this
    /// one any more.
    async fn take_turn<'a>(&self, target: &'a Target) -> Option<Option<Scout<'a>>> {
        let mut changes = target.cluster.changes();
        loop {
            match target.wish.gate(&target.cluster.topology()) {
                Gate::Open => return Some(None),
                Gate::Limping(_) | Gate::Held(_) => {}
                // Whoever asks is refused, and has somebody look.
                Gate::Refused(_) => return target.cluster.try_scout().map(Some),
            }
            tokio::select! {
                biased;
                turn = target.cluster.scout() => return (self.spare || self.wanted()).then_some(Some(turn)),
                changed = changes.changed() => changed.ok()?,
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
        pause(pool, &pool.plan().target, backoff).await;
        (!wanted || self.wanted()).then_some(Some(turn))
    }

    /// Places the connection. Gives it back if it is to a server that is not used.
    pub(super) fn succeeded(&mut self, mut connection: Connection) -> Option<Connection> {
        let plan = self.pool.plan();
        let target = &plan.target;
        let topology = target.cluster.topology();
        let standing = target
            .wish
            .standing(&topology, connection.endpoint(), connection.generation());
        if standing == Standing::Close {
            return Some(connection);
        }
        let shares = self.shares.take()?;
        let pool = &self.pool;
        pool.metrics.note_opened(connection.opening());
        connection
            .span()
            .in_scope(|| tracing::debug!("server connection opened"));
        pool.last_failure.store(None);
        let notices = connection.take_notices();
        pool.welcome.learn(connection.parameters(), notices);
        let mut connection = Box::new(Server::new(connection, shares, pool));
        if pool.is_beyond_quotas() {
            self.outgrown(*connection);
            return None;
        }
        // What is said from now on is the janitor's to hear; an end is found at the first use.
        let _ = connection.check_idle(&mut Context::from_waker(&pool.waker));
        let mut state = pool.lock();
        if self.successor {
            state.successor_arrived();
        }
        if standing == Standing::Prove {
            state.check_opened();
            drop(state);
            pool.tasks
                .spawn("check", Check::new(pool.clone(), connection).run());
            return None;
        }
        let placed = match standing {
            Standing::Keep => state.rest(connection),
            _ => state.connected(connection),
        };
        pool.metrics.show(state.counts());
        drop(state);
        pool.settle(placed, Instant::now());
        pool.scan_functions_if_due(Instant::now());
        if self.successor || standing == Standing::Keep {
            pool.ring();
        }
        None
    }

    /// The connection is there, and not to be any more.
    fn outgrown(&self, connection: Server) {
        let pool = &self.pool;
        let mut state = pool.lock();
        state.connecting_failed();
        if self.successor {
            state.successor_failed(true);
        }
        pool.metrics.show(state.counts());
        drop(state);
        standing::close(connection, CloseReason::Surplus);
        // Whoever waits for it stands in the queue for room.
        pool.ring();
    }

    fn wanted(&self) -> bool {
        self.pool.lock().wants_connecting()
    }

    fn failed(&mut self, error: ConnectError) {
        self.no_room = error.sqlstate() == SqlState::TOO_MANY_CONNECTIONS;
        let pool = &self.pool;
        self.tell_of_standby(&error);
        pool.metrics.connect_failures.inc();
        let error = Arc::new(error);
        let previous = pool.last_failure.swap(Some(error.clone()));
        let transient = error.is_transient();
        // The first of a series is worth a line; the rest repeat it.
        if previous.is_none_or(|previous| previous.to_string() != error.to_string()) {
            tracing::warn!(
                db = %pool.key.database, user = %pool.key.user, transient,
                error = chain(&*error),
                hint = error.hint().as_deref(),
                "cannot open a server connection"
            );
        }
        if !transient {
            pool.refuse(&error);
        }
    }

    /// A standby where writers want a primary is news to a cluster that nobody else tells about.
    fn tell_of_standby(&self, error: &ConnectError) {
        let target = self.pool.plan().target.clone();
        if let ConnectError::WrongRole { endpoint, .. } = error
            && target.wish.role == Role::ReadWrite
        {
            let endpoint = endpoint.clone();
            target
                .cluster
                .observe(&Observation::Demoted { endpoint }, Instant::now());
        }
    }
}

fn close(connection: Connection, reason: CloseReason) {
    connection
        .span()
        .in_scope(|| tracing::debug!(?reason, "closing server connection"));
    connection.close();
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

/// Waits, but not when it has been said where the primary is, or that connections are to be opened elsewhere.
async fn pause(pool: &Pool, target: &Target, backoff: &mut Backoff) {
    let cluster = &target.cluster;
    let (mut changes, before) = (cluster.changes(), cluster.topology());
    let pause = backoff.next(pool.plan().settings.server_login_retry);
    tokio::time::sleep(LEAST_PAUSE.min(pause)).await;
    let appointed = async {
        while changes.changed().await.is_ok() {
            if cluster.topology().primary != before.primary {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = tokio::time::sleep(pause.saturating_sub(LEAST_PAUSE)) => {}
        () = appointed => {}
        () = pool.replanned(target) => {}
    }
}
