//! The exchange while a server connection is held: bytes in both directions, as they come, until the server
//! is idle again.
//!
//! Neither direction waits for the other. Each has at most one piece of unwritten bytes; while there is one,
//! its source is not read, so that a peer that does not read is felt by the one that sends to it and by
//! nobody else.

use std::{
    io,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;

use super::{
    cancel::{CancelTarget, Pending},
    error::{End, SessionError},
    request,
    worker::Worker,
};
use crate::{
    pool::Lease,
    server::{Heard, Home, parameters::Parameters, state::CloseReason},
    tls::Stream,
    types::PoolMode,
    wire::{
        backend::{ServerError, TransactionStatus},
        frame::Step,
        frontend::tag,
        reply,
        stream::{Filled, Framed},
    },
};

/// How long a server may take to let go of a connection whose client is gone.
const WIND_UP_LIMIT: Duration = Duration::from_secs(10);
/// Pauses between the cancel requests of that time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The client's side of an exchange.
pub(super) struct Client<'a> {
    pub(super) stream: &'a mut Framed<Stream>,
    pub(super) parameters: &'a mut Parameters,
    pub(super) worker: &'a Worker,
    pub(super) mode: PoolMode,
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
    /// Why nothing can be written to the server any more; what it has said is still read.
    unwritable: Option<io::Error>,
    cancels: Vec<Pending>,
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
    /// The same, and the client has said goodbye.
    Terminated,
}

/// What one direction did.
enum Moved {
    Something,
    Nothing,
}

impl Relay {
    pub(super) fn new(lease: Lease, since: Instant) -> Self {
        Self {
            lease,
            since,
            client: ClientSide::Open,
            farewell: None,
            mid_message: false,
            unwritable: None,
            cancels: Vec::new(),
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

    /// Moves what can be moved.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, client: &mut Client<'_>) -> Result<Progress, End> {
        loop {
            let up = self.client_to_server(cx, client)?;
            let down = self.server_to_client(cx, client)?;
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
                return Ok(Progress::Idle);
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
                return Ok(Moved::Nothing);
            }
        }
        if self.client == ClientSide::Terminated {
            return Ok(Moved::Nothing);
        }
        let mut scratch = client.worker.scratch();
        match client.stream.poll_fill(cx, &mut scratch) {
            Poll::Pending => Ok(Moved::Nothing),
            Poll::Ready(Err(error)) => Err(End::Left(Some(error))),
            Poll::Ready(Ok(Filled::Closed)) => Err(End::Left(None)),
            Poll::Ready(Ok(Filled::Bytes(count))) => {
                let bytes = scratch.get(..count).unwrap_or_default();
                self.forward_request(cx, client, bytes, BytesMut::new())?;
                Ok(Moved::Something)
            }
        }
    }

    /// Sends what the client said. `first` goes before it in the same write.
    fn forward_request(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<'_>,
        bytes: &[u8],
        mut first: BytesMut,
    ) -> Result<(), End> {
        let mut at = 0;
        let end = loop {
            let start = at;
            let step = client.stream.splitter().step(bytes, &mut at, |_| 0);
            match step.map_err(|error| End::Fault(error.into()))? {
                Step::Short => break at,
                Step::Whole {
                    tag: tag::TERMINATE, ..
                }
                | Step::Begun { tag: tag::TERMINATE } => {
                    self.client = ClientSide::Terminated;
                    break start;
                }
                Step::Whole { tag, .. } | Step::Begun { tag } if request::is_known(tag) => {
                    self.lease.note_sent(tag);
                }
                Step::Whole { tag, .. } | Step::Begun { tag } => {
                    return Err(End::Fault(SessionError::MessageType { tag }));
                }
            }
        };
        let said = bytes.get(..end).unwrap_or_default();
        self.mid_message = self.client == ClientSide::Open && !client.stream.splitter().at_boundary();
        self.lease.note_request(self.mid_message);
        client.stream.hold(bytes.get(at..).unwrap_or_default());
        self.lease.metrics().received.inc_by(said.len() as u64);
        let written = if first.is_empty() {
            self.lease.stream().poll_write_through(cx, said)
        } else {
            first.extend_from_slice(said);
            self.lease.stream().poll_write_through(cx, &first)
        };
        self.note_write(written);
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
            .hear(bytes)
            .map_err(|error| End::Fault(SessionError::ServerProtocol(error)))?;
        self.lease
            .stream()
            .hold(bytes.get(heard.consumed..).unwrap_or_default());
        self.answer_client(cx, client, bytes, heard)?;
        Ok(Moved::Something)
    }

    fn answer_client(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<'_>,
        bytes: &[u8],
        heard: Heard,
    ) -> Result<(), End> {
        if let Some(error) = heard.refused {
            // The client's own request stands behind the settings and may run without them.
            self.lease.mark_broken(CloseReason::Unfinished);
            return Err(End::Fault(SessionError::Settings(*error)));
        }
        let metrics = self.lease.metrics();
        metrics.transactions.inc_by(heard.transactions);
        if heard.farewell.is_some() {
            self.farewell = heard.farewell;
        }
        if !heard.early.is_empty() {
            client.stream.output().extend_from_slice(&heard.early);
        }
        if heard.forward_from > 0 && !self.lease.ledger().owes_pooler() {
            self.follow_parameters(client);
        } else if heard.settings && !self.lease.ledger().owes_pooler() {
            // The server itself is telling the client.
            client.parameters.follow(self.lease.parameters());
            self.lease.share_parameters(client.parameters);
        }
        let reply = bytes.get(heard.forward_from..heard.consumed).unwrap_or_default();
        self.lease.metrics().sent.inc_by(reply.len() as u64);
        if let Poll::Ready(Err(error)) = client.stream.poll_write_through(cx, reply) {
            return Err(End::Left(Some(error)));
        }
        let ledger = self.lease.ledger();
        if client.mode == PoolMode::Statement
            && ledger.is_settled()
            && ledger.status() != TransactionStatus::Idle
        {
            return Err(End::Fault(SessionError::TransactionBlock));
        }
        Ok(())
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

    /// A target for a cancel request of this client.
    pub(super) fn cancel(&mut self) -> CancelTarget {
        let (target, pending) = CancelTarget::new(&self.lease);
        self.cancels.push(pending);
        target
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
    pub(super) fn finish(self, mode: PoolMode) {
        let Self {
            mut lease,
            since,
            cancels,
            ..
        } = self;
        lease.metrics().transaction.observe(since.elapsed().as_secs_f64());
        let mut unsettled = Vec::new();
        for pending in cancels {
            match pending.try_settle() {
                Ok(None) => {}
                Ok(Some(reason)) => lease.mark_broken(reason),
                Err(pending) => unsettled.push(pending),
            }
        }
        if unsettled.is_empty() {
            return lease.release(mode);
        }
        let tasks = lease.tasks().clone();
        tasks.spawn("cancel hold", async move {
            for pending in unsettled {
                if let Some(reason) = pending.settle().await {
                    lease.mark_broken(reason);
                }
            }
            lease.release(mode);
        });
    }

    /// Closes the server connection of a client that is gone, after asking the server to stop working for
    /// nobody. Its place in the pool is free when the server has let go.
    pub(super) fn abandon(mut self) {
        self.lease.mark_broken(CloseReason::Unfinished);
        let (tasks, lease) = (self.lease.tasks().clone(), self.lease);
        tasks.spawn("abandon", wind_up(lease));
    }
}

/// A cancel finds nothing to cancel when the server has not yet begun with what it was sent, so it is repeated
/// until the server has closed the connection.
async fn wind_up(mut lease: Lease) {
    if lease.rehome(Home::Control).is_err() {
        return;
    }
    cancel(&lease).await;
    lease.say_goodbye();
    let deadline = Instant::now() + WIND_UP_LIMIT;
    let mut pause = FIRST_PAUSE;
    while tokio::time::timeout(pause, lease.closed()).await.is_err() && Instant::now() < deadline {
        cancel(&lease).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn cancel(lease: &Lease) {
    let (target, _) = CancelTarget::new(lease);
    target.deliver().await;
}
