//! Server connections and the clients that wait for them, one pool for each database, role name and kind of
//! server.
//!
//! It opens and keeps server connections; it never reads what clients say.

mod check;
mod error;
mod janitor;
mod lease;
mod metrics;
mod plan;
mod registry;
mod retry;
pub mod state;
mod succession;
mod welcome;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::oneshot;

use self::{
    check::Check,
    janitor::Bell,
    retry::Backoff,
    state::{Counts, Limits, Placed, State, Ticket},
    welcome::Welcome,
};
pub use self::{
    error::LeaseError,
    lease::{Lease, Leasing, Waiting},
    metrics::{Families, Metrics},
    plan::{Catalog, Plan},
    registry::Pools,
    welcome::StartupSettings,
};
use crate::{
    auth::{flow::Learned, server_login::ServerCredential},
    fault::{Fault, SqlState, chain},
    lifecycle::Tasks,
    server::{self, ConnectError, Connection, Home, state::CloseReason, state::Verdict},
    types::PoolKey,
};

/// After a refusal that time alone does not mend, `min_pool_size` is left alone for this long.
const MINIMUM_PAUSE: Duration = Duration::from_secs(5);

/// The pool's queues, locked.
type Guard<'a> = MutexGuard<'a, State<Box<Connection>, Reply>>;
type Reply = oneshot::Sender<Result<Lease, LeaseError>>;

/// One pool.
#[derive(Debug)]
pub struct Pool {
    key: PoolKey,
    state: Mutex<State<Box<Connection>, Reply>>,
    plan: ArcSwap<Plan>,
    learned: Mutex<Learned>,
    welcome: Welcome,
    last_failure: ArcSwapOption<ConnectError>,
    minimum_after: Mutex<Instant>,
    metrics: Metrics,
    bell: Arc<Bell>,
    waker: Waker,
    tasks: Tasks,
}

impl Pool {
    fn new(key: PoolKey, plan: Plan, metrics: Metrics, tasks: Tasks) -> Arc<Self> {
        let bell = Arc::new(Bell::default());
        let limits = Limits {
            size: plan.settings.size,
            min: plan.settings.min_size,
        };
        metrics
            .size
            .set(i64::try_from(limits.size.get()).unwrap_or(i64::MAX));
        let mut state = State::new(limits);
        state.set_round_robin(plan.settings.server_round_robin);
        let pool = Arc::new(Self {
            key,
            state: Mutex::new(state),
            plan: ArcSwap::from_pointee(plan),
            learned: Mutex::default(),
            welcome: Welcome::default(),
            last_failure: ArcSwapOption::empty(),
            minimum_after: Mutex::new(Instant::now()),
            metrics,
            waker: Waker::from(bell.clone()),
            bell: bell.clone(),
            tasks,
        });
        pool.tasks.spawn("janitor", bell.answer(Arc::downgrade(&pool)));
        pool
    }

    /// What the pool is for.
    pub fn key(&self) -> &PoolKey {
        &self.key
    }

    /// What it goes by.
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What stands where.
    pub fn counts(&self) -> Counts {
        self.lock().counts()
    }

    /// Remembers what a client's log-in has taught about the role's secret.
    pub fn learn(&self, learned: Learned) {
        if learned != Learned::Nothing {
            *self.learned.lock().unwrap_or_else(PoisonError::into_inner) = learned;
        }
    }

    /// Lends a connection to a client on `home`, or gives it a place in the queue.
    pub fn lease(self: &Arc<Self>, home: Home, now: Instant) -> Leasing {
        loop {
            let mut state = self.lock();
            let Some(mut connection) = state.check_out(|connection| connection.home() == home) else {
                return Leasing::Queued(self.queue_up(state, now));
            };
            if check::is_due(&connection, &self.plan.load().settings, now) {
                state.put_back(connection);
                return Leasing::Queued(self.queue_up(state, now));
            }
            self.metrics.show(state.counts());
            drop(state);
            match connection.check_idle(&mut Context::from_waker(Waker::noop())) {
                Ok(()) => return Leasing::Ready(Lease::new(connection, self.clone())),
                Err(reason) => self.discard(connection, reason),
            }
        }
    }

    fn queue_up(self: &Arc<Self>, mut state: Guard<'_>, since: Instant) -> Waiting {
        let (sender, reply) = oneshot::channel();
        let ticket = state.enqueue(since, sender);
        let retired = state.is_retired();
        let errands = self.errands(&mut state);
        self.metrics.show(state.counts());
        drop(state);
        if retired {
            self.retire();
        }
        self.run_errands(errands);
        self.bell.somebody_waits();
        Waiting {
            reply,
            ticket,
            since,
            pool: self.clone(),
        }
    }

    /// Begins what those who wait need: idle connections that must prove themselves first, then new ones.
    fn errands(&self, state: &mut Guard<'_>) -> Errands {
        Errands {
            checks: std::iter::from_fn(|| state.begin_check()).collect(),
            dial: state.begin_connecting(),
        }
    }

    fn run_errands(self: &Arc<Self>, errands: Errands) {
        for connection in errands.checks {
            self.tasks
                .spawn("check", Check::new(self.clone(), connection).run());
        }
        self.dial(errands.dial);
    }

    /// Takes a lent connection back, for the next client or for closing.
    fn take_back(self: &Arc<Self>, mut connection: Box<Connection>) {
        let plan = self.plan.load();
        let verdict = match connection.verdict() {
            Verdict::Reuse if !plan.target.is_same(connection.target()) => {
                Verdict::Close(CloseReason::Outdated)
            }
            verdict => verdict,
        };
        if let Verdict::Close(reason) = verdict {
            return self.discard(connection, reason);
        }
        // From here on the janitor hears what the connection says on its own.
        if let Err(reason) = connection.check_idle(&mut Context::from_waker(&self.waker)) {
            return self.discard(connection, reason);
        }
        let now = Instant::now();
        connection.note_idle(now);
        if succession::is_old(&connection, &plan.settings, now) {
            match self.take_back_old(connection, now) {
                Some(still_good) => connection = still_good,
                None => return,
            }
        }
        let mut state = self.lock();
        let placed = state.check_in(connection);
        self.metrics.show(state.counts());
        drop(state);
        self.settle(placed);
    }

    fn settle(self: &Arc<Self>, placed: Placed<Box<Connection>, Reply>) {
        match placed {
            Placed::Idle => {}
            Placed::Surplus(connection) => connection.close(),
            // Whoever no longer waits drops the lease, which brings it back here.
            Placed::HandedOver(reply, connection) => {
                drop(reply.send(Ok(Lease::new(connection, self.clone()))));
            }
        }
    }

    /// Closes a lent connection, and opens another if somebody waits for it.
    fn discard(self: &Arc<Self>, connection: Box<Connection>, reason: CloseReason) {
        connection
            .span()
            .in_scope(|| tracing::debug!(?reason, "closing server connection"));
        connection.close();
        let mut state = self.lock();
        state.lost();
        let errands = self.errands(&mut state);
        self.metrics.show(state.counts());
        drop(state);
        self.run_errands(errands);
    }

    fn withdraw(&self, ticket: Ticket) {
        let mut state = self.lock();
        if state.withdraw(ticket).is_some() {
            self.metrics.show(state.counts());
        }
    }

    /// Opens connections that the state has counted as connecting.
    fn dial(self: &Arc<Self>, count: usize) {
        for _ in 0..count {
            self.attempt(false);
        }
    }

    /// Opens the successor of an old connection, which the state has counted as connecting.
    fn dial_successor(self: &Arc<Self>) {
        self.attempt(true);
    }

    fn attempt(self: &Arc<Self>, successor: bool) {
        let attempt = Attempt {
            pool: self.clone(),
            open: true,
            successor,
            no_room: false,
        };
        self.tasks.spawn("connect", attempt.run());
    }

    fn credential(&self) -> ServerCredential {
        ServerCredential {
            secret: self.plan.load().secret.clone(),
            learned: self
                .learned
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    /// Tells every waiter that waiting does not help.
    fn refuse(&self, error: &Arc<ConnectError>) {
        let waiters = self.lock().dismiss();
        self.postpone_minimum(Instant::now());
        for reply in waiters {
            let _ = reply.send(Err(LeaseError::Connect(error.clone())));
        }
    }

    fn last_failure(&self) -> Option<Arc<ConnectError>> {
        self.last_failure.load_full()
    }

    fn postpone_minimum(&self, now: Instant) {
        *self.minimum_after.lock().unwrap_or_else(PoisonError::into_inner) = now + MINIMUM_PAUSE;
    }

    fn minimum_is_due(&self, now: Instant) -> bool {
        *self.minimum_after.lock().unwrap_or_else(PoisonError::into_inner) <= now
    }

    /// Goes by a new plan. Connections for another target are closed as they become idle.
    fn replan(&self, mut plan: Plan) {
        let old = self.plan();
        if old.target.is_same(&plan.target) {
            if old.target.opens_like(&plan.target) {
                plan.target = old.target.clone();
            }
        } else {
            self.welcome.forget();
        }
        let limits = Limits {
            size: plan.settings.size,
            min: plan.settings.min_size,
        };
        self.metrics
            .size
            .set(i64::try_from(limits.size.get()).unwrap_or(i64::MAX));
        let round_robin = plan.settings.server_round_robin;
        self.plan.store(Arc::new(plan));
        let mut state = self.lock();
        state.resize(limits);
        state.set_round_robin(round_robin);
        drop(state);
        self.waker.wake_by_ref();
    }

    /// Ends the pool: who waits is told, idle connections are closed, busy ones as they come back. Again for
    /// a client that had the pool in hand and asks later.
    fn retire(&self) {
        let mut state = self.lock();
        state.retire();
        let waiters = state.dismiss();
        self.metrics.show(state.counts());
        drop(state);
        for reply in waiters {
            let _ = reply.send(Err(LeaseError::Retired));
        }
        self.waker.wake_by_ref();
    }

    /// Ends the pool and closes its idle connections now.
    fn close(&self) {
        self.retire();
        let idle = self.lock().sweep(|_, _| Some(()));
        for (connection, ()) in idle {
            connection.close();
        }
        self.metrics.show(self.counts());
    }

    fn lock(&self) -> Guard<'_> {
        // No operation of the state leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is begun under the lock and done without it.
#[allow(
    clippy::vec_box,
    reason = "the queues hold boxes: moving one is moving a pointer"
)]
struct Errands {
    /// Counted as connecting, as those to dial are.
    checks: Vec<Box<Connection>>,
    dial: usize,
}

/// One connection being opened; counted as connecting until it is opened or dropped.
struct Attempt {
    pool: Arc<Pool>,
    open: bool,
    /// An old connection ends when this one is open.
    successor: bool,
    /// The last failure was the server's having no place for another connection.
    no_room: bool,
}

impl Attempt {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let target = self.pool.plan().target.clone();
            match server::connect(&target, &self.pool.credential()).await {
                Ok(connection) => return self.succeeded(connection),
                Err(error) => {
                    let transient = error.is_transient();
                    self.failed(error);
                    if !transient || !self.wanted() {
                        // Nobody waits for it: `min_pool_size` is tried again after a pause.
                        self.pool.postpone_minimum(Instant::now());
                        return;
                    }
                }
            }
            let most = self.pool.plan().settings.server_login_retry;
            tokio::time::sleep(backoff.next(most)).await;
            if !self.wanted() {
                return;
            }
        }
    }

    fn succeeded(&mut self, connection: Connection) {
        self.open = false;
        let pool = &self.pool;
        pool.metrics.connects.inc();
        connection
            .span()
            .in_scope(|| tracing::debug!("server connection opened"));
        pool.last_failure.store(None);
        pool.welcome.learn(connection.parameters());
        let mut connection = Box::new(connection);
        // What is said from now on is the janitor's to hear; an end is found at the first use.
        let _ = connection.check_idle(&mut Context::from_waker(&pool.waker));
        let mut state = pool.lock();
        if self.successor {
            state.successor_arrived();
        }
        let placed = state.connected(connection);
        pool.metrics.show(state.counts());
        drop(state);
        pool.settle(placed);
        if self.successor {
            pool.waker.wake_by_ref();
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
        if self.open {
            let mut state = self.pool.lock();
            state.connecting_failed();
            if self.successor {
                state.successor_failed(self.no_room);
            }
            self.pool.metrics.show(state.counts());
        }
    }
}
