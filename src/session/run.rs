//! The session's future: its phases, and what moves it from one to the next. How it begins and ends is in `course`.

use std::{
    io,
    ops::Deref,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    activity::Stage,
    control::Order,
    deadline::Expired,
    error::{End, SessionError},
    forward,
    member::Member,
    refusal::{Passed, Refusal},
    relay::{Client, Progress, Relay},
    request::{self, Found},
    signal,
    table::Entry,
    welcome::Welcomed,
    worker::Worker,
};
use crate::{
    fault::{Fault, chain},
    pool::{Begun, Granted, Lease, LeaseError, Leasing, Pool, Request, Waiting},
    server::{parameters::Parameters, pins::Pins},
    tls::Stream,
    types::PoolMode,
    wire::{
        backend::TransactionStatus,
        reply::{self, Severity},
        stream::{Filled, Framed},
    },
};

/// A waiting client is read this far, to notice when it leaves.
const READ_WHILE_WAITING: usize = 16 * 1024;

/// Reads a client that waits, only to notice when it leaves. Ready when it has, with the error if there was one.
pub(super) fn poll_departure(
    stream: &mut Framed<Stream>,
    cx: &mut Context<'_>,
    worker: &Worker,
) -> Poll<Option<io::Error>> {
    while stream.held() < READ_WHILE_WAITING {
        let mut scratch = worker.scratch();
        // A request that was handed in and not sent has to fit in front.
        let most = scratch.len().saturating_sub(READ_WHILE_WAITING);
        let room = scratch.get_mut(..most).unwrap_or_default();
        match ready!(stream.poll_fill(cx, room)) {
            Ok(Filled::Bytes(count)) => stream.hold(scratch.get(..count).unwrap_or_default()),
            Ok(Filled::Closed) => return Poll::Ready(None),
            Err(error) => return Poll::Ready(Some(error)),
        }
    }
    Poll::Pending
}

/// One of the pool's clients, for as long as this lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<Pool>);

impl Counted {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        pool.metrics().clients.inc();
        pool.count_login();
        Self(pool)
    }
}

impl Deref for Counted {
    type Target = Arc<Pool>;

    fn deref(&self) -> &Arc<Pool> {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics().clients.dec();
    }
}

/// A client that is logged in.
#[derive(Debug)]
pub(super) struct Session<Slot> {
    pub(super) client: Framed<Stream>,
    pub(super) member: Arc<Member>,
    pub(super) pool: Counted,
    pub(super) entry: Entry,
    parameters: Parameters,
    worker: Rc<Worker>,
    mode: PoolMode,
    pub(super) phase: Phase,
    /// What is held back of the client's bytes may contain a request.
    unread: bool,
    draining: bool,
    _slot: Slot,
}

/// What the client is doing.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing, or it has not sent enough of a request.
    Idle,
    /// It waits for a server connection; its request is held back.
    Waiting(Waiting),
    /// A server works for it.
    Relaying(Relay),
    /// Its request was answered with an error, and the rest of it is still to come.
    Refused(Refusal),
}

impl<Slot: Unpin> Future for Session<Slot> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        loop {
            if this.entry.control().is_pending()
                && let Err(end) = this.obey_all(cx)
            {
                return Poll::Ready(end);
            }
            let step = match &mut this.phase {
                Phase::Idle => this.poll_idle(cx),
                Phase::Waiting(_) => this.poll_waiting(cx),
                Phase::Relaying(_) => this.poll_relay(cx),
                Phase::Refused(_) => this.poll_refused(cx),
            };
            if let Err(end) = ready!(step) {
                return Poll::Ready(end);
            }
        }
    }
}

/// Ready when the phase has changed.
type Step = Poll<Result<(), End>>;

impl<Slot> Session<Slot> {
    pub(super) fn new(welcomed: Welcomed<Slot>, worker: Rc<Worker>) -> Box<Self> {
        let Welcomed {
            stream,
            member,
            pool,
            entry,
            parameters,
            slot,
        } = welcomed;
        Box::new(Self {
            // A client that does not wait for the greeting has sent a request with its last answer.
            unread: stream.held() > 0,
            mode: pool.plan().settings.mode,
            client: stream,
            member,
            entry,
            parameters,
            worker,
            phase: Phase::Idle,
            draining: false,
            _slot: slot,
            pool,
        })
    }

    fn obey_all(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        // A server may be at work for a client that has not been woken: that is what the orders are about then.
        if let Phase::Waiting(waiting) = &self.phase
            && waiting.is_settled()
            && let Poll::Ready(step) = self.poll_waiting(cx)
        {
            step?;
        }
        for order in self.entry.control().take() {
            self.obey(order)?;
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<(), End> {
        match (order, &mut self.phase) {
            (Order::Cancel(_), Phase::Idle | Phase::Refused(_)) => {}
            (Order::Cancel(_), Phase::Waiting(_)) => self.refuse(&SessionError::Canceled),
            (Order::Cancel(reply), Phase::Relaying(relay)) => relay.cancel(reply),
            (Order::LookAtClock, _) => self.look_at_clock()?,
            (Order::LookAtServer, Phase::Relaying(relay)) if relay.is_fenced() => {
                return Err(match relay.give_up_server() {
                    // One end is enough.
                    Some(farewell) => self.leave(End::ServerFarewell(farewell)),
                    None => self.fault(SessionError::Fenced),
                });
            }
            (Order::LookAtServer, _) => {}
            (Order::Drain, phase) => {
                let between = match phase {
                    Phase::Idle => true,
                    Phase::Relaying(relay) => relay.is_idle(),
                    Phase::Waiting(_) | Phase::Refused(_) => false,
                };
                if between {
                    return Err(self.leave(End::Fault(SessionError::Drained)));
                }
                self.draining = true;
            }
            (Order::Kill, _) => return Err(self.fault(SessionError::Drained)),
        }
        Ok(())
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.client.is_drained() {
            ready!(self.client.poll_drain(cx)).map_err(|error| End::Left(Some(error)))?;
        }
        if self.draining {
            return Poll::Ready(Err(End::Fault(SessionError::Drained)));
        }
        let worker = self.worker.clone();
        loop {
            let mut scratch = worker.scratch();
            let count = ready!(self.poll_bytes(cx, &mut scratch))?;
            let bytes = scratch.get(..count).unwrap_or_default();
            match request::find(self.client.splitter(), bytes).map_err(|error| End::Fault(error.into()))? {
                Found::Request(start) => {
                    let request = bytes.get(start..).unwrap_or_default();
                    let signal = signal::read(request).and_then(|ask| {
                        let out = self.client.output();
                        ask.carry_out(&self.member, &self.entry, TransactionStatus::Idle, out)
                    });
                    if let Some(rest) = signal {
                        self.client.hold(request.get(rest..).unwrap_or_default());
                        self.unread = self.client.held() > 0;
                        // Back to where what is to be written is written.
                        return Poll::Ready(Ok(()));
                    }
                    return Poll::Ready(self.ask(cx, request));
                }
                Found::Nothing(start) => {
                    self.enter(Stage::Idle);
                    self.client.hold(bytes.get(start..).unwrap_or_default());
                }
                Found::Terminate => return Poll::Ready(Err(End::Terminated)),
                Found::Unknown(tag) => {
                    return Poll::Ready(Err(End::Fault(SessionError::MessageType { tag })));
                }
            }
        }
    }

    /// What the client has said and nobody has looked at: bytes held back, or new ones.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<usize, End>> {
        if std::mem::take(&mut self.unread) {
            return Poll::Ready(Ok(self.client.take_held(scratch)));
        }
        Poll::Ready(match ready!(self.client.poll_fill(cx, scratch)) {
            Ok(Filled::Bytes(count)) => Ok(count),
            Ok(Filled::Closed) => Err(End::Left(None)),
            Err(error) => Err(End::Left(Some(error))),
        })
    }

    /// Gives a request to a server, at once or when there is one.
    fn ask(&mut self, cx: &mut Context<'_>, request: &[u8]) -> Result<(), End> {
        let Self {
            worker,
            parameters,
            member,
            ..
        } = &*self;
        let mut handed_in = false;
        let (now, splitter) = (Instant::now(), self.client.messages());
        let leasing = self.pool.lease(worker.home(), now, || {
            handed_in = request.len() <= READ_WHILE_WAITING && request::is_complete(splitter, request);
            handed_in.then(|| Request {
                bytes: Bytes::copy_from_slice(request),
                parameters: parameters.clone(),
                home: worker.home(),
                guest: member.clone(),
            })
        });
        match leasing {
            Leasing::Ready(lease) => {
                self.pool.metrics().wait.observe(Duration::ZERO);
                self.begin(cx, lease, now, request)
            }
            Leasing::Queued(waiting) => {
                if !handed_in {
                    self.client.hold(request);
                }
                self.enter(Stage::Waiting);
                self.phase = Phase::Waiting(waiting);
                Ok(())
            }
        }
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Step {
        let Phase::Waiting(waiting) = &mut self.phase else {
            return Poll::Ready(Ok(()));
        };
        match waiting.poll(cx) {
            Poll::Ready(Ok(granted)) => {
                let is_outrun = granted.lease.is_outrun();
                let accepted = self.accept(cx, granted);
                // The order to look may have come before there was anything to look at.
                Poll::Ready(accepted.and_then(|()| match is_outrun {
                    true => self.obey(Order::LookAtServer),
                    false => Ok(()),
                }))
            }
            // No later request of this session would fare better; the client's next connection may.
            Poll::Ready(Err(error @ LeaseError::Retired)) => {
                Poll::Ready(Err(self.fault(SessionError::Lease(error))))
            }
            Poll::Ready(Err(error)) => {
                let error = self.entry.explain(&self.pool, error.into());
                self.refuse(&error);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                if !self.client.is_drained()
                    && let Poll::Ready(Err(error)) = self.client.poll_drain(cx)
                {
                    return Poll::Ready(Err(End::Left(Some(error))));
                }
                let error = ready!(poll_departure(&mut self.client, cx, &self.worker));
                Poll::Ready(Err(End::Left(error)))
            }
        }
    }

    /// Takes the connection that the client has waited for, with its request on the way or still to be sent.
    fn accept(&mut self, cx: &mut Context<'_>, granted: Granted) -> Result<(), End> {
        let Granted { lease, since, begun } = granted;
        let (waits, unwritable) = match begun {
            Begun::No => {
                self.take_request_back();
                let worker = self.worker.clone();
                let mut scratch = worker.scratch();
                let count = self.client.take_held(&mut scratch);
                let request = scratch.get(..count).unwrap_or_default();
                return self.begin(cx, lease, since, request);
            }
            Begun::Yes { rest, waits } => {
                self.client.hold_in_front(&rest);
                (waits, None)
            }
            Begun::Failed(error) => (false, Some(error)),
        };
        let mut relay = Relay::new(lease, since);
        let gone_on = relay.go_on(cx, &mut self.client_side(), waits, unwritable);
        self.phase = Phase::Relaying(relay);
        gone_on.map_err(|end| self.leave(end))
    }

    /// Puts a request that was not sent back where the client's bytes are read.
    fn take_request_back(&mut self) {
        if let Phase::Waiting(waiting) = &self.phase
            && let Some(request) = waiting.take_request()
        {
            self.client.hold_in_front(&request);
        }
    }

    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        mut lease: Lease,
        since: Instant,
        request: &[u8],
    ) -> Result<(), End> {
        if let Err(error) = lease.rehome(self.worker.home()) {
            return Err(End::Fault(SessionError::ServerLost(Some(error))));
        }
        self.member.begin(&lease);
        let mut relay = Relay::new(lease, since);
        let begun = relay.begin(cx, &mut self.client_side(), request);
        self.phase = Phase::Relaying(relay);
        begun.map_err(|end| self.leave(end))
    }

    fn client_side(&mut self) -> Client<'_> {
        Client {
            stream: &mut self.client,
            parameters: &mut self.parameters,
            worker: &self.worker,
            member: &self.member,
            entry: &self.entry,
            mode: self.mode,
        }
    }

    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Step {
        let Phase::Relaying(relay) = &mut self.phase else {
            return Poll::Ready(Ok(()));
        };
        let mut client = Client {
            stream: &mut self.client,
            parameters: &mut self.parameters,
            worker: &self.worker,
            member: &self.member,
            entry: &self.entry,
            mode: self.mode,
        };
        let progress = relay.poll(cx, &mut client);
        let goes_on = match progress {
            Ok(Progress::Busy) => true,
            Ok(Progress::Idle) => (self.mode == PoolMode::Session || relay.is_pinned()) && !self.draining,
            _ => false,
        };
        if goes_on {
            let (stage, news) = (relay.stage(), relay.take_news());
            self.member.activity.follow(stage, news, self.entry.clock().now());
            return Poll::Pending;
        }
        match progress {
            Ok(Progress::PassedOn) => {
                self.phase = Phase::Idle;
                self.unread = self.client.held() > 0;
                self.enter(Stage::Idle);
                Poll::Ready(Ok(()))
            }
            Ok(Progress::Busy | Progress::Idle) => {
                self.give_back();
                Poll::Ready(Ok(()))
            }
            Ok(Progress::Terminated) => Poll::Ready(Err(self.leave(End::Terminated))),
            Err(end) => Poll::Ready(Err(self.leave(end))),
        }
    }

    fn give_back(&mut self) {
        if let Phase::Relaying(relay) = std::mem::replace(&mut self.phase, Phase::Idle) {
            self.unread = self.client.held() > 0;
            self.enter(Stage::Idle);
            self.member.note_pins(Pins::default());
            relay.finish(self.mode);
        }
    }

    /// Notes for others that the session does something else from now on.
    fn enter(&self, stage: Stage) {
        self.member.activity.enter(stage, self.entry.clock().now());
    }

    /// Lets go of the server connection of a session that ends.
    pub(super) fn leave(&mut self, end: End) -> End {
        let Phase::Relaying(mut relay) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return end;
        };
        self.member.note_pins(Pins::default());
        if let End::Fault(error) = &end {
            relay.note_fault(error);
        }
        let end = match end {
            End::Fault(_) if !relay.can_speak() => End::Cut,
            end => end,
        };
        match end {
            _ if relay.is_idle() => relay.finish(self.mode),
            End::Left(_) | End::Terminated => relay.abandon(self.mode),
            _ => drop(relay),
        }
        end
    }

    /// Ends the session with an error, if it can be said.
    pub(super) fn fault(&mut self, error: SessionError) -> End {
        let speak = match &mut self.phase {
            Phase::Relaying(relay) => relay.can_speak(),
            _ => true,
        };
        self.member.note_pins(Pins::default());
        if let Phase::Relaying(mut relay) = std::mem::replace(&mut self.phase, Phase::Idle) {
            relay.note_fault(&error);
            match error {
                // It has been asked to stop and has not, or nobody will need it.
                SessionError::Expired(Expired::Query(_)) | SessionError::Drained => relay.close(),
                // Nobody waits for a server that is the primary no more.
                SessionError::Fenced => drop(relay),
                _ => relay.abandon(self.mode),
            }
        }
        if speak { End::Fault(error) } else { End::Cut }
    }

    /// Answers the held-back request with an error. The session goes on.
    fn refuse(&mut self, error: &SessionError) {
        self.member.identity.span().in_scope(|| {
            tracing::info!(
                sqlstate = %error.sqlstate(), blame = error.blame().as_str(),
                error = chain(error), hint = error.hint().as_deref(), "request refused"
            );
        });
        self.pool.metrics().count_error(error.sqlstate(), error.blame());
        self.take_request_back();
        if let Phase::Waiting(waiting) = &self.phase {
            let context = || forward::context(self.client.held_bytes());
            let pid = self.member.names.pid();
            self.pool
                .trace_refusal(waiting.since(), context, error.sqlstate(), pid);
        }
        reply::error(Severity::Error, error, self.client.output());
        self.enter(Stage::Idle);
        self.unread = true;
        self.phase = Phase::Refused(Refusal::Whole);
    }

    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Step {
        let worker = self.worker.clone();
        loop {
            if !self.client.is_drained() {
                ready!(self.client.poll_drain(cx)).map_err(|error| End::Left(Some(error)))?;
            }
            let mut scratch = worker.scratch();
            let count = ready!(self.poll_bytes(cx, &mut scratch))?;
            let bytes = scratch.get(..count).unwrap_or_default();
            let Phase::Refused(refusal) = &mut self.phase else {
                return Poll::Ready(Ok(()));
            };
            let passed = refusal
                .pass(self.client.splitter(), bytes)
                .map_err(|error| End::Fault(error.into()))?;
            match passed {
                Passed::More(at) => self.client.hold(bytes.get(at..).unwrap_or_default()),
                Passed::Terminate => return Poll::Ready(Err(End::Terminated)),
                Passed::End(at) => {
                    self.client.hold(bytes.get(at..).unwrap_or_default());
                    self.unread = self.client.held() > 0;
                    reply::ready_for_query(self.client.output());
                    self.phase = Phase::Idle;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
