//! A server connection on loan, and the wait for one. Dropping either, at any await point, settles the
//! pool's account.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Metrics, Pool,
    error::LeaseError,
    farewell,
    quota::Shares,
    register::Registered,
    seat::{Granted, Seat},
    slow,
    state::Ticket,
    traced::{self, Leaving},
};
use crate::{
    config::SessionState,
    fault::SqlState,
    lifecycle::Tasks,
    server::{
        Connection, Duty, Home, Target as ServerTarget,
        state::{CloseReason, Verdict},
    },
    topology::Load,
    traces::{Ending, Recorder},
    types::{PoolMode, Role},
};

/// What cleans a session of all that a client can leave in it but a library that was loaded.
const DISCARD_ALL: &str = "DISCARD ALL";
/// How long `server_reset_query` may take.
const RESET_TIMEOUT: Duration = Duration::from_secs(30);

/// A server connection and its part of the limits that pools share.
#[derive(Debug)]
pub(super) struct Server {
    connection: Connection,
    shares: Shares,
    _registered: Registered,
    tasks: Tasks,
    load: OpenLoad,
    /// The cluster's generation when the server has last said what it is.
    pub(super) generation: u64,
    /// The version of the topology by which it was good last.
    pub(super) judged: u64,
    /// Since when it has worked for what its client asked last.
    pub(super) query_since: Option<Instant>,
    /// The transaction, where transactions are traced.
    pub(super) recorder: Recorder,
}

/// One connection in its server's load, for as long as this lives.
#[derive(Debug)]
pub(super) struct OpenLoad {
    load: Arc<Load>,
    /// There is a choice between servers: it is worth counting what they do.
    counts_lent: bool,
}

impl OpenLoad {
    fn new(load: Arc<Load>, role: Role) -> Self {
        load.note_opened();
        Self {
            load,
            counts_lent: role != Role::ReadWrite,
        }
    }

    fn note_lent(&self) {
        if self.counts_lent {
            self.load.note_lent();
        }
    }

    fn note_returned(&self) {
        if self.counts_lent {
            self.load.note_returned();
        }
    }
}

impl Drop for OpenLoad {
    fn drop(&mut self) {
        self.load.note_closed();
    }
}

/// A waiter, and what it gets.
pub(super) type Handover = (Arc<Seat>, Box<Server>);

impl Server {
    pub(super) fn new(connection: Connection, shares: Shares, pool: &Pool) -> Self {
        let registered = pool.register(&connection);
        let target = connection.target();
        let load = OpenLoad::new(target.cluster.load(connection.endpoint()), target.wish.role);
        Self {
            generation: connection.generation(),
            connection,
            shares,
            _registered: registered,
            tasks: pool.tasks.clone(),
            load,
            judged: 0,
            query_since: None,
            recorder: Recorder::default(),
        }
    }

    /// How many of its server's connections work for a client.
    pub(super) fn lent_beside(&self) -> usize {
        self.load.load.lent()
    }

    /// Says goodbye as far as that is possible without waiting, and closes. It counts towards the budget until its server
    /// has let go of it.
    pub(super) fn close(mut self) {
        self.connection.say_goodbye();
        let Self {
            connection,
            shares: [_, _, budget],
            tasks,
            ..
        } = self;
        if budget.is_scarce() && connection.verdict() == Verdict::Reuse {
            farewell::begin(connection, budget, &tasks);
        }
    }

    /// The same for one whose server is not to be waited for.
    pub(super) fn abandon(mut self) {
        self.connection.say_goodbye();
    }
}

impl Deref for Server {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// A server connection that belongs to one client until it is dropped. What happens to it then is the
/// verdict of [`Connection::verdict`].
#[derive(Debug)]
pub struct Lease {
    /// Absent when it was passed on, and while it is being dropped.
    connection: Option<Box<Server>>,
    pool: Arc<Pool>,
}

impl Lease {
    pub(super) fn new(mut connection: Box<Server>, pool: Arc<Pool>) -> Self {
        connection.load.note_lent();
        connection.note_lent();
        if pool.tracer.is_on() {
            connection.recorder.lend(None);
        }
        Self {
            connection: Some(connection),
            pool,
        }
    }

    /// Notes that its client has waited for it since `asked`.
    pub(super) fn note_wait(&mut self, asked: Instant) {
        if let Some(server) = self.connection.as_mut().filter(|_| self.pool.tracer.is_on()) {
            server.recorder.lend(Some(asked));
        }
    }

    /// What the pool counts.
    pub fn metrics(&self) -> &Metrics {
        self.pool.metrics()
    }

    /// Notes that the server works for something that its client has asked, from `now` on.
    pub fn begin_query(&mut self, now: Instant) {
        if let Some(server) = &mut self.connection {
            server.query_since = Some(now);
            if self.pool.tracer.is_on() {
                server.recorder.begin(now);
            }
        }
    }

    /// Notes an error that the server has raised, where anybody wants to know.
    pub fn note_error(&mut self, code: SqlState) {
        if let Some(server) = self.connection.as_mut().filter(|_| self.pool.tracer.is_on()) {
            server.note_error(code);
        }
    }

    /// Whether the server works for something that its client has asked.
    pub fn is_querying(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|server| server.query_since.is_some())
    }

    /// Counts what the client has asked as answered.
    pub fn end_query(&mut self, now: Instant) {
        let Some(server) = &mut self.connection else {
            return;
        };
        let wording = server.take_wording();
        let traces = self.pool.tracer.is_on();
        if let Some(since) = server.query_since.take() {
            let took = now.saturating_duration_since(since);
            self.pool.metrics().query.observe(took);
            if self.pool.slow_after.is_over(took) {
                let text = wording.as_ref().and_then(|wording| wording.text.as_deref());
                slow::Reporter::new(server).report(took, text);
            }
            if traces {
                let query = traced::query(since, now, wording.as_deref(), &self.pool);
                self.pool.trace_query(server, query);
            }
        }
        if traces && server.ledger().is_between_transactions() {
            self.pool.trace_end(server, now, Ending::Finished);
        }
    }

    /// The owner of what has to be done for the connection after its client is gone.
    pub fn tasks(&self) -> &Tasks {
        &self.pool.tasks
    }

    /// Gives the connection back to a pool of this mode.
    pub fn release(mut self, mode: PoolMode) {
        if mode == PoolMode::Session {
            // What the session has left is `server_reset_query`'s business.
            self.forget_state();
        }
        let is_unclean = self.needs_cleaning();
        if is_unclean || mode == PoolMode::Session || self.pool.plan.load().settings.server_reset_query_always
        {
            self.reset_and_release(is_unclean);
        }
    }

    /// Whether the cluster has changed since it was found good. It need not have changed for this connection.
    pub fn is_outrun(&self) -> bool {
        let judged = self.connection.as_deref().map(|connection| connection.judged);
        judged != Some(self.target().cluster.version())
    }

    /// Whether another server is the primary by now: nothing more may be done on this one.
    pub fn is_fenced(&self) -> bool {
        let target = self.target();
        let topology = target.cluster.topology();
        target.wish.is_fenced(&topology, self.endpoint())
    }

    /// Waits until [`Lease::is_fenced`]. Borrows nothing.
    pub fn fenced(&self) -> impl Future<Output = ()> + use<> {
        let (target, endpoint) = (self.target().clone(), self.endpoint().clone());
        async move {
            let mut changes = target.cluster.changes();
            while !target.wish.is_fenced(&target.cluster.topology(), &endpoint) {
                if changes.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
    }

    /// How the connection's server is reached now.
    pub fn target_in_force(&self) -> Arc<ServerTarget> {
        self.pool.target_in_force(self)
    }

    /// Notes that the client has made functions.
    pub fn note_definitions(&self) {
        self.pool.note_definitions();
    }

    /// What is to become of session state that cannot leave this connection.
    pub fn session_state(&self) -> SessionState {
        self.pool.plan.load().settings.session_state
    }

    /// Settings that the pooler knows of are set back, `server_reset_query` cleans the rest, and only if both succeed
    /// is the connection used again.
    ///
    /// What is left of a session in a transaction pool is cleaned away by PostgreSQL's own means, whatever that query is;
    /// a library that was loaded stays.
    fn reset_and_release(mut self, is_unclean: bool) {
        let pool = self.pool.clone();
        let query = if is_unclean {
            DISCARD_ALL.into()
        } else {
            pool.plan().settings.server_reset_query.clone()
        };
        if query.is_empty() || !self.ledger().is_idle() || self.is_beyond_cleaning() {
            return;
        }
        self.stop_inquiring();
        self.vitals().set_duty(Duty::Reset);
        pool.tasks.spawn("reset", async move {
            if self.rehome(Home::Control).is_err() {
                return;
            }
            let fenced = self.fenced();
            let reset = tokio::select! {
                biased;
                () = fenced => return self.mark_broken(CloseReason::Unrouted),
                reset = tokio::time::timeout(RESET_TIMEOUT, self.reset(&query)) => reset,
            };
            let failure = match reset {
                Ok(Ok(())) => return self.forget_state(),
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

    #[allow(clippy::expect_used, reason = "the option is emptied by what ends the lease")]
    fn deref(&self) -> &Connection {
        self.connection
            .as_deref()
            .expect("a lease holds its connection until it is passed on or dropped")
    }
}

impl DerefMut for Lease {
    #[allow(clippy::expect_used, reason = "the option is emptied by what ends the lease")]
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
            .as_deref_mut()
            .expect("a lease holds its connection until it is passed on or dropped")
    }
}

impl Lease {
    /// Gives the connection, which was lent at `since`, to the client that has waited longest, whose request is sent at
    /// once if that is possible. Then this lease is empty, and only to be dropped. False: nobody waits, or the connection
    /// may not be given on, and nothing has changed.
    pub fn pass_on(&mut self, since: Instant) -> bool {
        let Some(mut connection) = self.connection.take() else {
            return false;
        };
        connection.load.note_returned();
        // What the next one asks takes the place of both.
        let (query_since, wording) = (connection.query_since, connection.take_wording());
        let text = wording.as_ref().and_then(|wording| wording.text.as_deref());
        let reporter = text.map(|_| slow::Reporter::new(&connection));
        let leaving = self.pool.tracer.is_on().then(|| Leaving::new(&mut connection));
        match self.pool.pass_on(connection) {
            Ok(now) => {
                let lent = now.saturating_duration_since(since);
                self.metrics().transaction.observe(lent);
                if let Some(query_since) = query_since {
                    // Most transactions are one query.
                    let is_all = query_since == since;
                    let took = if is_all {
                        lent
                    } else {
                        now.saturating_duration_since(query_since)
                    };
                    self.metrics().query.observe(took);
                    if let Some(reporter) = reporter.filter(|_| self.pool.slow_after.is_over(took)) {
                        reporter.report(took, text);
                    }
                }
                if let Some(leaving) = leaving {
                    let query =
                        query_since.map(|since| traced::query(since, now, wording.as_deref(), &self.pool));
                    leaving.end(query, now, &self.pool);
                }
                true
            }
            Err(mut connection) => {
                connection.put_wording(wording);
                if let Some(leaving) = leaving {
                    leaving.stay(&mut connection);
                }
                connection.load.note_lent();
                self.connection = Some(connection);
                false
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            if self.pool.tracer.is_on() {
                self.pool.trace_cut(&mut connection, Instant::now());
            }
            connection.load.note_returned();
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

/// A place in a pool's queue. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Waiting {
    seat: Arc<Seat>,
    ticket: Ticket,
    pool: Arc<Pool>,
    /// The outcome has been taken.
    over: bool,
}

impl Waiting {
    pub(super) fn new(seat: Arc<Seat>, ticket: Ticket, pool: Arc<Pool>) -> Self {
        Self {
            seat,
            ticket,
            pool,
            over: false,
        }
    }

    /// Whether there is an outcome to poll for.
    pub fn is_settled(&self) -> bool {
        self.seat.is_settled()
    }

    /// Since when.
    pub fn since(&self) -> Instant {
        self.seat.since()
    }

    /// Takes back the request, if it was not sent.
    pub fn take_request(&self) -> Option<Bytes> {
        self.seat.take_request()
    }

    /// Ends with a connection, or with the reason why there is none.
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Granted, LeaseError>> {
        let outcome = self.seat.poll(cx);
        self.over = outcome.is_ready();
        outcome
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Whoever was served is no longer in the queue; asking is cheap only when one knows that.
        if !self.over {
            self.pool.withdraw(self.ticket);
            drop(self.seat.leave());
        }
    }
}
