//! The exchange while a server connection is held: bytes in both directions, as they come, until the server
//! is idle again.
//!
//! Neither direction waits for the other. Each has at most one piece of unwritten bytes; while there is one,
//! its source is not read, so that a peer that does not read is felt by the one that sends to it and by
//! nobody else.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};

use super::{
    activity::{News, Stage},
    cancel::CancelTarget,
    cancels::Cancels,
    error::{End, SessionError},
    forward::Stop,
    member::Member,
    recovery::{self, Recovery},
    signal,
    table::Entry,
    worker::Worker,
};
use crate::{
    config::SessionState,
    fault::Fault,
    lifecycle::Tasks,
    pool::Lease,
    server::{
        Duty, Heard, Home,
        parameters::{Parameters, Source},
        state::CloseReason,
    },
    tls::Stream,
    types::PoolMode,
    wire::{
        backend::{ServerError, TransactionStatus},
        reply,
        stream::{Filled, Framed},
    },
};

/// How often a client is looked at that is not read because the server does not read.
const LOOK: Duration = Duration::from_secs(1);

/// The longest reply that is kept a moment for the sake of fewer wake-ups; it is copied for that.
const MOST_PUT_OFF: usize = 8 * 1024;

/// How many messages of a client the server may still have to answer; each is remembered. Fewer than that fill
/// every buffer on the way, unless one side keeps sending and another never answers or never reads.
const MOST_UNANSWERED: usize = 1 << 20;

/// The client's side of an exchange.
pub(super) struct Client<'a> {
    pub(super) stream: &'a mut Framed<Stream>,
    pub(super) parameters: &'a mut Parameters,
    pub(super) worker: &'a Worker,
    pub(super) member: &'a Member,
    pub(super) entry: &'a Entry,
    pub(super) mode: PoolMode,
}

impl Client<'_> {
    /// Sends what the server has answered. If that is all that it owes, it waits until the worker has looked at the
    /// other servers that have answered: each of them has its next request first, and a program with many connections is
    /// woken once for several answers.
    fn answer(&mut self, cx: &mut Context<'_>, reply: &[u8], is_all: bool) -> io::Result<()> {
        if is_all && reply.len() <= MOST_PUT_OFF {
            self.stream.put_off(cx, reply);
            return Ok(());
        }
        match self.stream.poll_write_through(cx, reply) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(()),
        }
    }
}

/// A server connection that works for a client.
#[derive(Debug)]
pub(super) struct Relay {
    lease: Lease,
    since: Instant,
    client: ClientSide,
    farewell: Option<Box<ServerError>>,
    /// The server has been sent the beginning of a message and not its end. Data of a COPY that it has given up
    /// is such a message that nothing is owed for.
    mid_message: bool,
    /// What the client says next depends on what the server makes of what it has been sent.
    waits: bool,
    /// The client may have made functions.
    defines: bool,
    /// Why nothing can be written to the server any more; what it has said is still read.
    unwritable: Option<io::Error>,
    cancels: Cancels,
    news: News,
    /// The next look at a client that is not read.
    look: Option<Pin<Box<Sleep>>>,
}

/// Whether more is to come from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientSide {
    Open,
    /// It has said Terminate; the server finishes what it was given.
    Terminated,
}

/// Where an exchange stands when neither side can go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The server works, or one of the peers is slow.
    Busy,
    /// The server is idle and may be given back.
    Idle,
    /// It has been given to another client: nothing is left of the exchange.
    PassedOn,
    /// The server is idle, and the client has said goodbye.
    Terminated,
}

/// What one direction did.
enum Moved {
    Something,
    Nothing,
    /// It was the end, and another client has the server connection.
    PassedOn,
}

impl Relay {
    pub(super) fn new(mut lease: Lease, since: Instant) -> Self {
        lease.begin_query(since);
        Self {
            lease,
            since,
            client: ClientSide::Open,
            farewell: None,
            mid_message: false,
            waits: false,
            defines: false,
            unwritable: None,
            cancels: Cancels::default(),
            news: News::default(),
            look: None,
        }
    }

    /// Sends the beginning of a client's request, preceded by whatever gives the server the client's
    /// settings.
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<'_>,
        bytes: &[u8],
    ) -> Result<(), End> {
        let difference = self.lease.parameters().difference(client.parameters);
        let Some(difference) = difference else {
            self.lease.share_parameters(client.parameters);
            self.follow_parameters(client);
            return self.forward_request(cx, client, bytes, BytesMut::new());
        };
        let mut first = BytesMut::new();
        self.lease.synchronize(&difference, &mut first);
        self.forward_request(cx, client, bytes, first)
    }

    /// Joins an exchange whose request was sent before the client was woken, `unwritable` if that failed. What
    /// the client has said since follows, at once or when that has been answered.
    pub(super) fn go_on(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<'_>,
        waits: bool,
        unwritable: Option<io::Error>,
    ) -> Result<(), End> {
        self.unwritable = unwritable;
        self.follow_parameters(client);
        self.waits = waits;
        if waits || client.stream.held() == 0 {
            return Ok(());
        }
        let mut scratch = client.worker.scratch();
        let count = client.stream.take_held(&mut scratch);
        let bytes = scratch.get(..count).unwrap_or_default();
        self.forward_request(cx, client, bytes, BytesMut::new())
    }

    /// Moves what can be moved.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, client: &mut Client<'_>) -> Result<Progress, End> {
        loop {
            // Most of the time it is the server that has something, and that is the end of it.
            let down = self.server_to_client(cx, client)?;
            if let Moved::PassedOn = down {
                return Ok(Progress::PassedOn);
            }
            // Whatever is to be done about the server connection between two transactions comes before the next one.
            let ended =
                matches!(down, Moved::Something) && client.mode != PoolMode::Session && self.is_idle();
            let up = if ended {
                Moved::Nothing
            } else {
                self.client_to_server(cx, client)?
            };
            if self.lease.ledger().is_in_doubt() && !self.mid_message && self.lease.stream().is_drained() {
                let mut probe = BytesMut::new();
                self.lease.probe(&mut probe);
                let written = self.lease.stream().poll_write_through(cx, &probe);
                self.note_write(written);
                continue;
            }
            if self.client == ClientSide::Terminated
                && self.lease.ledger().waits_for_client()
                && self.lease.stream().is_drained()
            {
                // It will say nothing more, and the server would wait for ever.
                return Err(End::Left(None));
            }
            let settled = self.lease.ledger().is_settled() && self.lease.stream().is_drained();
            if settled && self.client == ClientSide::Terminated {
                return Ok(Progress::Terminated);
            }
            let idle = self.is_idle();
            if idle && client.mode != PoolMode::Session {
                self.note_definitions();
                if self.lease.owes_inquiry() {
                    self.inquire(cx, client)?;
                    continue;
                }
                if !self.is_pinned() {
                    return Ok(Progress::Idle);
                }
                if self.restore(cx, client) {
                    continue;
                }
            }
            if let (Moved::Nothing, Moved::Nothing) = (up, down) {
                return Ok(if idle { Progress::Idle } else { Progress::Busy });
            }
        }
    }

    fn client_to_server(&mut self, cx: &mut Context<'_>, client: &mut Client<'_>) -> Result<Moved, End> {
        if self.unwritable.is_some() {
            return Ok(Moved::Nothing);
        }
        if !self.lease.stream().is_drained() {
            let drained = self.lease.stream().poll_drain(cx);
            self.note_write(drained);
            if !self.lease.stream().is_drained() {
                return self.look_after(cx, client).map(|()| Moved::Nothing);
            }
        }
        let ledger = self.lease.ledger();
        let waits = self.waits && ledger.backlog() > 0 && !ledger.is_copying_in();
        if self.client == ClientSide::Terminated {
            return Ok(Moved::Nothing);
        }
        if waits || self.lease.inquires() {
            return self.look_after(cx, client).map(|()| Moved::Nothing);
        }
        self.look = None;
        // What has waited was not looked at.
        let unread = std::mem::take(&mut self.waits) && client.stream.held() > 0;
        let mut scratch = client.worker.scratch();
        let count = if unread {
            client.stream.take_held(&mut scratch)
        } else {
            match client.stream.poll_fill(cx, &mut scratch) {
                Poll::Pending => return Ok(Moved::Nothing),
                Poll::Ready(Err(error)) => return Err(End::Left(Some(error))),
                Poll::Ready(Ok(Filled::Closed)) => return Err(End::Left(None)),
                Poll::Ready(Ok(Filled::Bytes(count))) => count,
            }
        };
        let bytes = scratch.get(..count).unwrap_or_default();
        self.news.said = true;
        if let Some(answered) = self.signal(client, bytes) {
            client.stream.hold(bytes.get(answered..).unwrap_or_default());
            // What follows has not been looked at.
            self.waits = true;
            return Ok(Moved::Something);
        }
        self.forward_request(cx, client, bytes, BytesMut::new())?;
        Ok(Moved::Something)
    }

    /// Answers a request, in the middle of a transaction, to cancel or end another session that is named by the process
    /// id that its client was told. Says how long it was.
    fn signal(&self, client: &mut Client<'_>, bytes: &[u8]) -> Option<usize> {
        let ledger = self.lease.ledger();
        let status = ledger.status();
        if !ledger.is_settled() || status == TransactionStatus::Failed || self.mid_message {
            return None;
        }
        let ask = signal::read(bytes)?;
        ask.carry_out(client.member, client.entry, status, client.stream.output())
    }

    /// Finds out when a client has gone whose bytes the server does not take: as it is not read, its end would not
    /// be met, and it would keep a place in the pool for as long as the server likes.
    fn look_after(&mut self, cx: &mut Context<'_>, client: &Client<'_>) -> Result<(), End> {
        let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
        while look.as_mut().poll(cx).is_ready() {
            if client.stream.get_ref().socket().is_dead() {
                return Err(End::Left(None));
            }
            look.as_mut().reset(tokio::time::Instant::now() + LOOK);
        }
        Ok(())
    }

    /// Sends what the client said. `first` goes before it in the same write.
    fn forward_request(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<'_>,
        bytes: &[u8],
        mut first: BytesMut,
    ) -> Result<(), End> {
        let sender = client.member.sender(client.parameters);
        let splitter = client.stream.splitter();
        let forwarded = sender
            .forward(&mut self.lease, splitter, bytes, &mut first)
            .map_err(End::Fault)?;
        if self.lease.ledger().backlog() > MOST_UNANSWERED {
            return Err(End::Fault(SessionError::Backlog));
        }
        let (said, rest) = bytes.split_at(forwarded.taken);
        match forwarded.stop {
            Some(Stop::Terminate) => self.client = ClientSide::Terminated,
            Some(Stop::Wait) => self.waits = true,
            None => {}
        }
        self.mid_message = self.client == ClientSide::Open && !splitter.at_boundary();
        self.lease.note_request(self.mid_message && !forwarded.collects);
        client.stream.hold(rest);
        forwarded.count(&mut self.lease, client.member.pool.metrics());
        if !self.lease.is_querying() && !self.lease.ledger().is_settled() {
            self.lease.begin_query(Instant::now());
        }
        if !forwarded.rewritten && !first.is_empty() {
            first.extend_from_slice(said);
        }
        let sent = if first.is_empty() && !forwarded.rewritten {
            said
        } else {
            &first
        };
        if !sent.is_empty() {
            let written = self.lease.poll_send(cx, sent);
            self.note_write(written);
        }
        if forwarded.flushes {
            self.lease.say_due(client.stream.output());
        }
        Ok(())
    }

    fn note_write(&mut self, written: Poll<io::Result<()>>) {
        if let Poll::Ready(Err(error)) = written {
            self.unwritable = Some(error);
        }
    }

    fn server_to_client(&mut self, cx: &mut Context<'_>, client: &mut Client<'_>) -> Result<Moved, End> {
        if !client.stream.is_drained() {
            match client.stream.poll_drain(cx) {
                Poll::Pending => return Ok(Moved::Nothing),
                Poll::Ready(written) => written.map_err(|error| End::Left(Some(error)))?,
            }
        }
        let mut scratch = client.worker.scratch();
        let count = match self.lease.stream().poll_fill(cx, &mut scratch) {
            Poll::Pending => return Ok(Moved::Nothing),
            Poll::Ready(Ok(Filled::Bytes(count))) => count,
            Poll::Ready(Ok(Filled::Closed)) => return Err(self.server_lost(None)),
            Poll::Ready(Err(error)) => return Err(self.server_lost(Some(error))),
        };
        let bytes = scratch.get(..count).unwrap_or_default();
        let heard = self
            .lease
            .hear(bytes, Some(&client.member.names))
            .map_err(|error| End::Fault(SessionError::ServerProtocol(error)))?;
        self.lease
            .stream()
            .hold(bytes.get(heard.consumed..).unwrap_or_default());
        let reply = self.note_answer(client, heard)?;
        let reply = bytes.get(reply).unwrap_or_default();
        self.give_early_cancels();
        self.replay(cx);
        self.learn(client)?;
        self.lease.metrics().sent.inc_by(reply.len() as u64);
        self.note_query_end(client);
        // The next client's request is sent before this one has its answer: the server waits for nobody.
        if self.may_be_passed_on(client) && self.lease.pass_on(self.since) {
            // That this client is gone is found when it is next written to or read.
            let _ = client.answer(cx, reply, true);
            return Ok(Moved::PassedOn);
        }
        let is_all = self.lease.ledger().is_settled();
        if let Err(error) = client.answer(cx, reply, is_all) {
            return Err(End::Left(Some(error)));
        }
        let ledger = self.lease.ledger();
        if client.mode == PoolMode::Statement
            && ledger.is_settled()
            && ledger.status() != TransactionStatus::Idle
        {
            return Err(End::Fault(SessionError::TransactionBlock));
        }
        Ok(Moved::Something)
    }

    /// Sends a batch again whose statements had become stale.
    fn replay(&mut self, cx: &mut Context<'_>) {
        let mut again = BytesMut::new();
        if self.lease.replay(&mut again) {
            let written = self.lease.stream().poll_write_through(cx, &again);
            self.note_write(written);
        }
    }

    /// Asks what the client's statements have left in the session.
    fn inquire(&mut self, cx: &mut Context<'_>, client: &mut Client<'_>) -> Result<(), End> {
        let mut question = BytesMut::new();
        if self.lease.inquire(client.parameters, &mut question) {
            let written = self.lease.stream().poll_write_through(cx, &question);
            self.note_write(written);
        }
        self.note_pins(client)
    }

    /// Gives a server connection that stays with its client what the client began with and has reset.
    fn restore(&mut self, cx: &mut Context<'_>, client: &Client<'_>) -> bool {
        let Some(difference) = self.lease.parameters().difference(client.parameters) else {
            return false;
        };
        let mut messages = BytesMut::new();
        self.lease.synchronize(&difference, &mut messages);
        let written = self.lease.stream().poll_write_through(cx, &messages);
        self.note_write(written);
        true
    }

    /// Takes the answer: what the client has set goes with it from now on, and what cannot go keeps it here.
    fn learn(&mut self, client: &mut Client<'_>) -> Result<(), End> {
        if !self.lease.inquires() {
            return Ok(());
        }
        if let Some(findings) = self.lease.take_findings() {
            let member = client.member;
            let fresh = member.pool.fresh_parameters();
            *client.parameters = client
                .parameters
                .learn(&findings, &member.settings, fresh.as_ref());
            member.note_application_name(client.parameters);
            self.lease.share_parameters(client.parameters);
        }
        self.note_pins(client)
    }

    fn note_pins(&mut self, client: &Client<'_>) -> Result<(), End> {
        let pins = self.lease.pins();
        client.member.note_pins(pins);
        if !pins.is_empty() && self.lease.session_state() == SessionState::Reject {
            return Err(End::Fault(SessionError::StateRejected(pins)));
        }
        Ok(())
    }

    fn note_definitions(&mut self) {
        if std::mem::take(&mut self.defines) {
            self.lease.note_definitions();
        }
    }

    /// Whether something keeps the server connection with its client beyond the transaction.
    pub(super) fn is_pinned(&self) -> bool {
        !self.lease.pins().is_empty() && self.lease.session_state() == SessionState::Pin
    }

    /// Follows what the server has said, and finds the client's part of it.
    fn note_answer(&mut self, client: &mut Client<'_>, heard: Heard) -> Result<Range<usize>, End> {
        if let Some(error) = heard.refused {
            // The client's own request stands behind the settings and may run without them.
            self.lease.mark_broken(CloseReason::Unfinished);
            return Err(End::Fault(SessionError::Settings(*error)));
        }
        self.defines |= heard.defines;
        let metrics = self.lease.metrics();
        metrics.transactions.inc_by(heard.transactions);
        self.news.answered |= heard.answered;
        self.news.ended |= heard.transactions > 0;
        let farewell_alone = heard
            .unasked_farewell
            .filter(|_| client.mode != PoolMode::Session);
        for code in heard.errors.iter().skip(usize::from(farewell_alone.is_some())) {
            self.lease.metrics().count_error(*code, code.blame_of_server());
            self.lease.note_error(*code);
        }
        if farewell_alone.is_none() && heard.farewell.is_some() {
            self.farewell = heard.farewell;
        }
        if !heard.early.is_empty() {
            client.stream.output().extend_from_slice(&heard.early);
        }
        // The server itself is telling the client.
        for (name, value) in &heard.told {
            client.parameters.set(name, value, Source::Reported);
        }
        if !heard.told.is_empty() {
            client.member.note_application_name(client.parameters);
        }
        if heard.pooler_answered && !self.lease.ledger().owes_pooler() {
            self.follow_parameters(client);
        } else if !heard.told.is_empty() {
            self.lease.share_parameters(client.parameters);
        }
        Ok(heard.forward_from..farewell_alone.unwrap_or(heard.consumed))
    }

    /// Where a transaction ends too, the time is taken then, for both.
    fn note_query_end(&mut self, client: &Client<'_>) {
        let ledger = self.lease.ledger();
        let ends_transaction = client.mode != PoolMode::Session
            && ledger.is_between_transactions()
            && !self.lease.needs_cleaning();
        if self.lease.is_querying() && self.lease.ledger().is_settled() && !ends_transaction {
            self.lease.end_query(Instant::now());
        }
    }

    fn may_be_passed_on(&mut self, client: &Client<'_>) -> bool {
        client.mode != PoolMode::Session
            && self.client == ClientSide::Open
            && self.cancels.is_settled()
            && self.unwritable.is_none()
            && self.farewell.is_none()
            && !self.lease.needs_cleaning()
            && !self.defines
            && self.is_idle()
    }

    /// Brings the client's settings in line with the server's, and tells it what is news: after the pooler has
    /// set what the client wants, that is only what nobody can set.
    fn follow_parameters(&mut self, client: &mut Client<'_>) {
        if self.lease.parameters().is(client.parameters) {
            return;
        }
        for (name, value) in client.parameters.follow(self.lease.parameters()) {
            reply::parameter_status(&name, &value, client.stream.output());
        }
        self.lease.share_parameters(client.parameters);
    }

    /// The server connection has ended. What the server itself said about it is all that is said; otherwise
    /// the client is told, unless it is in the middle of a message.
    fn server_lost(&mut self, error: Option<io::Error>) -> End {
        self.lease.mark_broken(CloseReason::Lost);
        let error = error.or_else(|| self.unwritable.take());
        match self.farewell.take() {
            Some(farewell) => End::ServerFarewell(farewell),
            None if self.can_speak() => End::Fault(SessionError::ServerLost(error)),
            None => End::Cut,
        }
    }

    /// Whether another server is the primary by now.
    pub(super) fn is_fenced(&self) -> bool {
        self.lease.is_fenced()
    }

    /// Notes why the session ends, for whoever traces the transaction.
    pub(super) fn note_fault(&mut self, error: &SessionError) {
        self.lease.note_error(error.sqlstate());
    }

    /// Sees to it that nobody else gets the server connection. Returns the server's last words, if the client has them.
    pub(super) fn give_up_server(&mut self) -> Option<Box<ServerError>> {
        self.lease.mark_broken(CloseReason::Unrouted);
        self.farewell.take()
    }

    /// Answers who asks for a cancel with a target: at once, or when the server has begun with what the client
    /// wants. Before that the cancel would hit what the pooler asks, and the client would be left without its
    /// settings.
    pub(super) fn cancel(&mut self, reply: oneshot::Sender<CancelTarget>) {
        if self.lease.ledger().owes_pooler() {
            self.cancels.defer(reply);
            return;
        }
        if self.lease.ledger().is_settled() {
            // Nothing runs, and what the client asks next is not meant. Dropping the reply says so.
            return;
        }
        let (target, pending) = CancelTarget::new(&self.lease, self.lease.target_in_force());
        self.cancels.add(pending);
        // Whoever asked may have gone; the target is dropped then, and nothing is held.
        let _ = reply.send(target);
    }

    fn give_early_cancels(&mut self) {
        if !self.cancels.has_deferred() || self.lease.ledger().owes_pooler() {
            return;
        }
        let replies = self.cancels.take_deferred();
        // Otherwise everything is answered, and dropping them says that there is nothing to cancel.
        if !self.lease.ledger().is_between_transactions() {
            replies.into_iter().for_each(|reply| self.cancel(reply));
        }
    }

    /// What becomes of a cancel, after its client too.
    pub(super) fn tasks(&self) -> &Tasks {
        self.lease.tasks()
    }

    /// Who waits for whom when neither side can go on at once. A server that has not answered everything is
    /// taken to work, although without a Sync or Flush it may have done and keep its answers to itself.
    pub(super) fn stage(&mut self) -> Stage {
        if self.is_idle() {
            return Stage::Held;
        }
        let ledger = self.lease.ledger();
        let unfinished = usize::from(self.mid_message);
        if ledger.is_copying_in() || ledger.unanswered() <= unfinished {
            Stage::InTransaction
        } else {
            Stage::Active
        }
    }

    /// What has happened since this was last asked.
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Whether the server is in no transaction and owes nothing, and no message is under way to or from it.
    pub(super) fn is_idle(&mut self) -> bool {
        let between_messages = !self.mid_message && self.lease.stream().splitter().at_boundary();
        between_messages && self.lease.ledger().is_between_transactions() && self.lease.stream().is_drained()
    }

    /// Whether an error can be said to the client: it is not in the middle of a message from the server. What
    /// is held back of a message has not been shown to it.
    pub(super) fn can_speak(&mut self) -> bool {
        self.lease.stream().splitter().at_boundary()
    }

    /// Gives the server connection back, or closes it if it cannot be given to another client. While a
    /// cancel is under way nobody gets it: the cancel might hit what the next client runs.
    pub(super) fn finish(mut self, mode: PoolMode) {
        self.note_definitions();
        let Self {
            mut lease,
            since,
            cancels,
            ..
        } = self;
        let now = Instant::now();
        lease.end_query(now);
        lease
            .metrics()
            .transaction
            .observe(now.saturating_duration_since(since));
        let mut unsettled = Vec::new();
        for pending in cancels.into_pending() {
            match pending.try_settle() {
                Ok(None) => {}
                Ok(Some(reason)) => lease.mark_broken(reason),
                Err(pending) => unsettled.push(pending),
            }
        }
        if unsettled.is_empty() {
            return lease.release(mode);
        }
        lease.vitals().set_duty(Duty::BeingCanceled);
        let tasks = lease.tasks().clone();
        tasks.spawn("cancel hold", async move {
            for pending in unsettled {
                if let Some(reason) = pending.settle().await {
                    lease.mark_broken(reason);
                }
            }
            // Requests of those who wait are only sent by their own worker, which alone knows what they do meanwhile.
            // An error is remembered, and closes the connection.
            let _ = lease.rehome(Home::Control);
            lease.release(mode);
        });
    }

    /// Takes the server connection from a client that is gone.
    pub(super) fn abandon(mut self, mode: PoolMode) {
        if self.mid_message {
            return self.close();
        }
        if self.unwritable.is_some() {
            self.lease.mark_broken(CloseReason::Lost);
        }
        Recovery::new(self.lease, self.cancels.into_pending(), mode).spawn();
    }

    /// The same without hope of using it again.
    pub(super) fn close(self) {
        recovery::close(self.lease);
    }
}
