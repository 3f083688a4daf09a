//! Server connections and the clients that wait for them, one pool for each database, role name and kind of
//! server.
//!
//! It opens and keeps server connections; it never reads what clients say.

mod apart;
mod attempt;
pub mod auth_query;
mod check;
mod dial;
mod error;
mod farewell;
mod functions;
#[cfg(any(fuzzing, test))]
mod fuzzing;
mod halt;
mod janitor;
mod lease;
mod metrics;
mod plan;
mod quota;
mod register;
mod registry;
mod retry;
mod seat;
mod slow;
mod standing;
pub mod state;
mod succession;
mod sums;
mod taught;
mod totals;
mod traced;
mod welcome;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

pub use self::{
    apart::Apart,
    error::{LeaseError, LimitReached},
    halt::{HaltError, Halted},
    lease::{Lease, Leasing, Waiting},
    metrics::{Families, Metrics},
    plan::{Catalog, Plan},
    quota::{Limit, Scope},
    register::ServerView,
    registry::Pools,
    seat::{Begun, Granted, Guest, Request, Sent},
    sums::Sums,
    totals::Totals,
    welcome::{Greeting, StartupSettings},
};
use self::{
    check::Check,
    functions::Functions,
    halt::Renewal,
    janitor::Bell,
    lease::Server,
    quota::Quotas,
    register::{Register, Registered},
    seat::Seat,
    slow::SlowAfter,
    standing::{Held, close},
    state::{Counts, Limits, Placed, State, Ticket},
    sums::Tally,
    taught::Taught,
    welcome::Welcome,
};
use crate::{
    auth::server_login::ServerCredential,
    config::PoolSettings,
    lifecycle::Tasks,
    routing::Standing,
    server::{
        ConnectError, Connection, Home, Keeps, Target, state::CloseReason, state::Verdict,
        statements::Interner,
    },
    traces::Tracer,
    types::{PoolKey, Role},
};

/// After a refusal that time alone does not mend, `min_pool_size` is left alone for this long.
const MINIMUM_PAUSE: Duration = Duration::from_secs(5);

/// The pool's queues, locked.
type Guard<'a> = MutexGuard<'a, State<Box<Server>, Arc<Seat>>>;

/// What is begun under the lock and done without it.
#[allow(
    clippy::vec_box,
    reason = "the queues hold boxes: moving one is moving a pointer"
)]
struct Errands {
    /// Counted as connecting, as those to dial are.
    checks: Vec<Box<Server>>,
    dial: usize,
    /// Their servers are not used any more.
    unrouted: Vec<Box<Server>>,
}

/// What every pool has of the process.
#[derive(Debug, Clone)]
struct Commons {
    register: Arc<Register>,
    statements: Arc<Interner>,
    tracer: Arc<Tracer>,
    tasks: Tasks,
}

/// One pool.
#[derive(Debug)]
pub struct Pool {
    key: PoolKey,
    state: Mutex<State<Box<Server>, Arc<Seat>>>,
    plan: ArcSwap<Plan>,
    taught: Mutex<Taught>,
    welcome: Welcome,
    last_failure: ArcSwapOption<ConnectError>,
    /// Taken by those who ask a server that has refused for good, one after the other.
    caution: tokio::sync::Mutex<()>,
    minimum_after: Mutex<Instant>,
    /// Tells whoever opens a connection that there is another plan, or none any more.
    replanned: watch::Sender<()>,
    metrics: Arc<Metrics>,
    bell: Arc<Bell>,
    waker: Waker,
    quotas: Quotas,
    register: Arc<Register>,
    statements: Arc<Interner>,
    functions: Functions,
    held: Held,
    slow_after: SlowAfter,
    tracer: Arc<Tracer>,
    renewal: Renewal,
    tally: Tally,
    tasks: Tasks,
}

/// The limits of a pool's own.
fn limits(settings: &PoolSettings) -> Limits {
    Limits {
        size: settings.size,
        min: settings.min_size,
        reserve: settings.reserve_size,
        reserve_after: settings.reserve_timeout,
    }
}

impl Pool {
    /// A pool that shares the limits of its database, of its user and of the process.
    fn new(key: PoolKey, plan: Plan, metrics: Arc<Metrics>, quotas: Quotas, commons: Commons) -> Arc<Self> {
        let Commons {
            register,
            statements,
            tracer,
            tasks,
        } = commons;
        let bell = Arc::new(Bell::default());
        let limits = limits(&plan.settings);
        metrics.show_limits(limits);
        let pool = Arc::new(Self {
            key,
            slow_after: SlowAfter::new(plan.settings.log_min_duration_statement),
            state: Mutex::new(State::new(limits)),
            plan: ArcSwap::from_pointee(plan),
            taught: Mutex::default(),
            welcome: Welcome::default(),
            last_failure: ArcSwapOption::empty(),
            caution: tokio::sync::Mutex::default(),
            minimum_after: Mutex::new(Instant::now()),
            replanned: watch::Sender::default(),
            metrics,
            waker: Waker::from(bell.clone()),
            bell: bell.clone(),
            quotas,
            register,
            statements,
            functions: Functions::new(),
            held: Held::default(),
            tracer,
            renewal: Renewal::default(),
            tally: Tally::default(),
            tasks,
        });
        for quota in &pool.quotas {
            quota.join(&pool);
        }
        pool.limit_quotas(&pool.plan().settings);
        let stop = pool.tasks.stop_token();
        let janitor = bell.answer(Arc::downgrade(&pool), stop);
        pool.tasks.spawn("janitor", janitor);
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

    /// `max_prepared_statements`
    pub fn max_prepared_statements(&self) -> usize {
        self.plan.load().settings.max_prepared_statements
    }

    /// The owner of what is done for its clients in the background.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The prepared statements of all pools.
    pub fn statements(&self) -> &Arc<Interner> {
        &self.statements
    }

    /// What stands where.
    pub fn counts(&self) -> Counts {
        self.lock().counts()
    }

    /// For how long the client that has waited longest has waited.
    pub fn longest_wait(&self, now: Instant) -> Option<Duration> {
        let since = self.lock().waiting_since()?;
        Some(now.saturating_duration_since(since))
    }

    /// Enters a connection that was opened.
    fn register(&self, connection: &Connection) -> Registered {
        self.register.enter(&self.key, Some(connection.vitals().clone()))
    }

    /// Remembers what a client's log-in has taught about the role's secret, and the secret if it was looked up; the log-in
    /// went by what was known at `since`.
    pub fn learn(&self, news: ServerCredential, since: Instant) {
        self.taught().note(news, since);
    }

    fn taught(&self) -> MutexGuard<'_, Taught> {
        self.taught.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends a connection to a client on `home`, or gives it a place in the queue, with the request that may
    /// be sent for it when its turn has come.
    pub fn lease(
        self: &Arc<Self>,
        home: Home,
        now: Instant,
        request: impl FnOnce() -> Option<Request>,
    ) -> Leasing {
        loop {
            let mut state = self.lock();
            let plan = self.plan.load();
            let found = match plan.target.wish.role {
                Role::ReadWrite => state.check_out(|connection| connection.home() == home),
                // Readers have several servers, and go to the one that has the least to do.
                _ => {
                    state.check_out_least(|connection| (connection.lent_beside(), connection.home() != home))
                }
            };
            let Some(mut connection) = found else {
                return Leasing::Queued(self.queue_up(state, now, request()));
            };
            let standing = Self::standing(&plan, &mut connection);
            if standing == Standing::Close {
                drop(state);
                self.discard(connection, CloseReason::Unrouted);
                continue;
            }
            if standing != Standing::Good || check::is_due(&connection, &plan.settings, now) {
                state.put_back(connection);
                return Leasing::Queued(self.queue_up(state, now, request()));
            }
            self.metrics.show(state.counts());
            drop(state);
            match connection.check_idle(&mut Context::from_waker(Waker::noop())) {
                Ok(()) => return Leasing::Ready(Lease::new(connection, self.clone())),
                Err(reason) => self.discard(connection, reason),
            }
        }
    }

    fn queue_up(self: &Arc<Self>, mut state: Guard<'_>, since: Instant, request: Option<Request>) -> Waiting {
        let seat = Arc::new(Seat::new(since, request));
        let ticket = state.enqueue(since, seat.clone());
        let retired = state.is_retired();
        let errands = self.errands(&mut state, since);
        self.metrics.show(state.counts());
        drop(state);
        if retired {
            self.retire();
        }
        self.run_errands(errands);
        self.bell.somebody_waits();
        Waiting::new(seat, ticket, self.clone())
    }

    /// Begins what those who wait need: idle connections that must prove themselves first, then new ones.
    fn errands(&self, state: &mut Guard<'_>, now: Instant) -> Errands {
        let plan = self.plan.load();
        let (mut checks, mut unrouted) = (Vec::new(), Vec::new());
        // What rests while requests wait is not lent, whatever it proves.
        while !self.is_held(&plan)
            && let Some(mut connection) = state.begin_check()
        {
            if Self::standing(&plan, &mut connection) == Standing::Close {
                state.end_check();
                state.connecting_failed();
                unrouted.push(connection);
            } else {
                checks.push(connection);
            }
        }
        Errands {
            checks,
            dial: state.begin_connecting(now),
            unrouted,
        }
    }

    fn run_errands(self: &Arc<Self>, errands: Errands) {
        for connection in errands.unrouted {
            close(*connection, CloseReason::Unrouted);
        }
        for connection in errands.checks {
            self.tasks
                .spawn("check", Check::new(self.clone(), connection).run());
        }
        self.dial(errands.dial);
    }

    /// Takes a lent connection back, for the next client or for closing.
    fn take_back(self: &Arc<Self>, mut connection: Box<Server>) {
        let plan = self.plan.load();
        if let Verdict::Close(reason) = self.verdict(&plan, &connection) {
            return self.discard(connection, reason);
        }
        match Self::standing(&plan, &mut connection) {
            Standing::Good => {}
            Standing::Close => return self.discard(connection, CloseReason::Unrouted),
            Standing::Prove | Standing::Keep => return self.recheck(connection),
        }
        let now = Instant::now();
        connection.note_idle(now);
        if succession::is_old(&connection, &plan, now) {
            match self.take_back_old(connection, now) {
                Some(still_good) => connection = still_good,
                None => return,
            }
        }
        let mut state = self.lock();
        let placed = state.check_in(connection);
        self.metrics.show(state.counts());
        drop(state);
        self.settle(placed, now);
    }

    /// Gives a lent connection to the client that has waited longest, and says when. It stays with its client if
    /// nobody waits, or if there is anything to be done about it first.
    fn pass_on(self: &Arc<Self>, mut connection: Box<Server>) -> Result<Instant, Box<Server>> {
        let plan = self.plan.load();
        if plan.settings.server_reset_query_always
            || self.verdict(&plan, &connection) != Verdict::Reuse
            || Self::standing(&plan, &mut connection) != Standing::Good
        {
            return Err(connection);
        }
        let mut state = self.lock();
        if state.counts().waiting == 0 {
            return Err(connection);
        }
        let now = Instant::now();
        if succession::is_old(&connection, &plan, now) {
            return Err(connection);
        }
        let placed = state.check_in(connection);
        self.metrics.show(state.counts());
        drop(state);
        self.settle(placed, now);
        Ok(now)
    }

    fn verdict(self: &Arc<Self>, plan: &Plan, connection: &Server) -> Verdict {
        match connection.verdict() {
            Verdict::Reuse if !plan.target.is_same(connection.target()) => {
                Verdict::Close(CloseReason::Outdated)
            }
            Verdict::Reuse if self.is_stale(connection.vitals()) => Verdict::Close(CloseReason::Outdated),
            Verdict::Reuse if connection.has_moved() => Verdict::Close(CloseReason::Moved),
            Verdict::Reuse => self.reason_by_quotas().map_or(Verdict::Reuse, Verdict::Close),
            verdict => verdict,
        }
    }

    fn settle(self: &Arc<Self>, placed: Placed<Box<Server>, Arc<Seat>>, now: Instant) {
        match placed {
            Placed::Idle => {}
            Placed::Surplus(connection) => connection.close(),
            Placed::HandedOver(seat, connection) => {
                // Whoever has left drops the lease, which brings it back here for the next.
                drop(seat.grant(Lease::new(connection, self.clone()), now));
            }
        }
    }

    /// Closes a lent connection, and opens another if somebody waits for it.
    fn discard(self: &Arc<Self>, connection: Box<Server>, reason: CloseReason) {
        close(*connection, reason);
        let mut state = self.lock();
        state.lost();
        let errands = self.errands(&mut state, Instant::now());
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

    /// How the server of a connection is reached now: as the plan says, unless it says nothing of that server any more.
    fn target_in_force(&self, connection: &Connection) -> Arc<Target> {
        let current = &self.plan.load().target;
        if current.cluster.topology().server(connection.endpoint()).is_some() {
            current.clone()
        } else {
            connection.target().clone()
        }
    }

    /// Has the janitor look.
    fn ring(&self) {
        self.waker.wake_by_ref();
    }

    fn credential(&self) -> ServerCredential {
        let listed = self.plan.load().secret.clone();
        let known = self.taught().credential().clone();
        ServerCredential {
            secret: listed.or(known.secret),
            learned: known.learned,
        }
    }

    /// Tells every waiter that waiting does not help.
    fn refuse(&self, error: &Arc<ConnectError>) {
        let waiters = self.lock().dismiss();
        self.postpone_minimum(Instant::now());
        for seat in waiters {
            seat.refuse(LeaseError::Connect(error.clone()));
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

    /// What it may be asked of a query.
    pub fn keeps(&self) -> Keeps {
        Keeps {
            texts: self.slow_after.is_set() || self.tracer.keeps_texts(),
            contexts: self.tracer.is_on(),
        }
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
        let limits = limits(&plan.settings);
        self.metrics.show_limits(limits);
        self.limit_quotas(&plan.settings);
        let round_robin = plan.settings.server_round_robin;
        self.slow_after.set(plan.settings.log_min_duration_statement);
        self.plan.store(Arc::new(plan));
        self.held.forget();
        let mut state = self.lock();
        state.resize(limits);
        state.set_round_robin(round_robin);
        drop(state);
        self.replanned.send_replace(());
        self.waker.wake_by_ref();
    }

    /// Ends when connections are to be opened for another target than this, or none at all.
    async fn replanned(&self, target: &Target) {
        let mut replanned = self.replanned.subscribe();
        while !self.lock().is_retired() && self.plan.load().target.is_same(target) {
            if replanned.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends the pool: who waits is told, idle connections are closed, busy ones as they come back. Again for
    /// a client that had the pool in hand and asks later.
    fn retire(&self) {
        let mut state = self.lock();
        state.retire();
        let waiters = state.dismiss();
        self.metrics.show(state.counts());
        drop(state);
        for seat in waiters {
            seat.refuse(LeaseError::Retired);
        }
        self.replanned.send_replace(());
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
