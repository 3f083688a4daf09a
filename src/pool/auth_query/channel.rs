//! Look-ups of one role in one database: few connections, one question at a time on each, one question per user, and the
//! answers for a while.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::DropGuard;

use super::{
    AuthKey, AuthPlan, QueryError,
    advice::{Asked, advice},
    cache::{Cache, Hit},
    line::{Answer, Line},
    metrics::Metrics,
    room::{Placed, Room},
};
use crate::{
    auth::source::{Found, Freshness},
    fault::{SqlState, chain},
    lifecycle::Tasks,
    pool::{register::Register, retry::Backoff},
    server::{self, ConnectError, Connection},
    types::{DatabaseName, PoolKey, UserName},
};

/// Connections at once. A question takes a fraction of a millisecond.
const CONNECTIONS: usize = 2;
/// An idle connection is closed after this.
const IDLE: Duration = Duration::from_secs(60);
/// How long an answer may take.
pub const QUERY_LIMIT: Duration = Duration::from_secs(5);

type Outcome = Result<Found, QueryError>;

/// A look-up under way; `None` until it has ended.
type UnderWay = Arc<watch::Sender<Option<Outcome>>>;

/// One role in one database.
pub(super) struct Channel {
    key: AuthKey,
    plan: ArcSwap<AuthPlan>,
    cache: Mutex<Cache<UnderWay>>,
    room: Arc<Room<Line>>,
    /// Its number there.
    number: u64,
    places: Semaphore,
    /// Held by whoever opens a connection. In it: when that has last failed, and why.
    door: tokio::sync::Mutex<Option<(Instant, QueryError)>>,
    /// The last failure that was logged; the same again is not.
    logged: Mutex<Option<String>>,
    closed: AtomicBool,
    metrics: Metrics,
    register: Arc<Register>,
    tasks: Tasks,
    /// Ends what follows the cluster.
    _follower: DropGuard,
}

impl Channel {
    pub(super) fn new(
        key: AuthKey,
        plan: AuthPlan,
        room: Arc<Room<Line>>,
        metrics: Metrics,
        register: Arc<Register>,
        tasks: Tasks,
    ) -> Arc<Self> {
        let (stop, changes) = (tasks.stop_token().child_token(), plan.target.cluster.changes());
        let channel = Arc::new(Self {
            number: room.channel(),
            room,
            key,
            plan: ArcSwap::from_pointee(plan),
            cache: Mutex::new(Cache::new()),
            places: Semaphore::new(CONNECTIONS),
            door: tokio::sync::Mutex::default(),
            logged: Mutex::default(),
            closed: AtomicBool::new(false),
            metrics,
            register,
            tasks,
            _follower: stop.clone().drop_guard(),
        });
        let following = follow(Arc::downgrade(&channel), changes);
        channel.tasks.spawn("auth_query", async move {
            stop.run_until_cancelled(following).await;
        });
        channel
    }

    /// What is known of a user. Whoever does not wait for the end leaves it to those who do.
    pub(super) async fn look_up(self: &Arc<Self>, user: &str, freshness: Freshness) -> Outcome {
        let mut outcome = {
            let mut cache = self.cache();
            match cache.get(user, freshness, self.plan.load().times(), Instant::now()) {
                Hit::Known(found) => {
                    self.metrics.hits.inc();
                    return Ok(found);
                }
                Hit::UnderWay(outcome) => outcome.subscribe(),
                Hit::Miss => {
                    let (outcome, receiver) = watch::channel(None);
                    let outcome = Arc::new(outcome);
                    cache.begin(user, outcome.clone());
                    drop(cache);
                    let (channel, user) = (self.clone(), user.into());
                    let question = Question {
                        channel,
                        user,
                        outcome,
                    };
                    self.tasks.spawn("auth_query", question.run());
                    receiver
                }
            }
        };
        let ended = outcome.wait_for(Option::is_some).await;
        ended
            .ok()
            .and_then(|outcome| outcome.clone())
            .unwrap_or(Err(QueryError::GivenUp))
    }

    /// Goes by a changed plan, if connections and answers are as good under it.
    pub(super) fn replan(&self, plan: AuthPlan) -> bool {
        let same = self.plan.load().is_same(&plan);
        if same {
            self.plan.store(Arc::new(plan));
        }
        same
    }

    /// Closes the connections that nobody uses, those in use as they come back.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.room.retain(self.number, |_| false);
    }

    /// Closes what has not been used for long, is old or has ended, and forgets what is too old.
    pub(super) fn sweep(self: &Arc<Self>, now: Instant) {
        let plan = self.plan.load();
        let idle_for = |line: &Line| now.saturating_duration_since(line.idle_since());
        let mut needs_proof = false;
        self.room.retain(self.number, |line| {
            let keep = idle_for(line) < IDLE && line.is_good(&plan, now);
            needs_proof |= keep && line.has_old_certificates(&plan, now);
            keep
        });
        if needs_proof {
            self.tasks.spawn("auth_query", self.clone().try_certificates());
        }
        self.cache().drop_expired(plan.times(), now);
    }

    /// Finds out whether a server accepts certificates that nobody has logged in with yet. If one does, connections that
    /// were made with those before make way.
    async fn try_certificates(self: Arc<Self>) {
        let plan = self.plan.load_full();
        match server::connect(&plan.target, &plan.credential()).await {
            Ok(mut connection) => connection.say_goodbye(),
            Err(error) => self.log_failure(&QueryError::Connect(error.into())),
        }
    }

    /// `auth_query_negative_ttl`
    pub(super) fn negative_ttl(&self) -> Duration {
        self.plan.load().negative_ttl
    }

    /// Whether there is nothing in it that is worth keeping.
    pub(super) fn is_unused(&self) -> bool {
        !self.room.has_any(self.number) && self.cache().is_empty()
    }

    async fn ask(&self, user: &str, is_wanted: impl Fn() -> bool) -> Outcome {
        let began = Instant::now();
        // Never closed.
        let _place = self.places.acquire().await;
        if !is_wanted() {
            return Err(QueryError::GivenUp);
        }
        let mut line = match self.take_idle() {
            Some(line) => line,
            None => self.open(began, &is_wanted).await?,
        };
        let mut lost = false;
        loop {
            let asking = line.line.ask(&self.key.query, user);
            let Ok(answer) = tokio::time::timeout(QUERY_LIMIT, asking).await else {
                return Err(QueryError::Timeout(QUERY_LIMIT));
            };
            match answer {
                Answer::Said(outcome) => {
                    self.give_back(line);
                    return outcome;
                }
                Answer::Lost(error) if lost => return Err(QueryError::Query(error.into())),
                // It may have ended long ago.
                Answer::Lost(_) => {
                    lost = true;
                    line = self.open(Instant::now(), &is_wanted).await?;
                }
            }
        }
    }

    /// Opens a connection, one at a time. While the server is away it is tried again for a while. Whoever has waited
    /// through an attempt that failed has failed as well.
    async fn open(&self, began: Instant, is_wanted: impl Fn() -> bool) -> Result<Placed<Line>, QueryError> {
        let mut failure = self.door.lock().await;
        if let Some((when, error)) = failure.as_ref()
            && *when >= began
        {
            return Err(error.clone());
        }
        let plan = self.plan.load_full();
        let place = if plan.is_open {
            self.room.place().await
        } else {
            None
        };
        let patience = Instant::now() + plan.patience;
        let mut backoff = Backoff::default();
        loop {
            let error = match self.connect(&plan).await {
                Ok(connection) => {
                    *failure = None;
                    let line = Line::new(connection, self.metrics.connections.clone(), |vitals| {
                        self.register.enter_look_up(self.shown_as(&plan), vitals)
                    });
                    return Ok(Placed::new(line, place));
                }
                Err(error) => QueryError::Connect(error.into()),
            };
            if !error.is_transient() || Instant::now() >= patience {
                *failure = Some((Instant::now(), error.clone()));
                return Err(error);
            }
            self.log_failure(&error);
            tokio::time::sleep(backoff.next(plan.retry)).await;
            if !is_wanted() {
                return Err(QueryError::GivenUp);
            }
        }
    }

    /// The pool that a client's connection like these would be of.
    fn shown_as(&self, plan: &AuthPlan) -> PoolKey {
        PoolKey {
            database: DatabaseName::from(&*self.key.database),
            user: UserName::from(&*self.key.user),
            role: plan.target.wish.role,
        }
    }

    async fn connect(&self, plan: &AuthPlan) -> Result<Connection, ConnectError> {
        let _turn = if plan.is_open {
            self.room.log_in().await
        } else {
            None
        };
        server::connect(&plan.target, &plan.credential()).await
    }

    fn take_idle(&self) -> Option<Placed<Line>> {
        let (plan, now) = (self.plan.load(), Instant::now());
        let mut idle = std::iter::from_fn(|| self.room.take(self.number));
        idle.find_map(|mut placed| placed.line.is_good(&plan, now).then_some(placed))
    }

    fn give_back(&self, mut placed: Placed<Line>) {
        let now = Instant::now();
        if placed.line.is_good(&self.plan.load(), now) {
            placed.line.note_idle(now);
            self.room.put(self.number, placed);
        }
        if self.closed.load(Ordering::Acquire) {
            self.close();
        }
    }

    /// The first of a series is worth a line; the rest repeat it. A client's wrong database is the client's affair.
    fn log_failure(&self, error: &QueryError) {
        let is_missing = error.server_code() == Some(SqlState::INVALID_CATALOG_NAME);
        if is_missing && !self.plan.load().is_chosen {
            return;
        }
        let text = chain(error);
        let mut logged = lock(&self.logged);
        if logged.as_ref() == Some(&text) {
            return;
        }
        let plan = self.plan.load();
        let asked = Asked {
            user: &self.key.user,
            query: &self.key.query,
            database: &plan.target.database,
        };
        let advice = advice(error, &asked);
        let (what, sql) = advice.map_or((None, None), |advice| (Some(advice.text), advice.sql));
        let (place, sql) = sql.unzip();
        let (db, user) = (asked.database, asked.user);
        if error.is_transient() {
            tracing::warn!(db, auth_user = user, error = text, "cannot look up users");
        } else {
            tracing::error!(
                db,
                auth_user = user,
                auth_query = asked.query,
                error = text,
                advice = what,
                sql,
                sql_database = place,
                "cannot look up users"
            );
        }
        *logged = Some(text);
    }

    fn cache(&self) -> MutexGuard<'_, Cache<UnderWay>> {
        lock(&self.cache)
    }
}

/// Closes what is not to be kept when the cluster changes: a server that shuts down waits for it.
async fn follow(channel: Weak<Channel>, mut changes: watch::Receiver<u64>) {
    while changes.changed().await.is_ok()
        && let Some(channel) = channel.upgrade()
    {
        channel.sweep(Instant::now());
    }
}

/// Nothing here is left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that asks about one user. However it ends, those who wait are told.
struct Question {
    channel: Arc<Channel>,
    user: Box<str>,
    outcome: UnderWay,
}

impl Question {
    async fn run(self) {
        let channel = &self.channel;
        let limit = channel.plan.load().limit();
        let asking = tokio::time::timeout(limit, channel.ask(&self.user, || self.is_wanted()));
        let outcome = asking.await.unwrap_or(Err(QueryError::Timeout(limit)));
        match &outcome {
            Err(QueryError::GivenUp) => return,
            Err(error) => channel.log_failure(error),
            Ok(_) => *lock(&channel.logged) = None,
        }
        channel.metrics.count(&outcome);
        let (ttl, known) = (channel.plan.load().times(), outcome.as_ref().ok().cloned());
        channel.cache().end(&self.user, known, ttl, Instant::now());
        self.outcome.send_replace(Some(outcome));
    }

    /// Whether somebody waits. If not, nobody can begin to any more.
    fn is_wanted(&self) -> bool {
        let mut cache = self.channel.cache();
        let wanted = self.outcome.receiver_count() > 0;
        if !wanted {
            cache.give_up(&self.user, |other| Arc::ptr_eq(other, &self.outcome));
        }
        wanted
    }
}

impl Drop for Question {
    /// Without this those who wait would wait for a task that is gone.
    fn drop(&mut self) {
        let mut cache = self.channel.cache();
        cache.give_up(&self.user, |other| Arc::ptr_eq(other, &self.outcome));
    }
}
