//! Server connections and the clients that wait for them, one pool for each database, role name and kind of
//! server.
//!
//! It opens and keeps server connections; it never reads what clients say.

mod error;
mod janitor;
mod lease;
mod metrics;
mod plan;
mod quota;
mod registry;
mod seat;
pub mod state;
mod welcome;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use ring::rand::{SecureRandom, SystemRandom};

pub use self::{
    error::{LeaseError, LimitReached},
    lease::{Lease, Leasing, Waiting},
    metrics::{Families, Metrics},
    plan::{Catalog, Plan},
    quota::Scope,
    registry::Pools,
    seat::{Begun, Granted, Guest, Request},
    welcome::StartupSettings,
};
use self::{
    janitor::Bell,
    lease::Server,
    quota::{Quota, Refused, Share},
    seat::Seat,
    state::{Counts, Limits, Placed, State, Ticket},
    welcome::Welcome,
};
use crate::{
    auth::{flow::Learned, server_login::ServerCredential},
    config::PoolSettings,
    fault::chain,
    lifecycle::Tasks,
    server::{self, ConnectError, Connection, Home, state::CloseReason, state::Verdict},
    types::PoolKey,
};

/// A failed attempt to connect is repeated after this long, at random in between, and never remembered
/// against the next one.
const RETRY: std::ops::Range<u64> = 50..200;
/// After a refusal that time alone does not mend, `min_pool_size` is left alone for this long.
const MINIMUM_PAUSE: Duration = Duration::from_secs(5);

/// One pool.
#[derive(Debug)]
pub struct Pool {
    key: PoolKey,
    state: Mutex<State<Box<Server>, Arc<Seat>>>,
    plan: ArcSwap<Plan>,
    learned: Mutex<Learned>,
    welcome: Welcome,
    last_failure: ArcSwapOption<ConnectError>,
    /// Taken by those who ask a server that has refused for good, one after the other.
    caution: tokio::sync::Mutex<()>,
    minimum_after: Mutex<Instant>,
    metrics: Metrics,
    bell: Arc<Bell>,
    waker: Waker,
    quotas: [Arc<Quota>; 2],
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
    /// A pool that shares the limits of its database and of its user.
    fn new(key: PoolKey, plan: Plan, metrics: Metrics, quotas: [Arc<Quota>; 2], tasks: Tasks) -> Arc<Self> {
        let bell = Arc::new(Bell::default());
        let limits = limits(&plan.settings);
        metrics
            .size
            .set(i64::try_from(limits.size.get()).unwrap_or(i64::MAX));
        let pool = Arc::new(Self {
            key,
            state: Mutex::new(State::new(limits)),
            plan: ArcSwap::from_pointee(plan),
            learned: Mutex::default(),
            welcome: Welcome::default(),
            last_failure: ArcSwapOption::empty(),
            caution: tokio::sync::Mutex::default(),
            minimum_after: Mutex::new(Instant::now()),
            metrics,
            waker: Waker::from(bell.clone()),
            bell: bell.clone(),
            quotas,
            tasks,
        });
        for quota in &pool.quotas {
            quota.join(&pool);
        }
        pool.limit_quotas(&pool.plan().settings);
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

    /// Lends a connection to a client on `home`, or gives it a place in the queue, with the request that may
    /// be sent for it when its turn has come.
    pub fn lease(self: &Arc<Self>, home: Home, request: impl FnOnce() -> Option<Request>) -> Leasing {
        loop {
            let mut state = self.lock();
            let Some(mut connection) = state.check_out(|connection| connection.home() == home) else {
                let since = Instant::now();
                let seat = Arc::new(Seat::new(since, request()));
                let ticket = state.enqueue(since, seat.clone());
                let retired = state.is_retired();
                let begin = state.begin_connecting(since);
                self.metrics.show(state.counts());
                drop(state);
                if retired {
                    self.retire();
                }
                self.dial(begin);
                self.bell.somebody_waits();
                return Leasing::Queued(Waiting::new(seat, ticket, self.clone()));
            };
            self.metrics.show(state.counts());
            drop(state);
            match connection.check_idle(&mut Context::from_waker(Waker::noop())) {
                Ok(()) => return Leasing::Ready(Lease::new(connection, self.clone())),
                Err(reason) => self.discard(connection, reason),
            }
        }
    }

    /// Takes a lent connection back, for the next client or for closing.
    fn take_back(self: &Arc<Self>, mut connection: Box<Server>) {
        if let Verdict::Close(reason) = self.verdict(&connection) {
            return self.discard(connection, reason);
        }
        let now = Instant::now();
        connection.note_idle(now);
        let mut state = self.lock();
        let placed = state.check_in(connection);
        self.metrics.show(state.counts());
        drop(state);
        self.settle(placed, now);
    }

    /// Gives a lent connection to the client that has waited longest, and says when. It stays with its client if
    /// nobody waits or it may not be given on.
    fn pass_on(self: &Arc<Self>, connection: Box<Server>) -> Result<Instant, Box<Server>> {
        if self.verdict(&connection) != Verdict::Reuse {
            return Err(connection);
        }
        let mut state = self.lock();
        if state.counts().waiting == 0 {
            return Err(connection);
        }
        let placed = state.check_in(connection);
        self.metrics.show(state.counts());
        drop(state);
        let now = Instant::now();
        self.settle(placed, now);
        Ok(now)
    }

    fn verdict(self: &Arc<Self>, connection: &Server) -> Verdict {
        match connection.verdict() {
            Verdict::Reuse if !self.plan.load().target.is_same(connection.target()) => {
                Verdict::Close(CloseReason::Outdated)
            }
            Verdict::Reuse
                if self.quotas.iter().any(|quota| quota.is_contended()) && self.must_give_way() =>
            {
                Verdict::Close(CloseReason::MadeRoom)
            }
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
        let begin = state.begin_connecting(Instant::now());
        self.metrics.show(state.counts());
        drop(state);
        self.dial(begin);
    }

    fn withdraw(&self, ticket: Ticket) {
        let mut state = self.lock();
        if state.withdraw(ticket).is_some() {
            self.metrics.show(state.counts());
        }
    }

    /// Opens connections that the state has counted as connecting and that somebody waits for, as far as the
    /// limits that are shared with other pools have room. Idle connections of those make room.
    fn dial(self: &Arc<Self>, count: usize) {
        let now = Instant::now();
        for left in (1..=count).rev() {
            let shares = loop {
                match self.shares(now) {
                    Ok(shares) => break shares,
                    Err((quota, Refused::Full)) if self.evict_another(quota) => {}
                    // The bell rings when there is room.
                    Err(_) => return self.give_up_connecting(left),
                }
            };
            self.open(shares);
        }
    }

    /// The same for `min_pool_size`, which takes no room from others.
    fn dial_minimum(self: &Arc<Self>, count: usize) {
        for left in (1..=count).rev() {
            let [database, user] = &self.quotas;
            match (database.take_spare(), user.take_spare()) {
                (Some(database), Some(user)) => self.open([database, user]),
                _ => return self.give_up_connecting(left),
            }
        }
    }

    fn open(self: &Arc<Self>, shares: [Share; 2]) {
        let attempt = Attempt {
            pool: self.clone(),
            shares: Some(shares),
        };
        self.tasks.spawn("connect", attempt.run());
    }

    fn shares(self: &Arc<Self>, now: Instant) -> Result<[Share; 2], (&Arc<Quota>, Refused)> {
        let [database, user] = &self.quotas;
        Ok([
            database.take(self, now).map_err(|refused| (database, refused))?,
            user.take(self, now).map_err(|refused| (user, refused))?,
        ])
    }

    fn give_up_connecting(&self, count: usize) {
        let mut state = self.lock();
        for _ in 0..count {
            state.connecting_failed();
        }
        self.metrics.show(state.counts());
    }

    /// Closes the connection that has been idle longest in the other pools of a limit.
    fn evict_another(self: &Arc<Self>, quota: &Arc<Quota>) -> bool {
        let others = quota
            .members()
            .into_iter()
            .filter(|pool| !Arc::ptr_eq(pool, self));
        let longest = others
            .filter_map(|pool| {
                let since = pool.lock().least_recently_used()?.idle_since();
                Some((since, pool))
            })
            .min_by_key(|(since, _)| *since);
        longest.is_some_and(|(_, pool)| pool.evict())
    }

    fn evict(&self) -> bool {
        let mut state = self.lock();
        let Some(connection) = state.evict() else {
            return false;
        };
        self.metrics.show(state.counts());
        drop(state);
        close(*connection, CloseReason::MadeRoom);
        true
    }

    /// Whether a pool that shares a limit has waited for room for long, and has fewer connections than this.
    fn must_give_way(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        let mut starving = self.quotas.iter().filter_map(|quota| quota.starving(now));
        starving
            .any(|pool| !Arc::ptr_eq(&pool, self) && pool.counts().servers() + 1 < self.counts().servers())
    }

    /// Has the janitor look.
    fn ring(&self) {
        self.waker.wake_by_ref();
    }

    /// Leaves the queues for room when nobody waits any more.
    fn leave_quotas(self: &Arc<Self>) {
        for quota in &self.quotas {
            quota.leave(self);
        }
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

    /// Goes by a new plan. Connections for another target are closed as they become idle.
    fn replan(&self, mut plan: Plan) {
        let old = self.plan();
        if old.target.is_same(&plan.target) {
            if old.target.timeout == plan.target.timeout {
                plan.target = old.target.clone();
            }
        } else {
            self.welcome.forget();
        }
        let limits = limits(&plan.settings);
        self.metrics
            .size
            .set(i64::try_from(limits.size.get()).unwrap_or(i64::MAX));
        self.limit_quotas(&plan.settings);
        self.plan.store(Arc::new(plan));
        self.lock().resize(limits);
        self.waker.wake_by_ref();
    }

    fn limit_quotas(&self, settings: &PoolSettings) {
        for quota in &self.quotas {
            quota.resize(match quota.scope() {
                Scope::Database => settings.max_db_connections,
                Scope::User => settings.max_user_connections,
            });
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

    fn lock(&self) -> MutexGuard<'_, State<Box<Server>, Arc<Seat>>> {
        // No operation of the state leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection being opened; counted as connecting until it is opened or dropped.
struct Attempt {
    pool: Arc<Pool>,
    /// The connection's part of the limits that pools share; the connection takes it along.
    shares: Option<[Share; 2]>,
}

impl Attempt {
    async fn run(mut self) {
        let pool = self.pool.clone();
        let Some(_turn) = self.wait_after_refusal(&pool).await else {
            return;
        };
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
            tokio::time::sleep(jitter()).await;
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
    ) -> Option<Option<tokio::sync::MutexGuard<'a, ()>>> {
        let refused = || pool.last_failure().is_some_and(|error| !error.is_transient());
        if !refused() {
            return Some(None);
        }
        let wanted = self.wanted();
        let turn = pool.caution.lock().await;
        if !refused() {
            return Some(None);
        }
        tokio::time::sleep(jitter()).await;
        (!wanted || self.wanted()).then_some(Some(turn))
    }

    fn succeeded(&mut self, connection: Connection) {
        let Some(shares) = self.shares.take() else {
            return;
        };
        let pool = &self.pool;
        pool.metrics.connects.inc();
        connection
            .span()
            .in_scope(|| tracing::debug!("server connection opened"));
        pool.last_failure.store(None);
        pool.welcome.learn(connection.parameters());
        let mut connection = Box::new(Server::new(connection, shares));
        // What is said from now on is the janitor's to hear; an end is found at the first use.
        let _ = connection.check_idle(&mut Context::from_waker(&pool.waker));
        let mut state = pool.lock();
        let placed = state.connected(connection);
        pool.metrics.show(state.counts());
        drop(state);
        pool.settle(placed, Instant::now());
    }

    fn wanted(&self) -> bool {
        self.pool.lock().wants_connecting()
    }

    fn failed(&self, error: ConnectError) {
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
            self.pool.metrics.show(state.counts());
        }
    }
}

fn close(connection: Server, reason: CloseReason) {
    connection
        .span()
        .in_scope(|| tracing::debug!(?reason, "closing server connection"));
    connection.close();
}

fn jitter() -> Duration {
    let mut bytes = [0; 2];
    // Without random numbers the pause is merely not spread.
    let _ = SystemRandom::new().fill(&mut bytes);
    Duration::from_millis(RETRY.start + u64::from(u16::from_ne_bytes(bytes)) % (RETRY.end - RETRY.start))
}
